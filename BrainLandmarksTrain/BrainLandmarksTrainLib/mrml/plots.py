"""Charts of the scene: Slicer's own table, series and chart nodes, made once and then kept up.

>>> chart = Chart("Training loss", "step", "loss")
>>> chart.show([Line("fine", [1, 2], [3.1, 2.8])])
>>> show_in_layout(chart.node)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer
import vtk

ROLE = "BrainLandmarks.chart"
"""Attribute of the nodes of a chart: its name."""

COLORS = (
    (0.21, 0.45, 1.0),
    (0.89, 0.26, 0.02),
    (0.15, 0.61, 0.37),
    (0.70, 0.41, 0.66),
    (0.55, 0.35, 0.10),
    (0.0, 0.6, 0.75),
    (0.45, 0.45, 0.45),
)
X_COLUMN = "x"


@dataclass(frozen=True)
class Line:
    """One series: a line, or points.

    Args:
        name: In the legend.
        x, y: As many numbers each; lists or arrays.
        points: Points without a line between them.
        labels: A text for each point, shown where the mouse is.
        color: 0 to 1 each; by default one of `COLORS`.
    """

    name: str
    x: Sequence[float] | npt.NDArray[np.float64]
    y: Sequence[float] | npt.NDArray[np.float64]
    points: bool = False
    labels: Sequence[str] = ()
    color: tuple[float, float, float] | None = None


class Chart:
    """One chart. Its nodes are found again by their attribute; those of a closed scene are made
    anew with the next `show`.

    Args:
        name: Title.
        x_title, y_title: Of the axes.
    """

    def __init__(self, name: str, x_title: str, y_title: str) -> None:
        self.name = name
        self._titles = x_title, y_title

    @property
    def node(self) -> Any:
        """The vtkMRMLPlotChartNode; None before the first `show` and after the scene was closed."""
        return next(iter(self._nodes("vtkMRMLPlotChartNode")), None)

    def show(self, lines: Sequence[Line]) -> Any:
        """Show these series and no others; returns the chart node."""
        chart = self.node or self._make("vtkMRMLPlotChartNode", self.name)
        before = chart.StartModify()
        try:
            chart.SetTitle(self.name)
            chart.SetXAxisTitle(self._titles[0])
            chart.SetYAxisTitle(self._titles[1])
            chart.SetLegendVisibility(len(lines) > 1)
            self._drop(len(lines))
            chart.RemoveAllPlotSeriesNodeIDs()
            for number, line in enumerate(lines):
                series = self._series(number, line)
                chart.AddAndObservePlotSeriesNodeID(series.GetID())
        finally:
            chart.EndModify(before)
        return chart

    def remove(self) -> None:
        """Take all nodes of the chart out of the scene."""
        for kind in ("vtkMRMLPlotChartNode", "vtkMRMLPlotSeriesNode", "vtkMRMLTableNode"):
            for node in self._nodes(kind):
                slicer.mrmlScene.RemoveNode(node)

    def _series(self, number: int, line: Line) -> Any:
        known = self._nodes("vtkMRMLPlotSeriesNode")
        tables = self._nodes("vtkMRMLTableNode")
        if number < len(known) and number < len(tables):
            series, table = known[number], tables[number]
        else:
            series = self._make("vtkMRMLPlotSeriesNode", line.name)
            table = self._make("vtkMRMLTableNode", f"{self.name}: {line.name}")
        _fill(table, line)
        series.SetName(line.name)
        table.SetName(f"{self.name}: {line.name}")
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetXColumnName(X_COLUMN)
        series.SetYColumnName(line.name)
        series.SetLabelColumnName("label" if line.labels else "")
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        kind = slicer.vtkMRMLPlotSeriesNode
        series.SetLineStyle(kind.LineStyleNone if line.points else kind.LineStyleSolid)
        # A single value has no line; a mark shows it.
        marked = line.points or len(line.x) < 2
        series.SetMarkerStyle(kind.MarkerStyleCircle if marked else kind.MarkerStyleNone)
        series.SetColor(*(line.color or COLORS[number % len(COLORS)]))
        return series

    def _drop(self, count: int) -> None:
        """Remove the series and tables that are too many."""
        for kind in ("vtkMRMLPlotSeriesNode", "vtkMRMLTableNode"):
            for node in self._nodes(kind)[count:]:
                slicer.mrmlScene.RemoveNode(node)

    def _make(self, kind: str, name: str) -> Any:
        node = slicer.mrmlScene.CreateNodeByClass(kind)
        node.UnRegister(None)
        node.SetName(name)
        node.SetAttribute(ROLE, self.name)
        slicer.mrmlScene.AddNode(node)
        return node

    def _nodes(self, kind: str) -> list[Any]:
        scene = slicer.mrmlScene
        every = [
            scene.GetNthNodeByClass(n, kind) for n in range(scene.GetNumberOfNodesByClass(kind))
        ]
        return [node for node in every if node.GetAttribute(ROLE) == self.name]


def show_in_layout(*charts: Any) -> None:
    """Show chart nodes in Slicer's plot views; the layout gets one if it has none."""
    logic = slicer.app.applicationLogic().GetModuleLogic("Plots")
    for chart in charts:
        if chart is not None and logic is not None:
            logic.ShowChartInLayout(chart)


def _fill(node: Any, line: Line) -> None:
    """Put the columns of a series into its table node."""
    table = vtk.vtkTable()
    for name, values in ((X_COLUMN, line.x), (line.name, line.y)):
        column = vtk.vtkDoubleArray()
        column.SetName(name)
        column.SetNumberOfTuples(len(values))
        for row, value in enumerate(np.asarray(values, float)):
            column.SetValue(row, float(value))
        table.AddColumn(column)
    if line.labels:
        texts = vtk.vtkStringArray()
        texts.SetName("label")
        for text in line.labels:
            texts.InsertNextValue(str(text))
        table.AddColumn(texts)
    node.SetAndObserveTable(table)
