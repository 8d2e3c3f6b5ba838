"""What is shipped, the wheel first; what a file may import; pages that follow code and model."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import BrainLandmarksLib
from BrainLandmarksLib import resources
from BrainLandmarksLib.geometry.affine import apply_affine
from BrainLandmarksLib.io.images import read_image
from BrainLandmarksLib.io.landmarks import read_landmarks
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.review import Review
from BrainLandmarksLib.review.batch_correction import apply_guidelines

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = {
    "BrainLandmarksLib": ROOT / "BrainLandmarks" / "BrainLandmarksLib",
    "BrainLandmarksTrainLib": ROOT / "BrainLandmarksTrain" / "BrainLandmarksTrainLib",
}
PYTHON_FILES = [path for folder in LIBRARIES.values() for path in sorted(folder.rglob("*.py"))]


def library_files(name: str) -> list[str]:
    """All files of a library in the tree, as "Library/sub/file"."""
    folder = LIBRARIES[name]
    return sorted(
        path.relative_to(folder.parent).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    )


# pip ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # A build writes build/ and *.egg-info beside the sources, so it gets a copy of them.
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    source = folder / "source"
    for name in tracked:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*command, "--no-index", "--wheel-dir", str(folder), str(source)],
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_every_file_of_both_libraries_and_no_other(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    packed = sorted(name for name in names if ".dist-info/" not in name)
    assert packed == sorted(
        library_files("BrainLandmarksLib") + library_files("BrainLandmarksTrainLib")
    )


def test_wheel_holds_no_file_twice(wheel):
    with zipfile.ZipFile(wheel) as archive:
        contents = Counter(
            (info.CRC, info.file_size) for info in archive.infolist() if info.file_size > 1000
        )
        names = Counter(archive.namelist())
    licence = (ROOT / "BrainLandmarks/BrainLandmarksLib/data/sample/LICENSE.txt").stat().st_size
    # The notice of the sample head lies beside it and among the licences of the wheel.
    assert [key for key, count in contents.items() if count > 1 and key[1] != licence] == []
    assert max(names.values()) == 1


def test_wheel_says_what_it_is(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
        entry_points = archive.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert "\nName: brainlandmarks\n" in metadata
    assert f"\nVersion: {BrainLandmarksLib.__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "brainlandmarks = BrainLandmarksLib.cli:main" in entry_points
    runtime = [line for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    pinned = [line for line in runtime if "==" in line.split(";")[0]]
    assert runtime
    assert pinned == [], "users get lower bounds, constraints.txt alone is exact"


def test_constraints_lock_every_requirement():
    locked = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower()
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    requirements = re.findall(r'"([A-Za-z][\w.-]*)(?:>=)[\d.]+"', project)
    assert {"torch", "numpy", "pytest"} <= set(requirements)
    for name in requirements:
        assert f"\n{name.lower()}==" in locked, name


def test_resources_are_found():
    assert resources.protocol_schema().is_file()
    assert all(resources.protocol_file(name).is_file() for name in resources.protocol_names())
    assert resources.image_path("sample:colin27") == resources.sample_head()
    assert resources.sample_head().stat().st_size > 3_000_000
    assert (resources.sample_head().parent / "LICENSE.txt").is_file()
    for name in resources.model_names():
        folder = resources.model_folder(name)
        assert sorted(path.name for path in folder.iterdir()) == [
            "correction.safetensors",
            "locator.safetensors",
            "model.json",
            "parcellation.safetensors",
            "refinement.safetensors",
            "shape.safetensors",
            "weights.safetensors",
        ]


def test_the_sample_s_landmarks_are_inside_it_and_keep_the_guidelines():
    protocol = load_protocol("brain88")
    landmarks = read_landmarks(resources.landmarks_path("sample:colin27", "brain88"), protocol)
    assert not landmarks.missing.any()
    grid = read_image(resources.sample_head()).grid
    voxels = apply_affine(np.linalg.inv(grid.affine), landmarks.points)
    assert ((voxels > -0.5) & (voxels < np.array(grid.shape) - 0.5)).all()
    review = Review.of(landmarks)
    apply_guidelines(review)
    moved = np.linalg.norm(review.current.points - landmarks.points, axis=1)
    assert moved.max() < 0.2
    with pytest.raises(BrainLandmarksLib.errors.UserError, match="no landmarks of the protocol"):
        resources.landmarks_path("sample:colin27", "afids32")
    assert resources.landmarks_path("head.fcsv", "brain88") == Path("head.fcsv")


def test_image_path_leaves_other_arguments_alone():
    assert resources.image_path("scans/head.nii.gz") == Path("scans/head.nii.gz")
    with pytest.raises(BrainLandmarksLib.errors.UserError, match="no sample head called 'mni'"):
        resources.image_path("sample:mni")


# Python -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_file_is_python_3_10(path):
    ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 10))


HEAVY = {"torch", "nibabel", "matplotlib", "scipy", "SimpleITK", "jsonschema"}
GLUE = {"mrml": {"slicer", "vtk"}, "ui": {"slicer", "vtk", "qt", "ctk"}}
SLICER = {"qt", "ctk", "slicer", "vtk", "PythonQt"}


def test_import_is_light():
    """What every command and the panel import at once; --help is measured in test_cli."""
    modules = ["errors", "protocol.landmarks", "resources", "geometry", "io.landmarks"]
    code = (
        f"import sys, {', '.join(f'BrainLandmarksLib.{module}' for module in modules)}; "
        "print(*(m.split('.')[0] for m in sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert set(result.stdout.split()) & (HEAVY | SLICER) == set()


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_file_imports_nothing_of_slicer_and_only_downwards(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.split(".")[0])
    # Two sub-packages are glue to Slicer; only its modules import them.
    allowed = next((GLUE[part] for part in path.parts if part in GLUE), set())
    assert not imported & (SLICER - allowed)
    if not allowed:
        assert not re.search(r"BrainLandmarksLib[. ](mrml|ui)", path.read_text(encoding="utf-8"))
    if path.is_relative_to(LIBRARIES["BrainLandmarksLib"]) and path.parent.name != "cli":
        assert "BrainLandmarksTrainLib" not in imported


# Pages --------------------------------------------------------------------------------------------


def load_docs_builder():
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    return builder


def test_readme_tables_are_those_of_the_shipped_model():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    builder = load_docs_builder()
    assert builder.filled(readme, {"heldout": builder.held_out}) == readme, "run: make docs"


def test_augmentation_page_shows_the_defaults_of_the_code():
    page = (ROOT / "docs" / "augmentation.md").read_text(encoding="utf-8")
    builder = load_docs_builder()
    assert builder.filled(page, {"defaults": builder.augmentation_defaults}) == page, (
        "run: make docs"
    )


def test_parcellation_page_shows_the_structures_of_the_code():
    page = (ROOT / "docs" / "parcellation.md").read_text(encoding="utf-8")
    builder = load_docs_builder()
    assert "<!-- table:structures -->" in page
    assert builder.filled(page, {"structures": builder.structures_table}) == page, "run: make docs"


def test_model_card_numbers_are_those_of_the_shipped_model():
    page = (ROOT / "docs" / "model_card.md").read_text(encoding="utf-8")
    builder = load_docs_builder()
    tables = builder.model_card()
    assert all(f"<!-- table:{name} -->" in page for name in tables)
    assert builder.filled(page, tables) == page, "run: make docs"


def test_model_card_reads_what_training_writes_today():
    from BrainLandmarksTrainLib.config.recipe import load_recipe

    settings = load_recipe("brain88", ["maps"], "out").settings()
    run = {"steps": 7, "minutes": 1.0}
    training = {"recipe": settings, "heads": ["a", "b"], "scans": 0, "fine": run,
                "before": [{"fine": {"steps": 5, "minutes": 2.4}}],
                "software": {"torch": "2.13.0"}}  # fmt: skip
    rows = dict(load_docs_builder().training_rows(training))
    assert rows["label maps"] == "2: a, b"
    assert rows["deformed copies of each"] == str(settings["heads"]["deformed_copies_per_head"])
    assert f"alpha {settings['fine']['alpha']}" in rows["fine network"]
    assert rows["earlier run 1"] == "fine 5 steps, 2 minutes"
    assert rows["software"] == "torch 2.13.0"


@pytest.mark.parametrize(
    "document",
    ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))],
)
def test_pictures_and_files_that_a_document_links_to_exist(document):
    path = ROOT / document
    links = re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", path.read_text(encoding="utf-8"))
    assert links
    for link, section in links:
        if not link.startswith("https://"):
            target = path.parent / link if link else path
            assert target.is_file(), link
            assert not section or section in sections(target), (link, section)


def sections(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_developer_guide_draws_the_layers_of_the_contract():
    tomllib = pytest.importorskip("tomllib")
    page = (ROOT / "docs" / "developer.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    picture = page.partition("```mermaid\n")[2].partition("```")[0]
    drawn = {
        name: re.findall(r'^ +\w+\["([^"]+)"\]$', body, flags=re.MULTILINE)
        for name, body in re.findall(r"subgraph (\w+)\[.*?\]\n(.*?)\n  end", picture, re.DOTALL)
    }
    contracts = project["tool"]["importlinter"]["contracts"]
    layers = {c["containers"][0]: c["layers"] for c in contracts if c["type"] == "layers"}
    assert drawn == {name: layers[name] for name in LIBRARIES}


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_the_developer_guide_names_every_folder(library):
    page = (ROOT / "docs" / "developer.md").read_text(encoding="utf-8")
    _, table = page.split(f"{library}`, the ", 1)
    named = set(re.findall(r"^\| `([\w/]+)` \|", table.split("\n\n")[1], flags=re.MULTILINE))
    folders = {Path(name).parent for name in library_files(library)}
    paths = {folder.relative_to(library).as_posix() for folder in folders} - {"."}
    paths = {path for path in paths if not path.startswith("data/models/")}
    assert named == paths | ({"data/models"} if library == "BrainLandmarksLib" else set())


def test_readme_commands_are_targets_of_the_makefile():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"`?make ([a-z-]+)`", readme)) | set(
        re.findall(r"^make ([a-z-]+)", readme, flags=re.MULTILINE)
    )
    assert named
    for target in named:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
