"""The files that the commands of the documentation speak of, small, under the names used there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from dicom_files import planes, write_series
from phantom import phantom_head, phantom_scan, small_heads

from BrainLandmarksLib.dataset import Dataset
from BrainLandmarksLib.dataset.split import split_dataset
from BrainLandmarksLib.geometry.grid import Grid
from BrainLandmarksLib.imaging.volume import Volume
from BrainLandmarksLib.io.landmarks import write_landmarks
from BrainLandmarksLib.protocol import load_protocol
from BrainLandmarksLib.protocol.landmarks import LandmarkSet
from BrainLandmarksLib.resources import protocol_file


class Makers:
    """Makes stand-ins by their first path component; `make` looks up what a text speaks of.

    Args:
        truth: Landmarks of the made-up head.
        held_out: Names of the heads that the shipped model has not seen.
        model: Folder of a small model for the same landmarks.
    """

    def __init__(self, truth: LandmarkSet, model: Path, held_out: Sequence[str]) -> None:
        self.truth, self.model, self.held_out = truth, model, list(held_out)
        self.scan = phantom_scan(phantom_head(), spacing_mm=4.0)
        self.by_name: dict[str, Callable[[Path], None]] = {
            "head.nii.gz": self.image,
            "head1.nii.gz": self.image,
            "head2.nii.gz": self.image,
            "survey.nii.gz": self.image,
            "head.mgz": self.mgz,
            "head.nrrd": self.nrrd,
            "head.hdr": self.analyze,
            "dicom_folder": self.dicom,
            "study ": self.study,
            "labels.nii.gz": self.labels,
            "maps": self.maps,
            "head.mrk.json": self.landmarks,
            "a.mrk.json": self.landmarks,
            "b.csv": self.landmarks,
            "expert.fcsv": self.experts,
            "retest_landmarks.csv": self.retest,
            "my_points.json": self.points,
            "my_recipe.json": self.recipe,
            "my_recipe.yaml": self.recipe,
            "demo": self.demo,
            "corrected": self.corrected,
            "found": self.found,
            "scans": self.scans,
            "bids": self.bids,
            "my_set": self.many,
            "oasis": self.few,
            "corrections": self.few,
            "runs": self.runs,
        }

    def make(self, text: str, folder: Path) -> None:
        """Make everything that the text names."""
        for name, maker in self.by_name.items():
            if name in text:
                maker(folder / name.strip())

    # files

    def image(self, path: Path) -> None:
        nib.save(nib.Nifti1Image(self.scan.data, self.scan.grid.affine), path)

    def mgz(self, path: Path) -> None:
        nib.save(nib.MGHImage(self.scan.data, self.scan.grid.affine), path)

    def _itk(self) -> object:
        import SimpleITK as sitk

        image = sitk.GetImageFromArray(np.rint(self.scan.data).astype(np.int16).T)
        affine = np.diag([-1, -1, 1, 1.0]) @ self.scan.grid.affine
        spacing = self.scan.grid.spacing
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(affine[:3, 3].tolist())
        image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
        return image

    def nrrd(self, path: Path) -> None:
        import SimpleITK as sitk

        sitk.WriteImage(self._itk(), str(path))

    def analyze(self, path: Path) -> None:
        nib.save(nib.AnalyzeImage(self.scan.data, self.scan.grid.affine), path)

    def dicom(self, path: Path) -> None:
        write_series(path, self.scan, "1.2.3", planes(self.scan))

    def study(self, path: Path) -> None:
        tags = {"SeriesNumber": 3, "SeriesDescription": "MPRAGE"}
        echoes = [plane for echo in (2, 7) for plane in planes(self.scan, EchoTime=echo)]
        write_series(path, self.scan, "1.2.3", echoes, **tags)
        tags = {"SeriesNumber": 4, "SeriesDescription": "T2"}
        write_series(path, self.scan, "1.2.4", planes(self.scan), **tags)

    def labels(self, path: Path) -> None:
        head = phantom_head()
        nib.save(nib.Nifti1Image(head.data.astype(np.int16), head.grid.affine), path)

    def landmarks(self, path: Path) -> None:
        write_landmarks(path, self.truth)

    def experts(self, path: Path) -> None:
        afids = load_protocol("afids32")
        points = np.full((len(afids), 3), np.nan)
        for landmark in self.truth.protocol:
            if landmark.afid is not None:
                points[landmark.afid - 1] = self.truth.point(landmark.label)
        write_landmarks(path, LandmarkSet.from_points(afids, points))

    def retest(self, path: Path) -> None:
        path.write_text(f"image,landmark,median\nhead,{self.truth.protocol.labels[0]},0.2\n")

    def points(self, path: Path) -> None:
        shutil.copy(protocol_file("afids32"), path)

    def recipe(self, path: Path) -> None:
        path.write_text(json.dumps({
            "name": "mine", "output": "out",
            "heads": {"label_maps": ["maps"], "held_out": self.held_out},
            "locator": {"size": 32, "field_of_view_mm": 256, "steps": 2},
            "fine": {"size": 32, "field_of_view_mm": 208, "steps": 2},
        }))  # fmt: skip

    # folders

    def maps(self, path: Path) -> None:
        path.mkdir(exist_ok=True)
        for name in (*self.held_out, "a_head_to_train_on"):
            self.labels(path / f"{name}.nii.gz")

    def few(self, path: Path, count: int = 4) -> None:
        small_heads(path, self.truth, self.scan, count=count, subjects=count)

    def demo(self, path: Path) -> None:
        self.few(path)
        split_dataset(Dataset.open(path), validation=0.25, test=0.25)
        for number, person in enumerate("AB"):
            self._people(path / "raters" / person, number)

    def corrected(self, path: Path) -> None:
        for number, person in enumerate("AB"):
            self._people(path / person, number)

    def found(self, path: Path) -> None:
        self._people(path, 3)

    def _people(self, path: Path, seed: int) -> None:
        path.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        for name in ("0001", "0002", "0003", "0004"):
            points = self.truth.points + rng.normal(0, 1.5, self.truth.points.shape)
            landmarks = LandmarkSet.from_points(self.truth.protocol, points)
            write_landmarks(path / f"{name}.mrk.json", landmarks)

    def scans(self, path: Path) -> None:
        path.mkdir()
        self.image(path / "head.nii.gz")
        self.landmarks(path / "head.mrk.json")

    def bids(self, path: Path) -> None:
        (path / "sub-01" / "anat").mkdir(parents=True)
        parts = 4  # 1 mm, as a survey needs it: every voxel of the scan is cut in 4 x 4 x 4
        data = self.scan.data
        for axis in range(3):
            data = data.repeat(parts, axis)
        finer = np.diag([1 / parts] * 3 + [1.0])
        finer[:3, 3] = 0.5 / parts - 0.5
        image = nib.Nifti1Image(data, self.scan.grid.affine @ finer)
        nib.save(image, path / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
        points = path / "derivatives" / "points" / "sub-01" / "anat"
        points.mkdir(parents=True)
        self.landmarks(points / "sub-01_desc-expert_points.csv")

    def many(self, path: Path) -> None:
        """Enough subjects for the paper's split, each of a few voxels."""
        affine = np.diag([30.0, 30.0, 30.0, 1.0])
        affine[:3, 3] = -105.0
        grid = Grid((8, 8, 8), affine)
        tiny = Volume(np.arange(512, dtype=np.float32).reshape(8, 8, 8), grid)
        small_heads(path, self.truth, tiny, count=84, subjects=84)

    def runs(self, path: Path) -> None:
        for name in ("mse", "mixed"):
            shutil.copytree(self.model, path / name)
