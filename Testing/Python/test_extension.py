"""Ready for Slicer's Extensions Manager: the index's rules, and the extension as it is installed.

Where EXTENSIONS_INDEX names a checkout of github.com/Slicer/ExtensionsIndex, the index's own script
checks the entry, too.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
ENTRY = ROOT / "BrainLandmarks.json"
CMAKE = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
RAW = "https://raw.githubusercontent.com/BrainLandmarks/SlicerBrainLandmarks/main/"
FOLDERS = re.findall(r"^add_subdirectory\((\w+)\)", CMAKE, flags=re.MULTILINE)
MODULES = [
    (folder, path.stem) for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.py"))
]
MEGABYTE = 1024**2

SCHEMA_KEYS = {
    "$schema", "category", "scm_url", "scm_revision", "scm_type", "build_dependencies",
    "build_subdirectory", "enabled", "tier",
}  # fmt: skip
"""Of schema 1.0.1; no other key is allowed, the first three are required."""

LICENCES = {
    "LICENSE",
    "LICENCE",
    "License.txt",
    "license.txt",
    "LICENSE.txt",
    "COPYING",
    "COPYING.txt",
}
TAKEN = {
    "Brain", "Landmarks", "Lib", "Logic", "Testing", "Tests", "cli", "models", "protocol",
    "protocols", "slicer", "ui", "utils", "worker",
}  # fmt: skip
"""Names of packages that other extensions use, or that mean something else in Slicer's Python."""


def value(name):
    """The text of set(EXTENSION_NAME "...") in the extension's CMake file."""
    (found,) = re.findall(rf'^set\s*\({name}\s*"([^"]+)"\)', CMAKE, flags=re.MULTILINE)
    return found


def listed(folder, kind):
    """What the lists of a folder hold; a folder of two modules has two lists of a kind.

    CMake itself is asked below, where there is one (test_cmake_installs_the_same_files).
    """
    text = (ROOT / folder / "CMakeLists.txt").read_text(encoding="utf-8")
    found = re.findall(
        rf"^(?:set\(|list\(APPEND )\w*{kind}\s(.*?)\)", text, re.DOTALL | re.MULTILINE
    )
    names = [name for words in found for name in words.split()]
    for words in re.findall(
        rf"^file\(GLOB_RECURSE {kind} RELATIVE \S+ CONFIGURE_DEPENDS\s(.*?)\)",
        text, re.DOTALL | re.MULTILINE,
    ):  # fmt: skip
        for pattern in map(Path, words.split()):
            paths = (ROOT / folder / pattern.parent).rglob(pattern.name)
            files = (path for path in paths if path.is_file())
            names += sorted(path.relative_to(ROOT / folder).as_posix() for path in files)
    for unwanted in re.findall(rf'list\(FILTER {kind} EXCLUDE REGEX "(.*)"\)', text):
        regex = unwanted.replace("\\\\", "\\")
        names = [name for name in names if not re.search(regex, name)]
    return names


def tracked():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]


