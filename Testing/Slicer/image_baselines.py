"""Views compared with pictures that were looked at.

    UPDATE_PICTURES=1 python -m pytest Testing/Slicer/test_rendering.py

draws the pictures in `pictures/` anew; look at them before committing.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

PICTURES = Path(__file__).parent / "pictures"
BLOCK = 6
"""Pictures are compared as means of blocks: drivers draw edges and letters a little differently."""

MEAN_DIFFERENCE, LARGEST_DIFFERENCE = 2.5, 60.0
"""Grey values of 255."""


def drawn(desktop, name):
    """What a view shows, (H, W, 3)."""
    desktop.app.processEvents()
    view = desktop.layout.views()[name]
    if name != "3D":
        return view.grab()
    # The box stands round what was there when it was last measured: not the same in every order
    # of the tests.
    node = desktop.layout.threeDWidget(0).mrmlViewNode()
    for switch in (node.SetBoxVisible, node.SetAxisLabelsVisible):
        switch(False)
    view.cameraNode().ResetClippingRange()
    try:
        return view.grab()
    finally:
        for switch in (node.SetBoxVisible, node.SetAxisLabelsVisible):
            switch(True)


def compare(picture, name):
    """Assert that a picture is the one that was looked at."""
    path = PICTURES / f"{name}.webp"
    if os.environ.get("UPDATE_PICTURES"):
        PICTURES.mkdir(exist_ok=True)
        Image.fromarray(picture).save(path, quality=80, method=6)
    expected = np.asarray(Image.open(path).convert("RGB"))
    assert picture.shape == expected.shape
    difference = np.abs(blocks(picture) - blocks(expected))
    assert difference.mean() < MEAN_DIFFERENCE
    assert difference.max() < LARGEST_DIFFERENCE


def blocks(picture):
    """Means over squares of BLOCK pixels."""
    height, width = (n // BLOCK * BLOCK for n in picture.shape[:2])
    cut = picture[:height, :width].astype(float)
    return cut.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK, 3).mean((1, 3))
