"""All scan planes of a head: where each lies and what it covers, or why it is not there."""

from __future__ import annotations

from dataclasses import dataclass

from BrainLandmarksLib.errors import UserError, nearest
from BrainLandmarksLib.network.landmark_errors import LandmarkErrors
from BrainLandmarksLib.planes.construction import Frame, construct, lacking
from BrainLandmarksLib.planes.stack import PIXEL_MM, Stack, cover
from BrainLandmarksLib.planes.uncertainty import SAMPLES, Uncertainty, planes_uncertainty
from BrainLandmarksLib.protocol import Protocol, ScanPlane
from BrainLandmarksLib.protocol.landmarks import LandmarkSet


@dataclass(frozen=True, eq=False)
class Prescription:
    """A scan plane on a head.

    Args:
        plane: What it is.
        frame: Where it lies; None if landmarks that it needs are missing.
        reason: Why something is None, as half a sentence; "" if nothing is.
        stack: The slices; None without a frame, or if landmarks that are to be covered are missing.
        uncertainty: How far it may be from the plane of the true landmarks; None if nothing is
            known of the errors of the landmarks.
    """

    plane: ScanPlane
    frame: Frame | None
    reason: str = ""
    stack: Stack | None = None
    uncertainty: Uncertainty | None = None


def prescribe(
    landmarks: LandmarkSet,
    errors: LandmarkErrors | None = None,
    *,
    pixel_mm: float = PIXEL_MM,
    samples: int = SAMPLES,
) -> list[Prescription]:
    """The scan planes of the protocol on a head, in the protocol's order.

    Args:
        errors: How far landmarks may be off; None leaves out the uncertainty of the planes.
        pixel_mm: Of the images.
        samples: How many heads the uncertainty is taken from.

    Raises:
        UserError: the protocol has no scan planes.
    """
    protocol = landmarks.protocol
    need_planes(protocol)
    reasons = lacking(protocol, landmarks.points)
    frames = construct(protocol, landmarks.points, set(reasons))
    unsure = {} if errors is None else planes_uncertainty(landmarks, frames, errors, samples)
    found = []
    for plane in protocol.scan_planes:
        frame = frames.get(plane.name)
        if frame is None:
            found.append(Prescription(plane, None, reasons[plane.name]))
            continue
        stack, reason = cover(plane, frame, landmarks, pixel_mm)
        found.append(Prescription(plane, frame, reason, stack, unsure.get(plane.name)))
    return found


def need_planes(protocol: Protocol) -> None:
    """Check that a protocol has scan planes.

    Raises:
        UserError: it has none.
    """
    if not protocol.scan_planes:
        raise UserError(
            f'the protocol {protocol.name} has no scan planes; add "scan_planes" to its file.'
        )


def plane_called(protocol: Protocol, name: str) -> ScanPlane:
    """The plane of a protocol that is called so, in any case.

    Raises:
        UserError: there is none.
    """
    for plane in protocol.scan_planes:
        if plane.name.casefold() == name.casefold():
            return plane
    names = [plane.name for plane in protocol.scan_planes]
    raise UserError(
        f"{protocol.name} has no scan plane called {name!r}; did you mean "
        f"{nearest(name, names)!r}? It has {', '.join(names)}."
    )


def by_name(prescriptions: list[Prescription], name: str) -> Prescription:
    """The plane of a head that is called so, in any case; there is one of each of a protocol."""
    return next(p for p in prescriptions if p.plane.name.casefold() == name.casefold())
