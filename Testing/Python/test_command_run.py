"""A command in a process of its own: its lines, its exit code, and how it is ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from BrainLandmarksLib import __version__
from BrainLandmarksLib.worker.command_run import CommandRun

TIMEOUT_S = 120.0

WAITING = """
import signal, threading, time
from BrainLandmarksLib.cli.child import stop_at_end_of_input
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test in the background ignores it
threading.Thread(target=stop_at_end_of_input, daemon=True).start()
try:
    print("waiting", flush=True)
    for _ in range(600):
        time.sleep(0.1)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def ended(run):
    """Exit code, and the lines with whether they are errors."""
    lines = []
    end = time.monotonic() + TIMEOUT_S
    while (code := run.poll(lambda *line: lines.append(line))) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    return code, lines


def test_lines_and_code_arrive():
    assert ended(CommandRun(["--version"])) == (0, [(f"brainlandmarks {__version__}", False)])
    code, lines = ended(CommandRun(["protocol", "nosuch"]))
    assert code == 2
    assert len(lines) == 1
    assert "no protocol called 'nosuch'" in lines[0][0]
    assert lines[0][1]


def test_the_end_of_the_input_is_like_ctrl_c():
    """As `CommandRun.stop` and a Slicer that is gone make it, on every system."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "waiting\n"
    out, _ = process.communicate(timeout=TIMEOUT_S)
    assert out == "stopped\n"
    assert process.returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="the exit code of a signal is POSIX's")
@pytest.mark.parametrize("end", ["kill", "stop without patience"])
def test_a_command_can_be_ended_at_once(end):
    run = CommandRun(["serve"])
    lines = []
    limit = time.monotonic() + TIMEOUT_S
    while not lines:
        assert run.poll(lambda *line: lines.append(line)) is None
        assert time.monotonic() < limit
        time.sleep(0.01)
    assert not run.stopping
    if end == "kill":
        run.kill()
        assert ended(run)[0] == 128 + 9
    else:
        run.stop(grace_s=0.0)
        assert run.stopping
        assert ended(run)[0] in (0, 128 + 9, 130)
