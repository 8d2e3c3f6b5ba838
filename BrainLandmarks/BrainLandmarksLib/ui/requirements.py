"""The packages that the library needs in Slicer's Python: are they there, and installing them.

PyTorch comes through the PyTorch extension, which picks the build for the graphics card; NumPy,
SimpleITK and pydicom are Slicer's own. Nothing is imported here: a version is looked up, the worker
finds out whether it works.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

REQUIREMENTS = (
    "nibabel>=5.0",
    "scipy>=1.11",
    "safetensors>=0.4",
    "contourpy>=1.2",
    "matplotlib>=3.8",
    "jsonschema>=4.18",
    "PyYAML>=6.0",
)
"""What is installed on the first click. Lower bounds only, so that other extensions can share."""

TRAINING = (
    "torchio>=0.20",
    "lightning-fabric>=2.2",
    "tensorboardX>=2.6",
    "tqdm>=4.60",
    "psutil>=5.9",
)
"""What training and augmentation need besides."""

PYTORCH = "torch>=2.3"

_IMPORTED = {"PyYAML": "yaml"}
"""Name of a package to the name that is imported, where they differ by more than a hyphen."""

_OPERATOR = re.compile(r"^([A-Za-z0-9_.-]+)>=([0-9.]+)$")


@dataclass(frozen=True)
class Missing:
    """What is needed and Slicer's Python lacks."""

    packages: tuple[str, ...]
    pytorch: bool

    def __bool__(self) -> bool:
        return bool(self.packages) or self.pytorch

    @property
    def sentence(self) -> str:
        """The question before installing."""
        parts = [p.split(">=")[0] for p in self.packages] + ["PyTorch"] * self.pytorch
        size = "about 200 MB to 3 GB, depending on the graphics card" if self.pytorch else "100 MB"
        return (
            f"BrainLandmarks needs {', '.join(parts)} ({size}). They are downloaded once, and no "
            "scan ever leaves this computer. Install now?"
        )


def missing(*, training: bool = False) -> Missing:
    """What has to be installed before the worker can run, or a training."""
    wanted = (*REQUIREMENTS, *TRAINING) if training else REQUIREMENTS
    return Missing(tuple(r for r in wanted if not _satisfied(r)), not _satisfied(PYTORCH))


def lacking(error: ModuleNotFoundError) -> str | None:
    """What to do about a package that could not be imported; None if it is none of these."""
    imported = (error.name or "").partition(".")[0]
    for requirement in (*REQUIREMENTS, *TRAINING, PYTORCH):
        match = _OPERATOR.match(requirement)
        if match is not None and imported == _IMPORTED.get(match[1], match[1].replace("-", "_")):
            where = (
                "Start training in Brain Landmarks Training"
                if requirement in TRAINING
                else "Detect landmarks in Brain Landmarks"
            )
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
    """Install what is missing; blocks, with Slicer's own progress where it has one.

    Args:
        folder: Wheels lie here, and nothing is downloaded (for hospitals without a network).

    Raises:
        RuntimeError: it failed; the text is pip's last line or says what to install by hand.
    """
    # PyTorch first: what depends on it would else bring a build that may not suit the computer.
    if what.pytorch:
        _install_pytorch(folder, log)
    if what.packages:
        _install_packages(list(what.packages), folder, log)


def _install_packages(packages: list[str], folder: str | None, log: Callable[[str], None]) -> None:
    import slicer
    import slicer.util

    log(f"installing {', '.join(packages)}")
    packaging: Any = getattr(slicer, "packaging", None)
    try:
        if folder is None and packaging is not None and hasattr(packaging, "pip_ensure"):
            packaging.pip_ensure(
                packages, prompt_install=False, prompt_restart=False, skip_in_testing=False
            )
        else:
            where = [] if folder is None else ["--no-index", "--find-links", folder]
            slicer.util.pip_install([*where, *packages])
    except Exception as error:
        raise RuntimeError(f"installing {', '.join(packages)} failed: {error}") from error


def _install_pytorch(folder: str | None, log: Callable[[str], None]) -> None:
    if folder is not None:
        _install_packages([PYTORCH], folder, log)
        return
    log("installing PyTorch")
    try:
        import PyTorchUtils  # type: ignore[import-not-found]
    except ImportError:
        raise RuntimeError(
            "install the extension PyTorch with the Extensions Manager, restart Slicer, and try "
            "again."
        ) from None
    torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(
        askConfirmation=True, torchVersionRequirement=">=2.3"
    )
    if torch is None:
        raise RuntimeError("PyTorch was not installed; try again, or use the PyTorch module.")
