"""What is known of landmarks by the model that found them, whichever is chosen now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from BrainLandmarksLib.geometry.shape_model import ShapeModel
from BrainLandmarksLib.mrml import requirements
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
from BrainLandmarksLib.network.landmark_errors import LandmarkErrors
from BrainLandmarksLib.network.model_files import load_shape, model_protocol
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.ui.common.preferences import usable_models


def errors_of(source: Mapping[str, Any], protocol: Protocol) -> LandmarkErrors:
    """The errors of the model that found the landmarks; of people if it cannot be read here.

    Args:
        source: What made the landmarks, of their review.
    """
    model = _model_of(source)
    if model is None:
        return LandmarkErrors.of_people(protocol)
    return LandmarkErrors.of_model(model, protocol)


def errors_of_volume(volume: Any) -> LandmarkErrors | None:
    """As `errors_of`, of the landmarks of a volume node in the scene; None if it has none.

    Raises:
        UserError: their record is damaged or of another version.
    """
    nodes = LandmarkNodes.of_volume(volume)
    return None if nodes is None else errors_of(nodes.restore()[1], nodes.protocol)


def shape_of(source: Mapping[str, Any], protocol: Protocol) -> ShapeModel | None:
    """The shape model of the model that found the landmarks; None if there is none to be read here.

    Args:
        source: As of `errors_of`.
    """
    model = _model_of(source)
    if model is None or model_protocol(model).hash != protocol.hash:
        return None
    return load_shape(model, len(protocol))


def _model_of(source: Mapping[str, Any]) -> str | None:
    """Name or folder of the model, if it is one of those that are offered.

    A scene or a file of somebody else may name any folder.
    """
    model = source.get("model")
    known = {one.key for one in usable_models()}
    return str(model) if model in known and not requirements.missing() else None
