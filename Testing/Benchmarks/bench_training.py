"""Making training samples: how fast, and how long the network waits for them.

    python Testing/Benchmarks/bench_training.py

The sample head with its landmarks is a dataset of one scan. A sample is made at the network's
resolution, N = 64, with pose and the paper's policies; the peer is the same with TorchIO on the
whole scan, as the paper does it, resampled to the cube afterwards. Then short trainings of the full
network on it, with samples made in the loop and by a process of their own.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from timing import median_seconds

from BrainLandmarksLib import resources
from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.detection import Detector
from BrainLandmarksLib.geometry.grid import cube
from BrainLandmarksLib.imaging.intensity import normalise
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.network.highres3dnet import HighRes3DNet
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.review import Review
from BrainLandmarksTrainLib.augmentation import AugmentationConfig, AugmentWithLandmarks
from BrainLandmarksTrainLib.data.scans import ScanSampler, read_scans
from BrainLandmarksTrainLib.engine.config import MachineConfig, TrainingConfig
from BrainLandmarksTrainLib.engine.trainer import Trainer
from BrainLandmarksTrainLib.synthesis.lattice import Lattice
from BrainLandmarksTrainLib.synthesis.variation import CANONICAL

SIZE, FIELD_MM = 64, 208.0
SAMPLES = 16
STEPS = 6


def main() -> None:
    """Print the table."""
    volume = read_image(resources.sample_head())
    detector = Detector("brain88")
    found = detector.detect(volume).landmarks
    truth = LandmarkSet.from_points(found.protocol, found.points, "truth")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = Dataset.create(folder / "set", found.protocol)
        dataset.add(volume, Review.of(truth))
        lattice = Lattice((SIZE,) * 3, FIELD_MM / SIZE, 2)
        scans = read_scans(dataset, dataset.entries, lattice.spacing_mm / 2, folder / "cache")
        shape, protocol = detector.model.spec.mean_shape, found.protocol
        config = AugmentationConfig()
        sampler = ScanSampler(scans, shape, protocol, CANONICAL, lattice, config, 1.0)
        numbers = iter(range(10**6))
        ours = median_seconds(lambda: sampler(0, np.random.default_rng(next(numbers))), SAMPLES)
        augment = AugmentWithLandmarks(config)
        grid = cube(volume.grid.center_ras, FIELD_MM, SIZE)

        def whole_scan() -> None:
            varied = augment(volume, truth, seed=next(numbers))
            normalise(resample(varied.volume, grid))

        peer = median_seconds(whole_scan, SAMPLES)
        print(f"a varied sample at the network's resolution: {1000 * ours:.0f} ms")
        print(
            f"the same with TorchIO on the whole scan: {1000 * peer:.0f} ms ({peer / ours:.1f} x)"
        )
        for text, workers in (("in the loop", 0), ("by one further process", 1)):
            training = TrainingConfig(
                size=SIZE, field_of_view_mm=FIELD_MM, steps=STEPS, validation_scans=0,
                recalibration_batches=0, log_every=STEPS, tensorboard=False,
            )  # fmt: skip
            rows: list[dict[str, float]] = []
            network = HighRes3DNet(out_channels=len(protocol))
            machine = MachineConfig(device="auto", workers=workers)
            run = folder / f"run{workers}"
            Trainer(network, sampler, training, run, machine=machine, on_log=rows.append).train()
            print(
                f"samples made {text}: {rows[-1]['samples_per_second']:.2f} scans/s, "
                f"{100 * rows[-1]['waiting_share']:.0f} % of the time spent waiting for them"
            )


if __name__ == "__main__":
    main()
