"""The real Slicer core reads our .mrk.json: seven lists, every point, colour, status and place."""

import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from BrainLandmarksLib.io.landmarks import read_landmarks, write_landmarks

# Slicer brings its own VTK and logging; in a process of its own it disturbs no other test.
READ_WITH_SLICER = """
import json, sys
import slicer, slicer.util
slicer.mrmlScene = scene = slicer.vtkMRMLScene()
application = slicer.vtkMRMLApplicationLogic()
markups = slicer.vtkSlicerMarkupsLogic()
markups.SetMRMLApplicationLogic(application)
application.SetMRMLScene(scene)
markups.SetMRMLScene(scene)
assert markups.LoadMarkups(sys.argv[1], "")
lists = []
for n in range(scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode")):
    node = scene.GetNthNodeByClass(n, "vtkMRMLMarkupsFiducialNode")
    display = node.GetDisplayNode()
    values = node.GetMeasurement("confidence").GetControlPointValues()
    lists.append({
        "name": node.GetName(),
        "selected_color": display.GetSelectedColor(),
        "color": display.GetColor(),
        "glyph_mm": None if display.GetUseGlyphScale() else display.GetGlyphSize(),
        "locked": bool(node.GetLocked()),
        "fixed": bool(node.GetFixedNumberOfControlPoints()),
        "confidence": [values.GetValue(i) for i in range(values.GetNumberOfTuples())],
        "points": [{
            "label": node.GetNthControlPointLabel(i),
            "description": node.GetNthControlPointDescription(i),
            "status": node.GetNthControlPointPositionStatus(i),
            "ras": list(node.GetNthControlPointPositionWorld(i)),
            "locked": bool(node.GetNthControlPointLocked(i)),
        } for i in range(node.GetNumberOfControlPoints())],
    })
    storage = slicer.vtkMRMLMarkupsJsonStorageNode()
    storage.SetFileName(f"{sys.argv[3]}/{n}.mrk.json")
    assert storage.WriteData(node)
with open(sys.argv[2], "w") as file:
    json.dump(lists, file)
"""
DEFINED, MISSING = 2, 3

pytestmark = pytest.mark.skipif(
    find_spec("slicer") is None, reason="slicer-core has no wheel for this platform"
)


@pytest.fixture(scope="module")
def slicer_read(tmp_path_factory):
    """Write a landmark set, read it in Slicer and give what Slicer holds and wrote again."""

    def read(landmarks):
        folder = tmp_path_factory.mktemp("slicer")
        path = folder / "head_landmarks.mrk.json"
        write_landmarks(path, landmarks)
        script = folder / "read.py"
        script.write_text(READ_WITH_SLICER)
        subprocess.run(
            [sys.executable, script, path, folder / "out.json", folder],
            check=True,
            capture_output=True,
        )
        return json.loads((folder / "out.json").read_text(encoding="utf-8")), folder

    return read


def test_slicer_holds_what_we_wrote(slicer_read, some_landmarks):
    lists, folder = slicer_read(some_landmarks)
    protocol = some_landmarks.protocol
    assert [entry["name"] for entry in lists] == [group.name for group in protocol.groups]
    assert len(lists) == 7
    assert sum(len(entry["points"]) for entry in lists) == 88
    row = 0
    for entry, group in zip(lists, protocol.groups, strict=True):
        np.testing.assert_allclose(entry["selected_color"], group.rgb, atol=1e-3)
        np.testing.assert_allclose(entry["color"], group.rgb, atol=1e-3)
        assert entry["glyph_mm"] == 2
        assert entry["locked"]
        assert entry["fixed"]
        confidence = some_landmarks.confidence[group.first - 1 : group.last]
        np.testing.assert_allclose(entry["confidence"], np.nan_to_num(confidence), atol=1e-3)
        for point in entry["points"]:
            landmark = protocol.landmarks[row]
            assert point["label"] == landmark.label
            assert point["description"].startswith(f"{landmark.name} (")
            assert some_landmarks.status[row] in point["description"]
            assert point["locked"]
            if some_landmarks.status[row] == "missing":
                assert point["status"] == MISSING
            else:
                assert point["status"] == DEFINED
                np.testing.assert_allclose(point["ras"], some_landmarks.points[row], atol=1e-3)
            row += 1

    # And what Slicer saves, one file per list, comes back to us.
    for number, group in enumerate(protocol.groups):
        again = read_landmarks(folder / f"{number}.mrk.json", protocol)
        rows = slice(group.first - 1, group.last)
        np.testing.assert_allclose(again.points[rows], some_landmarks.points[rows], atol=1e-3)
        assert again.status[rows] == some_landmarks.status[rows]
        np.testing.assert_allclose(
            again.confidence[rows], some_landmarks.confidence[rows], atol=1e-3
        )
        assert again.missing.sum() == 88 - (~some_landmarks.missing[rows]).sum()


def test_slicer_reads_fcsv(tmp_path, some_landmarks):
    path = tmp_path / "head.fcsv"
    write_landmarks(path, some_landmarks)
    script = (
        "import json, sys, slicer\n"
        "node = slicer.vtkMRMLMarkupsFiducialNode()\n"
        "point = lambda i: [node.GetNthControlPointLabel(i), "
        "list(node.GetNthControlPointPosition(i))]\n"
        "storage = slicer.vtkMRMLMarkupsFiducialStorageNode()\n"
        "storage.SetFileName(sys.argv[1])\n"
        "assert storage.ReadData(node)\n"
        "print(json.dumps([point(i) for i in range(node.GetNumberOfControlPoints())]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path], check=True, capture_output=True, text=True
    )
    found = dict(json.loads(done.stdout.splitlines()[-1]))
    present = ~some_landmarks.missing
    assert len(found) == present.sum()
    for row in np.flatnonzero(present):
        label = some_landmarks.protocol.labels[row]
        np.testing.assert_allclose(found[label], some_landmarks.points[row], atol=1e-3)
