"""Align to another head, and what has changed: transform nodes, a table and arrows in the scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from scipy.spatial.transform import Rotation

from BrainLandmarksLib import resources
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.mrml.landmarks import alignment
from BrainLandmarksLib.mrml.landmarks.alignment import (
    align,
    alignment_of,
    landmarks_of,
    undo_alignment,
)
from BrainLandmarksLib.mrml.landmarks.change_nodes import (
    FollowingArrows,
    change_nodes,
    show_change,
)
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
from BrainLandmarksLib.mrml.landmarks.session import Session
from BrainLandmarksLib.network.landmark_errors import LandmarkErrors
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.registration.report import region_table

MODULE = Path(__file__).parents[2] / "BrainLandmarks" / "BrainLandmarks.py"
PROTOCOL = load_protocol("brain88")
HEAD = read_landmarks(resources.sample_landmarks("brain88"), PROTOCOL).points


def motion():
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [10, -20, 30], degrees=True).as_matrix()
    affine[:3, 3] = 12, -30, 5
    return affine


def with_landmarks(volume, points, model="brain88"):
    found = LandmarkSet.from_points(PROTOCOL, points, "model", np.full(len(PROTOCOL), 0.95))
    return Session.begin(volume, found, {"model": model})


@pytest.fixture
def other(scene, volume):
    """A second volume with the head, and a little that only a warp can undo."""
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Template")
    slicer.util.updateVolumeFromArray(node, slicer.util.arrayFromVolume(volume).copy())
    with_landmarks(node, HEAD).end()
    return node


@pytest.fixture
def session(volume):
    moved = LandmarkSet.from_points(PROTOCOL, HEAD).moved(motion()).points
    made = with_landmarks(volume, moved + 1.5 * np.sin(moved[:, [1, 2, 0]] / 40))
    yield made
    made.end()


def linear(scene, turn=25):
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "outer")
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("z", turn, degrees=True).as_matrix()
    affine[:3, 3] = 3, 4, 5
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(affine.ravel())
    node.SetMatrixTransformToParent(matrix)
    return node


@pytest.mark.parametrize("kind", ["rigid", "similarity", "affine", "thin-plate"])
@pytest.mark.parametrize("under", [False, True])
def test_volume_and_landmarks_go_under_a_transform_and_undo_takes_it_away(
    scene, volume, other, session, kind, under
):
    outer = linear(scene) if under else None
    if outer is not None:
        volume.SetAndObserveTransformNodeID(outer.GetID())
    before = session.review.current.points.copy()
    moves = slicer.util.getNodesByClass("vtkMRMLTransformNode")
    aligned = align(volume, other, kind)
    node = aligned.node
    assert node.IsLinear() == (kind != "thin-plate")
    assert volume.GetParentTransformNode() is node
    assert node.GetParentTransformNode() is outer
    assert {each.GetParentTransformNode() for each in session.nodes.lists} == {node}
    shown = session.nodes.read().points
    np.testing.assert_allclose(shown, aligned.registration.carried(before), atol=0.05)
    away = np.linalg.norm(shown - HEAD, axis=1)
    assert np.median(away) < (0.5 if kind == "thin-plate" else 3.0)
    # The review went along, and there is no edit on record.
    np.testing.assert_allclose(session.review.current.points, shown, atol=1e-3)
    assert session.review.edits == []
    session.corrections.move("CC_G", shown[PROTOCOL.by_label("CC_G").index - 1] + 2)
    assert [edit.label for edit in session.review.edits] == ["CC_G"]
    session.corrections.undo()

    undo_alignment(volume)
    assert volume.GetParentTransformNode() is outer
    np.testing.assert_allclose(session.nodes.read().points, before, atol=2e-3)
    np.testing.assert_allclose(session.review.current.points, before, atol=2e-3)
    assert slicer.util.getNodesByClass("vtkMRMLTransformNode") == moves
    with pytest.raises(UserError, match="not lie under an alignment"):
        undo_alignment(volume)


def test_aligned_once_more_is_one_transform(scene, volume, other, session):
    before = len(slicer.util.getNodesByClass("vtkMRMLTransformNode"))
    first = align(volume, other, "rigid").node
    second = align(volume, other, "affine").node
    assert alignment_of(volume) is second
    assert not scene.IsNodePresent(first)
    assert len(slicer.util.getNodesByClass("vtkMRMLTransformNode")) == before + 1
    assert alignment_of(other) is None


def test_what_cannot_be_aligned_stays_where_it_is(scene, volume, other, session):
    with pytest.raises(UserError, match="the volume itself"):
        align(volume, volume)
    bare = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Bare")
    with pytest.raises(UserError, match="Bare has no landmarks"):
        align(volume, bare)
    with_landmarks(bare, HEAD * [-1, 1, 1]).end()
    aligned = align(volume, other, "rigid").node
    with pytest.raises(UserError, match="exchanged"):
        align(volume, bare)
    assert volume.GetParentTransformNode() is aligned
    undo_alignment(volume)
    align(volume, other, "thin-plate").node.SetAttribute("BrainLandmarks.role", "")
    with pytest.raises(UserError, match="warping"):
        align(volume, other)


def test_a_refused_alignment_leaves_the_earlier_one(
    volume, other, session, turned, bent, monkeypatch
):
    volume.SetAndObserveTransformNodeID(turned.GetID())
    node = align(volume, other, "rigid").node
    points = session.review.current.points.copy()

    def nothing_changed():
        assert alignment_of(volume) is node
        assert {each.GetParentTransformNode() for each in session.nodes.lists} == {node}
        recorded = session.review.current.points
        np.testing.assert_allclose(session.nodes.read().points, recorded, atol=2e-3)
        return np.abs(recorded - points).max()

    # The transform outside of it warps now.
    node.SetAndObserveTransformNodeID(bent.GetID())
    with pytest.raises(UserError, match="warping"):
        align(volume, other, "affine")
    nothing_changed()
    node.SetAndObserveTransformNodeID(turned.GetID())

    # They fit where the head lies now, and not where it lies without the alignment.
    fits = iter([alignment.register])

    def register(*arguments):
        for fit in fits:
            return fit(*arguments)
        raise UserError("they do not fit.")

    monkeypatch.setattr(alignment, "register", register)
    with pytest.raises(UserError, match="do not fit"):
        align(volume, other, "affine")
    assert nothing_changed() < 2e-3


def test_a_table_and_arrows_show_what_has_changed(scene, volume, other):
    rng = np.random.default_rng(0)
    later = HEAD + rng.normal(0, 0.2, HEAD.shape)
    row = PROTOCOL.by_label("CC_S").index - 1
    later[row] += [0, -12, 0]
    with_landmarks(volume, LandmarkSet.from_points(PROTOCOL, later).moved(motion()).points).end()
    outer = linear(scene)
    other.SetAndObserveTransformNodeID(outer.GetID())
    LandmarkNodes.of_volume(other).follow_volume()
    calibrated = LandmarkErrors.of_model("brain88", PROTOCOL)
    change, table, arrows = show_change(other, volume, calibrated, calibrated)
    assert [move.label for move in change.moves if move.changed] == ["CC_S"]
    assert table.GetNumberOfRows() == len(PROTOCOL) + len(PROTOCOL.distances)
    assert table.GetCellText(0, 0) == "CC_S"
    assert table.GetCellText(0, 4) == "yes"
    assert float(table.GetCellText(0, 1)) == pytest.approx(12, abs=1.0)
    # An arrow begins at the landmark of the baseline, in the world, and ends where it went.
    assert arrows.GetParentTransformNode() is outer
    world = vtk.vtkMatrix4x4()
    outer.GetMatrixTransformToWorld(world)
    points = slicer.util.arrayFromModelPoints(arrows)
    points = np.array([world.MultiplyPoint((*map(float, p), 1.0))[:3] for p in points])
    start = landmarks_of(other).points[row]
    end = start + change.moves[row].mm
    for place in (start, end):
        assert np.linalg.norm(points - place, axis=1).min() < 0.6  # the shaft is not thinner
    colors = slicer.util.arrayFromModelPointData(arrows, "color")
    tip = int(np.linalg.norm(points - end, axis=1).argmin())
    assert colors[tip].tolist() == [193, 38, 91]
    assert len({tuple(color) for color in colors}) == 2
    show_change(other, volume, calibrated, calibrated)
    assert len(change_nodes(other, volume)) == 2
    assert not scene.IsNodePresent(table)


def in_the_world(arrows):
    """(n, 3) RAS mm, points of a model node."""
    world = vtk.vtkMatrix4x4()
    if arrows.GetParentTransformNode() is not None:
        arrows.GetParentTransformNode().GetMatrixTransformToWorld(world)
    points = slicer.util.arrayFromModelPoints(arrows)
    return points @ slicer.util.arrayFromVTKMatrix(world)[:3, :3].T + [
        world.GetElement(row, 3) for row in range(3)
    ]


@pytest.mark.parametrize("watched", [True, False])
def test_arrows_go_with_their_baseline_and_stay_where_its_transform_is_hardened(
    scene, volume, other, session, watched
):
    outer, away = linear(scene), linear(scene, turn=-70)
    other.SetAndObserveTransformNodeID(outer.GetID())
    LandmarkNodes.of_volume(other).follow_volume()
    _, _, arrows = show_change(other, volume)
    before = in_the_world(arrows)
    following = FollowingArrows() if watched else None
    assert other.HardenTransform()
    following = following or FollowingArrows()
    assert arrows.GetParentTransformNode() is None
    np.testing.assert_allclose(in_the_world(arrows), before, atol=1e-3)
    # The transform is the baseline's no more; under another one both go together again.
    outer.SetMatrixTransformToParent(vtk.vtkMatrix4x4())
    np.testing.assert_allclose(in_the_world(arrows), before, atol=1e-3)
    other.SetAndObserveTransformNodeID(away.GetID())
    assert arrows.GetParentTransformNode() is away
    other.SetAndObserveTransformNodeID(None)
    np.testing.assert_allclose(in_the_world(arrows), before, atol=1e-3)
    # Those of later comparisons are heard of, and after the end none.
    _, _, arrows = show_change(other, volume)
    following.update()
    other.SetAndObserveTransformNodeID(away.GetID())
    assert arrows.GetParentTransformNode() is away
    following.close()
    other.SetAndObserveTransformNodeID(None)
    assert arrows.GetParentTransformNode() is away


@pytest.mark.parametrize("kind", ["rigid", "thin-plate"])
@pytest.mark.parametrize("watched", [True, False])
def test_a_hardened_alignment_is_not_undone_and_moves_nothing(
    scene, volume, other, session, kind, watched
):
    node = align(volume, other, kind).node
    points = session.review.current.points.copy()
    if not watched:
        session.end()
    assert volume.HardenTransform()
    assert alignment_of(volume) is None
    with pytest.raises(UserError, match="hardened"):
        undo_alignment(volume)
    assert scene.IsNodePresent(node)
    np.testing.assert_allclose(landmarks_of(volume).points, points, atol=2e-3)
    # Aligned once more it lies under the new transform alone, and goes back to here.
    again = align(volume, other, "rigid").node
    assert volume.GetParentTransformNode() is again
    lists = LandmarkNodes.of_volume(volume).lists
    assert {each.GetParentTransformNode() for each in lists} == {again}
    assert np.median(np.linalg.norm(landmarks_of(volume).points - HEAD, axis=1)) < 3.0
    undo_alignment(volume)
    assert volume.GetParentTransformNode() is None
    np.testing.assert_allclose(landmarks_of(volume).points, points, atol=2e-3)


def test_lists_that_were_hardened_alone_are_aligned_with_their_head(scene, volume, other, session):
    """From a script: nobody observes the lists."""
    outer = linear(scene)
    volume.SetAndObserveTransformNodeID(outer.GetID())
    points = session.review.current.points.copy()
    session.end()
    for node in session.nodes.lists:
        assert node.HardenTransform()
    found = align(volume, other, "rigid").registration
    np.testing.assert_allclose(landmarks_of(volume).points, found.carried(points), atol=2e-3)
    undo_alignment(volume)
    assert volume.GetParentTransformNode() is outer
    np.testing.assert_allclose(landmarks_of(volume).points, points, atol=2e-3)


# The panel ----------------------------------------------------------------------------------------


@pytest.fixture
def panel(desktop, monkeypatch):
    section = "BrainLandmarksLib.ui.landmarks.detecting.DetectSection"
    monkeypatch.setattr(f"{section}.prepare", lambda *_: None)
    return desktop.open(MODULE).self()


def test_the_panel_aligns_and_undoes(panel, volume, other):
    moved = LandmarkSet.from_points(PROTOCOL, HEAD).moved(motion()).points
    moved[20] += [30, 0, 20]
    with_landmarks(volume, moved).end()
    ui = panel.ui
    ui.inputSelector.setCurrentNode(volume)
    ui.compareSelector.setCurrentNode(None)
    assert not ui.alignButton.enabled
    ui.compareSelector.setCurrentNode(volume)
    assert not ui.alignButton.enabled
    ui.compareSelector.setCurrentNode(other)
    assert ui.alignButton.enabled
    assert not ui.undoAlignButton.enabled
    ui.alignButton.click()
    assert ui.messageLabel.text == ""
    assert "Aligned with Template (rigid) by 87 of 88 landmarks." in ui.statusLabel.text
    assert f"Left out as wrong: {PROTOCOL.labels[20]}." in ui.statusLabel.text
    assert ui.compareTable.rowCount == len(PROTOCOL.groups) + 1
    assert ui.compareTable.item(0, 0).text() == PROTOCOL.groups[0].name
    assert float(ui.compareTable.item(0, 2).text()) < 0.1
    shown = panel.panel.session.nodes.read().points
    away = np.linalg.norm(shown - HEAD, axis=1)
    assert np.delete(away, 20).max() < 0.05
    ui.undoAlignButton.click()
    assert volume.GetParentTransformNode() is None
    np.testing.assert_allclose(panel.panel.session.review.current.points, moved, atol=1e-3)
    assert not ui.undoAlignButton.enabled
    assert ui.compareTable.rowCount == 0


def test_the_panel_tells_what_has_changed(panel, volume, other, scene):
    later = HEAD.copy()
    later[PROTOCOL.by_label("CC_S").index - 1] += [0, -14, 0]
    with_landmarks(volume, later).end()
    ui = panel.ui
    ui.inputSelector.setCurrentNode(volume)
    ui.compareSelector.setCurrentNode(other)
    ui.changeButton.click()
    assert ui.messageLabel.text == ""
    assert "Changed since Template: CC_S" in ui.statusLabel.text
    assert ui.compareTable.item(0, 0).text() == "CC_S"
    assert ui.compareTable.item(0, 4).text() == "yes"
    assert len(change_nodes(other, volume)) == 2
    ui.inputSelector.setCurrentNode(other)
    ui.compareSelector.setCurrentNode(volume)
    with_landmarks(volume, HEAD).end()
    ui.changeButton.click()
    assert "Nothing has changed since Head of Ms X" in ui.statusLabel.text
    bare = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Bare")
    ui.compareSelector.setCurrentNode(bare)
    ui.alignButton.click()
    assert ui.messageLabel.text == "Bare has no landmarks; detect or load some first."


def test_errors_are_those_of_the_model_that_found_each_head_whichever_is_chosen(
    panel, volume, other
):
    """The baseline's model is not here any more; the other's is, and is chosen."""
    with_landmarks(other, HEAD, model="one that was taken away").end()
    later = HEAD + np.random.default_rng(0).normal(0, 0.3, HEAD.shape)
    with_landmarks(volume, LandmarkSet.from_points(PROTOCOL, later).moved(motion()).points).end()
    known, ui = LandmarkErrors.of_model("brain88", PROTOCOL), panel.ui
    assert panel.panel.model() == "brain88"

    def expected():
        """By the name of the landmark or distance, as the panel shows it."""
        count, cell = ui.compareTable.rowCount, ui.compareTable.item
        return {cell(r, 0).text(): cell(r, 2).text() for r in range(count)}

    def wanted(*errors):
        change, _, _ = show_change(*heads, *errors)
        rows = [(m.label, m.expected_mm) for m in change.moves]
        rows += [(d.name, d.expected_mm) for d in change.distances]
        return {name: f"{mm:.2f}".replace("nan", "–") for name, mm in rows}

    for heads, errors in (((other, volume), (None, known)), ((volume, other), (known, None))):
        ui.inputSelector.setCurrentNode(heads[1])
        ui.compareSelector.setCurrentNode(heads[0])
        ui.changeButton.click()
        assert ui.messageLabel.text == ""
        assert expected() == wanted(*errors)
        assert expected() != wanted(known, known)
    # An alignment trusts landmarks by the same errors: the table shows them.
    ui.alignButton.click()
    shown = [ui.compareTable.item(r, 1).text() for r in range(ui.compareTable.rowCount)]
    undo_alignment(other)
    found = align(other, volume, "rigid", None, known).registration
    assert shown == [f"{row[3]:.2f}".replace("nan", "–") for row in region_table(found).rows]
    undo_alignment(other)
    found = align(other, volume, "rigid", known, known).registration
    assert shown != [f"{row[3]:.2f}".replace("nan", "–") for row in region_table(found).rows]


def test_the_panel_s_arrows_follow_and_undo_is_over_with_the_alignment(
    desktop, panel, volume, other, scene
):
    with_landmarks(volume, HEAD + [0, 5, 0]).end()
    ui, outer = panel.ui, linear(scene)
    ui.inputSelector.setCurrentNode(volume)
    ui.compareSelector.setCurrentNode(other)
    ui.changeButton.click()
    arrows = change_nodes(other, volume)[1]
    other.SetAndObserveTransformNodeID(outer.GetID())
    assert arrows.GetParentTransformNode() is outer
    before = in_the_world(arrows)
    other.HardenTransform()
    assert arrows.GetParentTransformNode() is None
    np.testing.assert_allclose(in_the_world(arrows), before, atol=1e-3)
    # Hardened, taken from it, or deleted: there is nothing to undo, and again there is.
    for end in (
        lambda _: volume.HardenTransform(),
        lambda _: volume.SetAndObserveTransformNodeID(outer.GetID()),
        scene.RemoveNode,
    ):
        ui.alignButton.click()
        assert ui.messageLabel.text == ""
        assert ui.undoAlignButton.enabled
        end(alignment_of(volume))
        assert not ui.undoAlignButton.enabled
