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
        parent.dependencies = ["Markups", "Segmentations", "SubjectHierarchy"]
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
        # What Slicer's cache calls it, in which other extensions have files, too.
        fileNames=f"BrainLandmarks_{head.name}",
        checksums=f"SHA256:{resources.sample_sha256()}",
        nodeNames="Colin27",
        thumbnailFileName=str(icon),
    )


@parameterNodeWrapper
class BrainLandmarksParameterNode:
    """The choices that a scene keeps."""

    inputVolume: vtkMRMLScalarVolumeNode
    device: Annotated[str, Choice(["auto", "cpu", "cuda", "mps"]), Default("auto")]
    quality: Annotated[str, Choice(["standard", "fast", "best"]), Default("standard")]
    snap: Annotated[
        str, Choice(["none", "plane", "boundary", "structure boundary"]), Default("none")
    ]


class BrainLandmarksWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
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
        from BrainLandmarksLib.ui.common.preferences import preference
        from BrainLandmarksLib.ui.common.scene_binding import ScanBinding
        from BrainLandmarksLib.ui.landmarks.panel import Panel

        root = slicer.util.loadUI(self.resourcePath("UI/BrainLandmarks.ui"))
        self.layout.addWidget(root)
        self.ui = slicer.util.childWidgetVariables(root)
        root.setMRMLScene(slicer.mrmlScene)
        self.logic = BrainLandmarksLogic()
        pictures = Path(self.resourcePath("Thumbnails"))
        self.panel = Panel(self.ui, root, shared_host(), preference, pictures)
        self.ui.reviewerEdit.setText(preference("reviewer") or "")
        self.binding = ScanBinding(self, self.ui.inputSelector)
        self.binding.bind()

    def cleanup(self):
        if self.binding is not None:
            self.binding.end()
        self.removeObservers()

    def enter(self):
        if self.binding is not None:  # it is None if setup failed; Slicer has said why
            self.binding.bind()
            self.panel.fill_models()
            self.panel.detecting.prepare()

    def exit(self):
        if self.binding is not None:
            self.binding.pause()


class BrainLandmarksLogic(ScriptedLoadableModuleLogic):
    """What a script can do without the panel."""

    def getParameterNode(self):
        return BrainLandmarksParameterNode(super().getParameterNode())

    def loadSampleHead(self):
        """Load the sample head (Colin27, comes with the extension); returns its volume node."""
        from BrainLandmarksLib.mrml.landmarks.sample import load_sample_head

        return load_sample_head()

    def detect(self, volume, model="brain88", device="auto", quality="standard", force=False):
        """Find the landmarks of a volume node, show them in lists, and wait until they are there.

        For scripts and other modules; no window is needed. Earlier lists of the volume are
        replaced. Raises a UserError, whose text is one sentence, if there is no result, also if
        what was found is no head; with force it is shown, marked as implausible.

        Returns the lists (vtkMRMLMarkupsFiducialNode), one for each group; point labels are those
        of the protocol, missing landmarks are points without a position.
        """
        from BrainLandmarksLib.mrml.landmarks.detection_run import detect_and_wait
        from BrainLandmarksLib.mrml.landmarks.session import Session
        from BrainLandmarksLib.network.model_files import load_shape, model_protocol
        from BrainLandmarksLib.ui.common.host import shared_host

        protocol = model_protocol(model)
        worker = shared_host().worker
        found = detect_and_wait(
            worker, volume, protocol, model=model, device=device, quality=quality, force=force
        )
        shape = load_shape(model, len(protocol))
        session = Session.begin(volume, found.landmarks, found.source, shape)
        session.end()
        return session.nodes.lists

    def parcellate(self, volume, model="brain88", device="auto", force=False):
        """Divide the brain of a volume node into its structures, and wait until they are there.

        For scripts and other modules; no window is needed. An earlier parcellation of the volume is
        replaced. Raises a UserError, whose text is one sentence, if there is no result.

        Returns the vtkMRMLSegmentationNode, with one segment for each structure.
        """
        from BrainLandmarksLib.mrml.landmarks.parcellation_run import parcellate_and_wait
        from BrainLandmarksLib.mrml.landmarks.segmentation import show_parcellation
        from BrainLandmarksLib.ui.common.host import shared_host

        worker = shared_host().worker
        parcelled = parcellate_and_wait(worker, volume, model=model, device=device, force=force)
        return show_parcellation(volume, parcelled)


