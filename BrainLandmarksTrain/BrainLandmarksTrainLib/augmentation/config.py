"""What augmentation may do and how often: the paper's policies and Table II, as data.

A fifth policy, DA5, makes abnormal anatomy; the paper leaves that to the future, and here it is off
until it is given a probability.

The four policies, their probabilities and what belongs to the patient and to the machine are those
of section III-D and Table II. The paper prints no ranges; these are TorchIO's, the library that it
used, and where they differ the transform's own text says why.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksTrainLib.settings import from_values, read_settings, schema, setting, to_values

from .abnormal_side import (
    Abnormality,
    Atrophy,
    Cavity,
    Enhancement,
    Mass,
    MetalVoid,
    Ventricles,
    WhiteMatterLesions,
)
from .machine_side import BiasField, Blur, Ghosting, Motion, Noise, Spikes
from .patient_side import Affine, Anisotropy, Elastic
from .transform import Transform

WHAT = "augmentation setting"
SIDES = ("patient", "machine", "abnormal")
DEFAULTS_FILE = "paper.json"

_MOVING = ("elastic", "affine")
"""Transforms that carry the anatomy elsewhere; what abnormal ones move is near its place still."""


@dataclass(frozen=True)
class Policy:
    """One way to vary a scan: how often it is chosen, and what it does in order."""

    probability: float = setting(1.0, "How often the policy is chosen, 0 to 1.", low=0, high=1)
    apply: tuple[str, ...] = setting(
        (), "Steps in order: 'patient', 'machine' or 'abnormal' for one transform of that side at "
        "random, or the name of a transform.",
    )  # fmt: skip


def _paper_policies() -> dict[str, Policy]:
    return {
        "DA1": Policy(0.2, ("patient", "machine")),
        "DA2": Policy(0.25, ("machine",)),
        "DA3": Policy(0.25, ("patient",)),
        "DA4": Policy(0.3, ("elastic",)),
        "DA5": Policy(0.0, ("abnormal",)),
    }


@dataclass(frozen=True)
class AugmentationConfig:
    """Policies, transforms of the two sides, and the ranges of every transform.

    >>> config = AugmentationConfig()                              # the paper's
    >>> config = AugmentationConfig(affine=Affine(rotation_deg=(-5, 5)))
    >>> config = load_augmentation("gentle.yaml")

    Raises:
        UserError: a policy names what does not exist, or abnormal anatomy after what moves the
            head, or the probabilities do not add up to 1.
    """

    policies: Mapping[str, Policy] = setting(
        _paper_policies(), "The policies by name; their probabilities add up to 1."
    )
    patient: tuple[str, ...] = setting(
        ("elastic", "affine", "anisotropy"), "Transforms of the patient side."
    )
    machine: tuple[str, ...] = setting(
        ("ghosting", "spikes", "bias_field", "noise", "motion", "blur"),
        "Transforms of the machine side.",
    )
    abnormal: tuple[str, ...] = setting(
        (
            "ventricles", "atrophy", "mass", "cavity", "white_matter_lesions", "void",
            "enhancement",
        ),
        "Transforms that make abnormal anatomy.",
    )  # fmt: skip
    elastic: Elastic = setting(Elastic(), "Another anatomy.")
    affine: Affine = setting(Affine(), "Another size and pose.")
    anisotropy: Anisotropy = setting(Anisotropy(), "Thick slices.")
    ghosting: Ghosting = setting(Ghosting(), "Ghosts along the phase-encoding direction.")
    spikes: Spikes = setting(Spikes(), "Stripes from single wrong points of k-space.")
    bias_field: BiasField = setting(BiasField(), "Shading by the coils.")
    noise: Noise = setting(Noise(), "Thermal noise.")
    motion: Motion = setting(Motion(), "The patient moves during the scan.")
    blur: Blur = setting(Blur(), "Fine detail is missing.")
    ventricles: Ventricles = setting(Ventricles(), "Enlarged ventricles.")
    atrophy: Atrophy = setting(Atrophy(), "The brain has shrunk.")
    mass: Mass = setting(Mass(), "A space-occupying lesion.")
    cavity: Cavity = setting(Cavity(), "A resection cavity.")
    white_matter_lesions: WhiteMatterLesions = setting(
        WhiteMatterLesions(), "Spots in the white matter."
    )
    void: MetalVoid = setting(MetalVoid(), "No signal beside metal.")
    enhancement: Enhancement = setting(Enhancement(), "Contrast agent in vessels and dura.")

    def __post_init__(self) -> None:
        for side in SIDES:
            names = getattr(self, side)
            if not names:
                raise UserError(f"{WHAT} {side!r} names no transform; give at least one.")
            for name in names:
                _check_name(name, side, TRANSFORMS)
        for name, policy in self.policies.items():
            where = f"policies.{name}.apply"
            if not policy.apply:
                raise UserError(f"{WHAT} {where!r} names no step; give at least one.")
            for step in policy.apply:
                _check_name(step, where, (*SIDES, *TRANSFORMS))
            self._check_order(policy.apply, where)
        total = math.fsum(policy.probability for policy in self.policies.values())
        if abs(total - 1) > 1e-6:
            raise UserError(
                f"the probabilities of the policies add up to {total:g}; they must add up to 1."
            )

    def _check_order(self, steps: tuple[str, ...], where: str) -> None:
        """Check that abnormal anatomy comes first: the scan's own landmarks say where it belongs.

        Raises:
            UserError: the head has moved away from under it.
        """
        moved = ""
        for step in steps:
            names = getattr(self, step) if step in SIDES else (step,)
            if moved and any(issubclass(TRANSFORMS[name], Abnormality) for name in names):
                raise UserError(
                    f"{WHAT} {where!r} names {step!r} after {moved!r}, which moves the head; put "
                    f"{step!r} first."
                )
            if any(name in _MOVING for name in names):
                moved = step

    def transform(self, name: str) -> Transform:
        """The ranges of a transform by its name, such as "affine"."""
        found = getattr(self, name)
        assert isinstance(found, Transform)
        return found

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain JSON values."""
        return to_values(self)

    def at_voxels(self, spacing_mm: float) -> AugmentationConfig | None:
        """What remains of the policies on voxels of a size: slices thinner than they do nothing.

        Returns:
            The settings without what cannot be seen; None if that is everything.
        """
        if self.anisotropy.visible(spacing_mm):
            return self
        kept = {side: tuple(n for n in getattr(self, side) if n != "anisotropy") for side in SIDES}
        gone = {"anisotropy", *(side for side, names in kept.items() if not names)}
        steps = {
            name: tuple(step for step in policy.apply if step not in gone)
            for name, policy in self.policies.items()
        }
        total = math.fsum(p.probability for n, p in self.policies.items() if steps[n])
        if not total:
            return None
        policies = {
            name: Policy(policy.probability / total, steps[name])
            for name, policy in self.policies.items()
            if steps[name]
        }
        return replace(
            self,
            policies=policies,
            patient=kept["patient"] or self.patient,
            machine=kept["machine"] or self.machine,
            abnormal=kept["abnormal"] or self.abnormal,
        )


