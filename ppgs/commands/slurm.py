"""Trainings as Slurm jobs through submitit: an array with one job per run, requeued until finished."""

from __future__ import annotations

import re
import secrets
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppgs.commands.slurm_job import TrainingJob
from ppgs.commands.train.folder import discard, never_began
from ppgs.commands.train.sweep import Planned
from ppgs.errors import BadInput, RunLocked
from ppgs.estimate.training_budget import usual_warning
from ppgs.runs.folder import RunFolder
from ppgs.runs.queue import mark, write_job
from ppgs.runs.sweep import FOLDER
from ppgs.tasks import Roots

# Options of sbatch with several values, between which there are commas too.
_LISTS = ("partition", "exclude", "nodelist", "mail_type", "gres", "dependency", "licenses", "clusters")
# Options without a value: they end a list.
_FLAGS = (
    *("exclusive", "requeue", "no-requeue", "overcommit", "oversubscribe", "contiguous", "hold", "spread-job"),
    *("reboot", "nice", "use-min-nodes", "wait", "get-user-env", "kill-on-invalid-dep", "ignore-pbs"),
    *("quiet", "verbose"),
)
_DEFAULT_MINUTES = 240
_CPUS = 8
# A job goes back into the queue at its time limit until it is done; TrainingJob ends what gets nowhere.
_FOR_EVER = 10_000
_NAMES = {"cpus": "cpus_per_task", "gpus": "gpus_per_node", "parallel": "array_parallelism"}
_OWN = frozenset(
    (
        *("partition", "time", "cpus_per_task", "gpus_per_node", "mem", "account", "qos", "constraint", "gres"),
        *("exclude", "nodelist", "comment", "array_parallelism", "mail_type", "mail_user", "exclusive"),
    )
)
_NUMBERS = ("cpus_per_task", "gpus_per_node", "array_parallelism")


@dataclass(frozen=True)
class Submitted:
    """A run and its job's id."""

    name: str
    run: RunFolder
    job: str


def _parts(text: str) -> list[str]:
    """Split `KEY=VALUE,KEY=VALUE`; a part without `=` belongs to the value before it (lists of nodes)."""
    parts: list[str] = []
    for part in (p.strip() for p in text.split(",") if p.strip()):
        before = parts[-1].partition("=")[0].strip().replace("-", "_") if parts else None
        if before in _LISTS and "=" not in part and part.replace("_", "-") not in _FLAGS:
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    return parts


def parse_options(given: Sequence[str], *, device: str, workers: int | None, gpus: int | None = None) -> dict[str, Any]:
    """Parse `--slurm partition=gpu,time=4h,cpus=8,mem=32G` for submitit; unknown keys are passed to sbatch.

    `gpus` is the training's `--gpus`; as many are requested from Slurm unless `options` name a number. Raises
    `BadInput`.
    """
    parameters: dict[str, Any] = {"time": _DEFAULT_MINUTES, "additional_parameters": {}}
    warning = None
    for part in (part for text in given for part in _parts(text)):
        key, equals, value = (text.strip() for text in part.partition("="))
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", key) or (equals and not value):
            raise BadInput(f"'{part}' is no option of Slurm", "--slurm", "write KEY=VALUE,KEY=VALUE")
        key = _NAMES.get(key.replace("-", "_"), key.replace("-", "_"))
        if key == "time":
            parameters["time"] = parse_minutes(value)
        elif key == "signal":
            warning = _seconds(value)
        elif key in _NUMBERS:
            if not value.isdigit() or (int(value) < 1 and key != "gpus_per_node"):
                raise BadInput(f"'{value}' is no number", f"--slurm {key}=", "give a number from 1 on")
            parameters[key] = int(value)
        elif key in _OWN:
            parameters[key] = value or True
        else:
            parameters["additional_parameters"][key.replace("_", "-")] = value or True
    if parameters["additional_parameters"].get("nodes", "1") != "1":
        raise BadInput("a job trains on one node", "--slurm nodes=", "for several start torchrun with sbatch and srun")
    requested = _requested(parameters)
    if gpus is not None and device != "cpu" and requested not in (None, gpus):
        raise BadInput(f"the training is to have {gpus} GPUs, the job {requested}", "--gpus", "say one alone")
    if device != "cpu" and not any(k in parameters for k in ("gpus_per_node", "gres")):
        parameters["gpus_per_node"] = gpus or 1
    processes = gpus or gpus_of(parameters)
    parameters.setdefault("cpus_per_task", processes * (_CPUS if workers is None else workers + 1))
    if parameters.get("gpus_per_node") == 0:
        del parameters["gpus_per_node"]
    parameters["signal_delay_s"] = warning or int(usual_warning(parameters["time"] * 60))
    if parameters["signal_delay_s"] >= parameters["time"] * 60:
        raise BadInput("the warning comes before the job begins", "--slurm signal=", "give less, or a longer time")
    return parameters


