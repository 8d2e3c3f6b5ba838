"""Flower's commands and the environment they run in.

Flower reports how it is used and looks for updates unless it is told not to; in every process that
is started here, it is told not to before it is imported.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
import socket
import ssl
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from BrainLandmarksLib.errors import UserError

SILENCE = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
"""What keeps Flower from calling its makers, and from installing what an app asks for."""

SERVER_FOLDER = "BRAINLANDMARKS_FEDERATION"
"""Environment variable that tells the server's app where its rounds are kept."""
SERVER_MODEL = "BRAINLANDMARKS_FEDERATION_MODEL"
"""Environment variable that tells the server's app the start model, where that is a folder."""

_SERVICES = ("flower-superlink", "flower-supernode")
"""Commands with threads that would keep the process if an error ended the main one."""

_PROBE_S = 5.0
_INSTALL = "pip install 'brainlandmarks[federated]'"


def need_flower() -> None:
    """Check that Flower is there, without importing it.

    Raises:
        UserError: it is not.
    """
    if importlib.util.find_spec("flwr") is None:
        where = "" if sys.version_info >= (3, 11) else " in a Python of 3.11 or later"
        raise UserError(f"a federation needs Flower; install it{where} with {_INSTALL}.")


def environment(home: Path, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of Flower's processes.

    Args:
        home: Where Flower keeps the app and its own settings.
        base: What else is in it; by default this process' environment.
    """
    given = dict(os.environ if base is None else base)
    # Flower starts its other programs by their names.
    scripts = [sysconfig.get_path("scripts"), str(Path(sys.executable).parent)]
    path = os.pathsep.join(dict.fromkeys([*scripts, given.get("PATH", "")]))
    return {**given, **SILENCE, "FLWR_HOME": str(home), "PATH": path}


def run_here(
    command: str,
    arguments: Sequence[str],
    home: Path,
    *,
    prepare: Callable[[], object] = lambda: None,
    variables: Mapping[str, str] | None = None,
) -> int:
    """Become one of Flower's commands; returns its exit code.

    Where one of its services fails, this process ends.

    Args:
        command: Such as "flower-supernode".
        arguments: Of that command.
        home: Where Flower keeps the app and its own settings.
        prepare: Called before the command, when Flower may be imported.
        variables: Further environment variables.

    Raises:
        UserError: Flower is missing, or is a version without this command, or from ``prepare``.
    """
    need_flower()
    home.mkdir(parents=True, exist_ok=True)
    os.environ.update({**environment(home), **(variables or {})})
    points = metadata.entry_points(group="console_scripts", name=command)
    if not points:
        raise UserError(
            f"the installed Flower has no {command}; install the version that this program was "
            f"tested with: {_INSTALL}."
        )
    entry = next(iter(points)).load()
    prepare()
    before = sys.argv
    sys.argv = [command, *arguments]
    try:
        entry()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        # Also KeyboardInterrupt: two of Flower's threads may ask for an end at once, and the second
        # disturbs what the first has begun.
        if command not in _SERVICES:
            raise
        if isinstance(error, UserError):
            print(f"brainlandmarks: {error}", file=sys.stderr)
        else:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(2 if isinstance(error, UserError) else 1)
    finally:
        sys.argv = before
    return 0


def free_port() -> int:
    """A port on this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, seconds: float = math.inf, host: str = "127.0.0.1") -> bool:
    """Wait until somebody listens at a port; whether it has come to that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with socket.create_connection((host, port), timeout=_PROBE_S):
                return True
        except OSError:
            time.sleep(0.5)
    return False


def need_address(server: str) -> None:
    """Check that something is written like the address of a server.

    Raises:
        UserError: it is not "host:port".
    """
    try:
        parts = urlsplit(f"//{server}")
        whole = parts.netloc == server and not re.search(r"[\s@]", server)
        if whole and parts.hostname and parts.port:
            return
    except ValueError:  # a port that is none, or half an IPv6 address
        pass
    raise UserError(f"{server!r} is no address; give HOST:PORT, such as federation.org:8000.")


def transport(
    insecure: bool, certificates: Path | None, option: str = "--root-certificates"
) -> list[str]:
    """How the other side is known: by a certificate, or not at all.

    Raises:
        UserError: neither was asked for, or the certificate is missing.
    """
    if insecure:
        return ["--insecure"]
    if certificates is None:
        raise UserError(
            f"without a certificate nobody knows whom they talk to; give {option}, or --insecure "
            "to try things on one machine."
        )
    need_certificate(certificates)
    return [option, str(certificates)]


def need_certificate(path: Path) -> None:
    """Check that a file holds a certificate, as Flower reads it.

    Raises:
        UserError: it is missing, or holds none.
    """
    need_file(path, "certificate")
    try:
        ssl.create_default_context(cadata=path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # ssl's errors are of these
        raise UserError(
            f"{path} holds no certificate that can be read; give the file in PEM format that the "
            "federation's server was set up with (docs/federated.md)."
        ) from None


def need_file(path: Path, what: str) -> None:
    """Check that a file is there.

    Raises:
        UserError: it is not.
    """
    if not path.is_file():
        raise UserError(f"the {what} {path} is missing; check the path.")
