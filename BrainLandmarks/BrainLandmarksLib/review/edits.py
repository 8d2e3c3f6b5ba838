"""A person's review of the landmarks of one head: what the model said, what was changed, by whom.

The state behind the Slicer panel, and of batch correction, without any user interface: every
change is one step that can be undone, every edit is recorded, and nothing the model said is lost.

>>> review = Review.of(detection.landmarks, reviewer="AB")
>>> review.move("CC_G", [0.4, 31.0, 5.2])
>>> review.confirm("CC_S")
>>> review.undo()
>>> write_review("head_landmarks.mrk.json", review)
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.io.landmarks import read_landmarks, write_landmarks
from BrainLandmarksLib.io.landmarks.markups import read_mrk_json, write_mrk_json
from BrainLandmarksLib.io.landmarks.matching import PLAUSIBILITY
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.compliance import need_plausible
from BrainLandmarksLib.protocol.landmarks import STATUSES, LandmarkSet, is_plausible

VERSION = 3
"""Version of the record in a file; a newer one is refused, not guessed at.

2 knows "exchanged", which is called "swapped" since 3.
"""

KINDS = (
    "moved",
    "snapped",
    "respaced",
    "projected",
    "swapped",
    "resolved",
    "confirmed",
    "reopened",
    "missing",
    "reverted",
)
"""What an edit was: a drag or click, a snap to a plane or a boundary, an equal spacing, a
projection on a plane, a swap of two names, a move after other corrections (shape model), an
agreement, its withdrawal, a "not there", a return to the model's answer."""

SAME_MM = 1e-4
"""A move shorter than this is none."""

_KEY = "brainlandmarks"
_NOWHERE = (math.nan,) * 3


@dataclass(frozen=True)
class Edit:
    """One point's change: RAS mm before and after (None: missing), statuses, who and when (UTC)."""

    label: str
    kind: str
    before: tuple[float, float, float] | None
    after: tuple[float, float, float] | None
    status_before: str
    status_after: str
    who: str
    when: str

    @property
    def distance_mm(self) -> float | None:
        """How far the point went; None if it was or is missing."""
        if self.before is None or self.after is None:
            return None
        return math.dist(self.before, self.after)


