"""Registration by landmarks: how exact, and beside ANTsPy how fast and how often it arrives.

    python Testing/Benchmarks/bench_registration.py
    python Testing/Benchmarks/bench_registration.py --moving-afids COLIN27.fcsv \
        --template MNI152.nii.gz MNI152.fcsv --template MNI305.nii MNI305.fcsv

1. The sample head is moved rigidly, resampled and given noise; rigid registration should undo it.
2. With expert points (AFIDs): the sample head is brought onto templates by the landmarks of this
   program, and the experts' points of the sample head, which had no say, are compared with those of
   the template.
3. Where ANTsPy is installed: its affine and SyN take how long, and does its affine arrive from its
   own start and from ours, if the head is turned by 60 degrees?
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from BrainLandmarksLib import resources
from BrainLandmarksLib.cli.heads import is_landmark_file
from BrainLandmarksLib.detection import Detector
from BrainLandmarksLib.geometry.affine import FloatArray, apply_affine
from BrainLandmarksLib.geometry.alignment import rigid_fit
from BrainLandmarksLib.geometry.grid import cube
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.io.images.writing import write_image
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.io.transforms import read_linear, write_linear
from BrainLandmarksLib.network.landmark_errors import LandmarkErrors
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.registration.register import KINDS, register
from BrainLandmarksTrainLib.evaluation.robustness.retest import Rescan

ANTS_SIZE = 120
"""Voxels of 2 mm along each edge of the images that ANTsPy gets."""

TURN_DEG = 60.0
ARRIVED_MM = 5.0
"""A registration has arrived if the head lies this near to where it belongs, on average."""


def main() -> None:
    """Print a table for each question."""
    arguments = parsed()
    bench = Bench(arguments.quality)
    bench.moved_copies(arguments.repetitions)
    if arguments.moving_afids:
        bench.templates(arguments.moving_afids, arguments.template)
    try:
        import ants
    except ImportError:
        print("ANTsPy is not installed (pip install antspyx), so nothing is compared with it")
        return
    bench.beside_ants(ants, arguments.turns, arguments.syn)


def parsed() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quality", default="standard", help="of the detections")
    parser.add_argument("--repetitions", type=int, default=3, help="moved copies")
    parser.add_argument("--turns", type=int, default=5, help="heads turned by 60 degrees")
    parser.add_argument("--syn", action="store_true", help="time ANTsPy's SyN once, too")
    parser.add_argument("--moving-afids", type=Path, help="the experts' points of Colin27")
    parser.add_argument(
        "--template", action="append", nargs=2, default=[], metavar=("HEAD", "AFIDS"),
        help="a template, or the landmarks found on it, and the experts' points of it",
    )  # fmt: skip
    return parser.parse_args()


class Bench:
    """The sample head, its landmarks, and what finds them."""

    def __init__(self, quality: str) -> None:
        self.quality = quality
        self.detector = Detector("brain88", "cpu")
        self.errors = LandmarkErrors.of_model("brain88", self.detector.model.protocol)
        self.volume = read_image(resources.sample_head())
        self.landmarks = self.found(self.volume)

    def found(self, volume: Volume) -> LandmarkSet:
        """The landmarks of an image."""
        return self.detector.detect(volume, quality=self.quality).landmarks

    def moved_copies(self, repetitions: int) -> None:
        """Rigid registration of copies whose motion is known."""
        print(f"rigid registration of moved copies of the sample head, quality {self.quality}, mm")
        rescan = Rescan(repetitions=repetitions)
        for number in range(repetitions):
            again, expected = rescan.again(self.volume, self.landmarks, number)
            truth = rigid_fit(expected, self.landmarks.points)
            fit = register(self.found(again), self.landmarks, "rigid", self.errors, self.errors)
            at = expected[np.isfinite(expected).all(axis=1)]
            off = np.linalg.norm(fit.carried(at) - apply_affine(truth, at), axis=1)
            estimate = float(np.sqrt(np.nanmean(fit.target_errors**2)))
            print(
                f"  copy {number + 1}: mean {off.mean():.3f}, largest {off.max():.3f}, "
                f"estimated {estimate:.3f}",
                flush=True,
            )

    def templates(self, moving_afids: Path, templates: list[list[str]]) -> None:
        """Registrations to templates, by the distance of experts' points that had no say."""
        afids = load_protocol("afids32")
        own = read_landmarks(moving_afids, afids).points
        print(f"{'sample head to template':<34} {'AFIDs, mm':>10}  before " + "  ".join(KINDS))
        for head, experts in templates:
            landmarks = (
                read_landmarks(head, self.landmarks.protocol, any_pose=True)
                if is_landmark_file(head)
                else self.found(read_image(head))
            )
            there = read_landmarks(experts, afids).points
            values = [_mean(own, there)]
            for kind in KINDS:
                fit = register(self.landmarks, landmarks, kind, self.errors, self.errors)
                values.append(_mean(fit.carried(own), there))
            best = _mean(apply_affine(_affine_of(own, there), own), there)
            text = "  ".join(f"{value:.2f}" for value in values)
            print(
                f"  {Path(head).name[:32]:<32} {text}  (affine by these points: {best:.2f})",
                flush=True,
            )

    def beside_ants(self, ants: Any, turns: int, syn: bool) -> None:
        """Times, and how often ANTsPy's affine arrives, from its own start and from ours."""
        print(f"affine registration of {turns} heads turned by {TURN_DEG:g} degrees about any axis")
        rng = np.random.default_rng(0)
        coarse = cube(self.volume.grid.center_ras, 2.0 * ANTS_SIZE, ANTS_SIZE)
        volume = Volume(resample(self.volume, coarse), coarse)
        arrived = {"its own start": 0, "our start": 0, "ours alone": 0}
        seconds: dict[str, list[float]] = {}
        for number in range(turns):
            axis = rng.normal(size=3)
            turn = np.eye(4)
            turn[:3, :3] = Rotation.from_rotvec(
                np.deg2rad(TURN_DEG) * axis / np.linalg.norm(axis)
            ).as_matrix()
            # The head is turned by its header: not a voxel is interpolated.
            turned = Volume(volume.data, volume.grid.moved(turn))
            start = time.perf_counter()
            fit = register(self.found(turned), self.landmarks, "affine", self.errors, self.errors)
            seconds.setdefault("ours, detection of one head included", []).append(
                time.perf_counter() - start
            )
            with tempfile.TemporaryDirectory() as name:
                ours = _ants_runs(ants, Path(name), turned, volume, fit.affine, syn and number == 0)
            off = {"ours alone": self._off(fit.affine @ turn)}
            for what, (affine, passed) in ours.items():
                seconds.setdefault(what, []).append(passed)
                if affine is not None:
                    off[what] = self._off(affine @ turn)
            for what, mm in off.items():
                arrived[what] += mm <= ARRIVED_MM
            text = ", ".join(f"{what} {mm:.1f}" for what, mm in off.items())
            print(f"  head {number + 1}, mm from where it belongs: {text}", flush=True)
        for what, count in arrived.items():
            print(f"  {what:<38} {count} of {turns} arrived")
        for what, values in seconds.items():
            print(f"  {what:<38} {np.median(values):.1f} s")

    def _off(self, affine: FloatArray) -> float:
        """Mean distance of the head from where it belongs, mm."""
        points = self.landmarks.points[~self.landmarks.missing]
        return float(np.linalg.norm(apply_affine(affine, points) - points, axis=1).mean())


