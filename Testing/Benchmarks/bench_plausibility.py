"""What is a head and what is not: the deviations behind the limits in detection/plausibility.

    python Testing/Benchmarks/bench_plausibility.py [IMAGE ...]

For the sample head in many conditions, for made-up images of no head, and for images of yours:
the deviation of the locator's points and of the fine network's, both as the header says that the
head lies, without a search for another orientation. docs/plausibility.md has the table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from BrainLandmarksLib import resources
from BrainLandmarksLib.detection import QUALITIES, Detector
from BrainLandmarksLib.detection.plausibility import plausibility_of
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.images import read_image

RNG = np.random.default_rng(0)


def main() -> None:
    """Print a line for each image."""
    detector = Detector("brain88", "cpu")
    print(f"{'image':<28} {'locator':>8} {'fine':>6} {'plausibility':>13}")
    for name, make in {**heads(), **no_heads(), **given()}.items():
        work = detector._begun(make(), QUALITIES["fast"], lambda *_: None)
        located = detector._located(work, work.pose)
        seen = detector._upright(work, located.pose)
        first = detector.judge.misfit(located.points)
        last = detector.judge.misfit(seen.points)
        print(f"{name:<28} {first:8.2f} {last:6.2f} {plausibility_of(last):13.3f}", flush=True)


def given() -> dict[str, Callable[[], Volume]]:
    """The images of the command line, by number: their names may be a person's."""
    return {f"image {n}": lambda p=path: read_image(p) for n, path in enumerate(sys.argv[1:], 1)}


def heads() -> dict[str, Callable[[], Volume]]:
    """Images that show a head, whole or nearly."""
    return {
        "sample head": sample,
        "turned 20 degrees each way": lambda: turned(20, 20, -20),
        "yaw 45": lambda: turned(45, 0, 0),
        "axial slices of 6 mm": lambda: sampled(1, 1, 6),
        "coronal slices of 8 mm": lambda: sampled(2, 8, 2),
        "without the top fifth": lambda: part((0, 0, 0), (1, 1, 0.8)),
    }


def no_heads() -> dict[str, Callable[[], Volume]]:
    """Images that show none, half of one, or one that lies wrong."""
    return {
        "yaw 90": lambda: turned(90, 0, 0),
        "yaw 180": lambda: turned(180, 0, 0),
        "pitch -90": lambda: turned(0, -90, 0),
        "roll 90": lambda: turned(0, 0, 90),
        "left half": lambda: part((0, 0, 0), (0.5, 1, 1)),
        "front half": lambda: part((0, 0.5, 0), (1, 1, 1)),
        "top half": lambda: part((0, 0, 0.5), (1, 1, 1)),
        "ball": ball,
        "mask of the head": mask,
        "noise": lambda: made(RNG.random((128, 128, 128))),
        "smooth noise": lambda: made(gaussian_filter(RNG.normal(size=(128, 128, 128)), 6)),
    }


def sample() -> Volume:
    """The sample head."""
    return read_image(resources.sample_head())


def turned(yaw: float, pitch: float, roll: float) -> Volume:
    """The sample head under a header that turns it, degrees."""
    head, affine = sample(), np.eye(4)
    affine[:3, :3] = Rotation.from_euler("zxy", [yaw, pitch, roll], degrees=True).as_matrix()
    return Volume(head.data, Grid(head.grid.shape, affine @ head.grid.affine))


def sampled(*spacing: float) -> Volume:
    """The sample head in other voxels, mm."""
    head = sample()
    shape = tuple(int(e // s) for e, s in zip(head.grid.extent, spacing, strict=True))
    affine = head.grid.affine.copy()
    affine[:3, :3] *= np.array(spacing) / head.grid.spacing
    grid = Grid(shape, affine)
    return Volume(resample(head, grid), grid)


def part(low: tuple[float, ...], high: tuple[float, ...]) -> Volume:
    """A box of the sample head, as shares of its sides."""
    head = sample()
    first, last = ((np.array(head.grid.shape) * share).astype(int) for share in (low, high))
    data = head.data[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
    return Volume(np.ascontiguousarray(data), head.grid.window(first, data.shape))


def mask() -> Volume:
    """Where the sample head is tissue, all alike."""
    head = sample()
    level = np.percentile(head.data, 99) / 10
    return Volume((100.0 * (head.data > level)).astype(np.float32), head.grid)


def made(data: np.ndarray) -> Volume:
    """An image of 2 mm voxels in RAS order, its darkest voxel at 0."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -(np.array(data.shape) - 1)
    return Volume((100 * (data - data.min())).astype(np.float32), Grid(data.shape, affine))


def ball() -> Volume:
    """A ball the size of a head."""
    index = np.indices((128, 128, 128)) - 63.5
    return made((np.sqrt((index**2).sum(axis=0)) < 43).astype(float))


if __name__ == "__main__":
    main()
