"""The application: reads runs on a timer, hands snapshots to the screen, answers keys."""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Literal

from textual.app import App, SystemCommand
from textual.binding import Binding
from textual.events import Event, Key, MouseDown, MouseScrollDown, MouseScrollUp
from textual.screen import Screen
from textual.widgets import DataTable

from ppgs.errors import PpgsError
from ppgs.pictures import DamagedPicture, Picture, read_picture
from ppgs.runs.folder import RunFolder
from ppgs.tui import palette
from ppgs.tui.control import Control
from ppgs.tui.screens import question
from ppgs.tui.screens.dialog import Dialog
from ppgs.tui.screens.help import Help
from ppgs.tui.screens.main import TABS, MainScreen
from ppgs.tui.source import WatchedRun
from ppgs.tui.system import Machine, Reading, Sampler
from ppgs.tui.view import View
from ppgs.tui.widgets.log import LogPanel
from ppgs.tui.widgets.runs import RunTable
from ppgs.tui.widgets.slices import SlicesPanel
from ppgs.tui.widgets.stages import StageTable
from ppgs.tui.widgets.timeline import Timeline

# How the monitor ended: the run it opened with has ended, or it was left before.
Outcome = Literal["ended", "left"]
_SYSTEM_SECONDS = 2.0
_REDRAW_SECONDS = 1.0
# Seconds without reading after a key, so that the screen can respond, unless keys keep coming.
_KEY_SECONDS = 0.15
_MOST_KEY_SECONDS = 1.0
_LINGER_SECONDS = 5.0
# The collector runs after this many new ones; redrawing a screen makes some thousands.
_COLLECTED_OBJECTS = 20_000