TRANSFORMS: dict[str, type[Transform]] = {
    "elastic": Elastic,
    "affine": Affine,
    "anisotropy": Anisotropy,
    "ghosting": Ghosting,
    "spikes": Spikes,
    "bias_field": BiasField,
    "noise": Noise,
    "motion": Motion,
    "blur": Blur,
    "ventricles": Ventricles,
    "atrophy": Atrophy,
    "mass": Mass,
    "cavity": Cavity,
    "white_matter_lesions": WhiteMatterLesions,
    "void": MetalVoid,
    "enhancement": Enhancement,
}
"""Transforms by the name that settings and records use."""


def load_augmentation(path: str | Path) -> AugmentationConfig:
    """Read a .json, .yaml or .yml file; what it leaves out is the paper's.

    Raises:
        UserError: the file is missing, cannot be parsed, or holds an unknown or wrong setting.
    """
    return augmentation_from_dict(read_settings(path, "augmentation settings"))


def augmentation_from_dict(values: Mapping[str, Any]) -> AugmentationConfig:
    """Build the settings from plain values.

    Raises:
        UserError: an unknown setting (the message names the nearest known one) or a wrong value.
    """
    given = {name: value for name, value in values.items() if name != "$schema"}
    return from_values(AugmentationConfig, given, WHAT)


def augmentation_schema() -> dict[str, Any]:
    """JSON schema of an augmentation file (``brainlandmarks augment --schema``)."""
    return schema(AugmentationConfig, "Augmentation settings")


def published_defaults() -> dict[str, Any]:
    """Content of ``paper.json``: the defaults, to copy and change."""
    return AugmentationConfig().to_dict()


def file(name: str) -> Path:
    """A file that comes with this package."""
    return Path(str(resources.files(__package__))) / name


def markdown() -> str:
    """The default policies and ranges as two tables."""
    config = AugmentationConfig()
    policies = []
    for name, policy in config.policies.items():
        steps = [
            f"one of the {s} side" if s in SIDES else TRANSFORMS[s].title for s in policy.apply
        ]
        policies.append((name, f"{policy.probability:g}", ", then ".join(steps)))
    ranges = []
    for side in SIDES:
        for name in getattr(config, side):
            transform = config.transform(name)
            for field in fields(transform):  # type: ignore[arg-type]
                value = getattr(transform, field.name)
                text = " to ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else value
                key = f"`{name}.{field.name}`"
                ranges.append((side, transform.title, key, str(text), field.metadata["text"]))
    header = ("side", "transform", "setting", "default", "meaning")
    return "\n\n".join(
        (
            Table(("policy", "p", "what it does"), policies).markdown(),
            Table(header, ranges).markdown(),
        )
    )


def _check_name(name: str, where: str, known: Any) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise UserError(f"{WHAT} {where!r} names {name!r}; did you mean {near[0]!r}?")
