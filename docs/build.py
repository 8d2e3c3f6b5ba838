"""Regenerate everything under docs/ and in the README that follows from code, protocol and model.

    make docs
    make docs AFIDS=tpl-MNIColin27_desc-groundtruth_afids.fcsv LABEL_MAPS=folder

writes docs/protocol.md, the pictures in docs/images/, the published augmentation settings, and the
tables of README.md, docs/augmentation.md, docs/gradcam.md, docs/model_card.md,
docs/parcellation.md, docs/planes.md and docs/robustness.md between `<!-- table:NAME -->` and
`<!-- /table -->`.
What needs data that does not come with the project is made anew only when it is given: AFIDS, the
experts' points on Colin27 (github.com/afids/autoafids), and LABEL_MAPS, the SynthSeg training label
maps (github.com/BBillot/SynthSeg).
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from BrainLandmarksLib import resources
from BrainLandmarksLib.annotation.schemes import MIDLINE, PAIRED
from BrainLandmarksLib.annotation.structures import structures
from BrainLandmarksLib.cli.distance import distances
from BrainLandmarksLib.cli.protocol import draw_pictures
from BrainLandmarksLib.figures import guide
from BrainLandmarksLib.figures.displacements import draw_displacements
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.io.tables import Table
from BrainLandmarksLib.network import PARCELLATION, PARTS
from BrainLandmarksLib.network.landmark_errors import LandmarkErrors
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.registration import series
from BrainLandmarksLib.registration.expected_error import expected_errors
from BrainLandmarksLib.registration.follow_up import follow
from BrainLandmarksTrainLib.evaluation.robustness.retest import Rescan, Retest, retest

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
BENCHMARKS = ROOT / "Testing" / "Benchmarks"
THUMBNAILS = ROOT / "BrainLandmarks" / "Resources" / "Thumbnails" / "brain88"
PROTOCOL = "brain88"
MODEL = "brain88"
ABNORMAL_SEED = 8


def main() -> None:
    """Write the protocol document, the pictures and the tables of the README."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--afids", type=Path, metavar="FCSV", help="experts' points on Colin27")
    parser.add_argument("--label-maps", type=Path, metavar="DIR", help="head label maps")
    arguments = parser.parse_args()
    protocol = load_protocol(PROTOCOL)
    (ROOT / "docs" / "protocol.md").write_text(annotation_guide(), encoding="utf-8")
    draw_pictures(protocol, IMAGES)
    for group in protocol.groups:
        made_small(IMAGES / guide.picture_name(group))
    found = draw_overview()
    draw_augmentation(found)
    draw_abnormal(placed_by_eye())
    draw_follow_up(placed_by_eye())
    publish_augmentation()
    guide.draw_thumbnails(read_image(resources.sample_head()), placed_by_eye(), THUMBNAILS)
    sanity = draw_gradcam()
    fill(
        ROOT / "docs" / "gradcam.md",
        {"sanity": lambda: sanity, "gradcam": lambda: bench(["bench_gradcam.py"])},
    )
    fill(
        ROOT / "docs" / "augmentation.md",
        {
            "defaults": augmentation_defaults,
            "augmentation": lambda: bench(["bench_augmentation.py"]),
        },
    )
    fill(
        ROOT / "docs" / "training.md",
        {"settings": training_settings, "training": lambda: bench(["bench_training.py"])},
    )
    fill(
        ROOT / "docs" / "registration.md",
        {"registration": lambda: bench(["bench_registration.py"])},
    )
    fill(ROOT / "docs" / "model_card.md", {**model_card(), "colin27": lambda: by_eye(found)})
    draw_scan_planes()
    fill(
        ROOT / "docs" / "planes.md",
        {"scan_planes": scan_planes, "retest_planes": draw_retest_planes},
    )
    fill(ROOT / "docs" / "parcellation.md", {"structures": structures_table, "dice": dice})
    robustness: dict[str, Callable[[], str]] = {"retest": draw_retest}
    if arguments.label_maps:
        robustness["conditions"] = lambda: draw_robustness(arguments.label_maps)
        robustness["quality"] = lambda: qualities(arguments.label_maps)
    fill(ROOT / "docs" / "robustness.md", robustness)
    # These are on the pages above.
    own = {
        "bench_augmentation.py", "bench_gradcam.py", "bench_registration.py", "bench_training.py",
    }  # fmt: skip
    scripts = {path.name for path in BENCHMARKS.glob("bench_*.py")} - own
    tables: dict[str, Callable[[], str]] = {
        "heldout": held_out,
        "real": real_scans,
        "colin27": lambda: by_eye(found),
        "bench": lambda: bench(sorted(scripts)),
    }
    if arguments.afids:
        tables["afids"] = lambda: afids(found, arguments.afids)
    if arguments.label_maps:
        report = evaluate(arguments.label_maps)
        # The report's last table; the others are stored with the model as well.
        tables["corrections"] = lambda: report.rsplit("\n\n", 1)[1]
    fill(ROOT / "README.md", tables)


