"""What training the parcellation network is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from BrainLandmarksLib.errors import UserError, nearest
from BrainLandmarksLib.protocol.structures import MIDLINE, PAIRED
from BrainLandmarksTrainLib.engine.config import WHAT, RunConfig, need_multiples_of_four
from BrainLandmarksTrainLib.settings import setting

_STRUCTURES = (*PAIRED, *MIDLINE)


@dataclass(frozen=True)
class TransferConfig:
    """A published parcellation network that training starts from, its last layer replaced."""

    weights: str = setting(
        "", "Weights of a HighRes3DNet, .safetensors with the layers' names of this library or a "
        "PyTorch file with its layers in the same order; --weights overrides it."
    )  # fmt: skip
    labels: str = setting(
        "gif", "Label scheme of its classes, a name or a file. A new class starts from the mean of "
        "the classes that it is made of."
    )  # fmt: skip
    gain: float = setting(
        3.0, "Its intensities are ours times gain plus offset; folded into the first layer.",
        low=1e-6,
    )  # fmt: skip
    offset: float = setting(-2.1, "See gain: its intensity of air.")


@dataclass(frozen=True, kw_only=True)
class ParcellationConfig(RunConfig):
    """Settings of the training of the network that names structures.

    Raises:
        UserError: the settings give no end, a box that the network cannot take, or a structure that
            the library does not know.
    """

    voxel_mm: float = setting(1.6, "Side of the network's voxels in mm.", low=0.1)
    crop: tuple[int, int, int] = setting(
        (64, 64, 64), "Voxels of the boxes that are trained on; multiples of 4.", low=8
    )
    structures: tuple[str, ...] = setting(
        (*PAIRED, "third ventricle", "fourth ventricle", "brain stem", "pons", "corpus callosum"),
        "Structures with a class of their own, paired ones with one for each side; all else is "
        "background.",
    )
    class_weights: Mapping[str, float] | None = setting(
        None, "Weights of structures in the cross entropy; 1 for those not named."
    )
    segmentations: Mapping[str, str] | None = setting(
        None, "Label scheme to a folder of label maps of the dataset's scans, the most trusted "
        "first; --segmentations overrides it. null: rendered heads only."
    )  # fmt: skip
    images: str | None = setting(
        None, "Folder of the scans that the dataset was made of, if the label maps are called "
        "after these; by default they are called as the dataset's images (0001.nii.gz)."
    )  # fmt: skip
    scan_share: float = setting(
        0.65, "Share of the samples that are scans, if there are heads as well.", low=0, high=1
    )
    transfer: TransferConfig | None = setting(
        None, "A published network to start from. null: random weights, or those of the model to "
        "start from."
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        need_multiples_of_four("crop", *self.crop)
        for name in (*self.structures, *(self.class_weights or ())):
            if name not in _STRUCTURES:
                raise UserError(
                    f"{WHAT} 'parcellation' names the unknown structure {name!r}, did you mean "
                    f"{nearest(name, _STRUCTURES)!r}?"
                )
        if not self.structures or len(set(self.structures)) < len(self.structures):
            raise UserError(f"{WHAT} 'parcellation.structures' must name each structure once.")
        for name in self.class_weights or ():
            if name not in self.structures:
                raise UserError(
                    f"{WHAT} 'parcellation.class_weights' names {name!r}, which has no class."
                )

    def weights(self) -> tuple[float, ...]:
        """Weight of each class in the cross entropy, background first."""
        given = self.class_weights or {}
        each = [(given.get(name, 1.0),) * (1 + (name in PAIRED)) for name in self.structures]
        return (1.0, *(weight for pair in each for weight in pair))

    def below(self, base: Path) -> ParcellationConfig:
        """The same with paths that are relative to a folder.

        Raises:
            UserError: there are no weights to transfer.
        """
        transfer, maps = self.transfer, self.segmentations
        if transfer is not None:
            if not transfer.weights:
                raise UserError(
                    "the recipe lacks 'parcellation.transfer.weights'; add it to the file or give "
                    "--weights."
                )
            transfer = replace(transfer, weights=str(base / transfer.weights))
        return replace(
            self,
            transfer=transfer,
            segmentations=maps and {scheme: str(base / path) for scheme, path in maps.items()},
            images=self.images and str(base / self.images),
        )
