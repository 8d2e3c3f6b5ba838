"""Waiting for what happens in the background, as the application's event loop does."""

from __future__ import annotations

import time

TIMEOUT_S = 600.0


def until(desktop, condition, timeout_s=TIMEOUT_S):
    """Let the desktop work until a condition holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        desktop.app.processEvents()
        time.sleep(0.005)
