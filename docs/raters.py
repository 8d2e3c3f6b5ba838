"""Make BrainLandmarksLib/data/raters/afids32.json from the published files of the AFIDs' raters.

    python docs/raters.py PHASE1_input_afid PHASE2_input_afid

The folders are those in data of https://github.com/afids/afids-analysis; a file is called
IMAGE_T1_RATER_TIME_DATE.fcsv. What cannot be read is left out and named.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

from BrainLandmarksLib import resources
from BrainLandmarksLib.agreement.raters import rated
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.atomic import atomic_write
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.protocol import load_protocol

SOURCE = (
    "J. C. Lau et al., A framework for evaluating correspondence between brain images using "
    "anatomical fiducials, Human Brain Mapping 40(14):4163-4179, 2019; rater files of phases 1 and "
    "2, https://github.com/afids/afids-analysis"
)
LICENCE = "MIT License, Copyright (c) 2018 JC Lau"
NAME = re.compile(r"(?P<image>.+)_T1_(?P<rater>Rater\d+)_\d+_\d+\.fcsv")


def main() -> None:
    """Read the folders of the command line, write the table and print a summary."""
    protocol = load_protocol("afids32")
    images: dict[str, dict[str, list[np.ndarray]]] = {}
    files = 0
    for path in sorted(path for folder in sys.argv[1:] for path in Path(folder).glob("*.fcsv")):
        found = NAME.fullmatch(path.name)
        if not found:
            print(f"left out, of another name: {path.name}")
            continue
        try:
            points = read_landmarks(path, protocol).points
        except UserError as error:
            print(f"left out: {error}")
            continue
        images.setdefault(found["image"], {}).setdefault(found["rater"], []).append(points)
        files += 1
    if not files:
        sys.exit(__doc__)
    table = rated(protocol, images, SOURCE, LICENCE)
    with atomic_write(resources.raters_file(protocol.name)) as unfinished:
        unfinished.write_text(table.to_json(), encoding="utf-8")
    print(f"{files} files of {len(images)} images, {sum(table.count.values())} distances")
    for label, values in table.quantiles_mm.items():
        print(f"{label:<10} median {values[25]:5.2f} mm, 90th percentile {values[45]:5.2f} mm")


if __name__ == "__main__":
    main()