def gpus_of(parameters: dict[str, Any]) -> int:
    """Return the number of GPUs that a job requests, at least 1."""
    return max(1, _requested(parameters) or 1)


def _requested(parameters: dict[str, Any]) -> int | None:
    """Return the number of GPUs that the options name, None if they name none."""
    if "gpus_per_node" in parameters:
        return int(parameters["gpus_per_node"])
    # gpu, gpu:2, gpu:a100, gpu:a100:2
    kinds = [part.split(":") for part in str(parameters.get("gres", "")).split(",")]
    counts = [int(more[-1]) if more and more[-1].isdigit() else 1 for kind, *more in kinds if kind == "gpu"]
    return sum(counts) if counts else None


def parse_minutes(text: str) -> int:
    """Parse `4h`, `90m`, `1d12h`, or sbatch's `MM`, `HH:MM:SS`, `D-HH:MM:SS` as minutes. Raises `BadInput`."""
    match = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?:in)?)?", text)
    slurm = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d{1,2})(?::(\d{1,2}))?", text)
    minutes = 0
    if text.isdigit():
        minutes = int(text)
    elif match is not None and any(match.groups()):
        days, hours, rest = (int(g or 0) for g in match.groups())
        minutes = days * 1440 + hours * 60 + rest
    elif slurm is not None and (slurm[4] is not None or slurm[1] is not None):
        minutes = int(slurm[1] or 0) * 1440 + int(slurm[2]) * 60 + int(slurm[3])
    if minutes < 1:
        raise BadInput(f"'{text}' is no time of a job", "--slurm time=", "give 4h, 90m, 1d12h or 04:00:00")
    return minutes


def _seconds(text: str) -> int:
    match = re.fullmatch(r"(\d+)s?", text)
    if match is None or int(match[1]) < 1:
        raise BadInput(f"'{text}' is no number of seconds", "--slurm signal=", "give the seconds of warning, as 120")
    return int(match[1])


def script(planned: Sequence[Planned], parameters: dict[str, Any], roots: Roots) -> str:
    """Return the text that `submit` would hand to sbatch; needs no Slurm."""
    texts: list[str] = []
    for wave in waves(planned, roots):
        dependency = {"dependency": "afterok:JOBS_BEFORE"} if texts else {}
        texts.append(array_script(len(wave), parameters | {"job_name": _job_name(wave)} | dependency, roots))
    return "\n".join(texts)


def array_script(count: int, parameters: dict[str, Any], roots: Roots) -> str:
    """Return the text that `submit_array` would hand to sbatch for that many jobs; needs no Slurm."""
    folder = _folder(roots)
    several = {"map_count": count} if count > 1 else {}
    command = f"{_python()} -u -m submitit.core._submit {folder}"
    text = _submitit().slurm.slurm._make_sbatch_string(command=command, folder=folder, **parameters, **several)
    return str(text)


def executor(roots: Roots) -> Any:
    """Return submitit's executor with a new folder for its jobs; raises `BadInput` without submitit or Slurm."""
    try:
        return _submitit().SlurmExecutor(folder=_folder(roots), max_num_timeout=_FOR_EVER, python=_python())
    except RuntimeError:
        raise BadInput("there is no Slurm here: srun is not on the PATH", "--slurm", "use a login node") from None


