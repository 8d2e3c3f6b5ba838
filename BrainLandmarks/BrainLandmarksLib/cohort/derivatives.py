"""The folder of results, a BIDS derivative: its names, its descriptions, and what is done in it.

::

    derivatives/brainlandmarks/
      dataset_description.json   what made it, and from what; README.md says it to people
      protocol.json              the landmark set
      cohort.tsv, cohort.json    one row for each scan
      sub-01/anat/
        sub-01_desc-brain88_landmarks.tsv       the landmarks, RAS mm of the image
        sub-01_desc-brain88_landmarks.json      what the columns are, and what made the file
        sub-01_desc-brain88_landmarks.mrk.json  the same for 3D Slicer
      logs/sub-02_desc-brain88_landmarks.json   why there is no result

BIDS 1.10, "BIDS Derivatives": a name is the source's entities, then ``desc-<label>`` and a new
suffix. There is no ``space-`` entity, because "orig" is none of the spaces that BIDS lists; the
``SpatialReference`` that it then requires is the image. BIDS has no files of landmarks yet, so
``.bidsignore`` names them.
"""

from __future__ import annotations

import csv
import functools
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

from BrainLandmarksLib import __version__
from BrainLandmarksLib.cohort.bids import DEFAULT_SUFFIX, BidsScan
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.io.atomic import atomic_writes, need_writable, unfinished_of
from BrainLandmarksLib.io.checksum import file_sha256
from BrainLandmarksLib.io.images.orientation import check_codes
from BrainLandmarksLib.io.landmarks import write_landmarks
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.json_file import json_object
from BrainLandmarksLib.protocol import Protocol, load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import read_review

if TYPE_CHECKING:
    from BrainLandmarksLib.detection import Detection

PIPELINE = "brainlandmarks"
BIDS_VERSION = "1.10.1"
DEFAULT_QUALITY = "standard"
DESCRIPTION_FILE = "dataset_description.json"
PROTOCOL_FILE = "protocol.json"
LOGS = "logs"
ASSUMED = "AssumedOrientation"
"""Field of a sidecar, for an image that does not state its orientation."""

RAW = "raw"
"""Name of the source dataset in BIDS URIs such as bids:raw:sub-01/anat/sub-01_T1w.nii.gz."""

_README = """\
# Anatomical landmarks

Found in the images of the source dataset by a neural network (BrainLandmarks {version}). For
research, not for diagnosis.

- `sub-*/**/*_landmarks.tsv`: the landmarks of one image in its own world coordinates, RAS mm; the
  .json file beside it describes the columns and says which image and model it was.
- `sub-*/**/*_landmarks.mrk.json`: the same for 3D Slicer. Corrections saved over it are kept.
- `cohort.tsv`, `cohort.html`: one row for each scan, and a page with the uncertain ones first.
- `protocol.json`: the landmark set. `logs/`: why a scan has no landmarks.
"""
_MOVED_MM = 0.01  # more than formats round

_IGNORED = f"*_landmarks.*\ncohort.*\n{PROTOCOL_FILE}\n{LOGS}/\n"

COLUMNS: dict[str, dict[str, Any]] = {
    "index": {"Description": "Number of the landmark in the protocol, from 1."},
    "label": {"Description": "Short name of the landmark."},
    "group": {"Description": "Anatomy that the landmark belongs to."},
    "r": {
        "Description": "Position to the right in the image's own world coordinates (RAS+, those "
        "of its affine).",
        "Units": "mm",
    },
    "a": {"Description": "Position to the front, in the same coordinates.", "Units": "mm"},
    "s": {"Description": "Position to the top, in the same coordinates.", "Units": "mm"},
    "confidence": {
        "Description": "Probability that the error is below the model's limit, if the model is "
        "calibrated; n/a for missing landmarks."
    },
    "status": {
        "Description": "Where the point comes from.",
        "Levels": {"model": "found by the network", "missing": "not there: note says why"},
    },
    "deviation": {
        "Description": "Distance from where all other landmarks of the head lead to expect it, in "
        "standard deviations of the model's shape model; n/a if the model has none."
    },
    "note": {"Description": "Why a landmark is missing; n/a where there is nothing to say."},
}
"""Columns of a scan's table: the entries of its sidecar (BIDS, "Tabular files")."""