@dataclass
class Review:
    """The landmarks of one head under review.

    Args:
        found: What the model said; never changed.
        current: What holds now.
        reviewer: Initials for the record; may be empty.
        now: Clock, for tests.
    """

    found: LandmarkSet
    current: LandmarkSet
    reviewer: str = ""
    now: Callable[[], datetime] = field(default=lambda: datetime.now(timezone.utc))
    _done: list[tuple[Edit, ...]] = field(default_factory=list)
    _undone: list[tuple[Edit, ...]] = field(default_factory=list)

    @classmethod
    def of(cls, found: LandmarkSet, reviewer: str = "") -> Review:
        """A review that starts with the model's answer."""
        return cls(found, _copy(found), reviewer)

    @property
    def protocol(self) -> Protocol:
        """The landmarks' definition."""
        return self.found.protocol

    @property
    def edits(self) -> list[Edit]:
        """All edits that hold, oldest first."""
        return [edit for step in self._done for edit in step]

    @property
    def corrected(self) -> npt.NDArray[np.bool_]:
        """(K,) True where a person placed the point or agreed with it."""
        return np.array([status in ("edited", "confirmed") for status in self.current.status])

    # One point -----------------------------------------------------------------------------------

    def move(self, label: str, point: npt.ArrayLike, kind: str = "moved") -> list[str]:
        """Place a point, RAS mm. Returns the labels that changed: this one, or none.

        Raises:
            UserError: there is no such landmark.
            ValueError: the point is not three finite numbers.
        """
        return self.move_many({label: point}, kind)

    def confirm(self, label: str) -> list[str]:
        """Agree with a point as it is; a missing one stays missing."""
        return self._confirm([label], ("model", "edited", "truth"))

    def reopen(self, label: str) -> list[str]:
        """Take an agreement back; the point is the model's again, or edited if it was moved."""
        row = self._row(label)
        if self.current.status[row] != "confirmed":
            return []
        point = self.current.points[row]
        same = _near(point, self.found.points[row])
        status = self.found.status[row] if same else "edited"
        return self._step([self._edit(row, "reopened", point, status)])

    def mark_missing(self, label: str) -> list[str]:
        """Say that the anatomy is not there, or not in the image."""
        row = self._row(label)
        if self.current.status[row] == "missing":
            return []
        return self._step([self._edit(row, "missing", _NOWHERE, "missing")])

    def revert(self, label: str) -> list[str]:
        """Go back to the model's answer for one point."""
        return self._step(self._reversals([self._row(label)]))

    # Many points at once, one step ---------------------------------------------------------------

    def confirm_many(self, labels: Sequence[str]) -> list[str]:
        """Confirm those of the points that no person has reviewed yet."""
        return self._confirm(labels, ("model",))

    def _confirm(self, labels: Sequence[str], statuses: Sequence[str]) -> list[str]:
        rows = [self._row(label) for label in labels]
        return self._step(
            [
                self._edit(row, "confirmed", self.current.points[row], "confirmed")
                for row in rows
                if self.current.status[row] in statuses
            ]
        )

    def revert_all(self) -> list[str]:
        """Go back to the model's answer for all points."""
        return self._step(self._reversals(range(len(self.found))))

    def move_many(self, points: Mapping[str, npt.ArrayLike], kind: str) -> list[str]:
        """Place several points in one step, RAS mm; returns the labels that changed.

        Points that a rule or the shape model moved ("respaced", "projected", "swapped",
        "resolved") stay the model's if they were: no person has reviewed them.
        """
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is none of {', '.join(KINDS)}")
        edits = []
        for label, value in points.items():
            row = self._row(label)
            point = np.array(value, float)
            if point.shape != (3,) or not np.isfinite(point).all():
                raise ValueError("a point is three finite numbers")
            before = self.current.status[row]
            if before != "missing" and math.dist(point, self.current.points[row]) < SAME_MM:
                continue
            by_hand = kind in ("moved", "snapped")
            status = "edited" if by_hand or before != "model" else "model"
            edits.append(self._edit(row, kind, point, status))
        return self._step(edits)

    def set_points(self, points: npt.ArrayLike, kind: str) -> list[str]:
        """As `move_many`, from (K, 3) RAS mm; rows with NaN are left as they are."""
        array = np.array(points, float)
        known = np.isfinite(array).all(1)
        return self.move_many(
            {label: array[k] for k, label in enumerate(self.protocol.labels) if known[k]}, kind
        )

    # Steps ---------------------------------------------------------------------------------------

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to undo."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether there is an undone step."""
        return bool(self._undone)

    def undo(self) -> list[str]:
        """Take the last step back; returns the labels that changed."""
        if not self._done:
            return []
        step = self._done.pop()
        self._undone.append(step)
        for edit in reversed(step):
            self._set(edit.label, edit.before, edit.status_before)
        return [edit.label for edit in step]

    def redo(self) -> list[str]:
        """Do the last undone step again; returns the labels that changed."""
        if not self._undone:
            return []
        step = self._undone.pop()
        self._done.append(step)
        for edit in step:
            self._set(edit.label, edit.after, edit.status_after)
        return [edit.label for edit in step]

    def renewed(self, found: LandmarkSet, *, keep: bool) -> Review:
        """The review after a new detection on the same head.

        Args:
            keep: Keep what a person placed, agreed with or marked missing; the record goes with it.

        Raises:
            ValueError: the new landmarks are of another protocol.
        """
        if found.protocol.hash != self.protocol.hash:
            raise ValueError("a review cannot change its protocol")
        renewed = Review.of(found, self.reviewer)
        renewed.now = self.now
        if not keep:
            return renewed
        for row, label in enumerate(self.protocol.labels):
            status = self.current.status[row]
            by_person = any(
                e.label == label and e.status_after == status for e in reversed(self.edits)
            )
            if status in ("edited", "confirmed") or (status == "missing" and by_person):
                renewed.current.points[row] = self.current.points[row]
                renewed.current.status[row] = status
                renewed.current.notes[row] = ""
        kept = {
            label
            for row, label in enumerate(self.protocol.labels)
            if renewed.current.status[row] != found.status[row]
        }
        renewed._done = [
            left
            for step in self._done
            if (left := tuple(edit for edit in step if edit.label in kept))
        ]
        return renewed

    def carry(self, move: Callable[[FloatArray], FloatArray]) -> None:
        """The head was moved as a whole: points and record go with it; no edit.

        Args:
            move: Carries RAS points (n, 3); NaN stays NaN.
        """
        self.found = replace(self.found, points=move(self.found.points))
        self.current = replace(self.current, points=move(self.current.points))

        def carried(
            point: tuple[float, float, float] | None,
        ) -> tuple[float, float, float] | None:
            return None if point is None else _triple(move(np.array([point]))[0])

        for steps in (self._done, self._undone):
            steps[:] = [
                tuple(
                    replace(edit, before=carried(edit.before), after=carried(edit.after))
                    for edit in step
                )
                for step in steps
            ]

    # Inside --------------------------------------------------------------------------------------

    def _row(self, label: str) -> int:
        return self.protocol.by_label(label).index - 1

    def _edit(self, row: int, kind: str, point: npt.ArrayLike, status: str) -> Edit:
        return Edit(
            label=self.protocol.labels[row],
            kind=kind,
            before=_triple(self.current.points[row]),
            after=_triple(np.array(point, float)),
            status_before=self.current.status[row],
            status_after=status,
            who=self.reviewer,
            when=self.now().isoformat(timespec="seconds"),
        )

    def _reversals(self, rows: Sequence[int] | range) -> list[Edit]:
        return [
            self._edit(row, "reverted", self.found.points[row], self.found.status[row])
            for row in rows
            if self.current.status[row] != self.found.status[row]
            or not _near(self.current.points[row], self.found.points[row])
        ]

    def _step(self, edits: Sequence[Edit]) -> list[str]:
        if not edits:
            return []
        self._done.append(tuple(edits))
        self._undone.clear()
        for edit in edits:
            self._set(edit.label, edit.after, edit.status_after)
        return [edit.label for edit in edits]

    def _set(self, label: str, point: tuple[float, float, float] | None, status: str) -> None:
        row = self._row(label)
        self.current.points[row] = _NOWHERE if point is None else point
        self.current.status[row] = status
        # What the model remarked holds as long as its answer does.
        same = status == self.found.status[row] and _near(
            self.current.points[row], self.found.points[row]
        )
        self.current.notes[row] = self.found.notes[row] if same else ""