def _python() -> str:
    """Return the shell's words that start Python with the signals of preemption ignored.

    submitit answers them only once it has loaded the job; before that they would end it as failed. A job that does not
    notice its preemption works on until Slurm puts it back into the queue.
    """
    return f'/bin/sh -c \'trap "" TERM USR1 USR2; exec "$0" "$@"\' {shlex.quote(sys.executable)}'


def submit_array(executor: Any, jobs: Sequence[Callable[[], int]], parameters: dict[str, Any]) -> list[str]:
    """Submit jobs as one array and return their ids; raises `BadInput` if Slurm refuses them."""
    executor.update_parameters(**parameters)
    try:
        with executor.batch():
            submitted = [executor.submit(job) for job in jobs]
        return [str(job.job_id) for job in submitted]
    except Exception as problem:  # sbatch's own words, in submitit's several kinds
        raise BadInput(f"Slurm refuses the job: {_last_line(problem)}", "--slurm", "see 'sinfo'") from None


def submit(planned: Sequence[Planned], parameters: dict[str, Any], roots: Roots) -> list[Submitted]:
    """Make the runs and submit one job for each; a cascade's second stages start when the first ones are finished.

    Raises `BadInput` where submitit or Slurm is missing or refuses the job. First stages that were submitted before
    their second ones were refused stay in the queue, and are named.
    """
    chosen = executor(roots)
    submitted: list[Submitted] = []
    before: list[str] = []
    for number, wave in enumerate(waves(planned, roots)):
        runs = [one.claim(roots, first_stage_is_there=number == 0) for one in wave]
        for run in runs:
            mark(run, "queued", "run_queued", where="Slurm")
        dependency = {"dependency": "afterok:" + ":".join(before)} if before else {}
        try:
            jobs = [TrainingJob(run.path, roots, warning=parameters["signal_delay_s"]) for run in runs]
            identifiers = submit_array(chosen, jobs, parameters | {"job_name": _job_name(wave)} | dependency)
        except BaseException as refused:
            for run in runs:
                # Ctrl-C: Slurm may have the job, which finds its run and may train it already.
                with suppress(RunLocked):
                    mark(run, "stopped", "run_stopped", reason="not submitted")
            if not isinstance(refused, BadInput):
                raise
            for run in runs:
                if never_began(run):
                    discard(run)
            remedy = "see 'sinfo'" + (f"; submitted are: {', '.join(before)}" if before else "")
            raise BadInput(str(refused), "--slurm", remedy) from None
        for one, run, job in zip(wave, runs, identifiers, strict=True):
            write_job(run, job)
            submitted.append(Submitted(one.manifest.name, run, job))
        before = sorted({job.split("_")[0] for job in identifiers})
    return submitted


def waves(planned: Sequence[Planned], roots: Roots) -> list[list[Planned]]:
    """Group the runs by a cascade's stages; each group starts when the one before it is done."""
    first = [one for one in planned if not _follows(one, planned, roots)]
    rest = [one for one in planned if one not in first]
    return [wave for wave in (first, rest) if wave]


def _follows(one: Planned, planned: Sequence[Planned], roots: Roots) -> bool:
    plans = roots.preprocessed / one.manifest.dataset / f"{one.manifest.plans}.json"
    return plans.is_file() and one.waits_for(planned, roots)


def _job_name(wave: Sequence[Planned]) -> str:
    names = {one.manifest.name for one in wave}
    return names.pop() if len(names) == 1 else f"ppgs-{wave[0].manifest.name.rsplit('-', 1)[0]}"


def _folder(roots: Roots) -> Path:
    """Return a new folder for a submission: Slurm may reuse job ids."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return roots.results / FOLDER.parent / "slurm" / f"{stamp}-{secrets.token_hex(2)}"


def _submitit() -> Any:
    try:
        import submitit
        import submitit.slurm.slurm
    except ImportError:
        raise BadInput("--slurm needs submitit", "--slurm", "pip install submitit") from None
    return submitit


def _last_line(problem: Exception) -> str:
    lines = [line for line in str(problem).splitlines() if line.strip()]
    return lines[-1].strip()[-200:] if lines else type(problem).__name__
