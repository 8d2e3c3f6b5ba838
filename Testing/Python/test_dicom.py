"""DICOM folders and files: every slice at its own place, one volume chosen, the rest named."""

import os
import shutil

import numpy as np
import pydicom
import pytest
from dicom_files import planes, write_enhanced, write_screenshot, write_series

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.resampling import resample
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.images import read_grid, read_image

T1 = {"SeriesNumber": 3, "SeriesDescription": "T1_MPRAGE"}
T2 = {"SeriesNumber": 4, "SeriesDescription": "T2_SPACE"}


@pytest.fixture(scope="module")
def head() -> Volume:
    """A lopsided head of 22 slices, whole numbers."""
    grid = Grid(
        (20, 24, 22), np.array([[4, 0, 0, -40], [0, 4, 0, -50], [0, 0, 4, -30], [0, 0, 0, 1.0]])
    )
    ras = grid.ijk_to_ras(np.moveaxis(np.indices(grid.shape), 0, -1))
    near = np.exp(-(((ras - grid.center_ras) / [25, 32, 28]) ** 2).sum(axis=-1))
    side = np.exp(-(((ras - [-20, 10, 20]) / 12) ** 2).sum(axis=-1))
    return Volume(np.rint(800 * near + 300 * side).astype(np.float32), grid)


def other(head: Volume, factor: float = 0.5) -> Volume:
    return Volume(np.rint(factor * head.data).astype(np.float32), head.grid)


def same(volume: Volume, head: Volume) -> None:
    np.testing.assert_array_equal(volume.data, head.data)
    np.testing.assert_allclose(volume.grid.affine, head.grid.affine, atol=1e-4)


# Folders ------------------------------------------------------------------------------------------


def test_a_t1_is_taken_beside_a_larger_t2(tmp_path, head):
    large = Volume(np.pad(other(head).data, 4), head.grid.window([-4, -4, -4], (28, 32, 30)))
    write_series(tmp_path / "a", large, "1.2.3.2", planes(large), **T2)
    write_series(tmp_path / "b", head, "1.2.3.1", planes(head), **T1)
    volume = read_image(tmp_path)
    same(volume, head)
    (note,) = volume.notes
    assert "series 3 (T1_MPRAGE, 22 slices) was taken" in note
    assert "left out: 4 (T2_SPACE, 30 slices)" in note
    np.testing.assert_allclose(read_grid(tmp_path).affine, volume.grid.affine)


@pytest.mark.parametrize("named", ["4", "t2", "1.2.3.2"])
def test_series_chooses(tmp_path, head, named):
    write_series(tmp_path / "b", head, "1.2.3.1", planes(head), **T1)
    write_series(tmp_path / "a", head, "1.2.3.2", planes(other(head)), **T2)
    volume = read_image(tmp_path, series=named)
    same(volume, other(head))
    assert volume.notes == ()
    with pytest.raises(
        UserError, match=r"no series 'flair'; it holds 4 \(T2_SPACE, 22 slices\), 3"
    ):
        read_image(tmp_path, series="flair")


def test_the_echo_time_tells_where_no_name_does(tmp_path, head):
    write_series(tmp_path, head, "1.2.3.1", planes(other(head)), SeriesNumber=1, EchoTime=95)
    write_series(tmp_path, head, "1.2.3.2", planes(head), SeriesNumber=2, EchoTime=3)
    same(read_image(tmp_path), head)


def test_of_equal_series_none_is_taken(tmp_path, head):
    write_series(tmp_path, head, "1.2.3.1", planes(head), **T1)
    write_series(tmp_path, head, "1.2.3.5", planes(other(head)), **{**T1, "SeriesNumber": 5})
    with pytest.raises(UserError, match="2 volumes that could be meant") as error:
        read_image(tmp_path)
    sentence = str(error.value)
    assert "3 (T1_MPRAGE, 22 slices), 5 (T1_MPRAGE, 22 slices)" in sentence
    assert "--series 3" in sentence
    same(read_image(tmp_path, series="5"), other(head))


def test_two_series_of_one_number_can_still_be_chosen(tmp_path, head):
    write_series(tmp_path, head, "1.2.3.1", planes(head), **T1)
    write_series(tmp_path, head, "1.2.3.5", planes(other(head)), **T1)
    with pytest.raises(UserError, match=r"3-1 .*3-2 "):
        read_image(tmp_path)
    found = [read_image(tmp_path, series=key).data for key in ("3-1", "3-2")]
    assert {float(data.max()) for data in found} == {head.data.max(), other(head).data.max()}


def test_of_a_fine_and_a_coarse_t1_the_fine_one_is_taken(tmp_path, head):
    coarse = Volume(
        head.data[::2, :, ::2].copy(),
        Grid((10, 24, 11), head.grid.affine @ np.diag([2.0, 1, 2, 1])),
    )
    write_series(tmp_path, coarse, "1.2.3.1", planes(coarse), **{**T1, "SeriesNumber": 1})
    write_series(tmp_path, head, "1.2.3.2", planes(head), **T1)
    same(read_image(tmp_path), head)


