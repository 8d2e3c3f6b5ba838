"""Deformed copies of heads: label maps warped at random and annotated by rule again.

Moving landmarks with a deformation is not enough. A point at an equal distance along a contour, or
the farthest point of a lobe, is another piece of anatomy once the head is deformed: under the
generator's warps the points of the two boundary groups end up 6 to 7 mm from where the rules put
them. So the deformed label map itself is annotated, like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from BrainLandmarksLib.annotation import annotate
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.atomic import atomic_write
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.io.landmarks import read_landmarks, write_landmarks
from BrainLandmarksLib.processes import process_pool

from .deformation import Deformation
from .head import Head, nearest_voxels
from .label_maps import AnnotatedMap
from .lattice import Lattice
from .variation import ANATOMY

LATTICE = Lattice((200, 232, 220), 1.0, 1)
"""Voxels of a deformed copy's label map, in the canonical pose."""

_REACH_MM = 120.0
_ATTEMPTS = 5
_MAY_LOSE = 2
"""Landmarks that a deformation may take away (the slit of a temporal horn closes) before another
one is drawn."""


def make_deformed_copies(
    parents: Sequence[AnnotatedMap],
    mean_shape: np.ndarray,
    count: int,
    folder: Path,
    device: str = "cpu",
    workers: int | None = None,
) -> Iterator[Head]:
    """``count`` deformed copies of every parent, ready for rendering, under their parent's name.

    Their label maps and landmarks are kept in ``folder`` (``<parent>_<number>.nii.gz`` and
    ``.mrk.json``) and made only once. What a copy looks like depends on its parent, its
    number and ``mean_shape`` alone.

    Args:
        mean_shape: (K, 3) landmarks in the canonical pose, mm.
        workers: processes; by default one for each processor.

    Raises:
        UserError: a parent has no deformed copy that can be annotated.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [(parent, number) for parent in parents for number in range(count)]
    make = partial(_deformed_copy, mean_shape=mean_shape, folder=folder)
    with process_pool(workers) as pool:
        for head in pool.map(make, *zip(*tasks)) if tasks else ():
            yield replace(head, tissues=torch.from_numpy(head.tissues).to(device))


def _deformed_copy(
    parent: AnnotatedMap, number: int, *, mean_shape: np.ndarray, folder: Path
) -> Head:
    """One deformed copy, from ``folder`` if it is there; its tissues are a NumPy array.

    (Tensors would travel between processes as open files, of which a process may not have many.)
    """
    torch.set_num_threads(1)
    name = f"{parent.name}_{number:03d}"
    label_map, points = folder / f"{name}.nii.gz", folder / f"{name}.mrk.json"
    # The landmarks are written last, so they say that both files are there.
    if points.exists():
        # The head lies as the label map does.
        landmarks = read_landmarks(points, parent.landmarks.protocol, any_pose=True)
        child = AnnotatedMap(parent.name, read_image(label_map), landmarks)
    else:
        child = deformed(parent, mean_shape, number)
        with atomic_write(label_map) as path:
            nib.save(_image(child.volume), path)
        write_landmarks(points, child.landmarks)
    head = child.head(mean_shape)
    return replace(head, tissues=head.tissues.numpy())  # type: ignore[arg-type]


def deformed(parent: AnnotatedMap, mean_shape: np.ndarray, number: int) -> AnnotatedMap:
    """A deformed label map, annotated by rule.

    A warp can break an anatomy (tear the callosum, say); then another is drawn.

    Raises:
        UserError: none of the attempts has the landmarks that the parent has.
    """
    labels = torch.from_numpy(parent.volume.data.astype(np.int16))
    head = replace(parent.head(mean_shape), tissues=labels)
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng([number, attempt, *parent.name.encode()])
        noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
        deformation = Deformation.random(ANATOMY, rng, noise, _REACH_MM, "cpu")
        data = nearest_voxels(head, deformation.on_lattice(*LATTICE.axes("cpu")))
        volume = Volume(data.numpy().astype(np.float32), LATTICE.grid)
        try:
            landmarks = annotate(volume)
        except UserError:
            continue
        if (landmarks.missing & ~parent.landmarks.missing).sum() <= _MAY_LOSE:
            return AnnotatedMap(parent.name, volume, landmarks)
    raise UserError(
        f"no deformed copy of {parent.name} could be annotated; leave this label map out."
    )


def _image(volume: Volume) -> nib.Nifti1Image:
    return nib.Nifti1Image(volume.data.astype(np.int16), volume.grid.affine)
