"""The two reports of the command: from options to files."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from BrainLandmarksLib.detection import Detector
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.atomic import atomic_writes
from BrainLandmarksLib.io.images import read_image, stem
from BrainLandmarksLib.network.model_files import load_model
from BrainLandmarksTrainLib.augmentation.contact_sheet import SheetRow, draw_contact_sheet

from .conditions import FAMILIES, Family
from .results import CLEAN, write_results
from .retest import Rescan, retest, write_retest
from .runner import OnScan, Plan, measure, varied
from .scans import DatasetScans, HeldOutScans, Scan, Scans

SHEET_FILE = "conditions.png"
_SHEET_MM = 1.5


def robustness_report(
    model: str,
    folder: Path,
    *,
    label_maps: Sequence[Path] | None = None,
    heads: Sequence[str] | None = None,
    scans_per_head: int = 1,
    dataset: Path | None = None,
    split: str = "test",
    conditions: Sequence[str] | None = None,
    sheet: bool = False,
    seed: int = 0,
    quality: str = "standard",
    device: str = "auto",
    workers: int | None = None,
    on_scan: OnScan = lambda done, total, name: None,
) -> str:
    """Measure a model in all conditions and write the report.

    Args:
        model: Name of a shipped model or a model folder.
        label_maps: Label maps to render held-out heads from; else a dataset is measured.
        conditions: Names of families (`conditions.FAMILIES`); all by default.
        sheet: Draw the first scan in every condition.

    Returns:
        The page, Markdown.

    Raises:
        UserError: an argument is wrong, or the model, a scan or the folder cannot be used.
    """
    families = chosen(conditions)
    loaded = load_model(model)
    scans: Scans
    if label_maps:
        cache = folder / "annotations"
        scans = HeldOutScans.of(loaded, label_maps, cache, heads, scans_per_head, seed)
        of_what = f"Synthetic T1 scans of held-out heads: {', '.join(scans.names)}"
    elif dataset is not None:
        scans = DatasetScans(dataset, split)
        scans.check(loaded.protocol)
        of_what = f"{len(scans.names)} scans of the dataset (split: {split})"
    else:
        raise ValueError("label maps or a dataset must be given")
    plan = Plan(model, scans, seed, families, quality, device)
    results = measure(plan, folder, workers=workers, on_scan=on_scan)
    about = (
        f"{of_what}; the same in every condition; quality {quality}, seed {seed}. Radial errors in "
        "mm over all landmarks that were found. The change is the mean difference from the same "
        "landmarks on the scans as they are, with its 95 % interval (bootstrap over scans). Missed "
        "are landmarks that are in the image and were not found."
    )
    title = f"Robustness of {loaded.spec.name}"
    with atomic_writes(folder) as unfinished:
        page = write_results(results, unfinished, title, about)
        if sheet:
            draw_conditions(scans.read(0), plan.usable, seed, unfinished / SHEET_FILE)
    return page


def chosen(names: Sequence[str] | None) -> tuple[Family, ...]:
    """Families by their names, in their usual order; all without names.

    Raises:
        UserError: there is no such family.
    """
    known = [family.name for family in FAMILIES]
    for name in names or ():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise UserError(
                f"--conditions does not know {name!r}; did you mean {near!r}? There are "
                f"{', '.join(known)}."
            )
    return tuple(family for family in FAMILIES if not names or family.name in names)


def draw_conditions(scan: Scan, families: Sequence[Family], seed: int, path: Path) -> None:
    """Draw a scan in every condition, landmarks in red.

    Raises:
        UserError: the file cannot be written.
    """
    rows = [SheetRow(CLEAN, scan.name, _small(scan.volume), scan.truth)]
    for family in families:
        for strength in family.strengths:
            try:
                worse = varied(scan, family, strength, seed, 0)
            except UserError:
                continue  # this scan cannot be put into it; the table says so
            text = strength if isinstance(strength, str) else f"{strength:g}"
            note = textwrap.fill(f"{text} {family.unit}".strip(), 20)
            rows.append(SheetRow(family.title, note, _small(worse.volume), worse.truth))
    draw_contact_sheet(rows, path)


def _small(volume: Volume) -> Volume:
    """Coarse enough for a small picture, so that dozens fit into memory."""
    factors = np.maximum(1, np.floor(_SHEET_MM / volume.grid.spacing)).astype(int)
    if factors.max() == 1:
        return volume
    grid = volume.grid.coarser(factors, np.array(volume.grid.shape) // factors)
    return Volume(resample(volume, grid), grid)


def retest_report(
    model: str,
    paths: Sequence[Path],
    folder: Path,
    rescan: Rescan,
    *,
    quality: str = "standard",
    device: str = "auto",
    on_scan: Callable[[int, int, str], None] = lambda done, total, name: None,
    read: Callable[[Path], Volume] = read_image,
) -> str:
    """Scan images again and again, measure how far the landmarks move, and write the report.

    Returns:
        The page, Markdown.

    Raises:
        UserError: the model, an image or the folder cannot be used.
    """
    detector = Detector(model, device)
    images = [(stem(path), read(path)) for path in paths]
    result = retest(detector, images, rescan, quality=quality, on_scan=on_scan)
    voxels = "as a survey" if rescan.survey else "resampled"
    about = (
        f"{rescan.repetitions} repetitions of each image: turned by up to "
        f"{rescan.rotation_deg:g} degrees about and shifted by up to {rescan.translation_mm:g} mm "
        f"along each axis, {voxels}, with noise of {100 * rescan.noise:g} % of the bright tissue; "
        f"quality {quality}, seed {rescan.seed}. Distance of each landmark from that of the image "
        "as it is, moved along, in mm."
    )
    with atomic_writes(folder) as unfinished:
        return write_retest(result, unfinished, f"Test-retest of {detector.model.spec.name}", about)
