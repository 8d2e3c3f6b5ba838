"""Trained models on disk: a folder of networks and one JSON file that says what they are.

::

    brain88/
      model.json            name, protocol and its hash, networks, mean shape, calibration, errors
      weights.safetensors   the fine network, which places the landmarks
      locator.safetensors   the locator, which finds the head and its pose
      refinement.safetensors    the refinement network, which works on small boxes; optional
      parcellation.safetensors  the parcellation network, which names structures; optional
      correction.safetensors    what annotated scans taught about the points; optional
      protocol.json         only when the landmark protocol does not ship with the library

Weights are safetensors, a format that holds numbers and nothing that runs; they are stored in half
precision where that keeps them, and are float32 once loaded. Nothing is believed unchecked: a model
whose files do not fit together is refused with one sentence.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from BrainLandmarksLib import resources
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.correction import Correction, read_correction, write_correction
from BrainLandmarksLib.geometry.shape_model import ShapeModel, read_shape, write_shape
from BrainLandmarksLib.io.checksum import sha256
from BrainLandmarksLib.json_file import read_json
from BrainLandmarksLib.network import PARCELLATION
from BrainLandmarksLib.protocol import Protocol, is_shipped, load_protocol

if TYPE_CHECKING:
    from torch import Tensor

    from BrainLandmarksLib.network.decoding import Calibration
    from BrainLandmarksLib.network.highres3dnet import HighRes3DNet

FORMAT = 1
"""Version of model.json that this library reads and writes."""

SPEC_FILE = "model.json"
PROTOCOL_FILE = "protocol.json"
WEIGHT_FILES = {
    "fine": "weights.safetensors",
    "locator": "locator.safetensors",
    "refinement": "refinement.safetensors",
    PARCELLATION: "parcellation.safetensors",
}
OPTIONAL_NETWORKS = ("refinement", PARCELLATION)
_FORMERLY = {"refinement": "detail", "inverse_temperature": "sharpness"}
"""Names of today to those in models made before December 2026, which are still read."""
SHAPE_FILE = "shape.safetensors"
CORRECTION_FILE = "correction.safetensors"
REAL_SCANS = "real_scans"
"""Key of `ModelSpec.held_out`: the errors on scans of people, where they were measured."""
_HALF_PRECISION_ERROR = 1e-3
"""Relative error up to which a tensor is stored in half precision."""
NORMALISATION = "foreground 99th percentile = 1, clipped to [0, 1.5]"


@dataclass(frozen=True)
class CropSpec:
    """The cube that one of the networks takes."""

    size: int
    """Voxels along each side, N."""
    field_of_view_mm: float
    """Side of the cube in mm."""

    @property
    def voxel_mm(self) -> float:
        """Side of a voxel in mm."""
        return self.field_of_view_mm / self.size


@dataclass(frozen=True)
class ParcellationSpec:
    """What the parcellation network takes and gives."""

    voxel_mm: float
    """Side of its voxels in mm; it takes boxes of any size in the head's canonical pose."""
    structures: tuple[int, ...]
    """The structure of each of its classes, in the library's numbers; first 0, the background."""


@dataclass(frozen=True)
class ModelSpec:
    """What ``model.json`` says, besides the protocol and the networks' inner sizes."""

    name: str
    fine: CropSpec
    locator: CropSpec
    mean_shape: np.ndarray
    """``(K, 3)`` mean landmark positions, RAS mm, relative to their head's centre."""
    calibration: Calibration | None = None
    """Turns a heatmap feature into a confidence; None when it was never fitted."""
    normalisation: str = NORMALISATION
    training: Mapping[str, Any] = field(default_factory=dict)
    """Summary of the training: heads, steps, hours, machine."""
    held_out: Mapping[str, Any] = field(default_factory=dict)
    """Error table on heads that training never saw."""
    command: str = ""
    """The command that made the model."""
    refinement: CropSpec | None = None
    """A box of the refinement network, where there is one."""
    inverse_temperature: float = 1.0
    """The fine network's points are read from the softmax of its logits times this.

    Where a heatmap loss has made the heatmaps peaks, more than 1 lets faint mass far from them
    count less; a network that has learnt from coordinates alone knows only the plain mean.
    """
    parcellation: ParcellationSpec | None = None
    """The parcellation network's voxels and classes, where there is one."""


