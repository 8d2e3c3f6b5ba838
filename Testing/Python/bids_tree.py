"""A small BIDS dataset of heads that differ, for the tests of cohorts."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from BrainLandmarksLib.imaging.volume import Volume


def write_scan(path: Path, head: Volume, seed: int = 0) -> Path:
    """The head with noise of its own as an 8-bit NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 2, head.data.shape)
    data = np.clip(head.data + noise, 0, 255).astype(np.uint8)
    nib.save(nib.Nifti1Image(data, head.grid.affine), path)
    return path


def write_dataset(folder: Path, head: Volume, names: list[str]) -> Path:
    """A dataset with a scan for each name, such as "sub-01_ses-1_T1w.nii.gz"."""
    for seed, name in enumerate(names):
        parts = [part for part in name.split("_") if part.startswith(("sub-", "ses-"))]
        write_scan(folder.joinpath(*parts, "anat", name), head, seed)
    about = {"Name": "small heads", "BIDSVersion": "1.10.1", "DatasetDOI": "doi:10.0.2.3/x"}
    (folder / "dataset_description.json").write_text(json.dumps(about))
    return folder
