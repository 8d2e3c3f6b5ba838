"""Model folders: written whole, read back, and refused with one sentence when anything is wrong."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from BrainLandmarksLib import resources
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.network import model_files
from BrainLandmarksLib.network.decoding import Calibration
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.network.model_files import (
    CropSpec,
    Model,
    ModelSpec,
    ParcellationSpec,
    list_models,
    load_model,
    save_model,
)
from BrainLandmarksLib.protocol import Protocol, load_protocol


def tiny_network(outputs: int, seed: int) -> HighRes3DNet:
    """A network of numbers that half precision holds exactly."""
    torch.manual_seed(seed)
    network = HighRes3DNet(out_channels=outputs, features=2, residual_blocks=1, penultimate=4)
    network.load_state_dict({k: v.half() for k, v in network.state_dict().items()})
    return network.eval()


def tiny_model(protocol: Protocol, name: str = "tiny") -> Model:
    """A model of the right shape that has learnt nothing."""
    count = len(protocol)
    rng = np.random.default_rng(0)
    spec = ModelSpec(
        name=name,
        fine=CropSpec(16, 208.0),
        locator=CropSpec(8, 256.0),
        mean_shape=np.round(rng.normal(0, 40, (count, 3)), 3),
        calibration=Calibration((2.0, 8.0), (0.95, 0.2), count=50),
        training={"steps": 3, "heads": ["1", "2"]},
        held_out={"errors_mm": {"All": {"mean": 2.5}}},
        command="brainlandmarks train tiny.json",
        inverse_temperature=1.25,
    )
    return Model(protocol, tiny_network(count, 0), tiny_network(count, 1), spec)


@pytest.fixture(scope="module")
def afids32() -> Protocol:
    return load_protocol("afids32")


@pytest.fixture
def saved(tmp_path: Path, afids32: Protocol) -> Path:
    return save_model(tiny_model(afids32), tmp_path / "tiny")


def test_round_trip(saved: Path, afids32: Protocol) -> None:
    model, again = tiny_model(afids32), load_model(saved)
    assert again.protocol == model.protocol
    names = (
        "name",
        "fine",
        "locator",
        "calibration",
        "normalisation",
        "command",
        "inverse_temperature",
    )
    for name in names:
        assert getattr(again.spec, name) == getattr(model.spec, name)
    assert again.spec.training == model.spec.training
    assert again.spec.held_out == model.spec.held_out
    np.testing.assert_array_equal(again.spec.mean_shape, model.spec.mean_shape)
    cube = torch.rand(1, 1, 8, 8, 8)
    with torch.no_grad():
        assert torch.equal(again.network(cube), model.network(cube))
        assert torch.equal(again.locator(cube), model.locator(cube))
    assert not again.network.training
    assert sorted(p.name for p in saved.iterdir()) == [
        "locator.safetensors",
        "model.json",
        "weights.safetensors",
    ]


def test_a_refinement_network_is_kept_where_there_is_one(tmp_path: Path, afids32: Protocol) -> None:
    plain = tiny_model(afids32)
    spec = replace(plain.spec, refinement=CropSpec(8, 16.0))
    model = replace(plain, spec=spec, refinement=tiny_network(len(afids32), 2))
    folder = save_model(model, tmp_path / "refined")
    again = load_model(folder)
    assert again.spec.refinement == CropSpec(8, 16.0)
    assert again.refinement is not None
    cube = torch.rand(1, 1, 8, 8, 8)
    with torch.no_grad():
        assert torch.equal(again.refinement(cube), model.refinement(cube))
    assert list(model_files.model_weights(folder)) == ["fine", "locator", "refinement"]
    assert set(model_files.summarise(folder).networks) == {"fine", "locator", "refinement"}
    before = model_files.model_identity(folder)
    (folder / "refinement.safetensors").unlink()
    with pytest.raises(UserError, match="refinement"):
        load_model(folder)
    with pytest.raises(UserError, match="cannot be read"):
        model_files.model_identity(folder)
    assert model_files.model_identity(save_model(plain, tmp_path / "plain")) != before


STRUCTURES = (0, 2, 41, 251)


@pytest.fixture
def parcelling(tmp_path: Path, afids32: Protocol) -> Path:
    """The folder of a model with a parcellation network."""
    return save_model(with_parcellation(tiny_model(afids32)), tmp_path / "parcelling")


def with_parcellation(model: Model) -> Model:
    spec = replace(model.spec, parcellation=ParcellationSpec(1.5, STRUCTURES))
    return replace(model, spec=spec, parcellation=tiny_network(len(STRUCTURES), 3))


def test_a_parcellation_network_is_kept_where_there_is_one(
    parcelling: Path, saved: Path, afids32: Protocol
) -> None:
    model, again = with_parcellation(tiny_model(afids32)), load_model(parcelling)
    assert again.spec.parcellation == ParcellationSpec(1.5, STRUCTURES)
    assert again.parcellation is not None
    assert model.parcellation is not None
    cube = torch.rand(1, 1, 8, 8, 8)
    with torch.no_grad():
        assert torch.equal(again.parcellation(cube), model.parcellation(cube))
    assert not again.parcellation.training
    assert set(again.networks) == {"fine", "locator"}
    assert list(model_files.model_weights(parcelling)) == ["fine", "locator", "parcellation"]
    assert set(model_files.summarise(parcelling).networks) == {"fine", "locator", "parcellation"}
    assert load_model(saved).parcellation is load_model(saved).spec.parcellation is None
    before = model_files.model_identity(parcelling)
    path = parcelling / "parcellation.safetensors"
    weights = load_file(path)
    save_file(weights | {"classifier.bias": weights["classifier.bias"] + 1}, path)
    assert model_files.model_identity(parcelling) != before
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        model_files.model_identity(parcelling)


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize(
    "kind",
    [{"long_skips": True}, {"attention": "squeeze_excitation"}],
    ids=["long skips", "attention"],
)
def test_long_skips_and_attention_are_kept(tmp_path: Path, afids32: Protocol, kind: dict) -> None:
    torch.manual_seed(5)
    network = HighRes3DNet(
        out_channels=len(afids32), features=2, residual_blocks=1, penultimate=4, **kind
    ).eval()
    network.load_state_dict({k: v.half() for k, v in network.state_dict().items()})
    again = load_model(
        save_model(replace(tiny_model(afids32), network=network), tmp_path / "kind")
    ).network
    assert again.spec() == network.spec()
    cube = torch.rand(1, 1, 8, 8, 8)
    with torch.no_grad():
        assert torch.equal(again(cube), network(cube))


def test_no_attention_where_boxes_are_passed_in_tiles(parcelling: Path) -> None:
    """Squeeze-and-excitation of a tile is not that of the box."""
    attention = {"attention": "squeeze_excitation"}
    edit_in(parcelling, attention)
    with pytest.raises(UserError, match="attention"):
        load_model(parcelling)


def edit_in(folder: Path, architecture: dict) -> None:
    """Change the architecture of the parcellation network in model.json."""
    path = folder / "model.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["networks"]["parcellation"]["architecture"].update(architecture)
    path.write_text(json.dumps(values), encoding="utf-8")


def test_whoever_may_read_a_model_may_read_its_weights(parcelling: Path) -> None:
    modes = {file.name: file.stat().st_mode for file in parcelling.iterdir()}
    assert set(modes.values()) == {modes["model.json"]}
    assert "parcellation.safetensors" in modes


def test_names_of_earlier_versions_are_read(tmp_path: Path, afids32: Protocol) -> None:
    plain = tiny_model(afids32)
    spec = replace(plain.spec, refinement=CropSpec(8, 16.0))
    folder = save_model(
        replace(plain, spec=spec, refinement=tiny_network(len(afids32), 2)), tmp_path / "refined"
    )
    today = load_model(folder)
    about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    about["networks"]["detail"] = about["networks"].pop("refinement")
    about["sharpness"] = about.pop("inverse_temperature")
    (folder / "model.json").write_text(json.dumps(about), encoding="utf-8")
    (folder / "refinement.safetensors").rename(folder / "detail.safetensors")
    again = load_model(folder)
    assert again.spec.refinement == CropSpec(8, 16.0)
    assert again.spec.inverse_temperature == spec.inverse_temperature == 1.25
    cube = torch.rand(1, 1, 8, 8, 8)
    assert again.refinement is not None
    assert today.refinement is not None
    with torch.no_grad():
        assert torch.equal(again.refinement(cube), today.refinement(cube))


def test_a_crop_knows_its_voxel() -> None:
    assert CropSpec(64, 208.0).voxel_mm == pytest.approx(3.25)


def test_half_precision_weights_are_read(saved: Path) -> None:
    path = saved / "weights.safetensors"
    save_file({k: v.half() for k, v in load_file(path).items()}, path)
    network = load_model(saved).network
    assert all(p.dtype == torch.float32 for p in network.parameters())


def test_weights_are_stored_in_half_precision(tmp_path: Path, afids32: Protocol) -> None:
    model = tiny_model(afids32)
    torch.manual_seed(1)
    kernel = torch.randn_like(model.network.classifier.weight)
    kernel[0, 0] = 1e-9
    model.network.classifier.weight.data.copy_(kernel)
    folder = save_model(model, tmp_path / "halves")
    stored = load_file(folder / "weights.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    again = load_model(folder).network.classifier.weight
    assert again.dtype == torch.float32
    torch.testing.assert_close(again.detach(), kernel, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("first.1.running_var", 7e4),  # more than half precision knows
        ("first.1.running_var", 3e-8),  # would become 0 or twice as much
        ("classifier.weight", 1e5),
        ("classifier.weight", 1e-7),
    ],
)
def test_what_half_precision_would_ruin_is_stored_in_full(
    tmp_path: Path, afids32: Protocol, name: str, value: float
) -> None:
    model = tiny_model(afids32)
    model.network.state_dict()[name].fill_(value)
    folder = save_model(model, tmp_path / "model")
    stored = load_file(folder / "weights.safetensors")
    assert [key for key, tensor in stored.items() if tensor.dtype == torch.float32] == [name]
    assert torch.equal(load_model(folder).network.state_dict()[name], stored[name])
    assert float(stored[name].flatten()[0]) == pytest.approx(value)


def test_a_protocol_of_ones_own_travels_with_the_model(tmp_path: Path, afids32: Protocol) -> None:
    own = tmp_path / "mine.json"
    data = json.loads(afids32.to_json())
    data["name"] = "mine"
    own.write_text(json.dumps(data), encoding="utf-8")
    protocol = load_protocol(own)
    folder = save_model(tiny_model(protocol), tmp_path / "model")
    assert (folder / "protocol.json").is_file()
    assert load_model(folder).protocol == protocol


def test_saving_does_not_overwrite_unasked(saved: Path, afids32: Protocol) -> None:
    model = tiny_model(afids32)
    with pytest.raises(UserError, match="exists already"):
        save_model(model, saved)
    renamed = replace(model, spec=replace(model.spec, name="second"))
    save_model(renamed, saved, overwrite=True)
    assert load_model(saved).spec.name == "second"
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_saving_never_removes_what_is_no_model(tmp_path: Path, afids32: Protocol) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter1.txt").write_text("words")
    with pytest.raises(UserError, match="exists already"):
        save_model(tiny_model(afids32), folder, overwrite=True)
    assert (folder / "chapter1.txt").read_text(encoding="utf-8") == "words"


def test_failed_saving_leaves_the_old_model(
    saved: Path, afids32: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_files, "_write_parts", full_disk)
    with pytest.raises(UserError, match="No space left"):
        save_model(tiny_model(afids32, "new"), saved, overwrite=True)
    with pytest.raises(UserError, match="No space left"):
        save_model(tiny_model(afids32, "new"), saved.parent / "new")
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]
    assert load_model(saved).spec.name == "tiny"


def test_parts_that_contradict_are_not_saved(tmp_path: Path, afids32: Protocol) -> None:
    model = tiny_model(afids32)
    with pytest.raises(ValueError, match="heatmaps"):
        save_model(replace(model, network=tiny_network(3, 0)), tmp_path / "a")
    short = replace(model.spec, mean_shape=np.zeros((3, 3)))
    with pytest.raises(ValueError, match="mean shape"):
        save_model(replace(model, spec=short), tmp_path / "b")
    parcelling = with_parcellation(model)
    with pytest.raises(ValueError, match="come together"):
        save_model(replace(parcelling, parcellation=None), tmp_path / "c")
    with pytest.raises(ValueError, match="come together"):
        save_model(replace(parcelling, spec=model.spec), tmp_path / "d")
    with pytest.raises(ValueError, match="3 classes for 4 structures"):
        save_model(replace(parcelling, parcellation=tiny_network(3, 0)), tmp_path / "e")
    assert not list(tmp_path.iterdir())


def edit(**changes: object) -> Callable[[Path], None]:
    """Change model.json at dotted paths (double underscore = dot); None removes."""

    def damage(folder: Path) -> None:
        path = folder / "model.json"
        data = json.loads(path.read_text(encoding="utf-8"))
        for name, value in changes.items():
            *parents, last = name.split("__")
            place = data
            for parent in parents:
                place = place[parent]
            if value is None:
                del place[last]
            else:
                place[last] = value
        path.write_text(json.dumps(data))

    return damage


def tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "weights.safetensors"
        values = load_file(path)
        change(values)
        save_file(values, path)

    return damage


def cut(name: str, keep: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, keep)


def put(**values: torch.Tensor) -> Callable[[Path], None]:
    named = {k.replace("__", "."): v for k, v in values.items()}
    return tensors(lambda t: t.update(named))


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "no model.json": (lambda f: (f / "model.json").unlink(), "is not a model"),
    "model.json cut": (cut("model.json", 50), "cannot be read"),
    "model.json a list": (lambda f: (f / "model.json").write_text("[]"), "not a JSON object"),
    "newer format": (edit(format=99), "format 99"),
    "weights missing": (lambda f: (f / "weights.safetensors").unlink(), "is missing"),
    "locator missing": (lambda f: (f / "locator.safetensors").unlink(), "is missing"),
    "weights cut": (cut("weights.safetensors", 2000), "truncated"),
    "weights nearly whole": (
        lambda f: os.truncate(
            f / "weights.safetensors", (f / "weights.safetensors").stat().st_size - 4
        ),
        "truncated",
    ),
    "weights empty": (cut("weights.safetensors", 0), "truncated"),
    "weights are text": (
        lambda f: (f / "weights.safetensors").write_text("weights " * 99),
        "truncated or not a safetensors file",
    ),
    "tensor missing": (tensors(lambda t: t.__delitem__("classifier.bias")), "lacks tensor"),
    "tensor unknown": (put(extra=torch.zeros(2)), "unknown tensor extra"),
    "tensor of wrong shape": (put(classifier__bias=torch.zeros(5)), "(5,) instead of (32,)"),
    "tensor not finite": (put(classifier__bias=torch.full((32,), torch.nan)), "not finite"),
    "architecture wrong": (edit(networks__fine__architecture={"layers": 3}), "no network"),
    "architecture nonsense": (
        edit(networks__fine__architecture={"features": "many"}),
        "no network",
    ),
    "other width": (edit(networks__fine__architecture__features=4), "instead of"),
    "other K": (edit(networks__fine__architecture__out_channels=5), "5 landmarks"),
    "size of text": (edit(networks__fine__size="64"), "wrong type"),
    "size impossible": (edit(networks__fine__size=0), "impossible"),
    "field of view missing": (edit(networks__locator__field_of_view_mm=None), "lacks"),
    "protocol unknown": (edit(protocol__name="nonesuch"), "nonesuch"),
    "protocol changed": (edit(protocol__hash="0" * 64), "another version"),
    "protocol of other size": (edit(protocol__landmarks=88), "88 landmarks"),
    "protocol of other name": (edit(protocol__name="brain88"), "brain88"),
    "mean shape short": (edit(mean_shape=[[0, 0, 0]]), "mean shape"),
    "mean shape of text": (edit(mean_shape=[["a", 0, 0]] * 32), "mean shape"),
    "calibration wrong": (edit(calibration__knots=[3, 1]), "knots"),
    "calibration of text": (edit(calibration="sure"), "wrong type"),
    "inverse temperature of nothing": (edit(inverse_temperature=0), "inverse temperature"),
    "no name": (edit(name=None), "lacks name"),
}


def sized(**changes: object) -> Callable[[Path], None]:
    return edit(**{f"networks__parcellation__{name}": value for name, value in changes.items()})


WRONG_PARCELLATION: dict[str, tuple[Callable[[Path], None], str]] = {
    "weights missing": (lambda f: (f / "parcellation.safetensors").unlink(), "is missing"),
    "weights cut": (cut("parcellation.safetensors", 2000), "truncated"),
    "weights of another network": (
        lambda f: shutil.copy(f / "locator.safetensors", f / "parcellation.safetensors"),
        "instead of",
    ),
    "voxel missing": (sized(voxel_mm=None), "lacks"),
    "voxel of nothing": (sized(voxel_mm=0), "voxel_mm"),
    "voxel of text": (sized(voxel_mm="1.5"), "wrong type"),
    "structures missing": (sized(structures=None), "lacks"),
    "too few structures": (sized(structures=[0, 2, 41]), "4 classes for 3 structures"),
    "structures of text": (sized(structures=["background", 2, 41, 251]), "whole numbers"),
    "a structure twice": (sized(structures=[0, 2, 2, 251]), "different"),
    "no background": (sized(structures=[2, 41, 251, 0]), "the first 0"),
    "architecture missing": (sized(architecture=None), "lacks"),
    "architecture nonsense": (sized(architecture={"features": "many"}), "no network"),
    "no object": (edit(networks__parcellation=[1.5]), "lacks"),
}


@pytest.mark.parametrize("what", WRONG_PARCELLATION)
def test_wrong_parcellations_are_one_sentence(parcelling: Path, what: str) -> None:
    refused(parcelling, *WRONG_PARCELLATION[what])


@pytest.mark.parametrize("what", WRONG)
def test_wrong_models_are_one_sentence(saved: Path, what: str) -> None:
    refused(saved, *WRONG[what])


def refused(folder: Path, damage: Callable[[Path], None], sentence: str) -> None:
    damage(folder)
    with pytest.raises(UserError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert sentence in message
    assert "\n" not in message
    assert message.endswith(".")


def test_model_of_another_protocol(saved: Path, brain88: Protocol, afids32: Protocol) -> None:
    assert load_model(saved, afids32).protocol is afids32
    with pytest.raises(UserError, match="trained for protocol 'afids32'"):
        load_model(saved, brain88)


def test_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no model"):
        load_model(tmp_path / "nothing")


def test_list_models(tmp_path: Path, afids32: Protocol, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "folder", lambda name: tmp_path / name)
    save_model(tiny_model(afids32), tmp_path / "models" / "tiny")
    (summary,) = list_models()
    assert (summary.name, summary.protocol, summary.landmarks, summary.size) == (
        "tiny",
        "afids32",
        32,
        16,
    )
    assert summary.held_out["errors_mm"]["All"]["mean"] == 2.5
    edit(protocol__name=None)(summary.folder)
    with pytest.raises(UserError, match="lacks protocol"):
        list_models()
