"""`brainlandmarks detect --bids`: scans per minute by the number of workers, resuming, the report.

    python Testing/Benchmarks/bench_cohort.py [SCANS]

The dataset is copies of the sample head. Times are those of the whole command, from process start
to the cohort table; on a machine that does other work, too, the processor time tells more. With one
worker PyTorch uses all cores for one scan; with more, each has its share of them.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from timing import seconds

from BrainLandmarksLib.cohort.work import cores
from BrainLandmarksLib.resources import sample_head

WORKERS = (1, 2)


def command(*arguments: object) -> None:
    """Run `brainlandmarks` in a process of its own."""
    line = [sys.executable, "-m", "BrainLandmarksLib", *map(str, arguments)]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def processor_seconds() -> float:
    """Processor time of all processes that have ended; other work on the machine does not count."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def main() -> None:
    """Print the times and the ratio of the workers, measured in turns."""
    scans = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    with tempfile.TemporaryDirectory() as folder:
        data, output = Path(folder) / "data", Path(folder) / "out"
        for number in range(1, scans + 1):
            place = data / f"sub-{number:03d}" / "anat"
            place.mkdir(parents=True)
            shutil.copy(sample_head(), place / f"sub-{number:03d}_T1w.nii.gz")
        detect = ("detect", "--bids", data, "-o", output, "--overwrite")
        print(f"{scans} scans, {cores()} cores, load average {os.getloadavg()[0]:.1f}")
        times = []
        for workers in WORKERS:
            before = processor_seconds()
            times.append(seconds(lambda n=workers: command(*detect, "--workers", n)))
            each = (processor_seconds() - before) / scans
            rate = 60 * scans / times[-1]
            print(
                f"  workers {workers}         {times[-1]:6.1f} s   {rate:.1f} scans per minute, "
                f"{each:.1f} s of processor time each"
            )
        print(f"  {WORKERS[-1]} against {WORKERS[0]}                  {times[0] / times[-1]:.2f} x")
        print(f"  nothing to do     {seconds(lambda: command(*detect[:-1])):6.1f} s")
        for shown in (0, scans):
            spent = seconds(lambda n=shown: command("report", output, "--shown", n))
            size = (output / "cohort.html").stat().st_size / 1e6
            print(f"  report, {shown:2d} shown  {spent:6.1f} s   {size:.2f} MB")


if __name__ == "__main__":
    main()
