"""A demonstration set of any size: deformed label maps, annotated by rule, rendered as T1 scans.

Everything that can be done with patients' scans can be tried on it: training, evaluation, and, with
simulated raters, agreement and correction.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.dataset.dataset import need_empty
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.landmarks import write_landmarks
from BrainLandmarksLib.network.model_files import load_model
from BrainLandmarksLib.processes import process_pool
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review

from .deformed_copies import deformed
from .label_maps import PROTOCOL, AnnotatedMap, find_label_maps, read_annotated
from .rendering import render_scan
from .simulated_rater import Rater

_MOST_GREY = 1000.0

OnHead = Callable[[int, int, str], None]
"""Called with the number of heads done, of all, and the name of the next."""


def synthesize(
    label_maps: Sequence[Path],
    heads: int,
    folder: Path,
    *,
    seed: int = 0,
    raters: int = 0,
    workers: int | None = None,
    on_head: OnHead = lambda done, total, name: None,
) -> Dataset:
    """Make a dataset of synthetic heads in a new folder.

    The label maps take turns. A head's subject is the map that it descends from, by number: its
    deformed copies look alike, so a split must not tear them apart.

    Args:
        label_maps: FreeSurfer-numbered maps of whole heads, or folders of them.
        heads: how many.
        seed: what is drawn depends on it, on the maps and on the number of the head alone.
        raters: how many simulated people annotate all heads, in ``raters/A``, ``raters/B`` ...
        workers: processes; by default one for each processor.

    Raises:
        UserError: no head is asked for, a label map cannot be used, or the folder is not empty.
    """
    if heads < 1 or not 0 <= raters <= 26:
        raise UserError("a set needs one head at least, and up to 26 raters; check the numbers.")
    need_empty(folder)
    paths = find_label_maps(label_maps)[:heads]
    protocol = load_protocol(PROTOCOL)
    shape = load_model(PROTOCOL).spec.mean_shape
    with tempfile.TemporaryDirectory() as cache:
        parents = read_annotated(paths, protocol, Path(cache))
    dataset = Dataset.create(folder, protocol)
    tasks = [(parents[k % len(parents)], k) for k in range(heads)]
    make = partial(_head, mean_shape=shape, mirror=protocol.mirror_permutation(), seed=seed)
    for number, (volume, points) in enumerate(_all(make, tasks, workers or os.cpu_count() or 1)):
        on_head(number, heads, f"head {number + 1}")
        subject = f"map{number % len(parents) + 1:02d}"
        truth = LandmarkSet.from_points(protocol, points, "truth")
        origin = {"made_by": "brainlandmarks dataset synthesize", "seed": seed, "head": number}
        dataset.add(volume, Review.of(truth), subject=subject, origin=origin)
    on_head(heads, heads, "")
    note = {"what": "synthesized", "label_maps": len(parents), "heads": heads, "seed": seed}
    dataset.update(dataset.entries, note)
    write_raters(dataset, raters, seed)
    return dataset


def _all(
    make: Callable[[AnnotatedMap, int], tuple[Volume, FloatArray]],
    tasks: Sequence[tuple[AnnotatedMap, int]],
    workers: int,
) -> Iterator[tuple[Volume, FloatArray]]:
    """The heads in order; in this process with one worker."""
    if workers == 1:
        yield from (make(*task) for task in tasks)
        return
    with process_pool(workers, torch.set_num_threads, (1,)) as pool:
        yield from pool.map(make, *zip(*tasks))


def write_raters(dataset: Dataset, count: int, seed: int) -> None:
    """Annotations of a dataset's heads by simulated people: ``raters/A/0001.mrk.json`` and so on.

    Raises:
        UserError: the folder cannot be written to.
    """
    protocol = dataset.protocol
    for number in range(count):
        name = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[number]
        folder = dataset.folder / "raters" / name
        folder.mkdir(parents=True, exist_ok=True)
        rater = Rater.random(protocol, np.random.default_rng([seed, number]))
        for entry in dataset.entries:
            truth = dataset.read_landmarks(entry).current.points
            rng = np.random.default_rng([seed, number, int(entry.identity)])
            marked = LandmarkSet.from_points(protocol, rater.annotate(truth, rng), "edited")
            write_landmarks(folder / f"{entry.identity}.mrk.json", marked)


def _head(
    parent: AnnotatedMap, number: int, *, mean_shape: FloatArray, mirror: np.ndarray, seed: int
) -> tuple[Volume, FloatArray]:
    """One head's scan, in whole numbers as scanners write them, and its landmarks, RAS mm."""
    child = deformed(parent, mean_shape, seed * 100_000 + number)
    rng = np.random.default_rng([seed, number])
    volume, points = render_scan(child.head(mean_shape), mirror, rng)
    scale = _MOST_GREY / max(float(volume.data.max()), 1e-6)
    return Volume(np.rint(volume.data * scale).astype(np.float32), volume.grid), points
