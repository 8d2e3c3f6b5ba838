"""BrainLandmarks: find anatomical landmarks of the head in an MRI, review and correct them.

This file is the module as Slicer sees it. What the panel does is in ``BrainLandmarksLib.ui``, what
happens in the scene in ``BrainLandmarksLib.mrml``, and what finds the landmarks in the library
itself, which runs in a process of its own.
"""

from pathlib import Path
from typing import Annotated

import slicer
import slicer.util
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, Default, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

SAMPLE_NAME = "BrainLandmarks Colin27"


class BrainLandmarks(ScriptedLoadableModule):
    """What Slicer lists."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Brain Landmarks")
        parent.categories = ["Neuroimaging"]
        parent.dependencies = ["Markups", "SubjectHierarchy"]
        parent.contributors = ["The BrainLandmarks developers"]
        parent.helpText = _(
            "Finds 88 anatomical landmarks in a T1-weighted MRI of the head, shows how sure it is "
            "of each, and lets you correct them."
        )
        parent.acknowledgementText = _(
            "The sample head is Colin27 (Holmes et al., J Comput Assist Tomogr 22:324-333, 1998)."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Offer the sample head that comes with the extension in the Sample Data module."""
    try:
        import SampleData
    except ImportError:  # Slicer was started without it
        return
    from BrainLandmarksLib import resources

    head = resources.sample_head()
    icon = Path(__file__).parent / "Resources" / "Icons" / "BrainLandmarks.png"
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="Brain Landmarks",
        sampleName=SAMPLE_NAME,
        uris=head.as_uri(),  # a file of this computer: nothing is downloaded
        fileNames=head.name,
        nodeNames="Colin27",
        thumbnailFileName=str(icon),
    )


@parameterNodeWrapper
class BrainLandmarksParameterNode:
    """The choices that a scene keeps."""

    inputVolume: vtkMRMLScalarVolumeNode
    device: Annotated[str, Choice(["auto", "cpu", "cuda", "mps"]), Default("auto")]
    quality: Annotated[str, Choice(["standard", "fast", "best"]), Default("standard")]
    snap: Annotated[str, Choice(["none", "plane", "boundary"]), Default("none")]


class BrainLandmarksWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.panel = None
        self._parameterNode = None
        self._guiTag = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        from BrainLandmarksLib.ui.host import shared_host
        from BrainLandmarksLib.ui.panel import Panel
        from BrainLandmarksLib.ui.settings import setting

        root = slicer.util.loadUI(self.resourcePath("UI/BrainLandmarks.ui"))
        self.layout.addWidget(root)
        self.ui = slicer.util.childWidgetVariables(root)
        root.setMRMLScene(slicer.mrmlScene)
        self.logic = BrainLandmarksLogic()
        pictures = Path(self.resourcePath("Thumbnails"))
        self.panel = Panel(self.ui, root, shared_host(), setting, pictures)
        self.ui.reviewerEdit.setText(setting("reviewer") or "")
        self.ui.inputSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.panel.set_volume)
        self.ui.sampleButton.connect("clicked(bool)", self.onSampleHead)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndClose)
        self.initializeParameterNode()

    def cleanup(self):
        from BrainLandmarksLib.ui.host import stop_shared_host

        self.setParameterNode(None)
        if self.panel is not None:
            self.panel.close()
        stop_shared_host()
        self.removeObservers()

    def enter(self):
        self.initializeParameterNode()
        self.panel.fill_models()
        self.panel.detecting.prepare()

    def exit(self):
        if self._parameterNode is not None and self._guiTag is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self._guiTag = None

    def onSceneStartClose(self, caller, event):
        self.panel.close()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()
            self.panel.set_volume(self.ui.inputSelector.currentNode())

    def initializeParameterNode(self):
        """Bind the panel to the scene's choices; with one scan in the scene, choose it."""
        from BrainLandmarksLib.mrml.map_nodes import first_scan

        self.setParameterNode(self.logic.getParameterNode())
        if self._parameterNode.inputVolume is None:
            scan = first_scan()
            if scan is not None:
                self._parameterNode.inputVolume = scan

    def setParameterNode(self, parameterNode):
        """Bind the panel to a parameter node, or to none."""
        if self._parameterNode is not None and self._guiTag is not None:
            self._parameterNode.disconnectGui(self._guiTag)
        self._parameterNode, self._guiTag = parameterNode, None
        if parameterNode is not None:
            self._guiTag = parameterNode.connectGui(self.ui)

    def onSampleHead(self, checked=False):
        """Load the sample head and choose it."""
        volume = self.logic.loadSampleHead()
        self.ui.inputSelector.setCurrentNode(volume)
        slicer.util.setSliceViewerLayers(background=volume, fit=True)


class BrainLandmarksLogic(ScriptedLoadableModuleLogic):
    """What a script can do without the panel."""

    def getParameterNode(self):
        return BrainLandmarksParameterNode(super().getParameterNode())

    def loadSampleHead(self):
        """Load the sample head (Colin27, comes with the extension); returns its volume node."""
        from BrainLandmarksLib import resources

        return slicer.util.loadVolume(str(resources.sample_head()), {"name": "Colin27"})

    def detect(self, volume, model="brain88", device="auto", quality="standard", force=False):
        """Find the landmarks of a volume node, show them in lists, and wait until they are there.

        For scripts and other modules; no window is needed. Earlier lists of the volume are
        replaced. Raises a UserError, whose text is one sentence, if there is no result, also if
        what was found is no head; with force it is shown, marked as implausible.

        Returns the lists (vtkMRMLMarkupsFiducialNode), one for each group; point labels are those
        of the protocol, missing landmarks are points without a position.
        """
        from BrainLandmarksLib.models import load_shape, model_protocol
        from BrainLandmarksLib.mrml.detection_run import detect_and_wait
        from BrainLandmarksLib.mrml.session import Session
        from BrainLandmarksLib.ui.host import shared_host

        protocol = model_protocol(model)
        worker = shared_host().worker
        found = detect_and_wait(
            worker, volume, protocol, model=model, device=device, quality=quality, force=force
        )
        shape = load_shape(model, len(protocol))
        session = Session.begin(volume, found.landmarks, found.source, shape)
        session.end()
        return session.nodes.lists


class BrainLandmarksTest(ScriptedLoadableModuleTest):
    """Runs in Slicer: the module loads, and lists of landmarks can be made."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        for name in sorted(n for n in dir(self) if n.startswith("test_")):
            self.setUp()
            getattr(self, name)()

    def test_lists(self):
        from BrainLandmarksLib.mrml.nodes import LandmarkNodes
        from BrainLandmarksLib.protocol import load_protocol

        volume = BrainLandmarksLogic().loadSampleHead()
        nodes = LandmarkNodes.create(volume, load_protocol("brain88"))
        self.assertTrue(nodes.complete)
        self.assertEqual(len(nodes.lists), 7)