def test_a_screenshot_beside_the_t1_is_left_out(tmp_path, head):
    write_series(tmp_path, head, "1.2.3.1", planes(head), **T1)
    write_screenshot(tmp_path / "shot", 999)
    volume = read_image(tmp_path)
    same(volume, head)
    assert "left out: 999 (T1 screenshot, 1 slice)" in volume.notes[0]
    with pytest.raises(UserError, match="colours"):
        read_image(tmp_path, series="999")


def test_one_series_over_two_folders_is_one_volume(tmp_path, head):
    files = write_series(tmp_path / "a", head, "1.2.3.1", planes(head), **T1)
    (tmp_path / "b").mkdir()
    for file in files[9:]:
        file.rename(tmp_path / "b" / file.name)
    # A copy of a slice counts once.
    shutil.copy(files[3], tmp_path / "b" / "copy")
    volume = read_image(tmp_path)
    same(volume, head)
    assert volume.notes == ()


def test_a_localizer_in_the_same_series_is_left_out(tmp_path, head):
    write_series(tmp_path, head, "1.2.3.1", planes(head), **T1)
    extra = write_series(tmp_path / "x", head, "1.2.3.7", planes(head)[:3], **T1)
    for number, file in enumerate(extra):
        dataset = pydicom.dcmread(file)
        dataset.SeriesInstanceUID, dataset.SOPInstanceUID = "1.2.3.1", f"1.2.3.1.{900 + number}"
        dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        dataset.save_as(file)
    volume = read_image(tmp_path)
    same(volume, head)
    assert "series 3.1 (T1_MPRAGE, 22 slices) was taken" in volume.notes[0]
    assert "3.2 (T1_MPRAGE, 3 slices)" in volume.notes[0]


def test_a_t2_alone_is_read_with_a_note(tmp_path, head):
    write_series(tmp_path, head, "1.2.3.1", planes(head), **T2)
    volume = read_image(tmp_path)
    assert volume.notes == (
        "series 4 (T2_SPACE, 22 slices) does not look like a T1-weighted image",
    )


def test_a_t1_with_a_missing_slice_is_refused_and_not_replaced_by_the_t2(tmp_path, head, capfd):
    write_series(tmp_path, head, "1.2.3.1", [*planes(head)[:9], *planes(head)[10:]], **T1)
    write_series(tmp_path, head, "1.2.3.2", planes(other(head)), **T2)
    with pytest.raises(UserError, match=r"missing or shifted slices .they lie 4 to 8 mm") as error:
        read_image(tmp_path)
    # The whole one of two is taken.
    write_series(tmp_path, head, "1.2.3.5", planes(head), **{**T1, "SeriesNumber": 5})
    same(read_image(tmp_path), head)
    assert "DOE" not in str(error.value) + "".join(capfd.readouterr())


def test_slices_without_positions_are_named_so(tmp_path, head):
    for file in write_series(tmp_path, head, "1.2.3.1", planes(head), **T1):
        dataset = pydicom.dcmread(file)
        del dataset.ImagePositionPatient
        dataset.save_as(file)
    with pytest.raises(UserError, match="does not say where its slices lie"):
        read_image(tmp_path)


def test_each_slice_has_its_own_scaling(tmp_path, head):
    slices = planes(head)
    for k, plane in enumerate(slices):
        plane.tags = {"RescaleSlope": 1 + k / 8, "RescaleIntercept": -k}
    write_series(tmp_path, head, "1.2.3.1", slices, **T1)
    k = np.arange(22)
    np.testing.assert_allclose(read_image(tmp_path).data, head.data * (1 + k / 8) - k, rtol=1e-6)


def test_damaged_pixels_are_damaged(tmp_path, head):
    files = write_series(tmp_path, head, "1.2.3.1", planes(head), **T1)
    files[5].write_bytes(files[5].read_bytes()[:-500])
    with pytest.raises(UserError, match="damaged or incomplete"):
        read_image(tmp_path)


def test_one_slice_of_a_series_is_reported(tmp_path, head):
    files = write_series(tmp_path, head, "1.2.3.1", planes(head), **T1)
    with pytest.raises(UserError, match="one slice of a DICOM series; give the folder"):
        read_image(files[0])


def test_placeholders_in_a_folder_are_no_images(tmp_path):
    os.symlink("../.git/annex/objects/xx/IM1", tmp_path / "IM1.dcm")
    with pytest.raises(UserError, match=r"placeholder of git-annex.*datalad get"):
        read_image(tmp_path)


