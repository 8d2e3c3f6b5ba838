"""From a saved Slicer scene to files that the library reads: the image, the landmarks, or both.

A scene is loaded through MRML alone, without Qt, so that no progress bar and no question can come
up; transforms that images and lists have in the scene are applied.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.atomic import atomic_write
from BrainLandmarksLib.mrml.export.volume import export_volume
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
from BrainLandmarksLib.review import write_review

SUFFIXES = (".mrb", ".mrml")
SEPARATOR = "#"

_DEFINED = 2


def is_scene(argument: str) -> bool:
    """Whether an argument names a scene: ``a.mrb``, or ``a.mrb#NAME OF A VOLUME``."""
    return argument.partition(SEPARATOR)[0].lower().endswith(SUFFIXES)


def export_scene(argument: str, what: str, folder: Path) -> Path:
    """Write what the library needs of a scene into a folder.

    Args:
        argument: Scene file; after ``#`` the name of a volume if the scene has several.
        what: "image" (NRRD), "labels" (label map as NRRD), "landmarks" (.mrk.json) or "heads"
            (image and landmarks of every head that has both, under the volume's name).
        folder: An empty folder; the scene that is open is replaced.

    Returns:
        The file that was written; for "heads" the folder.

    Raises:
        UserError: the scene cannot be read, or does not hold what is asked for, or holds several.
    """
    file, _, name = argument.partition(SEPARATOR)
    path = Path(file)
    _load(path)
    return _WRITERS[what](path, name, folder)


def _load(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} does not exist.")
    scene = slicer.mrmlScene
    scene.Clear(False)
    here = os.getcwd()
    try:
        if path.suffix.lower() == ".mrb":
            loaded = scene.ReadFromMRB(str(path.resolve()), False)
        else:
            scene.SetURL(str(path.resolve()))
            loaded = scene.Import()
    finally:
        os.chdir(here)  # MRML unpacks in another folder, and stays there after an error
    if not loaded:
        raise UserError(f"{path} cannot be read as a Slicer scene; open and save it in Slicer.")


def _image(path: Path, name: str, folder: Path) -> Path:
    output = folder / f"{path.stem}.nrrd"
    export_volume(_choose(path, name, _volumes(labels=False), "image"), output)
    return output


def _labels(path: Path, name: str, folder: Path) -> Path:
    output = folder / f"{path.stem}.nrrd"
    export_volume(_choose(path, name, _volumes(labels=True), "label map"), output)
    return output


def _landmarks(path: Path, name: str, folder: Path) -> Path:
    output = folder / f"{path.stem}.mrk.json"
    sets = {nodes.volume: nodes for nodes in LandmarkNodes.all_in_scene()}
    if sets:
        nodes = sets[_choose(path, name, list(sets), "image with landmarks")]
        write_review(output, *nodes.restore())
    else:
        _write_lists(path, output)
    return output


def _heads(path: Path, name: str, folder: Path) -> Path:
    sets = [n for n in LandmarkNodes.all_in_scene() if n.volume is not None]
    if name:
        sets = [n for n in sets if n.volume.GetName() == name]
    if sets:
        names = [_file_name(nodes.volume) for nodes in sets]
        if len(set(names)) < len(names):
            raise UserError(f"two images in {path} have the same name; rename one in Slicer.")
        for nodes, stem in zip(sets, names):
            export_volume(nodes.volume, folder / f"{stem}.nrrd")
            write_review(folder / f"{stem}.mrk.json", *nodes.restore())
    else:
        volume = _choose(path, name, _volumes(labels=False), "image")
        _write_lists(path, folder / f"{_file_name(volume)}.mrk.json")
        export_volume(volume, folder / f"{_file_name(volume)}.nrrd")
    return folder


_WRITERS: dict[str, Callable[[Path, str, Path], Path]] = {
    "image": _image,
    "labels": _labels,
    "landmarks": _landmarks,
    "heads": _heads,
}


def _volumes(*, labels: bool) -> list[Any]:
    nodes = _nodes("vtkMRMLScalarVolumeNode")
    return [n for n in nodes if bool(n.IsA("vtkMRMLLabelMapVolumeNode")) == labels]


def _nodes(kind: str) -> list[Any]:
    scene = slicer.mrmlScene
    return [scene.GetNthNodeByClass(n, kind) for n in range(scene.GetNumberOfNodesByClass(kind))]


def _choose(path: Path, name: str, nodes: list[Any], what: str) -> Any:
    """The one node, or the one that is named; of several images the one with landmarks."""
    if name:
        nodes = [node for node in nodes if node is not None and node.GetName() == name]
    elif len(nodes) > 1:
        reviewed = [n.volume for n in LandmarkNodes.all_in_scene() if n.volume in nodes]
        nodes = reviewed if len(reviewed) == 1 else nodes
    if len(nodes) == 1:
        return nodes[0]
    if not nodes:
        raise UserError(f"{path} holds no {what}" + (f" called {name!r}." if name else "."))
    names = ", ".join(repr(node.GetName()) for node in nodes if node is not None)
    raise UserError(
        f"{path} holds {len(nodes)} of {what}: {names}; write '{path}{SEPARATOR}NAME' for one."
    )


def _write_lists(path: Path, output: Path) -> None:
    """All point lists of the scene as one file, world RAS mm; their labels say what they are."""
    markups = []
    for node in _nodes("vtkMRMLMarkupsFiducialNode"):
        points = []
        for index in range(node.GetNumberOfControlPoints()):
            defined = node.GetNthControlPointPositionStatus(index) == _DEFINED
            points.append(
                {
                    "label": node.GetNthControlPointLabel(index),
                    "description": node.GetNthControlPointDescription(index),
                    "position": list(node.GetNthControlPointPositionWorld(index)),
                    "positionStatus": "defined" if defined else "missing",
                }
            )
        if points:
            markups.append({"type": "Fiducial", "coordinateSystem": "RAS", "controlPoints": points})
    if not markups:
        raise UserError(f"{path} holds no landmarks; detect or place them in Slicer first.")
    with atomic_write(output) as unfinished:
        unfinished.write_text(json.dumps({"markups": markups}), encoding="utf-8")


def _file_name(volume: Any) -> str:
    return re.sub(r"[^\w.-]+", "_", volume.GetName()) or "head"
