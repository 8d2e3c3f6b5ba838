"""A federation on one machine: synthetic hospitals, TLS on loopback, one table in the end.

    make federated-demo
    python docs/federated_demo.py -o demo_federation --sites 3

Each hospital gets scans of its own look. A first model is trained on scans of a hospital that does
not take part; then the hospitals go on from it: each alone, all together over Flower (its real
processes, encrypted, every site known by its key), and with all scans in one place. The networks
are far too small to be of use: what is shown is that it works, and which way the errors go.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "Testing" / "Python"))

from phantom import phantom_head, phantom_scan, small_heads  # noqa: E402

from BrainLandmarksLib.annotation import annotate  # noqa: E402
from BrainLandmarksLib.dataset import Dataset  # noqa: E402
from BrainLandmarksLib.imaging.volume import Volume  # noqa: E402
from BrainLandmarksLib.protocol.landmarks import LandmarkSet  # noqa: E402
from BrainLandmarksLib.review import Review  # noqa: E402
from BrainLandmarksTrainLib.federation.flower import free_port, wait_for_port  # noqa: E402

NETWORK = """\
name: {name}
output: {output}
{start}scans:
  dataset: {dataset}
  augmented_share: 0.0
locator: {locator}
fine:
  size: 16
  field_of_view_mm: 208
  features: 4
  sigma: 1.25
  alpha: 0.5
  coordinate_loss: euclidean
  steps: {steps}
  learning_rate: {rate}
  warmup_steps: 5
  freeze_norm_at: {freeze}
  recalibration_batches: {recalibration}
  ema_decay: 0.98
  validation_scans: 0
  tensorboard: false
machine: {{device: cpu, threads: 1}}
"""
LOCATOR = """
  size: 16
  field_of_view_mm: 256
  features: 4
  sigma: 1.0
  steps: {steps}
  warmup_steps: 20
  freeze_norm_at: 0.6
  ema_decay: 0.98
  validation_scans: 0
  tensorboard: false"""

LOOKS = ((1.0, 10.0), (0.6, 40.0), (1.6, 25.0), (0.8, 60.0))
"""Gamma and noise of the hospitals' scans; the first is that of the first model's."""


def main(argv: Sequence[str] | None = None) -> int:
    """Make the demonstration; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("demo_federation"))
    parser.add_argument("--sites", type=int, default=2, choices=(2, 3), help="hospitals (2)")
    parser.add_argument("--scans", type=int, default=8, help="scans of each hospital (8)")
    parser.add_argument("--first-steps", type=int, default=200, help="of the first model (200)")
    parser.add_argument("--rounds", type=int, default=4, help="rounds (4)")
    parser.add_argument("--steps", type=int, default=40, help="steps of a round (40)")
    parser.add_argument("--batch-norm", choices=("shared", "local"), default="shared")
    parser.add_argument("--only-federated", action="store_true", help="no local, no pooled model")
    parser.add_argument(
        "--restart", action="store_true", help="kill the server after a round and start it again"
    )
    parser.add_argument(
        "--in-process", action="store_true",
        help="server and sites in this process, by the same messages: for a busy computer",
    )  # fmt: skip
    parser.add_argument("--reuse", action="store_true", help="keep scans and first model")
    arguments = parser.parse_args(argv)
    folder = arguments.output.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    hospitals = [folder / f"hospital{n}" for n in range(arguments.sites + 1)]
    if not (arguments.reuse and (folder / "first" / "model").is_dir()):
        print("scans of the hospitals", flush=True)
        make_hospitals(hospitals, arguments.scans)
        print("a first model", flush=True)
        train(folder, "first", hospitals[0], steps=arguments.first_steps, first=True)
    start = folder / "first" / "model"
    steps = arguments.rounds * arguments.steps
    together = federate_here if arguments.in_process else federate
    columns = {"federated": together(arguments, folder, hospitals[1:], start)}
    if not arguments.only_federated:
        print("each hospital alone, then all scans in one place", flush=True)
        columns["local"] = [
            train(folder, f"local{n}", place, steps=steps, start=start)
            for n, place in enumerate(hospitals[1:], start=1)
        ]
        pooled = pool(folder / "pooled_scans", hospitals[1:])
        columns["pooled"] = [train(folder, "pooled", pooled, steps=steps, start=start)]
    report = ["federate", "report", "--sites", *map(str, hospitals[1:]), "--before", str(start)]
    for name, models in columns.items():
        report += [f"--{name}", *map(str, models)]
    run([*report, "-o", str(folder / "report"), "--device", "cpu"])
    return 0


