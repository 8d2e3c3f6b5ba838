"""What the structures of a parcellation are called, and their colours, for files and for views.

Their numbers are those of :mod:`.schemes`; a right structure has the colour of the left one.

>>> structure_of(17).name, structure_of(17).color
('left hippocampus', '#dcd814')
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from BrainLandmarksLib import resources
from BrainLandmarksLib.annotation.schemes import MIDLINE, PAIRED
from BrainLandmarksLib.json_file import read_json

_SIDES = {"L": "left", "R": "right"}
_UNNAMED_COLOR = "#808080"


@dataclass(frozen=True)
class Structure:
    """One structure of the head.

    Args:
        number: The library's number, which is FreeSurfer's.
        structure: Its name without a side, as schemes use it.
        side: "L" or "R"; None for a structure without sides.
        abbreviation: Of its name, with the side.
        color: "#rrggbb".
    """

    number: int
    structure: str
    side: str | None
    abbreviation: str
    color: str

    @property
    def name(self) -> str:
        """Its name with the side."""
        return self.structure if self.side is None else f"{_SIDES[self.side]} {self.structure}"

    @property
    def rgb(self) -> tuple[float, float, float]:
        """Its colour, each part 0 to 1."""
        red, green, blue = bytes.fromhex(self.color[1:])
        return red / 255, green / 255, blue / 255


def structure_of(number: int) -> Structure:
    """The structure of a number; a number that has no name is named by itself, in grey."""
    unnamed = Structure(number, f"structure {number}", None, f"S{number}", _UNNAMED_COLOR)
    return structures().get(number, unnamed)


@functools.cache
def structures() -> dict[int, Structure]:
    """Every structure that the library knows by its number, in ascending order."""
    look = {
        entry["structure"]: (str(entry["abbreviation"]), str(entry["color"]))
        for entry in read_json(resources.structures_file(), "the table of structures")["structures"]
    }
    found = [Structure(number, name, None, *look[name]) for name, number in MIDLINE.items()]
    for name, numbers in PAIRED.items():
        short, color = look[name]
        for number, side in zip(numbers, _SIDES):
            found.append(Structure(number, name, side, f"{short}_{side}", color))
    return {one.number: one for one in sorted(found, key=lambda one: one.number)}
