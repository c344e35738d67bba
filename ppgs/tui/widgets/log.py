"""The run's warnings, and below them the training's output, with search."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Input, Log, Static

from ppgs.formatting import counted
from ppgs.tui.source import WatchedRun
from ppgs.tui.view import Panel, View


class LogPanel(Vertical, Panel):
    """`/` searches: only lines with the words stay. Follows the end until one scrolls up."""

    BINDINGS: ClassVar = [
        Binding("slash", "search", "Search"),
        Binding("escape", "clear_search", "All lines", show=False),
    ]

    def __init__(self, *, search: bool = True, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._with_search = search
        self._words = ""
        self._shown: tuple[object, ...] = ()
        self._written = 0

    def compose(self) -> ComposeResult:
        if self._with_search:
            search = Input(placeholder="search: only lines with these words (escape shows all)", compact=True)
            search.display = False
            search.cursor_blink = False
            yield search
        warnings = VerticalScroll(Static(markup=False), can_focus=self._with_search)
        warnings.display = False
        yield warnings
        log = Log(max_lines=5_000, auto_scroll=True)
        log.can_focus = self._with_search
        yield log

    def draw(self, view: View) -> None:
        run, log = view.run, self.query_one(Log)
        self.border_title = self._title(run)
        self._draw_warnings(run)
        what = (id(run), run.log_restarts, self._words)
        new = run.line_count - self._written
        if what == self._shown and new == 0:
            return
        if what != self._shown or new < 0 or new > len(run.lines):
            log.clear()
            lines = list(run.lines)
        else:
            lines = list(run.lines)[len(run.lines) - new :]
        self._shown, self._written = what, run.line_count
        kept = [line for line in lines if self._words in line.casefold()]
        if kept:
            log.write_lines(kept)

    def _draw_warnings(self, run: WatchedRun) -> None:
        """Show all warnings above the log, newest first, so that the newest is visible without scrolling."""
        box, log = self.query_one(VerticalScroll), self.query_one(Log)
        warnings, text = box.query_one(Static), "\n".join(f"warning: {words}" for words in reversed(run.state.warnings))
        if text == warnings.content:
            return
        at_end = log.is_vertical_scroll_end
        box.display = bool(text)
        warnings.update(text)
        if at_end:
            # The log has become shorter.
            self.call_after_refresh(log.scroll_end, animate=False)

    def _title(self, run: WatchedRun) -> str:
        title = "log"
        if run.state.warnings:
            title += f"  {counted(len(run.state.warnings), 'warning')}"
        if run.damaged:
            title += f"  {counted(run.damaged, 'damaged record')} skipped"
        return title + (f"  lines with '{self._words}'" if self._words else "").replace("[", r"\[")

    def action_search(self) -> None:
        if self._with_search:
            search = self.query_one(Input)
            search.display = True
            search.focus()

    def action_clear_search(self) -> None:
        if self._with_search:
            search = self.query_one(Input)
            search.value = ""
            search.display = False
            self.query_one(Log).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._words = event.value.casefold()
        self.again()

    def on_input_submitted(self) -> None:
        self.query_one(Log).focus()
