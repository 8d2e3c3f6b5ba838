"""What several segmentations say of a scan, as one map of classes to learn from.

The first one leads. Where another one says something else, and not only at a boundary, nothing is
learnt: one of them is wrong there. Boundaries are where any two segmentations differ by a voxel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy import ndimage

from BrainLandmarksLib.annotation.schemes import AUTO, detect_scheme, load_scheme, numbers
from BrainLandmarksLib.dataset import Dataset, Entry
from BrainLandmarksLib.dataset.dataset import image_hash
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.atomic import atomic_write
from BrainLandmarksLib.io.checksum import sha256
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.io.pairing import find_images, image_of_same_head
from BrainLandmarksTrainLib.engine.segmentation import IGNORE

from .classes import Classes

BOUNDARY_MM = 4.0
"""Where two segmentations differ in a layer that is no thicker, they differ in a boundary."""

Maps = Mapping[str, Path]
"""Label scheme to the label map of a scan in it, the most trusted first."""

Labels = tuple[np.ndarray, Grid]
"""A label map in the library's numbers, int32 (I, J, K), and its voxels."""


@dataclass(frozen=True)
class ClassMap:
    """A map of classes in a file; ``affine`` is ijk -> RAS.

    ``readings`` (C, C): what a class of it may be (`Classes.readings`).
    """

    file: Path
    affine: FloatArray
    readings: np.ndarray

    def voxels(self) -> torch.Tensor:
        """The classes, (I, J, K) uint8, `IGNORE` where nothing is known."""
        return load_file(self.file)["classes"]


def find_segmentations(
    dataset: Dataset,
    entries: Sequence[Entry],
    folders: Mapping[str, str],
    images: str | None = None,
) -> dict[str, Maps]:
    """The label maps of scans of a dataset, by the number of the scan; scans without are absent.

    Args:
        folders: Label scheme to folder, the most trusted first.
        images: Folder of the scans that the dataset was made of, after which the label maps are
            called; by default these are called as the dataset's own images.

    Raises:
        UserError: a folder is not there, or several maps could be of one scan.
    """
    files = {scheme: find_images(folder) for scheme, folder in folders.items()}
    named = {entry.identity: dataset.folder / entry.image for entry in entries}
    if images is not None:
        known = {image_hash(read_image(path)): path for path in find_images(images)}
        named = {e.identity: known[e.image_hash] for e in entries if e.image_hash in known}
        if not named:
            raise UserError(
                f"no scan of {dataset.folder} is an image of {images}; give the folder that the "
                "dataset was made of."
            )
    found: dict[str, Maps] = {}
    for identity, path in named.items():
        own = {
            scheme: one
            for scheme, those in files.items()
            if (one := image_of_same_head(path, those)) is not None
        }
        if own:
            found[identity] = own
    return found


def read_class_map(maps: Maps, classes: Classes, cache: Path) -> ClassMap:
    """The classes that segmentations of a scan agree on; what is in ``cache`` already is used.

    Raises:
        UserError: a map or a scheme cannot be read.
    """
    cache.mkdir(parents=True, exist_ok=True)
    parts: list[str | Path] = [f"{BOUNDARY_MM} {classes.structures}\n"]
    for scheme, path in maps.items():
        parts += [f"{scheme}\n", path]
    file = cache / f"{sha256(parts)[:24]}.classes.safetensors"
    if not file.is_file():
        read = [canonical(read_image(path), scheme) for scheme, path in maps.items()]
        merged, readings = agreed(read, classes)
        tensors = {
            "classes": torch.from_numpy(merged),
            "affine": torch.from_numpy(read[0][1].affine.copy()),
            "readings": torch.from_numpy(readings),
        }
        with atomic_write(file) as unfinished:
            save_file(tensors, unfinished)
    kept = load_file(file)
    return ClassMap(file, kept["affine"].double().numpy(), kept["readings"].numpy())


def canonical(volume: Volume, scheme: str = AUTO) -> Labels:
    """A label map in the library's numbers.

    Raises:
        UserError: there is no such scheme, or none fits.
    """
    whole = np.rint(volume.data).astype(np.int32)
    known = detect_scheme(whole) if scheme == AUTO else load_scheme(scheme)
    return known.canonical(whole, volume.grid.spacing), volume.grid


def agreed(maps: Sequence[Labels], classes: Classes) -> tuple[np.ndarray, np.ndarray]:
    """Classes on the grid of the first map, uint8, `IGNORE` where others contradict it for good.

    Two labels contradict each other where they can be no class in common. Parts of others (the
    callosum in the white matter) end where one of the maps says: of them none contradicts the
    first.

    Args:
        maps: The most trusted first.

    Returns:
        The classes, and what a class may be.
    """
    (labels, grid), *others = maps
    first = classes.index(labels)
    readings = classes.readings(numbers(labels))
    layers = max(1, round(BOUNDARY_MM / 2 / float(grid.spacing.mean())))
    merged = first.copy()
    for labels, own in others:
        to_own = np.linalg.inv(own.affine) @ grid.affine
        other = ndimage.affine_transform(
            classes.index(labels), to_own, output_shape=grid.shape, order=0, output=np.uint8
        )
        alike = (readings[:, None] & classes.readings(numbers(labels))[None]).any(-1)
        apart = ndimage.binary_opening(~alike[first, other], iterations=layers)
        merged[apart & ~np.isin(first, classes.parts)] = IGNORE
    return merged, readings