class BrainLandmarksTest(ScriptedLoadableModuleTest):
    """Runs in Slicer: from the sample head to landmarks that were corrected and saved.

    The sample head comes with the extension, so no test needs a network. What needs packages that
    are not installed, or a window that is not there, is skipped.
    """

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        from BrainLandmarksLib.mrml.self_test import run_all

        run_all(self)

    def test_detect(self):
        """Landmarks are found where a person has placed them on the sample head."""
        import numpy as np

        from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
        from BrainLandmarksLib.mrml.self_test import need_packages, placed_landmarks

        need_packages(self)
        logic = BrainLandmarksLogic()
        volume = logic.loadSampleHead()
        lists = logic.detect(volume, quality="fast")
        nodes = LandmarkNodes.of_volume(volume)
        self.assertEqual(len(lists), len(nodes.protocol.groups))
        found = nodes.read()
        self.assertFalse(found.missing.any())
        apart = np.linalg.norm(found.points - placed_landmarks(nodes.protocol).points, axis=1)
        self.assertLess(np.nanmedian(apart), 5.0)

    def test_place_by_click(self):
        """A click with the mouse moves a landmark, can be undone, and leaves nothing behind."""
        import numpy as np

        from BrainLandmarksLib.mrml.self_test import click_in_slice

        panel, label = self.reviewed()
        review = panel.session.review
        before = review.current.point(label)
        own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "the user's")
        slicer.modules.markups.logic().SetActiveListID(own)
        count = slicer.mrmlScene.GetNumberOfNodes()
        panel.ui.placeButton.click()
        there = before + np.array([6.0, 9.0, 0.0])
        click_in_slice(self, there)
        np.testing.assert_allclose(review.current.point(label), there, atol=2.0)
        self.assertFalse(panel.ui.placeButton.checked)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), count)
        self.assertEqual(slicer.modules.markups.logic().GetActiveListID(), own.GetID())
        self.assertEqual(own.GetNumberOfControlPoints(), 0)
        panel.ui.undoButton.click()
        np.testing.assert_allclose(review.current.point(label), before, atol=1e-3)
        panel.ui.redoButton.click()
        np.testing.assert_allclose(review.current.point(label), there, atol=2.0)

    def test_review_save_and_load(self):
        """Correct, confirm and mark missing; a file and a scene bring all of it back."""
        import tempfile

        import numpy as np

        from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
        from BrainLandmarksLib.review import read_review, write_review

        panel, label = self.reviewed()
        session = panel.session
        node, index = session.nodes.place_of(label)
        there = session.review.current.point(label) + np.array([0.0, 3.0, 4.0])
        node.SetNthControlPointPositionWorld(index, *(float(v) for v in there))  # as a drag does
        panel.reviewing.next_uncertain()
        confirmed = session.selection.active
        panel.ui.confirmButton.click()
        gone = session.selection.active
        panel.ui.missingButton.click()
        panel.ui.undoButton.click()
        panel.ui.missingButton.click()
        wanted = session.review.current

        def check(review):
            status = dict(zip(review.protocol.labels, review.current.status, strict=True))
            self.assertEqual(status[label], "edited")
            self.assertEqual(status[confirmed], "confirmed")
            self.assertEqual(status[gone], "missing")
            np.testing.assert_allclose(review.current.points, wanted.points, atol=1e-3)
            np.testing.assert_allclose(review.current.point(label), there, atol=1e-3)
            self.assertIn("moved", [edit.kind for edit in review.edits])

        with tempfile.TemporaryDirectory() as folder:
            file, scene = Path(folder, "landmarks.mrk.json"), Path(folder, "scene.mrb")
            write_review(file, session.review, session.source)
            self.assertTrue(slicer.util.saveScene(str(scene), {}))
            slicer.mrmlScene.Clear()
            check(read_review(file, wanted.protocol)[0])
            slicer.util.loadScene(str(scene), {})
            volume = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")[0]
            check(LandmarkNodes.of_volume(volume).restore()[0])

    def reviewed(self):
        """The panel with the sample head's landmarks, and the label of the active one."""
        from BrainLandmarksLib.mrml.landmarks.session import Session
        from BrainLandmarksLib.mrml.self_test import placed_landmarks, shown_widget
        from BrainLandmarksLib.protocol import load_protocol

        panel = shown_widget("BrainLandmarks").panel
        volume = BrainLandmarksLogic().loadSampleHead()
        Session.begin(
            volume, placed_landmarks(load_protocol("brain88")), {"model": "brain88"}
        ).end()
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        panel.choose(volume)
        panel.set_volume(volume)
        panel.reviewing.activate("CC_G")
        self.assertEqual(panel.session.selection.active, "CC_G")
        return panel, "CC_G"
