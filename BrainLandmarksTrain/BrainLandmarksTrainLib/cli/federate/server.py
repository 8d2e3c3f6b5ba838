"""`brainlandmarks federate server`: Flower's SuperLink, where the sites' weights meet."""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
from pathlib import Path

PORT = 8000
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "localhost"}
"""How a server that listens at all addresses is reached from its own machine."""
_LISTENS_S = 300.0
"""Seconds that the server may take to listen."""

_EXAMPLE = """\
examples:
  brainlandmarks federate server -o federation --certificate server.pem --key server.key \\
      --root-certificates ca.crt --host 0.0.0.0 --known-sites keys
  brainlandmarks federate server -o federation --insecure        on one machine, to try it
"""


def add_action(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the action to the command line."""
    parser = actions.add_parser(
        "server",
        help="start the server of a federation (flower-superlink)",
        description="Start Flower's SuperLink with a folder for the rounds. Ctrl-C stops it; "
        "started again in the same folder, a federation goes on after its last whole round.",
        epilog=_EXAMPLE,
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR",
        help="folder for the rounds and the model",
    )  # fmt: skip
    parser.add_argument(
        "--model", metavar="DIR",
        help="folder of the model that the app starts from, if it does not come with the program",
    )  # fmt: skip
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 for all (127.0.0.1)"
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"({PORT})")
    add_transport(parser)
    parser.add_argument(
        "--certificate", type=Path, metavar="FILE", help="certificate of this server, PEM"
    )
    parser.add_argument("--key", type=Path, metavar="FILE", help="private key of the certificate")
    parser.add_argument(
        "--known-sites", type=Path, metavar="DIR",
        help="let only sites in whose public keys (.pub) are in this folder, or were registered "
        "with federate admit since",
    )  # fmt: skip
    parser.set_defaults(run=run)


def add_transport(parser: argparse.ArgumentParser) -> None:
    """How the two sides know each other."""
    parser.add_argument(
        "--root-certificates", type=Path, metavar="FILE",
        help="certificate of the authority that has signed the server's, PEM",
    )  # fmt: skip
    parser.add_argument(
        "--insecure", action="store_true", help="no TLS; only to try things on one machine"
    )


def keys_in(folder: Path) -> list[Path]:
    """Public keys in a folder.

    Raises:
        UserError: there are none.
    """
    from BrainLandmarksLib.errors import UserError

    keys = sorted(folder.glob("*.pub"))
    if not keys:
        raise UserError(f"{folder} holds no public keys (.pub); check the path.")
    return keys


def admit_later(
    keys: list[Path], host: str, port: int, root_certificates: Path | None
) -> threading.Thread:
    """Register keys as soon as the server listens; what it knows ends with its process.

    Args:
        host: Where the server listens.

    Returns:
        The thread that does it, and says on stderr what it could not do.
    """
    from BrainLandmarksTrainLib.federation.flower import wait_for_port

    reached = _EVERYWHERE.get(host, host)
    server = f"[{reached}]:{port}" if ":" in reached else f"{reached}:{port}"

    def admit() -> None:
        if not wait_for_port(port, _LISTENS_S, reached):
            return _say(f"the server does not listen at {server}; no site is let in.")
        for key in keys:
            command = ["federate", "admit", str(key), "--server", server]
            command += ["--root-certificates", str(root_certificates)]
            done = subprocess.run(
                [sys.executable, "-m", "BrainLandmarksLib", *command], check=False
            )
            if done.returncode:
                _say(
                    f"{key.name} was not registered, and its site is not let in; check the key, "
                    f"and that the server's certificate names {reached}, then give federate admit."
                )
        return None

    thread = threading.Thread(target=admit, daemon=True)
    thread.start()
    return thread


def _say(sentence: str) -> None:
    print(f"brainlandmarks: {sentence}", file=sys.stderr, flush=True)


def run(arguments: argparse.Namespace) -> int:
    """Run Flower's SuperLink to its end; returns its exit code.

    Raises:
        UserError: Flower or a certificate is missing, or the folder cannot be written to.
    """
    from BrainLandmarksLib.errors import UserError
    from BrainLandmarksLib.io.atomic import need_writable
    from BrainLandmarksTrainLib.federation import flower

    flower.need_flower()
    need_writable(arguments.output)
    options = ["--host", arguments.host, "--port", str(arguments.port)]
    options += flower.transport(
        arguments.insecure, arguments.root_certificates, "--ssl-ca-certfile"
    )
    if not arguments.insecure:
        for what, path in (("certificate", arguments.certificate), ("key", arguments.key)):
            if path is None:
                raise UserError(f"the server needs --{what} as well; docs/federated.md makes one.")
            flower.need_file(path, what)
        flower.need_certificate(arguments.certificate)
        options += ["--ssl-certfile", str(arguments.certificate)]
        options += ["--ssl-keyfile", str(arguments.key)]
    if arguments.known_sites is not None:
        if arguments.insecure:
            raise UserError(
                "sites show their keys over TLS only; give --certificate, --key and "
                "--root-certificates instead of --insecure, or leave --known-sites out."
            )
        options.append("--enable-supernode-auth")
        keys = keys_in(arguments.known_sites)
        admit_later(keys, arguments.host, arguments.port, arguments.root_certificates)
    output = arguments.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    # Flower would install what an app asks for; ours asks for nothing.
    options += ["--disable-runtime-dependency-installation"]
    told = {flower.SERVER_FOLDER: str(output)}
    if arguments.model is not None:
        told[flower.SERVER_MODEL] = str(Path(arguments.model).absolute())
    return flower.run_here("flower-superlink", options, output / "flower", variables=told)
