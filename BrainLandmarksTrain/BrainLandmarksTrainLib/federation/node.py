"""A site's side of Flower's SuperNode: what it is told, and the only app that may run in it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.atomic import atomic_write, need_writable
from BrainLandmarksLib.network.model_files import summarise

from .flower import free_port, need_address, need_file, run_here, transport

AGAIN_S = 15.0
"""Seconds after which a site joins again."""
LOOK_S = 0.2
"""Between two looks at whether a site is to stop."""
END_S = 60.0
"""What Flower's node may take to end; then it is ended."""
STOPPED, REFUSED = 130, 2
SITE_FILE = "site.toml"
CONNECTION = "federation"
"""Name of the connection to the server in Flower's own settings."""


def prepare_site(
    dataset: Path,
    output: Path,
    *,
    model: str | None = None,
    require: str | None = None,
    device: str | None = None,
    threads: int | None = None,
) -> Path:
    """Check what a site joins with and write it down for Flower's node; the file stays here.

    Returns:
        The node's configuration, a TOML file in ``output``.

    Raises:
        UserError: the dataset or the model cannot be used, or the folder not be written to.
    """
    protocol = Dataset.open(dataset).protocol
    if model is not None:
        found = summarise(model)
        if found.protocol_hash != protocol.hash:
            raise UserError(
                f"the model {found.name} finds other landmarks than the dataset has; choose "
                "another one."
            )
        model = found.key
    need_writable(output)
    output.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {
        "dataset": str(dataset.absolute()),
        "output": str(output.absolute()),
        "model": model,
        "require": require,
        "device": device,
        "threads": threads,
    }
    # A JSON text is one of TOML as well.
    lines = [
        f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in values.items() if v is not None
    ]
    with atomic_write(output / SITE_FILE) as unfinished:
        unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return output / SITE_FILE


def join_options(server: str, told: Path, key: Path | None, insecure: bool = False) -> list[str]:
    """Options of Flower's node; what can never be joined with is found here and not by the node.

    Args:
        server: "host:port".
        told: The node's configuration.
        key: Private key of the site, where the server asks for one.
        insecure: Whether the connection has no TLS.

    Raises:
        UserError: the address or the key is wrong, or the key is of no use.
    """
    need_address(server)
    options = ["--superlink", server, "--node-config", str(told.absolute())]
    if key is not None:
        if insecure:
            raise UserError(
                "a key is shown over TLS only; give --root-certificates instead of --insecure, or "
                "leave --key out."
            )
        need_private_key(key)
        options += ["--auth-supernode-private-key", str(key)]
    return options