@dataclass(frozen=True)
class Model:
    """A trained model: what it finds, and the networks that find it.

    >>> model = load_model("brain88")
    >>> len(model.protocol), model.spec.fine.size
    (88, 64)

    The networks are in eval mode, in float32, on the CPU.
    """

    protocol: Protocol
    network: HighRes3DNet
    """The fine network."""
    locator: HighRes3DNet
    spec: ModelSpec
    shape: ShapeModel | None = None
    """How the landmarks vary together over heads; None for a model made without it."""
    refinement: HighRes3DNet | None = None
    """The refinement network, which sees small boxes in finer voxels."""
    correction: Correction | None = None
    """What annotated scans taught about the points of the networks; None before any."""
    parcellation: HighRes3DNet | None = None
    """The parcellation network: one class for each of ``spec.parcellation.structures``."""

    @property
    def networks(self) -> dict[str, tuple[HighRes3DNet, CropSpec]]:
        """Every heatmap network that there is, by its name, and the cube that it takes."""
        parts = {
            "fine": (self.network, self.spec.fine),
            "locator": (self.locator, self.spec.locator),
        }
        if self.refinement is not None and self.spec.refinement is not None:
            parts["refinement"] = (self.refinement, self.spec.refinement)
        return parts


@dataclass(frozen=True)
class ModelSummary:
    """One line of the list of models."""

    name: str
    protocol: str
    landmarks: int
    size: int
    held_out: Mapping[str, Any]
    folder: Path
    protocol_hash: str
    networks: Mapping[str, Mapping[str, Any]]
    """What ``model.json`` says of "fine", "locator" and perhaps "refinement", "parcellation"."""

    @property
    def key(self) -> str:
        """What `load_model` takes: the name of a model that ships, the folder of another."""
        shipped = self.name in resources.model_names()
        return (
            self.name
            if shipped and resources.model_folder(self.name) == self.folder
            else str(self.folder)
        )


def list_models() -> list[ModelSummary]:
    """The models that come with the library, by name; reads no weights and is quick.

    Raises:
        UserError: a model.json is damaged.
    """
    return [summarise(name) for name in resources.model_names()]


def summarise(name_or_path: str | os.PathLike[str]) -> ModelSummary:
    """What a model is, without its weights and without PyTorch.

    Raises:
        UserError: there is no such model, or its model.json is damaged.
    """
    folder = _find(name_or_path)
    data = _read_json(folder)
    return ModelSummary(
        name=_get(data, folder, "name", str),
        protocol=_get(data, folder, "protocol.name", str),
        landmarks=_get(data, folder, "protocol.landmarks", int),
        size=_get(data, folder, "networks.fine.size", int),
        held_out=data.get("held_out", {}),
        folder=folder,
        protocol_hash=_get(data, folder, "protocol.hash", str),
        networks={part: _get(data, folder, f"networks.{part}", dict) for part in _parts(data)},
    )


def load_model(name_or_path: str | os.PathLike[str], protocol: Protocol | None = None) -> Model:
    """Load a shipped model by name, or any model from its folder.

    Args:
        name_or_path: "brain88", or a folder that :func:`save_model` wrote.
        protocol: the landmark protocol the caller wants; the model must have been trained for
            exactly this one. By default it is the one the model names.

    Raises:
        UserError: there is no such model, a file of it is missing or damaged, or its weights,
            protocol and sizes do not fit together.
    """
    folder = _find(name_or_path)
    data = _read_json(folder)
    version = data.get("format")
    if version != FORMAT:
        raise UserError(
            f"model {folder.name} has format {version!r} and this library reads {FORMAT}; "
            "install a matching version of BrainLandmarks."
        )
    matched = _match_protocol(data, folder, protocol)
    networks = {}
    crops = {}
    for part in _parts(data):
        if part == PARCELLATION:
            continue
        size = _get(data, folder, f"networks.{part}.size", int)
        side = float(_get(data, folder, f"networks.{part}.field_of_view_mm", (int, float)))
        if size < 8 or not (math.isfinite(side) and side > 0):
            raise _damaged(folder, f"networks.{part} has an impossible size")
        crops[part] = CropSpec(size, side)
        architecture = _get(data, folder, f"networks.{part}.architecture", dict)
        networks[part] = _load_network(folder, part, architecture, len(matched))
    parcellation, parcellation_spec = _load_parcellation(data, folder)
    return Model(
        matched,
        networks["fine"],
        networks["locator"],
        ModelSpec(
            name=_get(data, folder, "name", str),
            fine=crops["fine"],
            locator=crops["locator"],
            mean_shape=_mean_shape(data, folder, len(matched)),
            calibration=_calibration(data, folder),
            normalisation=_get(data, folder, "normalisation", str),
            training=_get(data, folder, "training", dict),
            held_out=_get(data, folder, "held_out", dict),
            command=_get(data, folder, "command", str),
            refinement=crops.get("refinement"),
            inverse_temperature=_inverse_temperature(data, folder),
            parcellation=parcellation_spec,
        ),
        load_shape(folder, len(matched)),
        networks.get("refinement"),
        load_correction(folder, len(matched)),
        parcellation,
    )


