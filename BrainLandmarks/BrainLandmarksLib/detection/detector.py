"""From an image of a head to its landmarks: locate the head, find the landmarks, refine them.

A coarse network, the locator, sees the whole head in any pose; the rigid fit of the model's mean
landmark shape to what it finds gives the pose of the head. The fine network then sees the head
upright, and once more in the pose that its own landmarks give. If the result is no plausible head
(:mod:`.plausibility`), the locator tries the other axis-aligned orientations. A refinement network,
where the model has one, sees boxes in finer voxels (:mod:`.refinement`). The input of every pass is
resampled from the original image. Heatmaps stay on the network's grid; only coordinates go back to
the image, where the protocol's constraints (shared planes, equal spacing) are enforced.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from BrainLandmarksLib import resources
from BrainLandmarksLib.annotation.eye_landmarks import (
    globes_of,
    on_globes,
    without_lost_eyes,
)
from BrainLandmarksLib.detection import absent
from BrainLandmarksLib.detection.plausibility import LOCATOR_LIMIT, Judge, weakened
from BrainLandmarksLib.detection.refinement import MARGIN, PRIOR_MM, boxes, with_prior
from BrainLandmarksLib.errors import ImplausibleError, UserError
from BrainLandmarksLib.geometry.affine import (
    FloatArray,
    apply_affine,
    axis_rotations,
)
from BrainLandmarksLib.geometry.alignment import rigid_fit
from BrainLandmarksLib.geometry.grid import Grid, cube
from BrainLandmarksLib.imaging.foreground import foreground
from BrainLandmarksLib.imaging.intensity import normalise
from BrainLandmarksLib.imaging.preprocessing import preprocessed
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.network import decoding
from BrainLandmarksLib.network.device import choose_device
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.network.inference import (
    FoldedHighRes3DNet,
    bfloat16_is_fast,
    fold_batch_norm,
    inference_heatmaps,
    keep_freed_memory,
)
from BrainLandmarksLib.network.model_files import CropSpec, Model, load_model
from BrainLandmarksLib.protocol.constraints import constrained
from BrainLandmarksLib.protocol.landmarks import PLAUSIBLE, LandmarkSet, is_plausible

LOCATOR_PASSES = 2
"""The locator runs this often, each time on a cube placed by the pass before."""

WITHOUT_DOUBT = 0.98
"""Heads that lie as the last pass took them to have at least this plausibility."""

FINE_PASSES = 2
"""The fine network runs this often: its own landmarks give a better pose than the locator's."""

_TURN_DEG = 5.0
_TURN_AXES = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
"""Towards the corners of a tetrahedron: what one turn does to a point, the others undo."""


@dataclass(frozen=True)
class Quality:
    """How much work goes into a detection.

    Args:
        passes: Passes of the fine network over the upright head, each in the pose that the pass
            before gives.
        turned: Passes over the head turned a little, each in another direction; their points are
            averaged with those of the last upright pass.
        refinement: Whether the refinement network, where the model has one, sees boxes round the
            points.
    """

    passes: int = FINE_PASSES
    turned: int = 0
    refinement: bool = False


QUALITIES = {
    "fast": Quality(1),
    "standard": Quality(refinement=True),
    "best": Quality(turned=4, refinement=True),
}
"""Qualities by the name that commands and requests use; the second is the usual one."""

DetectionProgress = Callable[[str, float], None]
"""Called with a stage, "prepare", "locate" or "detect", and the fraction of the work done."""

# Where the stages end, as a share of a detection on two CPU cores; good enough for a progress bar.
_PREPARED, _LOCATED = 0.1, 0.3

_HEAD_HEIGHT_MM = 170.0
_COARSE_MM = 4.0
_FIT_ROUNDS = 10
_FIT_SCALE_MM = 8.0
_NO_HEAD_MM = 35.0

IMPLAUSIBLE_NOTE = "no head was recognised in the image, so these landmarks are implausible"
TURNED_NOTE = (
    "the head does not lie as the image's header says; check whether left and right are right"
)


