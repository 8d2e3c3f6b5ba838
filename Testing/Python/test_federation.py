"""Federated training: two sites, one server, Flower's own messages between them."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from certificates import certificate
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flwr.app import ConfigRecord, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from loopback import LoopbackGrid
from phantom import small_heads
from safetensors.torch import load_file

from BrainLandmarksLib.cli import main
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.network.model_files import CropSpec, Model, ModelSpec, load_model, save_model
from BrainLandmarksLib.protocol import Protocol, landmarks, load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksTrainLib.cli.federate import server as server_command
from BrainLandmarksTrainLib.config.federation import FederationConfig, federation_of
from BrainLandmarksTrainLib.engine.config import MachineConfig
from BrainLandmarksTrainLib.engine.distributed import _processes, make_fabric
from BrainLandmarksTrainLib.federation import flower, node, rounds, site
from BrainLandmarksTrainLib.federation.app_folder import PACKAGE, read_app, write_app
from BrainLandmarksTrainLib.federation.client_app import FAILED, client_app
from BrainLandmarksTrainLib.federation.progress import read_progress
from BrainLandmarksTrainLib.federation.rounds import Rounds
from BrainLandmarksTrainLib.federation.server_app import serve
from BrainLandmarksTrainLib.federation.stage import Refused, Stage
from BrainLandmarksTrainLib.federation.strategies import to_record
from BrainLandmarksTrainLib.federation.weights import norm_names, part_of

ROOT = Path(__file__).parents[2]
ONE, TWO = 11, 22


@pytest.fixture(autouse=True)
def anything_is_a_head(monkeypatch):
    """A few steps teach nothing: whatever the locator says must pass for a head here."""
    monkeypatch.setattr(landmarks, "PLAUSIBLE", 0.0)


POINTS = [[-35, 20, 10], [35, 20, 10], [0, 0, 45], [-25, -45, 5], [25, -45, 5]]
"""RAS mm in the blob."""


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Protocol:
    """Five landmarks with names that no weight is called by chance."""
    labels = ["ALPHA_L", "ALPHA_R", "BETA_M", "GAMMA_L", "GAMMA_R"]
    mates = ["ALPHA_R", "ALPHA_L", "BETA_M", "GAMMA_R", "GAMMA_L"]
    points = [
        {
            "index": number, "label": label, "name": f"point {label}", "group": "All",
            "side": label[-1], "role": "primary", "rule": "Somewhere.", "mirror": mate,
        }
        for number, (label, mate) in enumerate(zip(labels, mates), start=1)
    ]  # fmt: skip
    groups = [{"name": "All", "first": 1, "last": 5, "color": "#3674fe"}]
    path = tmp_path_factory.mktemp("protocol") / "few.json"
    path.write_text(
        json.dumps({"name": "few", "title": "Few", "groups": groups, "landmarks": points})
    )
    return load_protocol(path)


@pytest.fixture(scope="module")
def start(tmp_path_factory, few) -> Path:
    """A model to start from: tiny networks that have learnt nothing."""
    torch.manual_seed(3)
    networks = [
        HighRes3DNet(out_channels=5, features=2, residual_blocks=1, penultimate=4).eval()
        for _ in range(2)
    ]
    shape = np.array(POINTS, float) - np.mean(POINTS, axis=0)
    spec = ModelSpec("first", CropSpec(16, 208.0), CropSpec(16, 256.0), shape)
    folder = tmp_path_factory.mktemp("models") / "first"
    return save_model(Model(few, *networks, spec), folder)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory, few, blob_head) -> dict[int, Path]:
    """Two hospitals: two scans to learn from and one to measure on, and three and one."""
    folder = tmp_path_factory.mktemp("hospitals")
    truth = LandmarkSet.from_points(few, np.array(POINTS, float), "truth")
    scan = blob_head.downsampled(5.0)
    made = {}
    for place, count in ((ONE, 3), (TWO, 4)):
        small_heads(folder / f"secret_ward_{place}", truth, scan, count, count)
        dataset = Dataset.open(folder / f"secret_ward_{place}")
        first, *others = dataset.entries
        split = [replace(first, split="test"), *(replace(e, split="train") for e in others)]
        dataset.update(split, {"what": "split"})
        made[place] = dataset.folder
    return made


def settings(**changes) -> FederationConfig:
    return FederationConfig(**{"rounds": 2, **changes})


def federation(start: Path, steps: int = 2, **changes):
    return federation_of(start, settings(**changes), steps=steps, name="joined")


def grid_of(made, start, datasets, folder: Path, **node) -> LoopbackGrid:
    sites = {
        number: {
            "dataset": str(dataset), "output": str(folder / f"site{number}"), "model": str(start),
            "device": "cpu", "threads": 1, **node,
        }
        for number, dataset in datasets.items()
    }  # fmt: skip
    grid = LoopbackGrid(client_app(), made.to_run_config(), sites)
    grid.measuring = False
    return grid


def run(made, start, grid, folder: Path, report=lambda line: None) -> Path:
    return serve(grid, grid.context(), made, start, folder / "server", report)


@pytest.fixture
def pretended(monkeypatch):
    """Sites that answer at once: each moves every weight by an amount of its own."""

    def train(self, number, arrays):
        site.need_same_names(arrays, self.names)
        shift = np.float32(1e-3 * (self.recipe.seed % 7 + number))
        moved = {name: array + shift for name, array in arrays.items()}
        return site.Trained(moved, len(self.dataset.of_split("train")), 1.0, 2.0)

    monkeypatch.setattr(site.Site, "train", train)


@pytest.fixture(scope="module")
def joined(tmp_path_factory, start, datasets):
    """A federation that has ended: its folder and the grid with all that was sent."""
    patch = pytest.MonkeyPatch()
    patch.setattr(landmarks, "PLAUSIBLE", 0.0)
    folder = tmp_path_factory.mktemp("joined")
    made = federation(start)
    grid = grid_of(made, start, datasets, folder)
    grid.measuring = True
    run(made, start, grid, folder)
    patch.undo()
    return folder, grid


def answers(grid: LoopbackGrid):
    return [message_from_proto(ProtoMessage.FromString(data)) for data in grid.sent]


def weights_in(message) -> dict[str, np.ndarray]:
    return {
        name: array.numpy()
        for record in message.content.array_records.values()
        for name, array in record.items()
    }


# A federation -------------------------------------------------------------------------------------


def test_two_sites_make_a_model_like_any_other(joined, start):
    folder, grid = joined
    model, before = load_model(folder / "server" / "model"), load_model(start)
    assert model.spec.name == "joined"
    assert model.spec.training["rounds"] == 2
    assert model.protocol.hash == before.protocol.hash
    assert (model.network.classifier.weight != before.network.classifier.weight).any()
    assert str(folder) not in json.dumps(model.spec.training)
    assert grid.asked.count(("train", ONE)) == grid.asked.count(("train", TWO)) == 2
    assert read_progress(folder / f"site{ONE}").doing == "finished"
    assert read_progress(folder / f"site{ONE}").done == 2


def test_the_mean_is_weighted_by_the_scans(joined):
    folder, grid = joined
    sent = [m for m in answers(grid) if m.content.array_records]
    last = {m.metadata.src_node_id: m for m in sent}
    counts = {n: m.content.metric_records["metrics"]["num-examples"] for n, m in last.items()}
    assert counts == {ONE: 2, TWO: 3}
    kept = rounds.read_checkpoint(rounds.latest_checkpoint(folder / "server" / rounds.FOLDER))
    for name, tensor in kept.part("weights").items():
        mean = (2 * weights_in(last[ONE])[name] + 3 * weights_in(last[TWO])[name]) / 5
        np.testing.assert_allclose(tensor.numpy(), mean, rtol=1e-4, atol=1e-6)


def test_every_site_is_measured_on_its_own_scans(joined, datasets):
    folder, _ = joined
    told = json.loads((folder / "server" / rounds.HISTORY).read_text())
    assert [each["round"] for each in told["rounds"]] == [1, 2]
    assert len(told["sites"]) == 2
    for row in told["sites"]:
        assert row["num-examples"] == 1
        assert row["before_mm"] > 0
        assert row["after_mm"] > 0
    assert load_model(folder / f"site{TWO}" / "model").spec.name == "joined"


# What leaves --------------------------------------------------------------------------------------


def traces_of(dataset: Dataset) -> dict[str, list[bytes]]:
    """What must not leave: pieces of voxels, points, names and paths as they are in memory."""
    found: dict[str, list[bytes]] = {"voxel": [], "landmark": [], "name": []}
    for entry in dataset.entries:
        sample = dataset.read(entry)
        voxels = np.asarray(sample.volume.data)
        middle = voxels[voxels.shape[0] // 2]
        rows = [row for row in middle if np.unique(row).size > 8]
        assert rows
        for row in rows:
            for kind in (np.float32, np.float64, np.float16, np.int16):
                data = np.ascontiguousarray(row.astype(kind)).tobytes()
                width = 8 * np.dtype(kind).itemsize
                middle_of_row = len(data) // 2 // width * width
                found["voxel"].append(data[middle_of_row : middle_of_row + width])
        for point in sample.review.current.points:
            for kind in (np.float32, np.float64):
                found["landmark"].append(np.asarray(point, kind).tobytes())
            found["landmark"] += [f"{value:.3f}".encode() for value in point if abs(value) > 10]
        found["name"] += [entry.image.encode(), str(entry.person).encode() + b"\x00"]
    found["name"] += [label.encode() for label in dataset.protocol.labels]
    found["name"] += [str(dataset.folder).encode(), dataset.folder.name.encode()]
    return found


def test_nothing_but_weights_counts_and_errors_leaves_a_site(joined, datasets):
    """Every byte that a site has sent is looked at."""
    _, grid = joined
    wire = b"".join(grid.sent)
    assert len(wire) > 10_000
    for dataset in datasets.values():
        for kind, traces in traces_of(Dataset.open(dataset)).items():
            assert traces
            for trace in traces:
                assert trace not in wire, kind
    for message in answers(grid):
        for name, metrics in message.content.metric_records.items():
            assert name == "metrics"
            assert set(metrics) <= {
                "num-examples", "loss", "error_mm", "before_mm", "after_mm", "missed_before",
                "missed_after",
            }  # fmt: skip
        assert not message.content.config_records
        for name, array in weights_in(message).items():
            assert name.startswith("fine.")
            assert array.dtype == np.float32


def test_the_traces_would_be_found(datasets):
    """The test above is not blind: a message with a scan or a point in it is caught."""
    dataset = Dataset.open(datasets[ONE])
    sample = dataset.read(dataset.entries[0])
    traces = traces_of(dataset)
    for kind, dtype in (("voxel", np.float32), ("voxel", np.int16)):
        data = np.ascontiguousarray(sample.volume.data.astype(dtype)).tobytes()
        assert any(trace in data for trace in traces[kind])
    points = sample.review.current.points.astype(np.float32).tobytes()
    assert any(trace in points for trace in traces["landmark"])


def test_an_error_says_nothing_of_the_site(tmp_path, start, datasets):
    broken = Path(shutil.copytree(datasets[ONE], tmp_path / "mrs_miller"))
    os.truncate(broken / Dataset.open(broken).entries[1].image, 900)
    made = federation(start, min_train_nodes=1, min_available_nodes=1, min_evaluate_nodes=1)
    grid = grid_of(made, start, {ONE: broken}, tmp_path)
    with pytest.raises(UserError, match="no site has trained round 1") as caught:
        run(made, start, grid, tmp_path)
    assert FAILED.rstrip(".") in str(caught.value)
    assert b"miller" not in b"".join(grid.sent)
    assert str(tmp_path).encode() not in b"".join(grid.sent)
    assert {m.error.reason for m in answers(grid)} == {FAILED}


# Refusals -----------------------------------------------------------------------------------------


def refused(made, start, grid, folder) -> str:
    with pytest.raises(UserError, match="no site has trained round 1") as caught:
        run(made, start, grid, folder)
    assert all(message.has_error() for message in answers(grid))
    return str(caught.value)


def test_a_site_refuses_another_protocol(tmp_path, datasets, tiny_model):
    """Its dataset has other landmarks than the server's model."""
    made = federation(tiny_model)
    grid = grid_of(made, tiny_model, datasets, tmp_path)
    sentence = refused(made, tiny_model, grid, tmp_path)
    assert "landmark protocol" in sentence
    assert sentence.count("nothing was trained") == 1
    assert not list(tmp_path.glob("site*/rounds"))