def load_shape(name_or_path: str | os.PathLike[str], landmarks: int) -> ShapeModel | None:
    """The shape model of a model, without loading its networks; None if it has none.

    Args:
        landmarks: How many the protocol has.

    Raises:
        UserError: there is no such model, or its shape model is damaged.
    """
    folder = _find(name_or_path)
    path = folder / SHAPE_FILE
    if not path.exists():
        return None
    shape = read_shape(path)
    if len(shape.mean) != landmarks:
        raise _damaged(folder, f"{SHAPE_FILE} has {len(shape.mean)} landmarks, not {landmarks}")
    return shape


def load_correction(name_or_path: str | os.PathLike[str], landmarks: int) -> Correction | None:
    """What annotated scans taught about a model's points, without its networks; None if nothing.

    Args:
        landmarks: How many the protocol has.

    Raises:
        UserError: there is no such model, or its file is damaged.
    """
    folder = _find(name_or_path)
    path = folder / CORRECTION_FILE
    if not path.exists():
        return None
    correction = read_correction(path)
    count = len(correction.shape.mean)
    if count != landmarks:
        raise _damaged(folder, f"{CORRECTION_FILE} has {count} landmarks, not {landmarks}")
    return correction


def usual_confidence(name_or_path: str | os.PathLike[str]) -> tuple[float, float] | None:
    """The error in mm within which a confidence counts as right, and what it usually is.

    None for a model without a calibration. PyTorch is not needed.

    Raises:
        UserError: there is no such model, or its model.json is damaged.
    """
    folder = _find(name_or_path)
    data = _read_json(folder).get("calibration")
    if data is None:
        return None
    # The knots of a calibration are quantiles of what it was fitted on.
    main = data.get("agreement") or data
    usual = np.median(_get(main, folder, "probabilities", list))
    return float(_get(main, folder, "threshold_mm", (int, float))), float(usual)


def model_weights(name_or_path: str | os.PathLike[str]) -> dict[str, Path]:
    """Weight file of each network, of a shipped model or of a folder.

    Raises:
        UserError: there is no such model, or its model.json is damaged.
    """
    folder = _find(name_or_path)
    return {part: _weight_file(folder, part) for part in _parts(_read_json(folder))}


def model_identity(name_or_path: str | os.PathLike[str]) -> tuple[str, str]:
    """Name of a model, and a checksum over the bytes of all its files.

    Raises:
        UserError: there is no such model, or a file of it is missing.
    """
    folder = _find(name_or_path)
    parts: list[str | Path] = []
    files = [path.name for path in model_weights(folder).values()]
    optional = (SHAPE_FILE, CORRECTION_FILE, PROTOCOL_FILE)
    for name in (SPEC_FILE, *files, *optional):
        path = folder / name
        if name in optional and not path.exists():
            continue
        if not os.access(path, os.R_OK):
            raise _damaged(folder, f"{name} cannot be read")
        parts += [f"{name} {path.stat().st_size}\n", path]
    return _get(_read_json(folder), folder, "name", str), sha256(parts)


def model_protocol(name_or_path: str | os.PathLike[str]) -> Protocol:
    """The landmarks that a model finds, without loading its networks.

    Raises:
        UserError: there is no such model, or its protocol is missing or another one.
    """
    folder = _find(name_or_path)
    return _match_protocol(_read_json(folder), folder, None)