def size_of_png(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n", path
    return tuple(int.from_bytes(data[start : start + 4], "big") for start in (16, 20))


# ---- the catalogue's rules -----------------------------------------------------------------------


def test_the_entry_fits_the_schema_and_the_format():
    text = ENTRY.read_bytes().decode("utf-8")
    entry = json.loads(text)
    assert {"$schema", "category", "scm_url"} <= set(entry) <= SCHEMA_KEYS
    assert isinstance(entry["tier"], int)
    assert 1 <= entry["tier"] <= 5
    assert all(isinstance(name, str) for name in entry["build_dependencies"])
    assert entry["category"] == value("EXTENSION_CATEGORY") == "Neuroimaging"
    # Line feeds, and the layout of the index's formatter: two spaces, a line for each item.
    assert text == json.dumps(entry, indent=2) + "\n"


def test_names_are_as_the_index_wants_them():
    entry = json.loads(ENTRY.read_text(encoding="utf-8"))
    (project,) = re.findall(r"^project\((\w+)\)", CMAKE, flags=re.MULTILINE)
    assert project == ENTRY.stem
    assert value("EXTENSION_DEPENDS").split() == entry["build_dependencies"]
    assert not project.lower().startswith("slicer")
    assert re.fullmatch(r"https://github\.com/[\w-]+/Slicer[\w-]+\.git", entry["scm_url"])
    repository = entry["scm_url"].removesuffix(".git")
    assert value("EXTENSION_HOMEPAGE").startswith(repository)
    raw = repository.replace("github.com", "raw.githubusercontent.com")
    assert f"{raw}/main/" == RAW


def test_icon_and_screenshots_are_pictures_in_the_repository():
    pictures = {path.relative_to(ROOT).as_posix() for path in tracked()}
    icon = value("EXTENSION_ICONURL")
    shots = value("EXTENSION_SCREENSHOTURLS").split()
    assert len(shots) >= 2
    for url in (icon, *shots):
        assert url.startswith(RAW)
        assert url.removeprefix(RAW) in pictures
        with Image.open(ROOT / url.removeprefix(RAW)) as picture:
            assert min(picture.size) >= 128
    assert size_of_png(ROOT / icon.removeprefix(RAW)) == (128, 128)


@pytest.mark.parametrize(("folder", "module"), MODULES)
def test_every_module_is_built_with_icon_panel_and_tests(folder, module):
    resources = listed(folder, "RESOURCES")
    for name in (f"Resources/Icons/{module}.png", f"Resources/UI/{module}.ui"):
        assert name in resources
    assert size_of_png(ROOT / folder / f"Resources/Icons/{module}.png") == (128, 128)
    text = (ROOT / folder / "CMakeLists.txt").read_text(encoding="utf-8")
    macro = r"slicerMacroBuildScriptedModule\(\s*NAME (\w+)\b([^)]*)\)"
    assert "WITH_GENERIC_TESTS" in dict(re.findall(macro, text))[module]
    assert f"slicer_add_python_unittest(SCRIPT {module}.py)" in text


def test_the_licence_has_a_name_that_the_index_accepts():
    found = [path.name for path in ROOT.iterdir() if "licen" in path.name.lower()]
    assert found
    assert set(found) <= LICENCES


def test_a_clone_is_small_enough():
    """The catalogue takes clones up to 100 MB, history included.

    What git counts of its objects is what a clone gets; those not yet packed count for more.
    """
    command = ["git", "rev-list", "--objects", "--disk-usage", "HEAD"]
    history = int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    files = sum(path.stat().st_size for path in tracked())
    assert history > MEGABYTE
    assert files + history < 95e6


def test_the_readme_says_what_a_first_tier_extension_must():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    assert re.search(r"!\[[^\]]+\]\(Resources/Screenshots/\w+\.webp\)", readme)
    for heading in ("Limit", "Privacy", "Citation", "Licen[cs]e"):
        assert re.search(rf"^## .*{heading}", readme, flags=re.MULTILINE), heading
    assert "medical device" in readme
    assert "Apache" in readme
    for folder, module in MODULES:
        source = (ROOT / folder / f"{module}.py").read_text(encoding="utf-8")
        (title,) = re.findall(r'parent\.title = _\("([^"]+)"\)', source)
        assert title in readme + guide, title


def index_script():
    folder = os.environ.get("EXTENSIONS_INDEX")
    script = Path(folder or ".") / "scripts" / "check_description_files.py"
    return script if folder and script.is_file() else None


@pytest.mark.skipif(index_script() is None, reason="EXTENSIONS_INDEX names no checkout")
@pytest.mark.skipif(sys.version_info < (3, 12), reason="the script needs Python 3.12")
def test_the_index_accepts_the_entry(tmp_path, monkeypatch, capsys):
    """Its own script, with this repository in the place of the one on GitHub."""
    requests = pytest.importorskip("requests")
    index = index_script().parents[1]
    for path in [*index.glob("*.json"), ENTRY]:
        shutil.copy(path, tmp_path)
    entry = json.loads(ENTRY.read_text(encoding="utf-8"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{ROOT}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", entry["scm_url"])

    class Answer:
        status_code = 200

        def __init__(self, url):
            self.headers = {"Content-Type": "image/png"}
            if url.endswith("/topics"):
                self.json = lambda: {"names": ["3d-slicer-extension"]}
            elif "/Schemas/" in url:
                schema = index / "schemas" / url.rsplit("/", 1)[1]
                self.json = lambda: json.loads(schema.read_text(encoding="utf-8"))
            else:
                assert size_of_png(ROOT / url.removeprefix(RAW))

        def raise_for_status(self):
            pass

    monkeypatch.setattr(requests, "get", lambda url, **_options: Answer(url))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["check", ENTRY.name])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(index_script()), run_name="__main__")
    assert ended.value.code == 0, capsys.readouterr().out


# ---- the extension as it is installed ------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of an installation: exactly the files that the CMake lists name, all in one."""
    place = tmp_path_factory.mktemp("Slicer") / "lib" / "Slicer-5.12" / "qt-scripted-modules"
    taken: dict[str, str] = {}
    for folder in FOLDERS:
        for name in listed(folder, "SCRIPTS") + listed(folder, "RESOURCES"):
            assert name not in taken, f"{name} is in {folder} and in {taken.get(name)}"
            taken[name] = folder
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / folder / name, place / name)
    return place


