"""Headers that are silent, contradict themselves or use other units; sentences that are true."""

import os
import struct
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from BrainLandmarksLib.cli import main
from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.images import read_grid, read_image
from BrainLandmarksLib.io.images.itk_formats import ras_affine

SHAPE = (20, 24, 22)
AFFINE = np.array([[-4, 0, 0, 35], [0, 4, 0, -50], [0, 0, 4, -30], [0, 0, 0, 1.0]])


def head() -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 100, SHAPE).astype(np.float32)


def nifti(path, affine=AFFINE, data=None, **header):
    """A NIfTI file, and then the bytes of its header that nibabel would not write."""
    image = nib.Nifti1Image(head() if data is None else data, affine)
    image.header.set_qform(affine, 1)
    image.header.set_sform(affine, 1)
    nib.save(image, path)
    raw = bytearray(path.read_bytes())
    places = nib.Nifti1Header.template_dtype
    for field, value in header.items():
        name, _, index = field.partition("__")
        kind = places.fields[name][0].base.newbyteorder("<")
        at = places.fields[name][1] + int(index or 0) * kind.itemsize
        raw[at : at + kind.itemsize * np.size(value)] = np.asarray(value, kind).tobytes()
    path.write_bytes(raw)
    return path


def slicer_affine(path) -> np.ndarray:
    """What ITK reads, and 3D Slicer with it."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return ras_affine(reader)


def in_ras_order(data: np.ndarray, affine: np.ndarray) -> Volume:
    image = nib.as_closest_canonical(nib.Nifti1Image(data, affine))
    return Volume(np.asarray(image.dataobj, np.float32), Grid(image.shape, image.affine))


def same(volume: Volume, data: np.ndarray, affine: np.ndarray) -> None:
    expected = in_ras_order(data, affine)
    np.testing.assert_allclose(volume.data, expected.data, rtol=1e-6)
    np.testing.assert_allclose(volume.grid.affine, expected.grid.affine, atol=1e-3)


# No orientation -----------------------------------------------------------------------------------


def nifti_without_codes(folder):
    return nifti(folder / "h.nii", qform_code=0, sform_code=0)


def analyze(folder):
    image = nib.AnalyzeImage(head(), AFFINE)
    nib.save(image, folder / "h.hdr")
    return folder / "h.hdr"


def spm_without_mat(folder):
    nib.save(nib.Spm99AnalyzeImage(head(), AFFINE), folder / "h.img")
    (folder / "h.mat").unlink()
    return folder / "h.img"


def mgh_without_flag(folder):
    path = folder / "h.mgh"
    nib.save(nib.MGHImage(head(), AFFINE), path)
    raw = bytearray(path.read_bytes())
    raw[28:30] = struct.pack(">h", 0)
    path.write_bytes(raw)
    return path


def mgz_without_flag(folder):
    import gzip

    path = mgh_without_flag(folder)
    (folder / "h.mgz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return folder / "h.mgz"


def nrrd_without_space(folder):
    path = folder / "h.nrrd"
    header = (
        "NRRD0004\n# no space\ntype: float\ndimension: 3\nsizes: 20 24 22\nspacings: 4 4 4\n"
        "endian: little\nencoding: raw\n\n"
    )
    path.write_bytes(header.encode() + head().tobytes(order="F"))
    return path


def nrrd_of_the_scanner(folder):
    path = nrrd_without_space(folder)
    raw = path.read_bytes().replace(
        b"spacings: 4 4 4\n",
        b"space: scanner-xyz\nspace directions: (4,0,0) (0,4,0) (0,0,4)\nspace origin: (0,0,0)\n",
    )
    path.write_bytes(raw)
    return path


def mha_without_matrix(folder):
    path = folder / "h.mha"
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        "Offset = 0 0 0\nElementSpacing = 4 4 4\nDimSize = 20 24 22\nElementType = MET_FLOAT\n"
        "ElementDataFile = LOCAL\n"
    )
    path.write_bytes(header.encode() + head().tobytes(order="F"))
    return path


UNORIENTED = [
    nifti_without_codes, analyze, spm_without_mat, mgh_without_flag, mgz_without_flag,
    nrrd_without_space, nrrd_of_the_scanner, mha_without_matrix,
]  # fmt: skip


@pytest.mark.parametrize("make", UNORIENTED)
def test_what_states_no_orientation_is_refused_unless_one_is_assumed(tmp_path, make):
    path = make(tmp_path)
    for read in (read_image, read_grid):
        with pytest.raises(UserError, match=r"left and right cannot be told.*--assume-orientation"):
            read(path)
    for codes, axes in (("RAS", [0, 1, 2]), ("lsp", [0, 2, 1])):
        volume = read_image(path, assume_orientation=codes)
        (note,) = volume.notes
        assert f"{codes.upper()} is assumed" in note
        np.testing.assert_allclose(volume.grid.spacing, 4)
        expected = np.transpose(head(), axes)
        if codes == "lsp":
            expected = expected[::-1, ::-1]
        np.testing.assert_allclose(volume.data, expected)


def test_what_states_its_orientation_needs_no_assumption(tmp_path):
    volume = read_image(nifti(tmp_path / "h.nii"), assume_orientation="RAS")
    same(volume, head(), AFFINE)
    assert volume.notes == ("the file states its orientation (LAS), so RAS was not assumed",)
    assert read_image(tmp_path / "h.nii", assume_orientation="las").notes == ()


@pytest.mark.parametrize("codes", ["RA", "RAX", "RLS", "", "RASS"])
def test_what_names_no_orientation_is_refused(tmp_path, codes):
    with pytest.raises(UserError, match="is no orientation"):
        read_image(nifti(tmp_path / "h.nii"), assume_orientation=codes)


def test_spm_with_mat_is_oriented_by_it(tmp_path):
    nib.save(nib.Spm99AnalyzeImage(head(), AFFINE), tmp_path / "h.img")
    volume = read_image(tmp_path / "h.img")
    same(volume, head(), AFFINE)


def test_meta_image_with_a_stated_orientation(tmp_path):
    path = mha_without_matrix(tmp_path)
    raw = path.read_bytes().replace(b"Offset", b"TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset")
    path.write_bytes(raw)
    same(read_image(path), head(), np.diag([-4.0, -4, 4, 1]))


# Contradictions -----------------------------------------------------------------------------------


def turned(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[1, 0, 0, 3], [0, c, -s, 20], [0, s, c, -9], [0, 0, 0, 1.0]])
    return turn @ AFFINE


@pytest.mark.parametrize("codes", [(1, 2), (1, 1), (2, 4), (4, 3)])
def test_of_two_places_the_one_of_slicer_is_read_and_the_other_reported(tmp_path, codes):
    path = nifti(tmp_path / "h.nii", srow_x=turned(8)[0], srow_y=turned(8)[1],
                 srow_z=turned(8)[2], qform_code=codes[0], sform_code=codes[1])  # fmt: skip
    volume = read_image(path)
    same(volume, head(), slicer_affine(path))
    (note,) = volume.notes
    assert "sform and qform place the same voxels up to" in note
    assert "3D Slicer" in note
    np.testing.assert_allclose(read_grid(path).affine, volume.grid.affine)


def test_of_two_sizes_the_one_of_slicer_is_read_and_the_other_reported(tmp_path):
    small = AFFINE @ np.diag([0.6, 0.6, 0.6, 1])
    path = nifti(tmp_path / "h.nii", srow_x=small[0], srow_y=small[1], srow_z=small[2],
                 qform_code=0)  # fmt: skip
    volume = read_image(path)
    same(volume, head(), slicer_affine(path))
    (note,) = volume.notes
    assert "sform has voxels of 2.4 x 2.4 x 2.4 mm, its pixdim of 4 x 4 x 4 mm" in note


def test_a_voxel_size_of_zero(tmp_path):
    path = nifti(tmp_path / "h.nii", pixdim__3=0.0, sform_code=0)
    with pytest.raises(UserError, match="does not give the size of a voxel"):
        read_image(path)
    stated = nifti(tmp_path / "s.nii", pixdim__3=0.0)
    volume = read_image(stated)
    same(volume, head(), AFFINE)
    assert "a voxel size of 0" in volume.notes[0]


def test_an_offset_of_zero_does_not_shift_the_voxels(tmp_path):
    volume = read_image(nifti(tmp_path / "h.nii", vox_offset=0))
    same(volume, head(), AFFINE)
    assert "begin inside the header" in volume.notes[0]


def test_what_nibabel_repairs_is_reported_once_and_not_on_stderr(tmp_path, capfd):
    volume = read_image(nifti(tmp_path / "h.nii", qform_code=77))
    assert volume.notes == (
        "a field of the header was repaired: qform_code 77 not valid; setting to 0",
    )
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize(("unit", "factor"), [(1, 0.001), (3, 1000.0), (2, 1.0), (0, 1.0)])
def test_units_are_honoured(tmp_path, unit, factor):
    scaled = np.diag([factor, factor, factor, 1]) @ AFFINE
    path = nifti(tmp_path / "h.nii", scaled, xyzt_units=unit)
    volume = read_image(path)
    same(volume, head(), AFFINE)
    assert volume.notes == ()
    np.testing.assert_allclose(slicer_affine(path), AFFINE, atol=1e-3)


def test_plain_headers_give_no_notes(tmp_path, sample_head):
    assert read_image(nifti(tmp_path / "h.nii")).notes == ()
    assert read_image(nifti(tmp_path / "q.nii", sform_code=0)).notes == ()
    assert read_image(nifti(tmp_path / "s.nii", qform_code=0)).notes == ()
    assert read_image(sample_head).notes == ()


# Sentences ----------------------------------------------------------------------------------------


def test_no_volume_of_a_fourth_dimension_is_one(tmp_path):
    path = nifti(tmp_path / "h.nii", data=head()[..., None])
    raw = bytearray(path.read_bytes())
    raw[40:50] = struct.pack("<5h", 4, *SHAPE, 0)
    path.write_bytes(raw)
    volume = read_image(path)
    same(volume, head(), AFFINE)
    assert "says that it holds no volume" in volume.notes[0]


@pytest.mark.parametrize(
    ("factor", "says"),
    [(1e60, "more than this program computes with"), (1e-60, "too small")],
)
def test_values_out_of_range_are_neither_nan_nor_empty(tmp_path, factor, says):
    for path in (tmp_path / "h.nii", tmp_path / "h.nrrd"):
        data = head().astype(np.float64) * factor
        if path.suffix == ".nii":
            nib.save(nib.Nifti1Image(data, AFFINE), path)
        else:
            image = sitk.GetImageFromArray(data)
            image.SetSpacing((4, 4, 4))
            sitk.WriteImage(image, str(path))
        with pytest.raises(UserError, match=says) as error:
            read_image(path)
        assert f"{data.max():g}" in str(error.value)


def test_placeholders_are_named(tmp_path):
    os.symlink("../.git/annex/objects/aa/bb/SHA256E-s1.nii.gz", tmp_path / "link.nii.gz")
    (tmp_path / "annex.nii.gz").write_text("/annex/objects/SHA256E-s1--a.nii.gz\n")
    (tmp_path / "lfs.nii.gz").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    )
    os.symlink("gone.nii.gz", tmp_path / "dangling.nii.gz")
    for name, says in (
        ("link", r"placeholder of git-annex.*datalad get"),
        ("annex", r"placeholder of git-annex.*datalad get"),
        ("lfs", r"placeholder of Git LFS.*git lfs pull"),
        ("dangling", "link to a file that is not there"),
    ):
        with pytest.raises(UserError, match=says):
            read_image(tmp_path / f"{name}.nii.gz")


# The commands -------------------------------------------------------------------------------------


def test_detect_assumes_an_orientation_and_prints_the_note(tmp_path, tiny_model, capfd):
    image = nifti_without_codes(tmp_path)
    command = ["detect", image, "-o", tmp_path / "out", "--model", tiny_model, "--no-picture"]
    assert main([str(a) for a in command]) == 2
    assert "--assume-orientation" in capfd.readouterr().err
    assert main([str(a) for a in [*command, "--assume-orientation", "LPS"]]) == 0
    err = capfd.readouterr().err
    assert len(err.splitlines()) == 1
    assert err.startswith("brainlandmarks: note: ")
    assert "LPS is assumed" in err


def test_detect_chooses_a_series(tmp_path, tiny_model, blob_head, capfd):
    from dicom_files import planes, write_series

    for number in (3, 5):
        tags = {"SeriesNumber": number, "SeriesDescription": "T1"}
        slices = planes(blob_head)
        write_series(tmp_path / "study", blob_head, f"1.2.3.{number}", slices, **tags)
    command = ["detect", tmp_path / "study", "-o", tmp_path / "out", "--model", tiny_model]
    command += ["--no-picture"]
    assert main([str(a) for a in command]) == 2
    err = capfd.readouterr().err
    assert len(err.splitlines()) == 1
    assert "--series 3" in err
    assert main([str(a) for a in [*command, "--series", "5"]]) == 0
    assert (tmp_path / "out" / "study_landmarks.mrk.json").exists()
    image = nifti(tmp_path / "h.nii")
    assert main(["detect", str(image), "-o", str(tmp_path / "o"), "--series", "5"]) == 2
    assert "no DICOM file" in capfd.readouterr().err


def test_a_bids_dataset_has_no_series(tmp_path, capfd):
    assert main(["detect", "--bids", str(tmp_path), "-o", str(tmp_path), "--series", "3"]) == 2
    assert "--series does not go with --bids" in capfd.readouterr().err


def test_a_scan_of_a_cohort_is_oriented_as_assumed(tmp_path, tiny_model):
    from BrainLandmarksLib.cohort.bids import find_scans
    from BrainLandmarksLib.cohort.derivatives import Derivatives
    from BrainLandmarksLib.cohort.work import Job, do
    from BrainLandmarksLib.network.model_files import model_identity, model_protocol

    raw = tmp_path / "raw"
    (raw / "sub-01" / "anat").mkdir(parents=True)
    (raw / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    nifti(raw / "sub-01" / "anat" / "sub-01_T1w.nii", qform_code=0, sform_code=0)
    protocol = model_protocol(str(tiny_model))
    results = Derivatives.prepare(tmp_path / "out", raw, protocol)
    (scan,) = find_scans(raw).scans
    job = Job(
        str(raw), str(results.folder), scan, str(tiny_model), *model_identity(str(tiny_model))
    )
    assert "--assume-orientation" in do(job).sentence
    assert do(replace(job, assume_orientation="LPS")).state == "found"
    (record,) = results.records()
    assert "LPS is assumed" in record.about["Notes"][0]


@pytest.mark.parametrize(
    "command",
    [
        ["explain"], ["explain compare", "m", "m"], ["explain sanity"], ["robustness retest"],
        ["detect"], ["annotate"], ["dataset", "create"],
    ],
)  # fmt: skip
def test_commands_that_read_images_offer_the_options(command):
    from BrainLandmarksLib.cli import build_parser

    options = ["x", "-o", "y", "--assume-orientation", "RAS"]
    arguments = build_parser().parse_args([*command, *options])
    assert arguments.assume_orientation == "RAS"
    if command[0] not in ("annotate", "dataset"):
        arguments = build_parser().parse_args([*command, *options, "--series", "3"])
        assert arguments.series == "3"


def test_a_note_reaches_the_detection_and_the_worker(tmp_path, tiny_model):
    from BrainLandmarksLib.worker.jobs import Jobs

    image = nifti(tmp_path / "h.nii", vox_offset=0)
    result = Jobs().do(
        {
            "type": "detect", "image": str(image), "output": str(tmp_path / "o.mrk.json"),
            "model": str(tiny_model), "device": "cpu", "quality": "fast",
        },
        lambda stage, fraction, eta: None,
    )  # fmt: skip
    assert any("begin inside the header" in note for note in result["notes"])


@pytest.mark.filterwarnings("error")
def test_names_in_any_script_are_drawn_without_a_warning(tmp_path, tiny_model, head_file, capfd):
    from shutil import copy

    image = copy(head_file, tmp_path / "頭部_두부_$x$.nii.gz")
    command = ["detect", image, "-o", tmp_path / "out", "--model", tiny_model]
    assert main([str(a) for a in command]) == 0
    assert capfd.readouterr().err == ""
    assert (tmp_path / "out" / "頭部_두부_$x$_landmarks.png").exists()
