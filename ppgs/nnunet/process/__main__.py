"""`python -m ppgs.nnunet.process FOLD_FOLDER [--with-parent PID]`, nnU-Net's folders in the environment.

Trains the run of that folder, alone or, under PyTorch's launcher, as one of several processes. `--launched`, by
`ppgs.nnunet.process.launch`: the exit code is 0 for every end that is in the manifest. `--validate CHECKPOINT`
validates again, with `--npz` keeping the probabilities, and does nothing else.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ppgs.errors import ExitCode
from ppgs.nnunet.host.environment import launched, let_waiting_threads_sleep, prepare_environment
from ppgs.nnunet.process.leader import TrainingProcess
from ppgs.processes.worker import die_with_parent
from ppgs.runs.folder import RunFolder
from ppgs.tasks import Roots
from ppgs.trackers import NNUNET_SWITCH


def main() -> None:
    """Do this process's part of the run, and exit."""
    arguments = sys.argv[1:]
    let_waiting_threads_sleep()
    if "--with-parent" in arguments:
        die_with_parent(int(arguments[arguments.index("--with-parent") + 1]))
    # Trackers are fed by processes beside this one; nnU-Net's own logging to W&B would run in it and could stop it.
    os.environ[NNUNET_SWITCH] = "0"
    run, roots = RunFolder(Path(arguments[0])), Roots.choose(None, os.environ)
    if "--validate" in arguments:
        from ppgs.nnunet.process.repeated import RepeatedValidation

        prepare_environment(roots)
        which: Any = arguments[arguments.index("--validate") + 1]
        code = RepeatedValidation(run, roots, which, npz="--npz" in arguments).main()
    elif launched(os.environ) > 1:
        from ppgs.nnunet.process.follower import work_together

        code = work_together(run, roots)
    else:
        prepare_environment(roots)
        code = TrainingProcess(run, roots).main()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    told = "--launched" in arguments and code != ExitCode.UNFORESEEN
    if launched(os.environ) > 1 and os.environ["RANK"] != "0":
        # Immediately: Python's own end aborts where a thread asks the launcher's store.
        os._exit(0 if told else int(code))
    sys.exit(0 if told else int(code))


if __name__ == "__main__":
    main()