def annotation_guide() -> str:
    """The text of docs/protocol.md: how to place every landmark by hand."""
    thumbnails = Path("..", *THUMBNAILS.relative_to(ROOT).parts)
    text = guide.markdown(load_protocol(PROTOCOL), Path("images"), thumbnails)
    return re.sub(r"\((images/\w+)\.png\)", r"(\1.webp)", text)


def made_small(picture: Path, width: int | None = None) -> None:
    """Put a WebP file in the place of a PNG file: a head takes a quarter of the bytes or less.

    Args:
        width: In pixels, if it is to be less.
    """
    from PIL import Image

    with Image.open(picture) as opened:
        image = opened.convert("RGB")
    if width is not None:
        size = (width, round(image.height * width / image.width))
        image = image.resize(size, Image.Resampling.LANCZOS)
    image.save(picture.with_suffix(".webp"), quality=60, method=6)
    picture.unlink()


def draw_overview() -> LandmarkSet:
    """Draw the picture that `brainlandmarks detect sample:colin27` writes, for the README."""
    from BrainLandmarksLib.detection import Detector
    from BrainLandmarksLib.figures.slices import draw_landmarks

    volume = read_image(resources.sample_head())
    found = Detector(MODEL).detect(volume).landmarks
    draw_landmarks(volume, found, IMAGES / "landmarks.png", title="Colin27")
    made_small(IMAGES / "landmarks.png")
    return found


def draw_gradcam() -> str:
    """Draw the picture of `brainlandmarks explain sample:colin27`; returns its sanity table."""
    from BrainLandmarksLib.detection import Detector
    from BrainLandmarksLib.gradcam.explanation import explain
    from BrainLandmarksLib.gradcam.figures import draw_explanation
    from BrainLandmarksLib.gradcam.sanity import randomise

    volume = read_image(resources.sample_head())
    detector = Detector(MODEL)
    explanation = explain(detector, detector.detect(volume))
    rows = range(len(explanation.protocol))
    draw_explanation(volume, explanation, rows, IMAGES / "gradcam.png", title="Colin27")
    made_small(IMAGES / "gradcam.png")
    return randomise(explanation, rows).markdown()


def draw_augmentation(found: LandmarkSet) -> None:
    """Draw every kind of variation of Colin27, each alone with the paper's ranges."""
    from BrainLandmarksTrainLib.augmentation import AugmentationConfig
    from BrainLandmarksTrainLib.augmentation.contact_sheet import SheetRow, draw_contact_sheet

    volume = read_image(resources.sample_head())
    rows = [SheetRow("original", "Colin27", volume, found)]
    paper = AugmentationConfig()
    rows += [_varied_alone(name, volume, found, 27) for name in (*paper.patient, *paper.machine)]
    draw_contact_sheet(rows, IMAGES / "augmentation.png")
    made_small(IMAGES / "augmentation.png")


def draw_abnormal(found: LandmarkSet) -> None:
    """Draw every kind of abnormal anatomy in Colin27, each alone at its strongest."""
    from BrainLandmarksTrainLib.augmentation.contact_sheet import SheetRow, draw_contact_sheet
    from BrainLandmarksTrainLib.evaluation.robustness.conditions import FAMILIES, Abnormal

    volume = read_image(resources.sample_head())
    rows = [SheetRow("original", "Colin27", volume, found)]
    for family in FAMILIES:
        if isinstance(family, Abnormal):
            strongest = family.transform(family.strengths[-1])
            changes = {family.name: strongest}
            rows.append(_varied_alone(family.name, volume, found, ABNORMAL_SEED, **changes))
    path = IMAGES / "abnormal.png"
    draw_contact_sheet(rows, path)
    made_small(path)


