"""A session with the Grad-CAM module: choose, look, follow, compare, save; with the real worker."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
from polling import until

from BrainLandmarksLib import resources
from BrainLandmarksLib.gradcam.output import read_map
from BrainLandmarksLib.mrml.export.volume import world_affine
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
from BrainLandmarksLib.network.model_files import load_shape
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review, write_review

FOLDER = Path(__file__).parents[2] / "BrainLandmarks"
MODULE, REVIEW = FOLDER / "BrainLandmarksGradCAM.py", FOLDER / "BrainLandmarks.py"
PROTOCOL = load_protocol("brain88")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two model folders that run in no time and see all landmarks in the middle of the head."""
    import torch

    from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
    from BrainLandmarksLib.network.model_files import CropSpec, Model, ModelSpec, save_model

    shape = np.random.default_rng(2).uniform(-1, 1, (len(PROTOCOL), 3))
    folder = tmp_path_factory.mktemp("models")
    made = []
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        networks = [
            HighRes3DNet(out_channels=len(PROTOCOL), features=2, residual_blocks=1, penultimate=8)
            for _ in range(2)
        ]
        spec = ModelSpec(name, CropSpec(16, 208.0), CropSpec(16, 256.0), shape)
        model = Model(PROTOCOL, *(n.eval() for n in networks), spec)
        made.append(save_model(model, folder / name))
    return made


@pytest.fixture(scope="module")
def hosts(started_desktop):
    """The worker's module; one worker serves this file: closing the modules leaves it running."""
    from BrainLandmarksLib.ui.common import host as hosts

    def finish():
        worker = hosts.shared_host().worker
        while worker.busy:
            worker.poll()
            time.sleep(0.005)

    patch = pytest.MonkeyPatch()
    stop = hosts.stop_shared_host
    patch.setattr(hosts, "stop_shared_host", finish)
    yield hosts
    patch.undo()
    stop()


@pytest.fixture
def panel(hosts, desktop, scene):
    """The module with the sample head; 1 mm would be too fine for a test, so every third voxel."""
    volume = slicer.util.loadVolume(str(resources.sample_head()), {"name": "Head of Ms X"})
    kji = slicer.util.arrayFromVolume(volume)[::3, ::3, ::3].copy()
    slicer.util.updateVolumeFromArray(volume, kji)
    volume.SetSpacing(3.0, 3.0, 3.0)
    return desktop.open(MODULE).self()


@pytest.fixture
def small(desktop, panel, models):
    """The same with the first of the small models."""
    take_model(desktop, panel.ui.modelFolderButton, models[0])
    return panel


def take_model(desktop, button, folder):
    desktop.dialogs.choose(folder)
    button.click()


def choose(panel, *names):
    """Click on rows of landmarks or groups, the first one alone, the others with Ctrl."""
    tree = panel.ui.landmarkTree
    texts = {*names, *(f"{m.index}  {m.name}" for m in PROTOCOL if m.label in names)}
    blocked = tree.blockSignals(True)
    tree.clearSelection()
    for n in range(tree.topLevelItemCount):
        group = tree.topLevelItem(n)
        for item in [group, *(group.child(k) for k in range(group.childCount()))]:
            item.setSelected(item.text(0) in texts)
    tree.blockSignals(blocked)
    tree.itemSelectionChanged.emit()


def made(desktop, panel):
    """Wait for what was asked for."""
    until(desktop, lambda: not panel.panel.mapping.queue.busy)
    assert panel.ui.messageLabel.text == ""


def foreground(view="Red"):
    """The map over a slice view."""
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    (composite,) = [c for c in composites if c.GetLayoutName() == view]
    return slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID() or "")


def center(view):
    node = slicer.app.layoutManager().sliceWidget(view).mrmlSliceNode()
    return np.array([node.GetSliceToRAS().GetElement(i, 3) for i in range(3)])


def maps(panel):
    return panel.panel.maps.all


# The shipped model --------------------------------------------------------------------------------


