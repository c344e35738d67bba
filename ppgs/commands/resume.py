"""`resume`: finds the run to continue and checks that it can be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ppgs.commands.gpus import check_gpus
from ppgs.errors import RunError, RunLocked
from ppgs.runs.atomic import write_text
from ppgs.runs.cascade import training_command
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import Lock
from ppgs.runs.manifest import Manifest, read_manifest, write_manifest
from ppgs.runs.queue import job_of, waits
from ppgs.runs.registry import find_run, newest_unfinished, refuse_held, refuse_lost_checkpoint
from ppgs.schedule import Schedule, dump, parse
from ppgs.schedule.rescale import rescaled
from ppgs.tasks import Roots


def choose_run(given: str | None, root: Path | None, environ: Mapping[str, str]) -> tuple[RunFolder, Roots]:
    """Return the run to continue and nnU-Net's folders for it.

    A run given as a folder determines the root, so that a copy elsewhere is continued there; `--root` overrides it.
    """
    roots = Roots.choose(root, environ)
    run = newest_unfinished(roots.results) if given is None else find_run(given, roots.results)
    return run, roots if root is not None else roots_of(run, roots)


def roots_of(run: RunFolder, roots: Roots) -> Roots:
    """Return nnU-Net's folders for a run: these if it is in them, else those around it, or these with its results."""
    if run.results == roots.results:
        return roots
    around = Roots.under(run.results.parent)
    return around if around.results == run.results else Roots(roots.raw, roots.preprocessed, run.results)


def rescale(run: RunFolder, epochs: int) -> str:
    """Change the number of epochs of a checked run; return the effect on stages and learning rate.

    Raises `ScheduleError` if there are too few, `RunError` where the training is done.
    """
    from ppgs.nnunet.checkpoints.files import load_checkpoint

    with Lock(run.lock):
        manifest = read_manifest(run)
        if run.checkpoint_final.is_file():
            raise _trained(run)
        frozen = parse(run.schedule.read_text(encoding="utf-8"), run.schedule) if run.schedule.is_file() else None
        if isinstance(frozen, Schedule) and frozen.decayed is not None:
            raise RunError(
                "the run's budget chooses its number of epochs", run.path, "leave --epochs out; the run ends on time"
            )
        if not isinstance(frozen, Schedule) or not run.checkpoint_latest.is_file():
            raise RunError(
                "the run has not trained yet", run.path, "start it again: ppgs train ... --epochs N --overwrite"
            )
        content = load_checkpoint(run.checkpoint_latest)
        done, rates = int(content["current_epoch"]), content["logging"]["lrs"]
        if done >= frozen.epochs:
            raise _trained(run)
        changed = rescaled(frozen, done, epochs)
        # In this order a kill at any point leaves a schedule that the manifest refers to.
        manifest.schedules = list(dict.fromkeys([*manifest.schedules, frozen.digest, changed.digest]))
        write_manifest(run, manifest)
        write_text(run.schedule, dump(changed))
        manifest.schedule_hash = changed.digest
        write_manifest(run, manifest)
    stages = ", ".join(f"{a.epochs} -> {b.epochs}" for a, b in zip(frozen.stages, changed.stages, strict=True))
    told = f"{frozen.epochs} epochs become {epochs}, {done} are trained and stay (epochs of the stages: {stages})"
    if done == 0 or not rates:
        return told
    first = float(rates[done - 1]) / frozen.learning_rate_at(done - 1)
    was, now = first * frozen.learning_rate_at(done), first * changed.learning_rate_at(done)
    return (
        f"{told}; the next epoch's learning rate is {now:.3g} instead of {was:.3g}, and falls to 0 until epoch {epochs}"
    )


def _trained(run: RunFolder) -> RunError:
    return RunError(
        "all epochs are trained, only the validation is left",
        run.path,
        "leave --epochs out; to train longer start another run: ppgs train TASK --epochs N --name NAME",
    )


def _finished(run: RunFolder, manifest: Manifest, epochs: int | None) -> RunError:
    if epochs is None:
        longer = "ppgs train TASK --epochs N --name NAME"
        remedy = f"'ppgs predict' uses it; to train longer start another run: {longer}"
        return RunError(f"the run '{manifest.name}' is finished", run.path, remedy)
    frozen = parse(run.schedule.read_text(encoding="utf-8"), run.schedule) if run.schedule.is_file() else None
    trained = f"its {frozen.epochs} epochs are trained" if isinstance(frozen, Schedule) else "all epochs are trained"
    command = training_command(run, manifest.request, manifest.configuration, f"{epochs}epochs")
    return RunError(
        f"the run '{manifest.name}' is finished: {trained} and its learning rate has fallen to 0, "
        "so --epochs cannot make it longer",
        run.path,
        f"train another run from the start: {command} --fold {manifest.fold} --epochs {epochs} "
        "(with the other options of this one)",
    )


def change_options(
    run: RunFolder,
    *,
    gpus: int | None = None,
    restarts: int | None = None,
    workers: int | None = None,
    loader_timeout: float | None = None,
    skip_nonfinite: bool = False,
    as_prepared: bool = False,
    until: str | None = None,
) -> None:
    """Have a checked run continue with these options of `TrainingRequest`; None and False leave one as it is.

    Raises `BadInput` if so many processes cannot be started on this machine.
    """
    options = {
        "gpus": gpus,
        "restarts": restarts,
        "workers": workers,
        "loader_timeout": loader_timeout,
        "skip_nonfinite": skip_nonfinite or None,
        "as_prepared": as_prepared or None,
        "until": until,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if not given:
        return
    with Lock(run.lock):
        manifest = read_manifest(run)
        check_gpus(gpus, manifest.request.device)
        manifest.request = manifest.request.model_copy(update=given)
        write_manifest(run, manifest)


def check_resumable(run: RunFolder, epochs: int | None = None) -> None:
    """Raise `RunError` or a subclass if the run cannot be continued (for `epochs` in total, if given)."""
    manifest = read_manifest(run)
    check_free(run, manifest)
    if manifest.status == "finished":
        raise _finished(run, manifest, epochs)
    refuse_lost_checkpoint(run)


def check_free(run: RunFolder, manifest: Manifest) -> None:
    """Raise `RunError` or a subclass if another process has the run or its folder is in the wrong place."""
    refuse_held(run, manifest.name)
    if waits(run, manifest):
        job = job_of(run) or "unknown"
        raise RunLocked(f"the run waits in Slurm as job {job}", run.path, f"scancel {job} takes it from there")
    place = Path(manifest.dataset, f"{manifest.trainer}__{manifest.plans}__{manifest.configuration}", run.path.name)
    if run.path.absolute().parts[-3:] != place.parts or run.fold != str(manifest.fold):
        raise RunError(
            "the run's folder was moved or renamed: nnU-Net would write elsewhere",
            run.path,
            f"move it to NNUNET_RESULTS/{place.with_name(f'fold_{manifest.fold}')}",
        )
