"""Which files belong together: an image and its landmarks, two people's landmarks of one head.

Names tell. The landmarks of ``head.nii.gz`` are ``head.mrk.json``, ``head_landmarks.csv`` (as
``brainlandmarks detect`` calls them) or ``head_AB.fcsv``; in BIDS, those of ``sub-01_T1w.nii.gz``
are ``sub-01_desc-expert_afids.fcsv``, too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.images import ITK_SUFFIXES, NIBABEL_SUFFIXES, stem

ANNOTATION_SUFFIXES = (".mrk.json", ".csv", ".fcsv")
"""Landmark files; where a folder has one head in several formats, the first of these counts."""

_IMAGE_SUFFIXES = tuple(s for s in NIBABEL_SUFFIXES + ITK_SUFFIXES if s not in (".img", ".img.gz"))
_BIDS_SUBJECT = re.compile(r"(?:^|_)sub-([A-Za-z0-9]+)")
_SEPARATORS = "_-. "


@dataclass(frozen=True)
class Pair:
    """An image and the landmark file that belongs to it."""

    image: Path
    landmarks: Path


@dataclass(frozen=True)
class Pairing:
    """What was found in some folders: pairs, and what has no partner."""

    pairs: tuple[Pair, ...]
    lone_images: tuple[Path, ...]
    lone_landmarks: tuple[Path, ...]


def annotation_stem(path: str | os.PathLike[str]) -> str:
    """The head that a landmark file is of, by its name: `head` of `out/head_landmarks.csv`."""
    name = Path(path).name
    for suffix in ANNOTATION_SUFFIXES:
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return name.removesuffix("_landmarks") or name


def find_annotations(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """The landmark files of a folder by the head they are of, sorted; one for each head.

    Raises:
        UserError: there is no such folder, or it holds no landmark file.
    """
    path = Path(folder)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give the folder of one person's landmark files.")
    found: dict[str, Path] = {}
    for suffix in reversed(ANNOTATION_SUFFIXES):
        for file in sorted(path.iterdir()):
            if file.name.lower().endswith(suffix) and not file.name.startswith("."):
                found[annotation_stem(file)] = file
    if not found:
        raise UserError(
            f"{path} holds no landmark files ({', '.join(ANNOTATION_SUFFIXES)}); check the path."
        )
    return dict(sorted(found.items()))


def in_common(folders: Sequence[str | os.PathLike[str]]) -> tuple[dict[str, list[Path]], list[str]]:
    """The heads that several folders of landmark files have in common.

    Returns:
        (files of each common head, one from each folder in order; names of all other heads).

    Raises:
        UserError: as `find_annotations`, or the folders have no head in common.
    """
    found = [find_annotations(folder) for folder in folders]
    names = sorted(set().union(*found))
    common = [name for name in names if all(name in each for each in found)]
    if not common:
        example = " and ".join(next(iter(each.values())).name for each in found[:2])
        raise UserError(
            f"the folders have no head in common ({example}); files of one head need one name."
        )
    return {name: [each[name] for each in found] for name in common}, [
        name for name in names if name not in common
    ]


def pair_up(sources: Iterable[str | os.PathLike[str]]) -> Pairing:
    """Pair the images and the landmark files below some folders by their names.

    Landmarks go to the image with the longest name that theirs begins with, in the same folder if
    there are several.

    Raises:
        UserError: a folder is not there, or an image has two landmark files.
    """
    images: list[Path] = []
    annotations: list[Path] = []
    for source in map(Path, sources):
        if not source.is_dir():
            raise UserError(f"{source} is not a folder; give folders of images and landmarks.")
        for file in sorted(source.rglob("*")):
            name = file.name.lower()
            if file.name.startswith(".") or not file.is_file():
                continue
            if name.endswith(_IMAGE_SUFFIXES):
                images.append(file)
            elif name.endswith(ANNOTATION_SUFFIXES):
                annotations.append(file)
    owners: dict[Path, Path] = {}
    lone = []
    # Reversed preference: of one head in several formats, the last one set is the preferred one.
    rank = {suffix: -k for k, suffix in enumerate(ANNOTATION_SUFFIXES)}
    annotations.sort(key=lambda file: rank[_suffix(file)])
    keys = [(key, image) for image in images for key in _keys(image)]
    for file in annotations:
        image = _owner(file, keys)
        if image is None:
            lone.append(file)
            continue
        other = owners.get(image)
        if other is not None and _bare(other) != _bare(file):
            raise UserError(
                f"both {other.name} and {file.name} could be the landmarks of {image.name}; leave "
                "one of them in the folders."
            )
        owners[image] = file
    pairs = tuple(Pair(image, owners[image]) for image in images if image in owners)
    return Pairing(pairs, tuple(i for i in images if i not in owners), tuple(sorted(lone)))


def subject_of(name: str, pattern: re.Pattern[str] | None = None) -> str | None:
    """The subject that a file name states, or None.

    >>> subject_of("sub-OAS30001_ses-d0129_T1w")
    'OAS30001'

    Args:
        name: Name of a file without its suffix.
        pattern: Regular expression whose first group is the subject, instead of BIDS's `sub-`.
    """
    found = (pattern or _BIDS_SUBJECT).search(name)
    return found[1] if found else None


def _suffix(file: Path) -> str:
    return next(s for s in ANNOTATION_SUFFIXES if file.name.lower().endswith(s))


def _bare(file: Path) -> Path:
    return file.with_name(annotation_stem(file))


def _owner(file: Path, keys: Sequence[tuple[str, Path]]) -> Path | None:
    name = annotation_stem(file)
    fits = sorted(
        (len(key), image.parent == file.parent, image)
        for key, image in keys
        if name == key or (name.startswith(key) and name[len(key)] in _SEPARATORS)
    )
    if not fits:
        return None
    if len(fits) > 1 and fits[-1][:2] == fits[-2][:2]:
        raise UserError(
            f"{file.name} could be the landmarks of {fits[-2][2]} or of {fits[-1][2]}; give images "
            "names of their own."
        )
    return fits[-1][2]


def _keys(image: Path) -> list[str]:
    """Names that the landmarks of an image may begin with."""
    name = stem(image)
    if _BIDS_SUBJECT.search(name) and "_" in name:
        # The last part of a BIDS name is what kind of image it is.
        return [name, name.rsplit("_", 1)[0]]
    return [name]
