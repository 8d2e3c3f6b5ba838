"""What was done to a scan: enough to do it again, bit for bit."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from BrainLandmarksLib.errors import UserError
from BrainLandmarksTrainLib.versions import installed_versions

from .config import TRANSFORMS
from .transform import Parameters

VERSION = 1
"""Version of the record; a newer one is refused, not guessed at."""

_SOFTWARE = ("torchio", "SimpleITK", "torch", "numpy", "scipy")


@dataclass(frozen=True)
class Step:
    """One transform with the parameters that were drawn for it.

    The parameters are the arguments of TorchIO's transform of the kind, in its frame: RAS for the
    affine map and abnormal anatomy, ITK's LPS for the elastic deformation and for motion, voxel
    axes for the rest.
    """

    transform: str
    parameters: Parameters


@dataclass(frozen=True)
class Record:
    """How one augmented scan came about.

    >>> Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    True

    Args:
        seed: What everything was drawn from.
        policy: Name of the policy that was chosen.
        steps: What was applied, in order.
        outside: Labels of landmarks that were pushed out of the image and are missing now.
        folded: Labels of landmarks at which a deformation folds space; missing now.
        gone: Labels of landmarks whose tissue was replaced, by a lesion or a cavity; missing now.
        software: Versions that made it. Other versions may differ in the last bit.
    """

    seed: int
    policy: str
    steps: tuple[Step, ...]
    outside: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    software: Mapping[str, str] = field(default_factory=lambda: software(), compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "version": VERSION,
            "seed": self.seed,
            "policy": self.policy,
            "steps": [asdict(step) for step in self.steps],
            "outside": list(self.outside),
            "folded": list(self.folded),
            "gone": list(self.gone),
            "software": dict(self.software),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Record:
        """Read a record back.

        Raises:
            UserError: it is damaged or of a newer version.
        """
        try:
            if values["version"] > VERSION:
                raise UserError(
                    "the augmentation record was made by a newer BrainLandmarks; install that "
                    "version."
                )
            steps = tuple(Step(s["transform"], dict(s["parameters"])) for s in values["steps"])
            if not all(step.transform in TRANSFORMS for step in steps):
                raise KeyError("transform")
            return cls(
                int(values["seed"]),
                str(values["policy"]),
                steps,
                tuple(values["outside"]),
                tuple(values["folded"]),
                tuple(values.get("gone", ())),
                dict(values["software"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"the augmentation record is damaged: {error}.") from None


def software() -> dict[str, str]:
    """Versions of what decides about the last bit of a result."""
    return {"python": platform.python_version(), **installed_versions(_SOFTWARE)}
