"""Cohorts by several workers, here and on Dask; some are killed in the middle of a scan."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask
import mortal_work
import pytest
from bids_tree import write_dataset
from distributed import Client, KilledWorker, LocalCluster

from BrainLandmarksLib import processes
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


def test_workers_of_this_machine(dataset, tmp_path, tiny_model, capfd, monkeypatch):
    (dataset / "sub-03/anat/sub-03_T1w.nii.gz").write_text("not an image")
    output = tmp_path / "out"
    arguments = ["detect", "--bids", str(dataset), "-o", str(output), "--model", str(tiny_model)]
    with monkeypatch.context() as without_dask:
        without_dask.setitem(sys.modules, "distributed", None)
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


def test_a_scan_is_given_up_when_three_workers_have_died_on_it(
    dataset, tmp_path, tiny_model, monkeypatch
):
    """With two deaths it is done by the third worker; the others are not concerned."""
    monkeypatch.setattr(execution, "do", mortal_work.sometimes)
    output = tmp_path / "out"
    arguments = ["detect", "--bids", str(dataset), "-o", str(output), "--model", str(tiny_model)]
    some = ["--participant-label", "01", "02", "03"]
    assert main([*arguments, *some, "--workers", "2"]) == 2
    assert mortal_work.deaths(output, "sub-01_T1w") == 2
    assert mortal_work.deaths(output, "sub-02_T1w") == processes.ATTEMPTS == 3
    assert mortal_work.deaths(output) == 5
    assert main(["report", str(output), "--shown", "0"]) == 0
    assert [row["status"] for row in rows_of(output)] == ["ok", "failed", "ok"]
    assert "every process that worked on it died" in rows_of(output)[1]["warnings"]


def test_jobs_are_shared_and_errors_arrive():
    found = dict(processes.share([1, 2, 4, 5], 2, mortal_work.square))
    assert {job: square for job, (square, _) in found.items()} == {1: 1, 2: 4, 4: 16, 5: 25}
    assert 1 <= len({pid for _, pid in found.values()}) <= 2
    with pytest.raises(ValueError, match="three"):
        list(processes.share([3], 2, mortal_work.square))


class LosingCluster:
    """A cluster's client whose workers all die of one scan, more often than the cluster allows."""

    def __init__(self, lost):
        self.lost = lost

    def map(self, function, jobs, pure):
        return [LosingFuture(self, function, job) for job in jobs]

    def close(self):
        pass


class LosingFuture:
    def __init__(self, cluster, function, job):
        self.cluster, self.function, self.job = cluster, function, job
        self.key = job.scan.entities

    def result(self):
        if self.key == self.cluster.lost:
            raise KilledWorker(self.key, None, 3)
        return self.function(self.job)

    def release(self):
        pass


def test_a_scan_that_a_cluster_gives_up_has_failed(dataset, tmp_path, tiny_model, monkeypatch):
    monkeypatch.setattr("distributed.Client", lambda address: LosingCluster("sub-02"))
    monkeypatch.setattr("distributed.as_completed", iter)
    output = tmp_path / "out"
    arguments = ["detect", "--bids", str(dataset), "-o", str(output), "--model", str(tiny_model)]
    some = ["--participant-label", "01", "02", "03"]
    assert main([*arguments, *some, "--scheduler", "tcp://node1:8786"]) == 2
    assert main(["report", str(output), "--shown", "0"]) == 0
    assert [row["status"] for row in rows_of(output)] == ["ok", "failed", "ok"]
    assert "every process that worked on it died" in rows_of(output)[1]["warnings"]


@pytest.mark.slow
def test_dask_gives_a_scan_up_when_worker_after_worker_has_died_on_it(
    dataset, tmp_path, tiny_model, monkeypatch
):
    """The same with a real cluster."""
    monkeypatch.setattr(execution, "do", mortal_work.always)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    output = tmp_path / "out"
    arguments = ["detect", "--bids", str(dataset), "-o", str(output), "--model", str(tiny_model)]
    some = ["--participant-label", "01", "02"]
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        assert main([*arguments, *some, "--scheduler", cluster.scheduler_address]) == 2
    assert main(["report", str(output), "--shown", "0"]) == 0
    assert [row["status"] for row in rows_of(output)] == ["failed"] * 2
    allowed = dask.config.get("distributed.scheduler.allowed-failures")
    assert allowed < mortal_work.deaths(output) <= 2 * (allowed + 1)


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
    assert main([*arguments, "--scheduler", "tcp://127.0.0.1:9"]) == 2
    assert "pip install 'brainlandmarks[cohort]'" in capsys.readouterr().err