@pytest.mark.slow
def test_from_the_table_of_the_other_module_to_a_map(desktop, hosts, scene, tmp_path):
    """Detect there, look here: one process, one head, and both modules go together."""
    review = desktop.open(REVIEW).self()
    review.ui.sampleButton.click()
    review.ui.detectButton.click()
    until(desktop, lambda: review.panel.detecting.run is None)
    session = review.panel.session
    pid = review.panel.host.worker.pid

    panel = desktop.open(MODULE).self()
    ui = panel.ui
    assert ui.inputSelector.currentNode().GetName() == "Colin27"
    assert "no measure of confidence" in ui.meaningLabel.text
    until(desktop, lambda: ui.layerCombo.count > 1)
    assert ui.layerCombo.currentText == "default (stages.2.2.conv2)"
    choose(panel, "CC_G")
    made(desktop, panel)
    assert panel.panel.host.worker.pid == pid
    node = foreground()
    assert node.GetName() == "Grad-CAM CC_G"
    assert "CC_G, layer stages.2.2.conv2" in ui.statusLabel.text
    point = session.review.current.point("CC_G")
    assert abs(center("Red")[2] - point[2]) < 1.0
    assert session.selection.active == "CC_G"
    # The map is bright at the landmark; its brightest point may lie elsewhere.
    kji = slicer.util.arrayFromVolume(node)
    i, j, k = np.rint(np.linalg.inv(world_affine(node)) @ [*point, 1]).astype(int)[:3]
    assert kji[k, j, i] > 0.4 * kji.max() > 3 * kji.mean() > 0
    assert kji.max() == pytest.approx(1.0)

    # A row of the other module's table, while that module is in front.
    slicer.util.selectModule("BrainLandmarks")
    review.panel.reviewing.activate("PONS_A")
    made(desktop, panel)
    assert foreground() is node
    assert node.GetName() == "Grad-CAM PONS_A"
    assert panel.panel.choosing.labels == ("PONS_A",)

    # A click on a point in a view.
    desktop.app.processEvents()
    other = session.nodes.point("BB_7")
    slicer.vtkMRMLSliceNode.JumpAllSlices(scene, *other, 1)
    red = slicer.app.layoutManager().sliceWidget("Red")
    desktop.app.processEvents()
    red.sliceView().click(*red.pixel_of(other))
    made(desktop, panel)
    assert node.GetName() == "Grad-CAM BB_7"
    assert session.selection.active == "BB_7"
    assert not session.review.edits

    # A map is a file of the library, too.
    slicer.util.selectModule("BrainLandmarksGradCAM")
    desktop.dialogs.choose(tmp_path)
    ui.exportButton.click()
    until(desktop, lambda: "Saved" in ui.statusLabel.text or ui.messageLabel.text)
    assert ui.statusLabel.text.startswith("Saved 1 map file and head_gradcam.json")
    data, grid = read_map(tmp_path / "head_gradcam_BB_7.nii.gz")
    np.testing.assert_allclose(slicer.util.arrayFromVolume(node), data.transpose(2, 1, 0))
    np.testing.assert_allclose(world_affine(node), grid.affine, atol=1e-4)
    record = json.loads((tmp_path / "head_gradcam.json").read_text(encoding="utf-8"))
    assert (record["model"], record["layer"]) == ("brain88", "stages.2.2.conv2")
    desktop.dialogs.answer(False)
    desktop.dialogs.choose(tmp_path)
    ui.exportButton.click()
    assert "already" in desktop.dialogs.shown[-1].text


# Small models -------------------------------------------------------------------------------------


def test_the_other_module_and_the_views_choose_what_is_explained(
    desktop, small, scene, tmp_path, monkeypatch
):
    # Nothing is detected here, so nobody needs to know how long it would take.
    section = "BrainLandmarksLib.ui.landmarks.detecting.DetectSection"
    monkeypatch.setattr(f"{section}.prepare", lambda *_: None)
    landmarks = LandmarkSet.from_points(PROTOCOL, load_shape("brain88", len(PROTOCOL)).mean)
    write_review(tmp_path / "head.mrk.json", Review.of(landmarks), {"model": "brain88"})
    review = desktop.open(REVIEW).self()
    desktop.dialogs.choose(tmp_path / "head.mrk.json")
    review.ui.loadButton.click()
    session = review.panel.session
    assert session is not None, review.ui.messageLabel.text

    # A row of the other module's table, while that module is in front.
    review.panel.reviewing.activate("PONS_A")
    made(desktop, small)
    node = foreground()
    assert node.GetName() == "Grad-CAM PONS_A"
    assert small.panel.choosing.labels == ("PONS_A",)

    # A click on a point in a view.
    other = session.nodes.point("BB_7")
    slicer.vtkMRMLSliceNode.JumpAllSlices(scene, *other, 1)
    red = slicer.app.layoutManager().sliceWidget("Red")
    desktop.app.processEvents()
    red.sliceView().click(*red.pixel_of(other))
    made(desktop, small)
    assert foreground() is node
    assert node.GetName() == "Grad-CAM BB_7"
    assert session.selection.active == "BB_7"
    assert not session.review.edits