@dataclass(frozen=True)
class Files:
    """Where the results of one scan lie."""

    folder: Path
    stem: str
    failure: Path

    @property
    def table(self) -> Path:
        """The landmarks as .tsv."""
        return self.folder / f"{self.stem}.tsv"

    @property
    def sidecar(self) -> Path:
        """The description, written last: with it a scan is done."""
        return self.folder / f"{self.stem}.json"

    @property
    def markups(self) -> Path:
        """The landmarks for 3D Slicer."""
        return self.folder / f"{self.stem}.mrk.json"


@dataclass(frozen=True)
class ScanRecord:
    """What the folder says of one scan.

    Args:
        scan: The image.
        sentence: Why there is no result; "" if there is one.
        about: The sidecar.
        landmarks: As they stand now, with a person's corrections; None without a result.
        deviation: (K,) as the model's shape model said, NaN where unknown.
    """

    scan: BidsScan
    sentence: str = ""
    about: dict[str, Any] | None = None
    landmarks: LandmarkSet | None = None
    deviation: FloatArray | None = None


class Derivatives:
    """A folder of results.

    >>> results = Derivatives.prepare("bids/derivatives/brainlandmarks", "bids", protocol)
    >>> results.write(scan, detection, deviation, source_sha256, model)
    >>> results.is_done(scan, source_sha256, model["SHA256"])
    True
    """

    def __init__(self, folder: Path, protocol: Protocol) -> None:
        self.folder = folder
        self.protocol = protocol

    @classmethod
    def prepare(
        cls, folder: str | os.PathLike[str], raw: str | os.PathLike[str], protocol: Protocol
    ) -> Derivatives:
        """Make the folder with its descriptions, or go on in one; several jobs may do so at once.

        Args:
            raw: The dataset that the images come from.

        Raises:
            UserError: the folder holds something else, or results of other landmarks, or lies in
                the raw dataset where BIDS does not allow it, or cannot be written.
        """
        target, source = Path(folder).absolute(), Path(raw).absolute()
        _check_place(target, source)
        need_writable(target)
        if target.is_dir():
            _check_own(target)
            if (target / PROTOCOL_FILE).is_file():
                present = load_protocol(target / PROTOCOL_FILE)
                if present.hash != protocol.hash:
                    raise UserError(
                        f"{folder} holds landmarks of {present.name}, and the model finds "
                        f"{protocol.name}; choose another folder."
                    )
        texts = {
            ".bidsignore": _IGNORED,
            "README.md": _README.format(version=__version__),
            DESCRIPTION_FILE: _json(_description(target, source)),
            PROTOCOL_FILE: protocol.to_json(),
        }
        with atomic_writes(target) as unfinished:
            for name, text in texts.items():
                (unfinished / name).write_text(text, encoding="utf-8")
        return cls(target, protocol)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Derivatives:
        """A folder that `prepare` made.

        Raises:
            UserError: it is none.
        """
        target = Path(folder)
        if not (target / DESCRIPTION_FILE).is_file() or not (target / PROTOCOL_FILE).is_file():
            raise UserError(
                f"{folder} holds no results; give the output folder of brainlandmarks detect "
                "--bids."
            )
        _check_own(target)
        return cls(target, _protocol(target / PROTOCOL_FILE))

    def raw(self) -> Path | None:
        """The dataset that the images come from, if it is where it was."""
        links = json_object(self.folder / DESCRIPTION_FILE).get("DatasetLinks", {})
        link = str(links.get(RAW, ""))
        if link.startswith("file:"):  # on another drive
            uri = urlsplit(link)
            link = url2pathname(f"//{uri.netloc}{uri.path}" if uri.netloc else uri.path)
        path = self.folder / link
        return Path(os.path.normpath(path)) if link and path.is_dir() else None

    # One scan ------------------------------------------------------------------------------------

    def files(self, scan: BidsScan) -> Files:
        """Where the results of a scan go."""
        label = re.sub(r"[^A-Za-z0-9]", "", self.protocol.name)
        # Scans of two kinds can have the same entities.
        label += "" if scan.suffix == DEFAULT_SUFFIX else scan.suffix
        stem = f"{scan.entities}_desc-{label}_landmarks"
        return Files(self.folder / scan.folder, stem, self.folder / LOGS / f"{stem}.json")

    def is_done(
        self,
        scan: BidsScan,
        source_sha256: str,
        model_sha256: str,
        quality: str = DEFAULT_QUALITY,
        assume_orientation: str | None = None,
    ) -> bool:
        """Whether a scan has whole results of this image, this model and this quality.

        Args:
            assume_orientation: For an image that states none, results of another assumption are
                not these results; None takes them all.
        """
        files = self.files(scan)
        about = json_object(files.sidecar)
        if about.get("SourceSHA256") != source_sha256:
            return False
        if about.get("Model", {}).get("SHA256") != model_sha256:
            return False
        # Results of before there was a choice are of the quality that is the default.
        if about.get("Quality", DEFAULT_QUALITY) != quality:
            return False
        assumed = about.get(ASSUMED)
        if assumed and assume_orientation and assumed != check_codes(assume_orientation):
            return False
        try:
            whole = file_sha256(files.table) == about.get("TableSHA256")
            read_review(files.markups, self.protocol, any_pose=True)
        except UserError:
            return False
        return whole

    def need_uncorrected(self, scan: BidsScan) -> None:
        """Check that to detect a scan again would not replace a person's work.

        Raises:
            UserError: a person has moved, confirmed or removed landmarks of it.
        """
        files = self.files(scan)
        try:
            if file_sha256(files.markups) == json_object(files.sidecar).get("MarkupsSHA256"):
                return
            corrected = self._is_corrected(files)
        except UserError as error:
            if not json_object(files.markups):  # not there, or cut off
                return
            raise UserError(
                f"{files.markups.name} was changed by a person and cannot be read ({error}) "
                "Correct it or move it away, or add --overwrite to replace it."
            ) from error
        if corrected:
            raise UserError(
                f"{files.markups.name} was corrected by a person, for another image, model, "
                "quality or assumed orientation; move it away, or add --overwrite to replace it."
            )

    def _is_corrected(self, files: Files) -> bool:
        landmarks, found = self._standing(files)
        lost = False
        if found is not None:
            lost = not np.array_equal(landmarks.missing, np.isnan(found).any(axis=1))
        return lost or any(status in ("edited", "confirmed") for status in landmarks.status)

    def _standing(self, files: Files) -> tuple[LandmarkSet, FloatArray | None]:
        """The landmarks of a scan as they stand, and (K, 3) RAS mm as they were found.

        What 3D Slicer moves keeps its description, and with it the status that it had; unless the
        file has a record of edits, a point that is not where it was found is one that was edited.

        Returns:
            (landmarks, points as they were found; None if those are not there any more).

        Raises:
            UserError: the landmarks cannot be read.
        """
        review, _ = read_review(files.markups, self.protocol, any_pose=True)
        landmarks = review.current
        try:
            intact = file_sha256(files.table) == json_object(files.sidecar).get("TableSHA256")
            found = _read_table(files.table, self.protocol)[0] if intact else None
        except UserError:
            found = None
        if found is not None and not review.edits:
            moved = np.linalg.norm(landmarks.points - found, axis=1) > _MOVED_MM
            for row in np.flatnonzero(moved):
                if landmarks.status[row] == "model":
                    landmarks.status[row] = "edited"
        return landmarks, found

    def write(
        self,
        scan: BidsScan,
        detection: Detection,
        deviation: FloatArray,
        source_sha256: str,
        model: dict[str, str],
        quality: str = DEFAULT_QUALITY,
        assumed: str | None = None,
    ) -> None:
        """Write the results of one scan; whoever dies meanwhile leaves it as not done.

        Args:
            deviation: (K,) standard deviations, NaN where unknown.
            source_sha256: Checksum of the image's file.
            model: Its "Name" and "SHA256".
            quality: How carefully it looked.
            assumed: Orientation that the image was assumed to have, as it states none.

        Raises:
            UserError: the disk is full or read-only.
        """
        files = self.files(scan)
        for left in unfinished_of(files.folder, files.stem):
            shutil.rmtree(left, ignore_errors=True)
        with atomic_writes(files.folder, files.stem) as unfinished:
            table = unfinished / files.table.name
            _table(detection.landmarks, deviation).write_tsv(table)
            write_landmarks(
                unfinished / files.markups.name,
                detection.landmarks,
                plausibility=detection.plausibility,
            )
            checksum = file_sha256(table)
            markups_checksum = file_sha256(unfinished / files.markups.name)
            # From here until the new one is there, the scan is not done.
            files.sidecar.unlink(missing_ok=True)
        source = f"bids:{RAW}:{scan.path}"
        about = {
            "Description": f"{self.protocol.title}, found by a neural network",
            "Sources": [source],
            "SpatialReference": source,
            "SourceSHA256": source_sha256,
            "TableSHA256": checksum,
            "MarkupsSHA256": markups_checksum,
            "Protocol": {"Name": self.protocol.name, "SHA256": self.protocol.hash},
            "Model": model,
            "Quality": quality,
            **({} if assumed is None else {ASSUMED: assumed}),
            "GeneratedBy": {"Name": PIPELINE, "Version": __version__},
            "Device": detection.device,
            "Precision": detection.precision,
            "Plausibility": round(detection.plausibility, 4),
            "Seconds": round(sum(detection.seconds.values()), 2),
            "Notes": list(detection.notes),
            **COLUMNS,
        }
        with atomic_writes(files.folder, files.stem) as unfinished:
            (unfinished / files.sidecar.name).write_text(_json(about), encoding="utf-8")
        files.failure.unlink(missing_ok=True)

    def write_failure(self, scan: BidsScan, sentence: str) -> None:
        """Keep why a scan has no result; results of an earlier image stay, if there are any.

        Raises:
            UserError: the disk is full or read-only.
        """
        failure = self.files(scan).failure
        about = {"Sources": [f"bids:{RAW}:{scan.place}"], "Error": sentence}
        if not scan.path:
            about["Absent"] = scan.suffix
        with atomic_writes(failure.parent, failure.stem) as unfinished:
            (unfinished / failure.name).write_text(_json(about), encoding="utf-8")

    # All scans -----------------------------------------------------------------------------------

    def write_absent(
        self, absent: Sequence[BidsScan], suffix: str, subjects: Sequence[str] = ()
    ) -> list[BidsScan]:
        """Keep which subjects have no scan, in place of what was known of them.

        A subject that has results of another kind of image is not missed.

        Args:
            absent: Subjects that have none, of those that were looked at.
            suffix: Kind of image that was looked for.
            subjects: Labels of the subjects that were looked at; all if there are none.

        Returns:
            Those that are missed.

        Raises:
            UserError: the disk is full or read-only.
        """
        looked = {label.removeprefix("sub-") for label in subjects}
        for path in self._logs():
            about = json_object(path)
            scan = _scan_of(about)
            if scan is None or about.get("Absent") != suffix:
                continue
            if not looked or scan.participant in looked:
                path.unlink(missing_ok=True)
        known = {record.scan.participant for record in self.records()} if absent else set()
        missed = [scan for scan in absent if scan.participant not in known]
        for scan in missed:
            self.write_failure(scan, scan.problem)
        return missed

    def _logs(self) -> list[Path]:
        return sorted((self.folder / LOGS).glob("*_landmarks.json"))

    def records(self) -> list[ScanRecord]:
        """What the folder says of every scan that was worked on, in the order of their names."""
        found = {}
        for path in sorted(self.folder.glob("sub-*/**/anat/*_landmarks.json")):
            about = json_object(path)
            scan = _scan_of(about)
            if scan is not None and self.files(scan).sidecar == path:
                found[scan.path] = self._record(scan, about)
        raw = self.raw()
        absent = {}
        for path in self._logs():
            about = json_object(path)
            scan = _scan_of(about)
            if scan is None:
                continue
            record = ScanRecord(scan, str(about.get("Error", "it failed.")))
            if not scan.path:
                absent[scan.entities] = record
            elif raw is None or os.path.lexists(raw / scan.path):
                # A bad image that was removed is not missed.
                found[scan.path] = record
        with_scans = {record.scan.participant for record in found.values()}
        found |= {
            name: record
            for name, record in absent.items()
            if record.scan.participant not in with_scans
        }
        return [found[path] for path in sorted(found)]

    def _record(self, scan: BidsScan, about: dict[str, Any]) -> ScanRecord:
        files = self.files(scan)
        try:
            landmarks, _ = self._standing(files)
            _, deviation = _read_table(files.table, self.protocol)
        except UserError as error:
            return ScanRecord(scan, f"its results are damaged ({error}) Detect it again.")
        return ScanRecord(scan, "", about, landmarks, deviation)