def test_a_site_refuses_another_model_stage(tmp_path, start, datasets):
    other = load_model(start)
    shifted = Path(shutil.copytree(start, tmp_path / "other"))
    about = json.loads((shifted / "model.json").read_text())
    about["mean_shape"][0][0] += 5.0
    (shifted / "model.json").write_text(json.dumps(about))
    assert Stage.of(load_model(shifted)).protocol == Stage.of(other).protocol
    made = federation(start)
    grid = grid_of(made, shifted, datasets, tmp_path)
    assert "model stage" in refused(made, start, grid, tmp_path)


def test_a_site_may_insist_on_protection(tmp_path, start, datasets):
    made = federation(start)
    grid = grid_of(made, start, datasets, tmp_path, require="secure-aggregation")
    assert "secure aggregation only" in refused(made, start, grid, tmp_path)


@pytest.mark.parametrize("kind", ["train.default", "evaluate.default"])
def test_no_name_of_a_question_goes_round_the_protection(
    tmp_path, start, datasets, pretended, kind
):
    """Flower brings "train.default" to the handler of "train"."""
    made = federation(start)
    grid = grid_of(made, start, {ONE: datasets[ONE]}, tmp_path, require="local-noise")
    base = load_model(start)
    recipe = made.at(start, "run", "dataset", MachineConfig())
    arrays = site.shared_arrays(site.networks_of(base), recipe.trained, "shared")
    config = ConfigRecord({"server-round": 1, **Stage.of(base).to_config()})
    content = RecordDict({"arrays": to_record(arrays), "config": config})
    (answer,) = grid.send_and_receive([FlowerMessage(content, ONE, kind)])
    assert answer.has_error()
    assert not (tmp_path / f"site{ONE}").exists()


