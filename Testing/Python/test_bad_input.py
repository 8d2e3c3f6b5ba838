"""Whatever is wrong, the user reads one sentence, the exit code is 2 and no file is left behind."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from BrainLandmarksLib import resources
from BrainLandmarksLib.cli import main
from BrainLandmarksLib.errors import of_system

AFFINE = np.diag([2.0, 2, 2, 1])
SHAPE = (50, 60, 55)


def head(shape=SHAPE, dtype=np.float32) -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 100, shape).astype(dtype)


def save(path: Path, data: np.ndarray, affine=AFFINE) -> Path:
    image = nib.Nifti1Image(data, affine)
    nib.save(image, path)
    return path


def four_dimensional(folder):
    return save(folder / "bold.nii.gz", head((*SHAPE, 3)))


def rgb(folder):
    colors = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    return save(folder / "colors.nii.gz", colors)


def vector_nrrd(folder):
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(head((*SHAPE, 3)), isVector=True)
    sitk.WriteImage(image, str(folder / "vectors.nrrd"))
    return folder / "vectors.nrrd"


def complex_numbers(folder):
    return save(folder / "kspace.nii.gz", head().astype(np.complex64))


def all_zero(folder):
    return save(folder / "zero.nii.gz", np.zeros(SHAPE, np.float32))


def constant(folder):
    return save(folder / "seven.nii.gz", np.full(SHAPE, 7, np.float32))


def nan(folder):
    data = head()
    data[3, 4, 5] = np.nan
    return save(folder / "nan.nii.gz", data)


def infinite(folder):
    data = head()
    data[3, 4, 5] = -np.inf
    return save(folder / "inf.nii.gz", data)


def two_dimensional(folder):
    return save(folder / "slice.nii.gz", head((200, 200)))


def one_slice(folder):
    return save(folder / "slice.nii.gz", head((200, 200, 1)))


def five_voxels(folder):
    return save(folder / "five.nii.gz", head((5, 5, 5)), np.diag([40, 40, 40, 1]))


def thin_slab(folder):
    return save(folder / "slab.nii.gz", head((50, 60, 20)))


def sheared(folder):
    affine = AFFINE.copy()
    affine[0, 1] = 0.6
    image = nib.Nifti1Image(head(), AFFINE)
    image.header.set_sform(affine, code=1)
    image.header.set_qform(None, code=0)
    return _rewritten(folder / "sheared.nii.gz", image)


def singular(folder):
    affine = AFFINE.copy()
    affine[:3, 2] = affine[:3, 1]
    image = nib.Nifti1Image(head(), AFFINE)
    image.header.set_sform(affine, code=1)
    image.header.set_qform(None, code=0)
    return _rewritten(folder / "singular.nii.gz", image)


def unoriented(folder):
    image = nib.Nifti1Image(head(), None)
    image.header.set_zooms((2, 2, 2))
    return _rewritten(folder / "unoriented.nii.gz", image)


def _rewritten(path, image):
    # Saving through the class would replace the header's affine by the image's.
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), path)
    return path


def truncated_gzip(folder):
    path = save(folder / "whole.nii.gz", head())
    (folder / "cut.nii.gz").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return folder / "cut.nii.gz"


def truncated_nifti(folder):
    path = save(folder / "whole.nii", head())
    (folder / "cut.nii").write_bytes(path.read_bytes()[:9000])
    return folder / "cut.nii"


def truncated_nrrd(folder):
    import SimpleITK as sitk

    sitk.WriteImage(sitk.GetImageFromArray(head()), str(folder / "whole.nrrd"))
    (folder / "cut.nrrd").write_bytes((folder / "whole.nrrd").read_bytes()[:9000])
    return folder / "cut.nrrd"


def missing_file(folder):
    return folder / "nowhere.nii.gz"


def text_file(folder):
    (folder / "notes.nii").write_text("This is a text file, not an image.\n" * 40)
    return folder / "notes.nii"


def text_mgz(folder):
    (folder / "notes.mgz").write_text("This is a text file, not an image.\n" * 40)
    return folder / "notes.mgz"


def empty_file(folder):
    (folder / "empty.nii.gz").touch()
    return folder / "empty.nii.gz"


def other_suffix(folder):
    (folder / "head.jpg").write_bytes(b"\xff\xd8\xff\xe0 a screenshot")
    return folder / "head.jpg"


def folder_without_dicom(folder):
    (folder / "notes").mkdir()
    (folder / "notes" / "readme.txt").write_text("nothing here")
    return folder / "notes"


def empty_folder(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


BAD_IMAGES = {
    four_dimensional: "series of 3 volumes",
    rgb: "colours or vectors",
    vector_nrrd: "colours or vectors",
    complex_numbers: "complex",
    all_zero: "every voxel has the value 0",
    constant: "every voxel has the value 7",
    nan: "not numbers (1 ",
    infinite: "not numbers (1 ",
    two_dimensional: "two-dimensional",
    one_slice: "two-dimensional",
    five_voxels: "5 x 5 x 5 voxels",
    thin_slab: "100 x 120 x 40 mm",
    sheared: "sheared",
    singular: "singular",
    unoriented: "left and right",
    truncated_gzip: "damaged",
    truncated_nifti: "damaged",
    truncated_nrrd: "damaged",
    missing_file: "does not exist",
    text_file: "damaged",
    text_mgz: "damaged",
    empty_file: "damaged",
    other_suffix: "not an image this program reads",
    folder_without_dicom: "no DICOM images",
    empty_folder: "no DICOM images",
}


def refused(capfd, arguments: list, output: Path, says: str) -> None:
    """Run the command in this process and check the one sentence, the code and the folder."""
    before = sorted(output.parent.rglob("*"))
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("brainlandmarks: error: ")
    assert lines[0].endswith(".")
    assert says in lines[0]
    assert sorted(output.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("make", "says"), BAD_IMAGES.items(), ids=lambda x: getattr(x, "__name__", "")
)
def test_bad_image(tmp_path, tiny_model, capfd, make, says):
    (tmp_path / "in").mkdir()
    image = make(tmp_path / "in")
    output = tmp_path / "work" / "out"
    output.parent.mkdir()
    refused(capfd, ["detect", image, "-o", output, "--model", tiny_model], output, says)


def test_unreadable_image(tmp_path, tiny_model, head_file, capfd, monkeypatch):
    # Tests may run as root, whom no permission stops.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.R_OK)
    output = tmp_path / "out"
    refused(
        capfd, ["detect", head_file, "-o", output, "--model", tiny_model], output, "permissions"
    )


def not_a_model(folder, tiny_model):
    (folder / "not_a_model").mkdir()
    return folder / "not_a_model"


def no_such_model(folder, tiny_model):
    return "brain99"


def cut_weights(folder, tiny_model):
    shutil.copytree(tiny_model, folder / "model")
    weights = folder / "model" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    return folder / "model"


def other_protocol(folder, tiny_model):
    shutil.copytree(tiny_model, folder / "model")
    protocol = folder / "model" / "protocol.json"
    protocol.write_text(
        protocol.read_text(encoding="utf-8").replace("Somewhere.", "Somewhere else.")
    )
    return folder / "model"


def no_locator(folder, tiny_model):
    shutil.copytree(tiny_model, folder / "model")
    (folder / "model" / "locator.safetensors").unlink()
    return folder / "model"


BAD_MODELS = {
    not_a_model: "not a model",
    no_such_model: "no model 'brain99'",
    cut_weights: "truncated",
    other_protocol: "protocol",
    no_locator: "locator.safetensors is missing",
}


@pytest.mark.parametrize(
    ("make", "says"), BAD_MODELS.items(), ids=lambda x: getattr(x, "__name__", "")
)
def test_bad_model(tmp_path, tiny_model, head_file, capfd, make, says):
    (tmp_path / "in").mkdir()
    model = make(tmp_path / "in", tiny_model)
    output = tmp_path / "work" / "out"
    output.parent.mkdir()
    refused(capfd, ["detect", head_file, "-o", output, "--model", model], output, says)


def test_output_folder_is_a_file(tmp_path, tiny_model, head_file, capfd):
    (tmp_path / "file").write_text("mine")
    for output in (tmp_path / "file", tmp_path / "file" / "deeper"):
        arguments = ["detect", head_file, "-o", output, "--model", tiny_model]
        refused(capfd, arguments, tmp_path / "x", "cannot write")


def test_output_folder_without_permission(tmp_path, tiny_model, head_file, capfd, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    arguments = ["detect", head_file, "-o", tmp_path / "out", "--model", tiny_model]
    refused(capfd, arguments, tmp_path / "out", "cannot write")


@pytest.mark.parametrize(
    "arguments",
    [
        ["detect", "NAME.nii.gz", "-o", "out"], ["detect", "head.nii.gz", "-o", "NAME/out"],
        ["detect", "--bids", "NAME", "-o", "out"], ["dataset", "check", "NAME"],
        ["correct", "NAME"], ["agreement", "NAME", "NAME", "-o", "out"],
    ],
)  # fmt: skip
def test_what_the_system_refuses_is_one_sentence(arguments, tmp_path, monkeypatch, capfd):
    """As in a folder that may not be entered, the first look at the path fails."""
    monkeypatch.chdir(tmp_path)
    assert main([argument.replace("NAME", "x" * 300) for argument in arguments]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("brainlandmarks: error: ")
    assert "File name too long" in line
    assert not list(tmp_path.iterdir())


def test_a_name_that_the_output_cannot_show_is_no_error(tmp_path, monkeypatch):
    """On Windows an output that goes into a file has the encoding of the country."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", out)
    path = tmp_path / "頭.mrk.json"
    shutil.copy(resources.sample_landmarks("brain88"), path)
    assert main(["correct", str(path)]) == 0
    assert rb"\u982d_corrected.mrk.json" in out.buffer.getvalue()
    assert (tmp_path / "頭_corrected.mrk.json").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_a_name_that_cannot_be_written_down_is_one_sentence(tmp_path, capfd):
    first = resources.sample_landmarks("brain88")
    path = tmp_path / os.fsdecode(b"M\xfcller.mrk.json")
    shutil.copy(first, path)
    assert main(["follow", str(first), str(path), "-o", str(tmp_path / "out")]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith("a file name is not in UTF-8, so it cannot be written into a file; "
                         "rename it.")  # fmt: skip
    assert not list((tmp_path / "out").iterdir())


def test_a_bug_is_not_called_a_refusal():
    assert of_system(UnicodeEncodeError("cp1252", "頭", 0, 1, "undefined")) is None
    assert of_system(FileNotFoundError(2, "No such file or directory", "x")) is None
    assert of_system(PermissionError("of nothing in particular")) is None


def test_disk_full_leaves_nothing(tmp_path, tiny_model, head_file, capfd, monkeypatch):
    from BrainLandmarksLib.figures import slices as pictures

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pictures, "draw_landmarks", full)
    arguments = ["detect", head_file, "-o", tmp_path, "--model", tiny_model]
    refused(capfd, arguments, tmp_path / "x", "No space left on device")


