"""Grad-CAM maps of a detection, in the space of the scan."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from BrainLandmarksLib.detection import Detection, Detector
from BrainLandmarksLib.errors import UserError, nearest
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.gradcam import TARGETS
from BrainLandmarksLib.gradcam.layers import LayerChain, NetworkProgress
from BrainLandmarksLib.gradcam.maps import Observation, observe
from BrainLandmarksLib.imaging.volume import ImageArray, Volume
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.network.model_files import Model
from BrainLandmarksLib.protocol import Protocol


@dataclass(frozen=True)
class Explanation:
    """What the network based the landmarks of one head on.

    >>> detection = detector.detect(read_image("head.nii.gz"))
    >>> explanation = explain(detector, detection)
    >>> explanation.map("CC_G").grid.spacing
    array([3.25, 3.25, 3.25])

    Maps lie on the cube that the network saw in its last pass, upright with the head; its affine
    says where that is in the world.
    """

    model: Model
    detection: Detection
    seen: Observation

    @property
    def protocol(self) -> Protocol:
        """The landmarks; a map's row is its landmark's index minus 1."""
        return self.model.protocol

    @property
    def grid(self) -> Grid:
        """Where the maps' voxels lie in the world, RAS millimetres."""
        return self.detection.input_cube.grid

    @property
    def read_at(self) -> FloatArray:
        """(K, 3) RAS millimetres: where each heatmap was read, R_c or the softmax's point."""
        return self.grid.ijk_to_ras(self.seen.points.double().cpu().numpy())

    def maps(self, rows: Sequence[int]) -> ImageArray:
        """Maps (n, N, N, N) of landmarks given by row, as the formula makes them: 0 or more."""
        return np.asarray(self.seen.maps(rows).float().cpu().numpy())

    def map(self, label: str) -> Volume:
        """The map of one landmark.

        Raises:
            UserError: there is no such landmark.
        """
        row = rows_of(self.protocol, [label])[0]
        return Volume(self.maps([row])[0], self.grid)


def explain(
    detector: Detector,
    detection: Detection,
    layer: str | None = None,
    *,
    target: str = "argmax",
    progress: NetworkProgress | None = None,
) -> Explanation:
    """Pass a detection's cube through the network once more; keep what all landmarks' maps need.

    The network computes in float32, on the detector's device or, if its memory does not suffice, on
    the CPU.

    Args:
        detector: the one that made the detection.
        layer: name of a layer of the fine network, see `layers.LayerChain`; None or "" is
            `maps.default_layer`.
        target: "argmax" or "softmax", see `gradcam.TARGETS`.
        progress: called now and then with the fraction done; may raise to end it.

    Raises:
        UserError: there is no such layer or target.
    """
    network = detector.model.network
    check_layer(network, layer)
    if target not in TARGETS:
        raise UserError(f"there is no target {target!r}; did you mean {nearest(target, TARGETS)}?")

    def observed(device: torch.device) -> Observation:
        # The model's own network stays where it is.
        own = network if device.type == "cpu" else copy.deepcopy(network).to(device)
        cube = torch.from_numpy(detection.input_cube.data)[None, None].to(device)
        return observe(own, cube, layer or None, target=target, progress=progress)

    try:
        seen = observed(detector.device)
    except torch.OutOfMemoryError:
        if detector.device.type == "cpu":
            raise
        seen = observed(torch.device("cpu"))
        note = "the GPU's memory does not suffice for the maps, so the CPU makes them"
        detection = replace(detection, notes=(*detection.notes, note))
    return Explanation(detector.model, detection, seen)


def check_layer(network: HighRes3DNet, layer: str | None) -> None:
    """Check the name of a layer; None and "" stand for the default.

    Raises:
        UserError: there is no such layer; the sentence names the nearest.
    """
    layers = LayerChain(network).layers
    if layer and layer not in layers:
        raise UserError(
            f"the network has no layer {layer!r}; did you mean {nearest(layer, layers)}?"
        )


def rows_of(
    protocol: Protocol, landmarks: Iterable[str] = (), groups: Iterable[str] = ()
) -> list[int]:
    """Rows (from 0) of landmarks and of the members of groups, in protocol order, each once.

    Args:
        landmarks: labels, in any case, or indices (from 1) as text.
        groups: names of groups, in any case.

    Returns:
        All rows if neither is given.

    Raises:
        UserError: there is no such landmark or group; the sentence names the nearest.
    """
    wanted: set[int] = set()
    by_label = {label.casefold(): row for row, label in enumerate(protocol.labels)}
    by_group = {group.name.casefold(): group for group in protocol.groups}
    given = False
    for name in landmarks:
        given = True
        if name.isascii() and name.isdigit():
            if not 1 <= int(name) <= len(protocol):
                raise UserError(
                    f"there is no landmark {name}; {protocol.name} has 1 to {len(protocol)}."
                )
            wanted.add(int(name) - 1)
        elif name.casefold() in by_label:
            wanted.add(by_label[name.casefold()])
        else:
            raise UserError(
                f"{protocol.name} has no landmark {name!r}; "
                f"did you mean {nearest(name, protocol.labels)}?"
            )
    for name in groups:
        given = True
        if name.casefold() not in by_group:
            near = nearest(name, [group.name for group in protocol.groups])
            raise UserError(f"{protocol.name} has no group {name!r}; did you mean {near}?")
        wanted |= {index - 1 for index in by_group[name.casefold()].indices}
    return sorted(wanted) if given else list(range(len(protocol)))
