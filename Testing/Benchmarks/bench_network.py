"""The network's forward pass against the reference implementation, in one run.

    python Testing/Benchmarks/bench_network.py

Peer: ``HighRes3DNet`` of the PyPI package ``highresnet``, float32, same size. Ours runs in its
default precision. Both are timed alternately, so that a busy machine hurts both alike; the medians
are compared. The landmarks of the shipped model in the default precision are compared with its own
in float32 on the sample head.
"""

from __future__ import annotations

import argparse
import statistics

import highresnet
import torch
from timing import seconds

from BrainLandmarksLib import resources
from BrainLandmarksLib.detection import Detector
from BrainLandmarksLib.geometry.grid import cube
from BrainLandmarksLib.imaging.intensity import normalise
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.network.decoding import decode
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.network.inference import (
    bfloat16_is_fast,
    fold_batch_norm,
    inference_heatmaps,
    keep_freed_memory,
)


def main() -> None:
    """Print the times, the ratio and the difference of the landmarks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="N, voxels per side (64)")
    parser.add_argument("--landmarks", type=int, default=88, help="K, heatmaps (88)")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    input_cube = torch.rand(1, 1, arguments.size, arguments.size, arguments.size)
    ours = fold_batch_norm(HighRes3DNet(out_channels=arguments.landmarks).eval())
    peer = highresnet.HighRes3DNet(1, arguments.landmarks, add_dropout_layer=True).eval()
    times: dict[str, list[float]] = {"ours": [], "ours float32": [], "highresnet": []}
    with torch.inference_mode():
        calls = {
            "ours": lambda: inference_heatmaps(ours, input_cube),
            "ours float32": lambda: inference_heatmaps(ours, input_cube, "float32"),
            "highresnet": lambda: peer(input_cube),
        }
        for call in calls.values():
            call()
        for _ in range(arguments.rounds):
            for name, call in calls.items():
                times[name].append(seconds(call))
    median = {name: statistics.median(values) for name, values in times.items()}
    default = "bfloat16" if bfloat16_is_fast(torch.device("cpu")) else "float32"
    print(
        f"forward, N = {arguments.size}, K = {arguments.landmarks}, CPU with "
        f"{torch.get_num_threads()} threads, median of {arguments.rounds}"
    )
    print(f"  ours ({default}, the default)  {median['ours']:.2f} s")
    print(f"  ours (float32)             {median['ours float32']:.2f} s")
    print(f"  highresnet (float32)       {median['highresnet']:.2f} s")
    print(f"  ratio ours / highresnet    {median['ours'] / median['highresnet']:.2f}")
    print(f"landmarks, {default} against float32: {landmark_difference():.3f} mm at most")


def landmark_difference() -> float:
    """Largest distance between the sample head's landmarks in the two precisions, mm.

    Both see the same cube: the sample head in the pose in which the detector last looked at it.
    """
    detector = Detector(device="cpu")
    crop = detector.model.spec.fine
    volume = read_image(resources.sample_head())
    pose = detector.detect(volume).pose
    grid = cube(pose[:3, 3], crop.field_of_view_mm, crop.size, pose[:3, :3])
    input_cube = torch.from_numpy(normalise(resample(volume, grid)))[None, None]
    folded = fold_batch_norm(detector.model.network)
    with torch.inference_mode():
        found, exact = (
            decode(inference_heatmaps(folded, input_cube, precision)).coordinates[0]
            for precision in ("auto", "float32")
        )
    return float((found - exact).norm(dim=1).max()) * crop.voxel_mm


if __name__ == "__main__":
    main()
