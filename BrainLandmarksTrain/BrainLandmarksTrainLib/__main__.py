"""``python -m BrainLandmarksTrainLib RECIPE``: what ``brainlandmarks train RECIPE`` runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from BrainLandmarksLib.errors import UserError

INTERRUPTED = 130
"""Exit code of a run that was stopped and can go on, as shells use it for Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the recipe whose file is the only argument; returns the exit code.

    Raises:
        UserError: the recipe, its label maps or a checkpoint is wrong.
    """
    names = list(sys.argv[1:] if arguments is None else arguments)
    if len(names) != 1 or names[0].startswith("-"):
        raise UserError("give one recipe: brainlandmarks train RECIPE (a .json or .yaml file).")
    from BrainLandmarksTrainLib.recipe import cook, load_recipe

    model = cook(load_recipe(names[0]), lambda line: print(line, flush=True))
    if model is None:
        print("interrupted; the same command goes on from here")
        return INTERRUPTED
    print(f"model written to {model}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"brainlandmarks: error: {error}", file=sys.stderr)
        sys.exit(2)