def _check_place(target: Path, raw: Path) -> None:
    """BIDS, "Storage of derived datasets": in raw/derivatives, named after what made it."""
    if raw != target and raw not in target.parents:
        return
    place = target.relative_to(raw).parts
    if len(place) < 2 or place[0] != "derivatives" or PIPELINE not in place[1]:
        raise UserError(
            f"{target.name} lies in the BIDS dataset itself; results go to its folder "
            f"derivatives/{PIPELINE} (or {PIPELINE}-NAME), or outside it."
        )


def _check_own(folder: Path) -> None:
    """Refuse a folder that something else has made."""
    path = folder / DESCRIPTION_FILE
    makers = json_object(path).get("GeneratedBy")
    first = makers[0] if isinstance(makers, list) and makers else None
    own = isinstance(first, dict) and first.get("Name") == PIPELINE
    strange = not path.is_file() and any(folder.glob("sub-*"))
    if strange or (path.is_file() and not own):
        raise UserError(
            f"{folder} holds a dataset that {PIPELINE} did not make; choose another folder."
        )


def _description(target: Path, raw: Path) -> dict[str, Any]:
    """BIDS, "Derived dataset and pipeline description"."""
    try:
        link = Path(os.path.relpath(raw, target)).as_posix()
    except ValueError:  # on another drive
        link = raw.as_uri()
    # A URI: the validator takes a relative path as a link only. The link says where it leads.
    source = {"URL": f"bids:{RAW}:"}
    original = json_object(raw / DESCRIPTION_FILE)
    if original.get("DatasetDOI"):
        source["DOI"] = str(original["DatasetDOI"])
    return {
        "Name": "Anatomical landmarks",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": PIPELINE, "Version": __version__}],
        "SourceDatasets": [source],
        "DatasetLinks": {RAW: link},
    }