def need_private_key(path: Path) -> None:
    """Check that Flower can show a key to the server.

    Raises:
        UserError: it is missing, is a public one or one of another kind, or has a passphrase.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    need_file(path, "key")
    try:
        usable = isinstance(load_ssh_private_key(path.read_bytes(), None), EllipticCurvePrivateKey)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        usable = False
    if not usable:
        raise UserError(
            f"{path} is no private key that a site can join with; give the file that ssh-keygen "
            '-t ecdsa -b 384 -N "" has written, the one without .pub.'
        )


def keep_joined(options: Sequence[str], home: Path, app: Path | None = None) -> int:
    """Run Flower's node until it is stopped; where it ends by itself, join again after a while.

    A node ends where the server has been restarted and knows it no more, for instance. It is a
    process of its own: `python -m BrainLandmarksTrainLib.federation.node`.

    Args:
        options: Of Flower's node.
        home: Flower's folder.
        app: Folder of the only app that may run.

    Returns:
        `STOPPED` after SIGTERM or Ctrl-C, 2 if the node says that it cannot join.
    """
    stopped = threading.Event()
    # Only the event: the signal may come while the node is being started, when nobody has it yet.
    before = {
        number: signal.signal(number, lambda *_: stopped.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    command = [sys.executable, "-m", __spec__.name, str(home), str(app or ""), *options]
    try:
        while not stopped.is_set():
            # Its own processes on this machine talk at a port that is free now.
            child = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(free_port())])
            code = _end_of(child, stopped)
            if code == REFUSED:
                return code
            if not stopped.is_set():
                print("the connection has ended; joining again", flush=True)
                stopped.wait(AGAIN_S)
        return STOPPED
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_of(child: subprocess.Popen[bytes], stopped: threading.Event) -> int:
    """Wait until a process has ended, which it is asked to where one is to stop."""
    while not stopped.is_set():
        with suppress(subprocess.TimeoutExpired):
            return child.wait(LOOK_S)
    child.terminate()
    try:
        return child.wait(END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def write_connection(
    home: Path, server: str, insecure: bool, root_certificates: Path | None
) -> None:
    """Tell Flower's own command where the server is.

    Args:
        home: Flower's folder (FLWR_HOME).
    """
    values: dict[str, Any] = {"address": server}
    if insecure:
        values["insecure"] = True
    elif root_certificates is not None:
        values["root-certificates"] = str(root_certificates.absolute())
    lines = [f"{k} = {json.dumps(v)}" for k, v in values.items()]
    text = f"[superlink]\ndefault = {json.dumps(CONNECTION)}\n\n[superlink.{CONNECTION}]\n"
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.toml").write_text(text + "\n".join(lines) + "\n", encoding="utf-8")


def run_flwr(
    options: Sequence[str], server: str, insecure: bool, root_certificates: Path | None
) -> int:
    """Give Flower's own command with a connection, called `CONNECTION`, to a server.

    Returns:
        Its exit code.

    Raises:
        UserError: Flower or the certificate is missing, or the address is none.
    """
    need_address(server)
    transport(insecure, root_certificates)
    with tempfile.TemporaryDirectory() as folder:
        write_connection(Path(folder), server, insecure, root_certificates)
        return run_here("flwr", options, Path(folder))


def pin_app(folder: Path) -> None:
    """Let Flower's node in this process run no other app than that of a folder.

    Flower sends the app from the server to the sites. A site that has read an app holds on to it:
    what the server sends has to be the same, byte for byte, and its settings those in the app.

    Raises:
        UserError: there is no app in the folder, or this version of Flower works otherwise.
    """
    from flwr.cli.build import build_fab_from_disk

    from .app_folder import read_app

    read_app(folder)
    expected = build_fab_from_disk(folder)
    try:
        from flwr.supernode import start_client_internal as node

        connect = node.http_request_response
    except (ImportError, AttributeError):
        raise UserError(
            "this version of Flower does not let a site hold on to an app; leave --app out, or "
            "install the version that constraints.txt names."
        ) from None

    @contextmanager
    def connected(*arguments: Any, **options: Any) -> Iterator[tuple[Any, ...]]:
        with connect(*arguments, **options) as parts:
            node_id, receive, send, get_run, get_fab, *rest = parts

            def checked_run(*which: Any) -> Any:
                run = get_run(*which)
                if run.override_config:
                    raise UserError(
                        "the server runs the app with other settings than those in it (flwr run "
                        "--run-config); nothing of it was run."
                    )
                return run

            def checked_fab(*which: Any) -> Any:
                fab = get_fab(*which)
                if fab.content != expected:
                    raise UserError(
                        "the server runs another app than the one that this site was given; "
                        "nothing of it was run."
                    )
                return fab

            yield (node_id, receive, send, checked_run, checked_fab, *rest)

    node.http_request_response = connected


def main(arguments: Sequence[str]) -> int:
    """Be Flower's node: its folder, the only app that may run ("" for any), and its options.

    Returns:
        Flower's exit code, `REFUSED` where no other try would help.
    """
    home, app, *options = arguments

    def prepare() -> None:
        if app:
            pin_app(Path(app))

    try:
        return run_here("flower-supernode", options, Path(home), prepare=prepare)
    except UserError as error:
        print(f"brainlandmarks: {error}", file=sys.stderr, flush=True)
        return REFUSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
