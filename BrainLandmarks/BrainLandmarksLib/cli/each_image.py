"""Doing the same with many images, of which a bad one does not stop the others."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from BrainLandmarksLib.cli import terminal
from BrainLandmarksLib.errors import ImplausibleError, UserError, of_system

if TYPE_CHECKING:
    from BrainLandmarksLib.detection import Detector


def check_names(paths: Sequence[Path]) -> None:
    """Check that the results of no two images have the same name.

    Raises:
        UserError: two have.
    """
    from BrainLandmarksLib.io.images import stem

    first: dict[str, Path] = {}
    for path in paths:
        name = stem(path)
        if name in first:
            raise UserError(
                f"{first[name]} and {path} would be written to the same files; give them in two "
                "runs with different output folders."
            )
        first[name] = path


def each_image(paths: Sequence[Path], do: Callable[[Path], None], force_hint: str) -> int:
    """Do something with every image, and say what is wrong with those where it cannot be done.

    Args:
        force_hint: What --force would bring of an image without a head, as a sentence.

    Returns:
        How many failed.
    """
    from BrainLandmarksLib.io.images import stem

    failures = 0
    for number, path in enumerate(paths):
        terminal.progress(number, len(paths), stem(path))
        try:
            do(path)
        except ImplausibleError as error:
            failures += 1
            terminal.report(UserError(f"{stem(path)}: {error} {force_hint}"))
        except UserError as error:
            failures += 1
            terminal.report(named(str(error), path, paths))
        except Exception as error:
            failures += 1
            refused = of_system(error)
            if refused is not None:
                terminal.report(named(str(refused), path, paths))
                continue
            # A bug on one image: show it whole, and still do the others.
            terminal.clear()
            traceback.print_exc()
    terminal.progress(len(paths), len(paths), "")
    return failures


def named(sentence: str, path: Path, paths: Sequence[Path]) -> str:
    """A sentence on one of several images, which says on which; as it is if it does, or of one."""
    from BrainLandmarksLib.io.images import stem

    name = stem(path)
    # "name_" begins the names of its results.
    if len(paths) == 1 or (path.name or name) in sentence or f"{name}_" in sentence:
        return sentence
    return f"{name}: {sentence}"


def detector_loader(model: str, device: str) -> Callable[[], Detector]:
    """A function that loads the model when it is first needed, and only once."""
    loaded: list[Detector] = []

    def load() -> Detector:
        if not loaded:
            from BrainLandmarksLib.detection import Detector

            loaded.append(Detector(model, device))
        return loaded[0]

    return load
