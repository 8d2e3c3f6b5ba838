"""Moving landmarks with an augmented image: exactly, against the paper's Algorithm 1.

    python Testing/Benchmarks/bench_augmentation.py

The sample head at the paper's size, 224 x 224 x 101 voxels of 1 x 1 x 2.2 mm, with 88 landmarks.
Algorithm 1 transforms one faux volume for each landmark; a few of them are timed and the time is
scaled to 88. Then how well the two agree: 20 random transforms of the head at 4 mm, every eighth
landmark, once at voxel centres and once where they are.
"""

from __future__ import annotations

import numpy as np
from timing import median_seconds, seconds

from BrainLandmarksLib import resources
from BrainLandmarksLib.geometry.grid import Grid, cube
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksTrainLib.augmentation import (
    AugmentationConfig,
    AugmentWithLandmarks,
    by_faux_volumes,
    regenerate,
)
from BrainLandmarksTrainLib.augmentation.augment import centred_image
from BrainLandmarksTrainLib.augmentation.config import TRANSFORMS, Policy
from BrainLandmarksTrainLib.augmentation.landmark_transform import moved_points

SHAPE, SPACING = (224, 224, 101), (1.0, 1.0, 2.2)
TIMED = 4
REPEATS = 3


def survey() -> tuple[Volume, LandmarkSet]:
    """The sample head on the paper's grid, with landmarks at random voxels of its brain."""
    head = read_image(resources.sample_head())
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = head.grid.center_ras - affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    grid = Grid(SHAPE, affine)
    protocol = load_protocol("brain88")
    places = head.grid.center_ras + np.random.default_rng(0).uniform(-60, 60, (len(protocol), 3))
    places = grid.ijk_to_ras(np.rint(grid.ras_to_ijk(places)))
    return Volume(resample(head, grid), grid), LandmarkSet.from_points(protocol, places, "truth")


def agreement() -> None:
    """Print how far the two ways are apart, in voxels."""
    head = read_image(resources.sample_head())
    grid = cube(head.grid.center_ras, 224, 56)
    volume = Volume(resample(head, grid), grid)
    _, landmarks = survey()
    print("distance between the two in voxels, 20 random transforms of each kind")
    print("                             median  95 %   max  wiped out")
    for name in ("affine", "elastic", "anisotropy"):
        config = AugmentationConfig(policies={"alone": Policy(1.0, (name,))})
        for place in ("at voxel centres", "anywhere"):
            points = landmarks.points + np.random.default_rng(1).uniform(
                -2, 2, landmarks.points.shape
            )
            if place != "anywhere":
                points = grid.ijk_to_ras(np.rint(grid.ras_to_ijk(points)))
            points[np.arange(len(points)) % 8 != 0] = np.nan
            some = LandmarkSet.from_points(landmarks.protocol, points, "truth")
            apart, wiped, total = [], 0, 0
            for seed in range(20):
                varied = AugmentWithLandmarks(config)(volume, some, seed)
                faux = by_faux_volumes(varied.record.steps, volume, some)
                distances = np.linalg.norm(varied.landmarks.points - faux.landmarks.points, axis=1)
                apart += (distances[np.isfinite(distances)] / grid.spacing[0]).tolist()
                wiped += len(set(faux.wiped_out) - set(varied.record.outside))
                total += int((~varied.landmarks.missing).sum())
            middle, most, worst = np.percentile(apart, [50, 95, 100])
            print(
                f"  {name + ', ' + place:28s} {middle:4.2f}  {most:5.2f} {worst:5.2f}"
                f"  {wiped} of {total}"
            )


def main() -> None:
    """Print times, ratios and agreement for each transform that moves anatomy."""
    volume, landmarks = survey()
    some = landmarks.points.copy()
    some[TIMED:] = np.nan
    few = LandmarkSet.from_points(landmarks.protocol, some, "truth")
    count = len(landmarks)
    print(f"{count} landmarks on {' x '.join(map(str, SHAPE))} voxels")
    for name in ("affine", "elastic"):
        config = AugmentationConfig(policies={"alone": Policy(1.0, (name,))})
        varied = AugmentWithLandmarks(config)(volume, landmarks, seed=1)
        (step,) = varied.record.steps
        transform, image = TRANSFORMS[name].build(step.parameters), centred_image(volume)
        points = landmarks.points - volume.grid.center_ras
        exact = median_seconds(
            lambda t=transform, i=image, p=points: moved_points(t, i, p), REPEATS
        )
        literal = seconds(lambda s=step: by_faux_volumes([s], volume, few)) * count / TIMED
        whole = seconds(lambda r=varied.record: regenerate(r, volume, landmarks))
        found = by_faux_volumes([step], volume, few).landmarks.points
        apart = np.linalg.norm((found - varied.landmarks.points)[:TIMED] / SPACING, axis=1)
        print(f"{name}")
        print(f"  exact                      {1000 * exact:.1f} ms")
        print(f"  algorithm 1                {literal:.1f} s ({TIMED} timed, x {count / TIMED:g})")
        print(f"  ratio algorithm 1 / exact  {literal / exact:.0f}")
        both = whole - exact + literal
        print(f"  image and landmarks        {whole:.1f} s; with algorithm 1 {both:.1f} s")
        print(f"  ratio of these             {both / whole:.0f}")
        print(f"  furthest apart             {np.nanmax(apart):.2f} voxels")
    agreement()


if __name__ == "__main__":
    main()
