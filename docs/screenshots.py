"""Take the pictures of the panels: a session in the stand-in of the Slicer desktop.

    make screenshots

writes Resources/Screenshots/. The scene, the markups, the slice and the 3D views in them are
Slicer's own; the widgets are plain Qt, so Slicer's theme looks different.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SHOTS = ROOT / "Resources" / "Screenshots"
VIEW = (500, 500)
TIMEOUT_S = 600.0
STEPS = 60


def main() -> None:
    """Detect, review, correct, ask why, collect; a picture of each."""
    sys.path.insert(0, str(ROOT / "Testing" / "Slicer"))
    from core import Core
    from desktop.session import Desktop

    desktop = Desktop(Core(), VIEW)
    widget = desktop.open(ROOT / "BrainLandmarks" / "BrainLandmarks.py").self()
    ui, panel = widget.ui, widget.panel
    ui.sampleButton.click()
    _wait(desktop, lambda: "about" in ui.deviceInfoLabel.text)
    ui.detectButton.click()
    _wait(desktop, lambda: panel.detecting.run is None)
    ui.slicesButton.click()
    _turn_camera()
    SHOTS.mkdir(parents=True, exist_ok=True)

    ui.nextButton.click()
    _shoot(desktop, "review")

    # A point that is wrong: go there, look closely, drag it, let the others follow.
    ui.soloButton.click()
    panel.reviewing.activate("CC_G")
    ui.zoomButton.click()
    desktop.app.processEvents()
    import slicer

    yellow = slicer.app.layoutManager().sliceWidget("Yellow")
    start = yellow.pixel_of(panel.session.review.current.point("CC_G"))
    yellow.sliceView().drag(start, (start[0] + 14, start[1] + 6))
    ui.resolveButton.click()
    _shoot(desktop, "correct")
    ui.acceptButton.click()

    ui.zoomButton.click()
    ui.soloButton.click()
    for name in ("scanSection", "correctSection", "saveSection"):
        getattr(ui, name).collapsed = True
    ui.measureSection.collapsed = False
    panel.reviewing.activate("CC_S")
    _shoot(desktop, "measure")

    # Why there? The map of the same landmark, over the slices and in space.
    ui.slicesButton.click()
    gradcam = desktop.open(ROOT / "BrainLandmarks" / "BrainLandmarksGradCAM.py").self()
    queue = gradcam.panel.mapping.queue
    _wait(desktop, lambda: gradcam.ui.layerCombo.count > 1)
    gradcam.ui.spaceCheck.checked = True
    gradcam.ui.thresholdSlider.value = 0.4
    gradcam.panel.choosing.choose(("CC_S",))
    _wait(desktop, lambda: not queue.busy)
    # Once more, so that the status tells how long one takes that is not the first.
    gradcam.panel.choosing.choose(("CC_G",))
    _wait(desktop, lambda: not queue.busy)
    gradcam.panel.choosing.choose(("CC_S",))
    _wait(desktop, lambda: not queue.busy)
    _shoot(desktop, "gradcam")

    _training_module(desktop)
    assert not desktop.slotErrors, desktop.slotErrors
    desktop.close_modules()
    sys.stdout.flush()
    os._exit(0)  # the views' windows have no orderly end without an application


def _training_module(desktop) -> None:
    """A dataset of the sample head, moved and turned, and what the guidelines would do."""
    import slicer

    from BrainLandmarksLib import resources
    from BrainLandmarksLib.dataset.split import split_dataset
    from BrainLandmarksLib.io.images import read_image

    sys.path.insert(0, str(ROOT / "Testing" / "Python"))
    from phantom import small_heads

    points = slicer.modules.BrainLandmarksWidget.panel.session.review.current
    slicer.mrmlScene.Clear(False)
    widget = desktop.open(ROOT / "BrainLandmarksTrain" / "BrainLandmarksTrain.py").self()
    os.chdir(desktop.core.folder.name)  # no path of this computer is in the picture
    ui, folder = widget.ui, Path("corrections")
    scan = read_image(resources.sample_head())
    split_dataset(small_heads(folder, points, scan, count=4), validation=1, test=1)
    ui.datasetPath.currentPath = str(folder)
    ui.checkButton.click()
    _wait(desktop, lambda: ui.caseTable.item(0, 3).text())
    ui.caseTable.setCurrentCell(2, 0)
    ui.loadCaseButton.click()
    ui.guidelinesSection.collapsed = False
    ui.guidelinesButton.click()
    _turn_camera()
    _shoot(desktop, "train")

    ui.discardMovesButton.click()
    ui.tabs.setCurrentWidget(ui.augmentationTab)
    ui.previewPolicyCombo.setCurrentText("DA4")
    ui.previewButton.click()
    _wait(desktop, lambda: ui.previewLabel.text.startswith("DA4"))
    _shoot(desktop, "vary")

    ui.removePreviewButton.click()
    ui.tabs.setCurrentWidget(ui.trainingTab)
    ui.methodCombo.setCurrentText("new model, a quick trial")
    ui.outputPath.currentPath = "run"
    ui.nameEdit.setText("trial")
    ui.amountSpin.setValue(STEPS)
    ui.unitCombo.setCurrentText("steps")
    ui.startButton.click()
    tab = widget.panel.training
    _wait(desktop, lambda: tab.run is None)
    _shoot(desktop, "teach")


def _shoot(desktop, name: str) -> None:
    """A picture as WebP, which takes a quarter of the bytes of PNG."""
    picture = desktop.screenshot(SHOTS / f"{name}.png")
    with Image.open(picture) as opened:
        opened.convert("RGB").save(SHOTS / f"{name}.webp", quality=70, method=6)
    picture.unlink()
    print((SHOTS / f"{name}.webp").relative_to(ROOT))


def _turn_camera() -> None:
    """From the left, in front and above, where the slices stand apart."""
    import slicer.util

    for view in slicer.util.getNodesByClass("vtkMRMLViewNode"):
        view.SetBoxVisible(False)
    for node in slicer.util.getNodesByClass("vtkMRMLCameraNode"):
        camera = node.GetCamera()
        camera.Azimuth(50)
        camera.Elevation(20)
        camera.OrthogonalizeViewUp()
        node.ResetClippingRange()


def _wait(desktop, condition) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the worker did not end")
        desktop.app.processEvents()
        time.sleep(0.01)


if __name__ == "__main__":
    main()