def test_a_model_name_from_the_server_is_no_path(tmp_path, start, datasets):
    made = federation(start)
    grid = grid_of(made, start, datasets, tmp_path)
    for context in grid.contexts.values():
        del context.node_config["model"]
        context.run_config["model"] = "../../etc"
    assert "does not come with the program" in refused(made, start, grid, tmp_path)


# Accidents ----------------------------------------------------------------------------------------


def ended(folder: Path) -> dict[str, torch.Tensor]:
    """Weights of the model that the server has written."""
    return load_model(folder / "server" / "model").network.state_dict()


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
def test_a_restarted_server_goes_on_and_counts_no_round_twice(
    tmp_path, start, datasets, pretended, strategy
):
    """The model is that of a server which was never killed; fedadam keeps its moments."""
    made = federation(start, strategy=strategy, rounds=3)
    whole, parts = (grid_of(made, start, datasets, tmp_path / name) for name in ("a", "b"))
    run(made, start, whole, tmp_path / "a")
    parts.killed_after = 1
    with pytest.raises(KeyboardInterrupt):
        run(made, start, parts, tmp_path / "b")
    parts.killed_after = None
    lines = []
    run(made, start, parts, tmp_path / "b", lines.append)
    assert lines[0] == "going on after round 1"
    assert parts.asked.count(("train", ONE)) == whole.asked.count(("train", ONE)) == 3
    first, second = ended(tmp_path / "a"), ended(tmp_path / "b")
    assert any((first[k] != load_model(start).network.state_dict()[k]).any() for k in first)
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_round_goes_on_without_a_dead_and_a_late_site(tmp_path, start, datasets, pretended):
    made = federation(start, rounds=1)
    grid = grid_of(made, start, datasets, tmp_path)
    grid.dead = {ONE}
    run(made, start, grid, tmp_path)
    told = json.loads((tmp_path / "server" / rounds.HISTORY).read_text())
    assert [s["num-examples"] for s in told["rounds"][0]["sites"]] == [3]
    assert told["rounds"][0]["failed"] == 1
    late = tmp_path / "late"
    grid = grid_of(made, start, datasets, late)
    grid.late = {TWO}
    run(made, start, grid, late)
    told = json.loads((late / "server" / rounds.HISTORY).read_text())
    assert [s["num-examples"] for s in told["rounds"][0]["sites"]] == [2]


def test_a_site_that_is_asked_again_does_not_train_twice(tmp_path, start, datasets, monkeypatch):
    made = federation(start)
    here = site.Site(made, datasets[ONE], tmp_path, start)
    arrays = site.shared_arrays(site.networks_of(here.base), here.recipe.trained, "shared")
    first = here.train(1, arrays)
    monkeypatch.setattr(
        site.Trainer, "take_step", lambda *_: pytest.fail("it trains again"), raising=False
    )
    again = here.train(1, arrays)
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, again.arrays[name])


def test_a_corrected_federation_does_not_go_on_in_the_old_one(tmp_path, start, datasets):
    """Its first round begins with the same weights; more rounds are no other federation."""
    made = federation(start, steps=1)
    here = site.Site(made, datasets[ONE], tmp_path, start)
    arrays = site.shared_arrays(site.networks_of(here.base), here.recipe.trained, "shared")
    here.train(1, arrays)
    (old,) = (tmp_path / site.ROUNDS).iterdir()
    more = federation(start, steps=1, rounds=made.settings.rounds + 5)
    site.Site(more, datasets[ONE], tmp_path, start).train(1, arrays)
    assert list((tmp_path / site.ROUNDS).iterdir()) == [old]
    slower = {**made.recipe, "fine": {**made.recipe["fine"], "learning_rate": 1e-6}}
    site.Site(replace(made, recipe=slower), datasets[ONE], tmp_path, start).train(1, arrays)
    (new,) = (tmp_path / site.ROUNDS).iterdir()
    assert new != old


