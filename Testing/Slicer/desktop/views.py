"""The slice and 3D views: real logics, displayable managers and mouse handling, drawn off screen.

A view is drawn when the application processes its events and a redraw was asked for, and when its
picture is taken. `View.drag` and `View.click` are what a user's mouse does.
"""

from __future__ import annotations

import numpy as np
import slicer
import vtk
import vtkmodules.vtkRenderingFreeType  # noqa: F401  (draws the labels)
from vtkmodules.util.numpy_support import vtk_to_numpy

SLICES = {
    "Red": ("Axial", (0.95, 0.29, 0.25)),
    "Yellow": ("Sagittal", (0.93, 0.84, 0.29)),
    "Green": ("Coronal", (0.43, 0.69, 0.29)),
}
IN_SLICES = (
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
)
IN_3D = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLThreeDReformatDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager3D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLVolumeRenderingDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
)


class View:
    """qMRMLSliceView and qMRMLThreeDView: a render window with the scene in it."""

    def __init__(self, application, factory, managers, style):
        self._renderer, self._window = vtk.vtkRenderer(), vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetMultiSamples(0)
        self._window.AddRenderer(self._renderer)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        self._interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
        self._interactor.Initialize()
        factory = factory.GetInstance()
        factory.SetMRMLApplicationLogic(application)
        for manager in managers:
            if not factory.IsDisplayableManagerRegistered(manager):
                factory.RegisterDisplayableManager(manager)
        self._group = slicer.vtkMRMLDisplayableManagerGroup()
        self._group.Initialize(factory, self._renderer)
        self._group.AddObserver(vtk.vtkCommand.UpdateEvent, self._ask)
        self._style, self._asked = style, True
        style.SetDisplayableManagers(self._group)

    def _show(self, node):
        self._group.SetMRMLDisplayableNode(node)
        self._style.SetInteractor(self._interactor)

    def _ask(self, caller, event):
        self._asked = True

    def _resize(self, width, height):
        self._window.SetSize(width, height)
        self._interactor.UpdateSize(width, height)

    def _close(self):
        self._group.SetMRMLDisplayableNode(None)
        self._window.Finalize()

    # as in Slicer

    visible = True

    def renderWindow(self):
        return self._window

    def renderer(self):
        return self._renderer

    def interactor(self):
        return self._interactor

    def interactorStyle(self):
        return self._style

    def displayableManagerByClassName(self, name):
        return self._group.GetDisplayableManagerByClassName(name)

    def scheduleRender(self):
        self._asked = True

    def forceRender(self):
        self._asked = False
        self._window.Render()

    # for tests

    def render_if_asked(self) -> None:
        """Draw what has changed."""
        if self._asked:
            self.forceRender()

    def grab(self) -> np.ndarray:
        """The picture, rows from the top, RGB."""
        self.forceRender()
        taken = vtk.vtkWindowToImageFilter()
        taken.SetInput(self._window)
        taken.ReadFrontBufferOff()
        taken.Update()
        width, height, _ = taken.GetOutput().GetDimensions()
        pixels = vtk_to_numpy(taken.GetOutput().GetPointData().GetScalars())
        return np.ascontiguousarray(pixels.reshape(height, width, 3)[::-1])

    def mouse(self, event: str, x: float, y: float) -> None:
        """One event of the mouse; pixels from the lower left corner."""
        self._interactor.SetEventInformation(round(x), round(y), 0, 0)
        self._interactor.InvokeEvent(event)

    def click(self, x: float, y: float) -> None:
        """Move there and press and release the left button."""
        for event in ("EnterEvent", "MouseMoveEvent", "LeftButtonPressEvent"):
            self.mouse(event, x, y)
        self.mouse("LeftButtonReleaseEvent", x, y)

    def drag(self, start, end, steps: int = 4) -> None:
        """Drag with the left button from one place to another."""
        self.forceRender()  # a marker can be picked where it was last drawn
        path = np.linspace(start, end, steps + 1)
        self.mouse("EnterEvent", *path[0])
        self.mouse("MouseMoveEvent", path[0][0] + 1, path[0][1])
        self.mouse("MouseMoveEvent", *path[0])
        self.mouse("LeftButtonPressEvent", *path[0])
        for place in path[1:]:
            self.mouse("MouseMoveEvent", *place)
        self.mouse("LeftButtonReleaseEvent", *path[-1])


