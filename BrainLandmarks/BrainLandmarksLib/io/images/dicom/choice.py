"""Which volume of a DICOM folder is meant: the one asked for, or the one most like a T1."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.images.dicom.stacks import Stack

_WORD = r"(?:^|[^a-z])(?:{})"
_T1 = re.compile(_WORD.format(r"t1|mp-?rage|mp2rage|spgr|fspgr|bravo|mdeft|tfl3d|vibe|t1tfe"))
_OTHER = re.compile(
    _WORD.format(
        r"t2|flair|dwi|dti|adc|pd(?![a-z])|swi|bold|fmri|tof|angio|mra(?![a-z])|perf|asl(?![a-z])|"
        r"trace|phase|b0|b1|field.?map|loc|scout|survey|aahead|mip(?![a-z])|screen|report|qsm|ciss|"
        r"fiesta|diff|t1.?map|epi(?![a-z])|mosaic|subtraction"
    )
)
_NO_T1_ECHO_MS = 40.0
"""T1 weighting needs echoes far shorter than T2 of tissue, about 80 ms."""

_NO_T1_KINDS = {"PROJECTION IMAGE", "MOSAIC", "LOCALIZER", "ADC", "MIP", "MNIP", "DIFFUSION"}
_NOT_SCANS = {"OT", "SC", "SEG", "SR", "PR", "DOC", "RTSTRUCT", "RTDOSE"}
_LISTED = 6
_MUCH_FINER = 2.0


def choose(
    where: str, stacks: Sequence[Stack], series: str | None
) -> tuple[Stack, tuple[str, ...]]:
    """The volume to take, and notes on it.

    Args:
        where: The folder or file, for sentences.
        stacks: What it holds, at least one.
        series: What the user asks for: a number, a UID or a part of a description.

    Raises:
        UserError: nothing is called so, or several volumes could be meant.
    """
    wanted = list(stacks) if series is None else _named(where, stacks, series)
    ranked = sorted(wanted, key=_rank, reverse=True)
    best = ranked[0]
    equals = [stack for stack in ranked if _rank(stack) == _rank(best)]
    if len(equals) > 1:
        best = _of_equals(where, equals, asked=series is not None)
    notes = []
    others = [stack for stack in stacks if stack is not best]
    if others and series is None:
        notes.append(
            f"{where} holds {len(stacks)} volumes; {best.title} was taken, and left out: "
            f"{_list(others)} (--series chooses)"
        )
    if series is None and _likeness(best) == 0:
        notes.append(f"{best.title} does not look like a T1-weighted image")
    if best.first.series.modality not in ("MR", ""):
        notes.append(f"{best.title} is no MRI ({best.first.series.modality})")
    return best, tuple(notes)


def _named(where: str, stacks: Sequence[Stack], series: str) -> list[Stack]:
    text = series.strip().casefold()
    exact = [s for s in stacks if s.key.casefold() == text]
    of_series = [s for s in stacks if text in (s.first.series.number, s.first.series.uid)]
    described = [s for s in stacks if text and text in s.first.series.description.casefold()]
    found = exact or of_series or described
    if found:
        return found
    raise UserError(f"{where} has no series {series!r}; it holds {_list(stacks)}.")


def _rank(stack: Stack) -> tuple[int, ...]:
    """Larger is better; equal volumes could be meant alike."""
    first = stack.first
    return (
        not first.colours and stack.holds_head,
        first.series.modality not in _NOT_SCANS,
        first.series.modality in ("MR", ""),
        first.component in ("MAGNITUDE", ""),
        _likeness(stack),
        "DERIVED" not in first.kind,
        not stack.problem,
    )


def _likeness(stack: Stack) -> int:
    """2: said to be T1-weighted; 1: could be; 0: said to be something else."""
    first = stack.first
    words = f"{first.series.words} {' '.join(first.kind[2:]).lower()}"
    is_t1, is_other = bool(_T1.search(words)), bool(_OTHER.search(words))
    if _NO_T1_KINDS & set(first.kind) or (first.echo_ms or 0) > _NO_T1_ECHO_MS:
        return 0
    if is_t1 != is_other:
        return 2 if is_t1 else 0
    if first.contrast not in ("", "UNKNOWN", "MIXED"):
        return 2 if first.contrast == "T1" else 0
    return 1


def _of_equals(where: str, stacks: Sequence[Stack], *, asked: bool) -> Stack:
    """One of several that could all be meant.

    Of the echoes of one series the first has most T1 weighting; of several series one may have
    voxels so much finer that the others are for a quick look.

    Raises:
        UserError: neither tells.
    """
    echoes = {stack.first.echo_ms for stack in stacks}
    if (
        len({stack.first.series.uid for stack in stacks}) == 1
        and None not in echoes
        and len(echoes) == len(stacks)
    ):
        return min(stacks, key=lambda stack: stack.first.echo_ms or 0.0)
    if all(stack.placed for stack in stacks):
        finest, *others = sorted(stacks, key=_voxel_mm3)
        if _voxel_mm3(others[0]) > _MUCH_FINER * _voxel_mm3(finest):
            return finest
    if not any(stack.holds_head and not stack.first.colours for stack in stacks):
        return max(stacks, key=lambda stack: len(stack.frames))  # refused for what it is
    example = stacks[0].key
    raise UserError(
        f"{where} holds {len(stacks)} volumes that could {'all ' if asked else ''}be meant: "
        f"{_list(stacks)}; choose one with --series, such as --series {example}."
    )


def _voxel_mm3(stack: Stack) -> float:
    return float(abs(np.linalg.det(stack.affine[:3, :3])))


def _list(stacks: Sequence[Stack]) -> str:
    shown = [stack.listed for stack in stacks[:_LISTED]]
    if len(stacks) > _LISTED:
        shown.append(f"{len(stacks) - _LISTED} more")
    return ", ".join(shown)
