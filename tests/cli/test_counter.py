"""Progress of commands that process many files."""

from __future__ import annotations

import io
import sys
import time

import pytest
from rich.console import Console

from ppgs.cli.counter import Counter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make stderr a terminal. Call it in the test itself: pytest sets stderr again after fixtures."""
    shown = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", shown)
    # A console decides when it is made if it is interactive.
    monkeypatch.setattr("ppgs.cli.counter.err", Console(stderr=True))
    return shown


def test_a_bar_is_there_before_the_first_file_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminal(monkeypatch)
    with Counter(every=10) as counter:
        counter.step("segmenting", "segmented {}", total=12)
        later = counter.step("examining", "examined {}", visible=False)
        assert "segmenting" in shown.getvalue() and "0/12" in shown.getvalue()
        assert "examining" not in shown.getvalue()
        later(1, 2)
        counter._bars.refresh()
        assert "examining" in shown.getvalue() and "examined" not in shown.getvalue()


def test_lines_come_by_count_and_by_time(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Counter(every=10) as counter:
        report = counter.step("segmenting", "segmented {}")
        for done, seconds in ((1, 100), (2, 40), (3, 40), (9, 10), (10, 10), (11, 10), (12, 10)):
            now[0] += seconds
            report(done, 12)
    lines = capsys.readouterr().err.splitlines()
    # The first file says nothing of the time that is left.
    assert lines == ["segmented 1/12", "segmented 3/12, 6m00s left", "segmented 10/12, 22s left", "segmented 12/12"]
