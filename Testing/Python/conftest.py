"""What several test files share: small heads, image files and landmark sets."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from BrainLandmarksLib import resources
from BrainLandmarksLib.geometry import Grid
from BrainLandmarksLib.images import Volume
from BrainLandmarksLib.landmarks import LandmarkSet
from BrainLandmarksLib.protocol import Protocol, load_protocol

# Machines that run tests are often busy: a slow example is no failure here.
settings.register_profile(
    "project", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("project")

# Many small matrix products: more threads than cores only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "2")


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
