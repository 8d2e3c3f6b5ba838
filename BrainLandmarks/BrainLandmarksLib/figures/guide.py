"""The annotation guide: a landmark protocol as text, as a Markdown document and as pictures.

>>> protocol = load_protocol("brain88")
>>> document = markdown(protocol, pictures=Path("images"))
>>> draw_group(read_image(sample_head()), landmarks, protocol.groups[0], "images/frontal.png")
"""

from __future__ import annotations

import os
import re
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from BrainLandmarksLib.figures.saving import save_figure
from BrainLandmarksLib.figures.slices import BACKGROUND, INK
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.protocol import Chain, Group, Landmark, Protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from BrainLandmarksLib.figures.slices import Slice
    from BrainLandmarksLib.imaging.volume import ImageArray, Volume
    from BrainLandmarksLib.protocol.landmarks import LandmarkSet

_COLUMNS = ["#", "label", "landmark", "role", "plane", "rule", "AFID"]
_TERMINAL_WIDTH = 100

_ORDER = """\
## How to annotate

1. Look at the whole head first. If it lies crooked, turn the views until it is upright.
2. Take the groups in order. In each, place the primary points first, on named anatomy. Then spread
   the secondary points along the outline; roughly is enough, *Re-space group* in the module and
   `brainlandmarks correct` do it exactly.
3. A structure that is cut off, destroyed or not visible is *missing*. Do not guess.
4. Check: left and right points on their sides, midline points on the midline, no two points
   swapped. `brainlandmarks correct FILE --dry-run` names what breaks the guidelines."""

_MOST_SLICES = 4
_PIXEL_MM = 0.5
_MARGIN_MM = 22.0
_SMALLEST_VIEW_MM = 110.0
_THUMBNAIL_MM = 90.0


def plain_text(protocol: Protocol) -> str:
    """Return the protocol as text of at most 100 columns for a terminal."""
    lines = [f"{protocol.name}: {protocol.title}", ""]
    if protocol.description:
        lines += [*textwrap.wrap(protocol.description, _TERMINAL_WIDTH), ""]
    width = max(len(label) for label in protocol.labels)
    for group in protocol.groups:
        lines += [f"{group.name} ({group.first}-{group.last})", ""]
        if group.guideline:
            lines += [*_wrapped(group.guideline, "  ", "  "), ""]
        for landmark in protocol.members(group):
            start = f"{landmark.index:>4}  {landmark.label:<{width}}  "
            lines += _wrapped(f"{landmark.name}. {landmark.rule}", start, " " * len(start))
        lines.append("")
    return "\n".join(lines)


def _wrapped(text: str, first: str, others: str) -> list[str]:
    return textwrap.wrap(text, _TERMINAL_WIDTH, initial_indent=first, subsequent_indent=others)


def markdown(
    protocol: Protocol, pictures: Path | None = None, thumbnails: Path | None = None
) -> str:
    """Return the protocol as a Markdown document.

    Args:
        pictures: The folder of the pictures that `draw_group` makes, as seen from the document;
            None leaves them out.
        thumbnails: That of the pictures that `draw_thumbnails` makes; labels link to them.
    """
    blocks = [f"# {protocol.title}", protocol.description, protocol.reference]
    blocks.append("\n".join(_contents(group) for group in protocol.groups))
    blocks.append(_ORDER)
    if protocol.head_frame or protocol.planes:
        blocks += ["## Directions and planes", protocol.head_frame]
    if protocol.planes:
        rows = [[plane.name, plane.definition] for plane in protocol.planes]
        blocks.append(Table(["plane", "definition"], rows).markdown())
    for group in protocol.groups:
        blocks.append(f"## {group.name} ({group.first}-{group.last})")
        if pictures is not None:
            picture = (pictures / picture_name(group)).as_posix()
            blocks.append(f"![{group.name} on the sample head]({picture})")
        blocks.append(group.guideline)
        blocks.append(
            Table(_COLUMNS, [_row(m, thumbnails) for m in protocol.members(group)]).markdown()
        )
        blocks += [_spacing(chain) for chain in protocol.chains if chain.group == group.name]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _contents(group: Group) -> str:
    anchor = f"{group.name} ({group.first}-{group.last})".lower().replace(" ", "-")
    return f"* [{group.name}](#{re.sub(r'[^a-z0-9-]', '', anchor)})"


