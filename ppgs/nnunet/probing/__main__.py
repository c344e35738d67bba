"""`python -m ppgs.nnunet.probing`: one JSON request on stdin, one JSON answer on stdout, messages on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

from ppgs.errors import PpgsError
from ppgs.imports import BrokenInstallation
from ppgs.nnunet.host.environment import let_waiting_threads_sleep


def main() -> None:
    # As in a training, whose steps are timed here.
    let_waiting_threads_sleep()
    request = json.load(sys.stdin)
    # nnU-Net prints; stdout is for the answer alone.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            answer = _answer(request)
        except Exception as error:
            told = error if isinstance(error, PpgsError) else BrokenInstallation.of(error)
            if told is None:
                raise
            answer = {"error": told.to_record()}
    json.dump(answer, sys.stdout)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    if request["want"] == "time":
        from ppgs.nnunet.probing.timing import measure

        return measure(request)
    from ppgs.nnunet.probing.trace import trace

    return trace(request)


if __name__ == "__main__":
    main()
