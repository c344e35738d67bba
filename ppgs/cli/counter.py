"""Progress of commands that process many files one after another."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ppgs.cli.output import err, note
from ppgs.formatting import duration

_LINE_SECONDS = 60.0


class Counter:
    """Bars on a terminal; elsewhere a line after every `every` files, and after a file that took longer than a minute.

    Use it as a context manager, which shows the bars.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *times)
        self._bars = Progress(*columns, console=err, transient=True, disable=not sys.stderr.isatty())

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def step(
        self, doing: str, line: str, *, total: int | None = None, visible: bool = True
    ) -> Callable[[int, int], None]:
        """Return `report(done, total)` for one step; its bar appears now if `visible`, else with the first report.

        `line` is the text of lines, such as `segmented {}`, where `{}` becomes `3/10`.
        """
        bar = self._bars.add_task(doing, total=total, visible=visible, start=visible)
        first: tuple[float, int] | None = None
        last_line = time.monotonic()

        def report(done: int, total: int) -> None:
            nonlocal first, last_line
            now = time.monotonic()
            # The time left is measured from the first report: the time before includes the start of workers.
            first = first or (now, done)
            self._bars.start_task(bar)
            self._bars.update(bar, completed=done, total=total, visible=True)
            is_due = done == total or done % self._every == 0 or now - last_line >= _LINE_SECONDS
            if self._bars.disable and is_due:
                last_line, (began, before) = now, first
                left = (now - began) / (done - before) * (total - done) if before < done < total else None
                note(line.format(f"{done}/{total}") + (f", {duration(left)} left" if left is not None else ""))

        return report
