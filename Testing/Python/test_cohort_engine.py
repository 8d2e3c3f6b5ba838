"""Cohorts on Dask: several workers, and one that is killed in the middle of a scan."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import dask
import pytest
from bids_tree import write_dataset
from distributed import Client, KilledWorker, LocalCluster

from BrainLandmarksLib.cli import main
from BrainLandmarksLib.cohort import execution

SCANS = 8
PATIENCE_S = 120


@pytest.fixture
def dataset(tmp_path, blob_head):
    names = [f"sub-{number:02d}_T1w.nii.gz" for number in range(1, SCANS + 1)]
    return write_dataset(tmp_path / "data", blob_head, names)


def rows_of(output):
    with (output / "cohort.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def until(condition):
    """Wait for something that must happen; returns what it gave."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def test_workers_of_this_machine(dataset, tmp_path, tiny_model, capfd):
    (dataset / "sub-03/anat/sub-03_T1w.nii.gz").write_text("not an image")
    output = tmp_path / "out"
    arguments = ["detect", "--bids", str(dataset), "-o", str(output), "--model", str(tiny_model)]
    assert main([*arguments, "--workers", "2"]) == 2
    assert (
        f"{SCANS} scans: {SCANS - 1} done, 0 were done before, 1 failed" in capfd.readouterr().out
    )
    assert [row["status"] for row in rows_of(output)] == ["ok"] * 2 + ["failed"] + ["ok"] * 5


@pytest.mark.slow  # whoever is stopped must be in the middle of a scan
def test_a_killed_worker_loses_nothing(dataset, tmp_path, tiny_model):
    output = tmp_path / "out"
    arguments = ["detect", "--bids", dataset, "-o", output, "--model", tiny_model]
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as watcher,
    ):
        pids = watcher.run(os.getpid)
        command = subprocess.Popen(
            [sys.executable, "-m", "BrainLandmarksLib", *map(str, arguments)]
            + ["--scheduler", cluster.scheduler_address],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            until(lambda: list(output.rglob("*_landmarks.json")))

            def stopped_in_mid_scan():
                """A worker that is halted while it works; the others are let go on."""
                for address, pid in pids.items():
                    os.kill(pid, signal.SIGSTOP)
                    if watcher.processing().get(address):
                        return pid
                    os.kill(pid, signal.SIGCONT)
                return None

            victim = until(stopped_in_mid_scan)
            done_before = len(list(output.rglob("*_landmarks.json")))
            os.kill(victim, signal.SIGKILL)
            printed, _ = command.communicate(timeout=PATIENCE_S)
        finally:
            command.kill()
        until(lambda: victim not in watcher.run(os.getpid).values())
    assert 0 < done_before < SCANS
    assert command.returncode == 0
    assert f"{SCANS} scans: " in printed
    assert ", 0 failed" in printed
    scans = [f"sub-{n:02d}/anat/sub-{n:02d}_T1w.nii.gz" for n in range(1, SCANS + 1)]
    table = rows_of(output)
    assert [row["scan"] for row in table] == scans
    assert [row["status"] for row in table] == ["ok"] * SCANS
    files = [path for path in output.rglob("sub-*") if path.is_file()]
    assert len(files) == 3 * SCANS
    assert not list(output.rglob(".unfinished-*"))


class MortalCluster:
    """A cluster and its client without processes: a scan's first workers die, as often as is said.

    A worker is replaced and the scan tried again, until more have died on it than the scheduler
    allows, as in `distributed`.
    """

    def __init__(self, deaths):
        self.deaths = deaths
        self.attempts = Counter()
        self.allowed = dask.config.get("distributed.scheduler.allowed-failures")

    def map(self, function, jobs, pure):
        return [MortalFuture(self, function, job) for job in jobs]

    def close(self):
        pass


class MortalFuture:
    def __init__(self, cluster, function, job):
        self.cluster, self.function, self.job = cluster, function, job
        self.key = self.subject = job.scan.entities

    def result(self):
        died = 0
        while True:
            self.cluster.attempts[self.subject] += 1
            if died == self.cluster.deaths.get(self.subject, 0):
                return self.function(self.job)
            died += 1
            if died > self.cluster.allowed:
                raise KilledWorker(self.key, None, self.cluster.allowed)

    def release(self):
        pass


def test_a_scan_is_given_up_when_three_workers_have_died_on_it(
    dataset, tmp_path, tiny_model, monkeypatch
):
    """With two deaths it is done by the third worker; the others are not concerned."""
    made = []

    def start(**_options):
        made.append(MortalCluster({"sub-01": 2, "sub-02": 3}))
        return nullcontext(made[-1])

    monkeypatch.setattr("distributed.LocalCluster", start)
    monkeypatch.setattr("distributed.Client", lambda cluster: cluster)
    monkeypatch.setattr("distributed.as_completed", iter)
    output = tmp_path / "out"
    arguments = ["detect", "--bids", str(dataset), "-o", str(output), "--model", str(tiny_model)]
    some = ["--participant-label", "01", "02", "03"]
    assert main([*arguments, *some, "--workers", "2"]) == 2
    assert made[0].attempts == {"sub-01": 3, "sub-02": 3, "sub-03": 1}
    assert main(["report", str(output)]) == 0
    assert [row["status"] for row in rows_of(output)] == ["ok", "failed", "ok"]
    assert "every process that worked on it died" in rows_of(output)[1]["warnings"]


def dies(job):
    """Stands in for the work on a scan: its worker dies, and a file tells of it."""
    (Path(job.output) / f"death-{os.getpid()}").touch()
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_dask_gives_a_scan_up_when_three_workers_have_died_on_it(
    dataset, tmp_path, tiny_model, monkeypatch
):
    """The same with real processes."""
    monkeypatch.setattr(execution, "do", dies)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    output = tmp_path / "out"
    arguments = ["detect", "--bids", str(dataset), "-o", str(output), "--model", str(tiny_model)]
    assert main([*arguments, "--participant-label", "01", "02", "--workers", "2"]) == 2
    assert main(["report", str(output)]) == 0
    assert [row["status"] for row in rows_of(output)] == ["failed"] * 2
    assert 3 <= len(list(output.glob("death-*"))) <= 6  # one death may count for both scans


def test_a_missing_engine_or_cluster_is_one_sentence(
    dataset, tmp_path, tiny_model, monkeypatch, capsys
):
    arguments = ["detect", "--bids", str(dataset), "-o", str(tmp_path / "out")]
    arguments += ["--model", str(tiny_model)]
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "1s")
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        assert main([*arguments, "--scheduler", "tcp://127.0.0.1:9"]) == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main([*arguments, "--workers", "2"]) == 2
    assert "pip install 'brainlandmarks[cohort]'" in capsys.readouterr().err
