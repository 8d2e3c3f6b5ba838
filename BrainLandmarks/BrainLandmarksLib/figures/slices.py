"""One picture of a head with its landmarks: the slices they lie on, side by side.

Which slices are shown follows from the protocol: each plane that it defines and that the points
lie on is a slice, tilted with the head; points off those planes get upright slices through them.
"""

from __future__ import annotations

import math
import os
import textwrap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from BrainLandmarksLib.figures.saving import save_figure
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.volume import ImageArray, Volume
from BrainLandmarksLib.protocol.landmarks import LandmarkSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIN_PANELS, MAX_PANELS = 3, 6
NEAR_MM = 4.0
"""A landmark is drawn on a slice that passes it by no more than this."""

VIEW_MM = 216.0
_PIXEL_MM = 0.75
_SIZE_INCHES = (15.0, 9.0)
_DPI = 110
BACKGROUND = "#101214"
INK = "#d8dde2"
DIM_INK = "#8b949e"

_AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
_DIRECTION_LETTERS = (("R", "L"), ("A", "P"), ("S", "I"))


@dataclass(frozen=True)
class Slice:
    """A plane through the head and the way it is looked at.

    Args:
        title: What it shows.
        orientation: "sagittal", "coronal" or "axial": the view it comes nearest to.
        center: A point of the plane, RAS millimetres; the middle of the picture.
        right, up: Unit vectors in RAS, the directions of the picture's right and top.
    """

    title: str
    orientation: str
    center: FloatArray
    right: FloatArray
    up: FloatArray

    @property
    def normal(self) -> FloatArray:
        """Unit normal of the plane, RAS."""
        return np.cross(self.right, self.up)

    def distances(self, points: FloatArray) -> FloatArray:
        """Distances of RAS points (n, 3) from the plane in millimetres, (n,); NaN stays NaN."""
        return np.abs((points - self.center) @ self.normal)

    def project(self, points: FloatArray) -> FloatArray:
        """Picture coordinates (right, up) of RAS points in millimetres from the centre, (n, 2)."""
        return (points - self.center) @ np.stack([self.right, self.up], axis=1)

    def sample(self, volume: Volume, view_mm: float = VIEW_MM) -> ImageArray:
        """The image on the plane, ``view_mm`` wide and high; first axis right, second up."""
        count = round(view_mm / _PIXEL_MM)
        affine = np.eye(4)
        affine[:3, :3] = np.stack([self.right, self.up, self.normal], axis=1) * _PIXEL_MM
        half = (count - 1) / 2
        affine[:3, 3] = self.center - affine[:3, :3] @ np.array([half, half, 0.0])
        return resample(volume, Grid((count, count, 1), affine))[:, :, 0]


