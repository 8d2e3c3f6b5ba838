"""Placing a point with one click: Slicer's place mode, on a list that leaves no trace."""

from __future__ import annotations

import numpy as np
import pytest

from BrainLandmarksLib.mrml.place import PlaceOnce


@pytest.fixture
def placed():
    return []


@pytest.fixture
def place(scene, placed):
    made = PlaceOnce(lambda label, point: placed.append((label, point)))
    yield made
    made.stop()


def interaction(scene):
    return scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")


def click(scene, point):
    """What a click in a view does: it defines a point of the active list."""
    selection = scene.GetNodeByID("vtkMRMLSelectionNodeSingleton")
    node = scene.GetNodeByID(selection.GetActivePlaceNodeID())
    node.AddControlPoint(list(point), "")


def lists(scene):
    return scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode")


def test_a_click_gives_the_place_and_ends_the_mode(scene, place, placed):
    place.start("CC_G")
    assert place.active
    assert interaction(scene).GetCurrentInteractionMode() == interaction(scene).Place
    click(scene, (1.0, 2.0, 3.0))
    ((label, point),) = placed
    assert label == "CC_G"
    np.testing.assert_allclose(point, [1, 2, 3])
    assert not place.active
    assert interaction(scene).GetCurrentInteractionMode() != interaction(scene).Place
    assert lists(scene) == 0


def test_leaving_the_mode_without_a_click_is_told(scene, place, placed):
    place.start("CC_G")
    interaction(scene).SetCurrentInteractionMode(interaction(scene).ViewTransform)
    assert placed == [("CC_G", None)]
    assert lists(scene) == 0


def test_stopping_is_silent_and_can_be_repeated(scene, place, placed):
    place.start("CC_G")
    place.start("CC_S")
    assert lists(scene) == 1
    place.stop()
    place.stop()
    assert placed == []
    assert lists(scene) == 0


def test_a_closed_scene_ends_it(scene, place, placed):
    place.start("CC_G")
    scene.Clear(False)
    place.stop()
    assert lists(scene) == 0