def save_model(model: Model, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a model folder; it appears whole or not at all.

    Args:
        model: the model; its networks may be on any device.
        folder: the folder to make.
        overwrite: replace a model that is there already.

    Raises:
        UserError: the folder exists and ``overwrite`` is off or it holds no model, or it cannot be
            written.
        ValueError: the parts of the model contradict each other.
    """
    target = Path(folder)
    data = _to_json(model)
    if target.exists() and not (overwrite and (target / SPEC_FILE).is_file()):
        raise UserError(f"{target} exists already; choose another folder or remove it first.")
    unfinished = target.with_name(f".{os.getpid()}.{target.name}")
    replaced = target.with_name(f".{os.getpid()}.{target.name}.old")
    try:
        unfinished.mkdir(parents=True)
        _write_parts(model, data, unfinished)
        if target.exists():
            os.replace(target, replaced)
        os.replace(unfinished, target)
    except OSError as error:
        with suppress(OSError):
            if replaced.exists() and not target.exists():
                os.replace(replaced, target)
        raise UserError(
            f"cannot write model {target}: {error.strerror or type(error).__name__}; "
            "choose a folder you can write to."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
    return target


def _to_json(model: Model) -> dict[str, Any]:
    spec, protocol = model.spec, model.protocol
    if spec.mean_shape.shape != (len(protocol), 3):
        raise ValueError(f"mean shape must be ({len(protocol)}, 3), got {spec.mean_shape.shape}")
    networks = {}
    for part, (network, crop) in model.networks.items():
        if network.out_channels != len(protocol):
            raise ValueError(
                f"the {part} network has {network.out_channels} heatmaps "
                f"for {len(protocol)} landmarks"
            )
        networks[part] = {
            "size": crop.size,
            "field_of_view_mm": crop.field_of_view_mm,
            "architecture": network.spec(),
        }
    if model.parcellation is not None or spec.parcellation is not None:
        networks[PARCELLATION] = _parcellation_to_json(model.parcellation, spec.parcellation)
    return {
        "format": FORMAT,
        "name": spec.name,
        "protocol": {
            "name": protocol.name,
            "hash": protocol.hash,
            "landmarks": len(protocol),
        },
        "networks": networks,
        "inverse_temperature": spec.inverse_temperature,
        "normalisation": spec.normalisation,
        "training": dict(spec.training),
        "held_out": dict(spec.held_out),
        "command": spec.command,
        "calibration": spec.calibration.to_dict() if spec.calibration else None,
        "mean_shape": [[round(float(x), 3) for x in p] for p in spec.mean_shape],
    }


def _parcellation_to_json(
    network: HighRes3DNet | None, spec: ParcellationSpec | None
) -> dict[str, Any]:
    if network is None or spec is None:
        raise ValueError("a parcellation network and what it takes and gives come together")
    if network.out_channels != len(spec.structures):
        raise ValueError(
            f"the parcellation network has {network.out_channels} classes "
            f"for {len(spec.structures)} structures"
        )
    return {
        "voxel_mm": spec.voxel_mm,
        "structures": list(spec.structures),
        "architecture": network.spec(),
    }


def _write_parts(model: Model, data: dict[str, Any], folder: Path) -> None:
    from safetensors.torch import save_file

    text = json.dumps(data, indent=1, allow_nan=False)
    (folder / SPEC_FILE).write_text(text + "\n", encoding="utf-8")
    networks = {part: network for part, (network, _) in model.networks.items()}
    if model.parcellation is not None:
        networks[PARCELLATION] = model.parcellation
    for part, network in networks.items():
        tensors = {name: _stored(tensor) for name, tensor in _weights_of(network).items()}
        save_file(tensors, folder / WEIGHT_FILES[part])
    if model.shape is not None:
        write_shape(folder / SHAPE_FILE, model.shape)
    if model.correction is not None:
        write_correction(folder / CORRECTION_FILE, model.correction)
    # safetensors lets only the owner read its files, but a model is for everyone who may read that
    # folder.
    mode = (folder / SPEC_FILE).stat().st_mode
    for file in folder.glob("*.safetensors"):
        file.chmod(stat.S_IMODE(mode))
    if not is_shipped(model.protocol):
        (folder / PROTOCOL_FILE).write_text(model.protocol.to_json(), encoding="utf-8")


def _weights_of(network: HighRes3DNet) -> dict[str, Tensor]:
    """The numbers that matter: not the step counters of batch norm."""
    return {k: v for k, v in network.state_dict().items() if v.dtype.is_floating_point}


def _stored(tensor: Tensor) -> Tensor:
    """A tensor as it is written: in half precision, where that keeps it, else as it is.

    A kernel is kept if it hardly changes as a whole; it is a sum that it is used in. Of vectors
    (biases, means and variances of batch norm) every number has to survive: a variance that
    becomes 0 or infinite ruins its feature.
    """
    tensor = tensor.detach().cpu().contiguous()
    exact = tensor.double()
    error = (exact - tensor.half().double()).abs()
    size = exact.abs()
    if tensor.ndim > 1:
        error, size = error.norm(), size.norm()
    return tensor.half() if bool((error <= _HALF_PRECISION_ERROR * size).all()) else tensor


def _parts(data: Mapping[str, Any]) -> list[str]:
    """Names of the networks that model.json has, or should have."""
    there = data.get("networks")
    return [
        part
        for part in WEIGHT_FILES
        if part not in OPTIONAL_NETWORKS or (isinstance(there, dict) and part in there)
    ]


def _find(name_or_path: str | os.PathLike[str]) -> Path:
    text = os.fspath(name_or_path)
    if text in resources.model_names():
        return resources.model_folder(text)
    folder = Path(text)
    if folder.is_dir():
        if not (folder / SPEC_FILE).is_file():
            raise UserError(
                f"{folder} is not a model: it has no {SPEC_FILE}; give the folder of a model."
            )
        return folder
    shipped = ", ".join(resources.model_names()) or "none"
    raise UserError(
        f"there is no model {text!r}; give the folder of a model or one that is installed "
        f"({shipped})."
    )


def _damaged(folder: Path, what: str) -> UserError:
    return UserError(f"model {folder.name} is damaged: {what}; install or train it again.")


def _read_json(folder: Path) -> dict[str, Any]:
    try:
        data = read_json(folder / SPEC_FILE, "the model file")
    except UserError:
        raise _damaged(folder, f"{SPEC_FILE} cannot be read") from None
    if not isinstance(data, dict):
        raise _damaged(folder, f"{SPEC_FILE} is not a JSON object")
    for group in (data, data.get("networks")):
        for name, former in _FORMERLY.items():
            if isinstance(group, dict) and former in group:
                group.setdefault(name, group.pop(former))
    return data


def _weight_file(folder: Path, part: str) -> Path:
    """Where a network's weights lie, or should lie."""
    former = folder / f"{_FORMERLY.get(part, part)}.safetensors"
    file = folder / WEIGHT_FILES[part]
    return former if former.exists() and not file.exists() else file


def _get(data: Any, folder: Path, path: str, kind: type | tuple[type, ...]) -> Any:
    """The value at a dotted path of model.json, of the right type."""
    for key in path.split("."):
        if not isinstance(data, dict) or key not in data:
            raise _damaged(folder, f"{SPEC_FILE} lacks {path}")
        data = data[key]
    if not isinstance(data, kind) or isinstance(data, bool):
        raise _damaged(folder, f"{path} in {SPEC_FILE} has the wrong type")
    return data


def _match_protocol(data: dict[str, Any], folder: Path, wanted: Protocol | None) -> Protocol:
    name = _get(data, folder, "protocol.name", str)
    count = _get(data, folder, "protocol.landmarks", int)
    trained_for = _get(data, folder, "protocol.hash", str)
    own = folder / PROTOCOL_FILE
    if wanted is not None:
        protocol = wanted
    elif own.is_file():
        protocol = load_protocol(own)
    elif name in resources.protocol_names():
        protocol = load_protocol(name)
    else:
        raise _damaged(folder, f"its landmark protocol {name!r} comes neither with it nor with us")
    if protocol.name != name or len(protocol) != count:
        raise UserError(
            f"model {folder.name} was trained for protocol {name!r} ({count} landmarks), not for "
            f"{protocol.name!r} ({len(protocol)}); choose a model of your protocol."
        )
    if protocol.hash != trained_for:
        raise UserError(
            f"model {folder.name} was trained for another version of protocol {name!r}; "
            "use the protocol it was trained for or train it again."
        )
    return protocol


def _mean_shape(data: dict[str, Any], folder: Path, count: int) -> np.ndarray:
    rows = _get(data, folder, "mean_shape", list)
    try:
        shape = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError):
        shape = np.empty(0)
    if shape.shape != (count, 3) or not np.isfinite(shape).all():
        raise _damaged(folder, f"its mean shape is not {count} points of three numbers")
    return shape


