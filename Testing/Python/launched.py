"""A stand-in for Slicer's launchers, `PythonSlicer` and `Slicer` (CTK's AppLauncher).

As its sources have it: the program proper is a child that inherits all three streams; a signal ends
the launcher and is not passed on; where a signal ended the child, the launcher says so and ends
with 1.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

SCRIPT = """#!{python}
import signal, subprocess, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)
code = subprocess.run([*{program!r}, *sys.argv[1:]]).returncode
if code < 0:
    print("error: [program] exit abnormally - Report the problem.", file=sys.stderr)
sys.exit(1 if code < 0 else code)
"""


def make_launcher(folder: Path, name: str = "PythonSlicer", program: list[str] | None = None):
    """Write a launcher of this name; returns its path."""
    path = folder / name
    path.write_text(SCRIPT.format(python=sys.executable, program=program or [sys.executable]))
    path.chmod(0o755)
    return path


def children(pid: int) -> list[int]:
    """Numbers of the children of a process."""
    import psutil

    return [child.pid for child in psutil.Process(pid).children()]


def child_of(pid: int, timeout_s: float = 60.0) -> int:
    """Number of the only child of a process, waited for."""
    end = time.monotonic() + timeout_s
    while not (found := children(pid)):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found[0]


def exists(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
