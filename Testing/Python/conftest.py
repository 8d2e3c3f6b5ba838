"""What several test files share: small heads, image files and landmark sets."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from BrainLandmarksLib import resources
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.protocol import Protocol, load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

# Machines that run tests are often busy: a slow example is no failure here.
settings.register_profile(
    "project", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("project")

# Flower needs Python 3.11; and no test reports to anybody.
_FEDERATED = ["test_federation.py", "test_federation_demo.py"]
collect_ignore = [] if importlib.util.find_spec("flwr") else _FEDERATED
os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")


@pytest.fixture(scope="session")
def brain88() -> Protocol:
    return load_protocol("brain88")


@pytest.fixture(scope="session")
def sample_head() -> Path:
    return resources.sample_head()


@pytest.fixture
def some_landmarks(brain88: Protocol) -> LandmarkSet:
    """Random points of every kind a file can hold: sure, unsure, edited, missing."""
    rng = np.random.default_rng(88)
    points = rng.normal(0, 60, (len(brain88), 3))
    points[[2, 40, 87]] = np.nan
    landmarks = LandmarkSet.from_points(brain88, points, "model", rng.random(len(brain88)))
    landmarks.status[0] = "edited"
    landmarks.confidence[0] = np.nan
    landmarks.status[1] = "confirmed"
    return landmarks


@pytest.fixture(scope="session")
def blob_head() -> Volume:
    """A smooth, lopsided ball of tissue in air, 2 mm voxels, RAS: cheap and without symmetry."""
    grid = Grid(
        (90, 100, 95), np.array([[2, 0, 0, -90], [0, 2, 0, -98], [0, 0, 2, -94], [0, 0, 0, 1.0]])
    )
    ras = grid.ijk_to_ras(np.moveaxis(np.indices(grid.shape), 0, -1))
    radius = np.linalg.norm(ras / [65, 80, 70], axis=-1)
    tissue = 1 / (1 + np.exp((radius - 1) * 20))
    for center, width, height in (
        ((30, 20, 10), 15, 0.8),
        ((-20, 40, 30), 12, -0.4),
        ((0, -50, -20), 18, 0.6),
    ):
        tissue += height * np.exp(-(((ras - center) / width) ** 2).sum(axis=-1))
    return Volume((100 * np.clip(tissue, 0, None)).astype(np.float32), grid)


@pytest.fixture(scope="session")
def tiny_protocol(tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    """Five landmarks in two groups: no code may count on 88."""
    names = ["A_L", "A_R", "B_M", "C_L", "C_R"]
    landmarks = [
        {
            "index": index,
            "label": label,
            "name": f"point {label}",
            "group": "Front" if index <= 3 else "Back",
            "side": label[-1],
            "role": "primary",
            "rule": "Somewhere.",
            "mirror": label[:-1] + {"L": "R", "R": "L", "M": "M"}[label[-1]],
        }
        for index, label in enumerate(names, start=1)
    ]
    groups = [
        {"name": "Front", "first": 1, "last": 3, "color": "#3674fe"},
        {"name": "Back", "first": 4, "last": 5, "color": "#ffab00"},
    ]
    path = tmp_path_factory.mktemp("protocol") / "tiny.json"
    content = {"name": "tiny", "title": "Tiny", "groups": groups, "landmarks": landmarks}
    path.write_text(json.dumps(content))
    return load_protocol(path)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, tiny_protocol: Protocol) -> Path:
    """A model folder that runs in no time and finds five points in the middle of the image."""
    import torch

    from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
    from BrainLandmarksLib.network.model_files import CropSpec, Model, ModelSpec, save_model

    torch.manual_seed(5)
    networks = [
        HighRes3DNet(out_channels=5, features=2, residual_blocks=1, penultimate=8).eval()
        for _ in range(2)
    ]
    # It has learnt nothing and puts all points into the middle: so do the heads that it knows.
    shape = np.array([[-9, 8, 0], [9, 8, 0], [0, 0, 7], [-6, -8, 1], [6, -8, -4.0]]) / 8
    spec = ModelSpec("tiny", CropSpec(16, 208.0), CropSpec(16, 256.0), shape)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return save_model(Model(tiny_protocol, *networks, spec), folder)


@pytest.fixture(scope="session")
def head_file(tmp_path_factory: pytest.TempPathFactory, blob_head: Volume) -> Path:
    """`blob_head` as a NIfTI file."""
    import nibabel as nib

    path = tmp_path_factory.mktemp("images") / "head.nii.gz"
    nib.save(nib.Nifti1Image(blob_head.data, blob_head.grid.affine), path)
    return path


@pytest.fixture(scope="session")
def phantom_truth() -> LandmarkSet:
    """The landmarks of the made-up head, by rule."""
    from phantom import phantom_head

    from BrainLandmarksLib.annotation import annotate

    return annotate(phantom_head())


@pytest.fixture(scope="session")
def twelve_heads(tmp_path_factory: pytest.TempPathFactory, phantom_truth: LandmarkSet) -> Path:
    """The folder of a dataset of 12 small heads of 6 subjects; only to be read."""
    from phantom import phantom_head, phantom_scan, small_heads

    folder = tmp_path_factory.mktemp("datasets") / "twelve"
    small_heads(folder, phantom_truth, phantom_scan(phantom_head()))
    return folder


@pytest.fixture
def heads(tmp_path: Path, twelve_heads: Path) -> Path:
    """A copy of `twelve_heads` to change."""
    import shutil

    return Path(shutil.copytree(twelve_heads, tmp_path / "heads"))
