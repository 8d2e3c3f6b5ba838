"""Scan planes of a protocol: how a slice stack of an examination follows from landmarks.

A scan plane is data, an entry of "scan_planes" in the protocol's file. `BrainLandmarksLib.planes`
puts it on a head. How it lies follows from one of `CONSTRUCTIONS`; directions are those of the head
(right is the normal of the mid-sagittal plane), never those of the scanner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

VIEWS = {"sagittal": 0, "coronal": 1, "axial": 2}
"""The views a stack can be read in, and the RAS axis that their normal is nearest to."""

CONSTRUCTIONS = {
    "through": "the plane with the least squared distances from weighted points",
    "along": "contains a line and the left-right direction; the columns of its images follow the "
    "line",
    "across": "contains the left-right direction and is perpendicular to a line seen from the "
    "side; its normal follows the line",
    "beside": "contains a line and is as sagittal as that allows; the columns of its images follow "
    "the line",
    "reference": "contains the left-right direction and the anterior direction of a reference, "
    "which is turned, moved and scaled onto the landmarks in the mid-sagittal plane",
}
"""How planes follow from landmarks."""

_BY_LINE = ("along", "across", "beside")
_VIEWS_OF = {
    "along": ("axial", "coronal"),
    "across": ("axial", "coronal"),
    "beside": ("sagittal",),
    "reference": ("axial",),
}


@dataclass(frozen=True)
class MeanPoint:
    """A weighted mean of landmarks: (label, weight) of each."""

    weights: tuple[tuple[str, float], ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the landmarks."""
        return tuple(label for label, _ in self.weights)

    @classmethod
    def of_json(cls, data: Mapping[str, float]) -> MeanPoint:
        """The point of ``{label: weight}``."""
        return cls(tuple((label, float(weight)) for label, weight in data.items()))

    def to_json(self) -> dict[str, float]:
        """``{label: weight}``."""
        return dict(self.weights)


@dataclass(frozen=True)
class Line:
    """A direction in the head, from one mean of landmarks to another."""

    start: MeanPoint
    end: MeanPoint

    @classmethod
    def of_json(cls, data: Mapping[str, Any] | None) -> Line | None:
        """The line of ``{"from": ..., "to": ...}``; None of nothing."""
        if data is None:
            return None
        return cls(MeanPoint.of_json(data["from"]), MeanPoint.of_json(data["to"]))

    def to_json(self) -> dict[str, Any]:
        """``{"from": ..., "to": ...}``."""
        return {"from": self.start.to_json(), "to": self.end.to_json()}


@dataclass(frozen=True)
class Target:
    """What a stack has to reach: landmarks, and so many mm beyond them."""

    landmarks: tuple[str, ...]
    margin_mm: float


@dataclass(frozen=True)
class Reference:
    """Where a landmark lies in the frame that a plane is called after, mm from its origin."""

    label: str
    anterior: float
    superior: float


@dataclass(frozen=True)
class OwnError:
    """How far even exact landmarks leave the plane from what it is called: medians, and of what."""

    degrees: float
    mm: float
    source: str


