"""The training process: prepares, trains and validates one run. Started by `commands` as `python -m`.

It reports only through the run's manifest and event log; its exit code is the command's.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import threading
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ppgs.errors import (
    BadInput,
    DiskFull,
    ExitCode,
    LoaderFailed,
    NoCheckpoint,
    PathUnusable,
    PpgsError,
    StoppedEarly,
    WorkerLost,
)
from ppgs.processes.pool import watched_pools
from ppgs.processes.signals import guarded_forks
from ppgs.processes.stop import Stop
from ppgs.processes.temporary import choose_temporary_folder
from ppgs.runs.atomic import remove_leftovers
from ppgs.runs.disk_space import storage_failure
from ppgs.runs.events import EventLog, read_events
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import Lock, renewed
from ppgs.runs.manifest import Manifest, claim, moved_away, read_manifest, write_manifest
from ppgs.runs.provenance import changed_versions
from ppgs.runs.registry import has_trained, refuse_lost_checkpoint
from ppgs.tasks import Roots

if TYPE_CHECKING:
    from ppgs.nnunet.checkpoints.pretrained import Pretrained
    from ppgs.nnunet.distributed.ranks import Ranks
    from ppgs.nnunet.process.planning import Planned, Planning
    from ppgs.nnunet.trainer.factory import Job

_RESERVE = 1 << 18
# Seconds of a training's end besides the windows of the final validation: nnU-Net's figure after the last epoch, where
# it was not timed, and the last checkpoints with the validation's start and summary (0.7 to 1.7 on two cores).
_FIGURE, _STARTING = 2.0, 1.0


class TrainingProcess:
    """One run, from its current state to its end."""

    def __init__(self, run: RunFolder, roots: Roots, ranks: Ranks | None = None) -> None:
        self.run, self.roots = run, roots
        # None: no other process trains it, and nothing heavy is imported before the request is checked.
        self._ranks = ranks
        self._stop = Stop(self._end_now)
        self._mutex = threading.Lock()
        self.manifest: Manifest
        self.log: EventLog
        # Its schedule was not settled before this process.
        self._is_new = False

    def main(self) -> ExitCode:
        """Do the run and return the exit code; every end is in the event log and the manifest."""
        self._stop.install()
        try:
            with (
                guarded_forks(),
                watched_pools(),
                Lock(self.run.lock) as lock,
                renewed(lock),
                EventLog(self.run.events) as self.log,
            ):
                self.manifest = read_manifest(self.run)
                self._is_new = self.manifest.schedule_hash is None
                return self._guarded()
        except PpgsError as error:
            told = error
        except OSError as problem:
            # The lock or the event log itself: it can be reported only here.
            told = DiskFull.of(problem) or BadInput(f"the run cannot be written: {problem}", self.run.path)
        # The command shows this line as the error, which a stop on request is not. The log's disk may be full, too.
        if self._stop.reason is None:
            with suppress(OSError):
                sys.stderr.write(f"{told}\n")
        return told.exit_code

    def _guarded(self) -> ExitCode:
        try:
            self._work()
        except StoppedEarly as stop:
            if self._stop.reason is not None and isinstance(stop, WorkerLost | LoaderFailed):
                # The stop signal may have reached a worker first.
                stop = StoppedEarly(f"stopped on request ({self._stop.reason})")
            self._end("stopped", "run_stopped", reason=str(stop), error=stop.to_record())
            return stop.exit_code
        except PpgsError as error:
            self._let_correct(error)
            self._end("failed", "run_failed", reason=str(error), error=error.to_record())
            return error.exit_code
        except BaseException as error:
            failure = storage_failure(error, self.run.path)
            if failure is not None:
                self._end("stopped", "run_stopped", reason=str(failure), error=failure.to_record())
                return failure.exit_code
            traceback.print_exc()
            if self._stop.reason is not None:
                # The stop signal may have ended a data-loader worker too: the last checkpoint is complete.
                self._end("stopped", "run_stopped", reason=f"stopped on request ({self._stop.reason})")
                return ExitCode.STOPPED
            wrapped = PathUnusable.of(error) or self._unforeseen(error)
            self._end("failed", "run_failed", reason=str(wrapped), error=wrapped.to_record())
            return wrapped.exit_code
        self._end("finished", "run_finished")
        return ExitCode.DONE

    def _let_correct(self, error: PpgsError) -> None:
        """Have the command remove a new run whose request is wrong, so that the corrected one can begin it."""
        if not self._is_new or self.manifest.schedule_hash is None or not isinstance(error, BadInput):
            return
        if not has_trained(self.run):
            self.manifest.schedule_hash = None

    def _unforeseen(self, error: BaseException) -> PpgsError:
        if not self.run.manifest.is_file():
            return moved_away(self.run)
        return PpgsError(
            f"{type(error).__name__}: {error}", self.run.log, "the log has the details; 'ppgs resume' continues"
        )

    def _end(self, status: Any, event: str, **fields: Any) -> None:
        """Record the end wherever that is still possible."""
        self.manifest.status = status
        self.manifest.error = fields.get("error")
        self.manifest.pid = None
        with suppress(OSError):
            self.run.reserve.unlink(missing_ok=True)
        with suppress(OSError):
            write_manifest(self.run, self.manifest)
        with suppress(OSError):
            self.emit(event, durable=True, **fields)
        if "reason" in fields:
            with suppress(OSError):
                sys.stderr.write(f"{fields['reason']}\n")

    def _end_now(self, reason: str) -> None:
        """Exit at once when the main thread waits for processes that are gone: the last resort."""
        self._end("stopped", "run_stopped", reason=reason)
        with suppress(OSError):
            self.run.lock.unlink()
        os._exit(ExitCode.STOPPED)

    def emit(self, kind: str, **fields: Any) -> None:
        with self._mutex:
            self.log.append(kind, **fields)

    def _work(self) -> None:
        claim(self.manifest)
        remove_leftovers(self.run.path, self.run.own, self.run.slices)
        # Reserve space so that the final status can be written when the disk is full.
        self.run.reserve.write_bytes(bytes(_RESERVE))
        write_manifest(self.run, self.manifest)
        self.emit("preparing", step="starting", done=0, total=0)
        # Heavy imports only now: nnU-Net's folders must be set, and a wrong request is reported first.
        from ppgs.nnunet.host import devices
        from ppgs.nnunet.process.planning import Planning

        manifest, ranks = self.manifest, self._ranks
        processes = 1 if ranks is None else ranks.local_count
        device = devices.choose_device(manifest.request.device, processes)
        manifest.device = str(device)
        if devices.workers_of(manifest.request.workers, device, processes) > 0:
            choose_temporary_folder(sockets=True)
        planning = Planning(self.run, manifest, self.roots, self.emit, 1 if ranks is None else ranks.count)
        pretrained = self._pretrained()
        planned = planning.plan()
        manifest.schedule_hash = planned.schedule.digest
        if pretrained is not None:
            self._tell_other_plans(pretrained, planned)
        for change in changed_versions(manifest.versions, versions()):
            self.emit("warning", message=change)
        manifest.versions = versions()
        self._train(planning, planned, device, pretrained)

    def _pretrained(self) -> Pretrained | None:
        """Return the weights that the run starts from, read before the preparation; None once it has its own."""
        from ppgs.nnunet.checkpoints.pretrained import read_pretrained

        source, kept = self.manifest.request.pretrained, self.run.pretrained
        if source is None or has_trained(self.run):
            return None
        if not kept.is_file():
            raise NoCheckpoint("the weights that the run starts from are gone", kept, f"copy {source} there")
        pretrained = read_pretrained(kept, source)
        self.manifest.pretrained = pretrained.facts(source)
        return pretrained

    def _tell_other_plans(self, pretrained: Pretrained, planned: Planned) -> None:
        request, configuration = self.manifest.request, self.manifest.configuration
        source = str(request.pretrained)
        if (advice := pretrained.advice(planned.raw_plans, configuration, request.task, source)) is not None:
            self.emit("warning", message=advice)

    def _train(self, planning: Planning, planned: Planned, device: Any, pretrained: Pretrained | None) -> None:
        from ppgs.nnunet.checkpoints.files import load_checkpoint, require_room_for_checkpoints
        from ppgs.nnunet.distributed.ranks import Ranks
        from ppgs.nnunet.host.energy import EnergyMeter
        from ppgs.nnunet.process.session import Session
        from ppgs.nnunet.process.validation import validate

        manifest, run, request = self.manifest, self.run, self.manifest.request
        source = run.checkpoint_final if run.checkpoint_final.is_file() else run.checkpoint_latest
        content = load_checkpoint(source) if source.is_file() else None
        if content is None:
            refuse_lost_checkpoint(run)
        else:
            self._tell_disagreement(content["current_epoch"])
        trained, continuing = run.checkpoint_final.is_file(), content is not None
        job = planned.job(manifest, device, planning.predicted(planned), trained=trained, continuing=continuing)
        ranks = self._ranks or Ranks()
        ranks.begin(job.model_dump_json)
        energy = EnergyMeter(run.path, enabled=request.energy)
        if planned.planner is not None:
            planned.planner.costs = _costs(job)
        session = Session(job, run, ranks, self._stop, emit=self.emit, energy=energy, plan=planned.planner)
        require_room_for_checkpoints(run, session.trainer.network)
        work = self._final_validation(session.trainer)
        session.begin(content, source, None if pretrained is None else pretrained.weights)
        if pretrained is None:
            run.pretrained.unlink(missing_ok=True)
        manifest.status = "training"
        write_manifest(run, manifest)
        self._tell_start(job, session.trainer, 0 if content is None else content["ppgs"]["iteration"], work)
        session.train()
        if not job.trained and request.energy:
            if energy.problem is not None:
                self.emit("warning", message=energy.problem)
            elif ranks.local_count < ranks.count:
                self.emit("warning", message="energy was measured on one of the machines alone")
        manifest.status = "validating"
        write_manifest(run, manifest)
        run.pretrained.unlink(missing_ok=True)
        validate(session, run, planned.dataset, self.emit)

    def _final_validation(self, trainer: Any) -> dict[str, float | None] | None:
        """Return the work of the final validation, for viewers; None if cases cannot be read."""
        from ppgs.nnunet.inference.validation_work import final_validation, pass_seconds
        from ppgs.nnunet.trainer.reporting import figure_seconds

        try:
            work = final_validation(trainer)
            # Drawing takes seconds, which are worth it where the training must end on time.
            figure = figure_seconds() if self.manifest.request.ends is not None else None
            start = _STARTING + (_FIGURE if figure is None else figure)
            return {**work, "pass_seconds": pass_seconds(trainer), "start_seconds": start}
        except StoppedEarly:
            raise
        except Exception:  # a damaged case is reported by whatever needs it
            return None

    def _tell_start(
        self, job: Job, trainer: Any, iteration: int, final_validation: dict[str, float | None] | None
    ) -> None:
        from ppgs.nnunet.process.budget import described

        schedule, ranks = job.schedule, trainer.settings.ranks
        self.emit(
            "run_started",
            name=self.manifest.name,
            task=self.manifest.dataset,
            resumed=job.continuing,
            epoch=trainer.current_epoch,
            iteration=iteration,
            epochs=schedule.epochs,
            iterations_per_epoch=schedule.iterations_per_epoch,
            device=self.manifest.device,
            gpus=ranks.count * (trainer.device.type == "cuda"),
            processes=ranks.count,
            stages=described(schedule, _costs(job)),
            final_validation=final_validation,
            budget=self.manifest.request.ends,
        )

    def _tell_disagreement(self, epochs: int) -> None:
        """Warn if log and checkpoint disagree: the checkpoint defines the state; the log may have more or less."""
        known = {r["epoch"] + 1 for r in read_events(self.run.events) if r["type"] == "epoch_finished" and "epoch" in r}
        logged = max(known, default=0)
        if logged != epochs:
            self.emit(
                "warning",
                message=f"the log knows {logged} epochs, the checkpoint {epochs}: the checkpoint counts"
                + (", later epochs are trained again" if logged > epochs else ", epochs before it are not in the log"),
            )


def _costs(job: Job) -> dict[tuple[tuple[int, ...], int], dict[str, Any]]:
    """Return the estimated costs of the stages by patch and batch size."""
    stages = zip(job.schedule.stages, job.predicted, strict=True)
    return {(stage.patch_size, stage.batch_size): costs for stage, costs in stages}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("ppgs", "nnunetv2", "torch", "batchgeneratorsv2", "dynamic_network_architectures", "numpy"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