def _row(landmark: Landmark, thumbnails: Path | None) -> list[str]:
    label = f"`{landmark.label}`"
    if thumbnails is not None:
        label = f"[{label}]({(thumbnails / landmark.label).as_posix()}.jpg)"
    return [
        str(landmark.index),
        label,
        landmark.name,
        landmark.role,
        landmark.plane,
        landmark.rule,
        "" if landmark.afid is None else str(landmark.afid),
    ]


def _spacing(chain: Chain) -> str:
    members = [f"`{label}`" for label in chain.members]
    if chain.closed:
        members.append(members[0])
    return f"Equal distances along the outline: {' - '.join(members)}."


def picture_name(group: Group) -> str:
    """Return the file name of the picture of a group, such as "protocol_frontal_lobe.png"."""
    return f"protocol_{group.slug}.png"


def draw_group(
    volume: Volume, landmarks: LandmarkSet, group: Group, path: str | os.PathLike[str]
) -> None:
    """Draw the points of one group with their numbers on the slices that show them and save a PNG.

    Primary points are dots, secondary points rings; lines join points spaced along an outline.
    A plane that the protocol names shows the group's points within 4 mm of it, closer than the
    overview of `pictures.draw_landmarks` does; any other slice those that no plane before it did.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    from BrainLandmarksLib.figures.slices import NEAR_MM, choose_slices
    from BrainLandmarksLib.protocol.landmarks import LandmarkSet

    points = np.full_like(landmarks.points, np.nan)
    points[group.first - 1 : group.last] = landmarks.points[group.first - 1 : group.last]
    members = LandmarkSet.from_points(landmarks.protocol, points)
    named = {_title(landmark) for landmark in landmarks.protocol.members(group)}
    panels: list[tuple[Slice, np.ndarray]] = []
    shown = np.zeros(len(points), dtype=bool)
    for plane in [] if members.missing.all() else choose_slices(members):
        near = plane.distances(points) <= NEAR_MM
        if (near & ~shown).any() and len(panels) < _MOST_SLICES:
            panels.append((plane, near if plane.title in named else near & ~shown))
            shown |= near

    count = max(len(panels), 1)
    figure = Figure(figsize=(4.2 * count, 4.5), dpi=110, facecolor=BACKGROUND)
    size = min(13.0, 420.0 * count / len(group.name))
    figure.text(0.012, 0.965, group.name, color=INK, fontsize=size, weight="bold", va="top")
    white = float(np.percentile(volume.data[::3, ::3, ::3], 99.5))
    for number, (plane, near) in enumerate(panels):
        axes = figure.add_axes(((number + 0.012) / count, 0.01, 0.976 / count, 0.86))
        half = _half_view(plane.project(members.points[near]))
        _show_slice(axes, volume, plane, half, white)
        axes.set_title(plane.title, color=INK, fontsize=9, pad=4)
        for side, direction in ((-1, -plane.right), (1, plane.right)):
            axes.text(side * (half - 4), 0, _toward(direction), color=INK, fontsize=9, ha="center")
        _draw_numbered(axes, plane, members, near, group)
        axes.set_xlim(-half, half)
        axes.set_ylim(-half, half)
    save_figure(figure, path)


def draw_thumbnails(volume: Volume, landmarks: LandmarkSet, folder: str | os.PathLike[str]) -> None:
    """Draw a small picture of every landmark, ``<label>.jpg``, on a slice through it.

    The slice is parallel to the plane that the protocol names for it, where the points tell how
    that lies, or to the nearest view.

    The landmark is the large dot, others of its group on the slice are small ones. Missing
    landmarks get no picture.

    Raises:
        UserError: the folder cannot be written to.
    """
    from matplotlib.figure import Figure

    from BrainLandmarksLib.figures.slices import NEAR_MM, choose_slices
    from BrainLandmarksLib.protocol.landmarks import LandmarkSet

    white = float(np.percentile(volume.data[::3, ::3, ::3], 99.5))
    protocol = landmarks.protocol
    for group in protocol.groups:
        points = np.full_like(landmarks.points, np.nan)
        points[group.first - 1 : group.last] = landmarks.points[group.first - 1 : group.last]
        if not np.isfinite(points).any():
            continue
        planes = choose_slices(LandmarkSet.from_points(protocol, points))
        for landmark in protocol.members(group):
            point = points[landmark.index - 1]
            if np.isnan(point).any():
                continue
            plane = replace(_best_view(planes, landmark, point), center=point)
            half = _THUMBNAIL_MM / 2
            figure = Figure(figsize=(1.5, 1.5), dpi=100, facecolor=BACKGROUND)
            axes = figure.add_axes((0, 0, 1, 1))
            _show_slice(axes, volume, plane, half, white)
            others = plane.project(points[plane.distances(points) <= NEAR_MM])
            axes.plot(*others.T, "o", markersize=2.5, color=group.color, alpha=0.8)
            axes.plot(
                0, 0, "o", markersize=7, markerfacecolor=group.color, markeredgecolor="#ffffff"
            )
            axes.set_xlim(-half, half)
            axes.set_ylim(-half, half)
            save_figure(figure, Path(folder) / f"{landmark.label}.jpg")


def _title(landmark: Landmark) -> str:
    """The title of a slice along the plane of a landmark."""
    return landmark.plane.capitalize()


def _best_view(planes: list[Slice], landmark: Landmark, point: np.ndarray) -> Slice:
    """Of some slices the landmark's own plane, or the nearest of those that look the same way."""
    own = [p for p in planes if p.title == _title(landmark)]
    own = own or [p for p in planes if p.orientation in landmark.plane]
    return min(own or planes, key=lambda p: float(p.distances(point[None])[0]))


