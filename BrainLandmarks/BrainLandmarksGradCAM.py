"""Grad-CAM: which parts of an image support the position that the network gives a landmark.

This file is the module as Slicer sees it. What the panel does is in
``BrainLandmarksLib.ui.gradcam``, what happens in the scene in ``BrainLandmarksLib.mrml``. Maps are
made in the process that finds the landmarks; both modules share it.
"""

from pathlib import Path
from typing import Annotated

import slicer
import slicer.util
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, Default, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class BrainLandmarksGradCAM(ScriptedLoadableModule):
    """What Slicer lists."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Brain Landmarks Grad-CAM")
        parent.categories = ["Neuroimaging"]
        parent.dependencies = ["Volumes", "Markups", "SubjectHierarchy", "Colors"]
        parent.contributors = ["The BrainLandmarks developers"]
        parent.helpText = _(
            "Shows for every landmark which parts of the MRI support its position, as a map. A map "
            "says neither how certain nor how accurate a landmark is."
        )
        parent.acknowledgementText = _(
            "Grad-CAM is the method of Selvaraju et al., arXiv:1610.02391."
        )


@parameterNodeWrapper
class BrainLandmarksGradCAMParameterNode:
    """The choices that a scene keeps."""

    inputVolume: vtkMRMLScalarVolumeNode
    device: Annotated[str, Choice(["auto", "cpu", "cuda", "mps"]), Default("auto")]
    follow: Annotated[bool, Default(True)]
    overlay: Annotated[bool, Default(True)]
    legend: Annotated[bool, Default(True)]
    inSpace: Annotated[bool, Default(False)]
    opacity: Annotated[float, WithinRange(0.0, 1.0), Default(0.6)]
    threshold: Annotated[float, WithinRange(0.0, 1.0), Default(0.3)]
    plane: Annotated[str, Choice(["axial", "sagittal", "coronal"]), Default("axial")]


class BrainLandmarksGradCAMWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.panel = None
        self.binding = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        from BrainLandmarksLib.ui.common.host import shared_host
        from BrainLandmarksLib.ui.common.scene_binding import ScanBinding
        from BrainLandmarksLib.ui.gradcam.panel import GradcamPanel

        root = slicer.util.loadUI(self.resourcePath("UI/BrainLandmarksGradCAM.ui"))
        self.layout.addWidget(root)
        self.ui = slicer.util.childWidgetVariables(root)
        root.setMRMLScene(slicer.mrmlScene)
        self.logic = BrainLandmarksGradCAMLogic()
        self.panel = GradcamPanel(self.ui, shared_host(), Path(self.resourcePath("Thumbnails")))
        self.binding = ScanBinding(self, self.ui.inputSelector)
        self.binding.bind()

    def cleanup(self):
        if self.binding is not None:
            self.binding.end()
        self.removeObservers()

    def enter(self):
        if self.binding is not None:  # it is None if setup failed; Slicer has said why
            self.binding.bind()
            self.panel.choosing.prepare()

    def exit(self):
        if self.binding is not None:
            self.binding.pause()


class BrainLandmarksGradCAMLogic(ScriptedLoadableModuleLogic):
    """What a script can do without the panel."""

    def getParameterNode(self):
        return BrainLandmarksGradCAMParameterNode(super().getParameterNode())


class BrainLandmarksGradCAMTest(ScriptedLoadableModuleTest):
    """Runs in Slicer: maps are made, and become volumes that follow their scan."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        from BrainLandmarksLib.mrml.self_test import run_all

        run_all(self)

    def test_a_map(self):
        import numpy as np

        from BrainLandmarksLib.geometry.grid import Grid
        from BrainLandmarksLib.mrml.gradcam.map_nodes import MapNodes

        scan = slicer.util.addVolumeFromArray(np.zeros((20, 20, 20), np.int16))
        maps = MapNodes(scan)
        data = np.linspace(0, 1, 512, dtype=np.float32).reshape(8, 8, 8)
        grid = Grid(data.shape, np.diag([3.0, 3.0, 3.0, 1.0]))
        node = maps.put(data, grid, name="map", labels=("CC_G",), model="brain88", layer="first")
        self.assertEqual(maps.all, [node])
        self.assertAlmostEqual(slicer.util.arrayFromVolume(node).max(), 1.0)
        maps.close()

    def test_a_map_of_the_sample_head(self):
        """What speaks for a landmark lies around it."""
        import numpy as np

        from BrainLandmarksLib.mrml.landmarks.sample import load_sample_head
        from BrainLandmarksLib.mrml.self_test import need_packages, placed_landmarks, wait_for

        need_packages(self)
        widget = slicer.util.getModuleWidget("BrainLandmarksGradCAM")
        panel = widget.panel
        volume = load_sample_head()
        widget.ui.inputSelector.setCurrentNode(volume)
        panel.set_volume(volume)
        panel.choosing.choose(("CC_G",))
        wait_for(lambda: panel.maps.all or widget.ui.messageLabel.text)
        self.assertEqual(widget.ui.messageLabel.text, "")
        (node,) = panel.maps.all
        values = slicer.util.arrayFromVolume(node)
        self.assertAlmostEqual(float(values.max()), 1.0, places=5)
        k, j, i = np.argwhere(values > 0.5).mean(axis=0)
        matrix = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(matrix)
        middle = np.array(matrix.MultiplyPoint((i, j, k, 1.0))[:3])
        there = placed_landmarks(panel.choosing.protocol).point("CC_G")
        self.assertLess(np.linalg.norm(middle - there), 40.0)
        panel.close()