def _inverse_temperature(data: dict[str, Any], folder: Path) -> float:
    if "inverse_temperature" not in data:
        return 1.0
    value = float(_get(data, folder, "inverse_temperature", (int, float)))
    if not (math.isfinite(value) and value > 0):
        raise _damaged(folder, "its inverse temperature is not above zero")
    return value


def _calibration(data: dict[str, Any], folder: Path) -> Calibration | None:
    if data.get("calibration") is None:
        return None
    from BrainLandmarksLib.network.decoding import Calibration

    try:
        return Calibration.from_dict(_get(data, folder, "calibration", dict))
    except ValueError as error:
        raise _damaged(folder, str(error)) from None


def _load_network(
    folder: Path, part: str, architecture: dict[str, Any], count: int
) -> HighRes3DNet:
    network = _built(folder, part, architecture)
    if network.out_channels != count:
        raise UserError(
            f"the {part} network of model {folder.name} finds {network.out_channels} landmarks "
            f"but its protocol has {count}; choose a model of your protocol."
        )
    return _with_weights(network, folder, part)


def _load_parcellation(
    data: dict[str, Any], folder: Path
) -> tuple[HighRes3DNet | None, ParcellationSpec | None]:
    if PARCELLATION not in _parts(data):
        return None, None
    place = f"networks.{PARCELLATION}"
    voxel = float(_get(data, folder, f"{place}.voxel_mm", (int, float)))
    structures = _get(data, folder, f"{place}.structures", list)
    if not (math.isfinite(voxel) and voxel > 0):
        raise _damaged(folder, f"{place}.voxel_mm is not above zero")
    whole = all(type(number) is int and number >= 0 for number in structures)
    if not whole or structures[:1] != [0] or len(set(structures)) != len(structures):
        raise _damaged(
            folder, f"{place}.structures is not a list of different whole numbers, the first 0"
        )
    architecture = _get(data, folder, f"{place}.architecture", dict)
    network = _built(folder, PARCELLATION, architecture)
    if network.out_channels != len(structures):
        raise _damaged(
            folder,
            f"its parcellation network has {network.out_channels} classes "
            f"for {len(structures)} structures",
        )
    if network.attention != "none":
        # Boxes are passed in tiles, and what a tile holds would decide how its features weigh.
        raise _damaged(folder, "its parcellation network has attention, which no box in tiles can")
    network = _with_weights(network, folder, PARCELLATION)
    return network, ParcellationSpec(voxel, tuple(structures))


