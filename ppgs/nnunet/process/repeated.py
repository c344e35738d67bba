"""`ppgs validate`: repeats the final validation with any checkpoint of a run."""

from __future__ import annotations

import json
import os
import shutil
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from ppgs.errors import PpgsError
from ppgs.nnunet.process.leader import TrainingProcess
from ppgs.plans import read_json
from ppgs.runs.atomic import write_text
from ppgs.runs.folder import Checkpoint, RunFolder
from ppgs.runs.manifest import write_manifest
from ppgs.tasks import Roots


class RepeatedValidation(TrainingProcess):
    """Validates a run, whose status is the same afterwards as before.

    It writes into a folder of its own: what an earlier validation left is replaced once the new one is whole.
    """

    def __init__(self, run: RunFolder, roots: Roots, which: Checkpoint, *, npz: bool) -> None:
        super().__init__(run, roots)
        self._which, self._npz = which, npz
        self._scratch = RunFolder(run.own / "validating" / run.path.name)

    def emit(self, kind: str, **fields: Any) -> None:
        super().emit(kind, **fields, **({"checkpoint": self._which} if kind.startswith("validation_") else {}))

    def _end(self, status: Any, event: str, **fields: Any) -> None:  # noqa: ARG002
        shutil.rmtree(self._scratch.model, ignore_errors=True)
        self.manifest.pid = None
        with suppress(OSError):
            write_manifest(self.run, self.manifest)
        if "reason" in fields:
            with suppress(OSError):
                self.emit("validation_stopped", durable=True, **fields)

    def _unforeseen(self, error: BaseException) -> PpgsError:
        return PpgsError(f"{type(error).__name__}: {error}", self.run.log, "the log has the details")

    def _work(self) -> None:
        manifest, run = self.manifest, self.run
        manifest.pid, manifest.host = os.getpid(), socket.gethostname()
        write_manifest(run, manifest)
        self.emit("validation_started", cases=None)
        shutil.rmtree(self._scratch.model, ignore_errors=True)
        self._scratch.path.mkdir(parents=True)
        from ppgs.nnunet.checkpoints.files import load_checkpoint
        from ppgs.nnunet.distributed.ranks import Ranks
        from ppgs.nnunet.host.devices import choose_device
        from ppgs.nnunet.host.energy import EnergyMeter
        from ppgs.nnunet.process.planning import Planning
        from ppgs.nnunet.process.session import Session
        from ppgs.nnunet.process.validation import segment_and_score

        source = run.checkpoint(self._which)
        content = load_checkpoint(source)
        device = choose_device(manifest.request.device, 1)
        # Nothing is trained: a finished run is validated on the cases that it was trained with.
        planned = Planning(run, manifest, self.roots, self.emit, 1, as_prepared=True).plan()
        unknown: list[dict[str, Any]] = [{} for _ in planned.schedule.stages]
        # Asked for this once: the run's own request stays what it was trained with.
        asked = manifest.request.model_copy(update={"npz": manifest.request.npz or self._npz})
        manifest = manifest.model_copy(update={"request": asked})
        job = planned.job(manifest, device, unknown, trained=True, continuing=True)
        energy = EnergyMeter(run.path, enabled=False)
        session = Session(job, run, Ranks(), self._stop, emit=self.emit, energy=energy)
        session.begin(content, source)
        result = segment_and_score(session, self._scratch, planned.dataset, self.emit, "ppgs validate")
        self._replace()
        self.emit("validation_finished", **result, durable=True)

    def _replace(self) -> None:
        target = self.run.validation_by(self._which)
        summary = read_json(self._scratch.summary)
        for case in summary["metric_per_case"]:
            case["prediction_file"] = str(target / Path(case["prediction_file"]).name)
        write_text(self._scratch.summary, json.dumps(summary, indent=4) + "\n")
        if target.exists():
            target.rename(self._scratch.path / "before")
        self._scratch.validation.rename(target)
