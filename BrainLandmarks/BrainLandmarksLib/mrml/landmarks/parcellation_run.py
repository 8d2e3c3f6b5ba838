"""One click on Parcellate: volume out, worker, label map in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.mrml.landmarks.volume_run import Failure, VolumeRun, wait_for
from BrainLandmarksLib.worker.client import Worker
from BrainLandmarksLib.worker.messages import Message

if TYPE_CHECKING:
    from BrainLandmarksLib.annotation.label_files import Labels


@dataclass(frozen=True)
class Parcelled:
    """What a run brings.

    Args:
        labels: (I, J, K), 0 for everything else.
        grid: Its voxels, world RAS mm: those of the volume.
        structures: What the worker says of each number: ``number``, ``name``, ``color``, ...
        notes: What the user should know, without a full stop.
        seconds: How long it took.
    """

    labels: Labels
    grid: Grid
    structures: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    seconds: float


def parcellate_and_wait(worker: Worker, volume: Any, **options: Any) -> Parcelled:
    """Parcellate a volume and wait for it, as scripts do; no window is needed.

    Args:
        options: ``model``, ``device`` and ``force`` of `ParcellationRun`.

    Raises:
        UserError: there is no result; the sentence says why.
    """
    found: Parcelled = wait_for(
        worker,
        lambda on_end: ParcellationRun(worker, volume, lambda *_: None, on_end, **options),
    )
    return found


class ParcellationRun(VolumeRun):
    """A parcellation that is under way; `Worker.poll` drives it.

    Args:
        worker: The process that does the work.
        volume: vtkMRMLScalarVolumeNode.
        on_progress: Called with a sentence, the fraction done and the seconds left (or None).
        on_end: Called once, with `Parcelled`, `Failure`, or None after a cancellation.
        force: Bring what was found even where it is no head.
    """

    REQUEST, ANSWER = "parcellate", "labels.nii"

    def __init__(
        self,
        worker: Worker,
        volume: Any,
        on_progress: Callable[[str, float, float | None], None],
        on_end: Callable[[Parcelled | Failure | None], None],
        *,
        model: str,
        device: str = "auto",
        force: bool = False,
    ) -> None:
        super().__init__(
            worker, volume, on_progress, on_end, model=model, device=device, force=force
        )

    def found(self, message: Message) -> Parcelled:
        """The label map of the answer's file."""
        # What this needs is installed by now: the worker has written the file.
        from BrainLandmarksLib.annotation.label_files import read_label_map

        labels, grid = read_label_map(message["output"])
        structures = tuple(message["structures"])
        return Parcelled(labels, grid, structures, tuple(message["notes"]), self.seconds)