def make_hospitals(folders: Sequence[Path], scans: int) -> None:
    """A dataset for each hospital: the phantom moved, turned and sized, with a look of its own."""
    head = phantom_head()
    truth = annotate(head)
    scan = phantom_scan(head, 4.0)
    for number, folder in enumerate(folders):
        gamma, noise = LOOKS[number]
        rng = np.random.default_rng(100 + number)
        looks = 1000 * (np.clip(scan.data, 0, None) / 1000) ** gamma
        looks = np.clip(np.rint(looks + rng.normal(0, noise, looks.shape)), 0, None)
        small_heads(folder, truth, Volume(looks.astype(np.float32), scan.grid), scans, scans,
                    first=100 * number)  # fmt: skip
        dataset = Dataset.open(folder)
        tests = max(1, scans // 4)
        split = [
            replace(entry, split="test" if n < tests else "train")
            for n, entry in enumerate(dataset.entries)
        ]
        dataset.update(split, {"what": "split", "test": tests})


def pool(folder: Path, hospitals: Sequence[Path]) -> Path:
    """All scans in one dataset."""
    if (folder / "dataset.json").exists():
        return folder
    pooled = None
    for number, place in enumerate(hospitals):
        dataset = Dataset.open(place)
        pooled = pooled or Dataset.create(folder, dataset.protocol)
        for entry in dataset.entries:
            sample = dataset.read(entry)
            points = LandmarkSet.from_points(
                dataset.protocol, sample.review.current.points, "truth"
            )
            pooled.add(sample.volume, Review.of(points), subject=f"{number}-{entry.subject}",
                       split=entry.split)  # fmt: skip
    return folder


def recipe(folder: Path, name: str, dataset: Path, steps: int, start: Path | None) -> Path:
    """The recipe of a training, written to a file."""
    first = start is None
    path = folder / f"{name}.yaml"
    path.write_text(
        NETWORK.format(
            name=name,
            output=folder / name,
            start="" if first else f"start_from: {start}\n",
            dataset=dataset,
            locator=LOCATOR.format(steps=steps) if first else "null",
            steps=steps,
            rate=2e-3 if first else 5e-4,
            freeze=0.6 if first else 0.0,
            recalibration=10 if first else 0,
        ),
        encoding="utf-8",
    )
    return path


def train(
    folder: Path,
    name: str,
    dataset: Path,
    *,
    steps: int,
    start: Path | None = None,
    first: bool = False,
) -> Path:
    """Train in one place; the model's folder."""
    model = folder / name / "model"
    if not model.is_dir():
        run(["train", str(recipe(folder, name, dataset, steps, None if first else start))],
            folder / f"{name}.log")  # fmt: skip
    return model


# The federation -----------------------------------------------------------------------------------


def federate(
    arguments: argparse.Namespace, folder: Path, hospitals: Sequence[Path], start: Path
) -> list[Path]:
    """Start a server and all sites, run the app, end everything; the models."""
    port = free_port()
    server = f"127.0.0.1:{port}"
    keys = certificates(folder / "keys", len(hospitals))
    root = ["--root-certificates", str(keys / "ca.crt")]
    app, out = folder / "app", folder / "server"
    sites = [folder / f"site{n}" for n, _ in enumerate(hospitals, start=1)]
    for earlier in (out, *sites):
        shutil.rmtree(earlier, ignore_errors=True)
    whole = recipe(folder, "joined", hospitals[0], arguments.steps, start)
    run(["federate", "app", str(app), "--model", str(start), "--recipe", str(whole), "--name",
         "joined", "--rounds", str(arguments.rounds), "--min-sites", str(len(hospitals)),
         "--batch-norm", arguments.batch_norm])  # fmt: skip
    print(f"a server and {len(hospitals)} sites, encrypted", flush=True)
    serving = ["federate", "server", "-o", str(out), "--model", str(start), "--port", str(port),
               "--certificate", str(keys / "server.pem"), "--key", str(keys / "server.key"),
               "--known-sites", str(keys), *root]  # fmt: skip
    started: list[subprocess.Popen[bytes]] = []
    try:
        started.append(begin(serving, folder / "server.log"))
        wait_for_port(port, 300)
        for number, (place, site) in enumerate(zip(hospitals, sites), start=1):
            key = keys / f"site{number}"
            started.append(
                begin(
                    ["federate", "site", "--server", server, "--dataset", str(place), "-o",
                     str(site), "--model", str(start), "--app", str(app),
                     "--key", str(key), "--device", "cpu", "--threads", "1", *root],
                    folder / f"site{number}.log",
                )
            )  # fmt: skip
        starting = ["federate", "run", str(app), "--server", server, *root, "--detach"]
        run(starting, folder / "run.log")
        if arguments.restart:
            wait_for(out / "rounds" / "checkpoint-00000001", started)
            print("the server is killed, and started again", flush=True)
            end(started.pop(0))
            started.insert(0, begin(serving, folder / "server.log"))
            wait_for_port(port, 300)
            run(starting, folder / "run.log")
        wait_for(out / "rounds.json", started)
    finally:
        for process in reversed(started):
            end(process)
    if arguments.batch_norm == "local":
        return [site / "model" for site in sites]
    return [out / "model"]


def federate_here(
    arguments: argparse.Namespace, folder: Path, hospitals: Sequence[Path], start: Path
) -> list[Path]:
    """The same without Flower's processes: its two apps, and its messages as bytes."""
    from loopback import LoopbackGrid

    from BrainLandmarksTrainLib.config.federation import FederationConfig, federation_of
    from BrainLandmarksTrainLib.federation.client_app import client_app
    from BrainLandmarksTrainLib.federation.server_app import serve

    count = len(hospitals)
    settings = FederationConfig(
        rounds=arguments.rounds, batch_norm=arguments.batch_norm, min_train_nodes=count,
        min_evaluate_nodes=count, min_available_nodes=count,
    )  # fmt: skip
    whole = recipe(folder, "joined", hospitals[0], arguments.steps, start)
    federation = federation_of(start, settings, steps=arguments.steps, name="joined", recipe=whole)
    place = folder / f"here_{arguments.batch_norm}"
    sites = {
        number: {"dataset": str(dataset), "output": str(place / f"site{number}"),
                 "model": str(start), "device": "cpu", "threads": 1}
        for number, dataset in enumerate(hospitals, start=1)
    }  # fmt: skip
    grid = LoopbackGrid(client_app(), federation.to_run_config(), sites)
    model = serve(grid, grid.context(), federation, start, place / "server")
    if arguments.batch_norm == "local":
        return [place / f"site{number}" / "model" for number in sites]
    return [model]


def certificates(folder: Path, sites: int) -> Path:
    """Certificates and keys, by the commands of docs/federated.md."""
    folder.mkdir(exist_ok=True)
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    commands = [
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -days 30"
        " -subj /CN=demonstration -keyout ca.key -out ca.crt",
        "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -subj /CN=localhost"
        f" -addext {names} -keyout server.key -out server.csr",
        "openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30"
        " -copy_extensions copy -out server.pem",
    ]
    if not (folder / "server.pem").exists():
        for command in commands:
            subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    for number in range(1, sites + 1):
        if not (folder / f"site{number}").exists():
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", f"site{number}"],
                cwd=folder,
                check=True,
            )
    return folder