class SliceWidget:
    """qMRMLSliceWidget: a slice of the volumes."""

    def __init__(self, core, name: str, size):
        self._name = name
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(core.application)
        core.application.GetSliceLogics().AddItem(self._logic)
        style = slicer.vtkMRMLSliceViewInteractorStyle()
        style.SetSliceLogic(self._logic)
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory
        self._view = View(core.application, factory, IN_SLICES, style)
        self._view.renderer().GetActiveCamera().ParallelProjectionOn()
        # What ctkVTKSliceView draws: the blended slice as an image behind everything else.
        self._mapper, self._actor = vtk.vtkImageMapper(), vtk.vtkActor2D()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._actor.SetMapper(self._mapper)
        self._actor.GetProperty().SetDisplayLocationToBackground()
        self._actor.SetVisibility(False)
        self._view.renderer().AddViewProp(self._actor)
        self._logic.AddObserver(vtk.vtkCommand.ModifiedEvent, self._image_changed)
        self._logic.SetMRMLScene(core.scene)
        self._logic.AddSliceNode(name)
        self._dress()
        self._view._show(self.mrmlSliceNode())
        self._resize(*size)

    def _dress(self):
        """What the layout gives a slice node, also after the scene was closed."""
        orientation, colour = SLICES[self._name]
        node = self.mrmlSliceNode()
        node.SetLayoutLabel(self._name[0])
        node.SetLayoutColor(*colour)
        node.SetOrientation(orientation)
        node.SetMappedInLayout(1)

    def _resize(self, width, height):
        self._view._resize(width, height)
        self._logic.ResizeSliceNode(width, height)

    def _image_changed(self, caller, event):
        connection = self._logic.GetImageDataConnection()
        if self._mapper.GetInputConnection(0, 0) != connection:
            self._mapper.SetInputConnection(connection)
        self._actor.SetVisibility(connection is not None)
        self._view.scheduleRender()

    def sliceView(self):
        return self._view

    def interactorStyle(self):
        return self._view.interactorStyle()

    def sliceLogic(self):
        return self._logic

    def mrmlSliceNode(self):
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self):
        return self._logic.GetSliceCompositeNode()

    def sliceController(self):
        return self

    def fitSliceToBackground(self):
        self._logic.FitSliceToBackground()
        self._logic.SnapSliceOffsetToIJK()

    def pixel_of(self, ras) -> tuple[float, float]:
        """Where in the picture a place is seen, for tests."""
        inverse = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self.mrmlSliceNode().GetXYToRAS(), inverse)
        return inverse.MultiplyPoint((*ras, 1))[:2]


class ThreeDView(View):
    """qMRMLThreeDView: a view with a camera of its own."""

    def cameraNode(self):
        return self.displayableManagerByClassName(IN_3D[0]).GetCameraNode()

    def resetFocalPoint(self):
        """Look at the middle of what can be seen, without the box around it."""
        node = self._group.GetMRMLDisplayableNode()
        shown = node.GetBoxVisible(), node.GetAxisLabelsVisible()
        node.SetBoxVisible(0)
        node.SetAxisLabelsVisible(0)
        bounds = [0.0] * 6
        self._renderer.ComputeVisiblePropBounds(bounds)
        node.SetBoxVisible(shown[0])
        node.SetAxisLabelsVisible(shown[1])
        if bounds[0] <= bounds[1]:
            self._renderer.ResetCamera(bounds)
        self.scheduleRender()


class ThreeDWidget:
    """qMRMLThreeDWidget: the scene in space."""

    def __init__(self, core, size):
        style = slicer.vtkMRMLThreeDViewInteractorStyle()
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory
        self._view = ThreeDView(core.application, factory, IN_3D, style)
        self._logic = slicer.vtkMRMLViewLogic()
        self._logic.SetMRMLApplicationLogic(core.application)
        core.application.GetViewLogics().AddItem(self._logic)
        self._logic.SetMRMLScene(core.scene)
        self._node = self._logic.AddViewNode("1")
        self._dress()
        self._view._show(self._node)
        self._view._resize(*size)

    def _dress(self):
        self._node.SetMappedInLayout(1)

    def threeDView(self):
        return self._view

    def mrmlViewNode(self):
        return self._node


class LayoutManager:
    """qSlicerLayoutManager: three slice views and one 3D view."""

    tableViewCount = plotViewCount = 0
    threeDViewCount = 1

    def __init__(self, core, size=(330, 330)):
        self._core, self.layout = core, 3
        for collection in ("SetSliceLogics", "SetViewLogics"):
            getattr(core.application, collection)(vtk.vtkCollection())
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(core.scene, True)
        arrangement = slicer.vtkMRMLLayoutNode()
        arrangement.SetSingletonTag("vtkMRMLLayoutNode")
        core.scene.AddNode(arrangement)
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        core.scene.AddNode(crosshair)
        self._slices = {name: SliceWidget(core, name, size) for name in SLICES}
        self._space = ThreeDWidget(core, size)
        core.scene.AddObserver(core.scene.EndCloseEvent, self._scene_closed)

    def _scene_closed(self, caller, event):
        for widget in (*self._slices.values(), self._space):
            widget._dress()

    def views(self) -> dict[str, View]:
        """All four views by name, for tests."""
        slices = {name: widget.sliceView() for name, widget in self._slices.items()}
        return {"Red": slices.pop("Red"), "3D": self._space.threeDView(), **slices}

    def setLayout(self, layout):
        self.layout = layout

    def sliceViewNames(self):
        return tuple(self._slices)

    def sliceWidget(self, name):
        return self._slices.get(name)

    def threeDWidget(self, index):
        return self._space if index in (0, "ViewWidget1") else None

    def mrmlSliceLogics(self):
        return self._core.application.GetSliceLogics()

    def resetSliceViews(self):
        for widget in self._slices.values():
            widget.fitSliceToBackground()

    def resetThreeDViews(self):
        self._space.threeDView().resetFocalPoint()