@dataclass(frozen=True)
class Detection:
    """What was found on one head.

    Args:
        landmarks: The landmarks in RAS millimetres; those whose anatomy the image does not show are
            missing, with a note that says why (:mod:`.absent`).
        pose: 4x4, from the model's mean head (head-centred RAS millimetres) to the image's RAS.
        input_cube: What the fine network saw in its last pass: normalised intensities on its cube.
        seconds: Time spent per stage: "prepare", "locate", "resample", "network" and "check".
        device: Where the network ran: "cpu", "cuda" or "mps".
        precision: What it computed in: "float32" or "bfloat16".
        notes: Sentences the user should see, such as a fall-back to the CPU.
        plausibility: How much what was found is a head, 0 to 1 (`plausibility.Judge`).
    """

    landmarks: LandmarkSet
    pose: FloatArray
    input_cube: Volume
    seconds: dict[str, float]
    device: str
    precision: str
    notes: tuple[str, ...] = ()
    plausibility: float = 1.0

    @property
    def plausible(self) -> bool:
        """Whether this is a head; False only where `Detector.detect` was forced."""
        return is_plausible(self.plausibility)


@dataclass
class _Stopwatch:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            passed = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + passed


@dataclass
class _Work:
    """One detection under way: what it is about, and whom to tell.

    Args:
        volume: The image as it was given.
        head: The same with air at zero.
        pose: A first guess of the head's pose.
        total: The work of all passes, in passes of the fine network.
    """

    volume: Volume
    head: Volume
    pose: FloatArray
    chosen: Quality
    total: float
    watch: _Stopwatch
    progress: DetectionProgress
    done: float = 0.0
    searched: bool = False

    def tell(self, stage: str, fraction: float) -> None:
        """Say what begins; after a search the way back is not told."""
        self.done = max(self.done, fraction)
        self.progress(stage, self.done)

    def on_pass(self, number: float) -> None:
        """Report that so many passes are done."""
        self.tell("detect", _LOCATED + (1 - _LOCATED) * number / self.total)


@dataclass(frozen=True)
class _Located:
    """What the locator says: its points, (K, 3) RAS mm, and the pose that they give."""

    points: FloatArray
    pose: FloatArray
    plausibility: float


@dataclass(frozen=True)
class _Seen:
    """The last upright pass of the fine network.

    Args:
        points: (K, 3) RAS mm, also outside the image.
        pose: Of the head in this pass.
    """

    points: FloatArray
    pose: FloatArray
    grid: Grid
    input_cube: npt.NDArray[np.float32]
    decoded: decoding.Decoded
    plausibility: float


@dataclass(frozen=True)
class Expected:
    """Where landmarks of a box are expected: their rows, (n, 3) ijk, standard deviation, voxels."""

    rows: npt.NDArray[np.intp]
    ijk: FloatArray
    sigma: float


