"""What the modules cost Slicer: importing, filling the table, a click on Detect, Grad-CAM maps.

    python Testing/Benchmarks/bench_gui.py

Runs on the real Slicer core and the stand-in of the desktop. The import is compared with importing
NumPy in a fresh interpreter, the detection with what the library itself says it took.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import median_seconds

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    p for f in ("BrainLandmarks", "BrainLandmarksTrain") for p in (ROOT / f).glob("*.py")
)
REPEATS = 5
MAPS = 10
HEAVY = ("torch", "nibabel", "scipy", "SimpleITK", "matplotlib", "safetensors", "jsonschema")


def main() -> None:
    """Print the figures."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    sys.path.insert(0, str(ROOT / "Testing" / "Slicer"))
    from core import Core
    from desktop.session import Desktop

    # VTK writes the core's messages to the process' standard error.
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        desktop = Desktop(Core())
        seconds, heavy = imports()
        print("module files in a Slicer that has started")
        print(f"  import                     {1000 * seconds:.0f} ms")
        print(f"  numpy, for comparison      {1000 * numpy_import():.0f} ms")
        print(f"  heavy packages imported    {', '.join(heavy) or 'none'}")
        widget = desktop.open(ROOT / "BrainLandmarks" / "BrainLandmarks.py").self()
        panel = widget.panel
        widget.ui.sampleButton.click()
        detect(desktop, widget)  # starts the worker
        waits = []
        for _ in range(REPEATS):
            waits.append(detect(desktop, widget))
        total = statistics.median(w for w, _ in waits)
        network = statistics.median(n for _, n in waits)
        print("detection on a warm worker, sample head")
        print(f"  click to landmarks shown   {total:.2f} s")
        print(f"  of it detection            {network:.2f} s")
        print(f"  added by the module        {total - network:.2f} s")
        session, table = panel.session, panel.reviewing.table
        current = session.review.current
        fill = median_seconds(
            lambda: (table.fill(session.protocol), table.update(current)), REPEATS
        )
        nodes = median_seconds(lambda: session.nodes.show(current), REPEATS)
        step = median_seconds(lambda: step_of(session), REPEATS)
        print(f"landmarks of the sample head ({len(current)})")
        print(f"  fill the table             {1000 * fill:.0f} ms")
        print(f"  put all into the scene     {1000 * nodes:.0f} ms")
        print(f"  one edit, in total         {1000 * step:.0f} ms")
        first, there, drawn, network = maps(desktop, session)
        print("Grad-CAM maps on a warm worker, sample head")
        print(f"  first one after detection  {first:.2f} s")
        print(f"  another, click to scene    {1000 * there:.0f} ms")
        print(f"  of it making and reading   {1000 * network:.0f} ms")
        print(f"  click to drawn, 4 views    {1000 * drawn:.0f} ms")
        sys.stdout.flush()
        desktop.close_modules()
        os._exit(0)  # the views' windows have no orderly end without an application


def imports() -> tuple[float, list[str]]:
    """Seconds to import all module files as Slicer does at its start, and what came along."""
    import importlib.util

    for path in MODULES:
        sys.path.insert(0, str(path.parent))
    before = set(sys.modules)
    start = time.perf_counter()
    for path in MODULES:
        spec = importlib.util.spec_from_file_location(f"bench_{path.stem}", path)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    seconds = time.perf_counter() - start
    return seconds, [name for name in HEAVY if name in set(sys.modules) - before]


def numpy_import() -> float:
    """Seconds that a fresh interpreter takes to import NumPy."""
    code = "import time; s = time.perf_counter(); import numpy; print(time.perf_counter() - s)"
    return float(
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    )


def detect(desktop, widget) -> tuple[float, float]:
    """One click on Detect: seconds in all, and seconds that the library's detection took."""
    import slicer.util

    found = {}
    worker = widget.panel.host.worker
    request = worker.request

    def listen(kind, hear, **fields):
        def heard(message):
            if kind == "detect" and message["type"] == "result":
                found.update(message["seconds"])
            hear(message)

        return request(kind, heard, **fields)

    worker.request = listen
    start = time.perf_counter()
    widget.ui.detectButton.click()
    while widget.panel.detecting.run is not None:
        desktop.app.processEvents()
        time.sleep(0.005)
    seconds = time.perf_counter() - start
    worker.request = request
    assert widget.panel.session is not None, widget.ui.messageLabel.text
    assert slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")
    return seconds, sum(found.values())


def maps(desktop, session) -> tuple[float, float, float, float]:
    """Seconds of the first map, and medians of others: in the scene, drawn, and of the request.

    The views are drawn in software here, so what is drawn takes longer than with a graphics card.
    """
    widget = desktop.open(ROOT / "BrainLandmarks" / "BrainLandmarksGradCAM.py").self()
    queue, tree = widget.panel.mapping.queue, widget.panel.choosing
    while queue.busy or widget.panel.host.worker.busy:
        desktop.app.processEvents()
    spent, drawn, requests = [], [], []
    for label in session.protocol.labels[:: len(session.protocol) // MAPS][: MAPS + 1]:
        desktop.app.pauseRender()
        start = time.perf_counter()
        tree.choose((label,))
        while queue.busy:
            desktop.app.processEvents()
            time.sleep(0.001)
        spent.append(time.perf_counter() - start)
        desktop.app.resumeRender()
        desktop.app.processEvents()
        drawn.append(time.perf_counter() - start)
        requests.append(float(widget.ui.statusLabel.text.split(" s on ")[0].split()[-1]))
        assert widget.ui.statusLabel.text.startswith(label), widget.ui.messageLabel.text
    middle = statistics.median
    return spent[0], middle(spent[1:]), middle(drawn[1:]), middle(requests[1:])


def step_of(session) -> None:
    """An edit and its undoing."""
    label = session.protocol.labels[0]
    session.corrections.move(label, session.review.current.point(label) + 1.0)
    session.corrections.undo()


if __name__ == "__main__":
    main()
