"""`brainlandmarks detect` on the sample head: time and memory of the whole process.

    python Testing/Benchmarks/bench_detect.py

From process start to files written, as a user meets it. The network's share is what the command
itself measured; the rest is start-up, reading, resampling and writing.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import tempfile
import time

SCRIPT = """
import sys, time
from BrainLandmarksLib import cli, detection
spent = []
forward = detection.Detector._forward
def timed(self, *arguments):
    start = time.perf_counter()
    try:
        return forward(self, *arguments)
    finally:
        spent.append(time.perf_counter() - start)
detection.Detector._forward = timed
code = cli.main(["detect", "sample:colin27", "-o", sys.argv[1], "--quality", sys.argv[2]])
print(f"network seconds {sum(spent)}")
sys.exit(code)
"""


def main() -> None:
    """Print the medians of three runs; the first one warms the disk cache and does not count."""
    run("standard")
    total, network = run("standard", 3)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
    print("brainlandmarks detect sample:colin27, process start to files written")
    print(f"  total                      {total:.1f} s")
    print(f"  networks                   {network:.1f} s")
    print(f"  everything else            {total - network:.1f} s")
    print(f"  peak memory                {peak:.2f} GB")
    for quality in ("fast", "best"):
        print(f"  total, quality {quality:<12}{run(quality, 3)[0]:.1f} s")


def run(quality: str, times: int = 1) -> tuple[float, float]:
    """Total seconds of the run with the median total, and its networks' seconds."""
    rows = []
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", SCRIPT, folder, quality],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            total = time.perf_counter() - start
        match = re.search(r"network seconds ([\d.]+)", done.stdout)
        assert match is not None, done.stdout
        rows.append((total, float(match[1])))
    return sorted(rows)[times // 2]


if __name__ == "__main__":
    main()