# Slices at a slant --------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [15, -20])
def test_gantry_tilt_is_honoured(tmp_path, head, degrees):
    lean = np.tan(np.radians(degrees)) * 4
    slices = planes(head, shift=lambda k: (0, k * lean, 0))
    write_series(tmp_path, head, "1.2.3.1", slices, **T1)
    volume = read_image(tmp_path)
    assert f"slant of {abs(degrees)} degrees" in volume.notes[0]
    np.testing.assert_allclose(volume.grid.spacing, 4, atol=1e-3)
    # Every voxel is found where its slice says that it lies: A = -P.
    weights = np.indices(head.data.shape).reshape(3, -1) @ head.data.ravel() / head.data.sum()
    center = head.grid.ijk_to_ras(weights) - [0, weights[2] * lean, 0]
    found = np.indices(volume.data.shape).reshape(3, -1) @ volume.data.ravel() / volume.data.sum()
    np.testing.assert_allclose(volume.grid.ijk_to_ras(found), center, atol=0.02)
    for k in (4, 11, 18):
        plane = Grid(
            (20, 24, 1), head.grid.window([0, 0, k], (20, 24, 1)).affine + _moved(-k * lean)
        )
        there = resample(volume, plane, order=1)[:, :, 0]
        assert np.corrcoef(there.ravel(), head.data[:, :, k].ravel())[0, 1] > 0.99


def _moved(anterior: float) -> np.ndarray:
    moved = np.zeros((4, 4))
    moved[1, 3] = anterior
    return moved


# Many frames in one file --------------------------------------------------------------------------


def frame_type(component: str) -> dict:
    return {"MRImageFrameTypeSequence": {"ComplexImageComponent": component}}


def test_shuffled_frames_are_sorted_by_their_places(tmp_path, head):
    slices = planes(head)
    order = np.random.default_rng(0).permutation(len(slices))
    write_enhanced(tmp_path / "e.dcm", head, [slices[k] for k in order], **T1)
    same(read_image(tmp_path / "e.dcm"), head)
    same(read_image(tmp_path), head)


def test_magnitude_is_taken_and_phase_left(tmp_path, head):
    phase = planes(other(head), **frame_type("PHASE"))
    magnitude = planes(head, **frame_type("MAGNITUDE"))
    write_enhanced(tmp_path / "e", head, phase + magnitude, **T1)
    volume = read_image(tmp_path / "e")  # no suffix: known by its mark
    same(volume, head)
    assert "series 3.2 (T1_MPRAGE, magnitude, 22 slices) was taken" in volume.notes[0]
    same(read_image(tmp_path / "e", series="3.1"), other(head))


def test_the_first_of_two_echoes_is_taken(tmp_path, head):
    late = planes(other(head), MREchoSequence={"EffectiveEchoTime": 9.1})
    early = planes(head, MREchoSequence={"EffectiveEchoTime": 2.3})
    write_enhanced(tmp_path / "e.dcm", head, [p for pair in zip(late, early) for p in pair], **T1)
    volume = read_image(tmp_path / "e.dcm")
    same(volume, head)
    assert "echo 9.1" in volume.notes[0]


def test_volumes_that_only_an_index_tells_apart_are_listed(tmp_path, head):
    def indexed(volume, number):
        made = planes(volume)
        for k, plane in enumerate(made, start=1):
            plane.tags = {"FrameContentSequence": {"DimensionIndexValues": [number, k]}}
        return made

    write_enhanced(tmp_path / "e.dcm", head, indexed(head, 1) + indexed(other(head), 2), **T1)
    with pytest.raises(UserError, match=r"3\.1 .*dimension 1 1, 22 slices.*3\.2 .*dimension 1 2"):
        read_image(tmp_path / "e.dcm")
    same(read_image(tmp_path / "e.dcm", series="3.2"), other(head))


def test_volumes_that_nothing_tells_apart_are_refused(tmp_path, head):
    write_enhanced(tmp_path / "e.dcm", head, planes(head) + planes(other(head)), **T1)
    with pytest.raises(UserError, match="several slices at one place"):
        read_image(tmp_path / "e.dcm")


def test_a_missing_frame_is_refused(tmp_path, head):
    write_enhanced(tmp_path / "e.dcm", head, planes(head)[:10] + planes(head)[11:], **T1)
    with pytest.raises(UserError, match="missing or shifted slices"):
        read_image(tmp_path / "e.dcm")


def test_each_frame_has_its_own_scaling(tmp_path, head):
    slices = planes(head)
    for k, plane in enumerate(slices):
        plane.tags = {
            "PixelValueTransformationSequence": {"RescaleSlope": 2 + k / 4, "RescaleIntercept": k}
        }
    write_enhanced(tmp_path / "e.dcm", head, slices, **T1)
    k = np.arange(22)
    np.testing.assert_allclose(
        read_image(tmp_path / "e.dcm").data, head.data * (2 + k / 4) + k, rtol=1e-5
    )


def test_frames_without_places_are_refused(tmp_path, head):
    write_enhanced(tmp_path / "e.dcm", head, planes(head), **T1)
    dataset = pydicom.dcmread(tmp_path / "e.dcm")
    del dataset.PerFrameFunctionalGroupsSequence
    dataset.save_as(tmp_path / "e.dcm")
    with pytest.raises(UserError, match="does not say where its slices lie"):
        read_image(tmp_path / "e.dcm")


def test_pydicom_that_is_not_there_is_named(tmp_path, head, monkeypatch):
    import sys

    write_enhanced(tmp_path / "e.dcm", head, planes(head), **T1)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UserError, match="pip install pydicom"):
        read_image(tmp_path / "e.dcm")
