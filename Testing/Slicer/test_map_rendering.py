"""What the user sees of Grad-CAM maps: over the scan, side by side, in space."""

from __future__ import annotations

import os

import numpy as np
import pytest
import slicer
import slicer.util
from image_baselines import compare, drawn

from BrainLandmarksLib import resources
from BrainLandmarksLib.geometry.grid import Grid, cube
from BrainLandmarksLib.mrml.gradcam import map_views
from BrainLandmarksLib.mrml.gradcam.map_nodes import MapNodes
from BrainLandmarksLib.mrml.landmarks.views import jump_to

CENTER = np.array([-4.0, 22.0, 12.0])
SIDE = np.array([28.0, -38.0, -8.0])


@pytest.fixture
def volume(desktop, scene):
    volume = slicer.util.loadVolume(str(resources.sample_head()), {"name": "Colin27"})
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    return volume


@pytest.fixture
def grid():
    """As large as the network's cube, and turned by 20 degrees."""
    turn = np.deg2rad(20)
    affine = cube((0.0, -15.0, 5.0), 208.0, 64).affine.copy()
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    return Grid((64, 64, 64), rotation @ affine)


def spots(grid, *places):
    """A made-up map with bright spots, so that no model has a say in the pictures."""
    ijk = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    world = grid.ijk_to_ras(ijk)
    values = [
        height * np.exp(-(((world - place) / width) ** 2).sum(-1))
        for place, width, height in places
    ]
    return np.max(values, axis=0).astype(np.float32)


@pytest.fixture
def maps(volume):
    made = MapNodes(volume)
    yield made
    made.close()


@pytest.fixture
def node(maps, grid):
    data = spots(grid, (CENTER, 18.0, 1.0), (SIDE, 24.0, 0.6))
    made = maps.put(data, grid, name="map", labels=("CC_G",), model="brain88", layer="first")
    map_views.set_threshold(made, 0.2)
    return made


def show(node, volume, **options):
    map_views.lay_over(node, 0.7, over=volume, **options)
    jump_to(CENTER)


def test_a_map_over_the_scan(desktop, volume, node):
    show(node, volume)
    compare(drawn(desktop, "Red"), "map_over_the_scan")


def test_a_map_with_its_legend(desktop, volume, node):
    show(node, volume)
    map_views.set_legend(node, "CC_G", on=True)
    compare(drawn(desktop, "Yellow"), "map_with_legend")


def test_the_bright_spot_is_where_the_map_says(desktop, volume, node):
    """Not by a picture: the pixel of the maximum is the brightest that the colours have."""
    show(node, volume)
    map_views.set_opacity(1.0)
    for view in ("Red", "Yellow", "Green"):
        x, y = desktop.layout.sliceWidget(view).pixel_of(CENTER)
        picture = drawn(desktop, view)
        pixel = picture[picture.shape[0] - 1 - round(y), round(x)] / 255
        np.testing.assert_allclose(pixel, (0.988, 0.998, 0.645), atol=0.12)


def test_two_maps_side_by_side(desktop, volume, maps, node, grid):
    data = spots(grid, (CENTER, 40.0, 1.0))
    other = maps.put(data, grid, name="o", labels=("CC_G",), model="other", layer="first")
    map_views.set_threshold(other, 0.2)
    both = map_views.SideBySide()
    both.start("Coronal")
    try:
        both.show(node, other, 0.7, over=volume)
        map_views.set_legend(node, "CC_G\nbrain88", on=True)
        map_views.set_legend(other, "CC_G\nother", on=True)
        jump_to(CENTER)
        left, right = drawn(desktop, "Red"), drawn(desktop, "Yellow")
    finally:
        both.stop()
    compare(np.hstack([left, right]), "maps_side_by_side")


def test_a_map_in_space(desktop, volume, node):
    jump_to((0.0, -15.0, 5.0))
    map_views.show_in_space(node, 0.2, on=True)
    try:
        compare(drawn(desktop, "3D"), "map_in_space")
    finally:
        map_views.show_in_space(node, 0.2, on=False)


def test_a_map_in_the_wrong_place_is_noticed(desktop, volume, maps, node, grid):
    """The tolerance does not swallow what the pictures are there for: a spot 8 mm off."""
    if os.environ.get("UPDATE_PICTURES"):
        pytest.skip("the pictures are being drawn")
    data = spots(grid, (CENTER + (8.0, 0.0, 0.0), 18.0, 1.0), (SIDE, 24.0, 0.6))
    wrong = maps.put(data, grid, name="w", labels=("CC_S",), model="brain88", layer="first")
    map_views.set_threshold(wrong, 0.2)
    show(wrong, volume)
    with pytest.raises(AssertionError):
        compare(drawn(desktop, "Red"), "map_over_the_scan")
