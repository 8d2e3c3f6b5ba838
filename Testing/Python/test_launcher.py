"""Under a launcher, as PythonSlicer is one: deaths are told apart, and signals arrive."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from launched import child_of, exists, make_launcher

from BrainLandmarksLib.worker import background_run, command_run, last_words
from BrainLandmarksLib.worker.background_run import RUN_FILE, WORDS_FILE, BackgroundRun
from BrainLandmarksLib.worker.client import Worker
from BrainLandmarksLib.worker.command_run import CommandRun
from BrainLandmarksLib.worker.process_tree import ProcessTree

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a script that is a program, and signals")

MINUTE = 60.0
SLOW = str(Path(__file__).with_name("slow_command.py"))
SAVED = "checkpoint"


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    """A PythonSlicer on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(SLOW).parent), *sys.path]))
    return make_launcher(folder)


def until(condition, poll=lambda: None):
    end = time.monotonic() + MINUTE
    while not (found := condition()):
        poll()
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


# The worker ---------------------------------------------------------------------------------------


@pytest.fixture
def worker(launcher):
    made = Worker([str(launcher), "-m", "BrainLandmarksLib", "serve"])
    yield made
    made.stop()


def answered(worker, **_fields):
    received = []
    worker.wait(worker.request("ping", received.append), MINUTE)
    return received[-1]


def ended_by(worker, number):
    """What the client says when the interpreter behind the launcher gets a signal in a job."""
    assert answered(worker)["type"] == "result"
    received = []
    program = child_of(worker.pid)
    assert program != worker.pid
    os.kill(program, signal.SIGSTOP)  # it must not answer before it dies
    worker.request("device", received.append, device="cpu")
    os.kill(program, number)
    with suppress(ProcessLookupError):  # SIGKILL does not wait for it to go on
        os.kill(program, signal.SIGCONT)
    until(lambda: not worker.busy, worker.poll)
    return received[-1]


def test_a_worker_that_is_killed_was_killed(worker):
    message = ended_by(worker, signal.SIGKILL)
    assert message["code"] == "killed"
    assert "memory" in message["message"]
    assert "exit code" not in worker.diagnostics()
    assert answered(worker)["type"] == "result"  # the next one starts


def test_a_worker_that_crashes_names_the_signal_and_the_place(worker):
    message = ended_by(worker, signal.SIGSEGV)
    assert message["code"] == "crashed"
    assert "SIGSEGV" in message["message"]
    assert "Segmentation fault" in message["detail"]
    assert "server.py" in message["detail"]


def test_a_worker_that_is_asked_to_end_did_not_crash(worker):
    message = ended_by(worker, signal.SIGTERM)
    assert message["code"] == "killed"
    assert "SIGTERM" in message["message"]
    assert "memory" not in message["message"]


def test_memory_that_ran_out_is_said_where_the_system_counts(worker, monkeypatch):
    # The worker writes what the system's counter says; this side then sees one more.
    assert answered(worker)["type"] == "result"
    before = last_words.oom_kills()
    monkeypatch.setattr(last_words, "oom_kills", lambda: (before or 0) + 1)
    message = ended_by(worker, signal.SIGKILL)
    assert message["code"] == "killed"
    expected = "Memory ran out" if before is not None else "most likely because memory ran out"
    assert expected in message["message"]


def test_a_launcher_that_is_ended_alone_leaves_a_worker_that_works(worker):
    assert answered(worker)["type"] == "result"
    program = child_of(worker.pid)
    os.kill(worker.pid, signal.SIGTERM)
    until(lambda: not exists(worker.pid))
    assert answered(worker)["type"] == "result"
    worker.stop()
    until(lambda: not exists(program))