def _table(landmarks: LandmarkSet, deviation: FloatArray) -> Table:
    rows = [
        (
            landmark.index,
            landmark.label,
            landmark.group,
            *(float(x) for x in landmarks.points[row]),
            float(landmarks.confidence[row]),
            landmarks.status[row],
            float(deviation[row]),
            landmarks.notes[row],
        )
        for row, landmark in enumerate(landmarks.protocol)
    ]
    return Table(tuple(COLUMNS), rows)


def _read_table(path: Path, protocol: Protocol) -> tuple[FloatArray, FloatArray]:
    """Points, (K, 3) RAS mm, and deviations, (K,), of a scan's table; NaN where there is none.

    Raises:
        UserError: it is missing or damaged.
    """
    columns = ("r", "a", "s", "deviation")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = {row["label"]: row for row in csv.DictReader(file, delimiter="\t")}
        cells = [[rows[label][column] for column in columns] for label in protocol.labels]
        values = np.array([[np.nan if c == "n/a" else float(c) for c in row] for row in cells])
    except (OSError, KeyError, TypeError, ValueError):
        raise UserError(f"{path.name} cannot be read.") from None
    return values[:, :3], values[:, 3]


def _scan_of(about: dict[str, Any]) -> BidsScan | None:
    """The scan that a sidecar or a failure is of."""
    sources = about.get("Sources") or [""]
    path = str(sources[0]).removeprefix(f"bids:{RAW}:")
    if about.get("Absent"):
        return BidsScan(path, str(about["Absent"]), "")
    name, _, suffix = path.rpartition("/")[2].partition(".")[0].rpartition("_")
    return BidsScan(name, suffix, path) if name else None


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@functools.lru_cache(maxsize=4)
def _protocol(path: Path) -> Protocol:
    return load_protocol(path)
