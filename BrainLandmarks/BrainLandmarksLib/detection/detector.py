"""From an image of a head to its landmarks: locate the head, find the landmarks, refine them.

A coarse network, the locator, sees the whole head in any pose; the rigid fit of the model's mean
landmark shape to what it finds gives the pose of the head. The fine network then sees the head
upright, and once more in the pose that its own landmarks give. If the result is no plausible head
(:mod:`.plausibility`), the locator tries the other axis-aligned orientations. A refinement network,
where the model has one, sees boxes in finer voxels (:mod:`.refinement`), and a parcellation network
gives the boundaries on which the rules place landmarks (:mod:`.parcellation`, :mod:`.fusion`). The
input of every pass is resampled from the original image. Heatmaps stay on the network's grid; only
coordinates go back to the image, where the protocol's constraints (shared planes, equal spacing)
are enforced.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from BrainLandmarksLib import resources
from BrainLandmarksLib.annotation import LabelMap
from BrainLandmarksLib.annotation.eye_landmarks import (
    eye_rows,
    globes_of,
    on_globes,
    without_lost_eyes,
)
from BrainLandmarksLib.annotation.probability_map import ProbabilityMap
from BrainLandmarksLib.detection import absent, fusion
from BrainLandmarksLib.detection.parcellation import Parcellation, brain_box, parcellate
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

CERTAIN = 0.98
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
        parcellation: Whether the brain is parcellated, where the model has a network for it, and
            the rules have a say.
        sparing: Whether the refinement network is left out where the rules have a say: then it
            adds nothing (docs/parcellation.md).
    """

    passes: int = FINE_PASSES
    turned: int = 0
    refinement: bool = False
    parcellation: bool = False
    sparing: bool = False


QUALITIES = {
    "fast": Quality(1),
    "standard": Quality(refinement=True, parcellation=True, sparing=True),
    "best": Quality(turned=4, refinement=True, parcellation=True),
}
"""Qualities by the name that commands and requests use; the second is the usual one."""

RULES = "rules"
"""What the points by rule are called among the sources of a detection."""

_PARCELLATION = "parcellation"
_Result = TypeVar("_Result")

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
        seconds: Time spent per stage: "prepare", "locate", "resample", "network", "parcellation",
            "rules" and "check".
        device: Where the network ran: "cpu", "cuda" or "mps".
        precision: What it computed in: "float32" or "bfloat16".
        notes: Sentences the user should see, such as a fall-back to the CPU.
        plausibility: How much what was found is a head, 0 to 1 (`plausibility.Judge`).
        apart: (K,) mm between where the networks and the rules see a landmark; NaN where the rules
            had no say.
        sources: (K, 3) RAS mm, NaN where missing, before they became one answer: by the name of the
            network that saw them last and, after a parcellation, by `RULES`.
        parcellation: Of the brain, in the head's pose; None if there was none.
    """

    landmarks: LandmarkSet
    pose: FloatArray
    input_cube: Volume
    seconds: dict[str, float]
    device: str
    precision: str
    notes: tuple[str, ...] = ()
    plausibility: float = 1.0
    apart: FloatArray = field(default_factory=lambda: np.empty(0))
    sources: Mapping[str, FloatArray] = field(default_factory=dict)
    parcellation: LabelMap | None = None

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
        turned: Whether the head lies otherwise than the image's header says.
    """

    points: FloatArray
    pose: FloatArray
    grid: Grid
    input_cube: npt.NDArray[np.float32]
    decoded: decoding.Decoded
    plausibility: float
    turned: bool = False


