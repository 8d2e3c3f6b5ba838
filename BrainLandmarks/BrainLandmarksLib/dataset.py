"""A folder of images with landmarks, to train on and to share: what "Add to dataset" writes.

::

    dataset/
      dataset.json          what is in it
      images/0001.nii.gz
      landmarks/0001.mrk.json

``dataset.json`` names the protocol and lists the entries; it is written last, so an entry is there
whole or not at all. Files are numbered, not named: a dataset holds no name of a patient, a volume
or a file it came from.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.files import whole_file
from BrainLandmarksLib.images import Volume, read_image
from BrainLandmarksLib.protocol import Protocol, load_protocol
from BrainLandmarksLib.review import Review, read_review, write_review

VERSION = 2
"""Version of ``dataset.json``; a newer one is refused, version 1 had no subjects, splits and
origins."""

MANIFEST = "dataset.json"


@dataclass(frozen=True)
class Entry:
    """One head: files relative to the dataset's folder, when it was added (UTC) and by whom.

    ``image_hash`` is the SHA-256 of voxels and geometry: the same head added again replaces its
    landmarks instead of making a twin.

    ``subject`` is a pseudonym, empty where every scan is a subject of its own; ``split`` is what
    the entry may be used for, such as "train", or empty; ``origin`` says what was done to the image
    before it was added, plain JSON values.
    """

    identity: str
    image: str
    landmarks: str
    added: str
    who: str
    image_hash: str
    subject: str = ""
    split: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)


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

    def __init__(self, folder: Path, protocol: Protocol, entries: tuple[Entry, ...]) -> None:
        self.folder = folder
        self.protocol = protocol
        self.entries = entries

    @classmethod
    def create(cls, folder: str | os.PathLike[str], protocol: Protocol) -> Dataset:
        """An empty dataset in a new or empty folder.

        Raises:
            UserError: something is in the folder already, or it cannot be written to.
        """
        path = Path(folder)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise UserError(
                    f"{path} is not empty and no dataset; choose a new folder for the dataset."
                )
        except OSError as error:
            raise UserError(
                f"cannot make {path}: {error.strerror}; choose another place."
            ) from None
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
        try:
            data = json.loads(manifest.read_text(encoding="utf-8"))
        except OSError:
            raise UserError(
                f"{path} is no dataset: it has no {MANIFEST}; check the path."
            ) from None
        except ValueError:
            raise UserError(f"{manifest} is damaged: it is not JSON.") from None
        try:
            if data["version"] > VERSION:
                raise UserError(
                    f"the dataset {path} was made by a newer BrainLandmarks; install that version."
                )
            wanted = protocol or load_protocol(data["protocol"]["name"])
            if data["protocol"]["hash"] != wanted.hash:
                raise UserError(
                    f"the dataset {path} has the landmarks of another definition of "
                    f"{data['protocol']['name']}; use the version of BrainLandmarks that made it."
                )
            entries = tuple(Entry(**entry) for entry in data["entries"])
        except (KeyError, TypeError) as error:
            raise UserError(f"{manifest} is damaged: {error}.") from None
        return cls(path, wanted, entries)

    @classmethod
    def open_or_create(cls, folder: str | os.PathLike[str], protocol: Protocol) -> Dataset:
        """The dataset in a folder, made if there is none.

        Raises:
            UserError: as `open` and `create`.
        """
        if (Path(folder) / MANIFEST).exists():
            return cls.open(folder, protocol)
        return cls.create(folder, protocol)

    def add(self, volume: Volume, review: Review, source: Mapping[str, Any] | None = None) -> Entry:
        """Add a head, or replace the landmarks of one that is there already.

        Args:
            volume: The image, as it is.
            review: Its landmarks with their record.
            source: What made the model's answer, plain JSON values.

        Raises:
            UserError: the landmarks are of another protocol, or the disk is full or read-only.
        """
        if review.protocol.hash != self.protocol.hash:
            raise UserError(f"the landmarks are not those of the dataset, {self.protocol.name}.")
        image_hash = _hash(volume)
        known = next((e for e in self.entries if e.image_hash == image_hash), None)
        number = 1 + max((int(e.identity) for e in self.entries), default=0)
        identity = known.identity if known else f"{number:04d}"
        # An image that is there already is not written again.
        entry = store(self.folder, identity, None if known else volume, review, source)
        if known:
            about = ("image_hash", "subject", "split", "origin")
            entry = replace(entry, **{name: getattr(known, name) for name in about})
        self.register(entry)
        return entry

    def register(self, *entries: Entry) -> None:
        """List entries whose files `store` has written; one takes the place of its namesake.

        Raises:
            UserError: the manifest cannot be written.
        """
        listed = {entry.identity: entry for entry in (*self.entries, *entries)}
        self._write_manifest(tuple(listed.values()))

    def read(self, entry: Entry) -> Sample:
        """What an entry holds.

        Raises:
            UserError: a file of the dataset is missing or damaged.
        """
        review, _ = read_review(self.folder / entry.landmarks, self.protocol)
        return Sample(entry, read_image(self.folder / entry.image), review)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Sample]:
        """Samples in the order in which they were added.

        Raises:
            UserError: a file of the dataset is missing or damaged.
        """
        return map(self.read, self.entries)

    def _write_manifest(self, entries: tuple[Entry, ...]) -> None:
        data = {
            "version": VERSION,
            "protocol": {"name": self.protocol.name, "hash": self.protocol.hash},
            "entries": [asdict(entry) for entry in entries],
        }
        with whole_file(self.folder / MANIFEST) as path:
            path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        self.entries = entries


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
    import nibabel as nib

    entry = Entry(
        identity,
        f"images/{identity}.nii.gz",
        f"landmarks/{identity}.mrk.json",
        datetime.now(timezone.utc).isoformat(timespec="seconds"),
        review.reviewer,
        "" if volume is None else _hash(volume),
        **about,
    )
    for name in ("images", "landmarks"):
        try:
            (folder / name).mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror}.") from None
    if volume is not None:
        image = nib.Nifti1Image(volume.data, volume.grid.affine)
        image.header.set_xyzt_units("mm")
        with whole_file(folder / entry.image) as path:
            nib.save(image, path)
    write_review(folder / entry.landmarks, review, source)
    return entry


def _hash(volume: Volume) -> str:
    digest = hashlib.sha256()
    digest.update(np.ascontiguousarray(volume.data, dtype="<f4").tobytes())
    digest.update(np.round(np.asarray(volume.grid.affine, "<f8"), 4).tobytes())
    return digest.hexdigest()
