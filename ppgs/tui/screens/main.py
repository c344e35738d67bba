"""The main screen: tabs of panels, more of them side by side if there is room."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Grid, Horizontal, Vertical, VerticalScroll
from textual.screen import Screen
from textual.widgets import TabbedContent, TabPane

from ppgs.tui.view import Panel, View
from ppgs.tui.widgets.curves import DicePlot, LossPlot, RatePlot, SecondsPlot
from ppgs.tui.widgets.key_bar import KeyBar
from ppgs.tui.widgets.log import LogPanel
from ppgs.tui.widgets.manifest import ManifestTable
from ppgs.tui.widgets.patch import PatchBoxes
from ppgs.tui.widgets.progress import Progress
from ppgs.tui.widgets.runs import RunTable
from ppgs.tui.widgets.slices import SlicesPanel
from ppgs.tui.widgets.stages import StageTable
from ppgs.tui.widgets.status_bar import Notice, StatusBar
from ppgs.tui.widgets.system import SystemPanel
from ppgs.tui.widgets.time_split import TimeSplit
from ppgs.tui.widgets.timeline import Timeline

TABS = ("overview", "curves", "slices", "stages", "system", "log", "run", "runs")


class MainScreen(Screen[None]):
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 (Textual declares it so)
        (0, "-narrow"),
        (130, "-wide"),
    ]
    VERTICAL_BREAKPOINTS = [  # noqa: RUF012
        (0, "-low"),
        (40, "-tall"),
    ]

    # Keys belong to the whole screen until one moves into a panel.
    AUTO_FOCUS = ""

    def compose(self) -> ComposeResult:
        yield StatusBar()
        yield Notice(markup=False)
        with TabbedContent(id="tabs"):
            with TabPane("1 Overview", id="overview"):
                yield Progress()
                yield Timeline(markup=False)
                with Horizontal(id="middle"):
                    with Vertical(id="left"):
                        yield PatchBoxes()
                        yield TimeSplit(classes="more")
                        yield SystemPanel(classes="more")
                    with Grid(id="right"):
                        yield DicePlot()
                        yield LossPlot(classes="more")
                        yield RatePlot(classes="more")
                        yield StageTable(classes="more")
                yield LogPanel(search=False, classes="more")
            with TabPane("2 Curves", id="curves"), Grid(id="curve-grid"):
                yield LossPlot(id="curves-loss")
                yield DicePlot()
                yield RatePlot()
                yield SecondsPlot()
            with TabPane("3 Slices", id="slices"):
                yield SlicesPanel()
            with TabPane("4 Stages", id="stages"):
                yield StageTable(id="stages-table")
                yield TimeSplit()
            with TabPane("5 System", id="system"), VerticalScroll():
                yield SystemPanel()
            with TabPane("6 Log", id="log"):
                yield LogPanel()
            with TabPane("7 Run", id="run"):
                yield ManifestTable()
            with TabPane("8 Runs", id="runs"):
                yield RunTable()
        yield KeyBar()

    def show(self, view: View) -> None:
        """Hand the view to all panels; those that are displayed draw it, the others when they are."""
        # Not by query: a CSS type is only ever a widget's first base class.
        for panel in self.walk_children(Panel):
            panel.show(view)

    def open(self, tab: str, *, focus: bool = True) -> None:
        """Show a tab; `focus` moves into its first panel."""
        self.query_one("#tabs", TabbedContent).active = tab
        inside = {"curves": "#curves-loss", "slices": "#slice-table", "stages": "#stages-table", "log": "#log Log"}
        inside |= {"run": "ManifestTable", "runs": "RunTable"}
        if not focus:
            return
        # Apply it now, so that the tab and its focus are drawn together.
        self.set_focus(self.query_one(inside[tab]) if tab in inside else None, scroll_visible=False)
