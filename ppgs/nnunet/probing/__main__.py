"""`python -m ppgs.nnunet.probing`: one JSON request on stdin, one JSON answer on stdout, words on stderr."""

from __future__ import annotations

import contextlib
import json
import sys

from ppgs.nnunet.environment import let_waiting_threads_sleep


def main() -> None:
    # As in a training, whose steps are timed here.
    let_waiting_threads_sleep()
    request = json.load(sys.stdin)
    # nnU-Net prints; stdout is for the answer alone.
    with contextlib.redirect_stdout(sys.stderr):
        if request["want"] == "time":
            from ppgs.nnunet.probing.timing import measure

            answer = measure(request)
        else:
            from ppgs.nnunet.probing.trace import trace

            answer = trace(request)
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