def _toward(direction: np.ndarray) -> str:
    """The letter of the side of the head that a RAS direction points to."""
    axis = int(np.abs(direction).argmax())
    return ("RL", "AP", "SI")[axis][0 if direction[axis] > 0 else 1]


def _half_view(projected: np.ndarray) -> float:
    """Half the width of a view that holds the projected points (n, 2) with a margin, mm."""
    reach = float(np.abs(projected).max()) if len(projected) else 0.0
    return max(reach + _MARGIN_MM, _SMALLEST_VIEW_MM / 2)


def _sample(volume: Volume, plane: Slice, half: float) -> ImageArray:
    from BrainLandmarksLib.imaging.resampling import resample

    count = round(2 * half / _PIXEL_MM)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([plane.right, plane.up, plane.normal], axis=1) * _PIXEL_MM
    middle = (count - 1) / 2
    affine[:3, 3] = plane.center - affine[:3, :3] @ np.array([middle, middle, 0.0])
    return resample(volume, Grid((count, count, 1), affine))[:, :, 0]


def _show_slice(axes: Axes, volume: Volume, plane: Slice, half: float, white: float) -> None:
    """The image on a plane in grey, from black at 0 to white; ``half`` the view's width in mm."""
    axes.imshow(
        _sample(volume, plane, half).T,
        cmap="gray",
        vmin=0,
        vmax=white,
        origin="lower",
        extent=(-half, half, -half, half),
        interpolation="bilinear",
    )
    axes.set_axis_off()


def _draw_numbered(
    axes: Axes, plane: Slice, landmarks: LandmarkSet, near: np.ndarray, group: Group
) -> None:
    from matplotlib.patheffects import withStroke

    outline = [withStroke(linewidth=2.5, foreground=BACKGROUND)]
    protocol = landmarks.protocol
    row = {label: number for number, label in enumerate(protocol.labels)}
    for chain in protocol.chains:
        rows = [row[label] for label in chain.members if label in row]
        if chain.group == group.name and near[rows].all():
            line = plane.project(landmarks.points[rows + rows[:1] if chain.closed else rows])
            axes.plot(line[:, 0], line[:, 1], color=group.color, linewidth=0.8, alpha=0.7)
    shown = np.flatnonzero(near)
    projected = plane.project(landmarks.points)
    middle = projected[shown].mean(axis=0) if len(shown) else np.zeros(2)
    for index in shown:
        x, y = projected[index]
        primary = protocol.landmarks[index].role == "primary"
        axes.plot(
            x,
            y,
            "o",
            markersize=6 if primary else 5,
            markerfacecolor=group.color if primary else BACKGROUND,
            markeredgecolor="#000000" if primary else group.color,
            markeredgewidth=0.7 if primary else 1.4,
        )
        # Numbers go outwards, so that they leave the outline itself free.
        away = projected[index] - middle
        length = float(np.linalg.norm(away))
        direction = away / length if length > 1e-6 else np.array([0.0, 1.0])
        axes.annotate(
            str(protocol.landmarks[index].index),
            (x, y),
            xytext=tuple(11 * direction),
            textcoords="offset points",
            ha="center",
            va="center",
            color=INK,
            fontsize=8,
            path_effects=outline,
        )