def draw_landmarks(
    volume: Volume,
    landmarks: LandmarkSet,
    path: str | os.PathLike[str],
    *,
    title: str = "",
) -> None:
    """Draw the landmarks on three to six slices of the head and save a PNG.

    Points are in their group's colour; each slice shows those within `NEAR_MM` of it. A landmark
    that no slice passes is drawn as a ring on the nearest one. Sagittal slices look at the patient
    from his left, the others follow the radiological convention: his right is on the left.

    >>> draw_landmarks(volume, detection.landmarks, "head_landmarks.png")

    Args:
        title: A line above the slices, such as the image's name.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    slices = choose_slices(landmarks, volume.grid.center_ras)
    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, facecolor=BACKGROUND)
    low, high = grey_window(volume)
    # NaN compares as far away: missing landmarks are on no slice.
    shown = [s.distances(landmarks.points) <= NEAR_MM for s in slices]
    projected = _projected(slices, landmarks, shown)
    columns, rows = 3, math.ceil(len(slices) / 3)
    width, height = 0.27, 0.94 / rows - 0.035
    for number, (plane, near, rings) in enumerate(zip(slices, shown, projected, strict=True)):
        left = 0.006 + (number % columns) * (width + 0.004)
        bottom = 0.008 + (rows - 1 - number // columns) * (height + 0.035)
        axes = figure.add_axes((left, bottom, width, height))
        draw_slice(axes, plane, volume, (low, high))
        draw_points(axes, plane, landmarks, near, rings)
    _draw_legend(figure, landmarks, np.any(shown, axis=0), title)
    save_figure(figure, path)


# Which slices -------------------------------------------------------------------------------------


def choose_slices(landmarks: LandmarkSet, image_center: npt.ArrayLike = (0, 0, 0)) -> list[Slice]:
    """Three to six slices that show most of the landmarks.

    First the planes that the protocol names, where at least three points fit one; then, for
    points not yet shown, upright sagittal, coronal and axial slices through them.

    Args:
        image_center: RAS millimetres, (3,); what to look at when there are no landmarks.
    """
    points = landmarks.points
    frame = _head_axes(landmarks)
    slices: list[Slice] = []
    for name, rows in _rows_by_plane(landmarks).items():
        found = _fit_plane(points[rows])
        if found is None:
            continue
        center, normal = found
        orientation = _orientation(name, normal, frame)
        if orientation is not None:
            slices.append(_slice(name.capitalize(), orientation, center, normal, frame))
    near = np.array([s.distances(points) <= NEAR_MM for s in slices]).reshape(-1, len(points))
    order = np.argsort(-near.sum(axis=1), kind="stable")[:MAX_PANELS]
    slices = [slices[n] for n in sorted(order)]
    left = ~landmarks.missing & ~near[sorted(order)].any(axis=0)
    while len(slices) < MAX_PANELS and left.any():
        candidates = [
            _slice(orientation.capitalize(), orientation, point, frame[:, axis], frame)
            for orientation, axis in _AXES.items()
            for point in points[left]
        ]
        gains = [int((c.distances(points[left]) <= NEAR_MM).sum()) for c in candidates]
        best = candidates[int(np.argmax(gains))]
        inside = left & (best.distances(points) <= NEAR_MM)
        axis = _AXES[best.orientation]
        middle = np.median(points[inside] @ frame[:, axis]) - best.center @ frame[:, axis]
        center = best.center + middle * frame[:, axis]
        best = _slice(best.title, best.orientation, center, frame[:, axis], frame)
        left &= ~inside
        slices.append(best)
    present = points[~landmarks.missing]
    middle = np.asarray(image_center, dtype=np.float64)
    if len(present):
        middle = (present.min(axis=0) + present.max(axis=0)) / 2
    for orientation, axis in _AXES.items():
        if len(slices) < MIN_PANELS and orientation not in [s.orientation for s in slices]:
            title = orientation.capitalize()
            slices.append(_slice(title, orientation, middle, frame[:, axis], frame))
    return [_centred(s, middle) for s in slices]


def _rows_by_plane(landmarks: LandmarkSet) -> dict[str, npt.NDArray[np.int64]]:
    rows: dict[str, list[int]] = {}
    for row, landmark in enumerate(landmarks.protocol.landmarks):
        if landmarks.status[row] != "missing" and landmark.plane:
            rows.setdefault(landmark.plane, []).append(row)
    return {plane: np.array(members) for plane, members in rows.items()}


def _fit_plane(points: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Centre and unit normal of the plane most of the points lie on; None if there is none."""
    kept = points
    for _ in range(3):
        if len(kept) < 3:
            return None
        center = kept.mean(axis=0)
        _, spread, directions = np.linalg.svd(kept - center, full_matrices=False)
        # Points on a line fit any plane through it.
        if spread[1] < 5 * math.sqrt(len(kept)):
            return None
        distances = np.abs((points - center) @ directions[2])
        kept = points[distances <= max(NEAR_MM, 3 * float(np.median(distances)))]
    if (distances <= NEAR_MM).mean() < 0.6:
        return None
    return center, np.asarray(directions[2])


def _head_axes(landmarks: LandmarkSet) -> FloatArray:
    """RAS directions of the head's right, anterior and superior, as columns, as far as known.

    Right comes from the mid-sagittal points, superior from the axial ones; without them the
    scanner's axes stand in.
    """
    axes = np.eye(3)
    for name, rows in _rows_by_plane(landmarks).items():
        found = _fit_plane(landmarks.points[rows])
        if found is not None and "mid-sagittal" in name:
            axes[:, 0] = found[1] * np.sign(found[1][0])
        elif found is not None and name.startswith("axial") and abs(found[1][2]) > 0.5:
            axes[:, 2] = found[1] * np.sign(found[1][2])
    axes[:, 1] = np.cross(axes[:, 2], axes[:, 0])
    axes[:, 1] /= np.linalg.norm(axes[:, 1])
    axes[:, 2] = np.cross(axes[:, 0], axes[:, 1])
    return axes


