"""The packages that the library needs in Slicer's Python: are they there, and installing them.

PyTorch comes through the PyTorch extension, which picks the build for the graphics card; NumPy,
SimpleITK and pydicom are Slicer's own. Nothing is imported here, and PyTorch nowhere in Slicer's
process: a version is looked up, the worker finds out whether it works.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import platform
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from BrainLandmarksLib.errors import UserError

REQUIREMENTS = (
    "nibabel>=5.0",
    "scipy>=1.11",
    "safetensors>=0.4",
    "contourpy>=1.2",
    "matplotlib>=3.8",
    "jsonschema>=4.18",
    "PyYAML>=6.0",
    "tqdm>=4.60",
)
"""What is installed on the first click. Lower bounds only, so that other extensions can share."""

TRAINING = (
    "torchio>=0.20",
    "lightning-fabric>=2.2",
    "tensorboardX>=2.6",
    "psutil>=5.9",
)
"""What training and augmentation need besides."""

FEDERATED = ("flwr>=1.42",)
"""What *Join a federation* needs besides."""

PYTORCH = "torch>=2.3"

_IMPORTED = {"PyYAML": "yaml"}
"""Name of a package to the name that is imported, where they differ by more than a hyphen."""
LOG_LINES = 40
"""Last lines of pip's output that are kept for a diagnosis."""

_NO_PYTORCH = (
    "PyTorch 2.3 and later, which BrainLandmarks needs, does not exist for the Intel build of "
    "Slicer on macOS; use Slicer on Linux or Windows, a Slicer that is built for Apple silicon, or "
    "the brainlandmarks command in a Python for Apple silicon."
)

_NO_VERSION = "there is none for this version of Slicer; use the current stable one."
_NOT_IN_FOLDER = "the folder lacks a wheel that fits this version of Slicer."
_UNKNOWN = "pip did not say why in words that are known; copy the diagnostics and report it."

# What pip says to what a person can do; the first that fits counts. (Without a network pip also
# finds no version, and says that last.)
_REASONS = (
    (
        r"No space left|not enough space|Errno 28|disk is full|Disk quota",
        "the disk is full; make room and try again.",
    ),
    (
        r"NewConnectionError|NameResolutionError|ConnectionError|ConnectTimeout|ReadTimeout|"
        r"Max retries|name resolution|getaddrinfo|Connection (?:refused|reset|aborted)|"
        r"Network is unreachable|timed out|ProxyError|SSLError|CERTIFICATE_VERIFY_FAILED",
        "the package server cannot be reached; check the network and its proxy, or install from a "
        "folder of wheels.",
    ),
    (
        r"WinError (?:5|32)\b|Access is denied|being used by another process",
        "a file is in use; restart Slicer and try again before anything else.",
    ),
    (
        r"Permission denied|Errno 13|Read-only file system|Errno 30",
        "Slicer's folder cannot be written to; install Slicer where you may write, or ask whoever "
        "installed it.",
    ),
    (
        r"No matching distribution|Could not find a version|is not a supported wheel|"
        r"Requires-Python",
        _NO_VERSION,
    ),
    (
        r"ResolutionImpossible|conflicting dependencies",
        "it does not go with what another extension has installed; copy the diagnostics and "
        "report it.",
    ),
)


class InstallError(RuntimeError):
    """An installation failed: one sentence that says why and what to do.

    Attributes:
        detail: Last lines of what pip said.
    """

    def __init__(self, sentence: str, detail: str = "") -> None:
        super().__init__(sentence)
        self.detail = detail


_OPERATOR = re.compile(r"^([A-Za-z0-9_.-]+)>=([0-9.]+)$")


@dataclass(frozen=True)
class Missing:
    """What is needed and Slicer's Python lacks."""

    packages: tuple[str, ...]
    pytorch: bool

    def __bool__(self) -> bool:
        return bool(self.packages) or self.pytorch

    def need_possible(self) -> None:
        """Check that it can be installed here at all; call it before asking.

        Raises:
            UserError: PyTorch does not exist for this computer.
        """
        # Under Rosetta the machine is called so as well, and is one for pip.
        if self.pytorch and sys.platform == "darwin" and platform.machine() == "x86_64":
            raise UserError(_NO_PYTORCH)

    @property
    def sentence(self) -> str:
        """The question before installing."""
        parts = [_name(p) for p in self.packages] + ["PyTorch"] * self.pytorch
        size = "about 200 MB to 3 GB, depending on the graphics card" if self.pytorch else "100 MB"
        return (
            f"BrainLandmarks needs {', '.join(parts)} ({size}). They are downloaded once, and no "
            "scan ever leaves this computer. Install now?"
        )


def missing(*, training: bool = False, federated: bool = False) -> Missing:
    """What has to be installed before the worker can run, a training, or one with other sites."""
    wanted: tuple[str, ...] = REQUIREMENTS
    if training or federated:
        wanted = (*wanted, *TRAINING)
    if federated:
        wanted = (*wanted, *FEDERATED)
    return Missing(tuple(r for r in wanted if not _satisfied(r)), not _satisfied(PYTORCH))