def test_last_words_leave_with_their_worker(worker, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert answered(worker)["type"] == "result"
    assert len(list(tmp_path.glob("*.words"))) == 1
    worker.stop()
    assert not list(tmp_path.glob("*.words"))


# Commands of a Slicer without a window ------------------------------------------------------------


@pytest.fixture
def slow(launcher, monkeypatch, tmp_path):
    """A command that saves for a second when it is interrupted, behind the launcher."""

    class Slow(ProcessTree):
        def __init__(self, command, environment):
            program, _, _, *arguments = command
            assert program == str(launcher)
            super().__init__([program, SLOW, *arguments], environment)

    monkeypatch.setattr(command_run, "ProcessTree", Slow)
    return lambda what=str(tmp_path / SAVED): CommandRun([what])


def waiting(run):
    lines = []
    until(lambda: lines, lambda: run.poll(lambda *line: lines.append(line)))
    return int(lines[0][0].split()[1])


def ended(run):
    lines = []
    code = []
    until(lambda: code, lambda: code.extend(
        [c for c in [run.poll(lambda line, _error: lines.append(line))] if c is not None]
    ))  # fmt: skip
    return code[0], lines


def test_the_exit_code_of_a_killed_command(slow):
    run = slow("killed")
    assert ended(run)[0] == 128 + 9
    assert run.ending.killed
    run = slow("crash")
    code, lines = ended(run)
    assert code == 128 + signal.SIGSEGV
    assert any("Segmentation fault" in line for line in lines)
    run = slow("fail")
    assert ended(run)[0] == 2


@pytest.mark.parametrize("way", ["closed", "both signalled"])
def test_a_stop_waits_for_the_checkpoint(slow, tmp_path, way):
    """A batch system may signal every process: the launcher goes first, the work must not."""
    run = slow()
    program = waiting(run)
    if way == "both signalled":
        os.kill(run._tree.pid, signal.SIGTERM)
        os.kill(program, signal.SIGTERM)
    run.stop()
    code, lines = ended(run)
    run.kill()
    assert code == 130
    assert lines[-2 if "exit abnormally" in lines[-1] else -1] == "saved"
    assert (tmp_path / SAVED).exists()


# `PythonSlicer -m BrainLandmarksLib`, typed by a person -------------------------------------------


@pytest.mark.parametrize("sent", ["terminate", "ctrl-c"])
def test_a_signal_to_pythonslicer_reaches_the_command(launcher, tmp_path, sent):
    process = subprocess.Popen(
        [str(launcher), SLOW, "plain", str(tmp_path / SAVED)], stdout=subprocess.PIPE, text=True,
        start_new_session=True, bufsize=1,
    )  # fmt: skip
    program = int(process.stdout.readline().split()[1])
    if sent == "terminate":
        process.terminate()
    else:  # a terminal signals its whole group
        os.killpg(process.pid, signal.SIGINT)
    assert process.wait(MINUTE) < 0  # the launcher does not wait
    assert process.stdout.read() == "saved\n"
    process.stdout.close()
    assert (tmp_path / SAVED).exists()
    until(lambda: not exists(program))


def test_another_parent_may_go(tmp_path):
    """A shell that is closed is no launcher: the command goes on."""
    script = f"{sys.executable} {SLOW} plain {tmp_path / SAVED} & sleep 600"
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True,
                               start_new_session=True)  # fmt: skip
    program = int(process.stdout.readline().split()[1])
    process.kill()
    process.wait()
    time.sleep(1.0)
    assert exists(program)
    os.killpg(process.pid, signal.SIGKILL)
    process.stdout.close()


# Trainings in the background ----------------------------------------------------------------------


@pytest.fixture
def start(launcher, monkeypatch, tmp_path):
    """Starts a command in the background, behind the launcher; ends what is left of it."""
    monkeypatch.setattr(background_run, "CHILD", "slow_command")
    monkeypatch.setattr(background_run, "command_environment", lambda: dict(os.environ))
    runs = []

    def begin(what):
        run = BackgroundRun.start(tmp_path / "run", [what])
        runs.append(run)
        return run

    yield begin
    for run in runs:
        run.kill()


def over(run):
    until(lambda: run.state() != "running")
    return run.state()


@pytest.mark.parametrize(
    ("what", "state", "sentence"),
    [("killed", "lost", "killed"), ("crash", "failed", "SIGSEGV"), ("fail", "failed", None)],
)
def test_how_a_training_ended(start, tmp_path, what, state, sentence):
    run = start(what)
    assert over(run) == state
    again = BackgroundRun.attach(tmp_path / "run")
    assert again.state() == state  # another Slicer sees the same
    lines = run.new_lines()
    if sentence:
        assert sentence in lines[-1], lines
    assert run.new_lines() == []


def test_a_training_that_does_not_even_start_has_failed(start, monkeypatch, tmp_path):
    monkeypatch.setattr(background_run, "CHILD", "no_such_module")
    run = start("wait")
    assert over(run) == "failed"
    assert BackgroundRun.attach(tmp_path / "run").state() == "failed"
    assert "no_such_module" in run.new_lines()[-1]


