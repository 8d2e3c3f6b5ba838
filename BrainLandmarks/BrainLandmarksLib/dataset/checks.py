"""Is a dataset fit to train on? Every file, every landmark, the splits; one table.

>>> report = check_dataset(Dataset.open("my_dataset"))
>>> print(report.table().plain())
>>> require_sound(Dataset.open("my_dataset"))      # before training
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from BrainLandmarksLib.dataset import Dataset, Entry
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.io.checksum import file_sha256
from BrainLandmarksLib.io.images import read_grid, read_image
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.protocol.compliance import (
    off_plane,
    out_of_order,
    swapped_sides,
    turned_round,
    wrong_sides,
)
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

OFF_PLANE_MM = 5.0
"""Farther off the plane that its group shares, a landmark is taken for a mistake."""

_FIRST = 3
"""Mistakes that are reported where there is room for one sentence only."""


@dataclass
class HeadReport:
    """What was found of one head.

    ``mistakes`` break the dataset; ``grid`` and ``landmarks`` are None where a file cannot be read.
    """

    entry: Entry
    grid: Grid | None = None
    landmarks: LandmarkSet | None = None
    off_plane_mm: float = float("nan")
    outside: list[str] = field(default_factory=list)
    off_plane: list[str] = field(default_factory=list)
    disordered: list[tuple[str, str]] = field(default_factory=list)
    wrong_side: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)


@dataclass
class DatasetReport:
    """What was found of a dataset: its heads, and what concerns it as a whole.

    ``notes`` are worth knowing and break nothing.
    """

    folder: Path
    heads: list[HeadReport]
    mistakes: list[str]
    notes: list[str]

    @property
    def sound(self) -> bool:
        """Whether the dataset may be trained on."""
        return not any(True for _ in self.sentences())

    def sentences(self) -> Iterator[str]:
        """Every mistake, those of the dataset as a whole first."""
        yield from self.mistakes
        for head in self.heads:
            for mistake in head.mistakes:
                yield f"{head.entry.identity}: {mistake}"

    def table(self) -> Table:
        """One row for each head: how it lies, what is missing, and how many mistakes of a kind."""
        rows = []
        for head in self.heads:
            grid, landmarks = head.grid, head.landmarks
            rows.append(
                (
                    head.entry.identity,
                    head.entry.subject or "-",
                    head.entry.split or "-",
                    " x ".join(str(n) for n in grid.shape) if grid else "-",
                    " x ".join(f"{mm:.2g}" for mm in grid.spacing) if grid else "-",
                    int((~landmarks.missing).sum()) if landmarks else 0,
                    int(landmarks.missing.sum()) if landmarks else 0,
                    len(head.outside),
                    head.off_plane_mm,
                    len(head.off_plane),
                    len(head.disordered),
                    len(head.wrong_side),
                    "; ".join(head.files) or "good",
                )
            )
        header = (
            "head", "subject", "split", "voxels", "mm", "placed", "missing", "outside",
            "off plane, mm", "beyond", "order", "side", "files",
        )  # fmt: skip
        return Table(header, rows, digits=1)


def check_dataset(dataset: Dataset, off_plane_mm: float = OFF_PLANE_MM) -> DatasetReport:
    """Check every entry of a dataset, and that the entries fit together.

    A file whose checksum is right is the file that was added, whose voxels were read then, so only
    its header is read again.

    Args:
        off_plane_mm: How far a landmark may lie off the plane that its group shares.
    """
    heads = [_check_head(dataset, entry, off_plane_mm) for entry in dataset.entries]
    mistakes = [] if heads else ["the dataset is empty"]
    for what, values in (
        ("the same image", [entry.image_hash for entry in dataset.entries]),
        ("one number", [entry.identity for entry in dataset.entries]),
    ):
        for value, count in Counter(values).items():
            if count > 1:
                twins = [e.identity for e, v in zip(dataset.entries, values) if v == value]
                mistakes.append(f"the entries {', '.join(twins)} have {what}")
    for person, splits in _splits_of_people(dataset.entries).items():
        if len(splits) > 1:
            mistakes.append(f"scans of {person} are in several splits: {', '.join(sorted(splits))}")
    return DatasetReport(dataset.folder, heads, mistakes, _notes(dataset, heads))


def require_sound(dataset: Dataset) -> None:
    """Refuse a dataset that is broken; to be called before training.

    Raises:
        UserError: it is broken; the sentence names the first mistakes.
    """
    found = list(check_dataset(dataset).sentences())
    if found:
        more = f"; and {len(found) - _FIRST} more" if len(found) > _FIRST else ""
        raise UserError(
            f"the dataset {dataset.folder} is broken: {'; '.join(found[:_FIRST])}{more}. Run "
            f"brainlandmarks dataset check {dataset.folder} for all."
        )


def accept_files(dataset: Dataset) -> list[str]:
    """Take the files as they are now for right, after they were changed on purpose.

    Reading them takes a while, in which others may write to the dataset: a head that they have
    changed meanwhile has its checksums from them.

    Returns:
        Identities of the heads whose files had changed.

    Raises:
        UserError: a file cannot be read.
    """
    changed: list[tuple[Entry, Entry]] = []
    for entry in dataset.entries:
        now = replace(
            entry,
            image_sha256=file_sha256(dataset.folder / entry.image),
            landmarks_sha256=file_sha256(dataset.folder / entry.landmarks),
        )
        if now != entry:
            changed.append((entry, now))
    if not changed:
        return []
    with dataset.locked():
        accepted = [now for entry, now in changed if entry in dataset.entries]
        heads = [entry.identity for entry in accepted]
        if heads:
            dataset.update(accepted, {"what": "accepted changed files", "heads": heads})
    return heads


# One head -----------------------------------------------------------------------------------------


def _check_head(dataset: Dataset, entry: Entry, tolerance_mm: float) -> HeadReport:
    report = HeadReport(entry)
    intact = {
        part: _check_file(dataset.folder / name, part, checksum, report)
        for part, name, checksum in (
            ("image", entry.image, entry.image_sha256),
            ("landmarks", entry.landmarks, entry.landmarks_sha256),
        )
    }
    for read in (_read_grid, _read_points):
        try:
            read(dataset, report, intact["image"])
        except UserError as error:
            report.mistakes.append(str(error).rstrip("."))
            report.files.append("unreadable")
    if report.landmarks is not None:
        _check_points(report, report.landmarks, tolerance_mm)
    return report


def _check_file(path: Path, part: str, checksum: str, report: HeadReport) -> bool:
    """Whether a file is, byte for byte, the one that was added."""
    if not path.exists():
        # Reading it says so.
        return False
    if not checksum:
        report.files.append(f"{part}: no checksum")
        return False
    if file_sha256(path) != checksum:
        report.files.append(f"{part} changed")
        report.mistakes.append(
            f"{path.name} is not the file that was added; put it back, or accept it with "
            "brainlandmarks dataset check --accept"
        )
        return False
    return True


def _read_grid(dataset: Dataset, report: HeadReport, intact: bool) -> None:
    path = dataset.folder / report.entry.image
    report.grid = read_grid(path) if intact else read_image(path).grid


def _read_points(dataset: Dataset, report: HeadReport, intact: bool) -> None:
    # A head that is turned round is a mistake to report, and the rest of it can be checked.
    report.landmarks = dataset.read_landmarks(report.entry, any_pose=True).current


def _check_points(report: HeadReport, landmarks: LandmarkSet, tolerance_mm: float) -> None:
    protocol, points = landmarks.protocol, landmarks.points
    report_error = report.mistakes.append
    if landmarks.missing.all():
        report_error("no landmark is placed")
        return
    if report.grid is not None:
        inside = report.grid.contains(points)
        report.outside = [
            label
            for label, lost, within in zip(protocol.labels, landmarks.missing, inside, strict=True)
            if not lost and not within
        ]
    if report.outside:
        report_error(_listed(report.outside, "lies outside the image", "lie outside the image"))
    distances = off_plane(protocol, points)
    if np.isfinite(distances).any():
        report.off_plane_mm = float(np.nanmax(distances))
    for landmark, distance in zip(protocol.landmarks, distances, strict=True):
        if distance > tolerance_mm:
            report.off_plane.append(landmark.label)
            report_error(
                f"{landmark.label} lies {distance:.1f} mm off the plane '{landmark.plane}'"
            )
    report.disordered = out_of_order(protocol, points)
    for first, second in report.disordered:
        report_error(f"{first} and {second} are out of order along their outline")
    _check_sides(report, landmarks)


def _check_sides(report: HeadReport, landmarks: LandmarkSet) -> None:
    protocol, points = landmarks.protocol, landmarks.points
    report.wrong_side = wrong_sides(protocol, points)
    turned = turned_round(protocol, points)
    if turned:
        report.mistakes.append(turned)
        return
    pairs = swapped_sides(protocol, points)
    for left, partner in pairs:
        report.mistakes.append(f"{left} and {partner} are swapped")
    alone = [
        label for label in report.wrong_side if label not in {x for pair in pairs for x in pair}
    ]
    if alone:
        report.mistakes.append(_listed(alone, "is on the wrong side", "are on the wrong side"))


def _listed(labels: list[str], one: str, many: str) -> str:
    shown = labels if len(labels) <= 4 else [*labels[:3], f"{len(labels) - 3} more"]
    return f"{', '.join(shown)} {one if len(labels) == 1 else many}"


# The dataset as a whole ---------------------------------------------------------------------------


def _splits_of_people(entries: Iterable[Entry]) -> dict[str, set[str]]:
    splits: dict[str, set[str]] = {}
    for entry in entries:
        # A scan that is in no split yet will join the others of its subject.
        if entry.split:
            splits.setdefault(entry.person, set()).add(entry.split)
    return splits


def _notes(dataset: Dataset, heads: list[HeadReport]) -> list[str]:
    notes = []
    without = [e.identity for e in dataset.entries if not e.split]
    if without and len(without) < len(dataset.entries):
        notes.append(f"heads in no split: {len(without)}; run brainlandmarks dataset split again")
    unread = [
        head.entry.identity
        for head in heads
        if head.landmarks is not None and "model" in head.landmarks.status
    ]
    if unread:
        shown = ", ".join(unread[:5]) + (", ..." if len(unread) > 5 else "")
        notes.append(
            f"heads with points that only a model placed: {len(unread)} ({shown}); those points "
            "are no truth to measure a model with"
        )
    listed = {name for e in dataset.entries for name in (e.image, e.landmarks)}
    extra = [
        path.relative_to(dataset.folder).as_posix()
        for folder in ("images", "landmarks")
        for path in sorted((dataset.folder / folder).glob("*"))
    ]
    extra = [name for name in extra if name not in listed and not Path(name).name.startswith(".")]
    if extra:
        notes.append(f"files that are not in the manifest: {len(extra)} ({extra[0]} first)")
    return notes
