"""Which scans a BIDS dataset has: names and folders of BIDS, as far as images of heads need them.

BIDS 1.10, "Filenames" and "Directory structure" of the common principles
(https://bids-specification.readthedocs.io/en/stable/common-principles.html):
``sub-<label>/[ses-<label>/]anat/sub-<label>[_ses-<label>][_<key>-<label>...]_<suffix>.nii[.gz]``.

pybids reads far more (inherited metadata, queries over all modalities) and brings a database and
a data frame library for it. Here a name is all there is to read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from BrainLandmarksLib.errors import UserError

DEFAULT_SUFFIX = "T1w"

_LABEL = "[A-Za-z0-9+]+"
_NAME = re.compile(rf"(?P<entities>[a-z]+-{_LABEL}(?:_[a-z]+-{_LABEL})*)_(?P<suffix>[A-Za-z0-9]+)")
_EXTENSIONS = (".nii.gz", ".nii")
# What the name of a raw anatomical image may say besides subject and session.
_KEYS = {"task", "acq", "ce", "rec", "run", "echo", "part", "chunk"}


@dataclass(frozen=True)
class Scan:
    """One image of a BIDS dataset.

    >>> scan = find_scans("dataset").scans[0]
    >>> scan.entities, scan.suffix, scan.participant, scan.session
    ('sub-01_ses-1_run-2', 'T1w', '01', '1')

    Args:
        entities: The file's name without suffix and extension.
        suffix: What kind of image it is, such as "T1w".
        path: From the dataset's folder, with slashes.
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
    def folder(self) -> str:
        """The folder of the image, from the dataset's."""
        return self.path.rpartition("/")[0]

    def _label(self, key: str) -> str:
        return dict(part.split("-", 1) for part in self.entities.split("_")).get(key, "")


@dataclass(frozen=True)
class Found:
    """The scans of a dataset, and sentences on files that might have been scans."""

    scans: list[Scan]
    left_out: list[str]


def find_scans(
    dataset: str | os.PathLike[str],
    suffix: str = DEFAULT_SUFFIX,
    participants: Sequence[str] = (),
) -> Found:
    """The images of one kind in a BIDS dataset, in the order of their names.

    Only the folders of subjects are looked into: not derivatives, sourcedata or code.

    Args:
        suffix: Kind of image, such as "T1w" or "UNIT1".
        participants: Labels of subjects, with or without "sub-"; all of them if there are none.

    Raises:
        UserError: this is no BIDS dataset, it has no such subject, or no such image.
    """
    root = Path(dataset)
    if not re.fullmatch(r"[A-Za-z0-9]+", suffix):
        raise UserError(f"{suffix!r} is no suffix of a BIDS name; give one such as T1w.")
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; check the path of the BIDS dataset.")
    subjects = sorted(path for path in root.glob("sub-*") if path.is_dir())
    if not subjects:
        raise UserError(
            f"{root} is no BIDS dataset: it has no folder sub-...; give the folder that has them."
        )
    if participants:
        wanted = ["sub-" + label.removeprefix("sub-") for label in participants]
        missing = sorted(set(wanted) - {path.name for path in subjects})
        if missing:
            raise UserError(f"{root} has no subject {', '.join(missing)}; check the labels.")
        subjects = [path for path in subjects if path.name in wanted]
    scans: dict[str, Scan] = {}
    left_out = []
    for subject in subjects:
        for folder, start in _anatomical(subject):
            where, strangers = folder.relative_to(root).as_posix(), 0
            for name, extension in _images(folder, suffix):
                if not _is_raw(name, suffix, start):
                    strangers += 1
                    continue
                entities = name.removesuffix(f"_{suffix}")
                scan = Scan(entities, suffix, f"{where}/{name}{extension}")
                if entities in scans:
                    problem = f"{name} is there as .nii and as .nii.gz; remove one of the two."
                    scan = Scan(entities, suffix, scan.path, problem)
                scans[entities] = scan
            if strangers:
                # Their names are not quoted: what is no BIDS name may be a patient's.
                images = "one image" if strangers == 1 else f"{strangers} images"
                left_out.append(
                    f"{where} has {images} of type {suffix} not named as BIDS says, "
                    f"{'_'.join(start)}_..._{suffix}.nii.gz; rename or remove what is meant."
                )
    if not scans and not left_out:
        raise UserError(
            f"{root} has no image sub-..._{suffix}.nii.gz in its anat folders; check --suffix and "
            "the labels."
        )
    return Found([scans[entities] for entities in sorted(scans)], left_out)


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
