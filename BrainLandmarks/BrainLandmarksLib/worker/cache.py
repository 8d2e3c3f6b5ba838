"""What the worker remembers of the last image, so that nothing is worked out twice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.checksum import file_sha256

if TYPE_CHECKING:
    from BrainLandmarksLib.detection import Detection
    from BrainLandmarksLib.gradcam.explanation import Explanation

_IN_PARTS = (".hdr", ".img", ".img.gz", ".nhdr", ".mhd")


@dataclass(frozen=True)
class _Stamp:
    """A file as the file system describes it; two equal stamps are taken for the same content."""

    path: Path
    modified_ns: int
    size: int


class ImageCache:
    """The detection and the explanation of one image, with one model on one device.

    An image is known again by its file's content, so a copy of it under another name counts as the
    same, and a file with other content does not. What is more than one file, a DICOM folder or a
    header beside its voxels, is never known again.
    """

    def __init__(self) -> None:
        self._image: str | None = None
        self._detection: Detection | None = None
        self._explanation: Explanation | None = None
        self._last: tuple[_Stamp, str] | None = None

    def kept(self, image: Path, layer: str) -> str:
        """What is kept of an image: "map" (all of it), "detect" (the detection), "nothing"."""
        if self.explanation(image, layer) is not None:
            return "map"
        return "nothing" if self.detection(image) is None else "detect"

    def detection(self, image: Path) -> Detection | None:
        """The detection of this image, if it is the last one."""
        return self._detection if self._is_last(image) else None

    def explanation(self, image: Path, layer: str) -> Explanation | None:
        """The explanation of this image in a layer, if that is the last one."""
        known = self._explanation
        if known is None or known.seen.layer != layer or not self._is_last(image):
            return None
        return known

    def keep_detection(self, image: Path, detection: Detection) -> None:
        """Remember a detection, and forget what belongs to another one.

        Its parcellation, a probability for each structure and voxel, takes 100 MB and explains
        nothing; that is not kept.
        """
        self.forget_explanation()
        self._image = self._content(image)
        self._detection = replace(detection, parcellation=None)

    def keep_explanation(self, image: Path, explanation: Explanation) -> None:
        """Remember an explanation and its detection."""
        self.keep_detection(image, explanation.detection)
        self._explanation = explanation

    def forget_explanation(self) -> None:
        """Let go of the explanation, which holds the activations of a whole layer."""
        self._explanation = None

    def _is_last(self, image: Path) -> bool:
        return self._image is not None and self._content(image) == self._image

    def _content(self, image: Path) -> str | None:
        """SHA-256 of a file; None for what is not one file."""
        if image.name.lower().endswith(_IN_PARTS):
            return None
        try:
            status = image.stat()
            stamp = _Stamp(image.absolute(), status.st_mtime_ns, status.st_size)
            if self._last is not None and self._last[0] == stamp:
                return self._last[1]
            self._last = (stamp, file_sha256(image))
        except (OSError, UserError):
            return None
        return self._last[1]