def write_review(
    path: str | os.PathLike[str], review: Review, source: Mapping[str, Any] | None = None
) -> None:
    """Write the landmarks with their record: one .mrk.json that Slicer opens, too.

    The other formats, .csv and .fcsv, have no place for the record and hold the points alone.

    Args:
        source: What made the model's answer (model, version, device), plain JSON values.

    Raises:
        UserError: the suffix is of no landmark file, or the file cannot be written.
    """
    if not _has_record(path):
        write_landmarks(path, review.current)
        return
    record = {_KEY: to_record(review, source)}
    write_mrk_json(path, review.current, record, plausibility=stated_plausibility(source or {}))


def read_review(
    path: str | os.PathLike[str], protocol: Protocol, *, any_pose: bool = False
) -> tuple[Review, dict[str, Any]]:
    """Read a file of `write_review`; returns the review and its source.

    A file without a record (saved by Slicer itself, by the command line, or as .csv or .fcsv) gives
    a review that starts with its points.

    Args:
        any_pose: As for `read_landmarks`; a file with a record is this program's own, and its head
            may always lie as it does in the image.

    Raises:
        UserError: no landmark file of this protocol, points that together cannot be right, or a
            record that is damaged or too new.
    """
    if not _has_record(path):
        return Review.of(read_landmarks(path, protocol, any_pose=any_pose)), {}
    current = read_mrk_json(path, protocol, status="edited")
    name = Path(path).name
    content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    record = content.get(_KEY)
    if record is None:
        need_plausible(protocol, current.points, name, any_pose=any_pose)
        stated = stated_plausibility(content)
        return Review.of(current), {} if stated is None else {PLAUSIBILITY: stated}
    return from_record(record, current, name)


