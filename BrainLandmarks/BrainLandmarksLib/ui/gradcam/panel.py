"""The panel of the Grad-CAM module: its parts, and the volume whose maps they show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.geometry.affine import FloatArray
from BrainLandmarksLib.gradcam.output import MEANING
from BrainLandmarksLib.mrml.export.volume_export import ScanFile
from BrainLandmarksLib.mrml.gradcam.map_nodes import MapNodes, is_map
from BrainLandmarksLib.mrml.landmarks.nodes import LandmarkNodes
from BrainLandmarksLib.ui.common.host import WorkerHost
from BrainLandmarksLib.ui.common.installing import Installer
from BrainLandmarksLib.ui.common.messages import Messages
from BrainLandmarksLib.ui.common.section import reports_errors
from BrainLandmarksLib.ui.gradcam.choosing import ChooseSection
from BrainLandmarksLib.ui.gradcam.comparing import CompareSection
from BrainLandmarksLib.ui.gradcam.exporting import ExportSection
from BrainLandmarksLib.ui.gradcam.mapping import MapSection
from BrainLandmarksLib.ui.gradcam.showing import ShowSection


class GradcamPanel(Messages):
    """Holds the chosen volume and its maps, and notifies the parts when it changes.

    Args:
        ui: The widgets by name (`slicer.util.childWidgetVariables`).
        host: The worker.
        pictures: Folder of the landmarks' pictures, one folder for each protocol.
    """

    def __init__(self, ui: Any, host: WorkerHost, pictures: Path) -> None:
        super().__init__(ui, host)
        self.pictures = pictures
        self.maps: MapNodes | None = None
        self.scan = ScanFile()
        self.installer = Installer(self, [ui.allButton, ui.exportButton])
        ui.meaningLabel.setText(MEANING)
        self.showing = ShowSection(self)
        self.comparing = CompareSection(self)
        self.mapping = MapSection(self)
        self.choosing = ChooseSection(self)
        self.exporting = ExportSection(self)
        self.show_error("")
        self.refresh()

    # The volume ----------------------------------------------------------------------------------

    @reports_errors
    def set_volume(self, volume: Any) -> None:
        """Another volume was chosen; what is under way for the last one is given up."""
        known = self.maps is not None and self.maps.volume is volume
        if known or (volume is None and self.maps is None):
            return
        self.close()
        if volume is None:
            return
        if is_map(volume):
            raise UserError("this is a map; choose the MRI of a head.")
        self.maps = MapNodes(volume)
        self.comparing.enter()
        self.choosing.enter(volume)
        self.refresh()

    def close(self) -> None:
        """Let go of the scene and of what is under way; the maps stay in the scene."""
        self.mapping.cancel()
        self.choosing.leave()
        self.comparing.leave()
        self.showing.leave()
        self.scan.close()
        if self.maps is not None:
            self.maps.close()
            self.maps = None
        self.status("")
        self.refresh()

    def need_volume(self) -> Any:
        """The chosen volume node.

        Raises:
            UserError: there is none.
        """
        volume = None if self.maps is None else self.maps.volume
        if volume is None or volume.GetScene() is None:
            raise UserError("choose the MRI of a head first.")
        return volume

    def known_points(self, labels: tuple[str, ...]) -> FloatArray:
        """Where the scene has these landmarks of the volume, (n, 3) world RAS mm; NaN: nowhere."""
        nodes = None if self.maps is None else LandmarkNodes.of_volume(self.maps.volume)
        points = np.full((len(labels), 3), np.nan)
        for row, label in enumerate(labels):
            if nodes is not None and label in nodes.protocol.labels:
                points[row] = nodes.point(label)
        return points

    def refresh(self) -> None:
        """Bring what can be clicked up to date."""
        there = self.maps is not None
        self.mapping.refresh()
        self.ui.landmarkTree.setEnabled(there)
        self.ui.exportButton.setEnabled(there)
