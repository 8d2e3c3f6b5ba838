"""Grad-CAM maps as files: NIfTI in the scan's space, and a JSON file that says what they are."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from BrainLandmarksLib import __version__
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.gradcam import SETS
from BrainLandmarksLib.imaging.volume import ImageArray
from BrainLandmarksLib.io.atomic import atomic_write
from BrainLandmarksLib.protocol import Protocol

if TYPE_CHECKING:
    from BrainLandmarksLib.gradcam.explanation import Explanation

FORMAT = 1
"""Version of the JSON file."""

MEANING = (
    "A map shows which parts of the image spoke for the landmark in this layer of the network. It "
    "is no measure of confidence: it says neither how certain nor how accurate the landmark is."
)

_READ = {
    "argmax": "y is the landmark's heatmap at its highest voxel",
    "softmax": "y is the landmark's heatmap, interpolated, at the point of its spatial softmax",
}


def normalised(maps: ImageArray) -> tuple[ImageArray, FloatArray]:
    """Maps (n, ...) divided each by its maximum, and the maxima (n,); an empty map stays 0."""
    maxima = maps.reshape(len(maps), -1).max(axis=1).astype(np.float64)
    divisors = np.where(maxima > 0, maxima, 1.0).astype(maps.dtype)
    return maps / divisors.reshape(-1, *[1] * (maps.ndim - 1)), maxima


def write_map(path: str | os.PathLike[str], data: ImageArray, grid: Grid, title: str) -> None:
    """Write normalised maps, (N, N, N) or (N, N, N, n), as a NIfTI file, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    import nibabel as nib

    image = nib.Nifti1Image(np.asarray(data, dtype=np.float32), grid.affine)
    # The cube is turned, not sheared, so both forms can say where it lies, and readers differ in
    # which one they trust.
    image.set_sform(grid.affine, 1)
    image.set_qform(grid.affine, 1)
    image.header.set_xyzt_units("mm")
    image.header["cal_min"], image.header["cal_max"] = 0, 1
    image.header["descrip"] = title[:79].encode("ascii", "replace")
    with atomic_write(path) as unfinished:
        nib.save(image, unfinished)


def read_map(path: str | os.PathLike[str]) -> tuple[ImageArray, Grid]:
    """A map, (N, N, N), as `write_map` wrote it, and where it lies in the world, RAS millimetres.

    Raises:
        UserError: the file is missing or damaged.
    """
    import nibabel as nib

    try:
        image = nib.Nifti1Image.from_filename(path)
        data = np.asarray(image.dataobj, dtype=np.float32)
    except (OSError, ValueError, nib.filebasedimages.ImageFileError) as error:
        raise UserError(f"the map {Path(path).name} cannot be read; make it again.") from error
    return data, Grid(data.shape, image.affine)


def file_names(image: str, protocol: Protocol, rows: Sequence[int], sets: str) -> list[str]:
    """Names of all files that `write_maps` writes for landmarks of an image.

    Args:
        image: its name without suffix.
        sets: one of SETS.

    Raises:
        UserError: there is no such set.
    """
    return [*_plan(image, protocol, rows, sets), _record_name(image)]


def write_maps(
    folder: str | os.PathLike[str],
    explanation: Explanation,
    rows: Sequence[int],
    *,
    image: str,
    sets: str = "landmark",
) -> list[Path]:
    """Write the maps of landmarks, and the JSON file.

    Args:
        folder: a folder that exists.
        rows: landmarks (from 0), ascending.
        image: name of the image without suffix; the files' names begin with it.
        sets: one of SETS.

    Returns:
        The files, the JSON file last.

    Raises:
        UserError: there is no such set, or a file cannot be written.
    """
    maps, maxima = normalised(explanation.maps(rows))
    place = {row: number for number, row in enumerate(rows)}
    written, entries = [], []
    for name, members in _plan(image, explanation.protocol, rows, sets).items():
        numbers = [place[row] for row in members]
        data = np.moveaxis(maps[numbers], 0, -1) if sets == "4d" else maps[numbers].max(axis=0)
        path = Path(folder) / name
        write_map(path, data, explanation.grid, f"Grad-CAM, {explanation.seen.layer}")
        written.append(path)
        for volume, number in enumerate(numbers):
            where = {"file": name, "volume": volume} if sets == "4d" else {"file": name}
            entry = entry_of(explanation, rows[number], float(maxima[number]))
            entries.append({**where, **entry})
    record = {**record_of(explanation), "image": image, "files": sets, "maps": entries}
    path = Path(folder) / _record_name(image)
    with atomic_write(path) as unfinished:
        text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
        unfinished.write_text(text + "\n", encoding="utf-8")
    return [*written, path]


def record_of(explanation: Explanation) -> dict[str, Any]:
    """What the maps of an explanation have in common, as plain JSON values."""
    seen, protocol, grid = explanation.seen, explanation.protocol, explanation.grid
    return {
        "format": FORMAT,
        "content": "Grad-CAM maps",
        "meaning": MEANING,
        "values": "each landmark's map divided by its raw_maximum, so 0 to 1; all 0 if that is 0",
        "formula": "ReLU of the sum over the layer's features of (mean over the voxels of "
        f"dy / d feature) x feature; {_READ[seen.target]}",
        "library": f"BrainLandmarks {__version__}",
        "model": explanation.model.spec.name,
        "protocol": {"name": protocol.name, "hash": protocol.hash},
        "layer": seen.layer,
        "features": seen.features,
        "target": seen.target,
        "plausibility": round(explanation.detection.plausibility, 4),
        "space": "RAS millimetres",
        "grid": {"shape": list(grid.shape), "ijk_to_ras": grid.affine.tolist()},
    }


def entry_of(explanation: Explanation, row: int, raw_maximum: float) -> dict[str, Any]:
    """What is particular to one landmark's map, as plain JSON values."""
    landmark = explanation.protocol.landmarks[row]
    point = explanation.detection.landmarks.points[row]
    return {
        "index": landmark.index,
        "label": landmark.label,
        "group": landmark.group,
        "raw_maximum": raw_maximum,
        "score": float(explanation.seen.scores[row]),
        "read_at": [round(float(x), 3) for x in explanation.read_at[row]],
        "landmark": [round(float(x), 3) for x in point] if np.isfinite(point).all() else None,
    }


def _plan(image: str, protocol: Protocol, rows: Sequence[int], sets: str) -> dict[str, list[int]]:
    """Name of each file of maps to the rows of its landmarks."""
    start = f"{image}_gradcam"
    if sets == "landmark":
        return {f"{start}_{protocol.landmarks[row].label}.nii.gz": [row] for row in rows}
    if sets == "group":
        members = {
            f"{start}_{group.slug}.nii.gz": [row for row in rows if row + 1 in group.indices]
            for group in protocol.groups
        }
        return {name: own for name, own in members.items() if own}
    if sets == "4d":
        return {f"{start}.nii.gz": list(rows)}
    raise UserError(f"maps go into files by {', '.join(SETS)}, not by {sets!r}.")


def _record_name(image: str) -> str:
    return f"{image}_gradcam.json"
