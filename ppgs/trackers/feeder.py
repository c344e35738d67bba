"""`python -m ppgs.trackers.feeder FOLD_FOLDER TRACKER FOLDER`: feed a tracker until standard input ends.

What a tracker's package prints and why a feeder failed is in `FOLDER/TRACKER.log`; an error is its last line, as JSON.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import traceback
from pathlib import Path

from ppgs.errors import PpgsError, from_record
from ppgs.formatting import exit_text
from ppgs.processes.worker import die_with_parent
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import Lock, renewed

_SECONDS = 2.0


def start_feeder(run: RunFolder, tracker: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start the process; it feeds the tracker until its `stdin` is closed, and ends with this process."""
    # Without parents: a run's folder that was moved away must not be made again.
    folder.mkdir(exist_ok=True)
    with log_of(tracker, folder).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", __name__, str(run.path), tracker, str(folder), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            # A group of its own, so that processes which a tracker starts can be killed with it.
            start_new_session=True,
        )


def failure_of(tracker: str, folder: Path, code: int) -> PpgsError:
    """Return why a feeder ended with this code."""
    log = log_of(tracker, folder)
    try:
        with log.open("rb") as file:
            file.seek(-min(log.stat().st_size, 20_000), os.SEEK_END)
            return from_record(json.loads(file.read().splitlines()[-1]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return PpgsError(f"its process {exit_text(code)}", log)


def log_of(tracker: str, folder: Path) -> Path:
    """Return the file with all output of a tracker."""
    return folder / f"{tracker}.log"


def main() -> None:
    """Feed the tracker; every error is the last line of the log."""
    run, tracker, folder = RunFolder(Path(sys.argv[1])), sys.argv[2], Path(sys.argv[3])
    die_with_parent(int(sys.argv[4]))
    try:
        _feed(run, tracker, folder)
        return
    except PpgsError as known:
        error = known
    except Exception as unknown:
        traceback.print_exc()
        text = (str(unknown).strip().splitlines() or [""])[0][:300]
        error = PpgsError(f"{type(unknown).__name__}: {text}", log_of(tracker, folder))
    sys.stderr.flush()
    sys.stdout.write(f"\n{json.dumps(error.to_record())}\n")
    sys.stdout.flush()
    # Not by sys.exit: threads of a tracker that failed may never end.
    os._exit(error.exit_code)


def _feed(run: RunFolder, tracker: str, folder: Path) -> None:
    from ppgs.runs.manifest import read_manifest
    from ppgs.trackers.feed import Feed

    lock = Lock(folder / f"{tracker}-{read_manifest(run).name}.lock", f"the copy of the run for {tracker}")
    with lock, renewed(lock):
        feed, ended = Feed(run, tracker, folder), False
        while not ended:
            # Nothing is ever written to it: it becomes readable when it is closed.
            ended = bool(select.select([sys.stdin], [], [], _SECONDS)[0])
            feed.send()
        feed.close()


if __name__ == "__main__":
    main()