class Detector:
    """Finds the landmarks of a model's protocol on images of heads.

    >>> detector = Detector("brain88")
    >>> detection = detector.detect(read_image("head.nii.gz"))
    >>> detection.landmarks.point("CC_G")
    array([ 0.6, 29.9,  4.1])

    Args:
        model: Name of a shipped model, a model folder, or a loaded model.
        device: "auto" (a CUDA GPU that runs a kernel, else the CPU), "cpu", "cuda" or "mps".
        precision: "auto" (bfloat16 where the hardware has it, else float32), "float32" or
            "bfloat16".

    Raises:
        UserError: there is no such model, it is damaged, or the device does not work.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Model = "brain88",
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        self._notes: list[str] = []
        self.device = choose_device(device)
        if device == "auto" and self.device.type == "cpu" and torch.cuda.is_available():
            self._notes.append("the GPU does not run this PyTorch, so the CPU does the work")
        self.model = model if isinstance(model, Model) else load_model(model)
        self.precision = precision
        self.judge = Judge(self.model.shape, self.model.spec.mean_shape)
        self._mirror = torch.from_numpy(self.model.protocol.mirror_permutation())
        self._networks = {
            part: _for_inference(network) for part, (network, _) in self.model.networks.items()
        }
        self._place(self.device)

    def detect(
        self,
        volume: Volume,
        *,
        quality: str | Quality = "standard",
        force: bool = False,
        progress: DetectionProgress | None = None,
    ) -> Detection:
        """Find the landmarks of one head.

        Args:
            volume: A T1-weighted image, any orientation, spacing and field of view.
            quality: How much work to do: one of `QUALITIES`, from the fastest to the most exact,
                or one of your own.
            force: Give what was found even where it is no head, and say so in the notes.
            progress: Called before each stage with its name and the fraction done (0 to 1). An
                exception that it raises ends the detection.

        Raises:
            ImplausibleError: what was found is no head, however the image is turned.
            UserError: the image is empty, or there is no such quality.
        """
        work = self._begun(volume, choose_quality(quality), progress or (lambda *_: None))
        seen = self._recognised(work)
        if not (force or is_plausible(seen.plausibility)):
            raise _no_head(seen.plausibility)
        points = self._averaged(work, seen)
        points = self._kept(work, points)
        part = "fine"
        if work.chosen.refinement and self.model.spec.refinement is not None:
            part = "refinement"
            points = self._kept(work, self._refined(work, seen.pose, points))
        points, remarks = self._checked(work, points, part)
        points[[bool(remark) for remark in remarks]] = np.nan
        work.tell("detect", 1.0)
        confidence = weakened(self._confidence(seen.decoded), seen.plausibility)
        if not is_plausible(seen.plausibility):
            self._notes.append(IMPLAUSIBLE_NOTE)
        notes, self._notes = (*volume.notes, *self._notes), []
        return Detection(
            LandmarkSet.from_points(self.model.protocol, points, "model", confidence, remarks),
            seen.pose,
            Volume(seen.input_cube, seen.grid),
            work.watch.seconds,
            self.device.type,
            self._precision_name(),
            notes,
            seen.plausibility,
        )

    def estimate(self, quality: str | Quality = "standard") -> float:
        """Seconds that `detect` will take on this machine, about.

        Every part of a detection runs once, on the sample head; the networks are warm afterwards.

        Raises:
            UserError: there is no such quality.
        """
        chosen = choose_quality(quality)
        volume = read_image(resources.sample_head())
        start = time.perf_counter()
        head, pose = _prepared(volume)
        seconds = time.perf_counter() - start
        counts = {"locator": LOCATOR_PASSES, "fine": chosen.passes + chosen.turned}
        counts["refinement"] = self._boxes if chosen.refinement else 0
        for name, (_, crop) in self.model.networks.items():
            count = counts[name]
            if not count:
                continue
            start = time.perf_counter()
            self._run(name, _input_cube(head, _posed_cube(pose, crop)))
            seconds += count * (time.perf_counter() - start)
        return seconds

    @property
    def _boxes(self) -> int:
        """How many boxes the refinement network sees of a head, about; 0 without one."""
        crop, mean = self.model.spec.refinement, self.model.spec.mean_shape
        return 0 if crop is None else len(list(boxes(mean, _inner_side(crop))))

    def _work(self, chosen: Quality) -> float:
        """The work of all passes, in passes of the fine network."""
        work = float(chosen.passes + chosen.turned)
        crop, fine = self.model.spec.refinement, self.model.spec.fine
        if chosen.refinement and crop is not None:
            work += self._boxes * (crop.size / fine.size) ** 3
        return work

    # The stages ----------------------------------------------------------------------------------

    def _begun(self, volume: Volume, chosen: Quality, progress: DetectionProgress) -> _Work:
        """The image made ready, and a first guess where the head is."""
        progress("prepare", 0.0)
        watch = _Stopwatch()
        with watch.stage("prepare"):
            head, pose = _prepared(volume)
        return _Work(volume, head, pose, chosen, self._work(chosen), watch, progress)

    def _recognised(self, work: _Work) -> _Seen:
        """The head upright; where that makes none, what the locator finds from other sides."""
        first, located = self._oriented(work)
        seen = self._upright(work, located.pose)
        if not is_plausible(seen.plausibility):
            # The locator was sure of a wrong orientation, or in doubt about the right one.
            other = first if work.searched else self._from_all_sides(work, first)
            if other is not located:
                again = self._upright(work, other.pose)
                if again.plausibility > seen.plausibility:
                    seen, located = again, other
        if located is not first and is_plausible(seen.plausibility):
            self._notes.append(TURNED_NOTE)
        return seen

    def _located(self, work: _Work, pose: FloatArray) -> _Located:
        """Where the locator sees the head, and in which pose.

        Args:
            pose: Where to begin.
        """
        with work.watch.stage("locate"):
            for number in range(LOCATOR_PASSES):
                work.tell("locate", _PREPARED + (_LOCATED - _PREPARED) * number / LOCATOR_PASSES)
                grid = _posed_cube(pose, self.model.spec.locator)
                decoded = self._run("locator", _input_cube(work.head, grid))
                pose = self._pose(decoded, grid, pose)
        points = _points(decoded, grid)
        return _Located(points, pose, self.judge(points, LOCATOR_LIMIT))

    def _oriented(self, work: _Work) -> tuple[_Located, _Located]:
        """What the locator sees if the head lies as its header says, and as the head does lie."""
        first = self._located(work, work.pose)
        if is_plausible(first.plausibility):
            return first, self._from_its_side(work, first)
        return first, self._from_all_sides(work, first)

    def _from_its_side(self, work: _Work, located: _Located) -> _Located:
        """What the locator sees of a head that it found to lie on a side, from that side.

        It can find such a head at once, but not as exactly as one that is upright to begin with.

        Returns:
            The more plausible of the two; ``located`` itself if it leaves no doubt, or if the head
            lies as the image's header says more than in any other orientation.
        """
        turned = located.pose[:3, :3]
        nearest = max(axis_rotations(), key=lambda rotation: float((rotation * turned).sum()))
        if located.plausibility >= WITHOUT_DOUBT or np.array_equal(nearest, np.eye(3)):
            return located
        with work.watch.stage("locate"):
            pose = _turned_guess(work.head, nearest)
        return max(self._located(work, pose), located, key=_plausibility)

    def _from_all_sides(self, work: _Work, located: _Located) -> _Located:
        """What the locator sees if the image lies on a side, upside down or back to front.

        Args:
            located: What it sees if the image lies as its header says.

        Returns:
            The most plausible of all; ``located`` itself if nothing is more so.
        """
        work.searched = True
        best, first = located.plausibility, None
        # One pass a side; many would see the same voxels, so they are made few before.
        head = _coarse(work.head, self.model.spec.locator)
        with work.watch.stage("locate"):
            for rotation in axis_rotations()[1:]:
                work.tell("locate", _LOCATED)
                pose = _turned_guess(head, rotation)
                grid = _posed_cube(pose, self.model.spec.locator)
                points = _points(self._run("locator", _input_cube(head, grid)), grid)
                plausibility = self.judge(points, LOCATOR_LIMIT)
                if plausibility > best:
                    best, first = plausibility, pose
        if first is None:
            return located
        return max(self._located(work, first), located, key=_plausibility)

    def _upright(self, work: _Work, pose: FloatArray) -> _Seen:
        """What the fine network sees of the upright head, each pass in the pose of the one before.

        Args:
            pose: Of the head, by the locator. If it is so far off that the last pass leaves doubt,
                another one follows.
        """
        for number in range(work.chosen.passes + 1):
            work.on_pass(min(number, work.chosen.passes - 1))
            grid = _posed_cube(pose, self.model.spec.fine)
            input_cube, decoded = self._see(work.head, grid, work.watch)
            points = _points(decoded, grid)
            plausibility = self.judge(points)
            doubted = PLAUSIBLE <= plausibility < WITHOUT_DOUBT
            if number + 1 >= work.chosen.passes and not doubted:
                break
            if number < work.chosen.passes:
                pose = self._pose(decoded, grid, pose)
        return _Seen(points, pose, grid, input_cube, decoded, plausibility)

    def _checked(self, work: _Work, points: FloatArray, part: str) -> tuple[FloatArray, list[str]]:
        """The points where they belong, and why the image does not show each, "" where it does.

        Those of eyes go onto the globes that the image shows, the others to where annotated scans
        taught that the points of the network ``part`` belong.

        Returns:
            (K, 3) RAS mm, NaN where missing, and K remarks.
        """
        protocol = self.model.protocol
        with work.watch.stage("check"):
            globes = globes_of(protocol, work.head, points, self.model.spec.mean_shape)
            points = on_globes(protocol, points, globes)
            if self.model.correction is not None:
                seen = without_lost_eyes(protocol, points, globes)
                corrected = self.model.correction(seen, part)
                points = np.where(np.isfinite(seen), corrected, points)
                points = on_globes(protocol, constrained(protocol, points), globes)
            points[~work.volume.grid.contains(points)] = np.nan
            return points, list(absent.reasons(protocol, work.head, points, globes))

    def _averaged(self, work: _Work, seen: _Seen) -> FloatArray:
        """(K, 3) RAS mm: means of the upright pass and of passes over the head turned a little."""
        every = [seen.points]
        for number in range(work.chosen.turned):
            work.on_pass(work.chosen.passes + number)
            aside = _turned_cube(seen.pose, self.model.spec.fine, number)
            # Every second one as in a mirror: what the network does on one side it then does on
            # the other.
            _, other = self._see(work.head, aside, work.watch, mirrored=number % 2 == 1)
            every.append(_points(other, aside))
        return np.asarray(np.mean(every, axis=0))

    def _kept(self, work: _Work, points: FloatArray) -> FloatArray:
        """The points within the image, those that share a plane or are equally spread made so."""
        points[~work.volume.grid.contains(points)] = np.nan
        return constrained(self.model.protocol, points)

    def _refined(self, work: _Work, pose: FloatArray, points: FloatArray) -> FloatArray:
        """Where the refinement network sees the points; missing ones stay missing."""
        crop = self.model.spec.refinement
        assert crop is not None
        before = work.chosen.passes + work.chosen.turned
        seen = points.copy()
        here = apply_affine(np.linalg.inv(pose), points)
        done, total = 0, max(int(np.isfinite(here).all(1).sum()), 1)
        for middle, rows in boxes(here, _inner_side(crop)):
            work.on_pass(before + (work.total - before) * done / total)
            at = pose.copy()
            at[:3, 3] = apply_affine(pose, middle[None])[0]
            grid = _posed_cube(at, crop)
            with work.watch.stage("resample"):
                input_cube = _input_cube(work.head, grid)
            with work.watch.stage("network"):
                expected = Expected(rows, grid.ras_to_ijk(points[rows]), PRIOR_MM / crop.voxel_mm)
                decoded = self._run("refinement", input_cube, expected=expected)
            seen[rows] = _points(decoded, grid)
            done += len(rows)
        return seen

    # The networks --------------------------------------------------------------------------------

    def _see(
        self, head: Volume, grid: Grid, watch: _Stopwatch, mirrored: bool = False
    ) -> tuple[npt.NDArray[np.float32], decoding.Decoded]:
        """What the fine network is shown on a cube, and what it makes of it."""
        with watch.stage("resample"):
            input_cube = _input_cube(head, grid)
        with watch.stage("network"):
            return input_cube, self._run("fine", input_cube, mirrored)

    def _pose(self, decoded: decoding.Decoded, grid: Grid, before: FloatArray) -> FloatArray:
        """Pose of the head by the landmarks of one pass, each trusted as far as it is sharp.

        Args:
            before: The pose of the pass, which stays where its points fit none.
        """
        weights = decoded.peak_mass[0].double().numpy()
        try:
            return fit_pose(self.model.spec.mean_shape, _points(decoded, grid), weights)
        except ImplausibleError:
            return before

    def _run(
        self,
        name: str,
        input_cube: npt.NDArray[np.float32],
        mirrored: bool = False,
        expected: Expected | None = None,
    ) -> decoding.Decoded:
        """Decoded heatmaps of one cube; on the CPU if the GPU's memory does not suffice.

        Args:
            mirrored: Show the cube to the network as in a mirror, and undo that afterwards.
            expected: What is known before; then only these landmarks are decoded.
        """
        try:
            return self._forward(name, input_cube, mirrored, expected)
        except torch.OutOfMemoryError:
            if self.device.type == "cpu":
                raise
            self._notes.append("the GPU's memory does not suffice, so the CPU does the work")
            self._place(torch.device("cpu"))
            return self._forward(name, input_cube, mirrored, expected)

    @torch.inference_mode()
    def _forward(
        self,
        name: str,
        input_cube: npt.NDArray[np.float32],
        mirrored: bool = False,
        expected: Expected | None = None,
    ) -> decoding.Decoded:
        network = self._networks[name]
        batch = torch.from_numpy(input_cube)[None, None].to(self.device)
        if mirrored:
            batch = batch.flip(2)
        if isinstance(network, FoldedHighRes3DNet):
            heatmaps = inference_heatmaps(network, batch, self.precision)
        else:
            heatmaps = network(batch)
        if expected is not None:
            guess = torch.from_numpy(expected.ijk)[None].to(heatmaps)
            heatmaps = with_prior(heatmaps[:, expected.rows], guess, expected.sigma)
        decoded = decoding.decode(
            heatmaps,
            inverse_temperature=self.model.spec.inverse_temperature if name == "fine" else 1.0,
        )
        coordinates, spread, peak_mass = (
            values.cpu() for values in (decoded.coordinates, decoded.spread, decoded.peak_mass)
        )
        if mirrored:
            other = self._mirror
            coordinates = coordinates[:, other]
            coordinates[..., 0] = input_cube.shape[0] - 1 - coordinates[..., 0]
            spread, peak_mass = spread[:, other], peak_mass[:, other]
        return decoding.Decoded(coordinates, spread, peak_mass)

    def _place(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cpu":
            keep_freed_memory()
        for network in self._networks.values():
            network.to(device)

    def _precision_name(self) -> str:
        if self.precision != "auto":
            return self.precision
        return "bfloat16" if bfloat16_is_fast(self.device) else "float32"

    def _confidence(self, decoded: decoding.Decoded) -> FloatArray:
        calibration = self.model.spec.calibration
        peak_mass = decoded.peak_mass[0].double().numpy()
        if calibration is None:
            return np.asarray(peak_mass)
        if calibration.feature == "peak_mass":
            return calibration(peak_mass)
        spread = decoded.spread[0].double().numpy()
        return calibration(spread * self.model.spec.fine.voxel_mm)


def choose_quality(quality: str | Quality) -> Quality:
    """The quality of a name.

    Raises:
        UserError: there is none.
    """
    if isinstance(quality, Quality):
        return quality
    if quality not in QUALITIES:
        raise UserError(f"there is no quality {quality!r}; choose {', '.join(QUALITIES)}.")
    return QUALITIES[quality]


def head_center(volume: Volume) -> FloatArray:
    """A first guess of the middle of the head, RAS millimetres, (3,).

    The middle of the tissue in the topmost 170 mm, so that neck and shoulders do not count.

    Args:
        volume: Air near 0 (`intensity.subtract_background`), head up to 40 degrees from upright.

    Raises:
        UserError: there is no tissue at all.
    """
    coarse = volume.downsampled(_COARSE_MM)
    tissue = foreground(coarse)
    if not tissue.any():
        raise UserError("the image shows nothing but air; give a T1 image of a head.")
    points = coarse.grid.ijk_to_ras(np.argwhere(tissue))
    # One voxel in a thousand may be noise or a vitamin capsule above the head.
    top = np.quantile(points[:, 2], 0.999)
    head = points[points[:, 2] > top - _HEAD_HEIGHT_MM]
    low, high = np.quantile(head, [0.02, 0.98], axis=0)
    return np.asarray((low + high) / 2)


def fit_pose(
    mean_shape: FloatArray, points: FloatArray, weights: FloatArray | None = None
) -> FloatArray:
    """Rigid pose of a head from landmarks of which some may be far off.

    Iteratively reweighted least squares with Cauchy weights (Holland & Welsch, Commun. Stat. A6,
    1977): points that disagree with the rest lose their say.

    Args:
        mean_shape: (K, 3) mean landmarks, head-centred RAS millimetres.
        points: (K, 3) found landmarks, RAS millimetres.
        weights: (K,) how far to trust each.

    Returns:
        4x4 rigid affine from the mean head to the image.

    Raises:
        ImplausibleError: half of the points or more do not fit any pose: this is no head.
    """
    trust = np.ones(len(points)) if weights is None else weights
    current = trust
    try:
        for _ in range(_FIT_ROUNDS):
            pose = rigid_fit(mean_shape, points, current)
            distances = np.linalg.norm(apply_affine(pose, mean_shape) - points, axis=1)
            scale = max(_FIT_SCALE_MM, float(np.median(distances)))
            current = trust / (1 + (distances / scale) ** 2)
        fits = bool(np.median(distances) <= _NO_HEAD_MM)
    except ValueError:  # all points in one place or on one line
        fits = False
    if not fits:
        raise _no_head(0.0)
    return pose


def _no_head(plausibility: float) -> ImplausibleError:
    return ImplausibleError(
        f"no head was recognised in the image (plausibility {plausibility:.2f}, a head has "
        f"{PLAUSIBLE:g} or more); give a T1 image of a whole head.",
        plausibility,
    )


def _plausibility(found: _Located | _Seen) -> float:
    return found.plausibility


def _for_inference(network: nn.Module) -> nn.Module:
    """The fast form of our network; any other module from cubes to heatmaps as it is."""
    return fold_batch_norm(network) if isinstance(network, HighRes3DNet) else network.eval()


def _prepared(volume: Volume) -> tuple[Volume, FloatArray]:
    """The image with air at zero, and a first guess of the head's pose, 4x4."""
    head = preprocessed(volume)
    pose = np.eye(4)
    pose[:3, 3] = head_center(head)
    return head, pose