def _orientation(name: str, normal: FloatArray, frame: FloatArray) -> str | None:
    """The view a plane comes nearest to; None if its name says another one."""
    cosines = np.abs(normal @ frame)
    nearest = list(_AXES)[int(cosines.argmax())]
    named = [orientation for orientation in _AXES if orientation in name]
    # Points of a parasagittal group lie each on a plane of their own; any plane through them all
    # is an accident.
    return nearest if not named or nearest in named else None


def _slice(
    title: str, orientation: str, center: FloatArray, normal: FloatArray, frame: FloatArray
) -> Slice:
    right, anterior, superior = frame.T
    up = anterior if orientation == "axial" else superior
    across = -anterior if orientation == "sagittal" else -right
    up = up - (up @ normal) * normal
    up = up / np.linalg.norm(up)
    sideways = np.cross(up, normal)
    return Slice(title, orientation, center, sideways * np.sign(sideways @ across), up)


def _centred(plane: Slice, middle: FloatArray) -> Slice:
    """The same plane, looked at where the head is."""
    center = middle - ((middle - plane.center) @ plane.normal) * plane.normal
    return Slice(plane.title, plane.orientation, center, plane.right, plane.up)


def _projected(
    slices: list[Slice], landmarks: LandmarkSet, shown: list[npt.NDArray[np.bool_]]
) -> list[npt.NDArray[np.bool_]]:
    """Per slice, the landmarks that no slice passes and to which this one comes nearest."""
    distances = np.array([s.distances(landmarks.points) for s in slices])
    lost = ~landmarks.missing & ~np.any(shown, axis=0)
    return [lost & (distances.argmin(axis=0) == number) for number in range(len(slices))]


# Drawing ------------------------------------------------------------------------------------------


def grey_window(volume: Volume) -> tuple[float, float]:
    """Grey levels shown as black and white: percentiles 1 and 99.5 of what is not air."""
    sample = volume.data[::3, ::3, ::3].ravel()
    low, high = float(np.percentile(sample, 1)), float(np.percentile(sample, 99.5))
    tissue = sample[sample > low + 0.1 * (high - low)]
    if tissue.size:
        high = float(np.percentile(tissue, 99.5))
    return low, max(high, low + 1e-6)


def show_slice(
    axes: Axes, plane: Slice, volume: Volume, window: tuple[float, float], view_mm: float = VIEW_MM
) -> None:
    """The image on a plane without anything else, ``view_mm`` wide and high; millimetres."""
    half = view_mm / 2
    axes.imshow(
        plane.sample(volume, view_mm).T,
        cmap="gray",
        vmin=window[0],
        vmax=window[1],
        origin="lower",
        extent=(-half, half, -half, half),
        interpolation="bilinear",
    )
    axes.set_axis_off()
    axes.set_xlim(-half, half)
    axes.set_ylim(-half, half)


def draw_slice(
    axes: Axes,
    plane: Slice,
    volume: Volume,
    window: tuple[float, float],
    *,
    compact: bool = False,
) -> None:
    """The image on a plane with its title, where it lies, directions and a scale; millimetres.

    Args:
        compact: for small pictures, where it lies stands above the picture instead of the title.
    """
    half = VIEW_MM / 2
    show_slice(axes, plane, volume, window)
    small = {"color": INK, "fontsize": 9, "zorder": 5}
    if compact:
        axes.text(-half, half + 3, _place(replace(plane, title="")), fontsize=8, color=DIM_INK)
    else:
        axes.text(-half, half + 3, plane.title, weight="bold", fontsize=10, color=INK)
        axes.text(
            -half + 4,
            half - 4,
            _place(plane),
            va="top",
            **outlined(**small | {"color": DIM_INK, "fontsize": 8}),
        )  # fmt: skip
    edge = half - 5
    for x, y, direction in ((-edge, 0.0, -plane.right), (edge, 0.0, plane.right)):
        axes.text(x, y, direction_letter(direction), ha="center", va="center", **outlined(**small))
    for x, y, direction in ((0.0, edge, plane.up), (0.0, -edge, -plane.up)):
        axes.text(x, y, direction_letter(direction), ha="center", va="center", **outlined(**small))
    axes.plot([-half + 5, -half + 55], [-half + 6] * 2, color=INK, linewidth=1.5)
    axes.text(-half + 58, -half + 6, "50 mm", va="center", **outlined(**small | {"fontsize": 8}))


