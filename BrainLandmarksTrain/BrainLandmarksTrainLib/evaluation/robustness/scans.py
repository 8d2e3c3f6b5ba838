"""The scans that are made worse: held-out heads as good T1 scans, or those of a dataset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.checksum import sha256
from BrainLandmarksLib.io.images import stem
from BrainLandmarksLib.network.model_files import Model
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksTrainLib.evaluation.comparison import true_points
from BrainLandmarksTrainLib.synthesis.head import Head
from BrainLandmarksTrainLib.synthesis.label_maps import held_out_maps, read_annotated
from BrainLandmarksTrainLib.synthesis.rendering import UNSEEN_T1, render_scan
from BrainLandmarksTrainLib.synthesis.variation import Variation

GOOD_T1 = replace(UNSEEN_T1, rotation_deg=0.0, bias=0.1, noise=0.02, thick_share=0.0, cut_share=0.0)
"""What a held-out head is rendered as: upright, thin slices, nothing cut off, little noise."""


@dataclass(frozen=True)
class Rendering:
    """What a synthetic scan is rendered from, to render it once more with another look."""

    head: Head
    mirror: np.ndarray
    seed: tuple[int, ...]

    def scan(self, variation: Variation = GOOD_T1) -> tuple[Volume, np.ndarray]:
        """The scan and its (K, 3) true landmarks, RAS mm.

        Size, place, noise and shading are the same for every contrast, stripped or not.
        """
        return render_scan(self.head, self.mirror, np.random.default_rng(self.seed), variation)


@dataclass(frozen=True)
class Scan:
    """A scan with its true landmarks; those that are missing have no truth."""

    name: str
    volume: Volume
    truth: LandmarkSet
    rendering: Rendering | None = None
    """None for a scan that a scanner made."""


class Scans(ABC):
    """Scans by their number, made or read when they are asked for; travels between processes."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Their names."""

    @property
    @abstractmethod
    def rendered(self) -> bool:
        """Whether they come from label maps, so that their contrast can be chosen."""

    @property
    @abstractmethod
    def content(self) -> str:
        """Checksum of the scans and their landmarks, whatever they are called.

        Raises:
            UserError: one cannot be read.
        """

    @abstractmethod
    def read(self, number: int) -> Scan:
        """One of them.

        Raises:
            UserError: it cannot be read.
        """


@dataclass(frozen=True)
class HeldOutScans(Scans):
    """Good T1 scans of heads that exist as label maps.

    >>> scans = HeldOutScans.of(load_model("brain88"), [Path("maps")], cache=Path("annotations"))

    Args:
        paths: The label maps.
        protocol: Their landmarks.
        mean_shape: (K, 3) landmarks in the canonical pose, mm.
        cache: Where the landmarks by rule are kept (`heads.read_annotated`).
        scans_per_head: Each has a size, a place, and grey values of its own.
        seed: What they are drawn from.
    """

    paths: tuple[Path, ...]
    protocol: Protocol
    mean_shape: FloatArray
    cache: Path
    scans_per_head: int = 1
    seed: int = 0

    @classmethod
    def of(
        cls,
        model: Model,
        label_maps: Sequence[Path],
        cache: Path,
        heads: Sequence[str] | None = None,
        scans_per_head: int = 1,
        seed: int = 0,
    ) -> HeldOutScans:
        """Scans of the heads that a model says were held out, or of those named.

        Raises:
            UserError: a head is not among the label maps, or none is named.
        """
        paths = held_out_maps(model.spec, label_maps, heads)
        if scans_per_head < 1:
            raise UserError("a head needs one scan at least; check --scans-per-head.")
        read_annotated(paths, model.protocol, cache)
        return cls(tuple(paths), model.protocol, model.spec.mean_shape, cache, scans_per_head, seed)

    @property
    def names(self) -> tuple[str, ...]:
        """Head and number of the scan."""
        return tuple(
            f"{stem(path)} {n + 1}" for path in self.paths for n in range(self.scans_per_head)
        )

    @property
    def rendered(self) -> bool:
        """They are."""
        return True

    @property
    def content(self) -> str:
        """Of the label maps and their annotations."""
        return sha256(
            part for path in self.paths for part in (path, self.cache / f"{stem(path)}.mrk.json")
        )

    def read(self, number: int) -> Scan:
        """Render one of them."""
        path = self.paths[number // self.scans_per_head]
        (annotated,) = read_annotated([path], self.protocol, self.cache)
        head = annotated.head(self.mean_shape)
        rendering = Rendering(head, self.protocol.mirror_permutation(), (self.seed, number))
        volume, points = rendering.scan()
        truth = LandmarkSet.from_points(self.protocol, points, "truth")
        return Scan(self.names[number], volume, truth, rendering)


@dataclass(frozen=True)
class DatasetScans(Scans):
    """Scans of a dataset; points that only a model placed are no truth.

    >>> scans = DatasetScans(Path("oasis"), "test")
    """

    folder: Path
    split: str = "test"

    @cached_property
    def _dataset(self) -> Dataset:
        return Dataset.open(self.folder)

    def check(self, protocol: Protocol) -> None:
        """Check that the dataset has these landmarks.

        Raises:
            UserError: it has others, or the folder is no dataset.
        """
        if self._dataset.protocol.hash != protocol.hash:
            raise UserError(
                f"the model finds {protocol.name} and the dataset has "
                f"{self._dataset.protocol.name}; choose a model with --model."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Numbers of the heads in the dataset.

        Raises:
            UserError: the folder is no dataset, or there is no such split.
        """
        return tuple(entry.identity for entry in self._dataset.of_split(self.split))

    @property
    def rendered(self) -> bool:
        """They are not."""
        return False

    @property
    def content(self) -> str:
        """Of the images' voxels and the landmark files."""
        parts: list[str | Path] = []
        for entry in self._dataset.of_split(self.split):
            parts += [f"{entry.image_hash}\n", self._dataset.folder / entry.landmarks]
        return sha256(parts)

    def read(self, number: int) -> Scan:
        """Read one of them."""
        entry = self._dataset.of_split(self.split)[number]
        sample = self._dataset.read(entry)
        points, _ = true_points(sample.review.current)
        truth = LandmarkSet.from_points(self._dataset.protocol, points, "truth")
        return Scan(entry.identity, sample.volume, truth)
