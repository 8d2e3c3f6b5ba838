"""A landmark in words: its tool tip, its picture, and whether it fits a search."""

from __future__ import annotations

from pathlib import Path

from BrainLandmarksLib.protocol import Landmark


def tool_tip(landmark: Landmark, pictures: Path | None = None) -> str:
    """What a landmark is, for a tool tip; with its picture, if the folder has one."""
    plane = f"<br><i>Plane: {landmark.plane}.</i>" if landmark.plane else ""
    file = picture_of(landmark, pictures)
    picture = "" if file is None else f'<br><img src="{file.as_posix()}">'
    return f"<b>{landmark.name}</b> ({landmark.label})<br>{landmark.rule}{plane}{picture}"


def picture_of(landmark: Landmark, pictures: Path | None) -> Path | None:
    """The file of a landmark's picture, or None if the folder has none."""
    file = None if pictures is None else pictures / f"{landmark.label}.jpg"
    return file if file is not None and file.exists() else None


def fits(landmark: Landmark, words: list[str]) -> bool:
    """Whether a landmark has all words in its name, label or group; a number is its index."""
    text = f"{landmark.index} {landmark.label} {landmark.name} {landmark.group}".casefold()
    return all(str(landmark.index) == word if word.isdecimal() else word in text for word in words)