def test_a_round_of_which_nothing_can_be_read_begins_with_the_servers_weights(
    tmp_path, start, datasets
):
    made = federation(start, steps=1)
    here = site.Site(made, datasets[ONE], tmp_path, start)
    arrays = site.shared_arrays(site.networks_of(here.base), here.recipe.trained, "shared")
    arrays = {name: array + np.float32(0.25) for name, array in arrays.items()}
    first = here.train(1, arrays)
    (checkpoint,) = tmp_path.glob(f"{site.ROUNDS}/*/fine/*0001")
    for file in checkpoint.iterdir():
        os.truncate(file, 3)
    again = here.train(1, arrays)
    for name, array in first.arrays.items():
        np.testing.assert_allclose(again.arrays[name], array, rtol=1e-4, atol=1e-4)


def test_a_full_disk_at_a_site_costs_its_round_only(
    tmp_path, start, datasets, pretended, monkeypatch
):
    made = federation(start, rounds=1)
    grid = grid_of(made, start, datasets, tmp_path)
    train = site.Site.train

    def full(self, *arguments):
        if str(ONE) in self.folder.name:
            raise UserError(f"cannot write a checkpoint to {self.folder} (No space left)")
        return train(self, *arguments)

    monkeypatch.setattr(site.Site, "train", full)
    run(made, start, grid, tmp_path)
    told = json.loads((tmp_path / "server" / rounds.HISTORY).read_text())
    assert told["rounds"][0]["failed"] == 1
    assert len(told["rounds"][0]["sites"]) == 1
    assert str(tmp_path).encode() not in b"".join(grid.sent)


def test_a_full_disk_at_the_server_leaves_the_rounds_before(tmp_path, start, monkeypatch):
    made, stage = federation(start), Stage("p", "m")
    kept = Rounds(tmp_path, stage, made)
    kept.add({"fine.a": np.ones(3, np.float32)}, {"sites": []})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("BrainLandmarksTrainLib.engine.checkpoint.save_file", full)
    with pytest.raises(UserError, match="No space left"):
        kept.add({"fine.a": np.zeros(3, np.float32)}, {"sites": []})
    assert kept.done == 1
    monkeypatch.undo()
    again = Rounds(tmp_path, stage, made)
    assert again.done == 1
    np.testing.assert_array_equal(again.arrays["fine.a"], np.ones(3))
    with pytest.raises(UserError, match="another federation"):
        Rounds(tmp_path, Stage("p", "other"), made)


# Strategies and protections -----------------------------------------------------------------------


def first_round(start, datasets, folder, steps=2, **changes):
    made = federation(start, steps=steps, **{"rounds": 1, **changes})
    grid = grid_of(made, start, datasets, folder)
    grid.measuring = changes.get("batch_norm") == "local"
    run(made, start, grid, folder)
    kept = rounds.latest_checkpoint(folder / "server" / rounds.FOLDER)
    return {k: v.numpy() for k, v in rounds.read_checkpoint(kept).part("weights").items()}, grid


def moved(weights, start) -> float:
    state = load_model(start).network.state_dict()
    ours = part_of(weights, "fine")
    return float(sum(((t - state[n]) ** 2).sum() for n, t in ours.items())) ** 0.5


def test_fedprox_holds_the_weights_near(tmp_path, start, datasets):
    distances = []
    for mu in (0.0, 1e4):
        made = federation(start, steps=5, strategy="fedprox", proximal_mu=mu)
        here = site.Site(made, datasets[ONE], tmp_path / f"{mu}", start)
        arrays = site.shared_arrays(site.networks_of(here.base), here.recipe.trained, "shared")
        distances.append(moved(here.train(1, arrays).arrays, start))
    assert distances[1] < 0.9 * distances[0]


def test_differential_privacy_limits_updates_and_adds_noise(tmp_path, start, datasets, pretended):
    plain, _ = first_round(start, datasets, tmp_path / "plain")
    limited, _ = first_round(
        start, datasets, tmp_path / "limit", privacy="site", noise_multiplier=0.0,
        clipping_norm=1e-2,
    )  # fmt: skip
    assert moved(plain, start) > 0.1
    assert moved(limited, start) == pytest.approx(1e-2, rel=0.01)
    noisy, _ = first_round(
        start, datasets, tmp_path / "noise", privacy="server", noise_multiplier=2.0,
        clipping_norm=1e-2,
    )  # fmt: skip
    count = sum(array.size for array in noisy.values())
    assert moved(noisy, start) == pytest.approx(2.0 * 1e-2 / 2 * count**0.5, rel=0.1)
    _, grid = first_round(
        start, datasets, tmp_path / "local", privacy="local", epsilon=50.0, clipping_norm=1e-2
    )
    one, _ = [m for m in answers(grid) if m.content.array_records]
    assert moved(weights_in(one), start) > 3e-2  # noise is in it before it leaves


def failing_at(monkeypatch, numbers) -> None:
    """Sites that answer with an error."""
    train = site.Site.train

    def broken(self, *arguments):
        if any(str(number) in self.folder.name for number in numbers):
            raise UserError("a scan is broken")
        return train(self, *arguments)

    monkeypatch.setattr(site.Site, "train", broken)


