"""The process that segments one part of the images for `predict_children`: request on stdin, JSON lines on stdout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from ppgs.commands.predict import segment
from ppgs.commands.predict_children import of_record
from ppgs.commands.predict_plan import PredictRequest, choose_folds, plan_prediction
from ppgs.errors import ExitCode, PpgsError, StoppedEarly
from ppgs.formatting import last_line
from ppgs.processes.signals import interrupt_on_request
from ppgs.processes.worker import die_with_parent
from ppgs.tasks import Roots


def _work(asked: PredictRequest, roots: Roots, tell: Callable[[dict[str, Any]], None]) -> ExitCode:
    """Segment one part in this process and report the result."""
    speed: dict[str, Any] = {}
    error: PpgsError | None = None
    try:
        asked, runs = choose_folds(asked, roots)
        planned = plan_prediction(asked, runs, roots)
        predicted = segment(
            asked,
            planned,
            runs,
            roots,
            lambda done, total: tell({"done": done, "total": total}),
            lambda text: tell({"say": text}),
            wrote=lambda file: tell({"file": str(file)}),
        )
        speed, error = predicted.speed, predicted.error
    except PpgsError as found:
        error = found
    except KeyboardInterrupt:
        error = StoppedEarly("stopped on request", "", "the same command with --continue goes on")
    except Exception as unforeseen:
        error = PpgsError(f"{type(unforeseen).__name__}: {last_line(unforeseen)}", f"part {asked.part}")
    record = None if error is None else error.to_record()
    tell({"speed": speed, "error": record})
    return ExitCode.DONE if error is None else error.exit_code


def main() -> int:
    """Read a request from stdin and serve it."""
    given = json.loads(sys.stdin.buffer.read())
    die_with_parent(given["parent"])
    interrupt_on_request()
    # Libraries print; what is printed goes to the log.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=answers, flush=True)

    return _work(of_record(given["asked"]), Roots.choose(None, os.environ), tell)


if __name__ == "__main__":
    sys.exit(main())
