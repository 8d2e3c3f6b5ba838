"""The demonstration of a federation, with Flower's own processes; what is on the wire."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.network.model_files import load_model

ROOT = Path(__file__).parents[2]
SMALL = ["--first-steps", "20", "--rounds", "2", "--steps", "4", "--scans", "4", "--only-federated"]
PATHS = [ROOT / "BrainLandmarks", ROOT / "BrainLandmarksTrain", *map(Path, sys.path)]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, PATHS))}

pytestmark = pytest.mark.slow


def demonstration(folder: Path, *more: str) -> str:
    command = [sys.executable, str(ROOT / "docs" / "federated_demo.py"), "-o", str(folder)]
    done = subprocess.run(
        [*command, *SMALL, *more], env=ENVIRONMENT, capture_output=True, text=True, timeout=3600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> Path:
    """The folder of a demonstration whose server was killed after a round."""
    folder = tmp_path_factory.mktemp("demonstration")
    said = demonstration(folder, "--restart")
    assert "the server is killed, and started again" in said
    return folder


def test_the_demonstration_ends_with_a_model_and_a_table(shown):
    """Over TLS, with keys, and with a restart of the server in between."""
    told = json.loads((shown / "server" / "rounds.json").read_text())
    assert [each["round"] for each in told["rounds"]] == [1, 2]
    assert all(len(each["sites"]) + each["failed"] == 2 for each in told["rounds"])
    assert load_model(shown / "server" / "model").spec.training["rounds"] == 2
    assert (shown / "report" / "federation.md").read_text().count("| site ") == 2


class Tap:
    """Listens at a port, hands everything on to another, and keeps what the callers have said."""

    def __init__(self, port: int) -> None:
        self.heard: list[bytes] = []
        self._to = port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            caller, _ = self._socket.accept()
            server = socket.create_connection(("127.0.0.1", self._to))
            for source, target, keep in ((caller, server, True), (server, caller, False)):
                threading.Thread(
                    target=self._hand_on, args=(source, target, keep), daemon=True
                ).start()

    def _hand_on(self, source: socket.socket, target: socket.socket, keep: bool) -> None:
        with suppress(OSError):  # either side may have closed both ways
            while data := source.recv(1 << 16):
                if keep:
                    self.heard.append(data)
                target.sendall(data)
        target.close()


def test_nothing_of_the_scans_is_on_the_wire(shown, tmp_path):
    """The same without TLS: all that a site sends, headers included."""
    from test_federation import traces_of

    from BrainLandmarksTrainLib.engine.checkpoint import latest_checkpoint, read_checkpoint
    from BrainLandmarksTrainLib.federation.flower import free_port, wait_for_port

    def program(*words: str) -> list[str]:
        return [sys.executable, "-m", "BrainLandmarksLib", "federate", *words]

    start, app, scans = shown / "first" / "model", tmp_path / "app", shown / "hospital1"
    subprocess.run(
        program("app", str(app), "--model", str(start), "--recipe", str(shown / "joined.yaml"),
                "--rounds", "1", "--min-sites", "1"),
        env=ENVIRONMENT, check=True,
    )  # fmt: skip
    port = free_port()
    tap = Tap(port)
    running = [
        subprocess.Popen(
            program("server", "-o", str(tmp_path / "server"), "--model", str(start), "--insecure",
                    "--port", str(port)),
            env=ENVIRONMENT,
        )
    ]  # fmt: skip
    try:
        assert wait_for_port(port, 300)
        running.append(
            subprocess.Popen(
                program("site", "--server", f"127.0.0.1:{tap.port}", "--insecure", "--dataset",
                        str(scans), "-o", str(tmp_path / "site"), "--model", str(start),
                        "--device", "cpu", "--threads", "1"),
                env=ENVIRONMENT,
            )
        )  # fmt: skip
        subprocess.run(
            program("run", str(app), "--server", f"127.0.0.1:{port}", "--insecure", "--detach"),
            env=ENVIRONMENT, check=True,
        )  # fmt: skip
        deadline = time.monotonic() + 1800
        while not (tmp_path / "server" / "rounds.json").exists():
            assert time.monotonic() < deadline
            assert all(process.poll() is None for process in running)
            time.sleep(0.5)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(60)
    wire = b"".join(tap.heard)
    # One site: its weights are the mean, which the server keeps in full precision.
    newest = latest_checkpoint(tmp_path / "server" / "rounds")
    kept = read_checkpoint(newest).part("weights").items()
    weights = next(value for name, value in kept if name.endswith("classifier.weight"))
    assert len(wire) > weights.numel() * 4
    assert weights.numpy().tobytes()[:64] in wire
    for kind, traces in traces_of(Dataset.open(scans)).items():
        for trace in traces:
            assert trace not in wire, kind