@pytest.mark.parametrize("privacy", ["server", "site"])
def test_with_privacy_a_failing_site_costs_its_own_part_only(
    tmp_path, start, datasets, pretended, monkeypatch, privacy
):
    failing_at(monkeypatch, [ONE])
    weights, _ = first_round(
        start, datasets, tmp_path, privacy=privacy, noise_multiplier=0.0, clipping_norm=1e-2,
        min_train_nodes=1,
    )  # fmt: skip
    assert moved(weights, start) == pytest.approx(1e-2, rel=0.01)
    told = json.loads((tmp_path / "server" / rounds.HISTORY).read_text())
    assert [s["num-examples"] for s in told["rounds"][0]["sites"]] == [3]
    assert told["rounds"][0]["failed"] == 1


def test_with_privacy_a_round_of_too_few_sites_is_not_kept(
    tmp_path, start, datasets, pretended, monkeypatch
):
    """The noise is for a mean of min_train_nodes sites."""
    failing_at(monkeypatch, [ONE])
    made = federation(start, rounds=1, privacy="server", min_train_nodes=2)
    grid = grid_of(made, start, datasets, tmp_path)
    with pytest.raises(UserError, match=r"only 1 of 2 sites have trained round 1: .*its own log"):
        run(made, start, grid, tmp_path)
    assert rounds.latest_checkpoint(tmp_path / "server" / rounds.FOLDER) is None


@pytest.mark.parametrize("privacy", ["server", "site"])
def test_with_privacy_every_site_counts_the_same(tmp_path, start, datasets, monkeypatch, privacy):
    """The noise is that of a mean of equal parts, whoever has more scans."""

    def train(self, number, arrays):
        up = 1 if str(ONE) in self.folder.name else -1
        moved = {name: array + np.float32(up * 1e-5) for name, array in arrays.items()}
        return site.Trained(moved, len(self.dataset.of_split("train")), 1.0, 2.0)

    monkeypatch.setattr(site.Site, "train", train)
    weights, _ = first_round(start, datasets, tmp_path, privacy=privacy, noise_multiplier=0.0)
    assert moved(weights, start) < 1e-6 * sum(a.size for a in weights.values()) ** 0.5
    told = json.loads((tmp_path / "server" / rounds.HISTORY).read_text())
    assert sorted(s["num-examples"] for s in told["rounds"][0]["sites"]) == [2, 3]


def test_a_site_with_too_many_scans_for_secure_aggregation_refuses(tmp_path, start, datasets):
    made = federation(start, secure_aggregation=True, most_scans=2)
    small, large = (
        site.Site(made, datasets[n], tmp_path / str(n), start, report=lambda line: None)
        for n in (ONE, TWO)
    )
    arrays = site.shared_arrays(site.networks_of(small.base), small.recipe.trained, "shared")
    with pytest.raises(Refused, match="than the 2 that"):
        large.train(1, arrays)
    assert small.train(1, arrays).scans == 2


def test_a_site_is_one_process(tmp_path, start, datasets, monkeypatch):
    """In a job of Slurm or torchrun with many tasks as well."""
    here = site.Site(federation(start), datasets[ONE], tmp_path, start)
    slurm = {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "a"}
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    torchrun = {"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}
    for environment in (slurm, torchrun):
        assert _processes(here.recipe.machine, torch.device("cuda"), environment) == (1, 1)
    assert make_fabric(replace(here.recipe.machine, device="cpu")).world_size == 1


def test_a_broken_test_scan_does_not_cost_the_model(tmp_path, start, datasets, monkeypatch):
    here = site.Site(federation(start), datasets[ONE], tmp_path, start)
    arrays = site.shared_arrays(site.networks_of(here.base), here.recipe.trained, "shared")

    def broken(*_):
        raise UserError("the scan cannot be read")

    monkeypatch.setattr(site.Comparison, "of_model", broken)
    with pytest.raises(UserError, match="cannot be read"):
        here.measure(2, arrays)
    assert load_model(tmp_path / "model").spec.training["rounds"] == 2


@pytest.mark.parametrize("answered", [True, False])
def test_an_earlier_measurement_is_not_taken_for_the_last(
    tmp_path, start, datasets, pretended, monkeypatch, answered
):
    """Where nobody has answered after the last round, the sites are asked once more."""
    asked = []

    def measure(self, number, arrays):
        asked.append(number)
        if number == 2 and (len(asked) <= 4 or not answered):
            raise UserError("busy")
        return site.Measured(1, 9.0, float(number), 0, 0)

    monkeypatch.setattr(site.Site, "measure", measure)
    made = federation(start, evaluate_every=1)
    grid = grid_of(made, start, datasets, tmp_path)
    grid.measuring = True
    run(made, start, grid, tmp_path)
    assert asked == [1, 1, 2, 2, 2, 2]
    told = json.loads((tmp_path / "server" / rounds.HISTORY).read_text())
    assert [row["after_mm"] for row in told["sites"]] == ([2.0, 2.0] if answered else [])


def test_secure_aggregation_gives_the_same_mean_and_hides_each_site(
    tmp_path, start, datasets, pretended
):
    plain, clear = first_round(start, datasets, tmp_path / "plain")
    secret, grid = first_round(start, datasets, tmp_path / "secret", secure_aggregation=True)
    for name, array in plain.items():
        np.testing.assert_allclose(secret[name], array, atol=5e-3)
    assert grid.asked.count(("train", ONE)) == 4  # the stages of SecAgg+
    in_the_clear, masked = b"".join(clear.sent), b"".join(grid.sent)
    for message in answers(clear):
        for array in weights_in(message).values():
            if array.size > 4:
                assert array.tobytes() in in_the_clear
                assert array.tobytes()[:16] not in masked


def test_batch_norm_may_stay_at_the_site(tmp_path, start, datasets, monkeypatch):
    monkeypatch.setattr(site, "STATISTICS_BATCHES", 2)
    weights, _ = first_round(start, datasets, tmp_path, batch_norm="local")
    norms = {f"fine.{name}" for name in norm_names(load_model(start).network)}
    assert norms
    assert not norms & set(weights)
    files = [tmp_path.glob(f"site{n}/{site.PERSONAL}/*/fine.safetensors") for n in datasets]
    kept = [load_file(file) for (file,) in files]
    means = [k for k in kept[0] if k.endswith("running_mean")]
    assert any((kept[0][k] != kept[1][k]).any() for k in means)
    for n, own in zip(datasets, kept):
        shipped = load_model(tmp_path / f"site{n}" / "model").network.state_dict()
        torch.testing.assert_close(shipped[means[0]], own[means[0]], rtol=1e-2, atol=1e-2)


def test_a_site_that_joins_late_measures_its_own_batch_norm(tmp_path, start, datasets, monkeypatch):
    """And one that was there before does not measure it again."""
    measured = []
    freeze = site.Trainer.freeze_norm
    monkeypatch.setattr(site, "STATISTICS_BATCHES", 2)
    monkeypatch.setattr(
        site.Trainer, "freeze_norm", lambda self: measured.append(self.state.step) or freeze(self)
    )
    made = federation(start, steps=1, rounds=3, batch_norm="local")
    here = site.Site(made, datasets[ONE], tmp_path, start)
    arrays = site.shared_arrays(site.networks_of(here.base), here.recipe.trained, "local")
    here.train(2, arrays)
    assert measured == [1]
    here.train(3, arrays)
    assert measured == [1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategy": "fedadam", "secure_aggregation": True}, "plain averaging"),
        ({"privacy": "site", "secure_aggregation": True}, "cannot be combined"),
        ({"min_train_nodes": 1, "secure_aggregation": True}, "two sites"),
    ],
)
def test_settings_that_exclude_each_other(changes, words):
    with pytest.raises(UserError, match=words):
        FederationConfig(**changes)


