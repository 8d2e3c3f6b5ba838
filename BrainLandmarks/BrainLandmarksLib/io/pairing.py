"""Which files belong together: an image and its landmarks, two people's landmarks of one head.

The names decide. The landmarks of ``head.nii.gz`` are ``head.mrk.json``, ``head_landmarks.csv`` (as
``brainlandmarks detect`` calls them) or ``head_AB.fcsv``; in BIDS, those of ``sub-01_T1w.nii.gz``
are ``sub-01_desc-expert_afids.fcsv``, too.

One head may be there in several formats, as ``brainlandmarks detect`` writes it. Where they differ,
somebody has edited one of them: the newest counts, and a note says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.images import ITK_SUFFIXES, NIBABEL_SUFFIXES, stem
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

ANNOTATION_SUFFIXES = (".mrk.json", ".csv", ".fcsv")
"""Landmark files; of one head in several formats that say the same, the first of these counts."""

SAME_MM = 0.01
"""Formats round differently; landmarks that are nearer to each other than this are the same."""

SAME_AGE_S = 2.0
"""Files that were written or copied together; which of them was edited last is unknown."""

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
    """What was found in some folders: pairs, and what has no partner.

    Args:
        problems: Sentences on heads that are left out, because several files could be meant.
        notes: Sentences on choices that were made.
    """

    pairs: tuple[Pair, ...]
    lone_images: tuple[Path, ...]
    lone_landmarks: tuple[Path, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def annotation_stem(path: str | os.PathLike[str]) -> str:
    """The head that a landmark file is of, by its name: `head` of `out/head_landmarks.csv`."""
    name = Path(path).name
    for suffix in ANNOTATION_SUFFIXES:
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return name.removesuffix("_landmarks") or name


def find_annotations(
    folder: str | os.PathLike[str],
    protocol: Protocol | None = None,
    notes: list[str] | None = None,
) -> dict[str, Path]:
    """The landmark files of a folder by the head they are of, sorted; one for each head.

    Args:
        protocol: The landmarks, to compare files of one head; without it their times decide.
        notes: Sentences on choices that were made are added to it.

    Raises:
        UserError: there is no such folder, it holds no landmark file, or files of one head differ
            and are equally old.
    """
    path = Path(folder)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give the folder of one person's landmark files.")
    found: dict[str, list[Path]] = {}
    for file in sorted(path.iterdir()):
        if file.name.lower().endswith(ANNOTATION_SUFFIXES) and not file.name.startswith("."):
            found.setdefault(annotation_stem(file), []).append(file)
    if not found:
        raise UserError(
            f"{path} holds no landmark files ({', '.join(ANNOTATION_SUFFIXES)}); check the path."
        )
    return {name: _latest(found[name], protocol, notes) for name in sorted(found)}


def in_common(
    folders: Sequence[str | os.PathLike[str]],
    protocol: Protocol | None = None,
    notes: list[str] | None = None,
) -> tuple[dict[str, list[Path]], list[str]]:
    """The heads that several folders of landmark files have in common.

    Args:
        protocol, notes: As for `find_annotations`.

    Returns:
        (files of each common head, one from each folder in order; names of all other heads).

    Raises:
        UserError: as `find_annotations`, or the folders have no head in common.
    """
    found = [find_annotations(folder, protocol, notes) for folder in folders]
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


def _latest(
    files: Sequence[Path], protocol: Protocol | None, notes: list[str] | None = None
) -> Path:
    """Which of the landmark files of one head counts.

    Raises:
        UserError: they differ and are equally old.
    """
    first, *others = sorted(files, key=lambda f: (ANNOTATION_SUFFIXES.index(_suffix(f)), f.name))
    if protocol is not None and others:
        others = _different(first, others, protocol)
    if not others:
        return first
    newest, second = sorted((first, *others), key=lambda f: f.stat().st_mtime, reverse=True)[:2]
    if newest.stat().st_mtime - second.stat().st_mtime < SAME_AGE_S:
        if protocol is None:
            return first
        raise UserError(
            f"{newest.name} and {second.name} are of one head, differ, and are equally old; remove "
            "the one that does not count."
        )
    if notes is not None and (protocol is not None or newest is not first):
        notes.append(f"{newest.name} was taken, which is newer than {second.name} and differs")
    return newest


def _different(first: Path, others: Sequence[Path], protocol: Protocol) -> list[Path]:
    """Those of several landmark files that say something else than the first one."""
    try:
        wanted = read_landmarks(first, protocol, any_pose=True)
    except UserError:
        # Whoever reads it will hear why.
        return []
    different = []
    for file in others:
        try:
            same = _alike(wanted, read_landmarks(file, protocol, any_pose=True))
        except UserError:
            # Not of these landmarks: some other table of that name.
            continue
        if not same:
            different.append(file)
    return different


def _alike(one: LandmarkSet, other: LandmarkSet) -> bool:
    return bool(np.allclose(one.points, other.points, rtol=0, atol=SAME_MM, equal_nan=True))


def pair_up(sources: Iterable[str | os.PathLike[str]], protocol: Protocol | None = None) -> Pairing:
    """Pair the images and the landmark files below some folders by their names.

    Landmarks go to the image with the longest name that theirs begins with, in the same folder if
    there are several. A head of which several files could be meant is left out and reported.

    Args:
        protocol: As for `find_annotations`.

    Raises:
        UserError: a folder is not there, or of no head it is clear which files are meant.
    """
    images, annotations = _files_below(sources)
    owners: dict[Path, list[Path]] = {}
    lone: list[Path] = []
    problems: list[str] = []
    notes: list[str] = []
    unclear: set[Path] = set()
    keys = [(key, image) for image in images for key in _keys(image)]
    for file in annotations:
        fits = _owners(file, keys)
        if not fits:
            lone.append(file)
        elif len(fits) == 1:
            owners.setdefault(fits[0], []).append(file)
        else:
            unclear.update(fits)
            problems.append(
                f"{file.name} could be the landmarks of {fits[-2]} or of {fits[-1]}; call it "
                "after one of them, or give images names of their own."
            )
    pairs = []
    for image in images:
        files = owners.get(image)
        if files is None or image in unclear:
            continue
        if len({_bare(file) for file in files}) > 1:
            one, other = next((a, b) for a in files for b in files if _bare(a) != _bare(b))
            unclear.add(image)
            problems.append(
                f"both {one.name} and {other.name} could be the landmarks of {image.name}; leave "
                "one of them in the folders."
            )
            continue
        try:
            pairs.append(Pair(image, _latest(files, protocol, notes)))
        except UserError as error:
            unclear.add(image)
            problems.append(str(error))
    if problems and not pairs:
        raise UserError(problems[0])
    alone = [i for i in images if i not in owners and i not in unclear]
    return Pairing(tuple(pairs), tuple(alone), tuple(lone), tuple(problems), tuple(notes))


def find_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The images below a folder, sorted.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    images, _ = _files_below([folder])
    if not images:
        raise UserError(f"{folder} holds no image files; check the path.")
    return images


def image_of_same_head(image: Path, others: Iterable[Path]) -> Path | None:
    """Which of some images, such as label maps, is of the head of an image, by its name.

    The one of that name counts, else the one whose name goes on after it; in BIDS the label map of
    ``sub-01_T1w.nii.gz`` is ``sub-01_dseg.nii.gz``, too.

    Raises:
        UserError: several could be meant.
    """
    named = [(stem(other), other) for other in others]
    for key in _keys(image):
        longer = [o for n, o in named if n.startswith(key) and n[len(key) :][:1] in _SEPARATORS]
        found = [o for n, o in named if n == key] or longer
        if len(found) > 1:
            raise UserError(
                f"both {found[0].name} and {found[1].name} could be of {image.name}; leave one of "
                "them in the folder."
            )
        if found:
            return found[0]
    return None


def _files_below(sources: Iterable[str | os.PathLike[str]]) -> tuple[list[Path], list[Path]]:
    """Images and landmark files below some folders, each sorted within its folder; no hidden ones.

    Raises:
        UserError: a folder is not there.
    """
    images: dict[Path, None] = {}
    annotations: dict[Path, None] = {}
    for source in map(Path, sources):
        if not source.is_dir():
            raise UserError(f"{source} is not a folder; give folders of images and landmarks.")
        os.listdir(source)  # searching would pass over a folder that may not be read
        for file in sorted(source.rglob("*")):
            name = file.name.lower()
            # Hidden folders as well: git-annex keeps the content of every image in .git.
            hidden = any(part.startswith(".") for part in file.relative_to(source).parts)
            if hidden or not file.is_file():
                continue
            if name.endswith(_IMAGE_SUFFIXES):
                images[file] = None
            elif name.endswith(ANNOTATION_SUFFIXES):
                annotations[file] = None
    return list(images), list(annotations)


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


def _owners(file: Path, keys: Sequence[tuple[str, Path]]) -> list[Path]:
    """The images that a landmark file fits best: none, one, or several alike."""
    name = annotation_stem(file)
    fits = sorted(
        (len(key), image.parent == file.parent, image)
        for key, image in keys
        if name == key or (name.startswith(key) and name[len(key)] in _SEPARATORS)
    )
    return [image for *how, image in fits if how == list(fits[-1][:2])]


def _keys(image: Path) -> list[str]:
    """Names that the landmarks of an image may begin with."""
    name = stem(image)
    if _BIDS_SUBJECT.search(name) and "_" in name:
        # The last part of a BIDS name is what kind of image it is.
        return [name, name.rsplit("_", 1)[0]]
    return [name]
