"""What every panel draws from: one snapshot, handed down; panels never read files or devices."""

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
    """The runs, the one that is looked at, and the machine; `now` is the wall clock's time."""

    runs: Sequence[WatchedRun]
    current: int
    overlay: bool
    reading: Reading | None
    now: float

    @property
    def run(self) -> WatchedRun:
        return self.runs[self.current]


class Panel(Widget):
    """Mixin of everything that shows a part of a view. What is hidden is not drawn; what has not changed neither."""

    view: View | None = None
    _drawn: object = None

    def show(self, view: View) -> None:
        """Take the newest view and draw what is new in it."""
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
        """What the drawing depends on, to be compared with what was drawn last; by default always something new."""
        return object()

    def draw(self, view: View) -> None:
        raise NotImplementedError

    def on_resize(self) -> None:
        """Also sent when it is shown again."""
        self.again()

    @property
    def palette(self) -> Palette:
        app: App[object] = self.app
        return palette(app)

    @property
    def is_shown(self) -> bool:
        """Whether it, and all its containers, are displayed."""
        return self.is_mounted and all(w.display for w in self.ancestors_with_self if isinstance(w, Widget))
