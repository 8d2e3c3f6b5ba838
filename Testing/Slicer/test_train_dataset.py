"""The tabs Dataset and Augmentation: cases, raters, guidelines, imports, previews."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
from polling import until

from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.dataset.ratings import keep_rating, ratings_of
from BrainLandmarksLib.io.landmarks import read_landmarks, write_landmarks
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review, read_review
from BrainLandmarksTrainLib.augmentation import load_augmentation

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "BrainLandmarksTrain" / "BrainLandmarksTrain.py"
LANDMARKS_MODULE = ROOT / "BrainLandmarks" / "BrainLandmarks.py"
PROTOCOL = load_protocol("brain88")
CASE, ANNOTATOR, PLACED, CHECKS, SPLIT, AGREEMENT = range(6)


@pytest.fixture
def panel(desktop, heads):
    """Both modules, the training module with a dataset of six cases."""
    desktop.load(LANDMARKS_MODULE)
    widget = desktop.open(MODULE).self()
    widget.panel.preference("reviewer", "AB")
    widget.panel.preference("lastRun", "")
    widget.logic.getParameterNode().dataset = heads
    return widget


def cell(panel, row, column):
    return panel.ui.caseTable.item(row, column).text()


def load(panel, row):
    panel.ui.caseTable.setCurrentCell(row, 0)
    panel.ui.loadCaseButton.click()
    assert panel.ui.messageLabel.text == ""
    return case()


def case():
    from BrainLandmarksTrainLib.mrml.case import Case

    return Case.in_scene()


def test_the_table_and_a_case_in_the_landmarks_module(desktop, panel, heads):
    """Double click, drag, save: what a person corrects is in the dataset, with the record."""
    ui, before = panel.ui, Dataset.open(heads)
    assert ui.caseTable.rowCount == 6
    assert cell(panel, 1, PLACED) == "88 of 88"
    assert {cell(panel, row, SPLIT) for row in range(6)} == {"train", "validation", "test"}
    ui.caseTable.setCurrentCell(1, 0)
    ui.caseTable.cellDoubleClicked(1, 0)
    assert slicer.util.selectedModule() == "BrainLandmarks"
    first = slicer.util.getModuleWidget("BrainLandmarks").panel
    assert first.volume() is case().volume
    truth = before.read_landmarks(before.entries[1]).current.points
    np.testing.assert_allclose(first.session.review.current.points, truth, atol=1e-3)
    assert not case().changed

    there = first.session.review.current.point("CC_G")
    first.session.corrections.move("CC_G", there + (0.0, 3.0, 0.0))
    assert case().changed
    slicer.util.selectModule("BrainLandmarksTrain")
    ui.saveCaseButton.click()
    assert "Saved case 0002" in ui.datasetInfoLabel.text
    after = Dataset.open(heads)
    review, _ = read_review(heads / after.entries[1].landmarks, PROTOCOL)
    np.testing.assert_allclose(review.current.point("CC_G"), there + (0.0, 3.0, 0.0), atol=1e-3)
    assert [(e.label, e.kind, e.who) for e in review.edits] == [("CC_G", "moved", "AB")]
    assert cell(panel, 1, ANNOTATOR) == "AB"
    old, new = before.entries[1], after.entries[1]
    assert (new.image_sha256, new.subject, new.split) == (old.image_sha256, old.subject, old.split)
    assert new.landmarks_sha256 != old.landmarks_sha256
    assert not case().changed


def test_a_case_takes_the_place_of_what_the_landmarks_module_showed(panel, scene, volume):
    slicer.util.selectModule("BrainLandmarks")
    first = slicer.util.getModuleWidget("BrainLandmarks")
    first.ui.inputSelector.setCurrentNode(volume)
    slicer.util.selectModule("BrainLandmarksTrain")
    panel.ui.caseTable.setCurrentCell(1, 0)
    panel.ui.caseTable.cellDoubleClicked(1, 0)
    assert slicer.util.selectedModule() == "BrainLandmarks"
    assert first.panel.volume() is case().volume
    assert first.panel.session is not None


def test_a_case_that_cannot_be_loaded_is_reported(panel, heads):
    """A double click says what the button says."""
    (heads / Dataset.open(heads).entries[1].image).write_bytes(b"no image")
    panel.ui.caseTable.setCurrentCell(1, 0)
    panel.ui.caseTable.cellDoubleClicked(1, 0)
    assert "cannot read" in panel.ui.messageLabel.text
    assert slicer.util.selectedModule() == "BrainLandmarksTrain"
    panel.ui.blindedCheck.checked = True
    panel.ui.caseTable.cellDoubleClicked(1, 0)
    assert "second rater's name" in panel.ui.messageLabel.text


def test_only_files_that_changed_are_read_again(panel, heads, monkeypatch):
    """A table of a thousand cases must not freeze Slicer whenever one of them is loaded."""
    read, original = [], Dataset.read_landmarks

    def counted(dataset, entry):
        read.append(entry.identity)
        return original(dataset, entry)

    monkeypatch.setattr(Dataset, "read_landmarks", counted)
    load(panel, 3)
    assert read == []
    file = heads / Dataset.open(heads).entries[4].landmarks
    file.write_text("{", encoding="utf-8")
    load(panel, 2)
    assert read == ["0005"]
    assert cell(panel, 4, PLACED) == "unreadable"
    review, source = case().review()
    review.mark_missing("CC_G")
    case().replace(review, source)
    panel.ui.saveCaseButton.click()
    assert read == ["0005", "0003"]
    assert cell(panel, 2, PLACED) == "87 of 88"


def test_another_case_takes_the_place_and_changes_are_asked_for(desktop, panel, scene):
    first = load(panel, 0)
    review, source = first.review()
    review.move("CC_G", review.current.point("CC_G") + 2.0)
    first.replace(review, source)
    desktop.dialogs.answer(False)
    panel.ui.caseTable.setCurrentCell(1, 0)
    panel.ui.loadCaseButton.click()
    assert case().identity == "0001"
    panel.ui.loadCaseButton.click()  # asked again, and confirmed
    assert case().identity == "0002"
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") == len(PROTOCOL.groups)


def test_the_guidelines_are_shown_before_they_move_anything(panel):
    ui = panel.ui
    loaded = load(panel, 2)
    review, source = loaded.review()
    review.move_many({"EYE_A_L": review.current.point("EYE_A_R"),
                      "EYE_A_R": review.current.point("EYE_A_L")}, "moved")  # fmt: skip
    loaded.replace(review, source)
    before = loaded.review()[0].current.points
    ui.guidelinesButton.click()
    shown = [ui.movesTable.item(row, 1).text() for row in range(ui.movesTable.rowCount)]
    assert shown.count("swapped") == 2
    assert "mm at most" in ui.movesLabel.text
    assert np.abs(loaded.nodes.read().points - before).max() > 10  # the views show it
    ui.discardMovesButton.click()
    np.testing.assert_allclose(loaded.review()[0].current.points, before, atol=1e-3)
    assert not ui.movesBar.visible
    ui.guidelinesButton.click()
    ui.applyMovesButton.click()
    review, _ = loaded.review()
    assert {"swapped", "respaced"} <= {edit.kind for edit in review.edits}
    assert loaded.changed
    row = PROTOCOL.by_label("EYE_A_L").index - 1
    np.testing.assert_allclose(
        review.current.points[row], before[PROTOCOL.by_label("EYE_A_R").index - 1], atol=1e-3
    )


def test_a_preview_of_the_guidelines_does_not_pass_for_the_case(panel, heads, scene):
    """Without its bar nobody could discard it; saved, points would have moved without a record."""
    ui, loaded = panel.ui, load(panel, 0)
    before = loaded.nodes.read().points

    def preview():
        ui.guidelinesButton.click()
        assert ui.movesBar.visible
        assert np.nanmax(np.abs(loaded.nodes.read().points - before)) > 0.01

    preview()
    ui.saveCaseButton.click()
    assert "apply or discard" in ui.messageLabel.text.lower()
    dataset = Dataset.open(heads)
    kept = dataset.read_landmarks(dataset.entries[0])
    np.testing.assert_allclose(kept.current.points, before, atol=1e-3)
    ui.discardMovesButton.click()
    for leave in (
        lambda: (panel.exit(), panel.enter()),
        lambda: scene.InvokeEvent(scene.StartSaveEvent),
        lambda: scene.InvokeEvent(scene.EndImportEvent),
    ):
        preview()
        leave()
        assert not ui.movesBar.visible
        np.testing.assert_allclose(loaded.nodes.read().points, before, atol=1e-3)
        assert not loaded.changed


def test_a_blinded_rater_sees_nothing_of_the_first(panel, heads, scene):
    ui = panel.ui
    load(panel, 0)
    ui.blindedCheck.checked = True
    ui.caseTable.setCurrentCell(0, 0)
    ui.loadCaseButton.click()
    assert "second rater's name" in ui.messageLabel.text
    ui.raterEdit.text = "../BC"
    ui.loadCaseButton.click()
    assert "cannot name a rater" in ui.messageLabel.text
    ui.raterEdit.text = "BC"
    blinded = load(panel, 0)
    review, source = blinded.review()
    assert review.current.missing.all()
    shown = slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")
    assert sum(node.GetNumberOfDefinedControlPoints() for node in shown) == 0
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1
    review.move("CC_G", (1.0, 2.0, 3.0))
    blinded.replace(review, source)
    ui.saveCaseButton.click()
    assert "raters/BC/0001.mrk.json" in ui.datasetInfoLabel.text
    kept = read_landmarks(heads / "raters" / "BC" / "0001.mrk.json", PROTOCOL)
    np.testing.assert_allclose(kept.point("CC_G"), (1, 2, 3))
    dataset = Dataset.open(heads)
    first = dataset.read_landmarks(dataset.entries[0]).current
    assert np.linalg.norm(first.point("CC_G") - (1, 2, 3)) > 1  # the first annotation is as it was
    # Another day the rater goes on where they stopped.
    np.testing.assert_allclose(load(panel, 0).review()[0].current.point("CC_G"), (1, 2, 3))
    ui.agreementButton.click()
    assert "blinding" in ui.messageLabel.text


def test_agreement_is_plotted_with_nodes_of_the_scene(panel, heads):
    ui, dataset = panel.ui, Dataset.open(heads)
    rng = np.random.default_rng(2)
    for entry in dataset.entries[:4]:
        points = dataset.read_landmarks(entry).current.points
        other = LandmarkSet.from_points(PROTOCOL, points + rng.normal(0, 1, points.shape), "truth")
        keep_rating(dataset, "BC", entry.identity, Review.of(other))
    ui.raterEdit.text = "BC"
    ui.raterEdit.editingFinished()
    apart = [cell(panel, row, AGREEMENT) for row in range(6)]
    assert [bool(text) for text in apart] == [True] * 4 + [False] * 2
    assert 1.2 < float(apart[0]) < 2.0  # the mean length of three normal numbers is 1.6
    ui.agreementButton.click()
    assert "4 cases, 352 points" in ui.agreementLabel.text
    charts = {c.GetName(): c for c in slicer.util.getNodesByClass("vtkMRMLPlotChartNode")}
    distances = charts["BrainLandmarks agreement"]
    assert distances.GetNumberOfPlotSeriesNodes() == len(PROTOCOL.groups)
    table = distances.GetNthPlotSeriesNode(0).GetTableNode().GetTable()
    expected = np.nanmean(ratings_of(dataset, "BC").distances(), axis=0)
    assert table.GetColumnByName("label").GetValue(0) == PROTOCOL.labels[0]
    assert table.GetColumn(1).GetValue(0) == pytest.approx(expected[0])
    assert charts["BrainLandmarks Bland-Altman"].GetNumberOfPlotSeriesNodes() == 3 + 3
    ui.agreementButton.click()  # the same nodes again, no twins
    assert len(slicer.util.getNodesByClass("vtkMRMLPlotChartNode")) == 2
    assert len(slicer.util.getNodesByClass("vtkMRMLTableNode")) == len(PROTOCOL.groups) + 6


def test_a_new_dataset_is_filled_in_every_way(desktop, panel, heads, six_heads, phantom, tmp_path):
    """A folder, an image with each kind of landmark file, a label map; then check and split."""
    import nibabel as nib

    ui, source = panel.ui, Dataset.open(six_heads)
    new = tmp_path / "new"
    desktop.dialogs.choose(new)
    ui.createDatasetButton.click()
    assert ui.datasetPath.currentPath == str(new)
    assert ui.caseTable.rowCount == 0

    folder = tmp_path / "scans"
    folder.mkdir()
    for entry in source.entries[:2]:
        shutil.copy(six_heads / entry.image, folder / f"scan{entry.identity}.nii.gz")
        shutil.copy(six_heads / entry.landmarks, folder / f"scan{entry.identity}.mrk.json")
    desktop.dialogs.choose(folder)
    ui.importFolderButton.click()
    until(desktop, lambda: panel.panel.importing.run is None)
    assert ui.caseTable.rowCount == 2, ui.messageLabel.text
    assert "added 2" in ui.datasetInfoLabel.text

    for number, suffix in ((2, "csv"), (3, "fcsv")):
        entry = source.entries[number]
        path = tmp_path / f"points.{suffix}"
        write_landmarks(path, source.read_landmarks(entry).current)
        desktop.dialogs.choose(six_heads / entry.image, path)
        ui.importFilesButton.click()
        until(desktop, lambda count=number: ui.caseTable.rowCount > count)
    points = Dataset.open(new).read_landmarks(Dataset.open(new).entries[3]).current.points
    truth = source.read_landmarks(source.entries[3]).current.points
    np.testing.assert_allclose(points, truth, atol=1e-3)

    labels = phantom.phantom_head()
    scan = phantom.phantom_scan(labels, 4.0)
    for name, volume in (("labels", labels), ("scan", scan)):
        nib.save(nib.Nifti1Image(volume.data, volume.grid.affine), tmp_path / f"{name}.nii.gz")
    desktop.dialogs.choose(tmp_path / "scan.nii.gz", tmp_path / "labels.nii.gz")
    ui.importLabelsButton.click()
    until(desktop, lambda: ui.caseTable.rowCount == 5 or ui.messageLabel.text)
    assert ui.messageLabel.text == ""
    assert int(cell(panel, 4, PLACED).split()[0]) > 80

    broken = tmp_path / "broken.csv"
    broken.write_text("nonsense\n")
    desktop.dialogs.choose(six_heads / source.entries[4].image, broken)
    ui.importFilesButton.click()
    assert ui.messageLabel.text
    assert ui.caseTable.rowCount == 5

    load(panel, 4)
    mirrored = LandmarkSet.from_points(PROTOCOL, truth * (-1, 1, 1), "truth")
    write_landmarks(tmp_path / "mirrored.csv", mirrored)
    desktop.dialogs.choose(tmp_path / "mirrored.csv")
    ui.importLandmarksButton.click()
    assert "left landmarks are on the patient's right" in ui.messageLabel.text
    assert not case().changed

    far = truth.copy()
    far[0] += (0, 500.0, 0)
    write_landmarks(tmp_path / "far.csv", LandmarkSet.from_points(PROTOCOL, far, "truth"))
    desktop.dialogs.choose(tmp_path / "far.csv")
    ui.importLandmarksButton.click()
    assert ui.messageLabel.text == ""
    assert case().changed
    ui.saveCaseButton.click()

    ui.checkButton.click()
    until(desktop, lambda: cell(panel, 0, CHECKS) or ui.messageLabel.text)
    assert cell(panel, 0, CHECKS) == "good"
    assert "outside the image" in ui.caseTable.item(4, CHECKS).toolTip()
    ui.splitButton.click()
    assert "train" in ui.datasetInfoLabel.text
    assert {cell(panel, row, SPLIT) for row in range(5)} == {"train", "validation", "test"}


def test_a_folder_that_is_no_dataset_is_one_sentence(panel, tmp_path):
    panel.ui.datasetPath.currentPath = str(tmp_path)
    assert "no dataset" in panel.ui.messageLabel.text
    assert panel.ui.caseTable.rowCount == 0
    assert not panel.ui.checkButton.enabled


def test_probabilities_and_settings_files(desktop, panel, tmp_path):
    ui = panel.ui
    assert ui.pDA1Text.text == "one of the patient side, then one of the machine side"
    ui.pDA1Spin.value = 0.5
    assert "add up to 1.3" in ui.probabilityLabel.text
    ui.pDA4Spin.value = 0.0
    assert ui.probabilityLabel.text == ""
    desktop.dialogs.choose(tmp_path / "mine.json")
    ui.writePolicyButton.click()
    config = load_augmentation(tmp_path / "mine.json")
    assert config.policies["DA1"].probability == 0.5
    values = json.loads((tmp_path / "mine.json").read_text())
    values["affine"]["rotation_deg"] = [-5, 5]
    values["policies"]["DA1"]["probability"], values["policies"]["DA2"]["probability"] = 0.4, 0.35
    (tmp_path / "other.json").write_text(json.dumps(values))
    ui.policyFile.currentPath = str(tmp_path / "other.json")
    assert ui.pDA1Spin.value == 0.4  # the file's
    assert panel.panel.augmentation.config().affine.rotation_deg == (-5, 5)
    (tmp_path / "own.json").write_text('{"policies": {"X": {"probability": 1, "apply": ["blur"]}}}')
    ui.policyFile.currentPath = str(tmp_path / "own.json")
    assert not ui.pDA1Spin.enabled
    assert "policies of its own: X" in ui.probabilityLabel.text


def test_a_preview_is_in_the_scene_and_the_same_for_the_same_seed(desktop, panel, scene):
    ui, loaded = panel.ui, load(panel, 1)
    before = loaded.nodes.read().points
    ui.previewPolicyCombo.currentText = "DA4"
    ui.seedSpin.value = 11
    found = []
    for _ in range(2):
        ui.previewButton.click()
        assert not ui.previewButton.enabled
        until(desktop, lambda: panel.panel.augmentation.run is None)
        assert ui.messageLabel.text == ""
        (volume,) = [
            v
            for v in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
            if v is not loaded.volume
        ]
        from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes

        points = LandmarkNodes.of_volume(volume).read().points
        found.append((slicer.util.arrayFromVolume(volume).copy(), points))
    assert ui.previewLabel.text.startswith("DA4: elastic")
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
    assert np.nanmax(np.linalg.norm(found[0][1] - before, axis=1)) > 1
    assert not any(node.GetDisplayNode().GetVisibility() for node in loaded.nodes.lists)
    desktop.screenshot(desktop.core.folder.name + "/preview.png")
    assert case().identity == "0002"

    ui.removePreviewButton.click()
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1
    assert all(node.GetDisplayNode().GetVisibility() for node in loaded.nodes.lists)
    np.testing.assert_allclose(loaded.nodes.read().points, before, atol=1e-3)

    ui.sheetButton.click()
    until(desktop, lambda: panel.panel.augmentation.run is None)
    assert ui.messageLabel.text == ""
    assert not ui.sheetPicture.pixmap.isNull()
