"""What all variations share: ranges to draw from, drawn parameters, TorchIO's transform."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksTrainLib.settings import IntRange, Range

if TYPE_CHECKING:
    import torchio

    from .change import Change

Parameters = dict[str, Any]
"""Plain JSON values: everything that the transform needs to do the same again."""


class Transform(ABC):
    """One kind of variation; its fields are the ranges that it is drawn from.

    >>> parameters = Affine(rotation_deg=(-5, 5)).draw(rng, volume)
    >>> transform = Affine.build(parameters)     # a TorchIO transform without any chance in it
    """

    title: ClassVar[str]
    """What the paper's Table II calls it."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, volume: Volume) -> Parameters:
        """Draw parameters for one image.

        Raises:
            UserError: the ranges make no sense for this image.
        """

    @staticmethod
    @abstractmethod
    def build(parameters: Parameters) -> torchio.Transform | Change:
        """TorchIO's transform with these parameters, or our own where TorchIO has none.

        Raises:
            UserError: TorchIO is not installed.
        """

    @staticmethod
    def focus(parameters: Parameters) -> list[float] | None:
        """Where a picture should look, mm from the middle of the image; None for no place."""
        return None

    @staticmethod
    @abstractmethod
    def brief(parameters: Parameters) -> str:
        """The main parameters in one or two short lines, for pictures."""


def uniform(rng: np.random.Generator, between: Range) -> float:
    """One number, uniform between two."""
    return float(rng.uniform(*between))


def three(rng: np.random.Generator, between: Range) -> list[float]:
    """One number for each axis, independent of one another."""
    return [uniform(rng, between) for _ in range(3)]


def whole(rng: np.random.Generator, between: IntRange) -> int:
    """One whole number; both ends are possible."""
    return int(rng.integers(between[0], between[1], endpoint=True))


def tio() -> Any:
    """The module ``torchio``, imported when it is needed: it takes seconds.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module("torchio")
    except ImportError as error:
        if error.name != "torchio":
            raise
        raise UserError(
            "augmentation needs TorchIO: pip install 'brainlandmarks[train]'."
        ) from None
