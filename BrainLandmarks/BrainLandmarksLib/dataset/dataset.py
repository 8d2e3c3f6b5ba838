"""A folder of images with landmarks, to train on and to share: what "Add to dataset" writes.

::

    dataset/
      dataset.json          what is in it
      images/0001.nii.gz
      landmarks/0001.mrk.json

``dataset.json`` names the protocol and lists the entries: files, subject, split, checksums and
where each came from; it is written last, so an entry is there whole or not at all. Files are
numbered, not named: a dataset holds no name of a patient, a volume or a file it came from.

Several programs may write to one dataset, such as an import of a folder while someone corrects a
case: each holds it alone for a moment and goes by what the manifest says then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib import __version__
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.atomic import atomic_write, need_writable
from BrainLandmarksLib.io.checksum import file_sha256, sha256
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.io.lock import file_lock
from BrainLandmarksLib.json_file import read_json
from BrainLandmarksLib.protocol import Protocol, is_shipped, load_protocol
from BrainLandmarksLib.review import Review, read_review, write_review

VERSION = 2
"""Version of ``dataset.json``; a newer one is refused, version 1 had no subjects, splits and
checksums."""

MANIFEST = "dataset.json"
LOCK = ".dataset.lock"
PROTOCOL_FILE = "protocol.json"
"""Beside the manifest where the protocol is not one that comes with the library."""

SPLITS = ("train", "validation", "test")
"""What an entry may be used for."""


@dataclass(frozen=True)
class Entry:
    """One head: files relative to the dataset's folder, when it was added (UTC) and by whom.

    ``image_hash`` is the SHA-256 of voxels and geometry: the same head added again replaces its
    landmarks instead of making a twin.

    ``subject`` is a pseudonym, empty where every scan is a subject of its own; ``split`` is one of
    `SPLITS` or empty; ``image_sha256`` and ``landmarks_sha256`` are checksums of the two files;
    ``origin`` says what was done to the image before it was added, plain JSON values.
    """

    identity: str
    image: str
    landmarks: str
    added: str
    who: str
    image_hash: str
    subject: str = ""
    split: str = ""
    image_sha256: str = ""
    landmarks_sha256: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def person(self) -> str:
        """Whose scan it is: the subject, or the entry itself where no subject is stated."""
        return self.subject or f"entry {self.identity}"


@dataclass(frozen=True)
class Sample:
    """What an entry holds."""

    entry: Entry
    volume: Volume
    review: Review


class Dataset:
    """A dataset folder.

    >>> dataset = Dataset.create("my_dataset", load_protocol("brain88"))
    >>> dataset.add(volume, review)
    >>> for sample in Dataset.open("my_dataset"):
    ...     sample.review.current.points
    """

    def __init__(
        self,
        folder: Path,
        protocol: Protocol,
        entries: tuple[Entry, ...],
        history: tuple[dict[str, Any], ...] = (),
    ) -> None:
        self.folder = folder
        self.protocol = protocol
        self.entries = entries
        self.history = history
        """What was done to the dataset as a whole, oldest first, plain JSON values."""
        self._holding = False

    @classmethod
    def create(cls, folder: str | os.PathLike[str], protocol: Protocol) -> Dataset:
        """An empty dataset in a new or empty folder.

        Raises:
            UserError: something is in the folder already, or it cannot be written to.
        """
        path = Path(folder)
        need_empty(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot make {path}: {error.strerror}; choose another place."
            ) from None
        if not is_shipped(protocol):
            with atomic_write(path / PROTOCOL_FILE) as unfinished:
                unfinished.write_text(protocol.to_json(), encoding="utf-8")
        dataset = cls(path, protocol, ())
        dataset._write_manifest(())
        return dataset

    @classmethod
    def open(cls, folder: str | os.PathLike[str], protocol: Protocol | None = None) -> Dataset:
        """A dataset that exists.

        Args:
            protocol: The one that is wanted; by default the one the dataset names.

        Raises:
            UserError: no dataset, a damaged one, a newer version, or another protocol.
        """
        path = Path(folder)
        manifest = path / MANIFEST
        if not manifest.is_file():
            raise UserError(f"{path} is no dataset: it has no {MANIFEST}; check the path.")
        data = read_json(manifest, "the dataset's file")
        try:
            if data["version"] > VERSION:
                raise UserError(
                    f"the dataset {path} was made by a newer BrainLandmarks; install that version."
                )
            own = path / PROTOCOL_FILE
            wanted = protocol or load_protocol(own if own.exists() else data["protocol"]["name"])
            if data["protocol"]["hash"] != wanted.hash:
                raise UserError(
                    f"the dataset {path} has the landmarks of another definition of "
                    f"{data['protocol']['name']}; use the version of BrainLandmarks that made it."
                )
            entries = tuple(Entry(**entry) for entry in data["entries"])
            history = tuple(data.get("history", ()))
        except (KeyError, TypeError) as error:
            raise UserError(f"{manifest} is damaged: {error}.") from None
        return cls(path, wanted, entries, history)

    @classmethod
    def open_or_create(cls, folder: str | os.PathLike[str], protocol: Protocol) -> Dataset:
        """The dataset in a folder, made if there is none.

        Raises:
            UserError: as `open` and `create`.
        """
        if (Path(folder) / MANIFEST).exists():
            return cls.open(folder, protocol)
        return cls.create(folder, protocol)

    def add(
        self,
        volume: Volume,
        review: Review,
        source: Mapping[str, Any] | None = None,
        *,
        subject: str = "",
        split: str = "",
        origin: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Add a head, or replace the landmarks of one that is there already.

        A head that is there keeps its subject, split and origin where none is given.

        Args:
            volume: The image, as it is.
            review: Its landmarks with their record.
            source: What made the model's answer, plain JSON values.
            subject: Pseudonym of the person, the same for all scans of one person.
            split: One of `SPLITS`.
            origin: What was done to the image, plain JSON values.

        Raises:
            UserError: the landmarks are of another protocol, or the disk is full or read-only.
        """
        if review.protocol.hash != self.protocol.hash:
            raise UserError(f"the landmarks are not those of the dataset, {self.protocol.name}.")
        known_by = image_hash(volume)
        with self.locked():
            known = next((e for e in self.entries if e.image_hash == known_by), None)
            number = 1 + max((int(e.identity) for e in self.entries), default=0)
            identity = known.identity if known else f"{number:04d}"
            # An image that is there already is not written again.
            entry = store(
                self.folder,
                identity,
                None if known else volume,
                review,
                source,
                subject=subject or (known.subject if known else ""),
                split=split or (known.split if known else ""),
                origin=dict(origin or (known.origin if known else {})),
            )
            if known:
                image = ("image", "image_hash", "image_sha256")
                entry = replace(entry, **{name: getattr(known, name) for name in image})
            self.register(entry)
        return entry

    def revise(
        self, entry: Entry, review: Review, source: Mapping[str, Any] | None = None
    ) -> Entry:
        """Replace the landmarks of an entry, known by its number; the image is not touched.

        Raises:
            UserError: the landmarks are of another protocol, or the disk is full or read-only.
        """
        if review.protocol.hash != self.protocol.hash:
            raise UserError(f"the landmarks are not those of the dataset, {self.protocol.name}.")
        with self.locked():
            entry = next((e for e in self.entries if e.identity == entry.identity), entry)
            renewed = store(self.folder, entry.identity, None, review, source)
            kept = ("image", "image_hash", "image_sha256", "subject", "split", "origin")
            renewed = replace(renewed, **{name: getattr(entry, name) for name in kept})
            self.register(renewed)
        return renewed

    def register(self, *entries: Entry) -> None:
        """List entries whose files `store` has written; one takes the place of its namesake.

        Raises:
            UserError: the manifest cannot be written.
        """
        with self.locked():
            self._write_manifest(self._with(entries))

    def update(self, entries: Iterable[Entry], note: Mapping[str, Any]) -> None:
        """Replace entries by their namesakes, for example after a split, with a note.

        Args:
            entries: Files must be there already.
            note: What was done, plain JSON values; the time and the version are added.

        Raises:
            UserError: the manifest cannot be written.
        """
        stamp = {
            "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "version": __version__,
        }
        with self.locked():
            self._write_manifest(self._with(entries), (*self.history, {**note, **stamp}))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the dataset while it is read and written; entries are those of this moment.

        Raises:
            UserError: the folder cannot be written to, or there is no dataset in it any more.
        """
        if self._holding:
            yield
            return
        with file_lock(self.folder / LOCK):
            now = Dataset.open(self.folder, self.protocol)
            self.entries, self.history = now.entries, now.history
            self._holding = True
            try:
                yield
            finally:
                self._holding = False

    def of_split(self, split: str) -> list[Entry]:
        """The entries of one split, or all with "all".

        Raises:
            UserError: there is no such split, or it has no entries.
        """
        if split not in (*SPLITS, "all"):
            raise UserError(f"there is no split {split!r}; choose {', '.join(SPLITS)} or all.")
        found = [e for e in self.entries if split in ("all", e.split)]
        if not found:
            raise UserError(
                f"no head of {self.folder} is in the split {split}; run brainlandmarks dataset "
                "split, or choose another one."
            )
        return found

    def read(self, entry: Entry) -> Sample:
        """What an entry holds.

        Raises:
            UserError: a file of the dataset is missing or damaged.
        """
        volume = read_image(self.folder / entry.image)
        return Sample(entry, volume, self.read_landmarks(entry))

    def read_landmarks(self, entry: Entry, *, any_pose: bool = False) -> Review:
        """The landmarks of an entry, from .mrk.json, .csv or .fcsv, without its image.

        Args:
            any_pose: As for `read_review`.

        Raises:
            UserError: the file is missing or damaged.
        """
        return read_review(self.folder / entry.landmarks, self.protocol, any_pose=any_pose)[0]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Sample]:
        """Samples in the order in which they were added.

        Raises:
            UserError: a file of the dataset is missing or damaged.
        """
        return map(self.read, self.entries)

    def _with(self, entries: Iterable[Entry]) -> tuple[Entry, ...]:
        listed = {entry.identity: entry for entry in (*self.entries, *entries)}
        return tuple(listed.values())

    def _write_manifest(
        self, entries: tuple[Entry, ...], history: tuple[dict[str, Any], ...] | None = None
    ) -> None:
        kept = self.history if history is None else history
        data = {
            "version": VERSION,
            "protocol": {"name": self.protocol.name, "hash": self.protocol.hash},
            "entries": [asdict(entry) for entry in entries],
            "history": list(kept),
        }
        with atomic_write(self.folder / MANIFEST) as path:
            path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        self.entries, self.history = entries, kept


def need_empty(folder: str | os.PathLike[str]) -> None:
    """Check before any work that a dataset can be made in a folder, which may not exist yet.

    Raises:
        UserError: something is in the folder, or it cannot be written to.
    """
    path = Path(folder)
    need_writable(path)
    if (path / MANIFEST).exists():
        raise UserError(f"{path} is a dataset already; add to it, or choose a new folder.")
    if path.exists() and any(path.iterdir()):
        raise UserError(f"{path} is not empty and no dataset; choose a new folder for the dataset.")


def _write_image(path: Path, volume: Volume) -> None:
    import nibabel as nib

    image = nib.Nifti1Image(_compact(volume.data), volume.grid.affine)
    image.header.set_xyzt_units("mm")
    with atomic_write(path) as unfinished:
        nib.save(image, unfinished)


def _compact(data: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """The same values as int16 where that loses nothing: scanners count in whole numbers."""
    limits = np.iinfo(np.int16)
    if data.min() >= limits.min and data.max() <= limits.max:
        whole = data.astype(np.int16)
        if np.array_equal(whole, data):
            return whole
    return data


def store(
    folder: Path,
    identity: str,
    volume: Volume | None,
    review: Review,
    source: Mapping[str, Any] | None = None,
    **about: Any,
) -> Entry:
    """Write the files of one head, without listing them: `Dataset.register` does.

    Several processes may store into one folder at once, each under identities of its own.

    Args:
        folder: The dataset's folder.
        identity: Number of the entry, which names the files.
        volume: The image; None leaves the one that is there.
        review: Its landmarks with their record.
        source: What made the model's answer, plain JSON values.
        about: More fields of the entry: subject, split, origin.

    Raises:
        UserError: the disk is full or read-only.
    """
    image, landmarks = f"images/{identity}.nii.gz", f"landmarks/{identity}.mrk.json"
    for name in ("images", "landmarks"):
        try:
            (folder / name).mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror}.") from None
    if volume is not None:
        _write_image(folder / image, volume)
        about["image_sha256"] = file_sha256(folder / image)
    write_review(folder / landmarks, review, source)
    return Entry(
        identity,
        image,
        landmarks,
        datetime.now(timezone.utc).isoformat(timespec="seconds"),
        review.reviewer,
        "" if volume is None else image_hash(volume),
        landmarks_sha256=file_sha256(folder / landmarks),
        **about,
    )


def image_hash(volume: Volume) -> str:
    """What tells an image from others: a checksum of its voxels and their place."""
    voxels = np.ascontiguousarray(volume.data, dtype="<f4")
    affine = np.round(np.asarray(volume.grid.affine, "<f8"), 4)
    return sha256([voxels.tobytes(), affine.tobytes()])