class MonitorApp(App[Outcome]):
    """Watches runs. With `own`, the one run whose training the command has just started, it asks before it leaves,
    and it ends some seconds after the training unless a key is pressed."""

    CSS_PATH = "monitor.tcss"
    TITLE = "ppgs"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar = [
        Binding("q", "leave", "Leave"),
        Binding("ctrl+c", "leave", show=False, priority=True),
        *(Binding(str(i), f"tab('{tab}')", tab.capitalize(), show=False) for i, tab in enumerate(TABS, 1)),
        Binding("n", "turn(1)", "Next run"),
        Binding("p", "turn(-1)", "Previous", show=False),
        Binding("o", "overlay", "Overlay"),
        Binding("s", "stop", "Stop"),
        Binding("c", "resume", "Resume"),
        Binding("slash", "search", "Search"),
        Binding("e", "save_svg", "SVG"),
        Binding("x", "save_csv", "CSV"),
        Binding("d", "dark", "Dark/light"),
        Binding("question_mark,f1", "help", "Help", key_display="?"),
    ]

    def __init__(
        self,
        runs: Sequence[RunFolder],
        control: Control,
        *,
        own: bool = False,
        refresh: float = 1.0,
        sampler: Sampler | None = None,
        clock: Callable[[], float] = time.time,
        exports: Path | None = None,
    ) -> None:
        super().__init__()
        # Over SSH every frame of an animation is sent, and keys wait for it.
        self.animation_level = "none"
        self.runs = [WatchedRun(run) for run in runs]
        self.current = 0
        self.overlay = False
        self.caught_up = asyncio.Event()
        self._control, self._own, self._every = control, own, refresh
        self._sampler, self._clock, self._exports = sampler or Machine(), clock, exports
        self._reading: Reading | None = None
        self._read_system = -_SYSTEM_SECONDS
        self._drawn = time.monotonic()
        self._asked = -_KEY_SECONDS
        self._keys: object = None
        self._stopping = False
        self._ended: float | None = None
        self._touched = False
        self.register_theme(palette.DARK)
        self.register_theme(palette.LIGHT)
        self.theme = palette.DARK.name

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Return the variables that the style sheet needs from themes that are not ours."""
        return {"frame": "#808080"}

    def get_default_screen(self) -> MainScreen:
        return MainScreen()

    @property
    def main(self) -> MainScreen:
        main = self.screen_stack[0]
        assert isinstance(main, MainScreen)
        return main

    @property
    def run_shown(self) -> WatchedRun:
        return self.runs[self.current]

    def on_mount(self) -> None:
        handlers = {"SIGTERM": self._leave}
        if self._own:
            handlers = {"SIGTERM": self._stop_or_end, "SIGUSR1": self._stop_or_end, "SIGHUP": self._leave}
        for name, handler in handlers.items():
            number = getattr(signal, name, None)
            # Tests run the application outside the main thread, where signals cannot be caught.
            with suppress(NotImplementedError, ValueError, RuntimeError):
                if number is not None:
                    asyncio.get_running_loop().add_signal_handler(number, handler)
        gc.set_threshold(_COLLECTED_OBJECTS)
        gc.freeze()
        self.call_after_refresh(lambda: self.run_worker(self._watch(), group="watch"))

    # Reading

    async def _watch(self) -> None:
        """Read all runs repeatedly in threads; only this task changes what is shown."""
        while True:
            for run in self.runs:
                await self._catch_up(run)
            if time.monotonic() - self._read_system >= _SYSTEM_SECONDS:
                self._read_system = time.monotonic()
                owner = self.run_shown.owner
                self._reading = await asyncio.to_thread(
                    self._sampler.read, owner.pid if owner is not None and owner.is_local else None
                )
            self.draw()
            if not self.caught_up.is_set():
                self.caught_up.set()
                # All widgets stay: the collector need not scan them repeatedly while a key waits.
                self.call_after_refresh(gc.freeze)
            if self._own and self._is_over():
                self.exit("ended")
                return
            await asyncio.sleep(self._every)

    async def _catch_up(self, run: WatchedRun) -> None:
        while True:
            await self._answered()
            run.own_process = self._control.works_on(run.run)
            more = run.take(await asyncio.to_thread(run.read))
            if not more:
                return
            if time.monotonic() - self._drawn > _REDRAW_SECONDS:
                self.draw()

    async def _answered(self) -> None:
        """Handle keys first, also while a long log is read: parsing and drawing threads take turns."""
        end = time.monotonic() + _MOST_KEY_SECONDS
        while (now := time.monotonic()) < min(self._asked + _KEY_SECONDS, end):
            await asyncio.sleep(min(self._asked + _KEY_SECONDS, end) - now)
        await asyncio.sleep(0)

    def draw(self) -> None:
        self._drawn = time.monotonic()
        self.main.show(View(self.runs, self.current, self.overlay, self._reading, self._clock()))
        keys = (self.run_shown.status, self.run_shown.is_live)
        if keys != self._keys:
            self._keys = keys
            self.refresh_bindings()
            if not self.run_shown.is_live and isinstance(self.screen, question.Question):
                # There is nothing left to stop or to leave.
                self.screen.dismiss("cancel")

    def _is_over(self) -> bool:
        """Return whether our own training has ended and no one is looking any more."""
        if self._control.works_on(self.runs[0].run) or self.runs[0].own_process:
            self._ended = None
            return False
        if self._ended is None:
            self._ended, self._touched = time.monotonic(), False
            if not self._stopping:
                self.notify("The training has ended. Any key keeps this open.", timeout=_LINGER_SECONDS)
        return not self._touched and (self._stopping or time.monotonic() - self._ended >= _LINGER_SECONDS)

    async def on_event(self, event: Event) -> None:
        if isinstance(event, (Key, MouseDown, MouseScrollDown, MouseScrollUp)):
            self._asked, self._touched = time.monotonic(), True
        await super().on_event(event)

    # Leaving, stopping, resuming

    def action_leave(self) -> None:
        if isinstance(self.screen, question.Question):
            self.screen.dismiss("cancel")
            return
        if not (self._own and self._control.works_on(self.runs[0].run)):
            self.exit("ended" if self._own else "left")
            return
        self.push_screen(question.leave(), self._on_leave)

    async def action_quit(self) -> None:
        """Ask like `q`: Textual binds this to Ctrl+Q and offers it in the palette."""
        self.action_leave()

    def _on_leave(self, answer: str | None) -> None:
        if answer == "detach":
            self._leave()
        elif answer == "stop":
            self._stop()

    def _leave(self) -> None:
        self.exit("left")

    def _tell(self, error: PpgsError) -> None:
        lines = [line for p in error.problems[:3] for line in (p.what, p.where, p.remedy) if line]
        self.notify("\n".join(lines), severity="error", markup=False)

    def action_stop(self) -> None:
        self.push_screen(question.stop(self.run_shown.name), lambda answer: self._stop() if answer == "stop" else None)

    def _stop(self) -> None:
        try:
            self._control.stop(self.run_shown.run)
        except PpgsError as error:
            self._tell(error)
            return
        self._stopping = self._own
        self.notify("Stopping with a checkpoint.")

    def _stop_or_end(self) -> None:
        """Stop our own training; leave if it has ended and only a key keeps the monitor open."""
        if self._control.works_on(self.runs[0].run):
            self._stop()
        else:
            self.exit("ended")

    def action_resume(self) -> None:
        try:
            self._control.resume(self.run_shown.run)
        except PpgsError as error:
            self._tell(error)
            return
        self._stopping, self._ended = False, None
        self.notify(f"Resuming {self.run_shown.name}.", markup=False)

    def check_action(self, action: str, _: tuple[object, ...]) -> bool | None:
        """Hide keys that have no meaning now."""
        if not self.runs:
            return True
        if action == "stop":
            # The palette, which offers it, is a screen, too, but no dialog.
            return self.run_shown.is_live and not any(isinstance(screen, Dialog) for screen in self.screen_stack)
        if action == "resume":
            return not self.run_shown.is_live and self.run_shown.status in ("stopped", "failed", "presumed dead")
        if action in ("turn", "overlay"):
            return len(self.runs) > 1
        return True

    # What is shown

    def action_tab(self, tab: str) -> None:
        self.main.open(tab)

    def action_turn(self, by: int) -> None:
        self._look_at((self.current + by) % len(self.runs))

    def _look_at(self, index: int) -> None:
        self.current = index
        self._read_system = -_SYSTEM_SECONDS
        self.draw()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        if isinstance(event.data_table, RunTable):
            self._look_at(event.cursor_row)
            self.action_tab("overview")

    def on_timeline_chosen(self, event: Timeline.Chosen) -> None:
        self.action_tab("stages")
        self.main.query_one("#stages-table", StageTable).look_up(event.stage)

    def on_slices_panel_wanted(self, wanted: SlicesPanel.Wanted) -> None:
        self.run_worker(self._read_picture(wanted), group="pictures", exclusive=True)

    async def _read_picture(self, wanted: SlicesPanel.Wanted) -> None:
        content: Picture | str
        try:
            content = await asyncio.to_thread(read_picture, wanted.path)
        except DamagedPicture as problem:
            content = str(problem)
        wanted.panel.take(wanted.key, content)

    def action_overlay(self) -> None:
        self.overlay = not self.overlay
        self.draw()

    def action_search(self) -> None:
        self.main.open("log", focus=False)
        self.call_after_refresh(self.main.query_one("#log LogPanel", LogPanel).action_search)

    def action_dark(self) -> None:
        self.theme = palette.LIGHT.name if self.current_theme.dark else palette.DARK.name
        self.draw()

    def action_help(self) -> None:
        self.push_screen(Help())

    # Export

    def action_save_svg(self) -> None:
        def write(path: Path) -> None:
            with path.open("x", encoding="utf-8") as file:
                file.write(self.export_screenshot(title=self.run_shown.name))

        self._saved(write, "svg")

    def action_save_csv(self) -> None:
        def write(path: Path) -> None:
            with path.open("x", encoding="utf-8", newline="") as file:
                self.run_shown.state.series.write_csv(file, self.run_shown.class_names)

        self._saved(write, "csv")

    def _saved(self, write: Callable[[Path], object], ending: str) -> None:
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(self._clock()))
        path = (self._exports or Path()) / f"{self.run_shown.name}-{stamp}.{ending}"
        try:
            write(path)
            # Fails, too, if the working folder was removed.
            path = path if self._exports else path.absolute()
        except OSError as problem:
            self.notify(f"{path} cannot be written: {problem.strerror}", severity="error", markup=False)
        else:
            self.notify(f"saved {path}", markup=False)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        yield from super().get_system_commands(screen)
        for number, tab in enumerate(TABS, 1):
            yield SystemCommand(f"Show {tab}", f"key {number}", lambda tab=tab: self.action_tab(tab))
        yield SystemCommand("Dark or light", "key d", self.action_dark)
        yield SystemCommand("Save view as SVG", "key e", self.action_save_svg)
        yield SystemCommand("Save curves as CSV", "key x", self.action_save_csv)
        yield SystemCommand("Search the log", "key /", self.action_search)
        if self.check_action("overlay", ()):
            yield SystemCommand("Overlay all runs", "key o", self.action_overlay)
        if self.check_action("stop", ()):
            yield SystemCommand("Stop with a checkpoint", "key s", self.action_stop)
        if self.check_action("resume", ()):
            yield SystemCommand("Resume the run", "key c", self.action_resume)


def watch(
    runs: Sequence[RunFolder], control: Control, *, own: bool = False, refresh: float = 1.0
) -> tuple[Outcome | None, int]:
    """Open the monitor until it is closed; return how it ended (None after a crash) and its return code."""
    app = MonitorApp(runs, control, own=own, refresh=refresh)
    outcome = app.run()
    return outcome, app.return_code or 0