def run_installed(installed, *command, cwd):
    """Run Python where only the installation is on the path; no module may come from elsewhere."""
    return subprocess.run(
[sys.executable, *command],
        cwd=cwd, capture_output=True, text=True, encoding="utf-8", timeout=600,
        env={**os.environ, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


IMPORT_ALL = """
import importlib, pathlib, sys
folder = pathlib.Path(sys.argv[1])
for path in sorted(folder.glob("*Lib/**/*.py")):
    parts = path.relative_to(folder).with_suffix("").parts
    if "mrml" in parts or "ui" in parts or parts[-1] == "__main__":
        continue
    importlib.import_module(".".join(p for p in parts if p != "__init__"))
own = [m for n, m in sys.modules.items() if n.startswith("BrainLandmarks")]
assert len(own) > 100
assert all(pathlib.Path(m.__file__).is_relative_to(folder) for m in own)
"""


def test_the_installed_libraries_can_be_imported(installed, tmp_path):
    done = run_installed(installed, "-c", IMPORT_ALL, str(installed), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_installed_commands_find_their_files(installed, tmp_path):
    command = ["-m", "BrainLandmarksTrainLib"]
    assert "CC_G" in run_installed(installed, *command, "protocol", cwd=tmp_path).stdout
    assert "brain88" in run_installed(installed, *command, "models", cwd=tmp_path).stdout
    done = run_installed(installed, *command, "train", "brain88", cwd=tmp_path)
    assert "label_maps" in done.stderr  # the recipe was found, its data was not given


SESSIONS = {
    "test_panel.py": "test_a_review_from_the_scan_to_the_file",
    "test_headless.py": "test_slicer_runs_a_command_and_leaves_with_its_code or of_scenes",
    "test_train_panel.py": "test_the_command_is_the_one_that_runs or tests_itself",
}


@pytest.mark.slow
@pytest.mark.parametrize("file", SESSIONS)
def test_the_installed_modules_work(installed, tmp_path, file):
    """Tests of the modules in the stand-in, which finds them where an installation has them."""
    pytest.importorskip("slicer")
    shutil.copytree(ROOT / "Testing" / "Slicer", tmp_path / "Testing" / "Slicer")
    for folder in FOLDERS:
        (tmp_path / folder).symlink_to(installed, target_is_directory=True)
    arguments = ["-q", "-p", "no:cacheprovider", f"Testing/Slicer/{file}", "-k", SESSIONS[file]]
    done = run_installed(installed, "-m", "pytest", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_names_are_our_own():
    """All extensions share Slicer's Python path, and their settings and node attributes."""
    scripts = [name for folder in FOLDERS for name in listed(folder, "SCRIPTS")]
    top = {name.split("/")[0].removesuffix(".py") for name in scripts}
    assert all(name.startswith("BrainLandmarks") for name in top)
    assert not {name.lower() for name in top} & {name.lower() for name in TAKEN}
    assert not top & set(sys.stdlib_module_names)
    # The installed files that are no Python lie in folders or under names of the module's own.
    modules = {module for _folder, module in MODULES}
    for name in (name for folder in FOLDERS for name in listed(folder, "RESOURCES")):
        own = name.split("/")[0] in top or Path(name).stem in modules
        assert own or name.startswith("Resources/Thumbnails/brain88/"), name


PYTHON_312 = shutil.which("python3.12")


def test_python_3_12_compiles_everything(installed):
    """What Slicer 5.10 to 5.13 carry; warnings about wrong escapes are errors."""
    works = PYTHON_312 and subprocess.run([PYTHON_312, "-V"], capture_output=True).returncode == 0
    if not works and sys.version_info[:2] != (3, 12):
        pytest.skip("there is no Python 3.12")
    done = subprocess.run(
        [PYTHON_312 if works else sys.executable, "-W", "error", "-m", "compileall", "-q",
         "-f", str(installed)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("folder", "module"), MODULES)
def test_a_module_can_be_run_as_a_script_in_any_locale(folder, module):
    """Slicer opens a script in the system's encoding."""
    (ROOT / folder / f"{module}.py").read_text(encoding="ascii")


CMAKE_STUB = r"""
set(Slicer_USE_FILE ${CMAKE_CURRENT_LIST_DIR}/use.cmake)
set(Slicer_EXTENSION_GENERATE_CONFIG ${CMAKE_CURRENT_LIST_DIR}/nothing.cmake)
set(Slicer_EXTENSION_CPACK ${CMAKE_CURRENT_LIST_DIR}/nothing.cmake)
"""
CMAKE_MACROS = r"""
function(slicer_add_python_unittest)
endfunction()
function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown: ${MY_UNPARSED_ARGUMENTS}")
  endif()
  foreach(file ${MY_SCRIPTS} ${MY_RESOURCES})
    get_filename_component(folder ./${file} DIRECTORY)
    install(FILES ${file} DESTINATION ${folder})
  endforeach()
endfunction()
"""


@pytest.mark.skipif(shutil.which("cmake") is None, reason="there is no CMake")
def test_cmake_installs_the_same_files(installed, tmp_path):
    """The CMake files themselves, with Slicer's macro in short, and the installation they make."""
    stub = tmp_path / "slicer"
    stub.mkdir()
    (stub / "SlicerConfig.cmake").write_text(CMAKE_STUB)
    (stub / "use.cmake").write_text(CMAKE_MACROS)
    (stub / "nothing.cmake").write_text("")
    prefix = tmp_path / "prefix"
    configure = ["cmake", "-S", str(ROOT), "-B", str(tmp_path / "build"), f"-DSlicer_DIR={stub}",
                 f"-DCMAKE_INSTALL_PREFIX={prefix}", "-DBUILD_TESTING=ON"]  # fmt: skip
    done = subprocess.run(configure, capture_output=True, text=True)
    if "No CMAKE_C" in done.stderr:
        pytest.skip("there is no compiler, which CMake asks for")
    assert done.returncode == 0, done.stderr
    subprocess.run(["cmake", "--install", str(tmp_path / "build")], check=True, capture_output=True)
    assert files_in(prefix) == files_in(installed)


def files_in(folder):
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