@dataclass(frozen=True)
class ScanPlane:
    """A plane of an examination.

    Args:
        name: Such as "axial AC-PC".
        purpose: What it is good for, a sentence.
        view: "axial", "coronal" or "sagittal"; says which way images are shown.
        construction: One of `CONSTRUCTIONS`.
        field: What the images have to show, in the plane.
        slab: What the slices have to cover, across it.
        thickness_mm, gap_mm: Of the slices.
        points: Of "through", what it goes through.
        line: Of "along", "across" and "beside".
        reference: Of "reference", where landmarks lie in the frame.
        left_right: Name of the scan plane whose normal is the left-right direction; "" for
            "through".
        rows, columns: Of "through", where the rows and columns of the images point; the rows
            exactly so as the plane allows, the columns tell which way round it is.
        origin: Where the plane passes, of "along", "across" and "beside".
        own_error: None where it is what its name says by definition.
    """

    name: str
    purpose: str
    view: str
    construction: str
    field: Target
    slab: Target
    thickness_mm: float
    gap_mm: float
    points: MeanPoint | None = None
    line: Line | None = None
    reference: tuple[Reference, ...] = ()
    left_right: str = ""
    rows: Line | None = None
    columns: Line | None = None
    origin: MeanPoint | None = None
    own_error: OwnError | None = None

    @property
    def landmarks(self) -> tuple[str, ...]:
        """Labels from which the plane follows, without those of `left_right`."""
        found: dict[str, None] = {}
        for point in self._points():
            found.update(dict.fromkeys(point.labels))
        found.update(dict.fromkeys(each.label for each in self.reference))
        return tuple(found)

    def _points(self) -> Iterator[MeanPoint]:
        for point in (self.points, self.origin):
            if point is not None:
                yield point
        for line in (self.line, self.rows, self.columns):
            if line is not None:
                yield line.start
                yield line.end

    @classmethod
    def of_json(cls, data: Mapping[str, Any]) -> ScanPlane:
        """The plane of an entry that satisfies the schema."""
        own = data.get("own_error")
        return cls(
            name=data["name"],
            purpose=data["purpose"],
            view=data["view"],
            construction=data["construction"],
            field=_target(data["field"]),
            slab=_target(data["slab"]),
            thickness_mm=float(data["thickness_mm"]),
            gap_mm=float(data.get("gap_mm", 0.0)),
            points=MeanPoint.of_json(data["points"]) if "points" in data else None,
            line=Line.of_json(data.get("line")),
            reference=tuple(
                Reference(label, float(anterior), float(superior))
                for label, (anterior, superior) in data.get("reference", {}).items()
            ),
            left_right=data.get("left_right", ""),
            rows=Line.of_json(data.get("rows")),
            columns=Line.of_json(data.get("columns")),
            origin=MeanPoint.of_json(data["origin"]) if "origin" in data else None,
            own_error=None if own is None else OwnError(**own),
        )

    def to_json(self) -> dict[str, Any]:
        """The entry; `of_json` reads it back unchanged."""
        entry: dict[str, Any] = {
            "name": self.name,
            "purpose": self.purpose,
            "view": self.view,
            "construction": self.construction,
        }
        if self.left_right:
            entry["left_right"] = self.left_right
        for name in ("points", "line", "origin", "rows", "columns"):
            part = getattr(self, name)
            if part is not None:
                entry[name] = part.to_json()
        if self.reference:
            entry["reference"] = {r.label: [r.anterior, r.superior] for r in self.reference}
        for name in ("field", "slab"):
            target = getattr(self, name)
            entry[name] = {"landmarks": list(target.landmarks), "margin_mm": target.margin_mm}
        entry |= {"thickness_mm": self.thickness_mm, "gap_mm": self.gap_mm}
        if self.own_error is not None:
            own = self.own_error
            entry["own_error"] = {"degrees": own.degrees, "mm": own.mm, "source": own.source}
        return entry


def _target(data: Mapping[str, Any]) -> Target:
    return Target(tuple(data["landmarks"]), float(data["margin_mm"]))


def contradiction(planes: tuple[ScanPlane, ...], labels: tuple[str, ...]) -> str | None:
    """What is wrong with scan planes of a protocol with these labels, as half a sentence."""
    known: dict[str, ScanPlane] = {}
    for plane in planes:
        place = f"the scan plane {plane.name}"
        if plane.name in known:
            return f"{place} is defined twice"
        used = (*plane.landmarks, *plane.field.landmarks, *plane.slab.landmarks)
        unknown = next((label for label in used if label not in labels), None)
        if unknown:
            return f"{place} refers to the unknown landmark {unknown}"
        problem = _incomplete(plane)
        if problem:
            return f"{place} {problem}"
        if plane.left_right:
            side = known.get(plane.left_right)
            if side is None or side.view != "sagittal" or side.left_right:
                return (
                    f"{place} takes left and right from {plane.left_right}, which is no sagittal "
                    "plane through points that stands before it"
                )
        known[plane.name] = plane
    return None


def _incomplete(plane: ScanPlane) -> str | None:
    """What an entry lacks or has too much for its construction, or None."""
    needed = {
        "points": plane.construction == "through",
        "rows": plane.construction == "through",
        "columns": plane.construction == "through",
        "line": plane.construction in _BY_LINE,
        "origin": plane.construction in _BY_LINE,
        "left_right": plane.construction != "through",
        "reference": plane.construction == "reference",
    }
    for part, wanted in needed.items():
        if wanted != bool(getattr(plane, part)):
            return f'{"lacks" if wanted else "cannot have"} "{part}" ({plane.construction})'
    views = _VIEWS_OF.get(plane.construction, tuple(VIEWS))
    if plane.view not in views:
        return f"is {plane.view}, but {plane.construction} gives {' or '.join(views)} planes"
    if plane.points is not None and len(plane.points.weights) < 3:
        return "goes through fewer than three points"
    if plane.reference and len(plane.reference) < 2:
        return "has a reference of fewer than two points"
    return None
