"""One page on a cohort: uncertain scans first, each with its picture and, in 3-D, its landmarks.

The page is a single file that needs no network and no program but a browser. It names scans as BIDS
does and says nothing else about anybody.

>>> write_report(Derivatives.open("derivatives/brainlandmarks"))
"""

from __future__ import annotations

import base64
import io
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from BrainLandmarksLib import __version__
from BrainLandmarksLib.cohort.derivatives import ASSUMED, Derivatives
from BrainLandmarksLib.cohort.table import ReportedScan, write_table
from BrainLandmarksLib.cohort.viewer import INSTALL, Bundle, find_bundle, nodes, small_head
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.atomic import atomic_write, need_writable

if TYPE_CHECKING:
    from BrainLandmarksLib.imaging.volume import Volume
    from BrainLandmarksLib.protocol.landmarks import LandmarkSet

REPORT_FILE = "cohort.html"
SHOWN = 20
"""Scans that the page has pictures of, unless another number is asked for."""

_NAMED = 6
_PICTURE_PIXELS = 1320
_PICTURE_QUALITY = 75

_PAGE = Path(__file__).parent / "page"

ScanProgress = Callable[[int, int, str], None]
"""Called with how many pictures are made, of how many, and the scan that is next."""


def write_report(
    results: Derivatives,
    path: str | os.PathLike[str] | None = None,
    *,
    raw: str | os.PathLike[str] | None = None,
    shown: int = SHOWN,
    progress: ScanProgress | None = None,
) -> Path:
    """Write the table and the page; returns the page's path.

    Args:
        path: The page; by default cohort.html in the folder of results.
        raw: The BIDS dataset, if it is no longer where it was.
        shown: How many scans get pictures, worst first; all are listed.
        progress: Called before each picture.

    Raises:
        UserError: there are no scans, or the page cannot be written.
    """
    target = Path(path) if path is not None else results.folder / REPORT_FILE
    if not target.parent.is_dir():
        raise UserError(f"the folder of {target} does not exist; create it first.")
    need_writable(target.parent)
    cases = sorted(
        (ReportedScan.of(record) for record in results.records()), key=lambda c: c.urgency
    )
    if not cases:
        raise UserError(f"{results.folder} has no scans yet; run brainlandmarks detect --bids.")
    write_table(results, sorted(cases, key=lambda case: case.record.scan.place))
    source = Path(raw) if raw is not None else results.raw()
    bundle = find_bundle()
    drawn = [number for number, case in enumerate(cases) if case.status != "failed"][:shown]
    pages: list[dict[str, Any]] = []
    for number, case in enumerate(cases):
        entry = _listed(case)
        if number in drawn:
            if progress is not None:
                progress(drawn.index(number), len(drawn), case.record.scan.entities)
            entry |= _drawn(case, source, bundle)
        pages.append(entry)
    text = _render(results, pages, bundle)
    with atomic_write(target) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
    return target


def _listed(case: ReportedScan) -> dict[str, Any]:
    """What the list says of a scan."""
    record = case.record
    entry: dict[str, Any] = {
        "name": f"{record.scan.entities}_{record.scan.suffix}",
        "status": case.status,
        "warnings": case.warnings,
        "worst": [],
        "picture": "",
        "head": "",
        "note": "",
    }
    if record.landmarks is None or record.deviation is None:
        return entry
    protocol = record.landmarks.protocol
    for row in case.worst[:_NAMED]:
        landmark = protocol.landmarks[row]
        entry["worst"].append(
            {
                "label": landmark.label,
                "name": landmark.name,
                "color": protocol.group_of(landmark).color,
                "confidence": float(record.landmarks.confidence[row]),
                "deviation": float(record.deviation[row]),
            }
        )
    return entry


def _drawn(case: ReportedScan, source: Path | None, bundle: Bundle | None) -> dict[str, Any]:
    """The picture of a scan, and what the viewer needs."""
    from BrainLandmarksLib.io.images import read_image

    record = case.record
    assert record.landmarks is not None
    if source is None:
        return {"note": "There is no picture: the BIDS dataset is not where it was; see --bids."}
    try:
        assumed = (record.about or {}).get(ASSUMED)
        volume = read_image(source / record.scan.path, assume_orientation=assumed)
    except UserError:
        return {"note": "There is no picture: the image cannot be read any more."}
    entry: dict[str, Any] = {"picture": _picture(volume, record.landmarks)}
    if bundle is not None:
        entry |= {"head": small_head(volume), "nodes": nodes(record.landmarks)}
    return entry


def _picture(volume: Volume, landmarks: LandmarkSet) -> str:
    """Base64 of a JPEG of the slices with their landmarks."""
    from PIL import Image

    from BrainLandmarksLib.figures.slices import draw_landmarks

    with tempfile.TemporaryDirectory(prefix="brainlandmarks-") as folder:
        path = Path(folder) / "head.png"
        draw_landmarks(volume, landmarks, path)
        with Image.open(path) as image:
            height = round(image.height * _PICTURE_PIXELS / image.width)
            small = image.convert("RGB").resize((_PICTURE_PIXELS, height), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=_PICTURE_QUALITY)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _render(results: Derivatives, cases: Sequence[dict[str, Any]], bundle: Bundle | None) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    counts = {
        status: sum(case["status"] == status for case in cases)
        for status in ("failed", "check", "ok")
    }
    return environment.get_template("cohort.html").render(
        cases=cases,
        counts=counts,
        protocol=results.protocol,
        bundle=bundle,
        install=INSTALL,
        version=__version__,
    )
