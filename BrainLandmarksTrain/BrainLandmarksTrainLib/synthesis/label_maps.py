"""Label-map files to training heads: read, annotate by rule, bring to the canonical pose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from BrainLandmarksLib.annotation import annotate
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.atomic import atomic_write
from BrainLandmarksLib.io.checksum import file_sha256
from BrainLandmarksLib.io.images import read_image, stem
from BrainLandmarksLib.io.landmarks import read_landmarks, write_landmarks
from BrainLandmarksLib.protocol import Protocol, load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

from .head import Head, make_head

if TYPE_CHECKING:
    from BrainLandmarksLib.network.model_files import ModelSpec

PROTOCOL = "brain88"
"""What the rules place."""


@dataclass(frozen=True)
class AnnotatedMap:
    """A label map and its landmarks."""

    name: str
    volume: Volume
    landmarks: LandmarkSet

    def head(self, mean_shape: np.ndarray, device: str = "cpu") -> Head:
        """The head ready for rendering, in the canonical pose of ``mean_shape``."""
        return make_head(
            self.name,
            self.volume.data,
            self.volume.grid.affine,
            self.landmarks.points,
            mean_shape,
            device,
        )


def find_label_maps(folders: Iterable[str | Path]) -> list[Path]:
    """Files named directly, and every NIfTI or MGZ file in the folders named, sorted.

    Raises:
        UserError: nothing is there, or two have one name, by which they are known from then on.
    """
    found: list[Path] = []
    for item in map(Path, folders):
        if item.is_dir():
            found += sorted(
                path for path in item.iterdir() if path.name.endswith((".nii", ".nii.gz", ".mgz"))
            )
        elif item.exists():
            found.append(item)
        else:
            raise UserError(f"there is no label map or folder {item}; check 'label_maps'.")
    if not found:
        raise UserError("no label maps (.nii, .nii.gz, .mgz) were found; check 'label_maps'.")
    names: dict[str, Path] = {}
    for path in found:
        other = names.setdefault(stem(path), path)
        if other.resolve() != path.resolve():
            raise UserError(
                f"{other} and {path} are both called {stem(path)}, and label maps are told apart "
                "by their names; give copies or links of them with different names."
            )
    return list(names.values())


def held_out_maps(
    spec: ModelSpec, label_maps: Sequence[Path], heads: Sequence[str] | None = None
) -> list[Path]:
    """Label maps of the heads that a model says were held out, or of those named.

    Raises:
        UserError: a head is not among the label maps, or none is named.
    """
    names = list(heads or spec.held_out.get("heads", ()))
    if not names:
        raise UserError("the model does not say which heads were held out; name them with --heads.")
    paths = {stem(path): path for path in find_label_maps(label_maps)}
    absent = [name for name in names if name not in paths]
    if absent:
        raise UserError(f"there is no label map {absent[0]} in --label-maps; choose with --heads.")
    return [paths[name] for name in names]


def read_annotated(paths: Sequence[Path], protocol: Protocol, cache: Path) -> list[AnnotatedMap]:
    """Read label maps and annotate them by rule; annotations are kept in ``cache``.

    An annotation already in ``cache`` (``<stem>.mrk.json``) is used as it is, so a person may
    correct it there; ``<stem>.map.sha256`` beside it says of which map it is.

    Raises:
        UserError: a map cannot be read or annotated, no rule places these landmarks, or the
            annotation is of another map.
    """
    if protocol.hash != load_protocol(PROTOCOL).hash:
        raise UserError(
            f"label maps are annotated by rule with the landmarks of {PROTOCOL}, and these are "
            f"those of {protocol.name}; leave the label maps out."
        )
    cache.mkdir(parents=True, exist_ok=True)
    heads = []
    for path in paths:
        volume = read_image(path)
        kept, origin = cache / f"{stem(path)}.mrk.json", cache / f"{stem(path)}.map.sha256"
        checksum = file_sha256(path)
        if kept.exists():
            if origin.exists() and origin.read_text(encoding="utf-8").strip() != checksum:
                raise UserError(
                    f"{kept} are the landmarks of another label map of this name; choose another "
                    "output folder."
                )
            # The head lies as the label map does.
            landmarks = read_landmarks(kept, protocol, any_pose=True)
        else:
            landmarks = annotate(volume)
            with atomic_write(origin) as unfinished:
                unfinished.write_text(checksum + "\n", encoding="utf-8")
            write_landmarks(kept, landmarks)
        heads.append(AnnotatedMap(stem(path), volume, landmarks))
    return heads