def number_of(folder):
    """The number that the run file tells, once the process has written it."""
    file = folder / RUN_FILE
    return until(lambda: json.loads(file.read_text(encoding="utf-8"))["pid"])


@pytest.mark.parametrize("sent", ["number", "group", "file"])
def test_a_training_is_stopped_from_outside_after_a_checkpoint(start, tmp_path, sent):
    saved = tmp_path / SAVED
    run = start(str(saved))
    number = number_of(run.folder)
    until(lambda: (run.folder / "run.log").read_text().startswith("waiting"))
    if sent == "number":
        os.kill(number, signal.SIGTERM)
    elif sent == "group":
        os.killpg(os.getpgid(number), signal.SIGTERM)
    else:
        run.stop()
    time.sleep(0.3)
    assert run.state() == "running"  # the launcher may be gone, the training is not
    assert over(run) == "stopped"
    assert saved.exists()
    assert run.new_lines()[-1] == "saved"


def test_a_training_that_is_stopped_before_it_has_begun_stops(start, tmp_path):
    run = start(str(tmp_path / SAVED))
    run.stop()
    assert over(run) == "stopped"


def test_a_training_that_another_program_ends_before_it_has_begun_stops(start, tmp_path):
    run = start(str(tmp_path / SAVED))
    other = BackgroundRun.attach(run.folder)
    assert other.about["pid"] is None  # until Python has started takes a while
    other.kill()
    assert over(run) == "stopped"


def test_a_training_goes_on_without_its_launcher_and_can_be_ended(start, tmp_path):
    run = start(str(tmp_path / SAVED))
    number = number_of(run.folder)
    os.kill(run._child.pid, signal.SIGKILL)
    until(lambda: run._child.poll() is not None)
    assert run.state() == "running"
    other = BackgroundRun.attach(run.folder)
    assert other.state() == "running"
    with pytest.raises(Exception, match="already"):
        start("fail")
    other.kill()
    assert other.state() == "lost"
    until(lambda: not exists(number))


def test_a_training_is_found_and_ended_without_psutil(start, tmp_path, monkeypatch):
    """After an upgrade of Slicer its packages are gone; a training may still run."""
    monkeypatch.setitem(sys.modules, "psutil", None)
    run = start(str(tmp_path / SAVED))
    other = BackgroundRun.attach(run.folder)
    assert other.state() == "running"  # announced; Python may not even have started
    until(lambda: other.about["pid"])
    assert other.state() == "running"
    other.kill()
    assert other.state() == "lost"


def test_where_locks_do_not_work_a_heartbeat_tells(tmp_path):
    words = tmp_path / WORDS_FILE
    words.write_text('{"pid": 1, "locked": false, "oom_kills": null}\n')
    assert last_words.alive(words)
    old = time.time() - last_words.SILENT_S - 1
    os.utime(words, (old, old))
    assert not last_words.alive(words)
    assert last_words.ending(words, 1).killed
    last_words.LastWords(words).beat()
    assert time.time() - words.stat().st_mtime < last_words.SILENT_S


def test_a_fork_does_not_hold_the_lock(tmp_path):
    """A data loader that outlives the training for a moment is not the training."""
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from BrainLandmarksLib.worker.last_words import LastWords\n"
        "words = LastWords(Path(sys.argv[1]))\n"
        "child = os.fork()\n"
        "if not child: time.sleep(600)\n"
        "print(child, flush=True)\n"
        "os._exit(0) if sys.stdin.readline() else None\n"
    )
    file = tmp_path / WORDS_FILE
    process = subprocess.Popen([sys.executable, "-c", code, str(file)], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    child = int(process.stdout.readline())
    assert last_words.alive(file)
    process.stdin.write("go\n")
    process.stdin.flush()
    process.wait(MINUTE)
    assert exists(child)
    assert not last_words.alive(file)
    os.kill(child, signal.SIGKILL)
    process.stdin.close()
    process.stdout.close()


def test_no_launcher_is_needed(tmp_path):
    assert shutil.which("PythonSlicer") is None
    tree = ProcessTree([sys.executable, SLOW, "killed"])
    assert tree.wait(MINUTE) == -signal.SIGKILL
    tree.close()
