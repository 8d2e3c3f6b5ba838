"""A module as small as one can be that has a panel, a parameter node and something to do."""

import enum
from typing import Annotated

import slicer
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


class Side(enum.Enum):
    LEFT = 1
    RIGHT = 2


class Example(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Example")
        parent.categories = ["Testing"]
        parent.contributors = ["Nobody"]


@parameterNodeWrapper
class ExampleParameters:
    inputVolume: vtkMRMLScalarVolumeNode
    count: Annotated[int, WithinRange(1, 9), Default(3)]
    scale: Annotated[float, WithinRange(0.0, 2.0), Default(1.5)]
    label: str = "point"
    enabled: bool = True
    side: Side
    method: Annotated[str, Choice(["fast", "good"]), Default("good")]


class ExampleWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = self.parameters = self.tag = None
        self.left = 0

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        root = slicer.util.loadUI(self.resourcePath("UI/Example.ui"))
        self.layout.addWidget(root)
        self.ui = slicer.util.childWidgetVariables(root)
        root.setMRMLScene(slicer.mrmlScene)
        self.logic = ExampleLogic()
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.ui.resetButton.clicked.connect(self.onReset)
        self.bind()

    def bind(self, wanted=True):
        if self.parameters is not None:
            self.parameters.disconnectGui(self.tag)
            self.removeObserver(self.parameters, vtk.vtkCommand.ModifiedEvent, self.refresh)
        self.parameters = self.logic.getParameterNode() if wanted else None
        if self.parameters is not None:
            self.tag = self.parameters.connectGui(self.ui)
            self.addObserver(self.parameters, vtk.vtkCommand.ModifiedEvent, self.refresh)
            self.refresh()

    def refresh(self, caller=None, event=None):
        self.ui.applyButton.enabled = self.parameters.inputVolume is not None

    def enter(self):
        if self.parameters is None:
            self.bind()

    def cleanup(self):
        self.left += 1
        self.bind(False)
        self.removeObservers()

    def onSceneStartClose(self, caller, event):
        self.bind(False)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.bind()

    def onApply(self):
        with slicer.util.tryWithErrorDisplay(_("It did not work.")):
            node = self.logic.run(self.parameters)
            slicer.util.showStatusMessage(f"{node.GetNumberOfControlPoints()} points", 3000)

    def onReset(self):
        if slicer.util.confirmYesNoDisplay(_("Really?")):
            self.parameters.label = "point"


class ExampleLogic(ScriptedLoadableModuleLogic):
    def getParameterNode(self):
        return ExampleParameters(super().getParameterNode())

    def run(self, parameters):
        if not parameters.enabled:
            raise ValueError("it is switched off")
        bounds = [0.0] * 6
        parameters.inputVolume.GetRASBounds(bounds)
        name = parameters.inputVolume.GetName() + " points"
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
        node.CreateDefaultDisplayNodes()
        for k in range(parameters.count):
            along = (k + 1) / (parameters.count + 1)
            place = [low + along * (high - low) for low, high in zip(bounds[::2], bounds[1::2])]
            node.AddControlPointWorld(place, f"{parameters.label}-{k}")
        return node


class ExampleTest(ScriptedLoadableModuleTest):
    def test_defaults(self):
        assert ExampleLogic().getParameterNode().count == 3
