"""The training process: prepares, trains and validates one run. Started by `commands` as `python -m`.

All that it tells the world goes into the run's manifest and event log; its exit code is the command's.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppgs.errors import (
    BadInput,
    DamagedRun,
    DiskFull,
    ExitCode,
    LoaderFailed,
    NoCheckpoint,
    PathUnusable,
    PpgsError,
    StoppedEarly,
    WorkerLost,
)
from ppgs.estimate.preflight import check_memory, predict_costs
from ppgs.nnunet.host.environment import launched, let_waiting_threads_sleep, prepare_environment
from ppgs.plans import Plans, load_dataset, parse_dataset, parse_plans, read_json
from ppgs.processes.pool import watched_pools
from ppgs.processes.signals import guarded_forks
from ppgs.processes.stop import Stop
from ppgs.processes.worker import die_with_parent
from ppgs.runs.atomic import remove_leftovers, write_text
from ppgs.runs.disk_space import storage_failure, telling_full_disk
from ppgs.runs.events import EventLog, read_events
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import Lock, renewed
from ppgs.runs.manifest import Manifest, claim, moved_away, read_manifest, write_manifest
from ppgs.runs.older import OlderRuns, case_digests, read_data, write_data
from ppgs.runs.prepared import difference
from ppgs.runs.provenance import changed_versions, check_origin, origin_of
from ppgs.schedule import PlanFacts, Schedule, dump, parse
from ppgs.schedule.recipe import check
from ppgs.schedule.requests import make_schedule
from ppgs.tasks import Roots

if TYPE_CHECKING:
    from ppgs.nnunet.distributed.ranks import Ranks

_RESERVE = 1 << 18


class TrainingProcess:
    """One run from wherever it stands to its end."""

    def __init__(self, run: RunFolder, roots: Roots, ranks: Ranks | None = None) -> None:
        self.run, self.roots = run, roots
        # None: nobody else trains it, and nothing heavy is imported before the request is checked.
        self._ranks = ranks
        self._stop = Stop(self._end_now)
        self._mutex = threading.Lock()
        self._reported = 0.0
        self.manifest: Manifest
        self.log: EventLog

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
                return self._guarded()
        except PpgsError as error:
            sys.stderr.write(f"{error}\n")
            return error.exit_code
        except OSError as problem:
            # The lock or the event log itself: nowhere to tell it but here.
            told: PpgsError = DiskFull.of(problem) or BadInput(f"the run cannot be written: {problem}", self.run.path)
            sys.stderr.write(f"{told}\n")
            return told.exit_code

    def _guarded(self) -> ExitCode:
        try:
            self._work()
        except StoppedEarly as stop:
            if self._stop.reason is not None and isinstance(stop, WorkerLost | LoaderFailed):
                # What asked to stop may have reached a worker first.
                stop = StoppedEarly(f"stopped on request ({self._stop.reason})")
            self._end("stopped", "run_stopped", reason=str(stop), error=stop.to_record())
            return stop.exit_code
        except PpgsError as error:
            self._end("failed", "run_failed", reason=str(error), error=error.to_record())
            return error.exit_code
        except BaseException as error:
            failure = storage_failure(error, self.run.path)
            if failure is not None:
                self._end("stopped", "run_stopped", reason=str(failure), error=failure.to_record())
                return failure.exit_code
            traceback.print_exc()
            if self._stop.reason is not None:
                # What asked to stop may have ended a loader's process too: the last checkpoint is whole.
                self._end("stopped", "run_stopped", reason=f"stopped on request ({self._stop.reason})")
                return ExitCode.STOPPED
            wrapped = PathUnusable.of(error) or self._unforeseen(error)
            self._end("failed", "run_failed", reason=str(wrapped), error=wrapped.to_record())
            return wrapped.exit_code
        self._end("finished", "run_finished")
        return ExitCode.DONE

    def _unforeseen(self, error: BaseException) -> PpgsError:
        if not self.run.manifest.is_file():
            return moved_away(self.run)
        return PpgsError(
            f"{type(error).__name__}: {error}", self.run.log, "the log has the details; 'ppgs resume' continues"
        )

    def _end(self, status: Any, event: str, **fields: Any) -> None:
        """Tell it wherever that is still possible."""
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
        """The last resort where the main thread waits for processes that are gone."""
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
        # Room for the last words of a run whose disk becomes full.
        self.run.reserve.write_bytes(bytes(_RESERVE))
        write_manifest(self.run, self.manifest)
        self.emit("preparing", step="starting", done=0, total=0)
        # Heavy imports only now: nnU-Net's folders must be set, and a wrong request is told before.
        from ppgs.nnunet.host import devices

        ranks = self._ranks
        device = devices.choose_device(self.manifest.request.device, ranks.local_count if ranks is not None else 1)
        self.manifest.device = str(device)
        schedule, plans = self._prepare()
        self.manifest.schedule_hash = schedule.digest
        for change in changed_versions(self.manifest.versions, versions()):
            self.emit("warning", message=change)
        self.manifest.versions = versions()
        from ppgs.nnunet.inference.next_stage import make_first_stage

        begun = self.manifest.name if self._has_trained else None
        first_stage = make_first_stage(
            self.run, self.manifest, self.roots, parse_plans(plans), self._report, warn=self._warn, begun=begun
        )
        self._train(schedule, plans, device, first_stage)

    @property
    def _processes(self) -> int:
        """How many train the run together."""
        return 1 if self._ranks is None else self._ranks.count

    def _report(self, step: str, done: int, total: int) -> None:
        if done in (0, 1, total) or time.monotonic() - self._reported > 0.25:
            self._reported = time.monotonic()
            self.emit("preparing", step=step, done=done, total=total)

    def _prepare(self) -> tuple[Schedule, dict[str, Any]]:
        from ppgs.nnunet.preparation.pipeline import Preparation

        manifest, request = self.manifest, self.manifest.request
        preparation = Preparation(
            request.task_of(manifest.dataset),
            self.roots,
            manifest.plans,
            manifest.configuration,
            self._report,
            geometry=request.geometry,
            warn=self._warn,
            run=self.run,
            begun=manifest.name if self._has_trained else None,
            as_prepared=request.as_prepared,
        )
        preparation.run(lambda: self._note_origin(preparation.preprocessed))
        raw = read_json(preparation.plans_file)
        plans = parse_plans(raw, preparation.plans_file)
        facts = PlanFacts.of(plans, plans.configuration(manifest.configuration))
        preparation.check_fold(manifest.fold)
        if self.run.schedule.is_file():
            frozen = parse(self.run.schedule.read_text(encoding="utf-8"), self.run.schedule)
            if not isinstance(frozen, Schedule):
                raise DamagedRun("the frozen schedule has no stages", self.run.schedule)
            if manifest.schedule_hash not in (None, frozen.digest) and frozen.digest not in manifest.schedules:
                raise DamagedRun(
                    "schedule.yaml is not the schedule that this run began with",
                    self.run.schedule,
                    "restore it; to train another schedule start a new run",
                )
            check(frozen, facts, self.run.schedule)
            return frozen, raw
        schedule = self._fitting(make_schedule(request, facts), plans)
        write_text(self.run.schedule, dump(schedule))
        self._suggest_mirroring(schedule)
        return schedule, raw

    @property
    def _has_trained(self) -> bool:
        """Whether the run has trained on its data, so that it may continue on no other."""
        saved = (self.run.checkpoint_final, self.run.checkpoint_latest, self.run.checkpoint_best)
        return any(path.is_file() for path in saved) or any(
            record["type"] == "checkpoint_saved" for record in read_events(self.run.events)
        )

    def _warn(self, message: str) -> None:
        self.emit("warning", message=message)

    def _note_origin(self, preprocessed: Path) -> None:
        """Compare the prepared data with those that the run was begun with, or write down what they are."""
        manifest = self.manifest
        origin = origin_of(preprocessed, manifest.plans, manifest.fold)
        cases = case_digests(preprocessed, manifest.fold)
        if self._has_trained:
            before = read_data(self.run)
            if "data" not in manifest.origin and OlderRuns(preprocessed.parent)(manifest):
                manifest.origin["data"] = "not recorded"
            check_origin(
                manifest.origin,
                origin,
                preprocessed,
                manifest.plans,
                None if before is None else difference(before, cases),
            )
            manifest.origin = {**origin, **manifest.origin}
        else:
            manifest.origin = origin
        if cases:
            write_data(self.run, cases)
        write_manifest(self.run, manifest)

    def _suggest_mirroring(self, schedule: Schedule) -> None:
        sides = load_dataset(self.roots.preprocessed / self.manifest.dataset / "dataset.json").sides
        if sides is not None and schedule.mirroring is None:
            self.emit(
                "warning",
                message=f"'{sides[0]}' and '{sides[1]}' are told apart by side, which small patches that are mirrored "
                "cannot: train with --mirroring off (--mirroring on says that mirroring is meant)",
            )

    def _fitting(self, schedule: Schedule, plans: Plans) -> Schedule:
        """The schedule as it may train in the memory given (on a GPU: in what it has); raises `DoesNotFit`."""
        manifest, request = self.manifest, self.manifest.request
        on_gpu = manifest.device is not None and manifest.device.startswith("cuda")
        if request.gpu_memory is None and not on_gpu:
            return schedule
        configuration = plans.configuration(manifest.configuration)
        if not configuration.is_unet:
            self.emit("warning", message=f"memory is not estimated for {configuration.architecture}")
            return schedule
        self.emit("preparing", step="estimating memory", done=0, total=0)
        fitting, _, changes = check_memory(
            schedule,
            plans,
            plans.configuration(manifest.configuration),
            load_dataset(self.roots.preprocessed / manifest.dataset / "dataset.json"),
            gpu_memory=request.gpu_memory or "auto",
            device=str(manifest.device),
            apply_remedies=request.fit,
            gpus=self._processes,
        )
        for change in changes:
            self.emit("warning", message=f"changed to fit the memory: {change}")
        return fitting

    def _predicted(self, schedule: Schedule, plans: dict[str, Any]) -> list[dict[str, int]]:
        """Memory and FLOPs of every stage as estimated, for viewers and comparisons; empty where that fails."""
        self.emit("preparing", step="estimating costs", done=0, total=0)
        facts = parse_plans(plans)
        try:
            estimate = predict_costs(
                schedule,
                facts,
                facts.configuration(self.manifest.configuration),
                load_dataset(self.roots.preprocessed / self.manifest.dataset / "dataset.json"),
                device=str(self.manifest.device),
                gpus=self._processes,
            )
        except StoppedEarly:
            raise
        except Exception as problem:  # a network that cannot be traced trains all the same
            self.emit("warning", message=f"memory and FLOPs cannot be estimated: {problem}")
            return [{} for _ in schedule.stages]
        return [{"memory_bytes": s.memory.expected, "flops_per_iteration": s.flops} for s in estimate.stages]

    def _final_validation(self, trainer: Any) -> dict[str, int] | None:
        """What the final validation will have to do, for viewers; None if cases cannot be read."""
        from ppgs.nnunet.inference.windows import final_validation

        try:
            return final_validation(trainer)
        except StoppedEarly:
            raise
        except Exception:  # a damaged case is reported by whatever needs it
            return None

    def _train(self, schedule: Schedule, plans: dict[str, Any], device: Any, first_stage: Path | None) -> None:
        from ppgs.nnunet.checkpoints.files import load_checkpoint, require_room_for_checkpoints
        from ppgs.nnunet.distributed.ranks import Ranks
        from ppgs.nnunet.host.energy import EnergyMeter
        from ppgs.nnunet.trainer.factory import Job, make_trainer

        manifest, run = self.manifest, self.run
        content, source = None, None
        for source in (run.checkpoint_final, run.checkpoint_latest):
            if source.is_file():
                content = load_checkpoint(source)
                break
        saved = any(r["type"] == "checkpoint_saved" for r in read_events(run.events))
        if content is None and saved:
            raise NoCheckpoint("the run's checkpoint is gone", run.checkpoint_latest, "restore it from a backup")
        if content is not None:
            self._tell_disagreement(content["current_epoch"])
        ranks, request = self._ranks or Ranks(), manifest.request
        job = Job(
            manifest=manifest,
            schedule=schedule,
            plans=plans,
            dataset=read_json(self.roots.preprocessed / manifest.dataset / "dataset.json"),
            device=device.type,
            first_stage=None if first_stage is None else str(first_stage),
            predicted=self._predicted(schedule, plans),
            trained=run.checkpoint_final.is_file(),
            continuing=content is not None,
        )
        energy = EnergyMeter(run.path, enabled=request.energy)
        ranks.begin(job.model_dump_json())
        trainer = make_trainer(job, run, ranks, emit=self.emit, stop_requested=lambda: self._stop.reason, energy=energy)
        require_room_for_checkpoints(run, trainer.network)
        final = self._final_validation(trainer)
        ranks.connect(trainer.device)
        content = ranks.share(content)
        if content is not None and source is not None:
            trainer.restore(content, source)
        manifest.status = "training"
        write_manifest(run, manifest)
        own = content["ppgs"] if content is not None else {"iteration": 0}
        self.emit(
            "run_started",
            name=manifest.name,
            task=manifest.dataset,
            resumed=content is not None,
            epoch=trainer.current_epoch,
            iteration=own["iteration"],
            epochs=schedule.epochs,
            iterations_per_epoch=schedule.iterations_per_epoch,
            device=str(device),
            gpus=ranks.count * (device.type == "cuda"),
            processes=ranks.count,
            stages=[
                {
                    "patch_size": stage.patch_size,
                    "batch_size": stage.batch_size,
                    "epochs": stage.epochs,
                    "voxels": stage.voxels,
                    "validation_iterations": schedule.validation_iterations_at(schedule.first_epoch(index)),
                    **costs,
                }
                for index, (stage, costs) in enumerate(zip(schedule.stages, job.predicted, strict=True))
            ],
            final_validation=final,
        )
        # From here on a signal is acted upon between iterations, with a checkpoint.
        self._stop.interrupt = False
        if self._stop.reason is not None:
            raise StoppedEarly(f"stopped on request ({self._stop.reason})")
        if not job.trained:
            try:
                trainer.run_training()
            finally:
                trainer.close()
            if request.energy and energy.problem is not None:
                self.emit("warning", message=energy.problem)
            elif request.energy and ranks.local_count < ranks.count:
                self.emit("warning", message="energy was measured on one of the machines alone")
        self._stop.interrupt = True
        if self._stop.reason is not None:
            raise StoppedEarly(f"stopped before validation ({self._stop.reason})")
        self._validate(trainer)

    def _tell_disagreement(self, epochs: int) -> None:
        """The checkpoint says where the training stands; the log may know of later epochs, or lack some."""
        known = {r["epoch"] + 1 for r in read_events(self.run.events) if r["type"] == "epoch_finished" and "epoch" in r}
        logged = max(known, default=0)
        if logged != epochs:
            self.emit(
                "warning",
                message=f"the log knows {logged} epochs, the checkpoint {epochs}: the checkpoint counts"
                + (", later epochs are trained again" if logged > epochs else ", epochs before it are not in the log"),
            )

    def _validate(self, trainer: Any) -> None:
        from ppgs.nnunet.data.cases import check_properties
        from ppgs.nnunet.images.nifti import check_written
        from ppgs.nnunet.trainer.factory import validate_together

        self.manifest.status = "validating"
        write_manifest(self.run, self.manifest)
        _, cases = trainer.do_split()
        # nnU-Net opens a next stage's cases itself.
        for stage in trainer.configuration_manager.next_stage_names or ():
            identifier = trainer.plans_manager.get_configuration(stage).data_identifier
            folder = self.roots.preprocessed / self.manifest.dataset / identifier
            for properties in (folder / f"{case}.pkl" for case in cases):
                if properties.is_file():
                    check_properties(properties)
        self.emit("validation_started", cases=len(cases))
        shutil.rmtree(self.run.validation, ignore_errors=True)
        ending = trainer.dataset_json["file_ending"]
        ended = threading.Event()

        def poll() -> None:
            while not ended.wait(1.0):
                self.emit(
                    "validation_progress", done=len(list(self.run.validation.glob(f"*{ending}"))), total=len(cases)
                )

        thread = threading.Thread(target=poll, daemon=True)
        thread.start()
        try:
            with telling_full_disk(self.run.path, "make room, then 'ppgs resume' validates again"):
                validate_together(trainer, self.run, self.manifest.request.npz)
                check_written(*self.run.validation.glob(f"*{ending}"))
        except BaseException:
            # Its figures may be of segmentations that were cut off.
            self.run.summary.unlink(missing_ok=True)
            raise
        finally:
            ended.set()
            thread.join()
        summary = read_json(self.run.summary)
        names = {_key(v): k for k, v in parse_dataset(trainer.dataset_json).foreground.items()}
        dice = {names.get(key, key): float(values["Dice"]) for key, values in summary["mean"].items()}
        self.emit("validation_finished", dice=dice, mean=float(summary["foreground_mean"]["Dice"]), durable=True)


def _key(label: int | tuple[int, ...]) -> str:
    """How nnU-Net's summary.json writes a label or region."""
    return str(label if isinstance(label, int) or len(label) > 1 else label[0])


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("ppgs", "nnunetv2", "torch", "batchgeneratorsv2", "dynamic_network_architectures", "numpy"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def main() -> None:
    """`python -m ppgs.nnunet.process.leader FOLD_FOLDER [--with-parent PID]`, nnU-Net's folders in the environment.

    Under PyTorch's launcher it is one of several processes that train together. `--launched`, by
    `ppgs.nnunet.process.launch`: the exit code is 0 for every end that is in the manifest.
    """
    arguments = sys.argv[1:]
    let_waiting_threads_sleep()
    if "--with-parent" in arguments:
        die_with_parent(int(arguments[arguments.index("--with-parent") + 1]))
    run, roots = RunFolder(Path(arguments[0])), Roots.choose(None, os.environ)
    if launched(os.environ) > 1:
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
        # At once: Python's own end aborts where a thread asks the launcher's store.
        os._exit(0 if told else int(code))
    sys.exit(0 if told else int(code))


if __name__ == "__main__":
    main()
