"""Parcellate in the panel: the real worker, a small model, and what is shown of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
from image_baselines import compare, drawn
from polling import until

from BrainLandmarksLib import resources
from BrainLandmarksLib.annotation.structures import structure_of
from BrainLandmarksLib.geometry.grid import cube
from BrainLandmarksLib.mrml.export.volume import world_volume
from BrainLandmarksLib.mrml.landmarks.parcellation_run import Parcelled
from BrainLandmarksLib.mrml.landmarks.segmentation import segmentation_of, show_parcellation
from BrainLandmarksLib.mrml.landmarks.views import jump_to
from BrainLandmarksLib.mrml.landmarks.volume_run import Failure

MODULE = Path(__file__).parents[2] / "BrainLandmarks" / "BrainLandmarks.py"


@pytest.fixture(scope="module")
def parcelling(tmp_path_factory):
    """Folders of a small model with a parcellation network, and of the same without one."""
    folder = str(Path(__file__).parents[1] / "Python")
    if folder not in sys.path:
        sys.path.append(folder)
    import parcelling

    made = tmp_path_factory.mktemp("models")
    plain = parcelling.untrained_folder(made / "plain")
    return parcelling.parcelling_folder(plain, made / "parcelling"), plain


@pytest.fixture
def panel(desktop, monkeypatch, parcelling):
    monkeypatch.setattr(
        "BrainLandmarksLib.ui.landmarks.detecting.DetectSection.prepare", lambda *_: None
    )
    made = desktop.open(MODULE).self()
    monkeypatch.setattr(made.panel, "model", lambda: str(parcelling[0]))
    return made


@pytest.fixture
def head(scene):
    """A ball of tissue with stripes, in voxels of 3 mm."""
    grid = cube((4.0, -3.0, 2.0), 180.0, 60)
    ras = grid.ijk_to_ras(np.moveaxis(np.indices(grid.shape), 0, -1))
    tissue = 1 / (1 + np.exp((np.linalg.norm(ras / [65, 80, 70], axis=-1) - 1) * 20))
    values = 1000 * tissue * (1 + 0.3 * np.sin(ras[..., 0] / 9))
    node = slicer.util.addVolumeFromArray(
        np.ascontiguousarray(values.astype(np.int16).transpose(2, 1, 0)), grid.affine, "head"
    )
    return node


def test_a_click_brings_a_segmentation(desktop, panel, head, scene):
    ui = panel.ui
    assert not ui.parcellationCheck.enabled
    ui.inputSelector.setCurrentNode(head)
    ui.parcellateButton.click()
    assert ui.parcellateButton.text == "Cancel"
    assert not ui.detectButton.enabled
    until(desktop, lambda: panel.panel.parcellating.run is None)
    assert ui.messageLabel.text == ""
    assert "structures in" in ui.statusLabel.text
    node = segmentation_of(head)
    segmentation = node.GetSegmentation()
    count = segmentation.GetNumberOfSegments()
    names = {segmentation.GetNthSegment(n).GetName() for n in range(count)}
    assert names <= {structure_of(number).name for number in (2, 41, 17)}
    assert names
    assert ui.parcellateButton.text == "Parcellate"
    assert ui.detectButton.enabled
    assert ui.parcellationCheck.checked
    ui.parcellationCheck.click()
    assert not node.GetDisplayNode().GetVisibility()

    # The same voxels from a script, in the same node, which stays hidden.
    logic = slicer.util.getModuleLogic("BrainLandmarks")
    before = slicer.vtkOrientedImageData()
    before.DeepCopy(segmentation.GetLayerDataObject(0))
    with desktop.headless():
        assert logic.parcellate(head, model=panel.panel.model()) is node
    image = segmentation.GetLayerDataObject(0)
    assert image.GetExtent() == before.GetExtent()
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
    assert not node.GetDisplayNode().GetVisibility()

    # It follows the volume as long as that is chosen.
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    head.SetAndObserveTransformNodeID(transform.GetID())
    assert node.GetParentTransformNode() is transform


def test_what_cannot_be_done_is_one_sentence(desktop, panel, head, parcelling, monkeypatch):
    ui = panel.ui
    ui.inputSelector.setCurrentNode(None)
    ui.parcellateButton.click()
    assert "Choose the MRI of a head" in ui.messageLabel.text
    ui.inputSelector.setCurrentNode(head)
    monkeypatch.setattr(panel.panel, "model", lambda: str(parcelling[1]))
    ui.parcellateButton.click()
    until(desktop, lambda: panel.panel.parcellating.run is None)
    assert "no parcellation network" in ui.messageLabel.text
    assert segmentation_of(head) is None
    assert not ui.progressBar.visible
    monkeypatch.setattr(panel.panel, "model", lambda: "")
    ui.parcellateButton.click()
    assert "No model is installed" in ui.messageLabel.text


def test_cancel_and_no_head(desktop, panel, head, monkeypatch):
    """With a stand-in for the run: what the worker says is of other tests."""
    from BrainLandmarksLib.ui.landmarks import parcellating

    runs = []

    class Run:
        over = False

        def __init__(self, _worker, _volume, _progress, on_end, *, force, **_options):
            runs.append((force, on_end))

        def cancel(self):
            runs[-1][1](None)

    monkeypatch.setattr(parcellating, "ParcellationRun", Run)
    ui = panel.ui
    ui.inputSelector.setCurrentNode(head)
    ui.parcellateButton.click()
    ui.parcellateButton.click()
    assert ui.statusLabel.text == "Cancelled."
    refused = Failure("no head was recognised in the image.", "", implausible=True)
    desktop.dialogs.answer(False)
    ui.parcellateButton.click()
    runs[-1][1](refused)
    assert "No head was recognised" in ui.messageLabel.text
    desktop.dialogs.answer(True)
    ui.parcellateButton.click()
    runs[-1][1](refused)
    assert [force for force, _ in runs] == [False, False, False, True]
    runs[-1][1](Failure("it failed.", "why"))
    assert "It failed" in ui.messageLabel.text
    assert panel.panel.parcellating.run is None


def test_the_snap_can_be_chosen(panel):
    combo = panel.ui.snapCombo
    combo.currentText = "structure boundary"
    assert panel.logic.getParameterNode().snap == "structure boundary"


# Pictures -----------------------------------------------------------------------------------------

BALLS = {
    3: ((-34, -20, 20), (34, 70, 50)),
    42: ((34, -20, 20), (34, 70, 50)),
    2: ((-32, -20, 20), (26, 58, 40)),
    41: ((32, -20, 20), (26, 58, 40)),
    4: ((-14, -15, 18), (6, 30, 9)),
    43: ((14, -15, 18), (6, 30, 9)),
    17: ((-27, -22, -4), (6, 18, 6)),
    53: ((27, -22, -4), (6, 18, 6)),
    16: ((0, -26, -24), (13, 12, 22)),
    251: ((0, -10, 22), (4, 34, 8)),
}
"""Structures as ellipsoids, middles and half axes in mm; later ones lie over earlier ones."""


@pytest.fixture
def shown(desktop, scene):
    """The sample head with made-up structures, so that no model has a say in the pictures."""
    volume = slicer.util.loadVolume(str(resources.sample_head()), {"name": "Colin27"})
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    grid = world_volume(volume).grid
    assert np.count_nonzero(grid.affine[:3, :3]) == 3  # so that each axis is one of space
    labels = np.zeros(grid.shape, np.int16)
    for number, (middle, axes) in BALLS.items():
        x, y, z = (
            ((grid.affine[n, n] * np.arange(grid.shape[n]) + grid.affine[n, 3] - m) / r) ** 2
            for n, (m, r) in enumerate(zip(middle, axes))
        )
        labels[x[:, None, None] + y[:, None] + z < 1] = number
    structures = tuple(
        {"number": n, "name": structure_of(n).name, "color": structure_of(n).color} for n in BALLS
    )
    node = show_parcellation(volume, Parcelled(labels, grid, structures, (), 1.0))
    jump_to((-14.0, -15.0, 14.0))
    return node


@pytest.mark.parametrize("view", ["Red", "Green"])
def test_structures_lie_over_the_scan(desktop, shown, view):
    compare(drawn(desktop, view), f"parcellation_{view.lower()}")


def test_a_structure_has_its_colour_in_its_place(desktop, shown):
    """Not by a picture: the pixel in the middle of the hippocampus, fully opaque."""
    display = shown.GetDisplayNode()
    display.SetOpacity2DFill(1.0)
    place = BALLS[17][0]
    jump_to(place)
    x, y = desktop.layout.sliceWidget("Green").pixel_of(place)
    picture = drawn(desktop, "Green")
    pixel = picture[picture.shape[0] - 1 - round(y), round(x)] / 255
    np.testing.assert_allclose(pixel, structure_of(17).rgb, atol=0.1)
    display.SetVisibility(False)
    picture = drawn(desktop, "Green")
    pixel = picture[picture.shape[0] - 1 - round(y), round(x)] / 255
    assert np.ptp(pixel) < 0.05


def test_a_wrong_picture_is_noticed(desktop, shown):
    if os.environ.get("UPDATE_PICTURES"):
        pytest.skip("the pictures are being drawn")
    shown.GetDisplayNode().SetVisibility(False)
    with pytest.raises(AssertionError):
        compare(drawn(desktop, "Red"), "parcellation_red")
