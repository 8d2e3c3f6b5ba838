"""Reading images as they come, and resampling them without moving or aliasing anything."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from BrainLandmarksLib.geometry.grid import Grid, cube
from BrainLandmarksLib.imaging.foreground import foreground
from BrainLandmarksLib.imaging.intensity import normalise, subtract_background
from BrainLandmarksLib.imaging.resampling import downsampled, resample
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.images import read_image, stem
from BrainLandmarksLib.io.pairing import pair_up

ORIENTATIONS = ["RAS", "LPS", "LPI", "LIA", "PSR", "ASL", "IRP"]


def oriented(volume: Volume, codes: str) -> nib.Nifti1Image:
    """The same voxels stored along other axes."""
    image = nib.Nifti1Image(volume.data, volume.grid.affine)
    target = nib.orientations.axcodes2ornt(codes)
    return image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(image.affine), target)
    )


def center_of_mass(data: np.ndarray, grid: Grid) -> np.ndarray:
    ijk = np.indices(data.shape).reshape(3, -1) @ data.ravel().astype(float) / data.sum()
    return grid.ijk_to_ras(ijk)


def rotation(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, c, -s], [0, s, c]]
    )


# Reading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_nifti_of_any_orientation_comes_out_the_same(tmp_path, blob_head, codes):
    nib.save(oriented(blob_head, codes), tmp_path / "head.nii.gz")
    volume = read_image(tmp_path / "head.nii.gz")
    np.testing.assert_array_equal(volume.data, blob_head.data)
    np.testing.assert_allclose(volume.grid.affine, blob_head.grid.affine)
    assert volume.data.dtype == np.float32
    assert volume.data.flags.c_contiguous


def test_nifti_scaling_is_applied(tmp_path, blob_head):
    stored = np.rint(blob_head.data).astype(np.int16)
    image = nib.Nifti1Image(stored, blob_head.grid.affine)
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "head.nii")
    np.testing.assert_allclose(read_image(tmp_path / "head.nii").data, 0.5 * stored - 3, atol=1e-4)


def test_mgz(tmp_path, blob_head):
    image = oriented(blob_head, "LIA")
    nib.save(nib.MGHImage(np.asarray(image.dataobj), image.affine), tmp_path / "head.mgz")
    volume = read_image(tmp_path / "head.mgz")
    np.testing.assert_array_equal(volume.data, blob_head.data)
    np.testing.assert_allclose(volume.grid.affine, blob_head.grid.affine, atol=1e-4)


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha"])
def test_itk_formats_agree_with_nifti(tmp_path, blob_head, suffix):
    nib.save(oriented(blob_head, "PSR"), tmp_path / "head.nii")
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "head.nii")), str(tmp_path / f"head{suffix}"))
    volume = read_image(tmp_path / f"head{suffix}")
    np.testing.assert_array_equal(volume.data, blob_head.data)
    np.testing.assert_allclose(volume.grid.affine, blob_head.grid.affine, atol=1e-4)


def test_a_fourth_axis_of_one_volume_is_no_series(tmp_path, blob_head):
    nib.save(nib.Nifti1Image(blob_head.data[..., None], blob_head.grid.affine), tmp_path / "h.nii")
    np.testing.assert_array_equal(read_image(tmp_path / "h.nii").data, blob_head.data)


def test_sample_head_is_readable(sample_head):
    volume = read_image(sample_head)
    assert volume.grid.shape == (181, 217, 181)
    np.testing.assert_allclose(volume.grid.spacing, 1)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/head.nii.gz", "head"),
        ("head.NII", "head"),
        ("sub-1_T1w.mgz", "sub-1_T1w"),
        ("head.1.nrrd", "head.1"),
        ("scans/dicom.v2", "dicom.v2"),
        ("scans/t1/", "t1"),
    ],
)
def test_stem(path, expected):
    assert stem(path) == expected


def test_a_link_goes_by_its_own_name(tmp_path, monkeypatch):
    """Every image of a DataLad dataset is a link to a file that is called by its checksum."""
    stored = tmp_path / ".git" / "annex" / "objects" / "MD5E-s12--0cc1.nii.gz"
    stored.parent.mkdir(parents=True)
    stored.touch()
    (tmp_path / "sub-01_T1w.nii.gz").symlink_to(stored)
    assert stem(tmp_path / "sub-01_T1w.nii.gz") == "sub-01_T1w"
    (tmp_path / "sub-01_T1w.fcsv").touch()
    found = pair_up([tmp_path])
    assert [pair.image.name for pair in found.pairs] == ["sub-01_T1w.nii.gz"]
    assert found.lone_images == ()
    monkeypatch.chdir(stored.parent)
    assert (stem("."), stem("..")) == ("objects", "annex")


# Resampling ---------------------------------------------------------------------------------------


def test_resampling_on_its_own_grid_changes_nothing(blob_head):
    np.testing.assert_allclose(resample(blob_head, blob_head.grid), blob_head.data, atol=1e-3)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_storage_order_does_not_matter(blob_head, codes):
    image = oriented(blob_head, codes)
    stored = Volume(np.asarray(image.dataobj, dtype=np.float32), Grid(image.shape, image.affine))
    grid = cube([3, 5, -2], 208, 48, rotation(20))
    np.testing.assert_allclose(resample(stored, grid), resample(blob_head, grid), atol=1e-4)


@pytest.mark.parametrize("size", [24, 48, 160])
def test_cropped_or_padded_air_does_not_matter(blob_head, size):
    grid = cube([3, 5, -2], 216, size, rotation(25))
    padded_grid = blob_head.grid.window([-7, -3, -11], (110, 108, 120))
    padded = np.zeros(padded_grid.shape, dtype=np.float32)
    padded[7:97, 3:103, 11:106] = blob_head.data
    expected = resample(blob_head, grid)
    np.testing.assert_allclose(resample(Volume(padded, padded_grid), grid), expected, atol=1e-3)


@pytest.mark.parametrize("angle", [0, 30])
@pytest.mark.parametrize(("field_of_view", "size"), [(208, 64), (256, 32)])
def test_an_object_stays_where_it_is(field_of_view, size, angle):
    source = Grid((128, 128, 100), np.diag([1.2, 1.2, 2.0, 1]))
    ras = source.ijk_to_ras(np.moveaxis(np.indices(source.shape), 0, -1))
    center = np.array([70.3, 81.7, 99.1])
    ball = np.exp(-0.5 * (((ras - center) / 12) ** 2).sum(axis=-1)).astype(np.float32)
    grid = cube(center + [4, -3, 2], field_of_view, size, rotation(angle))
    out = resample(Volume(ball, source), grid)
    np.testing.assert_allclose(center_of_mass(out, grid), center, atol=0.05)
    # The total is kept as well: voxels weigh more where they are larger.
    mass = out.sum() * grid.spacing.prod() / (ball.sum() * source.spacing.prod())
    assert mass == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("angle", [0, 35])
def test_a_voxel_sees_about_its_own_width(angle):
    # The response of one output voxel to a point source in every place is its point spread.
    source = Grid((64, 64, 64), np.eye(4))
    target = cube([31.5, 31.5, 31.5], 32, 8, rotation(angle))
    voxel = (3, 4, 4)
    position = target.ijk_to_ras(voxel)
    offsets = np.arange(-8, 9)
    responses = []
    for offset in offsets:
        data = np.zeros(source.shape, dtype=np.float32)
        place = np.rint(position).astype(int) + [offset, 0, 0]
        data[tuple(place)] = 1
        responses.append(resample(Volume(data, source), target)[voxel])
    x = offsets + np.rint(position[0]) - position[0]
    weights = np.array(responses) / np.sum(responses)
    width = 2.355 * np.sqrt((weights * x**2).sum() - (weights * x).sum() ** 2)
    assert width == pytest.approx(target.spacing[0], rel=0.15)


def test_stripes_finer_than_the_new_voxels_turn_grey():
    source = Grid((96, 64, 64), np.eye(4))
    stripes = np.zeros(source.shape, dtype=np.float32)
    stripes[::2] = 2
    out = resample(Volume(stripes, source), cube(source.center_ras, 40, 10))
    np.testing.assert_allclose(out, 1, atol=0.02)


def test_beyond_the_image_there_is_air(blob_head):
    far = cube([1000, 0, 0], 200, 16)
    assert not resample(blob_head, far).any()
    ones = Volume(np.ones((20, 20, 20), np.float32), Grid((20, 20, 20), np.diag([4, 4, 4, 1])))
    out = resample(ones, cube(ones.grid.center_ras, 160, 40))
    assert out[20, 20, 20] == pytest.approx(1, abs=1e-3)
    assert not out[:8].any()


def test_nearest_keeps_labels():
    rng = np.random.default_rng(0)
    labels = Volume(
        rng.choice([0, 2, 41, 506], (30, 30, 30)).astype(np.float32), Grid((30, 30, 30), np.eye(4))
    )
    out = resample(labels, cube([14.5, 14.5, 14.5], 40, 50, rotation(17)), order=0)
    assert set(np.unique(out)) == {0, 2, 41, 506}


def test_foreground_is_the_head(blob_head):
    rng = np.random.default_rng(0)
    noisy = np.abs(blob_head.data + rng.normal(0, 2, blob_head.data.shape)).astype(np.float32)
    mask = foreground(Volume(noisy, blob_head.grid))
    assert (mask[blob_head.data > 50]).mean() > 0.99
    assert (mask[blob_head.data < 10]).mean() < 0.01


# Intensity ----------------------------------------------------------------------------------------


def test_normalised_tissue_reaches_one_and_air_stays_zero(blob_head):
    out = normalise(resample(blob_head, cube([0, 0, 0], 208, 32)))
    assert 0 <= out.min() < 1e-6
    assert np.percentile(out[out > 0.1], 99) == pytest.approx(1, abs=0.02)
    assert normalise(100 * np.ones((8, 8, 8), np.float32)).max() == 1
    assert normalise(np.r_[np.ones(990), 1000 * np.ones(10)].reshape(10, 10, 10)).max() == 1.5


@pytest.mark.parametrize("factor", [1e-4, 1, 3e4])
def test_units_do_not_matter(blob_head, factor):
    data = resample(blob_head, cube([0, 0, 0], 208, 32))
    np.testing.assert_allclose(normalise(factor * data), normalise(data), atol=1e-5)


def test_surrounding_air_hardly_matters(blob_head):
    tight = normalise(resample(blob_head, cube([0, 0, 0], 180, 45)))
    wide = normalise(resample(blob_head, cube([0, 0, 0], 260, 65)))
    np.testing.assert_allclose(wide[10:55, 10:55, 10:55], tight, atol=0.02)


def test_torch_and_numpy_agree_also_in_batches(blob_head):
    data = resample(blob_head, cube([0, 0, 0], 208, 24))
    batch = torch.from_numpy(np.stack([data, 7 * data])[:, None])
    out = normalise(batch)
    assert out.shape == batch.shape
    assert out.dtype == torch.float32
    np.testing.assert_array_equal(out[0, 0].numpy(), normalise(data))
    np.testing.assert_allclose(out[1].numpy(), out[0].numpy(), atol=1e-6)
    np.testing.assert_array_equal(normalise(np.zeros((4, 4, 4), np.float32)), 0)
    assert not normalise(torch.zeros(2, 4, 4, 4)).any()


def test_subtract_background_leaves_ordinary_images_alone(blob_head):
    np.testing.assert_allclose(subtract_background(blob_head.data), blob_head.data, atol=0.5)


@pytest.mark.parametrize("offset", [1000, -1024])
def test_subtract_background_takes_off_an_offset(blob_head, offset):
    np.testing.assert_allclose(
        subtract_background(blob_head.data + offset), blob_head.data, atol=0.5
    )


@pytest.mark.parametrize("deviation", [2.0, 8.0, 12.0])
def test_subtract_background_finds_air_in_the_middle_of_its_noise(blob_head, deviation):
    noise = np.random.default_rng(0).normal(0, deviation, blob_head.data.shape)
    noisy = (blob_head.data + noise).astype(np.float32)
    np.testing.assert_array_equal(subtract_background(noisy), np.clip(noisy, 0, None))


def test_subtract_background_takes_scores_of_a_whole_head_for_an_offset(blob_head):
    scores = (blob_head.data - blob_head.data.mean()) / blob_head.data.std()
    np.testing.assert_allclose(
        subtract_background(scores), blob_head.data / blob_head.data.std(), atol=0.01
    )


def test_subtract_background_understands_skull_stripped_scores(blob_head):
    brain = blob_head.data > 60
    scores = np.where(brain, (blob_head.data - 100) / 12, 0).astype(np.float32)
    out = subtract_background(scores)
    assert not out[~brain].any()
    inside = scores[brain]
    assert np.corrcoef(out[brain], inside)[0, 1] > 0.99
    assert out.min() == 0


def test_a_very_large_image_is_downsampled_where_it_is():
    """Blocks of 2 x 1 x 3 voxels; a linear image stays the same function of the place."""
    shape = (21, 20, 31)
    affine = np.array(
        [[0.0, -1.2, 0.0, 9.0], [0.4, 0.0, 0.0, -7.0], [0.0, 0.0, 0.3, 5.0], [0.0, 0.0, 0.0, 1.0]]
    )
    grid = Grid(shape, affine)
    ras = grid.ijk_to_ras(np.argwhere(np.ones(shape))).reshape(*shape, 3)
    volume = Volume((ras @ [1.0, 2.0, 3.0]).astype(np.float32), grid)
    assert downsampled(volume) is volume
    thin = downsampled(volume, largest=1000)
    assert thin.grid.shape == (10, 20, 10)
    places = thin.grid.ijk_to_ras(np.argwhere(np.ones(thin.grid.shape)))
    np.testing.assert_allclose(thin.data.ravel(), places @ [1.0, 2.0, 3.0], atol=1e-4)
    coarse = Volume(volume.data, Grid(shape, affine @ np.diag([3.0, 1, 4.0, 1])))
    assert downsampled(coarse, largest=1000) is coarse