def test_a_scan_without_landmarks_is_explained_as_well(desktop, small, scene):
    choose(small, "EYE_A_R")
    made(desktop, small)
    assert LandmarkNodes.all_in_scene() == []
    node = foreground()
    before = center("Red"), center("Yellow")
    slicer.vtkMRMLSliceNode.JumpAllSlices(scene, 0, 0, 0, 1)
    choose(small, "CC_G")
    made(desktop, small)
    choose(small, "EYE_A_R")
    made(desktop, small)
    np.testing.assert_allclose((center("Red"), center("Yellow")), before)
    assert foreground() is node
    tree = scene.GetSubjectHierarchyNode()
    parent = tree.GetItemParent(tree.GetItemByDataNode(node))
    assert tree.GetItemName(parent) == "Head of Ms X landmarks"


def test_groups_and_several_landmarks(desktop, small):
    choose(small, "CC_G")
    made(desktop, small)
    one = slicer.util.arrayFromVolume(foreground()).copy()
    choose(small, "Corpus Callosum")
    made(desktop, small)
    node = foreground()
    assert node.GetName() == "Grad-CAM Corpus Callosum"
    assert (slicer.util.arrayFromVolume(node) >= one - 1e-6).all()
    assert "largest of 13 maps" in small.ui.statusLabel.text
    choose(small, "CC_G", "EYE_A_L")
    made(desktop, small)
    assert node.GetName() == "Grad-CAM 2 landmarks"


def test_only_the_last_of_many_wishes_counts(desktop, small):
    choose(small, "CC_G")
    made(desktop, small)
    asked = []
    request = small.panel.host.worker.request
    small.panel.host.worker.request = lambda kind, *a, **k: (
        asked.append(k.get("landmarks")),
        request(kind, *a, **k),
    )[1]
    try:
        for label in PROTOCOL.labels[:20]:
            small.panel.choosing.choose((label,))
        made(desktop, small)
    finally:
        del small.panel.host.worker.request
    assert asked[-1] == [PROTOCOL.labels[19]]
    assert len(asked) <= 3
    assert foreground().GetName() == f"Grad-CAM {PROTOCOL.labels[19]}"


def test_another_layer(desktop, small):
    ui = small.ui
    choose(small, "CC_G")
    until(desktop, lambda: ui.layerCombo.count > 1)
    made(desktop, small)
    before = slicer.util.arrayFromVolume(foreground()).copy()
    ui.layerCombo.currentText = "stages.1.0.conv1"
    made(desktop, small)
    assert "layer stages.1.0.conv1" in ui.statusLabel.text
    assert np.abs(slicer.util.arrayFromVolume(foreground()) - before).max() > 0.01


def test_how_it_is_shown(desktop, small):
    ui = small.ui
    choose(small, "CC_G")
    made(desktop, small)
    node = foreground()
    display = node.GetDisplayNode()
    ui.thresholdSlider.value = 0.4
    assert display.GetLowerThreshold() == pytest.approx(0.4)
    ui.opacitySlider.value = 0.3
    (red,) = [
        c for c in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        if c.GetLayoutName() == "Red"
    ]  # fmt: skip
    assert red.GetForegroundOpacity() == pytest.approx(0.3)
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
    assert legend.GetVisibility()
    ui.legendCheck.checked = False
    assert not legend.GetVisibility()
    ui.spaceCheck.checked = True
    (rendering,) = slicer.util.getNodesByClass("vtkMRMLVolumeRenderingDisplayNode")
    assert rendering.GetVisibility()
    assert rendering.GetVolumeNode() is node
    opacity = rendering.GetVolumePropertyNode().GetVolumeProperty().GetScalarOpacity()
    assert opacity.GetValue(0.35) == 0
    ui.thresholdSlider.value = 0.1
    opacity = rendering.GetVolumePropertyNode().GetVolumeProperty().GetScalarOpacity()
    assert opacity.GetValue(0.35) > 0
    ui.spaceCheck.checked = False
    assert not rendering.GetVisibility()
    ui.overlayCheck.checked = False
    assert foreground() is None
    choose(small, "CC_S")
    made(desktop, small)
    assert foreground() is None
    ui.overlayCheck.checked = True
    assert foreground().GetName() == "Grad-CAM CC_S"


