"""Snapshot that every panel draws from; panels never read files or devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.app import App
from textual.widget import Widget

from ppgs.tui.palette import Palette, palette
from ppgs.tui.source import WatchedRun
from ppgs.tui.system import Reading


@dataclass(frozen=True)
class View:
    """The runs, the selected one, and the machine; `now` is wall-clock time."""

    runs: Sequence[WatchedRun]
    current: int
    overlay: bool
    reading: Reading | None
    now: float

    @property
    def run(self) -> WatchedRun:
        return self.runs[self.current]


class Panel(Widget):
    """Mixin of everything that shows a part of a view. Nothing hidden or unchanged is drawn."""

    view: View | None = None
    _drawn: object = None

    def show(self, view: View) -> None:
        """Take the newest view and draw its changes."""
        self.view = view
        self.again()

    def again(self) -> None:
        if self.view is None or not self.is_shown:
            return
        facts = (self.facts(self.view), self.size, self.app.theme)
        if facts != self._drawn:
            self._drawn = facts
            self.draw(self.view)

    def facts(self, _: View) -> object:
        """Return what the drawing depends on, for comparison with the last drawing; by default always new."""
        return object()

    def draw(self, view: View) -> None:
        raise NotImplementedError

    def on_resize(self) -> None:
        """Draw when shown again, which also sends this event."""
        self.again()

    @property
    def palette(self) -> Palette:
        app: App[object] = self.app
        return palette(app)

    @property
    def is_shown(self) -> bool:
        """True if the panel and all its containers are displayed."""
        return self.is_mounted and all(w.display for w in self.ancestors_with_self if isinstance(w, Widget))
