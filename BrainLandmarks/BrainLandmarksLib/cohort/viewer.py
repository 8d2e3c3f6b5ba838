"""NiiVue in a page that needs no network: the program from its package, the head made small.

NiiVue (https://github.com/niivue/niivue, BSD 2-clause) shows volumes and meshes in a browser. Its
Jupyter package ipyniivue carries the whole library as one JavaScript module, in a text that it
writes into the pages it saves. The same text is taken here when a report is made.
"""

from __future__ import annotations

import base64
import gzip
import importlib.metadata
import importlib.util
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from BrainLandmarksLib.figures.slices import grey_window
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

PACKAGE = "ipyniivue"
INSTALL = "pip install 'brainlandmarks[report]'"
VOXEL_MM = 2.0
"""Voxels of the head in the page are at least this large."""

# A JavaScript text with a percent-encoded module in it.
_ENCODED = re.compile(r"[\"'`]((?:[\w.!~*'()-]|%[0-9A-F]{2}){100000,})[\"'`]")


@dataclass(frozen=True)
class Bundle:
    """NiiVue as one JavaScript module.

    Args:
        module: Base64 of the gzip-compressed source.
        version: Of the package it was taken from.
        licence: Its terms, which have to go with it.
    """

    module: str
    version: str
    licence: str


def find_bundle() -> Bundle | None:
    """NiiVue from the installed package; None if it is not installed or has no such module."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    try:
        path = Path(spec.submodule_search_locations[0]) / "static" / "widget.js"
        encoded = _ENCODED.search(path.read_text(encoding="utf-8"))
        distribution = importlib.metadata.distribution(PACKAGE)
    except (OSError, importlib.metadata.PackageNotFoundError):
        return None
    if encoded is None or "Niivue" not in encoded[1]:
        return None
    module = urllib.parse.unquote(encoded[1])
    licence = "".join(
        file.read_text() for file in distribution.files or () if file.name.startswith("LICENSE")
    )
    return Bundle(_packed(module.encode("utf-8")), distribution.version, licence)


def small_head(volume: Volume) -> str:
    """Base64 of a compressed NIfTI image with voxels of `VOXEL_MM` or more, 8 bit, axes as before.

    The world coordinates are those of the image, so that its landmarks fit.
    """
    import nibabel as nib

    grid = volume.grid
    step = np.maximum(1.0, VOXEL_MM / grid.spacing)
    small = grid.coarser(step, np.floor((np.array(grid.shape) - 1) / step) + 1)
    low, high = grey_window(volume)
    grey = np.clip((resample(volume, small) - low) / (high - low), 0, 1) * 255
    return _packed(nib.Nifti1Image(np.rint(grey).astype(np.uint8), small.affine).to_bytes())


def nodes(landmarks: LandmarkSet) -> list[dict[str, Any]]:
    """The landmarks that are there: label, name, number of the group from 0, RAS mm."""
    protocol = landmarks.protocol
    groups = {group.name: number for number, group in enumerate(protocol.groups)}
    return [
        {
            "label": landmark.label,
            "name": landmark.name,
            "group": groups[landmark.group],
            "point": [round(float(x), 1) for x in landmarks.points[row]],
        }
        for row, landmark in enumerate(protocol)
        if landmarks.status[row] != "missing"
    ]


def _packed(content: bytes) -> str:
    # No time stamp: the same head makes the same page.
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode("ascii")
