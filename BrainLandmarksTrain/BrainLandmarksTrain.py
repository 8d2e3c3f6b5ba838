"""BrainLandmarksTrain: train landmark models on corrected heads, in Slicer and in batch.

This file is the module as Slicer sees it. What the panel does is in ``BrainLandmarksTrainLib.ui``;
training itself runs in a process of its own. Without a window, every ``brainlandmarks`` command:

    Slicer --no-main-window --no-splash --python-script BrainLandmarksTrain.py -- train recipe.json

Slicer reads this file in the system's encoding when it is run as a script, so it is plain ASCII.
"""

import pathlib
import sys
import traceback
from typing import Annotated

import slicer
import slicer.util
import vtk
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import (
    Choice,
    Default,
    WithinRange,
    parameterNodeWrapper,
)
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class BrainLandmarksTrain(ScriptedLoadableModule):
    """What Slicer lists."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Brain Landmarks Training")
        parent.categories = ["Neuroimaging"]
        parent.dependencies = ["BrainLandmarks"]
        parent.contributors = ["The BrainLandmarks developers"]
        parent.helpText = _(
            "From corrected landmarks to a better model: datasets and agreement between raters, "
            "augmentation with a preview, and training in the background, which continues when "
            "Slicer is closed."
        )
        parent.acknowledgementText = _(
            "The network and the training follow Patel et al., arXiv:2111.00837."
        )


@parameterNodeWrapper
class BrainLandmarksTrainParameterNode:
    """The choices that a scene keeps."""

    # Dataset
    dataset: pathlib.Path
    primary: bool = False
    rater: str = ""
    blinded: bool = False
    # Augmentation
    policyFile: pathlib.Path
    probabilityDA1: Annotated[float, WithinRange(0, 1), Default(0.2)]
    probabilityDA2: Annotated[float, WithinRange(0, 1), Default(0.25)]
    probabilityDA3: Annotated[float, WithinRange(0, 1), Default(0.25)]
    probabilityDA4: Annotated[float, WithinRange(0, 1), Default(0.3)]
    probabilityDA5: Annotated[float, WithinRange(0, 1), Default(0.0)]
    previewPolicy: Annotated[
        str, Choice(["by chance", "DA1", "DA2", "DA3", "DA4", "DA5"]), Default("by chance")
    ]
    seed: Annotated[int, WithinRange(0, 2147483647), Default(1)]
    # Training
    method: Annotated[
        str,
        Choice(
            [
                "fine-tune a model",
                "new model, the paper's method",
                "new model, a quick trial",
                "recipe file",
            ]
        ),
        Default("fine-tune a model"),
    ]
    startModel: str = ""
    recipe: pathlib.Path
    output: pathlib.Path
    modelName: str = ""
    loss: Annotated[str, Choice(["euclidean", "mse"]), Default("euclidean")]
    alpha: Annotated[float, WithinRange(0, 1), Default(0.5)]
    size: Annotated[
        str,
        Choice(["the method's", "16", "32", "48", "64", "80", "96", "128"]),
        Default("the method's"),
    ]
    amount: Annotated[int, WithinRange(1, 1000000), Default(300)]
    unit: Annotated[str, Choice(["steps", "epochs", "minutes"]), Default("steps")]
    trainingDevice: Annotated[str, Choice(["auto", "cpu", "cuda", "mps"]), Default("auto")]
    policies: bool = True
    resume: bool = True
    # Joining a federation
    federationServer: str = ""
    federationCertificate: pathlib.Path
    federationKey: pathlib.Path
    federationApp: pathlib.Path
    federationOutput: pathlib.Path


class BrainLandmarksTrainWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
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
        from BrainLandmarksTrainLib.ui.binding import TrainBinding
        from BrainLandmarksTrainLib.ui.panel import TrainPanel

        root = slicer.util.loadUI(self.resourcePath("UI/BrainLandmarksTrain.ui"))
        self.layout.addWidget(root)
        self.ui = slicer.util.childWidgetVariables(root)
        root.setMRMLScene(slicer.mrmlScene)
        self.logic = BrainLandmarksTrainLogic()
        self.panel = TrainPanel(self.ui, shared_host())
        self.binding = TrainBinding(self)
        self.binding.bind()

    def cleanup(self):
        if self.binding is not None:
            self.binding.end()
        self.removeObservers()

    def enter(self):
        if self.binding is not None:  # it is None if setup failed; Slicer has said why
            self.binding.bind()

    def exit(self):
        if self.binding is not None:
            self.binding.pause()


class BrainLandmarksTrainLogic(ScriptedLoadableModuleLogic):
    """What a script can do without the panel."""

    def getParameterNode(self):
        return BrainLandmarksTrainParameterNode(super().getParameterNode())

    def run(self, arguments):
        """Do what `brainlandmarks` does with these arguments and wait; returns the exit code.

        Arguments may be Slicer scenes. The scene that is open is closed for them, so this is for
        scripts.
        """
        from BrainLandmarksTrainLib.mrml.headless import run

        return run(arguments)


class BrainLandmarksTrainTest(ScriptedLoadableModuleTest):
    """Runs in Slicer: commands run, and a model is trained for a few steps."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        from BrainLandmarksLib.mrml.self_test import run_all

        run_all(self)

    def test_command(self):
        self.assertEqual(BrainLandmarksTrainLogic().run(["--version"]), 0)
        self.assertEqual(BrainLandmarksTrainLogic().run(["no-such-command"]), 2)

    def test_training(self):
        """From images and landmark files to a dataset, and to a model trained for a few steps."""
        import tempfile
        from dataclasses import replace

        from BrainLandmarksLib.mrml.self_test import need_packages
        from BrainLandmarksLib.network.model_files import summarise
        from BrainLandmarksTrainLib.config.options import (
            TrainingOptions,
            arguments_of,
            keep_recipe,
            recipe_from,
        )

        need_packages(self, training=True)
        run = BrainLandmarksTrainLogic().run
        with tempfile.TemporaryDirectory() as folder:
            heads, dataset, output = (pathlib.Path(folder, n) for n in ("heads", "set", "run"))
            self.writeHeads(heads)
            self.assertEqual(run(["dataset", "create", str(heads), "-o", str(dataset)]), 0)
            self.assertEqual(run(["dataset", "split", str(dataset)]), 0)
            choices = TrainingOptions(
                "fine-tune", dataset=dataset, output=output, size=16, amount=3, device="cpu"
            )
            recipe = recipe_from(choices)
            fine = replace(
                recipe.fine, validation_scans=1, recalibration_batches=1, tensorboard=False
            )
            scans = replace(recipe.scans, augmented_share=0.0)
            keep_recipe(replace(recipe, fine=fine, scans=scans, refinement=None))
            self.assertEqual(run(arguments_of(output)), 0)
            self.assertEqual(summarise(output / "model").protocol, "brain88")
            self.assertTrue((output / "fine" / "log.csv").is_file())

    def writeHeads(self, folder, count=4):
        """Small copies of the sample head with its landmarks, as files."""
        import shutil

        from BrainLandmarksLib import resources
        from BrainLandmarksLib.mrml.landmarks.sample import load_sample_head

        folder.mkdir()
        head = load_sample_head()
        matrix = vtk.vtkMatrix4x4()
        head.GetIJKToRASMatrix(matrix)
        every = 4
        for row in range(3):
            for column in range(3):
                matrix.SetElement(row, column, every * matrix.GetElement(row, column))
        small = slicer.util.addVolumeFromArray(
            slicer.util.arrayFromVolume(head)[::every, ::every, ::every].copy(), matrix
        )
        for number in range(count):
            slicer.util.arrayFromVolume(small)[0, 0, 0] = number  # no two of them alike
            slicer.util.arrayFromVolumeModified(small)
            image = folder / f"sub-{number:02d}_T1w.nii.gz"
            self.assertTrue(slicer.util.saveNode(small, str(image), {}))
            points = resources.sample_landmarks("brain88")
            shutil.copy(points, folder / f"sub-{number:02d}_T1w.mrk.json")


def findLibraries():
    """In a copy of the repository, put the folder of the module BrainLandmarks on Python's path."""
    beside = pathlib.Path(__file__).resolve().parents[1] / "BrainLandmarks"
    if beside.is_dir():  # an installed extension has everything in one folder
        sys.path.insert(0, str(beside))


if __name__ == "__main__":  # --python-script; as a module this file has its own name
    exitCode = 1
    try:
        findLibraries()
        exitCode = BrainLandmarksTrainLogic().run(sys.argv[1:])
    except BaseException:
        traceback.print_exc()
    finally:
        # Without this Slicer would stay, without a window, for ever.
        slicer.util.exit(exitCode)