@pytest.mark.parametrize("suffix", [".mrk.json", ".csv", ".png"])
def test_output_that_exists(tmp_path, tiny_model, head_file, capfd, suffix):
    existing = tmp_path / f"head_landmarks{suffix}"
    existing.write_text("mine")
    arguments = ["detect", head_file, "-o", tmp_path, "--model", tiny_model]
    refused(capfd, arguments, tmp_path / "x", "--overwrite")
    assert existing.read_text(encoding="utf-8") == "mine"


def test_two_images_with_the_same_results(tmp_path, tiny_model, head_file, capfd):
    other = shutil.copy(head_file, tmp_path / "head.nii.gz")
    output = tmp_path / "out"
    arguments = ["detect", head_file, other, "-o", output, "--model", tiny_model]
    refused(capfd, arguments, output, "same files")


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--format", "nii"], "--format does not know 'nii'"),
        (["--format", ","], "--format is empty"),
        (["--model", "brain99"], "no model"),
    ],
)
def test_bad_options(tmp_path, head_file, capfd, extra, says):
    output = tmp_path / "out"
    refused(capfd, ["detect", head_file, "-o", output, *extra], output, says)


def test_device_that_is_not_there(tmp_path, tiny_model, head_file, capfd, monkeypatch):
    import torch

    def no_driver(*args, **kwargs):
        raise RuntimeError("Found no NVIDIA driver on your system.\nMore lines")

    monkeypatch.setattr(torch, "ones", no_driver)
    arguments = ["detect", head_file, "-o", tmp_path / "out", "--model", tiny_model]
    refused(capfd, [*arguments, "--device", "cuda"], tmp_path / "out", "no NVIDIA driver")


