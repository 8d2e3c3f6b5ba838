"""One row for each scan: how sure, how complete, how unlike other heads, and the head's measures.

>>> results = Derivatives.open("derivatives/brainlandmarks")
>>> cases = [ReportedScan.of(record) for record in results.records()]
>>> write_table(results, cases)
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from BrainLandmarksLib.cohort.derivatives import Derivatives, ScanRecord
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.shape_model import RARE_DEVIATION, uncertainty
from BrainLandmarksLib.io.atomic import atomic_writes
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.landmarks import PLAUSIBLE
from BrainLandmarksLib.protocol.measures import measured

TABLE_FILE = "cohort.tsv"
SIDECAR_FILE = "cohort.json"

_COLUMNS: dict[str, dict[str, Any]] = {
    "participant_id": {"Description": "Subject, as in BIDS."},
    "session_id": {"Description": "Session, as in BIDS; n/a if the dataset has none."},
    "scan": {
        "Description": "The image, from the source dataset's folder; n/a for a subject without one."
    },
    "status": {
        "Description": "What became of the scan.",
        "Levels": {
            "ok": "landmarks were found",
            "check": "landmarks were found, and there is a warning",
            "failed": "there are no landmarks; the warning says why",
        },
    },
    "plausibility": {
        "Description": "How much what was found is a head, 0 to 1; less than "
        f"{PLAUSIBLE:g} is implausible, and there only where the detection was forced."
    },
    "missing": {"Description": "Number of landmarks that the image does not show."},
    "corrected": {"Description": "Number of landmarks that a person has moved or confirmed."},
    "least_sure": {"Description": "Landmark of the lowest confidence that nobody has corrected."},
    "lowest_confidence": {"Description": "Its confidence."},
    "mean_confidence": {"Description": "Mean over the landmarks that nobody has corrected."},
    "worst_fit": {
        "Description": "Landmark that lies farthest from where all others lead to expect it, of "
        "those that nobody has corrected."
    },
    "worst_deviation": {
        "Description": "How far, in standard deviations of the shape model; 1.6 is usual, "
        f"{RARE_DEVIATION:g} is rare."
    },
}
_LAST_COLUMNS: dict[str, dict[str, Any]] = {
    "detection_seconds": {"Description": "Time of the detection alone.", "Units": "s"},
    "device": {"Description": "Where the network ran."},
    "model": {"Description": "Name of the model."},
    "model_sha256": {"Description": "First 12 digits of the checksum of the model's files."},
    "warnings": {"Description": "What a person should know; sentences."},
}


@dataclass(frozen=True)
class ReportedScan:
    """One scan of the table and of the report.

    Args:
        record: What the folder says of it.
        uncertainties: (K,) how much each landmark deserves a review (`shape_model.uncertainty`);
            NaN for missing and for corrected ones. Empty without a result.
        warnings: Sentences.
    """

    record: ScanRecord
    uncertainties: FloatArray
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, record: ScanRecord) -> ReportedScan:
        """Judge a record."""
        if record.landmarks is None or record.deviation is None:
            return cls(record, np.empty(0), (record.sentence,))
        open_points = _open(record)
        uncertainties = np.where(
            open_points, uncertainty(record.landmarks.confidence, record.deviation), np.nan
        )
        return cls(record, uncertainties, tuple(_warnings(record, open_points)))

    @property
    def status(self) -> str:
        """ "ok", "check" or "failed"."""
        if self.record.landmarks is None:
            return "failed"
        return "check" if self.warnings else "ok"

    @property
    def worst(self) -> list[int]:
        """Rows of the landmarks that nobody has corrected, the most uncertain first."""
        known = np.flatnonzero(np.isfinite(self.uncertainties))
        return [int(row) for row in known[np.argsort(-self.uncertainties[known], kind="stable")]]

    @property
    def urgency(self) -> tuple[int, float]:
        """What worst-first sorting goes by: failed, then warned, then the greatest uncertainty."""
        rank = ("failed", "check", "ok").index(self.status)
        return rank, -float(self.uncertainties[self.worst[0]]) if self.worst else 0.0


def write_table(results: Derivatives, cases: Sequence[ReportedScan]) -> Table:
    """Write cohort.tsv and its description cohort.json; returns the table.

    Raises:
        UserError: the folder cannot be written.
    """
    columns = describe(results.protocol)
    table = Table(tuple(columns), [_row(case, results.protocol) for case in cases])
    with atomic_writes(results.folder, TABLE_FILE) as unfinished:
        table.write_tsv(unfinished / TABLE_FILE)
        text = json.dumps(columns, indent=2, ensure_ascii=False) + "\n"
        (unfinished / SIDECAR_FILE).write_text(text, encoding="utf-8")
    return table


def describe(protocol: Protocol) -> dict[str, dict[str, Any]]:
    """The columns of the table in order, as BIDS describes columns."""
    distances = {
        _slug(distance.name): {
            "Description": f"{distance.name}: from {distance.first} to {distance.second}",
            "Units": "mm",
        }
        for distance in protocol.distances
    }
    return {**_COLUMNS, **distances, **_LAST_COLUMNS}


def _row(case: ReportedScan, protocol: Protocol) -> list[Any]:
    record = case.record
    scan, landmarks, about = record.scan, record.landmarks, record.about or {}
    start: list[Any] = [
        f"sub-{scan.participant}",
        f"ses-{scan.session}" if scan.session else "",
        scan.path,
        case.status,
    ]
    end = [" ".join(case.warnings)]
    if landmarks is None or record.deviation is None:
        return [*start, *[""] * (len(describe(protocol)) - len(start) - len(end)), *end]
    confidence = np.where(np.isfinite(case.uncertainties), landmarks.confidence, np.nan)
    deviation = np.where(np.isfinite(case.uncertainties), record.deviation, np.nan)
    unsure, misfit = _extreme(-confidence), _extreme(deviation)
    model = about.get("Model", {})
    return [
        *start,
        float(about.get("Plausibility", math.nan)),
        int(landmarks.missing.sum()),
        _corrected(record),
        protocol.labels[unsure] if unsure is not None else "",
        float(confidence[unsure]) if unsure is not None else math.nan,
        float(np.nanmean(confidence)) if unsure is not None else math.nan,
        protocol.labels[misfit] if misfit is not None else "",
        float(deviation[misfit]) if misfit is not None else math.nan,
        *(each.mm for each in measured(landmarks)),
        float(about.get("Seconds", math.nan)),
        str(about.get("Device", "")),
        str(model.get("Name", "")),
        str(model.get("SHA256", ""))[:12],
        *end,
    ]


def _open(record: ScanRecord) -> np.ndarray:
    """(K,) True for points of the model that no person has corrected."""
    assert record.landmarks is not None
    return np.array([status == "model" for status in record.landmarks.status], dtype=bool)


def _corrected(record: ScanRecord) -> int:
    assert record.landmarks is not None
    return sum(status in ("edited", "confirmed") for status in record.landmarks.status)


def _warnings(record: ScanRecord, open_points: np.ndarray) -> list[str]:
    assert record.landmarks is not None
    assert record.deviation is not None
    labels = record.landmarks.protocol.labels
    sentences = []
    notes = [n for n, lost in zip(record.landmarks.notes, record.landmarks.missing) if lost]
    for note, count in Counter(notes).items():
        why = f" ({note})" if note else ""
        sentences.append(f"{count} of {len(labels)} landmarks are missing{why}.")
    misfits = np.flatnonzero(open_points & (np.nan_to_num(record.deviation) > RARE_DEVIATION))
    if len(misfits):
        order = misfits[np.argsort(-record.deviation[misfits])]
        names = ", ".join(labels[row] for row in order[:3])
        more = f" and {len(order) - 3} more" if len(order) > 3 else ""
        sentences.append(f"Not where the other landmarks lead to expect them: {names}{more}.")
    remarks = (record.about or {}).get("Notes", [])
    return sentences + [f"{str(text)[:1].upper()}{str(text)[1:]}." for text in remarks]


def _extreme(values: FloatArray) -> int | None:
    """Row of the largest value; None if none is known."""
    return int(np.nanargmax(values)) if np.isfinite(values).any() else None


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") + "_mm"