def _ants_runs(
    ants: Any, folder: Path, moving: Volume, fixed: Volume, ours: FloatArray, syn: bool
) -> dict[str, tuple[FloatArray | None, float]]:
    """What ANTsPy makes of two images: its affine, and how long that took."""
    write_image(folder / "moving.nii.gz", moving.data, moving.grid)
    write_image(folder / "fixed.nii.gz", fixed.data, fixed.grid)
    write_linear(folder / "start.mat.tfm", ours)
    images = [ants.image_read(str(folder / f"{name}.nii.gz")) for name in ("fixed", "moving")]
    found: dict[str, tuple[FloatArray | None, float]] = {}
    runs = {
        "its own start": ("Affine", None),
        "our start": ("Affine", str(folder / "start.mat.tfm")),
    }
    if syn:
        runs["SyN from our start"] = ("SyN", str(folder / "start.mat.tfm"))
    for what, (kind, start) in runs.items():
        began = time.perf_counter()
        result = ants.registration(
            *images, type_of_transform=kind, initial_transform=start, random_seed=1,
            outprefix=str(folder / what.replace(" ", "_")),
        )  # fmt: skip
        passed = time.perf_counter() - began
        affine = None
        if kind == "Affine":
            affine = np.eye(4)
            # A point of the fixed image goes through the first of them first.
            for path in result["fwdtransforms"]:
                affine = affine @ read_linear(path)
        found[what] = affine, passed
    return found


def _affine_of(a: FloatArray, b: FloatArray) -> FloatArray:
    from BrainLandmarksLib.geometry.alignment import affine_fit

    return affine_fit(a, b)


def _mean(a: FloatArray, b: FloatArray) -> float:
    return float(np.nanmean(np.linalg.norm(a - b, axis=1)))


if __name__ == "__main__":
    main()