# Processes ----------------------------------------------------------------------------------------


def command_line(arguments: Sequence[str]) -> list[str]:
    """The program in this Python."""
    return [sys.executable, "-m", "BrainLandmarksLib", *arguments]


def run(arguments: Sequence[str], log: Path | None = None) -> None:
    """Run a command to its end; its output goes to a file, or is shown."""
    shown = ["brainlandmarks", *(a.removeprefix(f"{Path.cwd()}/") for a in arguments)]
    print("  " + " ".join(shown), flush=True)
    if log is None:
        code = subprocess.run(command_line(arguments), check=False).returncode
    else:
        with log.open("ab") as file:
            code = subprocess.run(
                command_line(arguments), stdout=file, stderr=subprocess.STDOUT, check=False
            ).returncode
    if code:
        where = f"; see {log}" if log else ""
        raise SystemExit(f"it has failed with code {code}{where}")


def begin(arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command that goes on until `end`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("ab") as file:
        return subprocess.Popen(
            command_line(arguments), stdout=file, stderr=subprocess.STDOUT, env=environment
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, and those that it has started."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for(path: Path, alive: Sequence[subprocess.Popen[bytes]], seconds: float = 3600) -> None:
    """Wait until a file is there."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            raise SystemExit(f"{path} has not come in time")
        for process in alive:
            if process.poll() is not None:
                raise SystemExit(f"a process has ended with code {process.returncode}")
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
