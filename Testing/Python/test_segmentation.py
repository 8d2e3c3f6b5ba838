"""Learning from label maps: the loss by hand, what maps say together, image and classes alike."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksTrainLib.config.parcellation import TransferConfig
from BrainLandmarksTrainLib.data.classes import Classes
from BrainLandmarksTrainLib.data.parcellation import (
    EDGE,
    HeadSource,
    LabelledHead,
    ParcellationSampler,
    Parcelled,
)
from BrainLandmarksTrainLib.data.segmentations import agreed
from BrainLandmarksTrainLib.engine.config import MachineConfig, RunConfig
from BrainLandmarksTrainLib.engine.segmentation import (
    ENOUGH_VOXELS,
    IGNORE,
    SURE,
    SegmentationTask,
    dice_scores,
    overlap,
    segmentation_loss,
)
from BrainLandmarksTrainLib.engine.trainer import Trainer
from BrainLandmarksTrainLib.pipeline.transfer import read_published, transferred
from BrainLandmarksTrainLib.synthesis.head import Head
from BrainLandmarksTrainLib.synthesis.lattice import Lattice
from BrainLandmarksTrainLib.synthesis.tissues import TISSUES
from BrainLandmarksTrainLib.synthesis.variation import ANY_ANATOMY

SAME = torch.eye(3, dtype=torch.bool)
EVEN = torch.ones(3)


def case(seed: int = 0, size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, size, size, size, generator=generator)
    return logits, torch.randint(0, 3, (size,) * 3, generator=generator).to(torch.uint8)


# The loss -----------------------------------------------------------------------------------------


def test_the_loss_is_the_one_of_the_formula() -> None:
    logits, labels = case()
    weights = torch.tensor([1.0, 2.0, 0.5])
    loss = segmentation_loss(logits, labels, SAME, weights)
    p = logits.double().softmax(0)
    entropy = total = 0.0
    for place in np.ndindex(6, 6, 6):
        label = int(labels[place])
        entropy -= float(weights[label]) * math.log(float(p[(label, *place)]))
        total += float(weights[label])
    assert float(loss.cross_entropy) == pytest.approx(entropy / total, rel=1e-5)
    dice = []
    for c in range(3):
        there = labels == c
        dice.append(1 - 2 * float(p[c][there].sum()) / float(p[c].sum() + there.sum()))
    assert float(loss.dice) == pytest.approx(sum(dice) / 3, rel=1e-5)
    assert float(loss.total) == pytest.approx(float(loss.cross_entropy + loss.dice))


def test_a_perfect_answer_costs_nothing_and_scores_one() -> None:
    _, labels = case()
    logits = 40.0 * torch.nn.functional.one_hot(labels.long(), 3).movedim(-1, 0)
    loss = segmentation_loss(logits, labels, SAME, EVEN)
    assert float(loss.total) == pytest.approx(0, abs=1e-5)
    task = SegmentationTask(EVEN.tolist())
    tally = task.tally(logits[None], [labels[None], SAME[None]])
    assert task.error(tally) == pytest.approx(0)
    assert len(tally) == task.tallied


def test_ignored_voxels_count_for_nothing() -> None:
    logits, labels = case()
    ignored = labels.clone()
    ignored[:3] = IGNORE
    part = segmentation_loss(logits[:, 3:], labels[3:], SAME, EVEN)
    loss = segmentation_loss(logits.requires_grad_(), ignored, SAME, EVEN)
    assert float(loss.total.detach()) == pytest.approx(float(part.total), rel=1e-6)
    loss.total.backward()
    assert not logits.grad[:, :3].any()
    assert (logits.grad[:, 3:] != 0).all()
    nothing = segmentation_loss(logits, torch.full_like(labels, IGNORE), SAME, EVEN)
    assert float(nothing.total.detach()) == 0
    found = logits.argmax(0)
    scores = dice_scores(overlap(found[3:], labels[3:], SAME))
    assert torch.equal(dice_scores(overlap(found, ignored, SAME)), scores)


def test_a_rare_class_has_no_dice_but_an_entropy() -> None:
    logits, labels = case()
    labels[labels == 2] = 1
    labels.view(-1)[: ENOUGH_VOXELS - 1] = 2
    few = segmentation_loss(logits, labels, SAME, EVEN)
    labels.view(-1)[ENOUGH_VOXELS - 1] = 2
    enough = segmentation_loss(logits, labels, SAME, EVEN)
    p = logits.softmax(0)[2]
    there = labels == 2
    own = 1 - 2 * float(p[there].sum()) / float(p.sum() + there.sum())
    assert abs(float(enough.dice) - float(few.dice)) > 0.2 * abs(own - float(few.dice))


def test_what_a_map_does_not_tell_apart_is_summed() -> None:
    """Class 2 is a part of 1, of which the map knows nothing: the same as a network without it."""
    logits, labels = case()
    labels[labels == 2] = 1
    readings = SAME.clone()
    readings[1, 2] = True
    loss = segmentation_loss(logits.requires_grad_(), labels, readings, EVEN)
    cross_entropy, dice = (float(part.detach()) for part in (loss.cross_entropy, loss.dice))
    p = logits.detach().double().softmax(0)
    inside, outside = labels == 1, labels == 0
    q = p[1] + torch.where(inside, p[2], 0)
    entropy = -(q[inside].log().sum() + p[0][outside].log().sum()) / labels.numel()
    assert cross_entropy == pytest.approx(float(entropy), rel=1e-5)
    zero = 1 - 2 * p[0][outside].sum() / (p[0].sum() + outside.sum())
    one = 1 - 2 * q[inside].sum() / (q.sum() + inside.sum())
    assert dice == pytest.approx(float(zero + one) / 2, rel=1e-5)
    loss.total.backward()
    # Where the map says 1, the network may say 2 just as well: both are pulled up alike.
    assert (logits.grad[1:, inside] < 0).all()
    found = torch.where(inside, 2, 0)
    assert dice_scores(overlap(found, labels, readings))[:2].tolist() == [1, 1]
    assert dice_scores(overlap(found, labels, SAME))[1] == 0


# Classes, and what maps say together --------------------------------------------------------------

CLASSES = Classes.of(
    ["cerebral white matter", "hippocampus", "brain stem", "pons", "corpus callosum"]
)
LEFT, RIGHT, STEM, PONS, CALLOSUM = (CLASSES.structures.index(n) for n in (2, 41, 16, 174, 251))


def test_classes_have_names_sides_and_readings() -> None:
    assert CLASSES.names[:4] == (
        "background", "cerebral white matter L", "cerebral white matter R", "hippocampus L",
    )  # fmt: skip
    assert CLASSES.mirrored[[0, LEFT, RIGHT, STEM]].tolist() == [0, RIGHT, LEFT, STEM]
    assert CLASSES.index(np.array([0, 2, 251, 24, 500])).tolist() == [0, LEFT, CALLOSUM, 0, 0]
    readings = CLASSES.readings([0, 2, 41, 16, 17, 53])
    extra = np.argwhere(readings & ~np.eye(len(CLASSES), dtype=bool)).tolist()
    assert sorted(extra) == sorted([[LEFT, CALLOSUM], [RIGHT, CALLOSUM], [STEM, PONS]])
    # A structure that is simply not there may be anywhere in the background.
    assert np.flatnonzero(CLASSES.readings([2, 41, 16, 17, 174, 251])[0]).tolist() == [0, 4]


def test_maps_that_contradict_each_other_teach_nothing_there() -> None:
    labels = np.zeros((30, 30, 30), np.int32)
    labels[2:15, 2:28, 2:28] = 2
    labels[15:28, 2:28, 2:28] = 41
    labels[12:18, 12:18, 12:18] = 251
    labels[2:8, 2:8, 2:12] = 17
    grid = Grid(labels.shape, np.diag([1.0, 1, 1, 1]))
    other = np.roll(labels, 1, 2)  # a boundary that is a voxel off
    other[other == 251] = 2  # it knows no callosum
    other[2:12, 18:28, 18:28] = 16  # and calls a block the stem
    coarse = Grid((15, 15, 15), np.diag([2.0, 2, 2, 1]))
    classes, readings = agreed([(labels, grid), (other[::2, ::2, ::2], coarse)], CLASSES)
    ignored = classes == IGNORE
    assert ignored[4:10, 20:26, 20:26].all()
    assert not ignored[:, :16].any()
    assert np.array_equal(classes[~ignored], CLASSES.index(labels)[~ignored])
    assert readings[LEFT].sum() == 1
    assert readings[0, STEM]


# Samples ------------------------------------------------------------------------------------------


def lopsided_head() -> LabelledHead:
    """Blocks of five structures, none like its mirror image, each of a tissue of its own."""
    labels = np.zeros((60, 60, 60), np.int64)
    labels[4:28, 8:50, 8:50] = 2
    labels[32:56, 12:40, 20:56] = 41
    labels[10:22, 16:40, 14:30] = 17
    labels[40:50, 18:30, 30:44] = 53
    labels[26:36, 20:44, 4:18] = 16
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = -59
    tissue = np.zeros(54, np.uint8)
    for number, (members, _) in enumerate(TISSUES.values(), 1):
        for member in members:
            if member < len(tissue):
                tissue[member] = number
    head = Head("blocks", torch.from_numpy(tissue[labels]), affine, np.zeros((1, 3)), np.eye(4))
    classes = torch.from_numpy(CLASSES.index(labels))
    return LabelledHead(head, classes, CLASSES.readings([0, 2, 41, 17, 53, 16]))


STILL = replace(ANY_ANATOMY, bias=0.0, noise=0.0, texture=0.0, thick_share=0.0, stripped_share=0.0)
PLACES = np.array([[-30.0, 0, 0], [30, 10, 5], [0, -20, 20]])


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_image_and_classes_are_deformed_alike(flip: float) -> None:
    """The image shows the classes, and where it is flipped the classes change sides."""
    head = lopsided_head()
    varied = replace(STILL, flip_share=flip, t1_share=0.0)
    lattice = Lattice((32, 32, 32), 2.0, 1)
    made = HeadSource([head], varied)(lattice, np.random.default_rng(3))
    assert made.flipped == bool(flip)
    # Each tissue has a signal of its own: inside a class it is one, apart from the voxel's blur.
    for number in (LEFT, STEM):
        inner = torch.nn.functional.max_pool3d(
            (made.classes % SURE != number)[None, None].float(), 5, 1, 2
        )[0, 0]
        values = made.image[inner == 0]
        assert len(values) > 20
        assert float(values.std()) < 0.02 * float(made.image.max())
    sampler = ParcellationSampler(HeadSource([head], varied), CLASSES, lattice, PLACES, (0, 0, 0))
    cube, labels, readings = sampler(0, np.random.default_rng(3))
    again = HeadSource([head], varied)(lattice, np.random.default_rng(3))
    inside = (slice(EDGE, -EDGE),) * 3
    plain, sure = again.classes.numpy() % SURE, again.classes.numpy() // SURE * SURE
    expected = (CLASSES.mirrored[plain] if flip else plain) + sure
    assert np.array_equal(labels[inside], expected[inside])
    assert (labels[:EDGE] == IGNORE).all()
    assert (labels[..., -EDGE:] == IGNORE).all()
    assert cube.shape == (1, 32, 32, 32)
    assert readings.dtype == torch.bool
    # The left one lies at smaller x, whether or not the head is flipped.
    middles = [np.argwhere(labels.numpy() % SURE == n)[:, 0].mean() for n in (LEFT, RIGHT)]
    assert middles[0] < middles[1]


def test_a_sure_label_is_no_part_of_another() -> None:
    """White matter far from the midline is not read as callosum."""
    logits = torch.randn(len(CLASSES), 4, 4, 4)
    labels = torch.full((4, 4, 4), LEFT, dtype=torch.uint8)
    readings = torch.from_numpy(CLASSES.readings([0, 2, 41, 17, 53, 16]))
    weights = torch.ones(len(CLASSES))
    plain = segmentation_loss(logits, labels, torch.eye(len(CLASSES), dtype=torch.bool), weights)
    sure = segmentation_loss(logits, labels + SURE, readings, weights)
    read = segmentation_loss(logits, labels, readings, weights)
    assert torch.allclose(sure.cross_entropy, plain.cross_entropy)
    assert read.cross_entropy < sure.cross_entropy
    found = torch.full((4, 4, 4), CALLOSUM)
    assert overlap(found, labels, readings)[0].sum() == 64
    assert overlap(found, labels + SURE, readings)[0].sum() == 0


def test_boxes_lie_everywhere_and_tiles_cover_the_head() -> None:
    seen: list[tuple[float, float, float]] = []

    def source(lattice: Lattice, rng: np.random.Generator) -> Parcelled:
        seen.append(lattice.center_mm)
        empty = torch.zeros(lattice.shape)
        return Parcelled(empty, empty.to(torch.uint8), np.eye(len(CLASSES), dtype=bool), False)

    sampler = ParcellationSampler(source, CLASSES, Lattice((16, 16, 16), 2.0, 1), PLACES)
    for number in range(40):
        sampler(0, np.random.default_rng(number))
    assert np.ptp(np.array(seen), axis=0).min() > 40
    tiles = [tile.middle_mm for tile in sampler.tiles()]
    half = (16 - 2 * EDGE) * 2.0 / 2
    for point in (*PLACES, *(PLACES + 9)):
        assert any(np.abs(point - np.array(middle)).max() <= half + 1e-9 for middle in tiles)


# Training -----------------------------------------------------------------------------------------


def tiny_network(seed: int = 0) -> HighRes3DNet:
    torch.manual_seed(seed)
    return HighRes3DNet(
        out_channels=len(CLASSES), features=4, residual_blocks=1, dilations=(1, 2), penultimate=8
    )


def run(folder: Path, stops: tuple[int, ...] = (), steps: int = 8) -> Trainer:
    """Train a tiny network on the blocks, stopped before some steps and taken up again."""
    config = RunConfig(
        steps=steps, warmup_steps=2, learning_rate=5e-3, log_every=2, recalibration_batches=2,
        epoch_steps=4, validation_scans=2, tensorboard=False, batch_size=2, freeze_norm_at=0,
    )  # fmt: skip
    lattice = Lattice((16, 16, 16), 4.0, 1)
    inner = ParcellationSampler(HeadSource([lopsided_head()], STILL), CLASSES, lattice, PLACES)
    task = SegmentationTask([1.0] * len(CLASSES))
    machine = MachineConfig(device="cpu", precision="float32")
    running: list[Trainer] = []
    for stop in (*stops, None):

        def sampler(
            step: int, rng: np.random.Generator, stop: int | None = stop
        ) -> tuple[torch.Tensor, ...]:
            if step == stop:
                running[-1].stop()
            return inner(step, rng)

        running.append(Trainer(tiny_network(), sampler, config, folder, task=task, machine=machine))
        assert running[-1].train().finished == (stop is None)
    return running[-1]


def test_training_learns_and_resumes_exactly(tmp_path: Path) -> None:
    straight = run(tmp_path / "a")
    stopped = run(tmp_path / "b", (3, 6))
    a, b = (trainer.ema.network.state_dict() for trainer in (straight, stopped))
    assert all(torch.equal(a[name], b[name]) for name in a)
    tables = [(tmp_path / name / "epochs.csv").read_text().splitlines() for name in "ab"]
    assert tables[0][0].split(",")[3:7] == [
        "total", "cross_entropy", "dice_loss", "validation_dice_loss",
    ]  # fmt: skip
    assert [row.split(",")[3:7] for row in tables[0]] == [row.split(",")[3:7] for row in tables[1]]
    first, last = (float(row.split(",")[3]) for row in tables[0][1:])
    assert last < first
    assert float(tables[0][-1].split(",")[6]) == pytest.approx(straight.validate(), rel=1e-6)


# A published network ------------------------------------------------------------------------------


def published() -> HighRes3DNet:
    torch.manual_seed(1)
    network = HighRes3DNet(1, 160, features=4, penultimate=80, classifier_norm=True)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    return network.eval()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_published_network_goes_on_as_ours(tmp_path: Path, suffix: str) -> None:
    from safetensors.torch import save_file

    theirs = published()
    path = tmp_path / f"weights{suffix}"
    weights = theirs.state_dict()
    if suffix == ".pth":  # other names, the same order
        torch.save({f"block.{k}": v for k, v in enumerate(weights.values())}, path)
    else:
        save_file({k: v for k, v in weights.items() if v.is_floating_point()}, path)
    cube = torch.rand(1, 1, 8, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(read_published(path)(cube), theirs(cube))
    ours = HighRes3DNet(out_channels=len(CLASSES), features=4).eval()
    transferred(TransferConfig(str(path), "gif", gain=3.0, offset=0.0), CLASSES, ours)
    with torch.no_grad():
        logits, before = ours(cube), theirs(3.0 * cube)
    torch.testing.assert_close(logits[:, PONS], before[:, 12], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(logits[:, CALLOSUM], before[:, 53], atol=1e-3, rtol=1e-3)
    members = [38, 40, *range(54, 60), 61]
    expected = before[:, members].mean(1) + math.log(len(members))
    torch.testing.assert_close(logits[:, LEFT], expected, atol=1e-3, rtol=1e-3)
    transferred(TransferConfig(str(path), "gif", gain=3.0, offset=-2.1), CLASSES, ours)
    inner = (..., slice(1, -1), slice(1, -1), slice(1, -1))  # round the image there are zeros
    with torch.no_grad():
        features = ours.first(cube)[inner], theirs.first(3.0 * cube - 2.1)[inner]
    torch.testing.assert_close(*features, atol=1e-4, rtol=1e-4)


def test_the_published_package_is_understood(tmp_path: Path) -> None:
    highresnet = pytest.importorskip("highresnet")
    torch.manual_seed(0)
    theirs = highresnet.HighRes3DNet(1, 160, add_dropout_layer=True).eval()
    torch.save(theirs.state_dict(), tmp_path / "published.pth")
    cube = torch.rand(1, 1, 8, 8, 8)
    with torch.no_grad():
        found = read_published(tmp_path / "published.pth")(cube)
        torch.testing.assert_close(found, theirs(cube), atol=1e-4, rtol=1e-4)


def test_weights_that_do_not_fit_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    ours = HighRes3DNet(out_channels=len(CLASSES), features=4)
    with pytest.raises(UserError, match="cannot be read"):
        read_published(path)
    path.write_bytes(b"weights")
    with pytest.raises(UserError, match="cannot be read"):
        read_published(path)
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="no weights of a HighRes3DNet"):
        read_published(path)
    torch.save(HighRes3DNet(1, 160, features=2, classifier_norm=True).state_dict(), path)
    with pytest.raises(UserError, match="another size"):
        transferred(TransferConfig(str(path)), CLASSES, ours)
