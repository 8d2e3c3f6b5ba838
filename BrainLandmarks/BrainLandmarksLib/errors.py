"""The one exception that is meant for the person at the keyboard, and what its sentences share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right: one clear sentence saying what is wrong and what to do.

    The command line prints the sentence without a traceback and ends with exit code 2; the Slicer
    modules show it in a message box. Anything else that is raised is a bug in this project.

    >>> raise UserError("head.nii.gz does not exist; check the path.")
    Traceback (most recent call last):
    BrainLandmarksLib.errors.UserError: head.nii.gz does not exist; check the path.
    """


class ImplausibleError(UserError):
    """What was found in an image is no head, or one that was not understood.

    Who knows better can have it all the same: `detect --force`, `Detector.detect(force=True)`, the
    field "force" of the worker's request.

    Args:
        sentence: What is wrong and what to do.
        plausibility: Of what was found, see `detection.plausibility`.
    """

    def __init__(self, sentence: str, plausibility: float) -> None:
        super().__init__(sentence)
        self.plausibility = plausibility


def nearest(name: str, choices: Iterable[str], cutoff: float = 0.0) -> str | None:
    """The choice that is spelled most like a name, whatever the case.

    Args:
        cutoff: How alike they have to be, 0 (not at all) to 1 (the same).

    Returns:
        One of the choices; None if none is alike enough.
    """
    by_name = {choice.casefold(): choice for choice in choices}
    found = difflib.get_close_matches(name.casefold(), list(by_name), 1, cutoff)
    return by_name[found[0]] if found else None