def _varied_alone(name: str, volume: Volume, found: LandmarkSet, seed: int, **changes: Any) -> Any:
    """The row of a scan varied by one transform of augmentation."""
    from BrainLandmarksTrainLib.augmentation import AugmentationConfig, AugmentWithLandmarks
    from BrainLandmarksTrainLib.augmentation.config import Policy
    from BrainLandmarksTrainLib.augmentation.contact_sheet import SheetRow

    # A policy of one step: the picture shows what that step does.
    config = AugmentationConfig(policies={"alone": Policy(1.0, (name,))}, **changes)
    varied = AugmentWithLandmarks(config)(volume, found, seed=seed)
    row = SheetRow.of(varied.record, varied.volume, varied.landmarks)
    return replace(row, note=row.note.removeprefix("alone\n"))


def draw_follow_up(landmarks: LandmarkSet) -> None:
    """Two made-up later scans of the sample head; in the second the splenium has moved."""
    protocol = landmarks.protocol
    found = LandmarkSet.from_points(protocol, landmarks.points)
    expected = expected_errors(found, LandmarkErrors.of_model("brain88", protocol))
    rng = np.random.default_rng(4)
    # What two scans have in common does not move; a third of the expected errors is realistic.
    root = np.linalg.cholesky(expected.covariance) / 3
    times = []
    for name, millimetres in (("after 1 year", 0.0), ("after 2 years", 12.0)):
        noise = (root @ rng.normal(size=len(root))).reshape(-1, 3)
        noise[protocol.by_label("CC_S").index - 1] += [0, -millimetres, 0]
        later = LandmarkSet.from_points(protocol, landmarks.points + noise)
        change = follow(found, later, expected, expected)
        times.append((name, *series.arrows(protocol, change)))
    draw_displacements(protocol, landmarks.points, times, IMAGES / "follow.png")
    made_small(IMAGES / "follow.png")


def draw_robustness(label_maps: Path) -> str:
    """Table of `brainlandmarks robustness --label-maps`; keeps its plot."""
    from BrainLandmarksTrainLib.evaluation.robustness.report import robustness_report

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        page = robustness_report(MODEL, path, label_maps=[label_maps])
        shutil.copy(path / "robustness.png", IMAGES / "robustness.png")
    table = page.split("\n\n", 1)[1]  # the document has a title of its own
    return f"`brainlandmarks robustness --label-maps maps -o report`:\n\n{table}"


def qualities(label_maps: Path) -> str:
    """The error on held-out heads in every quality, 3 scans of each head."""
    from BrainLandmarksLib.agreement.summaries import summary
    from BrainLandmarksLib.detection import QUALITIES
    from BrainLandmarksLib.io.tables import Table
    from BrainLandmarksLib.network.model_files import load_model
    from BrainLandmarksTrainLib.evaluation.held_out import evaluate_held_out
    from BrainLandmarksTrainLib.synthesis.label_maps import held_out_maps, read_annotated

    model = load_model(MODEL)
    with tempfile.TemporaryDirectory() as folder:
        paths = held_out_maps(model.spec, [label_maps])
        maps = read_annotated(paths, model.protocol, Path(folder))
    heads = [head for head in (m.head(model.spec.mean_shape) for m in maps) for _ in range(3)]
    rows = []
    for name, quality in QUALITIES.items():
        v = summary(evaluate_held_out(model, heads, quality=name).errors)
        passes = f"{quality.passes + quality.turned}{', boxes' if quality.refinement else ''}"
        rows.append((name, passes, v["mean"], v["median"], v["p90"]))
    table = Table(("quality", "passes", "mean", "median", "p90"), rows).markdown()
    return f"{len(heads)} synthetic T1 scans of {len(maps)} held-out heads, mm:\n\n{table}"


RESCANS = 5
"""Repetitions of the sample head in the tables of `robustness retest`."""


@functools.cache
def rescanned(survey: bool) -> Retest:
    """`brainlandmarks robustness retest` on the sample head, the second scan a survey or not."""
    from BrainLandmarksLib.detection import Detector

    head = ("Colin27", read_image(resources.sample_head()))
    return retest(Detector(MODEL), [head], Rescan(repetitions=RESCANS, survey=survey))