@pytest.mark.parametrize(
    "arguments",
    [
        ["detect"],
        ["detect", "x.nii"],
        ["nonsense"],
        ["detect", "x", "-o", "y", "--device", "tpu"],
        [],
    ],
)
def test_bad_usage_is_one_line_too(capfd, arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    err = capfd.readouterr().err
    assert len(err.splitlines()) == 1
    assert err.startswith("brainlandmarks: error: ")
    assert "--help" in err


@pytest.mark.parametrize("make", [truncated_gzip, singular, vector_nrrd, folder_without_dicom])
def test_in_a_process_of_its_own(tmp_path, make):
    image = make(tmp_path)
    (tmp_path / "results").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "BrainLandmarksLib", "detect", image, "-o", tmp_path / "results"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert BAD_IMAGES[make] in done.stderr
    assert not list((tmp_path / "results").iterdir())


def test_annotate_refuses_alike(tmp_path, capfd):
    output = tmp_path / "out"
    (tmp_path / "in").mkdir()
    image = truncated_gzip(tmp_path / "in")
    for name, says in (("o.csv", "damaged"), ("o.txt", "suffix"), ("no/o.csv", "does not exist")):
        refused(capfd, ["annotate", image, "-o", tmp_path / name], output, says)
    (tmp_path / "o.csv").write_text("mine")
    refused(capfd, ["annotate", image, "-o", tmp_path / "o.csv"], output, "--overwrite")
