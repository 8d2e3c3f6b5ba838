"""A volume as a file for many requests, written anew only when the volume has changed."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.mrml.export.volume import export_volume, world_affine


class ScanFile:
    """The file of the volume that was last asked for.

    The worker knows an unchanged file again and remembers what it saw in it.

    >>> scan = ScanFile()
    >>> path = scan.of(volume)
    >>> scan.of(volume) == path          # the same file, unless voxels or place have changed
    True
    >>> scan.close()
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._path: Path | None = None
        self._content: tuple[Any, ...] = ()
        self._count = 0

    def of(self, volume: Any) -> Path:
        """The file of a vtkMRMLScalarVolumeNode, as it is in the world now.

        Raises:
            UserError: as `export.export_volume`, or there is no place for temporary files.
        """
        content = _content(volume)
        if self._path is not None and content == self._content and self._path.exists():
            return self._path
        self._forget()
        if self._folder is None or not self._folder.exists():
            self._folder = temporary_folder()
        # Another name each time: a request that is under way may still read the last one.
        self._count += 1
        path = self._folder / f"volume-{self._count}.nrrd"
        export_volume(volume, path)
        self._path, self._content = path, content
        return path

    def close(self) -> None:
        """Remove the file and its folder."""
        self._path, self._content = None, ()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _forget(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self._path, self._content = None, ()


def temporary_folder() -> Path:
    """A new folder for temporary files; its name says nothing about a scan or a person.

    Raises:
        UserError: there is no place for one.
    """
    try:
        return Path(tempfile.mkdtemp(prefix="brainlandmarks-"))
    except OSError as error:
        raise UserError(f"cannot write temporary files: {error.strerror}.") from error


def _content(volume: Any) -> tuple[Any, ...]:
    """What the file of a volume depends on, to be compared."""
    if volume is None or volume.GetImageData() is None:
        return ()  # `export_volume` says so
    image = volume.GetImageData()
    transform = volume.GetParentTransformNode()
    if transform is None or transform.IsTransformToWorldLinear():
        place: Any = world_affine(volume).tobytes()
    else:
        place = (transform.GetID(), transform.GetTransformToWorldMTime())
    scalars = image.GetPointData().GetScalars()
    changed = max(image.GetMTime(), 0 if scalars is None else scalars.GetMTime())
    return (volume.GetID(), changed, place)