def _coarse(head: Volume, crop: CropSpec) -> Volume:
    """The image in voxels of half the crop's, or as it is along axes that are coarser."""
    factors = np.maximum(crop.voxel_mm / 2 / head.grid.spacing, 1.0)
    grid = head.grid.coarser(factors, np.ceil(np.array(head.grid.shape) / factors))
    return Volume(resample(head, grid), grid)


def _turned_guess(head: Volume, rotation: FloatArray) -> FloatArray:
    """A first guess of a pose, 4x4, if the head is turned by ``rotation`` against its header.

    Args:
        head: As `head_center` wants it.
        rotation: 3x3, from axes to axes.

    Returns:
        From the upright head to the image.
    """
    pose = np.eye(4)
    pose[:3, :3] = rotation
    back = Grid(head.grid.shape, pose.T @ head.grid.affine)
    pose[:3, 3] = rotation @ head_center(Volume(head.data, back))
    return pose


def _posed_cube(pose: FloatArray, crop: CropSpec) -> Grid:
    return cube(pose[:3, 3], crop.field_of_view_mm, crop.size, pose[:3, :3])


def _inner_side(crop: CropSpec) -> float:
    """Side of a box of the refinement network without its margin, mm."""
    return crop.field_of_view_mm - 2 * MARGIN * crop.voxel_mm


def _turned_cube(pose: FloatArray, crop: CropSpec, number: int) -> Grid:
    """The cube of a pose, turned a little, each number another way, and half a voxel aside."""
    from scipy.spatial.transform import Rotation

    axis = _TURN_AXES[number % len(_TURN_AXES)]
    turn = Rotation.from_rotvec(_TURN_DEG * axis, degrees=True)
    turned = pose.copy()
    turned[:3, :3] = pose[:3, :3] @ turn.as_matrix()
    turned[:3, 3] += pose[:3, :3] @ (np.sign(axis) * crop.voxel_mm / 4)
    return _posed_cube(turned, crop)


def _input_cube(head: Volume, grid: Grid) -> npt.NDArray[np.float32]:
    return normalise(resample(head, grid))


def _points(decoded: decoding.Decoded, grid: Grid) -> FloatArray:
    return grid.ijk_to_ras(decoded.coordinates[0].double().numpy())
