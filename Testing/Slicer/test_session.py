"""A review in the scene: drags, clicks and rules on one side, lists on the other, one truth."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
import vtk

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.shape_model import ShapeModel
from BrainLandmarksLib.mrml.export.volume import world_volume
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
from BrainLandmarksLib.mrml.landmarks.session import Session
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

PROTOCOL = load_protocol("brain88")
LABELS = PROTOCOL.labels


def mean_head():
    rng = np.random.default_rng(8)
    points = rng.uniform(-60, 60, (88, 3))
    points[[k for k, lm in enumerate(PROTOCOL) if lm.side == "M"], 0] = 0
    return points


@pytest.fixture(scope="module")
def shape():
    rng = np.random.default_rng(1)
    heads = [
        mean_head() * (1 + 0.05 * rng.standard_normal()) + rng.normal(0, 1.0, (88, 3))
        for _ in range(30)
    ]
    return ShapeModel.fit(heads, PROTOCOL.mirror_permutation(), mean_head())


@pytest.fixture
def landmarks():
    rng = np.random.default_rng(3)
    points = mean_head() + rng.normal(0, 1.0, (88, 3))
    points[9] = np.nan
    return LandmarkSet.from_points(PROTOCOL, points, "model", rng.uniform(0.2, 1, 88))


@pytest.fixture
def session(volume, landmarks, shape):
    made = Session.begin(volume, landmarks, {"model": "brain88"}, shape, "AB")
    made.heard = []
    made.listeners.append(made.heard.extend)
    yield made
    made.end()


def drag(session, label, point):
    """What Slicer does when a person drags a point: start, many moves, end."""
    node, index = session.nodes.place_of(label)
    node.InvokeEvent(node.PointStartInteractionEvent)
    here = session.nodes.point(label)
    for share in (0.3, 0.6, 1.0):
        x, y, z = here + share * (np.array(point) - here)
        node.SetNthControlPointPositionWorld(index, x, y, z)
    node.InvokeEvent(node.PointEndInteractionEvent)


def agree(session):
    shown = session.nodes.read()
    np.testing.assert_allclose(shown.points, session.review.current.points, atol=1e-3)
    assert shown.status == session.review.current.status


def test_a_drag_is_one_edit_on_record(session):
    drag(session, "CC_G", [1.0, 2.0, 3.0])
    (edit,) = session.review.edits
    assert (edit.label, edit.kind, edit.who) == ("CC_G", "moved", "AB")
    np.testing.assert_allclose(edit.after, [1, 2, 3], atol=1e-3)
    assert session.heard == ["CC_G"]
    assert "edited" in session.nodes.place_of("CC_G")[0].GetNthControlPointDescription(
        session.nodes.place_of("CC_G")[1]
    )
    agree(session)


def test_a_change_by_another_module_is_on_record_too(session):
    node, index = session.nodes.place_of("EYE_A_L")
    node.SetNthControlPointPosition(index, 9.0, 8.0, 7.0)
    node.SetNthControlPointPositionMissing(session.nodes.place_of("EYE_A_R")[1])
    assert [(e.label, e.kind) for e in session.review.edits] == [
        ("EYE_A_L", "moved"),
        ("EYE_A_R", "missing"),
    ]
    agree(session)


def test_every_button_reaches_the_lists_and_can_be_undone(session):
    session.corrections.confirm("CC_S")
    session.corrections.mark_missing("CC_T")
    session.corrections.move(LABELS[9], [1, 2, 3])
    session.corrections.respace("Brain Axial Boundary")
    session.corrections.project("Brain Axial Boundary")
    session.corrections.resolve()
    session.corrections.reopen("CC_S")
    agree(session)
    kinds = list(dict.fromkeys(e.kind for e in session.review.edits))
    assert kinds == [
        "confirmed", "missing", "moved", "respaced", "projected", "resolved", "reopened",
    ]  # fmt: skip
    end = session.review.current.points.copy()
    while session.review.can_undo:
        session.corrections.undo()
        agree(session)
    assert session.review.current.status == session.review.found.status
    while session.review.can_redo:
        session.corrections.redo()
    np.testing.assert_allclose(session.review.current.points, end, atol=1e-3)
    agree(session)


def test_resolving_is_offered_before_it_is_done(session):
    with pytest.raises(UserError, match="correct or confirm"):
        session.corrections.resolved()
    session.corrections.move("CC_G", session.review.found.point("CC_G") + [0, 6.0, 0])
    before = session.review.current.points.copy()
    preview = session.corrections.resolved()
    np.testing.assert_array_equal(session.review.current.points, before)
    session.corrections.preview(preview)
    np.testing.assert_allclose(session.nodes.point("CC_S"), preview["CC_S"])
    session.corrections.preview(None)
    agree(session)
    assert len(session.review.edits) == 1
    assert "CC_G" not in preview
    assert LABELS[9] not in preview
    session.corrections.resolve()
    np.testing.assert_allclose(session.review.current.point("CC_S"), preview["CC_S"], atol=1e-3)
    assert session.review.current.status[PROTOCOL.by_label("CC_S").index - 1] == "model"


def test_without_a_shape_model_it_says_so(volume, landmarks):
    session = Session.begin(volume, landmarks, {})
    session.corrections.confirm("CC_G")
    with pytest.raises(UserError, match="no shape model"):
        session.corrections.resolve()
    assert np.isnan(session.selection.deviation()).all()
    assert len(session.selection.uncertain()) == 86
    session.end()


def test_the_uncertain_come_first_and_the_seen_no_more(session):
    order = session.selection.uncertain()
    assert len(order) == 87
    current = session.review.current
    row = PROTOCOL.by_label(order[40]).index - 1
    current.points[row] += [0, 0, 40.0]
    assert session.selection.uncertain()[0] == order[40]
    session.corrections.confirm(order[40])
    assert order[40] not in session.selection.uncertain()


def test_the_active_point_is_unlocked_named_and_jumped_to(scene, session):
    camera = scene.AddNewNodeByClass("vtkMRMLCameraNode")
    session.selection.activate("CC_G")
    np.testing.assert_allclose(
        camera.GetFocalPoint(), session.review.current.point("CC_G"), atol=1e-6
    )
    node, index = session.nodes.place_of("CC_G")
    assert not node.GetNthControlPointLocked(index)
    assert not node.GetLocked()
    marker = scene.GetFirstNodeByName("BrainLandmarks active point")
    assert marker.GetNthControlPointLabel(0) == "CC_G"
    drag(session, "CC_G", [4.0, 5.0, 6.0])
    np.testing.assert_allclose(marker.GetNthControlPointPositionWorld(0), [4, 5, 6], atol=1e-3)
    session.selection.activate(None)
    assert node.GetNthControlPointLocked(index)
    assert not marker.GetDisplayNode().GetVisibility()


def test_the_volume_s_transform_takes_points_and_record_along(volume, turned, session):
    session.corrections.move("CC_G", [1.0, 2.0, 3.0])
    volume.SetAndObserveTransformNodeID(turned.GetID())
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    expected = turn @ [1, 2, 3] + [10, -20, 5]
    np.testing.assert_allclose(session.review.current.point("CC_G"), expected, atol=1e-3)
    np.testing.assert_allclose(session.review.edits[0].after, expected, atol=1e-3)
    assert len(session.review.edits) == 1
    agree(session)
    session.corrections.undo()
    agree(session)
    turned.ApplyTransformMatrix(turned.GetMatrixTransformToParent())
    agree(session)
    assert len(session.review.edits) == 0


@pytest.mark.parametrize("kind", ["turned", "bent"])
@pytest.mark.parametrize("watched", [True, False])
def test_a_hardened_transform_leaves_points_and_record_on_the_head(
    request, volume, shape, session, kind, watched
):
    transform = request.getfixturevalue(kind)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    session.corrections.move("CC_G", [1.0, 2.0, 3.0])
    points, edits = session.review.current.points.copy(), session.review.edits
    if not watched:
        session.end()
    assert volume.HardenTransform()
    if not watched:
        session = Session.resume(LandmarkNodes.of_volume(volume), shape, "CD")
    assert {node.GetTransformNodeID() for node in session.nodes.lists} == {None}
    np.testing.assert_allclose(session.nodes.read().points, points, atol=1e-3)
    np.testing.assert_allclose(session.review.current.points, points, atol=1e-3)
    assert session.review.edits == edits
    agree(session)
    # The transform is the volume's no more; under another one both go together again.
    transform.ApplyTransformMatrix(_shift(50))
    agree(session)
    np.testing.assert_allclose(session.nodes.read().points, points, atol=1e-3)
    away = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    away.SetMatrixTransformToParent(_shift(7))
    for under, by in ((away.GetID(), 7), (None, 0)):
        volume.SetAndObserveTransformNodeID(under)
        np.testing.assert_allclose(session.review.current.points, points + [by, 0, 0], atol=2e-3)
        agree(session)
    session.end()


@pytest.mark.parametrize("kind", ["turned", "bent"])
@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("how", ["hardened", "taken away"])
def test_lists_that_lose_their_transform_alone_stay_on_the_head(
    request, volume, shape, session, kind, watched, how
):
    transform = request.getfixturevalue(kind)
    start = session.review.current.points.copy()
    volume.SetAndObserveTransformNodeID(transform.GetID())
    session.corrections.move("CC_G", [1.0, 2.0, 3.0])
    points, edits = session.review.current.points.copy(), session.review.edits
    if not watched:
        session.end()
    for node in session.nodes.lists[:3]:
        if how == "hardened":
            assert node.HardenTransform()
        else:
            node.SetAndObserveTransformNodeID(None)
    if not watched:
        session = Session.resume(LandmarkNodes.of_volume(volume), shape, "CD")
    if how == "hardened" or not watched:
        # They carry the volume's transform again, and lie where they lay.
        assert {node.GetParentTransformNode() for node in session.nodes.lists} == {transform}
        # A warp is inverted to some micrometres.
        np.testing.assert_allclose(session.nodes.read().points, points, atol=5e-3)
        agree(session)
    assert session.review.edits == edits
    transform.ApplyTransformMatrix(_shift(50))
    np.testing.assert_allclose(session.nodes.read().points, points + [50, 0, 0], atol=5e-3)
    agree(session)
    volume.SetAndObserveTransformNodeID(None)
    shown = session.nodes.read().points
    row = LABELS.index("CC_G")
    np.testing.assert_allclose(np.delete(shown, row, 0), np.delete(start, row, 0), atol=5e-3)
    agree(session)
    assert [edit.label for edit in session.review.edits] == ["CC_G"]
    session.end()


def test_a_volume_and_lists_that_were_hardened_one_after_the_other_stay_together(
    volume, shape, session, turned
):
    """While nobody looked, and then the volume was put elsewhere."""
    volume.SetAndObserveTransformNodeID(turned.GetID())
    points = session.review.current.points.copy()
    session.end()
    for node in (*session.nodes.lists, volume):
        assert node.HardenTransform()
    turned.SetMatrixTransformToParent(_shift(7))
    volume.SetAndObserveTransformNodeID(turned.GetID())
    session = Session.resume(LandmarkNodes.of_volume(volume), shape, "CD")
    np.testing.assert_allclose(session.nodes.read().points, points + [7, 0, 0], atol=2e-3)
    volume.SetAndObserveTransformNodeID(None)
    np.testing.assert_allclose(session.nodes.read().points, points, atol=2e-3)
    session.end()


def test_lists_left_behind_while_nobody_looked_come_after_their_volume(
    volume, shape, session, turned
):
    """They never had its transform: where they lie is not where their head is."""
    points = session.review.current.points.copy()
    session.end()
    volume.SetAndObserveTransformNodeID(turned.GetID())
    session = Session.resume(LandmarkNodes.of_volume(volume), shape, "CD")
    turned.SetMatrixTransformToParent(_shift(7))
    np.testing.assert_allclose(session.nodes.read().points, points + [7, 0, 0], atol=2e-3)
    session.end()


def _shift(mm):
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, mm)
    return matrix


def test_a_new_detection_keeps_or_drops_what_a_person_did(session, landmarks):
    session.corrections.move("CC_G", [1.0, 2.0, 3.0])
    new = LandmarkSet.from_points(PROTOCOL, landmarks.points + 2.0, "model", landmarks.confidence)
    session.renew(new, {}, None, keep=True)
    np.testing.assert_allclose(session.review.current.point("CC_G"), [1, 2, 3])
    agree(session)
    session.renew(new, {}, None, keep=False)
    np.testing.assert_allclose(session.review.current.points, new.points)
    agree(session)


def test_a_new_detection_brings_the_shape_model_that_belongs_to_it(session, landmarks, shape):
    deviation = session.selection.deviation()
    wider = ShapeModel(shape.mean, 2 * shape.modes, 2 * shape.residual_mm)
    session.renew(landmarks, {"model": "wider"}, wider, keep=True)
    assert session.shape is wider
    assert np.nanmean(session.selection.deviation()) < 0.95 * np.nanmean(deviation)
    session.renew(landmarks, {"model": "shapeless"}, None, keep=True)
    assert np.isnan(session.selection.deviation()).all()


def test_detecting_again_uses_the_lists_that_are_there(scene, volume, landmarks, session):
    again = Session.begin(volume, landmarks, {})
    assert again.nodes.anchor is session.nodes.anchor
    assert len(LandmarkNodes.all_in_scene()) == 1
    again.end()


def test_a_session_is_resumed_from_the_scene(session, volume, shape):
    session.corrections.move("CC_G", [1.0, 2.0, 3.0])
    session.corrections.confirm("CC_S")
    edits = session.review.edits
    session.end()
    again = Session.resume(LandmarkNodes.of_volume(volume), shape, "CD")
    assert again.review.edits == edits
    assert again.source == {"model": "brain88"}
    agree(again)
    again.end()


def test_after_its_end_a_session_hears_nothing(session):
    session.end()
    drag(session, "CC_G", [1.0, 2.0, 3.0])
    assert not session.review.edits


def test_a_point_snaps_to_the_plane_of_the_others(session):
    session.corrections.snap = "plane"
    off = session.review.found.point("CC_G") + [12.0, 1.0, 0.0]
    drag(session, "CC_G", off)
    (edit,) = session.review.edits
    assert edit.kind == "snapped"
    assert abs(edit.after[0]) < abs(off[0]) - 6
    agree(session)


def test_a_point_snaps_to_the_brain_s_surface(scene, session):
    import slicer.util

    k, j, i = np.meshgrid(np.arange(60), np.arange(60), np.arange(60), indexing="ij")
    world = np.stack([i, j, k], -1) * 3.0 - 88.5
    middle = np.nanmean(session.review.current.points, axis=0)
    distance = np.linalg.norm(world - middle, axis=-1)
    slicer.util.updateVolumeFromArray(
        session.volume, np.where(distance < 50, 200, 20).astype(np.int16)
    )
    session.volume.SetSpacing(3, 3, 3)
    session.volume.SetOrigin(-88.5, -88.5, -88.5)
    session.volume.SetIJKToRASDirections(1, 0, 0, 0, 1, 0, 0, 0, 1)
    session.corrections.snap = "boundary"
    drag(session, "FP_L", middle + [0, 53.0, 0])
    after = np.array(session.review.edits[0].after)
    assert abs(np.linalg.norm(after - middle) - 50) < 2.0
    agree(session)


def test_a_snap_that_fails_leaves_the_point_where_it_was_put(session):
    said = []
    session.corrections.on_error = said.append
    session.corrections.snap = "plane"
    drag(session, "HIP_H_L", [1.0, 2.0, 3.0])
    np.testing.assert_allclose(session.review.current.point("HIP_H_L"), [1, 2, 3], atol=1e-3)
    assert "HIP_H_L" in said[0]


def test_a_deleted_volume_or_list_is_survived(scene, session):
    scene.RemoveNode(session.volume)
    with pytest.raises(UserError, match="no longer there"):
        world_volume(session.volume)
    session.corrections.confirm("CC_G")
    scene.RemoveNode(session.nodes.lists[0])
    node = session.nodes.lists[3]
    assert isinstance(node, slicer.vtkMRMLMarkupsFiducialNode)
    node.SetNthControlPointPosition(0, 1.0, 2.0, 3.0)


def test_after_a_list_was_deleted_the_others_keep_their_own_points(scene, session):
    """References move up when one is gone: the points of a group must not go to the next list."""
    lists, volume = session.nodes.lists, session.volume
    before = {node.GetName(): points_of(node) for node in lists}
    gone, kept = session.nodes.place_of("CC_G")[0], session.nodes.place_of("EYE_A_L")[0]
    name = kept.GetName()
    scene.RemoveNode(gone)
    session.corrections.move("EYE_A_L", [1.0, 2.0, 3.0])
    assert session.nodes.place_of("EYE_A_L")[0] is kept
    np.testing.assert_allclose(session.nodes.point("EYE_A_L"), [1, 2, 3], atol=1e-3)
    for other in filter(None, session.nodes.lists):
        moved = np.abs(points_of(other) - before[other.GetName()]).max(axis=1) > 1e-3
        assert moved.sum() == (other.GetName() == name)
    drag(session, "EYE_A_L", [4.0, 5.0, 6.0])
    assert session.review.current.point("EYE_A_L") == pytest.approx([4, 5, 6], abs=1e-3)
    with pytest.raises(UserError, match="was deleted from the scene; save"):
        session.corrections.move("CC_G", [7.0, 8.0, 9.0])
    session.end()
    review = session.review
    again = Session.begin(volume, review.found, session.source)
    again.adopt(review)
    assert again.nodes.complete
    assert again.nodes.point("CC_G") == pytest.approx([7, 8, 9], abs=1e-3)
    assert len(slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")) == len(lists)
    again.end()


def points_of(node):
    return slicer.util.arrayFromMarkupsControlPoints(node)


def test_a_point_snaps_to_where_structures_meet(scene, session):
    """The parcellation's boundary, within the reach that the brain's surface has, too."""
    from BrainLandmarksLib.imaging.edges import SEARCH_MM
    from BrainLandmarksLib.mrml.landmarks.parcellation_run import Parcelled
    from BrainLandmarksLib.mrml.landmarks.segmentation import show_parcellation

    said = []
    session.corrections.on_error = said.append
    session.corrections.snap = "structure boundary"
    grid = world_volume(session.volume).grid
    meeting = grid.ijk_to_ras([16.5, 15.0, 15.0])
    across = grid.affine[:3, 0] / np.linalg.norm(grid.affine[:3, 0])
    drag(session, "CC_G", meeting + 2.0 * across)
    assert "click Parcellate first" in said.pop()
    np.testing.assert_allclose(
        session.review.current.point("CC_G"), meeting + 2.0 * across, atol=1e-3
    )
    labels = np.full(grid.shape, 2, np.int16)
    labels[17:] = 41
    structures = tuple({"number": n, "name": f"s{n}", "color": "#ff0000"} for n in (2, 41))
    show_parcellation(session.volume, Parcelled(labels, grid, structures, (), 1.0))
    drag(session, "CC_G", meeting - 5.0 * across)
    np.testing.assert_allclose(session.review.current.point("CC_G"), meeting, atol=0.05)
    assert [edit.kind for edit in session.review.edits] == ["moved", "snapped"]
    agree(session)
    assert not said
    drag(session, "CC_G", meeting - (SEARCH_MM + 3.0) * across)
    assert f"within {SEARCH_MM:g} mm" in said.pop()
    assert session.review.edits[-1].kind == "moved"
