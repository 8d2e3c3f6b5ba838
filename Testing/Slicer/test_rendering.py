"""What the user sees of landmarks: views drawn by Slicer's own code."""

from __future__ import annotations

import os

import numpy as np
import pytest
import slicer
import slicer.util
from image_baselines import compare, drawn

from BrainLandmarksLib import resources
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
from BrainLandmarksLib.mrml.landmarks.session import Session
from BrainLandmarksLib.mrml.landmarks.views import look_at, show_slices_in_3d
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

PROTOCOL = load_protocol("brain88")


@pytest.fixture
def session(desktop, scene):
    """The sample head with points on a spiral, so that no model has a say in the pictures."""
    volume = slicer.util.loadVolume(str(resources.sample_head()), {"name": "Colin27"})
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    turns = np.linspace(0, 5 * np.pi, len(PROTOCOL))
    radius = np.linspace(70, 20, len(PROTOCOL))
    points = np.column_stack(
        [0.4 * radius * np.sin(3 * turns), radius * np.cos(turns) - 15, radius * np.sin(turns)]
    )
    landmarks = LandmarkSet.from_points(PROTOCOL, points, "model", np.linspace(0, 1, len(PROTOCOL)))
    session = Session.begin(volume, landmarks, {})
    look_at(points)
    yield session
    session.end()


def test_the_active_point_is_named_and_marked_in_a_slice(desktop, session):
    session.selection.activate("CC_G")
    compare(drawn(desktop, "Yellow"), "slice_active_point")


def test_all_points_in_space(desktop, session):
    show_slices_in_3d(True)
    try:
        compare(drawn(desktop, "3D"), "space_all_points")
    finally:
        show_slices_in_3d(False)


def test_a_solo_group_in_space(desktop, session):
    group = PROTOCOL.groups[-1]
    session.nodes.show_only(landmark.label for landmark in PROTOCOL.members(group))
    compare(drawn(desktop, "3D"), "space_one_group")


@pytest.mark.parametrize("group", PROTOCOL.groups, ids=lambda group: group.name)
def test_a_point_has_its_groups_colour(desktop, session, group):
    """Not by a picture: the pixel where the point must be."""
    landmark = PROTOCOL.members(group)[0]
    session.selection.activate(landmark.label)
    session.selection.activate(None)  # no cross over it
    red = desktop.layout.sliceWidget("Red")
    x, y = red.pixel_of(session.review.current.point(landmark.label))
    picture = drawn(desktop, "Red")
    pixel = picture[picture.shape[0] - 1 - round(y), round(x)] / 255
    np.testing.assert_allclose(pixel, group.rgb, atol=0.08)


@pytest.mark.parametrize("view", ["Yellow", "3D"])
def test_the_points_of_removed_lists_are_drawn_no_more(desktop, scene, session, view):
    """Slicer goes on drawing them as long as their display nodes are there."""
    landmarks = session.review.current
    session.selection.activate("CC_G")
    session.selection.activate(None)
    before = drawn(desktop, view)
    other = LandmarkNodes.create(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"), PROTOCOL)
    other.show(LandmarkSet.from_points(PROTOCOL, landmarks.points + 2.0))
    assert (drawn(desktop, view) != before).any()
    other.remove()
    session.nodes.show_only(())
    session.nodes.show_only(PROTOCOL.labels)
    np.testing.assert_array_equal(drawn(desktop, view), before)


def test_a_wrong_picture_is_noticed(desktop, session):
    """The tolerance does not swallow what the pictures are there for: one hidden list."""
    if os.environ.get("UPDATE_PICTURES"):
        pytest.skip("the pictures are being drawn")
    session.nodes.show_only(landmark.label for landmark in PROTOCOL.members(PROTOCOL.groups[0]))
    with pytest.raises(AssertionError):
        compare(drawn(desktop, "3D"), "space_one_group")
