"""Who asks the worker for maps, in which order: the newest wish first, a long list behind it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.mrml.gradcam.map_run import MapRequest, MapRun, Maps
from BrainLandmarksLib.mrml.landmarks.volume_run import Failure
from BrainLandmarksLib.worker.client import Worker

OnMaps = Callable[[MapRequest, "Maps | Failure"], None]


class MapQueue:
    """Requests for maps of one volume, one after another.

    Who goes from landmark to landmark faster than maps are made gets the last one asked for. A list
    ("all landmarks") goes on behind such wishes.

    >>> queue = MapQueue(lambda: host.worker, lambda: scan.of(volume))
    >>> queue.show([(MapRequest(("CC_G",), "brain88"), on_maps)])
    >>> queue.collect([(request, on_maps) for request in requests_for_all])
    >>> queue.cancel()

    Args:
        worker: The process of the session, asked for anew with each request.
        image: The scan's file; a UserError it raises is the request's outcome.
        on_progress: Called with a sentence, the fraction done and the seconds left (or None) of the
            request under way.
        on_change: Called when a request begins or the last one has ended.
    """

    def __init__(
        self,
        worker: Callable[[], Worker],
        image: Callable[[], Path],
        on_progress: Callable[[str, float, float | None], None] = lambda *_: None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._worker = worker
        self._image = image
        self._on_progress = on_progress
        self._on_change = on_change
        self._wishes: deque[tuple[MapRequest, OnMaps]] = deque()
        self._list: deque[tuple[MapRequest, OnMaps]] = deque()
        self._length = 0
        self._run: MapRun | None = None
        self._running: tuple[MapRequest, OnMaps] | None = None
        self._listed = False
        self._fraction = 0.0
        self._dropped = False

    @property
    def busy(self) -> bool:
        """Whether something is asked for."""
        return self._running is not None or bool(self._wishes) or bool(self._list)

    @property
    def collecting(self) -> bool:
        """Whether a list is under way."""
        return bool(self._list) or (self._listed and self._running is not None)

    @property
    def done(self) -> float:
        """Share of the list that is done, 0 to 1."""
        if not self._length:
            return 1.0
        left = float(len(self._list))
        if self._listed and self._running is not None:
            left += 1.0 - self._fraction
        return 1.0 - left / self._length

    def show(self, wishes: list[tuple[MapRequest, OnMaps]]) -> None:
        """Ask for these next; wishes that were not begun are forgotten."""
        self._wishes = deque(wishes)
        if self._running is not None and not self._listed:
            # What the worker remembers afterwards helps the new wish, if it is of the same kind.
            if not any(_akin(self._running[0], request) for request, _ in wishes):
                self._stop()
            self._dropped = True
        self._next()

    def collect(self, wishes: list[tuple[MapRequest, OnMaps]]) -> None:
        """Ask for all of these, one after another."""
        self._list = deque(wishes)
        self._length = len(wishes)
        self._next()

    def cancel(self) -> None:
        """Forget all that is asked for; nobody hears of it any more."""
        self._wishes.clear()
        self._list.clear()
        self._length = 0
        if self._running is not None:
            self._dropped = True
            self._stop()

    def _stop(self) -> None:
        if self._run is not None:
            self._run.cancel()

    def _next(self) -> None:
        while self._running is None and (self._wishes or self._list):
            self._listed = not self._wishes
            self._running = mine = (self._wishes or self._list).popleft()
            self._dropped, self._fraction = False, 0.0
            try:
                run = MapRun(self._worker(), self._image(), mine[0], self._heard, self._ended)
            except UserError as error:
                self._over(Failure(str(error)), go_on=False)
                continue
            if self._running is mine:  # a worker that cannot be started has ended it already
                self._run = run
        self._on_change()

    def _heard(self, words: str, fraction: float, seconds: float | None) -> None:
        self._fraction = fraction
        self._on_progress(words, fraction, seconds)

    def _ended(self, outcome: Maps | Failure | None) -> None:
        self._over(outcome, go_on=True)

    def _over(self, outcome: Maps | Failure | None, *, go_on: bool) -> None:
        assert self._running is not None
        request, on_maps = self._running
        dropped = self._dropped
        self._run, self._running, self._dropped = None, None, False
        if isinstance(outcome, Failure) or (outcome is None and not dropped):
            # The next of the list would fail in the same way; or somebody stopped the worker.
            self._list.clear()
            self._length = 0
            if not dropped:
                self._wishes.clear()
        try:
            if outcome is not None and not dropped:
                on_maps(request, outcome)
        finally:
            if go_on:
                self._next()


def _akin(one: MapRequest, other: MapRequest) -> bool:
    return (one.model, one.layer, one.device) == (other.model, other.layer, other.device)