# The app, and Flower's processes ------------------------------------------------------------------


def test_the_app_is_one_that_flower_packs(tmp_path, start):
    from flwr.cli.build import build_fab_from_disk
    from flwr.cli.config_utils import load_and_validate
    from flwr.common.config import get_fab_config, get_fused_config_from_fab
    from flwr.supercore.run import Run

    made = federation(start, strategy="fedprox")
    folder = write_app(made, tmp_path / "my-app")
    load_and_validate(folder / "pyproject.toml")
    packed = build_fab_from_disk(folder)
    assert get_fab_config(packed)["tool"]["flwr"]["app"]["publisher"] == "brainlandmarks"
    assert packed == build_fab_from_disk(folder)
    fused = get_fused_config_from_fab(packed, Run.create_empty(1))
    assert federation_equal(fused, made)
    assert federation_equal(read_app(folder).to_run_config(), made)
    assert str(tmp_path).encode() not in packed
    assert str(start).encode() not in packed
    assert {p.name for p in (folder / PACKAGE).iterdir()} == {
        "__init__.py", "client.py", "server.py",
    }  # fmt: skip
    write_app(made, folder)  # again, over itself
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").touch()
    with pytest.raises(UserError, match="not empty"):
        write_app(made, tmp_path / "taken")


def recipe_file(folder: Path, start: Path, part: str = "fine", **changes) -> Path:
    """The recipe of a federation as a file, with some settings of a network changed."""
    values = dict(federation(start).recipe)
    values[part] = {**values["fine"], **changes}
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 32}, "size 32 for 'fine' and first has 16"),
        ({"field_of_view_mm": 100.0}, "field_of_view_mm 100.0"),
        ({"features": 4}, "features 4"),
        ({"attention": "squeeze_excitation"}, "attention squeeze_excitation"),
        ({"long_skips": True}, "long_skips True"),
        ({"part": "refinement", "prior_mm": 3.0}, "first has no refinement network"),
    ],
)
def test_a_recipe_with_other_networks_than_the_model_has_is_refused(
    tmp_path, start, changes, words
):
    """It was taken, and the model's networks were trained all the same."""
    recipe = recipe_file(tmp_path, start, **changes)
    with pytest.raises(UserError, match=words):
        federation_of(start, settings(), steps=None, recipe=recipe)


def test_steps_of_the_command_go_before_those_of_the_recipe(tmp_path, start, capsys):
    recipe = recipe_file(tmp_path, start, steps=7, crop=[12, 12, 12])
    command = ["federate", "app", str(tmp_path / "app"), "--model", str(start), "--recipe"]
    assert main([*command, str(recipe)]) == 0
    assert read_app(tmp_path / "app").recipe["fine"]["steps"] == 7
    assert main([*command, str(recipe), "--steps", "9"]) == 0
    assert read_app(tmp_path / "app").recipe["fine"]["steps"] == 9
    assert read_app(tmp_path / "app").recipe["fine"]["crop"] == [12, 12, 12]


def federation_equal(config, made) -> bool:
    return type(made).of_run_config(config) == made