def stated_plausibility(source: Mapping[str, Any]) -> float | None:
    """How plausible the model's answer is (`detection.plausibility`); None if nothing says so."""
    value = source.get(PLAUSIBILITY)
    return float(value) if isinstance(value, (int, float)) else None


def is_implausible(source: Mapping[str, Any]) -> bool:
    """Whether the model's answer is one of no head, which somebody wanted all the same."""
    return not is_plausible(stated_plausibility(source))


def _has_record(path: str | os.PathLike[str]) -> bool:
    return Path(path).name.lower().endswith(".json")


def to_record(review: Review, source: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All of a review but its current points, as plain JSON values."""
    return {
        "version": VERSION,
        "protocol": {"name": review.protocol.name, "hash": review.protocol.hash},
        "source": dict(source or {}),
        "found": [_triple(point) for point in review.found.points],
        "found_status": list(review.found.status),
        "confidence": [float(c) if math.isfinite(c) else None for c in review.found.confidence],
        "notes": list(review.found.notes),
        "edits": [
            [{**asdict(edit), "distance_mm": edit.distance_mm} for edit in step]
            for step in review._done
        ],
    }


def from_record(
    record: Mapping[str, Any], current: LandmarkSet, name: str
) -> tuple[Review, dict[str, Any]]:
    """The review of a record and of the points that hold now; also returns its source.

    Args:
        name: What to call the record's place in an error.

    Raises:
        UserError: the record is damaged, too new, or of another protocol.
    """
    protocol = current.protocol
    try:
        if record["version"] > VERSION:
            raise UserError(f"{name} was written by a newer BrainLandmarks; install that version.")
        if record["protocol"]["hash"] != protocol.hash:
            raise UserError(
                f"{name} was made with another definition of {record['protocol']['name']}; open it "
                "with the version of BrainLandmarks that wrote it."
            )
        found = LandmarkSet(
            protocol,
            np.array([_NOWHERE if p is None else p for p in record["found"]], float),
            [str(status) for status in record["found_status"]],
            np.array([math.nan if c is None else c for c in record["confidence"]], float),
            [str(note) for note in record.get("notes", ())],
        )
        steps = [tuple(_edit_from(entry, protocol) for entry in step) for step in record["edits"]]
        source = dict(record["source"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"the record of edits in {name} is damaged; remove its entry {_KEY!r} to open the "
            "points alone."
        ) from error
    review = Review(found, _copy(current))
    review.current.confidence = found.confidence.copy()
    review._done = steps
    return review, source


def _edit_from(entry: Mapping[str, Any], protocol: Protocol) -> Edit:
    edit = Edit(
        label=protocol.by_label(entry["label"]).label,
        kind="swapped" if entry["kind"] == "exchanged" else entry["kind"],
        before=_three(entry["before"]),
        after=_three(entry["after"]),
        status_before=entry["status_before"],
        status_after=entry["status_after"],
        who=str(entry["who"]),
        when=str(entry["when"]),
    )
    if edit.kind not in KINDS or {edit.status_before, edit.status_after} - set(STATUSES):
        raise ValueError("unknown kind or status")
    return edit


def _three(value: Any) -> tuple[float, float, float] | None:
    if value is None:
        return None
    x, y, z = (float(v) for v in value)
    return x, y, z


def _triple(point: npt.NDArray[np.float64]) -> tuple[float, float, float] | None:
    if not np.isfinite(point).all():
        return None
    x, y, z = (round(float(v), 4) for v in point)
    return x, y, z


def _near(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> bool:
    """Whether two points are the same, or both missing."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return bool(np.isnan(a).any() == np.isnan(b).any())
    return bool(np.linalg.norm(a - b) < 10 * SAME_MM)


def _copy(landmarks: LandmarkSet) -> LandmarkSet:
    return replace(landmarks)  # the constructor copies