def _built(folder: Path, part: str, architecture: dict[str, Any]) -> HighRes3DNet:
    from BrainLandmarksLib.network.highres3dnet import HighRes3DNet

    try:
        return HighRes3DNet(**architecture)
    except (TypeError, ValueError, RuntimeError):
        raise _damaged(folder, f"networks.{part}.architecture describes no network") from None


def _with_weights(network: HighRes3DNet, folder: Path, part: str) -> HighRes3DNet:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = _weight_file(folder, part)
    file = path.name
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise _damaged(folder, f"{file} is missing") from None
    except (OSError, SafetensorError):
        raise _damaged(folder, f"{file} is truncated or not a safetensors file") from None
    expected = _weights_of(network)
    for kind, names in (
        ("lacks", expected.keys() - weights.keys()),
        ("has the unknown", weights.keys() - expected.keys()),
    ):
        if names:
            raise _damaged(folder, f"{file} {kind} tensor {min(names)}")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise _damaged(
                folder,
                f"tensor {name} in {file} is {tuple(tensor.shape)} instead of "
                f"{tuple(expected[name].shape)}",
            )
        if not torch.isfinite(tensor).all():
            raise _damaged(folder, f"tensor {name} in {file} is not finite")
    network.load_state_dict(weights, strict=False)
    return network.eval().requires_grad_(False)