def test_only_the_federation_knows_flower():
    """Everything else works without it, and imports it nowhere."""
    for path in sorted((ROOT / "BrainLandmarksTrain").rglob("*.py")):
        names = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            for name in (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert "flwr" not in names or path.parent.name == "federation", path


def test_without_flower_one_sentence_says_how_to_get_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(flower.importlib.util, "find_spec", lambda name: None)
    command = ["federate", "server", "-o", str(tmp_path), "--insecure"]
    assert main(command) == 2
    assert "pip install 'brainlandmarks[federated]'" in capsys.readouterr().err


def test_flower_calls_nobody(tmp_path):
    """In every process that we start, reports of use and the search for updates are off."""
    environment = flower.environment(tmp_path, {"FLWR_TELEMETRY_ENABLED": "1", "PATH": "/bin"})
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_HOME"] == str(tmp_path)
    code = f"""
import sys
from pathlib import Path
from BrainLandmarksTrainLib.federation import flower
from importlib import metadata
class Entry:
    def load(self):
        def look():
            from flwr.supercore import telemetry
            import os
            print(telemetry.FLWR_TELEMETRY_ENABLED, os.environ["FLWR_DISABLE_UPDATE_CHECK"])
            sys.exit(3)
        return look
flower.metadata.entry_points = lambda **_: [Entry()]
assert "flwr" not in sys.modules
print(flower.run_here("flower-superlink", [], Path({str(tmp_path / "home")!r})))
"""
    telling = {**os.environ, "FLWR_TELEMETRY_ENABLED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=telling, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0", "1", "3"], done.stderr


@pytest.mark.parametrize("error", ["OSError('no connection')", "KeyboardInterrupt"])
def test_an_error_of_flower_ends_the_process_whatever_its_threads_do(tmp_path, error):
    code = f"""
import threading, time
from pathlib import Path
from BrainLandmarksTrainLib.federation import flower
class Entry:
    def load(self):
        def fail():
            threading.Thread(target=time.sleep, args=(600,)).start()
            raise {error}
        return fail
flower.metadata.entry_points = lambda **_: [Entry()]
flower.run_here("flower-supernode", [], Path({str(tmp_path)!r}))
"""
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=given, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert error.partition("(")[0] in done.stderr


def test_the_commands_are_flowers(tmp_path, start, datasets, monkeypatch, capsys):
    """What each command asks Flower for; the dataset is in a file that stays."""
    called = []

    def noted(command, arguments, home, variables=None):
        called.append((command, list(arguments), variables))
        return 0

    monkeypatch.setattr(flower, "run_here", noted)
    monkeypatch.setattr(
        node, "keep_joined", lambda options, home, app: called.append(options) or 130
    )
    for name in ("ca.crt", "server.pem", "server.key"):
        (tmp_path / name).write_bytes(certificate())
    (tmp_path / "site.key").write_bytes(private_key())
    app = tmp_path / "app"
    assert main(["federate", "app", str(app), "--model", str(start), "--rounds", "3"]) == 0
    assert read_app(app).settings.rounds == 3
    server = ["federate", "server", "-o", str(tmp_path / "out"), "--certificate",
              str(tmp_path / "server.pem"), "--key", str(tmp_path / "server.key"),
              "--root-certificates", str(tmp_path / "ca.crt"), "--known-sites"]  # fmt: skip
    assert main([*server, str(tmp_path)]) == 2  # no key is there
    assert "no public keys" in capsys.readouterr().err
    (tmp_path / "site.key.pub").write_text("x")
    monkeypatch.setattr("BrainLandmarksTrainLib.cli.federate.server.admit_later", lambda *_: None)
    assert main([*server, str(tmp_path)]) == 0
    joining = ["federate", "site", "--server", "hospital.org:8000", "--dataset", str(datasets[ONE]),
               "-o", str(tmp_path / "site"), "--root-certificates", str(tmp_path / "ca.crt"),
               "--key", str(tmp_path / "site.key"), "--app", str(app),
               "--model", str(start)]  # fmt: skip
    assert main(joining) == 130
    (superlink, options, more), asked = called
    assert superlink == "flower-superlink"
    assert "--enable-supernode-auth" in options
    assert "--disable-runtime-dependency-installation" in options
    assert more[flower.SERVER_FOLDER] == str(tmp_path / "out")
    assert "--auth-supernode-private-key" in asked
    assert "hospital.org:8000" in asked
    told = Path(asked[asked.index("--node-config") + 1])
    assert str(datasets[ONE]) in told.read_text()
    assert not any(str(datasets[ONE]) in each for each in asked)
    assert main([*joining[:-2], "--model", "nowhere"]) == 2
    assert main([*joining[:-4], "--app", str(tmp_path)]) == 2
    assert main([a for a in joining if "ca.crt" not in a and a != "--root-certificates"]) == 2
    assert "certificate" in capsys.readouterr().err
    (tmp_path / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\n")
    assert main(joining) == 2
    assert "holds no certificate" in capsys.readouterr().err
    (tmp_path / "ca.crt").write_bytes(certificate())
    (tmp_path / "server.pem").write_bytes(b"\xff")
    assert main([*server, str(tmp_path)]) == 2
    assert "holds no certificate" in capsys.readouterr().err


def private_key(kind: str = "ec") -> bytes:
    """A key as ssh-keygen writes it."""
    curve = kind == "ec"
    key = ec.generate_private_key(ec.SECP384R1()) if curve else ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


@pytest.mark.parametrize(
    "content",
    [b"ecdsa-sha2-nistp384 AAAA site", b"", private_key("ed25519")],
    ids=["public", "empty", "another kind"],
)
def test_a_key_that_no_site_can_join_with_is_told_at_once(tmp_path, content):
    """Flower's node would end with it, and be started again for ever."""
    key, told = tmp_path / "site.key", tmp_path / "site.toml"
    key.write_bytes(content)
    with pytest.raises(UserError, match="no private key that a site can join with"):
        node.join_options("federation.org:8000", told, key)
    key.write_bytes(private_key())
    assert str(key) in node.join_options("federation.org:8000", told, key)
    with pytest.raises(UserError, match="over TLS only"):
        node.join_options("federation.org:8000", told, key, insecure=True)


@pytest.mark.parametrize(
    "server",
    [
        "federation.org", "federation.org:", ":8000", "federation.org:99999", "federation.org:0",
        "https://federation.org:8000", "federation.org:8000/", "a b:8000", "me@host:8000", "[::1:8",
        "::1:8000", "federation.org:port",
    ],
)  # fmt: skip
def test_what_is_no_address_is_told_at_once(tmp_path, server, monkeypatch):
    monkeypatch.setattr(node, "run_here", lambda *_: pytest.fail("Flower is asked"))
    with pytest.raises(UserError, match="is no address"):
        node.join_options(server, tmp_path / "site.toml", None)
    with pytest.raises(UserError, match="is no address"):
        node.run_flwr([], server, True, None)


def test_an_address_may_be_a_number():
    for server in ("127.0.0.1:8000", "[::1]:8000", "localhost:1", "a-b.example.org:65535"):
        flower.need_address(server)


def test_a_node_that_can_never_join_is_not_started_again(tmp_path, capsys):
    """An app that cannot be read is a sentence and the code that ends joining."""
    assert node.main([str(tmp_path / "home"), str(tmp_path), "--insecure"]) == node.REFUSED
    said = capsys.readouterr().err
    assert said.startswith("brainlandmarks: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("host", "reached", "server"),
    [
        ("0.0.0.0", "127.0.0.1", "127.0.0.1:8000"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1:8000"),
        ("::", "localhost", "localhost:8000"),
        ("10.1.2.3", "10.1.2.3", "10.1.2.3:8000"),
        ("fe80::1", "fe80::1", "[fe80::1]:8000"),
    ],
)
def test_known_sites_are_registered_where_the_server_listens(
    tmp_path, monkeypatch, capsys, host, reached, server
):
    asked, codes = [], [0, 2]

    def waited(port, seconds, where):
        assert seconds < float("inf")
        return asked.append((where, port)) is None

    def given(command, check):
        asked.append(command[command.index("--server") + 1])
        return subprocess.CompletedProcess(command, codes.pop(0))

    monkeypatch.setattr(flower, "wait_for_port", waited)
    monkeypatch.setattr(subprocess, "run", given)
    server_command.admit_later(
        [tmp_path / "a.pub", tmp_path / "b.pub"], host, 8000, tmp_path / "ca.crt"
    ).join(10)
    assert asked == [(reached, 8000), server, server]
    said = capsys.readouterr().err
    assert "b.pub was not registered" in said
    assert "a.pub" not in said


def test_a_server_that_does_not_listen_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(server_command, "_LISTENS_S", 0.1)
    free = flower.free_port()
    server_command.admit_later([tmp_path / "a.pub"], "127.0.0.1", free, None).join(10)
    assert f"does not listen at 127.0.0.1:{free}" in capsys.readouterr().err


def test_known_sites_need_tls(tmp_path, capsys):
    (tmp_path / "site.key.pub").write_text("x")
    command = ["federate", "server", "-o", str(tmp_path / "out"), "--insecure"]
    assert main([*command, "--known-sites", str(tmp_path)]) == 2
    assert "over TLS only" in capsys.readouterr().err


def joining_site(folder: Path, changes: str, node_script: str) -> subprocess.Popen[bytes]:
    """A process that keeps a site joined, with a script in the place of Flower's node.

    Args:
        changes: Lines for the process before it joins.
    """
    code = f"""
import os, signal, subprocess, sys
from pathlib import Path
from BrainLandmarksTrainLib.federation import node
class Spec:
    name = "waiting"
node.__spec__ = Spec
{changes}
sys.exit(node.keep_joined([], Path({str(folder)!r})))
"""
    (folder / "waiting.py").write_text(node_script)
    path = os.pathsep.join([str(folder), *sys.path])
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})


def test_a_site_joins_again_until_it_is_stopped(tmp_path, monkeypatch):
    """A node that ends by itself is started again; SIGTERM ends both."""
    process = joining_site(
        tmp_path,
        "node.AGAIN_S = 0.1",
        "import pathlib, sys, time\n"
        "times = pathlib.Path(sys.argv[1]) / 'times'\n"
        "with times.open('a') as file: file.write('x')\n"
        "time.sleep(0.1 if times.stat().st_size < 3 else 600)\n",
    )
    deadline = time.monotonic() + 120
    while not ((tmp_path / "times").exists() and (tmp_path / "times").stat().st_size == 3):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.wait(60) == node.STOPPED


@pytest.mark.parametrize("deaf", [False, True])
def test_a_site_can_leave_while_it_joins(tmp_path, deaf):
    """The signal comes while the node is being started; a node that does not listen ends too."""
    process = joining_site(
        tmp_path,
        f"""
node.END_S = 2.0
began = subprocess.Popen.__init__
def begin(self, *arguments, **options):
    began(self, *arguments, **options)
    while {deaf} and not Path({str(tmp_path / "deaf")!r}).exists():
        pass
    os.kill(os.getpid(), signal.SIGTERM)
subprocess.Popen.__init__ = begin
""",
        "import pathlib, signal, sys, time\n"
        + deaf * "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        + "(pathlib.Path(sys.argv[1]) / 'deaf').touch()\n"
        "time.sleep(600)\n",
    )
    assert process.wait(120) == node.STOPPED


def test_a_site_runs_no_other_app_than_its_own(tmp_path, start, monkeypatch):
    from contextlib import contextmanager

    from flwr.cli.build import build_fab_from_disk
    from flwr.supercore.fab import Fab
    from flwr.supercore.run import Run
    from flwr.supernode import start_client_internal as internals

    folder = write_app(federation(start), tmp_path / "own")
    other = write_app(federation(start, rounds=7), tmp_path / "other")
    sent = [build_fab_from_disk(folder), build_fab_from_disk(other)]
    runs = {1: Run.create_empty(1), 2: Run.create_empty(2)}
    runs[2].override_config = {"federation": "{}"}

    @contextmanager
    def connection(*_):
        yield (1, 2, 3, runs.get, lambda *_: Fab("hash", sent.pop(0), {}), 6, 7, 8)

    monkeypatch.setattr(internals, "http_request_response", connection)
    node.pin_app(folder)
    with internals.http_request_response("server") as parts:
        assert parts[:3] == (1, 2, 3)
        assert parts[5:] == (6, 7, 8)
        assert parts[3](1) is runs[1]
        with pytest.raises(UserError, match="other settings"):
            parts[3](2)  # flwr run --run-config: the app is the same, byte for byte
        parts[4]("hash", 1)
        with pytest.raises(UserError, match="another app"):
            parts[4]("hash", 1)


def test_the_page_names_the_settings():
    page = (ROOT / "docs" / "federated.md").read_text(encoding="utf-8")
    for name in FederationConfig.__dataclass_fields__:
        assert re.search(rf"`{name}`", page), name
