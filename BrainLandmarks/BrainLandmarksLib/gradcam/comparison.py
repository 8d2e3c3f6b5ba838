"""Two models side by side: which one is more focused on its landmarks (paper IV-D)."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from BrainLandmarksLib.detection import Detector
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.gradcam.explanation import Explanation, check_layer, explain
from BrainLandmarksLib.gradcam.figures import draw_comparison
from BrainLandmarksLib.gradcam.focus import Focus, measure, neighbours_of
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.atomic import atomic_writes
from BrainLandmarksLib.io.tables import Table

FILES = ("compare.csv", "compare.md", "compare.png")

_COLUMNS = {
    "radius50_mm": "r50, mm",
    "radius90_mm": "r90, mm",
    "distance_mm": "centre to landmark, mm",
    "overlap": "overlap",
    "entropy_bits": "entropy, bits",
    "volume_ml": "volume, ml",
}
_DIGITS = {"overlap": 3, "entropy_bits": 2}
_NOTE = (
    "r50 and r90: radius of the ball round a map's centre of mass that holds 50 and 90 per cent "
    "of its mass. Centre to landmark: distance of that centre from the point the model found. "
    "Overlap: mass shared with the map of the nearest landmark of the group, 0 to 1. Entropy: of "
    "the mass over the voxels; volume: that of an even spread with the same entropy. Smaller is "
    "more focused in every column. A focused map is not a proof of a right landmark, nor of a sure "
    "one."
)


@dataclass(frozen=True)
class _Result:
    """Measures (n,) of the chosen landmarks on one image with one model."""

    image: str
    model: int
    focus: Focus


class MapComparison:
    """The maps of two models on the same images, measured.

    >>> comparison = MapComparison([Detector("mse"), Detector("mixed")], ["MSE", "Mixed"])
    >>> comparison.add("head", read_image("head.nii.gz"))
    >>> comparison.write("report")

    Args:
        detectors: two models, or more, of one landmark protocol.
        names: what to call them.
        rows: the chosen landmarks (from 0); None is all.
        layer: see `explanation.explain`; the same name for all models.
        target: see `gradcam.TARGETS`.

    Raises:
        UserError: the models are of different protocols, or one has no such layer.
    """

    def __init__(
        self,
        detectors: Sequence[Detector],
        names: Sequence[str],
        rows: Sequence[int] | None = None,
        *,
        layer: str | None = None,
        target: str = "argmax",
    ) -> None:
        self.protocol = detectors[0].model.protocol
        for detector in detectors:
            if detector.model.protocol.hash != self.protocol.hash:
                raise UserError(
                    f"the models find different landmarks ({self.protocol.name} and "
                    f"{detector.model.protocol.name}); compare models of one protocol."
                )
            check_layer(detector.model.network, layer)
        self._detectors, self._names = list(detectors), list(names)
        self._rows = list(range(len(self.protocol))) if rows is None else list(rows)
        self._layer, self._target = layer, target
        # One set of pairs for all models and images, or the overlaps could not be compared.
        self._neighbours = neighbours_of(self.protocol, detectors[0].model.spec.mean_shape)
        self._results: list[_Result] = []
        self._shown: tuple[str, Volume, list[Explanation]] | None = None

    def add(self, name: str, volume: Volume) -> None:
        """Measure the maps of one image; the first one is also drawn.

        Raises:
            UserError: a model recognises no head in the image.
        """
        results, explanations = [], []
        for number, detector in enumerate(self._detectors):
            detection = detector.detect(volume)
            seen = explain(detector, detection, self._layer, target=self._target)
            every = measure(
                seen.maps(range(len(self.protocol))),
                seen.grid,
                detection.landmarks.points,
                self._neighbours,
            )
            chosen = (getattr(every, measured)[self._rows] for measured in Focus.names())
            results.append(_Result(name, number, Focus(*chosen)))
            explanations.append(seen)
        self._results += results
        if self._shown is None:
            self._shown = (name, volume, explanations)

    def write(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write FILES: every number, the tables, and the picture of the first image.

        Raises:
            UserError: nothing was added, or the files cannot be written.
        """
        if self._shown is None:
            raise UserError("there is nothing to compare: no image could be used.")
        with atomic_writes(folder) as unfinished:
            self._write_csv(unfinished / FILES[0])
            (unfinished / FILES[1]).write_text(self.markdown(), encoding="utf-8")
            name, volume, explanations = self._shown
            draw_comparison(
                volume, explanations, self._names, self._rows, unfinished / FILES[2], title=name
            )
        return [Path(folder) / file for file in FILES]

    def markdown(self) -> str:
        """Means per group, then per landmark, as Markdown."""
        images = list(dict.fromkeys(result.image for result in self._results))
        blocks = [
            "# " + " and ".join(self._names),
            f"Grad-CAM maps of {len(self._rows)} landmarks on {len(images)} "
            f"image{'s' if len(images) > 1 else ''}, {self._layer_text()}; means over the images "
            f"and landmarks.",
            _NOTE,
            self._group_table(),
            *self._shares(),
            "## Each landmark",
            self._landmark_table(),
        ]
        return "\n\n".join(blocks) + "\n"

    def summary(self) -> str:
        """The table per group alone, with the share of landmarks that are more focused."""
        return "\n\n".join([self._group_table(), *self._shares()])

    def _values(self, model: int, measured: str) -> FloatArray:
        """(images, n) of one measure."""
        own = [getattr(r.focus, measured) for r in self._results if r.model == model]
        return np.array(own)

    def _layer_text(self) -> str:
        assert self._shown is not None
        layers = dict.fromkeys(explanation.seen.layer for explanation in self._shown[2])
        return f"layer {', '.join(layers)}"

    def _group_table(self) -> str:
        rows = []
        sections: list[tuple[str, list[int]]] = []
        for group in self.protocol.groups:
            places = [n for n, row in enumerate(self._rows) if row + 1 in group.indices]
            sections.append((group.name, places))
        sections.append(("All", list(range(len(self._rows)))))
        for name, places in sections:
            for number, model in enumerate(self._names if places else []):
                cells = [
                    _cell(measured, self._values(number, measured)[:, places])
                    for measured in _COLUMNS
                ]
                rows.append([name, model, *cells])
        return Table(["group", "model", *_COLUMNS.values()], rows, words=2).markdown()

    def _shares(self) -> list[str]:
        """In words, for two models: in how many maps the second one is more focused."""
        if len(self._names) != 2:
            return []
        first, second = self._values(0, "radius50_mm"), self._values(1, "radius50_mm")
        both = np.isfinite(first) & np.isfinite(second)
        closer = int((second < first)[both].sum())
        return [
            f"{self._names[1]} has the smaller r50 in {closer} of {int(both.sum())} maps; the "
            f"median difference to {self._names[0]} is {_number(second - first, 1, np.nanmedian)} "
            "mm."
        ]

    def _landmark_table(self) -> str:
        names = [f"{text} ({model})" for text in _COLUMNS.values() for model in self._names]
        rows = []
        for place, row in enumerate(self._rows):
            landmark = self.protocol.landmarks[row]
            cells = [
                _cell(measured, self._values(number, measured)[:, place])
                for measured in _COLUMNS
                for number in range(len(self._names))
            ]
            rows.append([str(landmark.index), f"`{landmark.label}`", landmark.group, *cells])
        return Table(["#", "landmark", "group", *names], rows, words=3).markdown()

    def _write_csv(self, path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            fixed = ["image", "model", "index", "label", "group", "neighbour"]
            writer.writerow([*fixed, *Focus.names()])
            for result in self._results:
                for place, row in enumerate(self._rows):
                    landmark = self.protocol.landmarks[row]
                    other = int(self._neighbours[row])
                    writer.writerow(
                        [
                            result.image,
                            self._names[result.model],
                            landmark.index,
                            landmark.label,
                            landmark.group,
                            self.protocol.labels[other] if other >= 0 else "",
                            *(
                                "" if math.isnan(value) else f"{value:.4f}"
                                for value in (
                                    float(getattr(result.focus, measured)[place])
                                    for measured in Focus.names()
                                )
                            ),
                        ]
                    )


def _cell(measured: str, values: FloatArray) -> str:
    return _number(values, _DIGITS.get(measured, 1), np.nanmean)


def _number(values: FloatArray, digits: int, statistic: object) -> str:
    """A statistic of what is known; a dash if nothing is."""
    assert callable(statistic)
    known = np.isfinite(values).any()
    return f"{statistic(values):.{digits}f}" if known else "–"