def draw_retest() -> str:
    """How far landmarks move, of the same scan and as a survey."""
    return _retest_table("group", lambda result: result.of_image(0))


def draw_retest_planes() -> str:
    """How far scan planes turn, of the same scan and as a survey."""
    return _retest_table("plane", lambda result: result.planes(0))


def _retest_table(what: str, table_of: Callable[[Retest], Table | None]) -> str:
    rows = []
    for survey, scan in ((False, "the same"), (True, "a survey")):
        table = table_of(rescanned(survey))
        assert table is not None
        rows += [(scan, *row) for row in table.rows]
    table = Table(("scanned again as", what, "n", "median", "p90", "largest"), rows)
    return table.markdown()


def publish_augmentation() -> None:
    """Write the default augmentation settings beside the code."""
    from BrainLandmarksTrainLib.augmentation import config

    content = json.dumps(config.published_defaults(), indent=2) + "\n"
    config.file(config.DEFAULTS_FILE).write_text(content, encoding="utf-8")


def training_settings() -> str:
    """Every setting of a training recipe as tables."""
    from BrainLandmarksTrainLib.config.recipe import markdown

    return markdown()


def structures_table() -> str:
    """The structures of a parcellation with their numbers and colours."""
    numbers = {name: f"{left}, {right}" for name, (left, right) in PAIRED.items()}
    numbers |= {name: str(number) for name, number in MIDLINE.items()}
    colors = {one.structure: f"`{one.color}`" for one in structures().values()}
    rows = [(name, number, colors[name]) for name, number in numbers.items()]
    return Table(("structure", "left, right", "colour"), rows, words=3).markdown()


def scan_planes() -> str:
    """The scan planes of the protocol."""
    rows = [
        (plane.name, plane.construction, plane.purpose, f"{plane.thickness_mm:g}")
        for plane in load_protocol(PROTOCOL).scan_planes
    ]
    return Table(("plane", "construction", "purpose", "slices, mm"), rows, words=4).markdown()


def draw_scan_planes() -> None:
    """Draw the scan planes of the sample head, from the landmarks that were placed by eye."""
    from BrainLandmarksLib.planes import prescribe
    from BrainLandmarksLib.planes.picture import draw_planes

    placed = placed_by_eye()
    found = prescribe(placed, LandmarkErrors.of_model(MODEL, placed.protocol))
    volume = read_image(resources.sample_head())
    path = IMAGES / "planes.png"
    draw_planes(volume, placed, found, path, title="Colin27")
    made_small(path, 1260)


def augmentation_defaults() -> str:
    """The policies and ranges of augmentation as tables."""
    from BrainLandmarksTrainLib.augmentation.config import markdown

    return markdown()


def evaluate(label_maps: Path) -> str:
    """Report on the held-out heads as `brainlandmarks evaluate` does; keeps its picture."""
    from BrainLandmarksLib.network.model_files import load_model
    from BrainLandmarksTrainLib.evaluation.report import held_out_report

    with tempfile.TemporaryDirectory() as folder:
        report = held_out_report(load_model(MODEL), [label_maps], None, Path(folder))
        shutil.copy(Path(folder) / "confidence.png", IMAGES / "confidence.png")
    return report


def fill(document: Path, tables: dict[str, Callable[[], str]]) -> None:
    """Make the tables of a document anew."""
    document.write_text(filled(document.read_text(encoding="utf-8"), tables), encoding="utf-8")


def filled(text: str, tables: dict[str, Callable[[], str]]) -> str:
    """Return a document with the tables made anew; those that cannot be made stay as they are."""

    def table(match: re.Match[str]) -> str:
        make = tables.get(match[2])
        return match[0] if make is None else f"{match[1]}\n{make()}\n{match[3]}"

    return re.sub(r"(<!-- table:(\w+) -->).*?(<!-- /table -->)", table, text, flags=re.DOTALL)