def outlined(**style: Any) -> dict[str, Any]:
    """A style of text that can be read on any grey."""
    from matplotlib.patheffects import withStroke

    outline = [withStroke(linewidth=2, foreground=BACKGROUND)]
    # Snapped to whole pixels, the upright of a small L can vanish under its outline.
    return {"path_effects": outline, "snap": False, **style}


def direction_letter(direction: FloatArray) -> str:
    """The letter of the side of the head that a RAS direction comes nearest to."""
    axis = int(np.abs(direction).argmax())
    return _DIRECTION_LETTERS[axis][0 if direction[axis] > 0 else 1]


def _place(plane: Slice) -> str:
    """Where the slice lies, in words: `R 0.4 mm` or `axial, I 12.0 mm, tilted 31°`."""
    axis = _AXES[plane.orientation]
    normal = plane.normal
    position = plane.center[axis]
    tilt = math.degrees(math.acos(min(1.0, abs(float(normal[axis])))))
    letter = _DIRECTION_LETTERS[axis][0 if position >= 0 else 1]
    text = f"{letter} {abs(position):.1f} mm"
    if plane.orientation not in plane.title.lower():
        text = f"{plane.orientation}, {text}"
    return f"{text}, tilted {tilt:.0f}°" if tilt >= 1.5 else text


def draw_points(
    axes: Axes,
    plane: Slice,
    landmarks: LandmarkSet,
    near: npt.NDArray[np.bool_],
    rings: npt.NDArray[np.bool_],
) -> None:
    """Landmarks on a slice in their groups' colours: dots, and rings for those away from it."""
    for group in landmarks.protocol.groups:
        members = np.zeros(len(landmarks), dtype=bool)
        members[group.first - 1 : group.last] = True
        dots = plane.project(landmarks.points[members & near])
        axes.scatter(
            dots[:, 0], dots[:, 1], s=26, color=[group.rgb], edgecolors="#000000", linewidths=0.7,
            zorder=4,
        )  # fmt: skip
        circles = plane.project(landmarks.points[members & rings])
        for line, color in ((2.6, "#000000"), (1.4, group.color)):
            axes.scatter(
                circles[:, 0], circles[:, 1], s=30, facecolors="none", edgecolors=color,
                linewidths=line, zorder=3,
            )  # fmt: skip


def _draw_legend(
    figure: Figure, landmarks: LandmarkSet, on_slice: npt.NDArray[np.bool_], title: str
) -> None:
    from matplotlib.lines import Line2D

    protocol = landmarks.protocol
    left, top = 0.835, 0.97
    style: dict[str, Any] = {"color": INK, "va": "top", "transform": figure.transFigure}
    figure.text(0.012, top, title or protocol.title, fontsize=13, weight="bold", **style)
    present = int((~landmarks.missing).sum())
    figure.text(left, top, f"{present} of {len(landmarks)} landmarks", fontsize=11, **style)
    handles, names = [], []
    for group in protocol.groups:
        missing = int(landmarks.missing[group.first - 1 : group.last].sum())
        count = group.last - group.first + 1
        marker = Line2D(
            [], [], marker="o", linestyle="", markersize=8, color=group.color,
            markeredgecolor="#000000", markeredgewidth=0.7,
        )  # fmt: skip
        handles.append(marker)
        found = f"{count - missing} of {count}" if missing else str(count)
        names.append(textwrap.fill(f"{group.name} ({found})", 26))
    figure.legend(
        handles, names, loc="upper left", bbox_to_anchor=(left - 0.01, top - 0.035),
        frameon=False, labelcolor=INK, fontsize=9.5, labelspacing=0.9, handletextpad=0.4,
    )  # fmt: skip
    notes = [f"Dot: within {NEAR_MM:g} mm of the slice."]
    if (~on_slice & ~landmarks.missing).any():
        notes.append("Ring: projected on the\nnearest slice from further away.")
    notes.append(
        "Radiological convention: on axial\nand coronal slices the patient's\nright is on the left."
    )
    notes.append("Positions: RAS millimetres.")
    figure.text(left, 0.03, "\n\n".join(notes), fontsize=8.5, linespacing=1.35,
                **{**style, "va": "bottom", "color": DIM_INK})  # fmt: skip