def test_without_slicers_volume_rendering_the_slices_still_show_the_map(desktop, small):
    application = slicer.app.applicationLogic()
    logic = application.GetModuleLogic("VolumeRendering")
    application.SetModuleLogic("VolumeRendering", None)
    try:
        small.ui.spaceCheck.checked = True
        choose(small, "CC_G")
        until(desktop, lambda: not small.panel.mapping.queue.busy)
        assert "Volume Rendering is not there" in small.ui.messageLabel.text
        assert foreground().GetName() == "Grad-CAM CC_G"
        small.ui.spaceCheck.checked = False
        assert small.ui.messageLabel.text == ""
    finally:
        application.SetModuleLogic("VolumeRendering", logic)


def test_a_mistake_of_ours_is_said_and_the_next_map_comes(desktop, small, monkeypatch):
    def broken(*_arguments, **_options):
        raise ZeroDivisionError("as a test")

    with monkeypatch.context() as patch:
        patch.setattr("BrainLandmarksLib.mrml.gradcam.map_nodes.MapNodes.put", broken)
        small.ui.allButton.click()
        until(desktop, lambda: not small.panel.mapping.queue.busy)
    assert "unexpected" in small.ui.messageLabel.text
    assert {type(error) for error in desktop.slotErrors} == {ZeroDivisionError}
    desktop.slotErrors.clear()
    choose(small, "CC_S")
    made(desktop, small)
    assert foreground().GetName() == "Grad-CAM CC_S"


def test_all_landmarks_on_one_click_and_one_more_map_in_between(desktop, small, scene):
    ui, shown = small.ui, []
    ui.progressBar.connect("valueChanged(int)", shown.append)
    ui.allButton.click()
    assert not ui.allButton.enabled
    until(desktop, lambda: len(maps(small)) > 10)
    small.panel.choosing.choose(("CC_G",))
    made(desktop, small)
    assert ui.allButton.enabled
    nodes = maps(small)
    assert {f"Grad-CAM {label}" for label in PROTOCOL.labels} == {n.GetName() for n in nodes}
    assert "88 maps, in the folder Head of Ms X landmarks" in ui.statusLabel.text
    assert foreground().GetName() == "Grad-CAM CC_G"
    assert shown == sorted(shown)
    assert shown[-1] > 500
    # Going on from one to another takes no new nodes.
    for label in ("CC_S", "CC_T"):
        small.panel.choosing.choose((label,))
        made(desktop, small)
        assert foreground().GetName() == f"Grad-CAM {label}"
    assert len(maps(small)) <= len(PROTOCOL) + 1
    tree = scene.GetSubjectHierarchyNode()
    assert len({tree.GetItemParent(tree.GetItemByDataNode(n)) for n in nodes}) == 1


def test_cancelling_all_landmarks(desktop, small):
    ui = small.ui
    ui.allButton.click()
    until(desktop, lambda: maps(small))
    ui.cancelButton.click()
    until(desktop, lambda: not small.panel.host.worker.busy, 10)
    assert ui.statusLabel.text == "Cancelled."
    assert 0 < len(maps(small)) < len(PROTOCOL)
    assert ui.allButton.enabled
    assert not ui.cancelButton.isVisibleTo(ui.cancelButton.parent())
    choose(small, "CC_G")
    made(desktop, small)
    assert foreground().GetName() == "Grad-CAM CC_G"


