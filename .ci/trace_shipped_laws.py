"""Trace the cost laws of the shipped tasks again and write them to `schedules/msd/laws`.

    python .ci/trace_shipped_laws.py [TASK...]

Needed after a change of torch's or nnU-Net's minor version, of a shipped task, or of the tracer. It takes minutes on
a CPU; the test `tests/estimate/test_shipped_laws.py` reports when it is needed.
"""

from __future__ import annotations

import argparse
import itertools

from ppgs.estimate import shipped_laws
from ppgs.estimate.shipped_tasks import read_task
from ppgs.estimate.tracer import Tracer
from ppgs.nnunet.probing.trace import trace
from ppgs.shipped import folder, tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="default: all")
    names = parser.parse_args().tasks or list(tasks())
    networks = {name: read_task(name).network for name in names}
    current = {read_task(name).network.digest for name in tasks()}
    for old in (folder() / "msd" / "laws").glob("*.json.gz"):
        if old.name.removesuffix(".json.gz").split("-")[0] not in current:
            old.unlink()
    for name, network in networks.items():
        for mixed, checkpointing, single in itertools.product((True, False), repeat=3):
            traced = Tracer(network, mixed=mixed, ask=trace).traced(checkpointing, single)
            written = shipped_laws.write(network, mixed, checkpointing, single, traced)
            print(f"{name}: {written.name}, {written.stat().st_size} bytes", flush=True)


if __name__ == "__main__":
    main()
