"""Grad-CAM maps of all landmarks against the network's forward pass and MONAI, in one run.

    python Testing/Benchmarks/bench_gradcam.py

Peer: ``monai.visualize.GradCAM``, one call per landmark, on the published network (PyPI package
``highresnet``) with the same weights; it differentiates one number, so each heatmap is read at its
highest voxel before. A few calls are timed and multiplied by the number of landmarks (``--calls``
says how many; with 88 nothing is multiplied). All of it runs alternately, so that a busy machine
hurts all alike; medians are compared. Peak memory is that of a process that only makes the maps.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import highresnet
import torch
from monai.visualize import GradCAM
from timing import seconds
from torch import Tensor, nn

from BrainLandmarksLib import resources
from BrainLandmarksLib.gradcam.maps import default_layer, observe
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.network.inference import (
    bfloat16_is_fast,
    fold_batch_norm,
    inference_heatmaps,
    keep_freed_memory,
)
from BrainLandmarksLib.worker.client import Worker

THEIR_LAYER = "block.3.dilation_block.2.residual_block.1.convolutional_block.3"
OTHER_LAYERS = ("stages.2.0", "stages.1.2", "stages.0.2")

ALONE = """
import sys, torch
from BrainLandmarksLib.gradcam.maps import observe
from BrainLandmarksLib.network import HighRes3DNet
size, landmarks = int(sys.argv[1]), int(sys.argv[2])
network = HighRes3DNet(out_channels=landmarks).eval()
maps = observe(network, torch.rand(1, 1, size, size, size)).maps(range(landmarks))
"""


class Reader(nn.Module):
    """Heatmaps as class scores: each at one voxel."""

    def __init__(self, network: nn.Module, voxels: Tensor) -> None:
        super().__init__()
        self.network, self.voxels = network, voxels.long()

    def forward(self, cube: Tensor) -> Tensor:
        """Scores ``(B, K)``."""
        i, j, k = self.voxels.T
        return self.network(cube)[:, torch.arange(len(self.voxels)), i, j, k]


def same_weights(published: nn.Module, ours: HighRes3DNet) -> None:
    """Give the published network our weights; both list their layers in the same order."""
    kinds = (nn.Conv3d, nn.BatchNorm3d)
    pairs = (
        (theirs, own)
        for theirs, own in zip(
            (m for m in published.modules() if isinstance(m, kinds)),
            (m for m in ours.modules() if isinstance(m, kinds)),
            strict=True,
        )
    )
    for theirs, own in pairs:
        theirs.load_state_dict(own.state_dict())


def main() -> None:
    """Print the times and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="N, voxels per side (64)")
    parser.add_argument("--landmarks", type=int, default=88, help="K, heatmaps (88)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=3, help="calls of MONAI that are timed (3)")
    arguments = parser.parse_args()
    size, count = arguments.size, arguments.landmarks
    # First: a child of a large process would be charged with its parent's memory.
    peak = peak_gb(size, count)
    keep_freed_memory()
    torch.manual_seed(0)
    cube = torch.rand(1, 1, size, size, size)
    network = HighRes3DNet(out_channels=count, classifier_norm=True).eval()
    folded = fold_batch_norm(network)
    published = highresnet.HighRes3DNet(1, count, add_dropout_layer=True).eval()
    same_weights(published, network)
    layer, rows = default_layer(network), range(count)
    seen = observe(network, cube, layer)
    cam = GradCAM(Reader(published, seen.points), f"network.{THEIR_LAYER}")
    reference = cam.compute_map(cube, class_idx=0)[0, 0].detach()
    difference = (seen.maps([0])[0] - reference).abs().max() / reference.max()

    times: dict[str, list[float]] = {"forward": [], "float32": [], "maps": [], "monai": []}
    for number in range(max(arguments.rounds, arguments.calls)):
        if number < arguments.rounds:
            times["forward"].append(seconds(lambda: inference_heatmaps(folded, cube)))
            times["float32"].append(seconds(lambda: inference_heatmaps(folded, cube, "float32")))
            times["maps"].append(seconds(lambda: observe(network, cube, layer).maps(rows)))
        if number < arguments.calls:
            row = number % count
            times["monai"].append(seconds(lambda row=row: cam.compute_map(cube, class_idx=row)))
    median = {name: statistics.median(values) for name, values in times.items()}
    monai = sum(times["monai"]) * count / arguments.calls
    default = "bfloat16" if bfloat16_is_fast(torch.device("cpu")) else "float32"
    print(
        f"Grad-CAM, {count} maps, N = {size}, layer {layer}, CPU with {torch.get_num_threads()} "
        f"threads, median of {arguments.rounds}"
    )
    lines = {
        "all maps, forward pass included": f"{median['maps']:.2f} s",
        f"forward pass ({default}, default)": f"{median['forward']:.2f} s",
        "forward pass (float32)": f"{median['float32']:.2f} s",
        "ratio to the default forward": f"{median['maps'] / median['forward']:.2f}",
        "ratio to the float32 forward": f"{median['maps'] / median['float32']:.2f}",
        f"MONAI, {count} calls ({arguments.calls} timed)": f"{monai:.0f} s",
        "ratio MONAI / ours": f"{monai / median['maps']:.0f}",
        "largest difference to MONAI": f"{float(difference):.1e} of the map's maximum",
        "peak memory": f"{peak:.2f} GB",
    }
    for other in OTHER_LAYERS:
        spent = seconds(lambda other=other: observe(network, cube, other).maps(rows))
        lines[f"all maps, layer {other}"] = f"{spent:.2f} s"
    for name, value in lines.items():
        print(f"  {name:<33}{value}")
    first, then = warm_worker()
    print(f"worker, sample head: first map {first:.1f} s, another landmark {1000 * then:.0f} ms")


def peak_gb(size: int, count: int) -> float:
    """Peak memory of a process of its own that makes all maps, Python and PyTorch included."""
    subprocess.run([sys.executable, "-c", ALONE, str(size), str(count)], check=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2


def warm_worker() -> tuple[float, float]:
    """Seconds from request to reply: the first landmark of an image, and the median of others."""
    worker = Worker([sys.executable, "-m", "BrainLandmarksLib", "serve"])
    spent = []
    with tempfile.TemporaryDirectory() as folder:
        worker.wait(worker.request("ping", lambda _: None), 60)
        for label in ("CC_G", "CC_S", "FP_L", "EYE_A_R", "AX_3_L", "HIP_H_L"):
            replies: list[dict[str, object]] = []
            start = time.perf_counter()
            identity = worker.request(
                "explain", replies.append, image=str(resources.sample_head()), output=folder,
                model="brain88", device="cpu", landmarks=[label], layer="",
            )  # fmt: skip
            worker.wait(identity, 120)
            spent.append(time.perf_counter() - start)
            assert replies[-1]["type"] == "result", replies[-1]
    worker.stop()
    return spent[0], statistics.median(spent[1:])


if __name__ == "__main__":
    main()
