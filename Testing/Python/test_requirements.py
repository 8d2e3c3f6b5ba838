"""What Slicer's Python lacks is found without importing it, and asked for in one question."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from BrainLandmarksLib.mrml import requirements
from BrainLandmarksLib.mrml.requirements import Missing

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
    federated = requirements.missing(federated=True)
    assert set(federated.packages) - set(training.packages) == set(requirements.FEDERATED)
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
    for name in ("numpy", "SimpleITK", "pydicom"):  # Slicer's own
        declared.pop(name)
    federated = re.search(r"\nfederated = \[\n(.*?)\n\]", text, re.DOTALL)[1]
    assert all(f'"{requirement};' in federated for requirement in requirements.FEDERATED)
    detecting = (*requirements.REQUIREMENTS, requirements.PYTORCH)
    assert dict(r.split(">=") for r in (*detecting, *requirements.TRAINING)) == declared


def test_looking_does_not_import():
    code = (
        "import sys; from BrainLandmarksLib.mrml import requirements; requirements.missing();"
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


# PyTorch through the extension of that name -------------------------------------------------------

PYTORCH_UTILS = '''
import subprocess
import slicer.util

class PyTorchUtilsLogic:
    """As the extension's: it may ask, runs light-the-torch, and imports torch."""

    def installTorch(self, askConfirmation=False, forceComputationBackend=None,
                     torchVersionRequirement=None, torchvisionVersionRequirement=None):
        args = ["install", "torch" + (torchVersionRequirement or ""), "torchvision"]
        if askConfirmation and not slicer.util.confirmOkCancelDisplay("PyTorch will be downloaded"):
            return None
        for line in {lines!r}:
            print(line)
        if {code}:
            command = ["PythonSlicer", "-m", "light_the_torch", *args]
            raise subprocess.CalledProcessError({code}, command)
        import torch
        print("installed", torch.__version__)
        return torch
'''

SLICER = """
questions = []
def confirmOkCancelDisplay(text, *more, **options):
    questions.append(text)
    return True
"""

INSTALL = """
import sys
import slicer.util
from BrainLandmarksLib.mrml import requirements
requirements._satisfied = lambda requirement: {satisfied}
before = set(sys.modules)
try:
    requirements.install(requirements.Missing((), True), log=lambda _: None)
    print("SAID: nothing")
except RuntimeError as error:
    print("SAID:", error)
    print("DETAIL:", error.detail)
print("IMPORTED:", "torch" in sys.modules)
print("ASKED:", len(slicer.util.questions))
try:
    import importlib.util
    print("LATER:", importlib.util.find_spec("torch") is not None)
except ModuleNotFoundError:
    print("LATER: kept out for ever")
"""


def install_pytorch(folder, lines=(), code=0, satisfied=True):
    """What `requirements.install` prints where PyTorchUtils prints these lines and fails so."""
    (folder / "PyTorchUtils.py").write_text(PYTORCH_UTILS.format(lines=list(lines), code=code))
    (folder / "slicer").mkdir()
    (folder / "slicer" / "__init__.py").write_text("")
    (folder / "slicer" / "util.py").write_text(SLICER)
    path = [str(folder), str(ROOT / "BrainLandmarks")]
    code = f"import sys; sys.path[:0] = {path!r}\n" + INSTALL.format(satisfied=satisfied)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_pytorch_is_installed_without_a_second_question_and_not_imported(tmp_path):
    said = install_pytorch(tmp_path)
    assert "SAID: nothing" in said
    assert "IMPORTED: False" in said
    assert "ASKED: 0" in said
    assert "LATER: True" in said


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left", "disk"),
        ("WARNING: Retrying after connection broken by 'NewConnectionError(...)'", "network"),
        ("ERROR: No matching distribution found for torch>=2.3", "version of Slicer"),
        ("OSError: [WinError 5] Access is denied: 'c10.dll'", "restart Slicer"),
        ("ERROR: [Errno 13] Permission denied: '/opt/Slicer'", "cannot be written"),
        ("ERROR: something new", "diagnostics"),
    ],
)
def test_a_failed_pytorch_says_why_in_one_plain_sentence(tmp_path, line, word):
    said = install_pytorch(tmp_path, ["Collecting torch", line], code=1)
    (sentence,) = [text for text in said.splitlines() if text.startswith("SAID:")]
    assert sentence.startswith("SAID: PyTorch could not be installed: ")
    assert word in sentence
    for technical in ("Command", "exit status", "Errno", "/opt", "[", "light_the_torch"):
        assert technical not in sentence
    assert line in said.split("DETAIL:")[1]


def test_a_network_that_is_down_is_not_a_version_that_is_missing(tmp_path):
    lines = ["WARNING: Retrying (Retry(total=0)) ... NameResolutionError",
             "ERROR: No matching distribution found for torch>=2.3"]  # fmt: skip
    assert "cannot be reached" in install_pytorch(tmp_path, lines, code=1)


def test_a_pytorch_that_is_not_there_afterwards_was_not_installed(tmp_path):
    assert "SAID: PyTorch was not installed" in install_pytorch(tmp_path, satisfied=False)


@pytest.mark.parametrize("folder", [None, "/wheels"])
def test_intel_macs_are_refused_before_anything_is_installed(monkeypatch, folder):
    from BrainLandmarksLib.errors import UserError

    needed = Missing(("nibabel>=5.0",), True)
    monkeypatch.setattr(requirements.sys, "platform", "darwin")
    monkeypatch.setattr(requirements.platform, "machine", lambda: "x86_64")
    for name in ("_install_packages", "_install_pytorch"):
        monkeypatch.setattr(requirements, name, lambda *_: pytest.fail("it installs something"))
    with pytest.raises(UserError, match="does not exist for the Intel build") as caught:
        needed.need_possible()
    assert str(caught.value).count(". ") == 0
    with pytest.raises(RuntimeError, match="does not exist for the Intel build"):
        requirements.install(needed, folder, log=lambda _: None)
    Missing(("nibabel>=5.0",), False).need_possible()  # PyTorch of one's own making
    monkeypatch.setattr(requirements.platform, "machine", lambda: "arm64")
    needed.need_possible()


def test_the_readme_names_what_is_not_supported():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"PyTorch 2\.3.*does\s+not\s+exist.*Intel", text, re.DOTALL)


def test_a_folder_of_wheels_that_lacks_one(monkeypatch):
    pytest.importorskip("slicer")
    import slicer.util

    def fail(_arguments):
        print("ERROR: Could not find a version that satisfies the requirement nibabel>=5.0")
        raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr(slicer.util, "pip_install", fail, raising=False)
    with pytest.raises(requirements.InstallError, match="the folder lacks a wheel"):
        requirements.install(Missing(("nibabel>=5.0",), False), "/wheels", log=lambda _: None)
