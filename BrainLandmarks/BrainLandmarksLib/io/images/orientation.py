"""Images that do not say which way is left: one rule for all formats.

>>> affine = assumed_affine("RAS", (10, 20, 30), np.diag([-1.0, 1, 1, 1]))
"""

from __future__ import annotations

import numpy as np

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray, apply_affine, voxel_sizes

_DIRECTIONS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}


def check_codes(codes: str) -> str:
    """Three letters, one for each voxel axis i, j, k: the side that it points to; upper case.

    Raises:
        UserError: they do not name three axes.
    """
    letters = codes.strip().upper()
    axes = {_DIRECTIONS[letter][0] for letter in letters if letter in _DIRECTIONS}
    if len(letters) != 3 or len(axes) != 3:
        raise UserError(
            f"{codes!r} is no orientation; give three letters for the directions of the voxel axes "
            "i, j and k, one each of R or L, A or P, and S or I, such as RAS or LPS."
        )
    return letters


def resolve(
    name: str, why: str, codes: str | None, shape: tuple[int, int, int], guess: FloatArray
) -> tuple[FloatArray, str]:
    """The affine of an image that states none, as the user assumes it.

    Args:
        name: Of the image.
        why: What the header lacks.
        codes: What to assume; None assumes nothing.
        shape: Of the image.
        guess: What its library made up, 4x4; its voxel sizes and the place of its centre are kept.

    Returns:
        (ijk -> RAS affine, a note on it).

    Raises:
        UserError: nothing is to be assumed.
    """
    if codes is None:
        raise UserError(
            f"{name} does not say how it is oriented ({why}), so left and right cannot be told "
            "apart; export it again with its orientation, or say which way its voxel axes point "
            "with --assume-orientation, such as RAS."
        )
    note = (
        f"{name} does not say how it is oriented ({why}); {codes} is assumed, and 3D Slicer may "
        "show the image in another place"
    )
    return assumed_affine(codes, shape, guess), note


def assumed_affine(codes: str, shape: tuple[int, int, int], guess: FloatArray) -> FloatArray:
    """The affine with these axes that keeps a guess's voxel sizes and centre; 4x4."""
    middle = (np.array(shape) - 1) / 2
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (letter, mm) in enumerate(zip(codes, voxel_sizes(guess))):
        row, sign = _DIRECTIONS[letter]
        affine[row, axis] = sign * mm
    affine[:3, 3] = apply_affine(guess, middle) - affine[:3, :3] @ middle
    return affine


def contradiction(codes: str | None, affine: FloatArray) -> tuple[str, ...]:
    """A note for a user whose assumption is not needed, and not what the file states; or none."""
    from nibabel.orientations import aff2axcodes

    stated = "".join(aff2axcodes(affine))
    if codes is None or stated == codes:
        return ()
    return (f"the file states its orientation ({stated}), so {codes} was not assumed",)
