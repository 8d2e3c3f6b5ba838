"""The one exception that is meant for the person at the keyboard, and what its sentences share."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable

_REFUSED = (
    errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS, errno.ENOSPC,
)  # fmt: skip

# What Python makes of the bytes of such a name.
_UNDECODED = re.compile("[\udc80-\udcff]")


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

    def __reduce__(self) -> tuple[type[ImplausibleError], tuple[str, float]]:
        # Without it a pool of processes cannot take the error home: it breaks, or waits for ever.
        return type(self), (str(self), self.plausibility)


def of_system(error: BaseException) -> UserError | None:
    """What the operating system refuses, as a sentence; None for any other error.

    It may refuse anywhere: a folder that may not be entered, or a name that is too long, is found
    out by the first look at it; a file name of bytes that are no text, where it is written down.
    """
    if isinstance(error, UnicodeEncodeError) and _UNDECODED.search(error.object):
        return UserError(
            "a file name is not in UTF-8, so it cannot be written into a file; rename it."
        )
    if not isinstance(error, OSError) or error.errno not in _REFUSED or not error.filename:
        return None
    return UserError(
        f"{os.fsdecode(error.filename)} cannot be used: {error.strerror}; check the path and its "
        "permissions."
    )


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