def test_two_models_side_by_side(desktop, small, models, scene):
    ui = small.ui
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    before = layout.GetViewArrangement()
    choose(small, "CC_G")
    made(desktop, small)
    alone = foreground("Green")
    take_model(desktop, ui.compareFolderButton, models[1])
    made(desktop, small)
    left, right = foreground("Red"), foreground("Yellow")
    assert (left.GetName(), right.GetName()) == ("Grad-CAM CC_G (one)", "Grad-CAM CC_G (two)")
    assert left is alone
    assert foreground("Green") is None
    assert not np.allclose(*(slicer.util.arrayFromVolume(n) for n in (left, right)))
    assert layout.GetViewArrangement() == layout.SlicerLayoutSideBySideView
    ui.planeCombo.currentText = "coronal"
    made(desktop, small)
    manager = slicer.app.layoutManager()
    for view in ("Red", "Yellow"):
        assert manager.sliceWidget(view).mrmlSliceNode().GetOrientation() == "Coronal"
    # From one landmark to the next both models answer from what they remember.
    replies = []
    request = small.panel.host.worker.request
    small.panel.host.worker.request = lambda kind, hear, **fields: request(
        kind, lambda m: (replies.append(m), hear(m)), **fields
    )
    try:
        choose(small, "CC_S")
        made(desktop, small)
    finally:
        del small.panel.host.worker.request
    assert [m["remembered"] for m in replies if m["type"] == "result"] == ["map", "map"]
    assert foreground("Yellow").GetName() == "Grad-CAM CC_S (two)"
    ui.compareCombo.setCurrentIndex(0)
    made(desktop, small)
    assert layout.GetViewArrangement() == before
    assert manager.sliceWidget("Yellow").mrmlSliceNode().GetOrientation() == "Sagittal"
    assert foreground("Yellow") is foreground("Red") is foreground("Green")


def test_the_scene_is_closed_while_a_map_is_made(desktop, small, scene):
    choose(small, "CC_G")
    assert small.panel.mapping.queue.busy
    scene.Clear(False)
    until(desktop, lambda: not small.panel.host.worker.busy)
    assert small.panel.maps is None
    assert small.ui.messageLabel.text == ""
    assert slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") == []
    volume = slicer.util.loadVolume(str(resources.sample_head()))
    small.ui.inputSelector.setCurrentNode(volume)
    choose(small, "CC_G")
    made(desktop, small)
    assert foreground().GetName() == "Grad-CAM CC_G"


@pytest.mark.parametrize("what", ["one", "all"])
def test_the_volume_is_removed_while_maps_are_made(desktop, small, scene, what):
    volume = small.ui.inputSelector.currentNode()
    if what == "one":
        choose(small, "CC_G")
    else:
        small.ui.allButton.click()
        until(desktop, lambda: maps(small))
    scene.RemoveNode(volume)
    until(desktop, lambda: not small.panel.host.worker.busy)
    assert small.panel.maps is None
    assert small.ui.messageLabel.text == ""
    assert foreground() is None
    assert not small.ui.allButton.enabled


def test_maps_that_were_deleted_by_hand(desktop, small, scene):
    choose(small, "CC_G")
    made(desktop, small)
    small.ui.spaceCheck.checked = True
    scene.RemoveNode(foreground())
    small.ui.thresholdSlider.value = 0.5
    small.ui.legendCheck.checked = False
    choose(small, "CC_S")
    made(desktop, small)
    assert foreground().GetName() == "Grad-CAM CC_S"
    small.ui.spaceCheck.checked = False


def test_undo_takes_no_map_away(desktop, small, scene):
    scene.SetUndoOn()
    try:
        choose(small, "CC_G")
        scene.SaveStateForUndo()
        made(desktop, small)
        scene.Undo()
        scene.Redo()
        choose(small, "CC_S")
        made(desktop, small)
        assert foreground().GetName() == "Grad-CAM CC_S"
    finally:
        scene.SetUndoOff()


def test_a_saved_scene_keeps_its_maps(desktop, small, scene, tmp_path):
    choose(small, "CC_G")
    made(desktop, small)
    values = slicer.util.arrayFromVolume(foreground()).copy()
    small.ui.thresholdSlider.value = 0.25
    assert slicer.util.saveScene(str(tmp_path / "head.mrb"))
    scene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "head.mrb"))
    small.ui.inputSelector.setCurrentNode(slicer.util.getNode("Head of Ms X"))
    (node,) = maps(small)
    np.testing.assert_allclose(slicer.util.arrayFromVolume(node), values, atol=1e-6)
    assert small.ui.thresholdSlider.value == pytest.approx(0.25)
    choose(small, "CC_S")
    made(desktop, small)
    assert maps(small) == [node]  # the same place