def held_out() -> str:
    """The error on the held-out heads, per group, as it is stored with the model."""
    from BrainLandmarksTrainLib.evaluation.metrics import ErrorTable

    evaluation = _model()["held_out"]
    heads, scans = ", ".join(evaluation["heads"]), evaluation["scans_per_head"]
    own = ErrorTable(tuple(evaluation["errors_mm"].items())).markdown()
    deformed = evaluation["deformed_errors_mm"]["All"]
    return (
        f"Held-out heads: {heads}; {scans} synthetic T1 scans of each; errors of the networks "
        f"alone in mm.\n\n{own}\n\n"
        f"On {scans} deformed copies of each head (random size, shear and smooth "
        f"warps) the mean error of the networks is {deformed['mean']:.2f} mm and the median "
        f"{deformed['median']:.2f} mm."
    )


def real_scans() -> str:
    """The error on held-out real scans, per group, as stored with the model."""
    measured = _model()["held_out"]["real_scans"]
    header = ("group", "n", "mean", "median", "p90", "per coordinate", "networks alone, mean")
    rows = [
        (group, v["n"], v["mean"], v["median"], v["p90"], v["per_coordinate"], v["before"])
        for group, v in measured["errors_mm"].items()
    ]
    about = (
        f"{measured['scans']} held-out scans, quality `standard`, mm. The eyes "
        "are left out: the reference for them comes from the same fit of a globe that the program "
        "makes."
    )
    return f"{about}\n\n{Table(header, rows).markdown()}"


def dice() -> str:
    """How far the parcellation agrees with label maps of scans that it was not trained on."""
    measured = _model()["held_out"]["dice"]
    scores: dict[str, list[float]] = {}
    for name, value in measured["validation_scans"]["structures"].items():
        scores.setdefault(name.removesuffix(" L").removesuffix(" R"), []).append(value)
    rows = [(name, " / ".join(f"{v:.2f}" for v in values)) for name, values in scores.items()]
    header = ("structure", "Dice (left / right)")
    mean = ("mean", f"{measured['validation_scans']['mean']:.2f}")
    return Table(header, [*rows, mean]).markdown()


def model_card() -> dict[str, Callable[[], str]]:
    """The tables of docs/model_card.md, all from the model's own file."""
    return {
        "model": model_table,
        "training": training_table,
        "heldout": held_out,
        "real": real_scans,
        "confidence": confidence_table,
    }


def _model() -> dict[str, Any]:
    """What the model's file says."""
    text = (resources.model_folder(MODEL) / "model.json").read_text(encoding="utf-8")
    values: dict[str, Any] = json.loads(text)
    return values


def model_table() -> str:
    """Name, landmarks, networks and files of the model."""
    values = _model()
    networks = values["networks"]
    sizes = {
        path.name: f"{path.stat().st_size / 1e6:.2f} MB"
        for path in sorted(resources.model_folder(MODEL).glob("*.safetensors"))
    }
    rows = [
        ("landmarks", f"{values['protocol']['landmarks']}, protocol {values['protocol']['name']}"),
        ("protocol's hash", f"`{values['protocol']['hash'][:16]}`; another definition is refused"),
        *(
            (
                f"{part} network",
                f"{_input_of(n)}; {n['architecture']['features']} features in the first stage, "
                f"dilations {', '.join(map(str, n['architecture']['dilations']))}",
            )
            for part, n in sorted(networks.items(), reverse=True)
        ),
        ("intensities", values["normalisation"]),
        ("files", ", ".join(f"{name} ({size})" for name, size in sizes.items())),
    ]
    return _table(("brain88", "" if values["name"] == MODEL else values["name"]), rows)


def _input_of(network: dict[str, Any]) -> str:
    """What a network takes, as model.json says it."""
    if "structures" in network:
        return f"{len(network['structures'])} classes in voxels of {network['voxel_mm']:.2f} mm"
    voxel = network["field_of_view_mm"] / network["size"]
    return f"{network['size']}³ voxels of {voxel:.2f} mm"


def training_table() -> str:
    """On what, for how long and how the model was trained."""
    values = _model()
    rows = training_rows(values["training"])
    return _table(("training", ""), [*rows, ("command", f"`{values['command']}`")])


