"""Which scans a BIDS dataset has: names and folders of BIDS, as far as images of heads need them.

BIDS 1.10, "Filenames" and "Directory structure" of the common principles
(https://bids-specification.readthedocs.io/en/stable/common-principles.html):
``sub-<label>/[ses-<label>/]anat/sub-<label>[_ses-<label>][_<key>-<label>...]_<suffix>.nii[.gz]``.
What ``.bidsignore`` names is not there. A subject without an image is reported.

pybids reads far more (inherited metadata, queries over all modalities) and brings a database and
a data frame library for it. Here a name is all there is to read.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from BrainLandmarksLib.errors import UserError

DEFAULT_SUFFIX = "T1w"

PARTICIPANTS_FILE = "participants.tsv"
IGNORE_FILE = ".bidsignore"

_LABEL = "[A-Za-z0-9+]+"
_SUBJECT = re.compile(f"sub-{_LABEL}")
_NAME = re.compile(rf"(?P<entities>[a-z]+-{_LABEL}(?:_[a-z]+-{_LABEL})*)_(?P<suffix>[A-Za-z0-9]+)")
_EXTENSIONS = (".nii.gz", ".nii")
# What the name of a raw image may say besides subject and session: the entities of BIDS, without
# those of derivatives (desc, space, res, ...).
_KEYS = {
    "sample", "task", "tracksys", "acq", "nuc", "voi", "ce", "trc", "stain", "rec", "dir", "run",
    "mod", "echo", "flip", "inv", "mt", "part", "proc", "recording", "chunk", "split",
}  # fmt: skip
# A phase, or half of a complex image, shows no head as a T1 image does.
_PARTS = ("", "mag")


@dataclass(frozen=True)
class BidsScan:
    """One image of a BIDS dataset.

    >>> scan = find_scans("dataset").scans[0]
    >>> scan.entities, scan.suffix, scan.participant, scan.session
    ('sub-01_ses-1_run-2', 'T1w', '01', '1')

    Args:
        entities: The file's name without suffix and extension.
        suffix: What kind of image it is, such as "T1w".
        path: From the dataset's folder, with slashes; "" for a subject that has no image.
        problem: Why it cannot be read, if its name alone says so; one sentence.
    """

    entities: str
    suffix: str
    path: str
    problem: str = ""

    @property
    def participant(self) -> str:
        """The subject's label, without "sub-"."""
        return self._label("sub")

    @property
    def session(self) -> str:
        """The session's label, without "ses-"; "" if there is none."""
        return self._label("ses")

    @property
    def place(self) -> str:
        """The path, or the subject's folder if it has no image; scans are listed in its order."""
        return self.path or self.entities

    @property
    def folder(self) -> str:
        """The folder of the image, from the dataset's."""
        return self.path.rpartition("/")[0]

    def _label(self, key: str) -> str:
        return dict(part.split("-", 1) for part in self.entities.split("_")).get(key, "")


@dataclass(frozen=True)
class FoundScans:
    """The scans of a dataset, and what might have been one.

    Args:
        scans: The images.
        left_out: Sentences on files that might have been scans, and on folders that may not be
            read.
        absent: The subjects without an image, with the reason as their problem.
    """

    scans: list[BidsScan]
    left_out: list[str]
    absent: list[BidsScan] = field(default_factory=list)


def find_scans(
    dataset: str | os.PathLike[str],
    suffix: str = DEFAULT_SUFFIX,
    participants: Sequence[str] = (),
) -> FoundScans:
    """The images of one kind in a BIDS dataset, in the order of their names.

    Only the folders of subjects are looked into: not derivatives, sourcedata or code. Subjects are
    those with a folder, those of participants.tsv, and those that are asked for.

    Args:
        suffix: Kind of image, such as "T1w" or "UNIT1".
        participants: Labels of subjects, with or without "sub-"; all of them if there are none.

    Raises:
        UserError: this is no BIDS dataset, it has no such image at all, its .bidsignore cannot be
            read, or a label is none.
    """
    root = Path(dataset)
    if not re.fullmatch(r"[A-Za-z0-9]+", suffix):
        raise UserError(f"{suffix!r} is no suffix of a BIDS name; give one such as T1w.")
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; check the path of the BIDS dataset.")
    names = [name for name in os.listdir(root) if name.startswith("sub-")]
    folders = sorted(name for name in names if (root / name).is_dir())
    if not folders:
        raise UserError(
            f"{root} is no BIDS dataset: it has no folder sub-...; give the folder that has them."
        )
    ignored = _ignored(root)
    left_out = []
    if strange := sum(1 for name in folders if not _SUBJECT.fullmatch(name)):
        left_out.append(
            f"the dataset has {_count(strange, 'folder', 'sub-...')} not named as BIDS says, sub- "
            "and then letters and digits; rename what is meant."
        )
    folders = [name for name in folders if _SUBJECT.fullmatch(name)]
    listed = _listed(root)
    asked = ["sub-" + label.removeprefix("sub-") for label in participants]
    for name in asked:
        if not _SUBJECT.fullmatch(name):
            raise UserError(f"{name!r} is no subject's label; it is made of letters and digits.")
    unignored = [name for name in folders if not ignored(f"{name}/")]
    scans: dict[str, BidsScan] = {}
    absent = []
    for subject in sorted(set(asked) or {*unignored, *listed}):
        found, strangers, phases, hidden, closed = _look(root / subject, suffix, ignored)
        for scan in found:
            twin = scans.get(scan.entities)
            if twin is not None:
                problem = (
                    f"{scan.entities}_{suffix} is there as .nii and as .nii.gz; remove one of the "
                    "two."
                )
                scan = BidsScan(scan.entities, suffix, scan.path, problem)
            scans[scan.entities] = scan
        left_out += strangers
        if not found:
            reason = "a folder of it may not be read."
            if not closed:
                reason = _reason(root, subject, suffix, hidden=hidden, phases=phases)
            if len(strangers) > closed:
                reason = f"it has no {suffix} image that is named as BIDS says."
            absent.append(BidsScan(subject, suffix, "", reason))
    if not scans and not left_out and not asked:
        raise UserError(
            f"{root} has no image sub-..._{suffix}.nii.gz in its anat folders; check --suffix and "
            "the labels."
        )
    return FoundScans([scans[entities] for entities in sorted(scans)], left_out, absent)


