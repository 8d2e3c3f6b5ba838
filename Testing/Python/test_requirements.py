"""What Slicer's Python lacks is found without importing it, and asked for in one question."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from BrainLandmarksLib.ui import requirements
from BrainLandmarksLib.ui.requirements import Missing

ROOT = Path(__file__).parents[2]


def test_nothing_is_missing_here():
    assert not requirements.missing()
    assert not requirements.missing(training=True)


def test_what_is_absent_or_too_old_is_missing(monkeypatch):
    versions = {"nibabel": "4.9.1", "scipy": "1.17.1", "torch": "2.2.0+cpu", "safetensors": "0.10"}

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(requirements.metadata, "version", version)
    training = requirements.missing(training=True)
    missing = requirements.missing()
    assert set(training.packages) - set(missing.packages) == set(requirements.TRAINING)
    names = {p.split(">=")[0] for p in missing.packages}
    assert "nibabel" in names
    assert "matplotlib" in names
    assert not names & {"scipy", "safetensors"}
    assert missing.pytorch
    assert "PyTorch" in missing.sentence
    assert missing.sentence.count("?") == 1


def test_the_lists_here_and_in_the_package_agree():
    """Slicer's own packages are left alone; all else that the library needs is asked for."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"\ndependencies = \[\n(.*?)\n\]", text, re.DOTALL)[1]
    train = re.search(r"\ntrain = \[\n(.*?)\n\]", text, re.DOTALL)[1]
    declared = dict(re.findall(r'"([A-Za-z0-9_.-]+)>=([0-9.]+)"', block + train))
    for name in ("numpy", "SimpleITK"):  # Slicer's own
        declared.pop(name)
    detecting = (*requirements.REQUIREMENTS, requirements.PYTORCH)
    assert dict(r.split(">=") for r in (*detecting, *requirements.TRAINING)) == declared


def test_looking_does_not_import():
    code = (
        "import sys; from BrainLandmarksLib.ui import requirements; requirements.missing();"
        "print([m for m in ('torch', 'nibabel', 'scipy', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_failed_installation_says_what_failed(monkeypatch):
    pytest.importorskip("slicer")
    import slicer.util

    def fail(_arguments):
        raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr(slicer.util, "pip_install", fail, raising=False)
    with pytest.raises(RuntimeError, match=r"nibabel>=5\.0"):
        requirements.install(Missing(("nibabel>=5.0",), False), log=lambda _: None)


def test_an_offline_folder_is_all_that_pip_looks_at(monkeypatch):
    pytest.importorskip("slicer")
    import slicer.util

    seen = []
    monkeypatch.setattr(slicer.util, "pip_install", seen.append, raising=False)
    requirements.install(Missing(("nibabel>=5.0",), True), "/wheels", log=lambda _: None)
    assert seen == [
        ["--no-index", "--find-links", "/wheels", requirements.PYTORCH],
        ["--no-index", "--find-links", "/wheels", "nibabel>=5.0"],
    ]