def test_the_panel_is_made_without_a_main_window(desktop, scene):
    with desktop.headless():
        widget = desktop.load(MODULE).createNewWidgetRepresentation()
        assert widget.self().ui.allButton.text == "Maps of all landmarks"
        widget.self().cleanup()


# What is wrong is said in the panel ---------------------------------------------------------------


def test_no_volume(desktop, hosts, scene):
    panel = desktop.open(MODULE).self()
    assert not panel.ui.landmarkTree.enabled
    panel.panel.mapping.all()
    assert panel.ui.messageLabel.text == "Choose the MRI of a head first."


def test_what_is_no_head_or_no_model(desktop, small, scene, tmp_path):
    ui = small.ui
    choose(small, "CC_G")
    made(desktop, small)
    ui.inputSelector.setCurrentNode(foreground())
    assert ui.messageLabel.text == "This is a map; choose the MRI of a head."
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    ui.inputSelector.setCurrentNode(empty)
    choose(small, "CC_S")
    assert "there is no volume" in ui.messageLabel.text.lower()
    slicer.util.updateVolumeFromArray(empty, np.zeros((30, 30, 30), np.int16))
    choose(small, "CC_T")
    until(desktop, lambda: not small.panel.mapping.queue.busy)
    assert ui.messageLabel.text
    assert "Traceback" not in ui.messageLabel.text
    desktop.dialogs.choose(tmp_path)
    ui.modelFolderButton.click()
    assert "model.json" in ui.messageLabel.text
    assert ui.modelCombo.currentText == "one"
    ui.exportButton.click()
    assert desktop.dialogs.shown[-1].kind == "file"


def test_saving_needs_a_choice_and_a_folder_that_can_be_written(desktop, small, tmp_path):
    ui = small.ui
    ui.exportButton.click()
    assert "Choose landmarks first" in ui.messageLabel.text
    (tmp_path / "file").write_text("x")
    choose(small, "CC_G")
    made(desktop, small)
    desktop.dialogs.choose(tmp_path / "file" / "maps")
    ui.exportButton.click()
    until(desktop, lambda: ui.messageLabel.text != "")
    assert "Cannot write" in ui.messageLabel.text
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    ui.everyCheck.checked = True
    ui.filesCombo.setCurrentIndex(1)
    desktop.dialogs.choose(tmp_path / "maps")
    ui.exportButton.click()
    until(desktop, lambda: "Saved" in ui.statusLabel.text)
    assert len(list((tmp_path / "maps").glob("*.nii.gz"))) == len(PROTOCOL.groups)
    assert not [p for p in (tmp_path / "maps").iterdir() if "Ms X" in p.name]


def test_a_worker_that_does_not_start_and_the_next_click(desktop, small, monkeypatch):
    host = small.panel.host
    host.stop()
    works = host.worker._command
    monkeypatch.setattr(
        host.worker, "_command", [sys.executable, "-c", "import no_such_library_here"]
    )
    choose(small, "CC_G")
    until(desktop, lambda: not small.panel.mapping.queue.busy)
    assert small.ui.messageLabel.text.endswith(".")
    small.ui.diagnosticsButton.click()
    assert "no_such_library_here" in slicer.app.clipboard().text()
    assert "Ms X" not in slicer.app.clipboard().text()
    monkeypatch.setattr(host.worker, "_command", works)
    choose(small, "CC_S")
    made(desktop, small)
    assert foreground().GetName() == "Grad-CAM CC_S"


def test_closing_one_module_leaves_the_worker_to_the_other(desktop, hosts, panel):
    """A reload of one of them: there is never a second process."""
    host = panel.panel.host
    review = desktop.open(REVIEW).self()
    assert review.panel.host is host
    hosts.shared_host().stop()
    assert not host.worker.running
    panel.panel.choosing.choose(("CC_G",))
    assert hosts.shared_host() is host
    panel.panel.close()
    until(desktop, lambda: not host.worker.busy)
