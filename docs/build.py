"""Regenerate everything under docs/ and in the README that follows from code, protocol and model.

    make docs

writes docs/protocol.md, the pictures in docs/images/, and the tables of README.md between
`<!-- table:NAME -->` and `<!-- /table -->`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from BrainLandmarksLib import guide, resources
from BrainLandmarksLib.cli.protocol import draw_pictures
from BrainLandmarksLib.protocol import load_protocol

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
PROTOCOL = "brain88"
MODEL = "brain88"


def main() -> None:
    """Write the protocol document, the pictures and the tables of the README."""
    protocol = load_protocol(PROTOCOL)
    document = guide.markdown(protocol, pictures=Path("images"))
    (ROOT / "docs" / "protocol.md").write_text(document, encoding="utf-8")
    draw_pictures(protocol, IMAGES)
    draw_overview()
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text(encoding="utf-8")), encoding="utf-8")


def draw_overview() -> None:
    """Draw the picture that `brainlandmarks detect sample:colin27` writes, for the README."""
    from BrainLandmarksLib.detection import Detector
    from BrainLandmarksLib.images import read_image
    from BrainLandmarksLib.pictures import draw_landmarks

    volume = read_image(resources.sample_head())
    found = Detector(MODEL).detect(volume).landmarks
    draw_landmarks(volume, found, IMAGES / "landmarks.png", title="Colin27")


def filled(text: str) -> str:
    """Return the README with every table between its markers made anew from the model."""
    path = resources.model_folder(MODEL) / "model.json"
    model = json.loads(path.read_text(encoding="utf-8"))

    def table(match: re.Match[str]) -> str:
        return f"{match[1]}\n{TABLES[match[2]](model)}\n{match[3]}"

    return re.sub(r"(<!-- table:(\w+) -->).*?(<!-- /table -->)", table, text, flags=re.DOTALL)


def held_out(model: dict[str, Any]) -> str:
    """The error on the held-out heads, per group."""
    evaluation = model["held_out"]
    lines = [
        f"{evaluation['description']}.",
        "",
        "| group | mean | median | 90 % below | within 2 mm | within 3 mm | within 4 mm |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in evaluation["rows"]:
        millimetres = [f"{row[key]:.2f} mm" for key in ("mean_mm", "median_mm", "p90_mm")]
        rates = [f"{100 * row[key]:.0f} %" for key in ("sdr_2mm", "sdr_3mm", "sdr_4mm")]
        lines.append(f"| {' | '.join([row['group'], *millimetres, *rates])} |")
    return "\n".join(lines)


def afids(model: dict[str, Any]) -> str:
    """The distance from the experts' AFIDs on Colin27."""
    protocol, fiducials = load_protocol(PROTOCOL), load_protocol("afids32")
    lines = ["| landmark | AFID | distance |", "| --- | --- | ---: |"]
    for row in model["held_out"]["afids_colin27"]:
        name = protocol.by_label(row["label"]).name
        other = fiducials.landmarks[row["afid"] - 1].name
        distance = f"{row['distance_mm']:.1f} mm"
        lines.append(f"| {name} (`{row['label']}`) | {row['afid']}, {other} | {distance} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {"heldout": held_out, "afids": afids}


if __name__ == "__main__":
    main()
