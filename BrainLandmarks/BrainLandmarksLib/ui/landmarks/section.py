"""A section of the panel that works on a session, and what it needs of that panel."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

from BrainLandmarksLib.mrml.landmarks.session import Session
from BrainLandmarksLib.protocol import Protocol
from BrainLandmarksLib.ui.common.host import WorkerHost
from BrainLandmarksLib.ui.common.section import Section, SectionPanel


class SessionPanel(SectionPanel, typing.Protocol):
    """What these sections need of their panel; `panel.Panel` has it and says what it does."""

    session: Session | None
    host: WorkerHost
    pictures: Path
    preference: typing.Callable[..., Any]

    # The session
    def enter(self, session: Session) -> None: ...
    def leave(self) -> None: ...
    def need_session(self) -> Session: ...
    def refresh(self) -> None: ...

    # Choices
    def volume(self) -> Any: ...
    def choose(self, volume: Any) -> None: ...
    def model(self) -> str: ...
    def protocol(self) -> Protocol: ...
    def reviewer(self) -> str: ...

    # What other sections do
    @property
    def at_work(self) -> bool: ...
    @property
    def previewing(self) -> bool: ...
    def stop_placing(self) -> None: ...
    def next_uncertain(self) -> None: ...


class SessionSection(Section):
    """A section of the panel in which landmarks are reviewed."""

    panel: SessionPanel

    def __init__(self, panel: SessionPanel) -> None:
        super().__init__(panel)

    @property
    def session(self) -> Session | None:
        """The session that the panel works on."""
        return self.panel.session

    def enter(self, session: Session) -> None:
        """A session has begun."""

    def leave(self) -> None:
        """The session is over, or there was none."""

    def changed(self, session: Session, labels: list[str]) -> None:
        """These landmarks have changed."""

    def refresh(self, session: Session | None) -> None:
        """What can be clicked now."""