def training_rows(training: dict[str, Any]) -> list[tuple[str, str]]:
    """What a model's file says of its training; the first models had no whole recipe in it."""
    recipe = training.get("recipe", {})
    heads = recipe.get("heads") or training
    rows = []
    if training.get("heads"):
        rows.append(("label maps", f"{len(training['heads'])}: {', '.join(training['heads'])}"))
        rows.append(("deformed copies of each", str(heads["deformed_copies_per_head"])))
    if training.get("scans"):
        rows.append(("scans", str(training["scans"])))
    rows.append(("started from", str(recipe.get("start_from", training.get("start_from")))))
    for part in (*PARTS, PARCELLATION):
        if part not in training:
            continue
        run = training[part]
        if part == PARCELLATION:
            text = f"{run['steps']} steps, {run['minutes']:.0f} minutes; cross entropy and Dice"
            if "scans" in run:
                text += f"; {run['scans']} real scans, {run['heads']} label maps"
            rows.append((f"{part} network", text))
            continue
        settings = recipe.get(part) or run["settings"]
        text = (
            f"{run['steps']} steps, {run['minutes']:.0f} minutes; {settings['optimizer']}, "
            f"learning rate {settings['learning_rate']}, mixed loss with alpha "
            f"{settings['alpha']}, sigma {settings['sigma']} voxels, "
            f"{settings['coordinate_loss']} coordinate loss"
        )
        rows.append((f"{part} network", text))
    for number, runs in enumerate(training.get("before", []), start=1):
        text = "; ".join(
            f"{part} {run['steps']} steps, {run['minutes']:.0f} minutes"
            for part, run in runs.items()
        )
        rows.append((f"earlier run {number}", text))
    corrected = training.get("corrected_on")
    if corrected:
        twice = corrected.get("scans_with_rules")
        rules = f" ({twice} with rules)" if twice else ""
        text = (
            f"by how landmarks vary over {corrected['heads']} real heads, and by how they err on "
            f"{corrected['scans']} scans of them{rules}; confidence from "
            f"{corrected['validation_scans']} other scans"
        )
        rows.append(("corrected", text))
    software = training.get("software", {})
    if software:
        rows.append(
            ("software", ", ".join(f"{name} {version}" for name, version in software.items()))
        )
    return rows


def confidence_table() -> str:
    """How the confidence was calibrated, and what it ranges over."""
    calibration = _model()["calibration"]
    chances = calibration["probabilities"]
    return (
        f"The confidence, the probability of an error under {calibration['threshold_mm']:.0f} mm, "
        f"was fitted on {calibration['count']} points of real scans; it ranges from "
        f"{chances[0]:.2f} to {chances[-1]:.2f}."
    )


def _table(header: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    return Table(header, list(rows)).markdown()


def placed_by_eye() -> LandmarkSet:
    """The landmarks of Colin27 that come with it."""
    return read_landmarks(resources.sample_landmarks(PROTOCOL), load_protocol(PROTOCOL))


def by_eye(found: LandmarkSet) -> str:
    """The error on Colin27, per group, against the points that were placed by eye."""
    from BrainLandmarksTrainLib.evaluation.metrics import ErrorTable

    errors = np.linalg.norm(found.points - placed_by_eye().points, axis=1)
    return ErrorTable.of(found.protocol, errors[None]).markdown()


def afids(found: LandmarkSet, expert: Path) -> str:
    """The distance from the experts' AFIDs on Colin27, of found points and of those by eye."""
    fiducials = load_protocol("afids32")
    experts = read_landmarks(expert, fiducials)
    pairs = dict(distances(found, experts))
    placed = dict(distances(placed_by_eye(), experts))
    rows = []
    for landmark in found.protocol:
        if landmark.label in pairs and landmark.afid is not None:
            other = f"{landmark.afid}, {fiducials.landmarks[landmark.afid - 1].name}"
            apart = [f"{mm[landmark.label]:.1f} mm" for mm in (pairs, placed)]
            rows.append((f"{landmark.name} (`{landmark.label}`)", other, *apart))
    return Table(("landmark", "AFID", "found", "by eye"), rows, words=2).markdown()


def bench(scripts: Iterable[str]) -> str:
    """What benchmarks print on this machine."""
    printed = [
        subprocess.run(
            [sys.executable, BENCHMARKS / script], check=True, capture_output=True, text=True
        ).stdout
        for script in scripts
    ]
    return "```\n" + "".join(printed) + "```"


if __name__ == "__main__":
    main()