def lacking(error: ModuleNotFoundError) -> str | None:
    """What to do about a package that could not be imported; None if it is none of these."""
    imported = (error.name or "").partition(".")[0]
    for requirement in (*REQUIREMENTS, *TRAINING, *FEDERATED, PYTORCH):
        match = _OPERATOR.match(requirement)
        if match is not None and imported == _IMPORTED.get(match[1], match[1].replace("-", "_")):
            where = "Detect landmarks in Brain Landmarks"
            if requirement in TRAINING:
                where = "Start training in Brain Landmarks Training"
            elif requirement in FEDERATED:
                where = "Join in Brain Landmarks Training"
            return f"Slicer's Python lacks {match[1]}; click {where} once, which installs it."
    return None


def _satisfied(requirement: str) -> bool:
    match = _OPERATOR.match(requirement)
    assert match is not None
    try:
        installed = metadata.version(match[1])
    except metadata.PackageNotFoundError:
        return False
    return _numbers(installed) >= _numbers(match[2])


def _numbers(version: str) -> tuple[int, ...]:
    """Leading numbers of a version; enough to compare lower bounds."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(n) for n in found[0].split(".")) if found else (0,)


def install(what: Missing, folder: str | None = None, log: Callable[[str], None] = print) -> None:
    """Install what is missing; blocks, with Slicer's own progress where it has one. Asks nothing.

    Args:
        folder: Wheels lie here, and nothing is downloaded (for hospitals without a network).

    Raises:
        InstallError: it failed, or is not possible here; the text says why and what to do.
    """
    try:
        what.need_possible()
    except UserError as error:
        raise InstallError(str(error)) from None
    # PyTorch first: what depends on it would else bring a build that may not suit the computer.
    if what.pytorch:
        _install_pytorch(folder, log)
    if what.packages:
        _install_packages(list(what.packages), folder, log)


def _install_packages(packages: list[str], folder: str | None, log: Callable[[str], None]) -> None:
    import slicer
    import slicer.util

    names = ", ".join(packages)
    log(f"installing {names}")
    packaging: Any = getattr(slicer, "packaging", None)
    with _explained(names, folder):
        if folder is None and packaging is not None and hasattr(packaging, "pip_ensure"):
            packaging.pip_ensure(
                packages, prompt_install=False, prompt_restart=False, skip_in_testing=False
            )
        else:
            where = [] if folder is None else ["--no-index", "--find-links", folder]
            slicer.util.pip_install([*where, *packages])


def _install_pytorch(folder: str | None, log: Callable[[str], None]) -> None:
    if folder is not None:
        _install_packages([PYTORCH], folder, log)
        return
    log("installing PyTorch")
    try:
        import PyTorchUtils  # type: ignore[import-not-found]
    except ImportError:
        raise InstallError(
            "install the extension PyTorch with the Extensions Manager, restart Slicer, and try "
            "again."
        ) from None
    with _explained("PyTorch", None), _without_pytorch():
        # The question was ours, and named all packages.
        PyTorchUtils.PyTorchUtilsLogic().installTorch(
            askConfirmation=False, torchVersionRequirement=PYTORCH.removeprefix("torch")
        )
    if not _satisfied(PYTORCH):
        raise InstallError("PyTorch was not installed; try again, or use the module PyTorch Utils.")


class _NotHere(importlib.abc.MetaPathFinder):
    """Finds no PyTorch."""

    def find_spec(self, fullname: str, _path: Any = None, _target: Any = None) -> None:
        if fullname == "torch":
            raise ModuleNotFoundError("PyTorch stays out of Slicer's process", name=fullname)


@contextlib.contextmanager
def _without_pytorch() -> Iterator[None]:
    """Let nothing import PyTorch meanwhile.

    PyTorchUtils installs it and then imports it, last of all. In Slicer's process it may crash on
    libraries that both bring, and is locked against being replaced. If another extension has
    imported it already there is nothing to keep out.
    """
    finder = _NotHere()
    sys.meta_path.insert(0, finder)
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
    finally:
        sys.meta_path.remove(finder)


@contextlib.contextmanager
def _explained(names: str, folder: str | None) -> Iterator[None]:
    """Say in plain words why an installation failed, by what pip prints meanwhile."""
    heard = _Heard(sys.stdout)
    try:
        with contextlib.redirect_stdout(heard):  # type: ignore[type-var]
            yield
    except Exception as error:
        text = f"{heard.text}\n{error}"
        fitting = (sentence for pattern, sentence in _REASONS if re.search(pattern, text))
        reason = next(fitting, _UNKNOWN)
        if folder is not None and reason == _NO_VERSION:
            reason = _NOT_IN_FOLDER
        lines = text.strip().splitlines()[-LOG_LINES:]
        raise InstallError(f"{names} could not be installed: {reason}", "\n".join(lines)) from error
    finally:
        importlib.invalidate_caches()


class _Heard:
    """A stream that keeps what is printed to another one: Slicer prints what pip says."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text
        self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _name(requirement: str) -> str:
    return requirement.split(">=")[0]