def _look(
    subject: Path, suffix: str, ignored: Callable[[str], bool]
) -> tuple[list[BidsScan], list[str], int, int, int]:
    """What a subject's folders have: scans, sentences on other names, numbers of others.

    Returns:
        (scans, sentences on images that are not named as BIDS says and on folders that may not be
        read, number of phase images, number of images that .bidsignore names, number of those
        folders).
    """
    scans, sentences, phases, hidden, closed = [], [], 0, 0, 0
    for folder, start in _anatomical(subject):
        where, strangers = folder.relative_to(subject.parent).as_posix(), 0
        try:
            images = list(_images(folder, suffix))
        except OSError:
            sentences.append(f"{where} may not be read; check its permissions.")
            closed += 1
            continue
        for name, extension in images:
            path = f"{where}/{name}{extension}"
            if ignored(path):
                hidden += 1
            elif not _is_raw(name, suffix, start):
                strangers += 1
            elif dict(p.split("-", 1) for p in name.split("_")[:-1]).get("part", "") not in _PARTS:
                phases += 1
            else:
                scans.append(BidsScan(name.removesuffix(f"_{suffix}"), suffix, path))
        if strangers:
            # Their names are not quoted: what is no BIDS name may be a patient's.
            sentences.append(
                f"{where} has {_count(strangers, 'image', f'of type {suffix}')} not named as BIDS "
                f"says, {'_'.join(start)}_..._{suffix}.nii.gz; rename or remove what is meant."
            )
    return scans, sentences, phases, hidden, closed


def _count(number: int, what: str, more: str) -> str:
    return f"one {what} {more}" if number == 1 else f"{number} {what}s {more}"


def _reason(root: Path, subject: str, suffix: str, *, hidden: int, phases: int) -> str:
    """Why a subject has no scan; one sentence."""
    folder = root / subject
    if not folder.is_dir():
        if subject in _listed(root):
            return f"it is in {PARTICIPANTS_FILE}, but has no folder."
        return f"it has no folder and is not in {PARTICIPANTS_FILE}; check the label."
    if hidden:
        return f"its {suffix} images are named in {IGNORE_FILE}."
    if phases:
        return f"its {suffix} images are phase, real or imaginary parts only."
    if not any(folder.iterdir()):
        return "its folder is empty."
    return f"it has no {suffix} image in an anat folder."


def _listed(root: Path) -> set[str]:
    """The subjects of participants.tsv, with "sub-"; labels that are none are passed over."""
    try:
        with (root / PARTICIPANTS_FILE).open(encoding="utf-8-sig", newline="") as file:
            rows = [row.get("participant_id") or "" for row in csv.DictReader(file, delimiter="\t")]
    except (OSError, UnicodeDecodeError, csv.Error):
        return set()
    names = {"sub-" + row.strip().removeprefix("sub-") for row in rows}
    return {name for name in names if _SUBJECT.fullmatch(name)}


def _ignored(root: Path) -> Callable[[str], bool]:
    """Whether .bidsignore names a path from the dataset's folder; it is written as .gitignore is.

    Raises:
        UserError: it cannot be read, or the library for it is not installed.
    """
    path = root / IGNORE_FILE
    if not path.is_file():
        return lambda _: False
    try:
        import pathspec
    except ImportError:
        raise UserError(
            f"{path} says what is to be left out, and reading it needs pathspec; run pip install "
            "'brainlandmarks[cohort]'."
        ) from None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        return pathspec.GitIgnoreSpec.from_lines(lines).match_file
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error


def _anatomical(subject: Path) -> Iterator[tuple[Path, list[str]]]:
    """The anat folders of a subject, with how the names in them start."""
    yield subject / "anat", [subject.name]
    for session in sorted(subject.glob("ses-*")):
        yield session / "anat", [subject.name, session.name]


def _images(folder: Path, suffix: str) -> Iterator[tuple[str, str]]:
    """Names and extensions of images of one kind; a link to nowhere is one, too."""
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        for extension in _EXTENSIONS:
            if name.endswith(f"_{suffix}{extension}") and not name.startswith("."):
                yield name.removesuffix(extension), extension


def _is_raw(name: str, suffix: str, start: Sequence[str]) -> bool:
    """Whether this is the name of a raw image that lies where it should."""
    match = _NAME.fullmatch(name)
    if match is None or match["suffix"] != suffix:
        return False
    parts = match["entities"].split("_")
    rest = [part.partition("-")[0] for part in parts[len(start) :]]
    return parts[: len(start)] == list(start) and set(rest) <= _KEYS and len(set(rest)) == len(rest)
