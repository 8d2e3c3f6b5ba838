"""Placing a point with one click: Slicer's place mode, on a list that leaves no trace.

The clicks are the mouse's, in a slice view with Slicer's own widgets: they go on using the list
after the event that reports the point, so a list that is removed in it ends the process here, too.
"""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util

from BrainLandmarksLib.mrml.landmarks.place_mode import PlaceOnce

HERE = (120, 140)


@pytest.fixture
def placed():
    return []


@pytest.fixture
def red(desktop, volume):
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    desktop.app.processEvents()
    return slicer.app.layoutManager().sliceWidget("Red")


@pytest.fixture
def place(desktop, red, placed):
    from BrainLandmarksLib.ui.common.section import later

    made = PlaceOnce(lambda label, point: placed.append((label, point)), later)
    yield made
    made.stop()
    desktop.app.processEvents()


@pytest.fixture
def click(desktop, red):
    """Move there, press and release; what was left for later is done, too."""

    def click(x=HERE[0], y=HERE[1]):
        desktop.app.processEvents()
        red.sliceView().click(x, y)
        desktop.app.processEvents()

    return click


@pytest.fixture
def own(scene):
    """A list of the user's, into which the next clicks go, one after the other."""
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "mine")
    selection(scene).SetReferenceActivePlaceNodeClassName("vtkMRMLMarkupsFiducialNode")
    selection(scene).SetActivePlaceNodeID(node.GetID())
    interaction(scene).SetPlaceModePersistence(1)
    yield node
    selection(scene).SetActivePlaceNodeID(None)
    interaction(scene).SetPlaceModePersistence(0)


def interaction(scene):
    return scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")


def selection(scene):
    return scene.GetNodeByID("vtkMRMLSelectionNodeSingleton")


def mode(scene):
    node = interaction(scene)
    return node.GetInteractionModeAsString(node.GetCurrentInteractionMode())


def lists(scene):
    return scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode")


def test_a_click_gives_the_place_and_ends_the_mode(scene, red, place, placed, click):
    place.start("CC_G")
    assert place.active
    assert mode(scene) == "Place"
    click()
    ((label, point),) = placed
    assert label == "CC_G"
    np.testing.assert_allclose(red.pixel_of(point), HERE, atol=1e-3)
    assert not place.active
    assert mode(scene) == "ViewTransform"
    assert lists(scene) == 0
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsDisplayNode") == 0


def test_one_click_after_the_other(scene, place, placed, click):
    for n, label in enumerate(("CC_G", "CC_S", "CC_G")):
        place.start(label)
        click(100 + 20 * n, 120)
    assert [label for label, _ in placed] == ["CC_G", "CC_S", "CC_G"]
    assert placed[2][1][0] != placed[0][1][0]
    click(160, 160)  # the mode is over: this one places nothing
    assert len(placed) == 3
    assert lists(scene) == 0


def test_a_click_goes_into_no_list_of_the_users(scene, own, place, placed, click):
    place.start("CC_G")
    click()
    assert len(placed) == 1
    assert own.GetNumberOfControlPoints() == 0
    assert selection(scene).GetActivePlaceNodeID() == own.GetID()
    assert selection(scene).GetActivePlaceNodeClassName() == "vtkMRMLMarkupsFiducialNode"
    assert interaction(scene).GetPlaceModePersistence() == 1
    place.start("CC_G")
    place.stop()
    assert selection(scene).GetActivePlaceNodeID() == own.GetID()
    # Which their next click goes into, and the one after that.
    interaction(scene).SetCurrentInteractionMode(interaction(scene).Place)
    click()
    click(150, 150)
    assert own.GetNumberOfDefinedControlPoints() == 2
    interaction(scene).SetCurrentInteractionMode(interaction(scene).ViewTransform)


def test_a_list_that_the_user_deleted_is_not_given_back(desktop, scene, own, place, click):
    place.start("CC_G")
    scene.RemoveNode(own)
    click()
    assert not selection(scene).GetActivePlaceNodeID()


def test_leaving_the_mode_without_a_click_is_reported(desktop, scene, place, placed):
    place.start("CC_G")
    interaction(scene).SetCurrentInteractionMode(interaction(scene).AdjustWindowLevel)
    desktop.app.processEvents()
    assert placed == [("CC_G", None)]
    assert mode(scene) == "AdjustWindowLevel"  # what the user wanted instead
    assert lists(scene) == 0
    interaction(scene).SetCurrentInteractionMode(interaction(scene).ViewTransform)


def test_a_right_click_leaves_the_mode(desktop, scene, red, place, placed):
    place.start("CC_G")
    for event in ("EnterEvent", "MouseMoveEvent", "RightButtonPressEvent",
                  "RightButtonReleaseEvent"):  # fmt: skip
        red.sliceView().mouse(event, *HERE)
    desktop.app.processEvents()
    assert placed == [("CC_G", None)]
    assert lists(scene) == 0


def test_placing_something_else_instead_is_reported(desktop, scene, place, placed):
    place.start("CC_G")
    line = scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode")
    selection(scene).SetReferenceActivePlaceNodeClassName("vtkMRMLMarkupsLineNode")
    selection(scene).SetActivePlaceNodeID(line.GetID())
    desktop.app.processEvents()
    assert placed == [("CC_G", None)]
    assert mode(scene) == "Place"
    assert selection(scene).GetActivePlaceNodeID() == line.GetID()
    selection(scene).SetActivePlaceNodeID(None)
    interaction(scene).SetCurrentInteractionMode(interaction(scene).ViewTransform)


def test_stopping_is_silent_and_can_be_repeated(desktop, scene, place, placed):
    place.start("CC_G")
    place.start("CC_S")
    desktop.app.processEvents()
    assert lists(scene) == 1
    place.stop()
    place.stop()
    assert mode(scene) == "ViewTransform"
    desktop.app.processEvents()
    assert placed == []
    assert lists(scene) == 0


def test_a_closed_scene_ends_it(desktop, scene, place, placed):
    place.start("CC_G")
    scene.Clear(False)
    place.stop()
    desktop.app.processEvents()
    assert lists(scene) == 0