@dataclass(frozen=True)
class _Answer:
    """The landmarks as they are given.

    Args:
        points: (K, 3) RAS mm, NaN where missing.
        apart: (K,) how far the rules are apart from all else, mm, NaN where they had no say.
        remarks: K, why a landmark is missing, or where it comes from if that could be the rules.
        sources: Of `Detection`.
    """

    points: FloatArray
    apart: FloatArray
    remarks: list[str]
    sources: dict[str, FloatArray]


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
        if self.model.parcellation is not None:
            self._networks[_PARCELLATION] = _for_inference(self.model.parcellation)
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
        seen, found = self._placed(work, force)
        rules = None
        parcellation = self._parcellated(work, seen.pose, found)
        if parcellation is not None and fusion.has_rules(self.model.protocol):
            with work.watch.stage("rules"):
                rules = fusion.rule_points(self.model.protocol, parcellation)
        answer = self._checked(work, found, "fine", rules)
        sources = answer.sources
        # Where the rules have failed, the refinement network makes up for them.
        failed = self._may_refine(work.chosen) and bool(np.isnan(answer.apart).all())
        if failed or self._refines(work.chosen):
            found = self._kept(work, self._refined(work, seen.pose, found))
            answer = self._checked(work, found, "refinement", rules)
            sources = {**answer.sources, **sources}
        work.tell("detect", 1.0)
        confidence = weakened(self._confidence(seen.decoded, answer.apart), seen.plausibility)
        notes = self._told(volume, seen)
        return Detection(
            LandmarkSet.from_points(
                self.model.protocol, answer.points, "model", confidence, answer.remarks
            ),
            seen.pose,
            Volume(seen.input_cube, seen.grid),
            work.watch.seconds,
            self.device.type,
            self._precision_name(),
            notes,
            seen.plausibility,
            answer.apart,
            sources,
            parcellation,
        )

    def parcellate(
        self, volume: Volume, *, force: bool = False, progress: DetectionProgress | None = None
    ) -> Parcellation:
        """Which voxel of a head is which structure.

        Args:
            volume: As `detect` takes it.
            force: Give what was found even where it is no head.
            progress: As of `detect`.

        Raises:
            ImplausibleError: what was found is no head, however the image is turned.
            UserError: the model has no parcellation network, or the image shows no brain.
        """
        self.need_parcellation()
        quality = Quality(1, parcellation=True)
        work = self._begun(volume, quality, progress or (lambda *_: None))
        seen, points = self._placed(work, force)
        labels = self._parcellated(work, seen.pose, points)
        notes = self._told(volume, seen)
        if labels is None:
            raise UserError("the image shows too little of a brain to be parcellated.")
        work.tell("detect", 1.0)
        return Parcellation(labels, seen.plausibility, self.device.type, notes)

    def need_parcellation(self) -> None:
        """Check that the model can parcellate.

        Raises:
            UserError: it has no network for it.
        """
        if self.model.parcellation is None:
            raise UserError(
                f"the model {self.model.spec.name} has no parcellation network; choose another."
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
        counts["refinement"] = self._boxes if self._refines(chosen) else 0
        for name, (_, crop) in self.model.networks.items():
            count = counts[name]
            if not count:
                continue
            start = time.perf_counter()
            self._run(name, _input_cube(head, _posed_cube(pose, crop)))
            one = time.perf_counter() - start
            seconds += count * one
            if name == "fine":
                seconds += self._parcellation_work(chosen) * one
        return seconds

    def _refines(self, chosen: Quality) -> bool:
        """Whether the refinement network sees any head, not only those that rules fail on."""
        spared = chosen.sparing and chosen.parcellation and self.model.parcellation is not None
        return self._may_refine(chosen) and not spared

    def _may_refine(self, chosen: Quality) -> bool:
        return chosen.refinement and self.model.refinement is not None

    @property
    def _boxes(self) -> int:
        """How many boxes the refinement network sees of a head, about; 0 without one."""
        crop, mean = self.model.spec.refinement, self.model.spec.mean_shape
        return 0 if crop is None else len(list(boxes(mean, _inner_side(crop))))

    def _work(self, chosen: Quality) -> float:
        """The work of all passes, in passes of the fine network."""
        work = float(chosen.passes + chosen.turned)
        if self._refines(chosen):
            work += self._refinement_work
        return work + self._parcellation_work(chosen)

    @property
    def _refinement_work(self) -> float:
        crop = self.model.spec.refinement
        return 0.0 if crop is None else self._boxes * (crop.size / self.model.spec.fine.size) ** 3

    def _parcellation_work(self, chosen: Quality) -> float:
        """The work of a parcellation, in passes of the fine network."""
        spec = self.model.spec.parcellation
        if spec is None or not chosen.parcellation:
            return 0.0
        box = brain_box(np.eye(4), self._of_the_brain(self.model.spec.mean_shape), spec.voxel_mm)
        return float(np.prod(box.shape)) / self.model.spec.fine.size**3

    def _of_the_brain(self, points: FloatArray) -> FloatArray:
        """The landmarks without those of the eyes, (n, 3)."""
        eyes = [row for rows in eye_rows(self.model.protocol).values() for row in rows]
        return np.delete(points, eyes, axis=0)

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
            seen = replace(seen, turned=True)
        return seen

    def _placed(self, work: _Work, force: bool) -> tuple[_Seen, FloatArray]:
        """The upright head, and its points by the fine network, (K, 3) RAS mm.

        Raises:
            ImplausibleError: it is no head, and not wanted all the same.
        """
        seen = self._recognised(work)
        if not (force or is_plausible(seen.plausibility)):
            raise _no_head(seen.plausibility)
        return seen, self._kept(work, self._averaged(work, seen))

    def _told(self, volume: Volume, seen: _Seen) -> tuple[str, ...]:
        """What the user should know of an image and of the work on it, which is over."""
        notes = [*volume.notes, *self._notes]
        self._notes = []
        if seen.turned:
            notes.append(TURNED_NOTE)
        if not is_plausible(seen.plausibility):
            notes.append(IMPLAUSIBLE_NOTE)
        return tuple(notes)

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
        if located.plausibility >= CERTAIN or np.array_equal(nearest, np.eye(3)):
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
            uncertain = PLAUSIBLE <= plausibility < CERTAIN
            if number + 1 >= work.chosen.passes and not uncertain:
                break
            if number < work.chosen.passes:
                pose = self._pose(decoded, grid, pose)
        return _Seen(points, pose, grid, input_cube, decoded, plausibility)

    def _checked(
        self, work: _Work, points: FloatArray, part: str, rules: FloatArray | None
    ) -> _Answer:
        """The points where they belong, those that the image does not show missing, and remarks.

        Points of eyes go onto the globes that the image shows, the others to where annotated scans
        taught that the points of the network ``part`` belong, and those of the rules, if there are
        any.
        """
        protocol = self.model.protocol
        apart = np.full(len(points), np.nan)
        with work.watch.stage("check"):
            globes = globes_of(protocol, work.head, points, self.model.spec.mean_shape)
            points = on_globes(protocol, points, globes)
            seen = without_lost_eyes(protocol, points, globes)
            if self.model.correction is not None:
                if rules is None:
                    corrected = self.model.correction(seen, part)
                else:
                    fused = self.model.correction.fused(seen, rules, part)
                    corrected, apart = fused.points, fused.apart
                points = np.where(np.isfinite(seen), corrected, points)
                points = on_globes(protocol, constrained(protocol, points), globes)
            points[~work.volume.grid.contains(points)] = np.nan
            lost = list(absent.reasons(protocol, work.head, points, globes))
            points[[bool(reason) for reason in lost]] = np.nan
            sources = {part: seen}
            if rules is not None:
                sources[RULES] = rules
                lost = fusion.remarks(np.isfinite(apart), lost)
            return _Answer(points, apart, lost, sources)

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
        before = work.total - (self._refinement_work if self._refines(work.chosen) else 0.0)
        seen = points.copy()
        here = apply_affine(np.linalg.inv(pose), points)
        done, total = 0, max(int(np.isfinite(here).all(1).sum()), 1)
        for middle, rows in boxes(here, _inner_side(crop)):
            work.on_pass(min(before + self._refinement_work * done / total, work.total))
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

    def _parcellated(
        self, work: _Work, pose: FloatArray, points: FloatArray
    ) -> ProbabilityMap | None:
        """Which voxel of the brain is which structure; None if nobody can or wants to say."""
        spec = self.model.spec.parcellation
        brain = self._of_the_brain(points)
        if not work.chosen.parcellation or spec is None or not np.isfinite(brain).all(1).any():
            return None
        before = work.chosen.passes + work.chosen.turned
        share = self._parcellation_work(work.chosen)
        grid = brain_box(pose, brain, spec.voxel_mm)

        def on_tile(done: float) -> None:
            work.on_pass(before + share * done)

        with work.watch.stage("parcellation"):
            return self._or_on_cpu(
                lambda: parcellate(
                    self._networks[_PARCELLATION],
                    spec.structures,
                    work.head,
                    grid,
                    self.precision,
                    on_tile,
                )
            )

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
        """Decoded heatmaps of one cube.

        Args:
            mirrored: Show the cube to the network as in a mirror, and undo that afterwards.
            expected: What is known before; then only these landmarks are decoded.
        """
        return self._or_on_cpu(lambda: self._forward(name, input_cube, mirrored, expected))

    def _or_on_cpu(self, compute: Callable[[], _Result]) -> _Result:
        """What a network computes; on the CPU if the GPU's memory does not suffice."""
        try:
            return compute()
        except torch.OutOfMemoryError:
            if self.device.type == "cpu":
                raise
            self._notes.append("the GPU's memory does not suffice, so the CPU does the work")
            self._place(torch.device("cpu"))
            return compute()

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

    def _confidence(self, decoded: decoding.Decoded, apart: FloatArray) -> FloatArray:
        calibration = self.model.spec.calibration
        peak_mass = decoded.peak_mass[0].double().numpy()
        if calibration is None:
            return np.asarray(peak_mass)
        if calibration.feature == "peak_mass":
            return calibration(peak_mass, apart)
        spread = decoded.spread[0].double().numpy()
        return calibration(spread * self.model.spec.fine.voxel_mm, apart)


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
