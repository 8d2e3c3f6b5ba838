"""A variation of the loaded case in the scene: its image and its moved landmarks as nodes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import slicer
import slicer.util

from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
from BrainLandmarksLib.mrml.scene import remove
from BrainLandmarksLib.review import write_review

from .case import Case

ROLE = "BrainLandmarksTrain.preview"
"""Attribute of the varied volume; of the case's display nodes that it hides."""


def dataset_of_case(case: Case, folder: Path) -> Dataset:
    """A dataset of the loaded case alone, with its landmarks as they are in the scene.

    Raises:
        UserError: the dataset or its entry is gone, or the folder cannot be written to.
    """
    source = case.dataset()
    entry = next((e for e in source.entries if e.identity == case.identity), None)
    if entry is None:
        raise UserError(f"the dataset has no case {case.identity} any more.")
    dataset = Dataset.create(folder, source.protocol)
    for part in (entry.image, entry.landmarks):
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.folder / entry.image, folder / entry.image)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source.folder / entry.image, folder / entry.image)
    review, about = case.review()
    write_review(folder / entry.landmarks, review, about)
    dataset.register(entry)
    return dataset


def show_variation(case: Case, varied: Dataset) -> Any:
    """Show the first scan of a varied dataset in place of an earlier preview; returns its volume.

    The case's own lists are hidden while the preview is there.

    Raises:
        UserError: a file cannot be read.
    """
    remove_preview()
    entry = varied.entries[0]
    review = varied.read_landmarks(entry)
    name = f"{case.volume.GetName()} varied"
    try:
        volume = slicer.util.loadVolume(str(varied.folder / entry.image), {"name": name})
    except RuntimeError:
        raise UserError("Slicer cannot read the varied image.") from None
    volume.SetAttribute(ROLE, "volume")
    nodes = LandmarkNodes.create(volume, varied.protocol)
    nodes.show(review.current)
    nodes.store(review, {})
    for node in case.nodes.lists:
        display = node.GetDisplayNode()
        if display.GetVisibility():
            display.SetAttribute(ROLE, "hidden")
            display.SetVisibility(False)
    return volume


def remove_preview() -> None:
    """Take the varied image and its lists out of the scene, and show the case's again."""
    for volume in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if volume.GetAttribute(ROLE):
            nodes = LandmarkNodes.of_volume(volume)
            if nodes is not None:
                nodes.remove()
            remove(volume)
    for display in slicer.util.getNodesByClass("vtkMRMLMarkupsDisplayNode"):
        if display.GetAttribute(ROLE):
            display.RemoveAttribute(ROLE)
            display.SetVisibility(True)
