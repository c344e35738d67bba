"""The exception tree: every error reports what is wrong, where, and what to do about it.

Errors are part of the product. A `PpgsError` carries one or more `Problem`s, so that everything that is wrong is
reported together, and the exit code that scripts rely on. It survives the way from the training process to the command
that started it as plain data (`to_record`, `from_record`).
"""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, ClassVar


class ExitCode(IntEnum):
    """The exit codes of every command."""

    DONE = 0
    UNFORESEEN = 1
    BAD_INPUT = 2
    DOES_NOT_FIT = 3
    UNUSABLE_RUN = 4
    STOPPED = 75


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: what, where (file, key or option) and the remedy; the last two may be empty."""

    what: str
    where: str = ""
    remedy: str = ""


class PpgsError(Exception):
    """Base of all errors that are shown to the user without a traceback."""

    exit_code: ClassVar[ExitCode] = ExitCode.UNFORESEEN

    def __init__(self, what: str, where: object = "", remedy: str = "", *, problems: Iterable[Problem] = ()) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems) or (Problem(what, str(where), remedy),)
        super().__init__(what)
        # Python callers see them below the traceback.
        for problem in self.problems:
            if problem.what != what:
                self.add_note(f"- {problem.what}")
            for name in ("where", "remedy"):
                if text := getattr(problem, name):
                    self.add_note(f"    {name}: {text}")

    def to_record(self) -> dict[str, Any]:
        """Convert the error to plain data for the event log."""
        return {
            "kind": type(self).__name__,
            "what": str(self),
            "problems": [asdict(p) for p in self.problems],
            "exit_code": int(self.exit_code),
        }


class BadInput(PpgsError):
    """An option, schedule, dataset, plans file or image given by the user cannot be used."""

    exit_code = ExitCode.BAD_INPUT


class ScheduleError(BadInput):
    """A schedule is wrong in itself, or was made for other plans."""


class PlansError(BadInput):
    """`nnUNetPlans.json` or `dataset.json` cannot be read or lacks something."""


class DatasetError(BadInput):
    """Images or labels that can be neither trained on nor segmented."""


class DeviceError(BadInput):
    """A device that this machine does not have."""


class Untranslatable(BadInput):
    """A transform or setting of the augmentation that cannot be applied to whole batches."""

    @classmethod
    def of(cls, what: str) -> Untranslatable:
        """Return this error for one transform or setting."""
        return cls(
            f"the batch-wise augmentation does not know {what}", "--augmentation", "train with --augmentation nnunet"
        )


class PathUnusable(BadInput):
    """A file or folder that is in the way, or that may not be read or written."""

    @classmethod
    def of(cls, error: BaseException) -> PathUnusable | None:
        """Return this error if a system error blames a path rather than the program; else None."""
        if not isinstance(error, OSError) or error.filename is None:
            return None
        what, remedy = _PATHS.get(error.errno or 0, ("", ""))
        return cls(what, os.fsdecode(error.filename), remedy) if what else None

    @classmethod
    def check_folder(cls, path: Path) -> None:
        """Raise this error where `as_folder` returns one."""
        if (unusable := cls.as_folder(path)) is not None:
            raise unusable

    @classmethod
    def as_folder(cls, path: Path) -> PathUnusable | None:
        """Return this error where a file, a link or a permission keeps a path from being used as a folder.

        None for a folder that can be read, and where nothing is there yet.
        """
        try:
            with os.scandir(path):
                return None
        except FileNotFoundError:
            dead = next((p for p in (path, *path.parents) if p.is_symlink() and not p.exists()), None)
            if dead is None:
                return None
            return cls(
                f"a link that leads nowhere ({dead.readlink()})", dead, "restore its target, or correct the link"
            )
        except OSError as error:
            return cls.of(error) or cls(f"cannot be read ({error.strerror})", path)


_OTHER_ROOT = "choose another --root, or"
_PATHS = {
    errno.EACCES: ("permission denied", f"{_OTHER_ROOT} ask for permission to use it"),
    errno.EPERM: ("permission denied", f"{_OTHER_ROOT} ask for permission to use it"),
    errno.EROFS: ("the file system is read-only", f"{_OTHER_ROOT} mount it writable"),
    errno.EEXIST: ("something else of this name is in the way", "rename or remove it, or choose another --root"),
    errno.ENOTDIR: ("a part of this path is a file, not a folder", "correct the path, or rename the file"),
    errno.EISDIR: ("a folder is where a file is expected", "rename or remove the folder"),
    errno.ELOOP: ("links lead in a circle", "correct or remove the links"),
    errno.ENAMETOOLONG: ("the name is too long for this file system", "choose a shorter name"),
}


class DoesNotFit(PpgsError):
    """The schedule needs more memory than there is."""

    exit_code = ExitCode.DOES_NOT_FIT


class RunError(PpgsError):
    """A run that cannot be continued or used."""

    exit_code = ExitCode.UNUSABLE_RUN


class NoSuchRun(RunError):
    """There is no run of that name or in that folder."""


class NoCheckpoint(RunError):
    """The run has no checkpoint yet."""


class DamagedRun(RunError):
    """A file of the run cannot be read or does not belong to it."""


class RunExists(RunError):
    """A new run would overwrite an existing one."""


class RunLocked(RunError):
    """A live process is working on the run."""


class StoppedEarly(PpgsError):
    """Stopped on request or by a signal; the run can be resumed."""

    exit_code = ExitCode.STOPPED


class DiskFull(StoppedEarly):
    """No space for a write. Everything written before is intact: make room, then resume the run."""

    @classmethod
    def of(cls, error: OSError, where: object = "") -> DiskFull | None:
        """Return this error if a system error reports that there is no space (disk or quota), else None."""
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return None
        place = where or error.filename or ""
        return cls(f"no room on the disk ({error.strerror})", place, "make room, then 'ppgs resume' continues")

    def with_remedy(self, remedy: str) -> DiskFull:
        """Return the same error with another remedy."""
        return type(self)(str(self), self.problems[0].where, remedy)


class StorageFailed(StoppedEarly):
    """A file system became read-only, broken or unreachable. Everything written before is intact."""

    @classmethod
    def of(cls, error: OSError, where: object = "") -> StorageFailed:
        """Return this error for a system error that blames the file system."""
        return cls(
            f"the file system failed ({error.strerror})",
            where or error.filename or "",
            "mend it or mount it again (the system's log says more), then 'ppgs resume' continues",
        )


class DownloadFailed(StoppedEarly):
    """A download broke off; what was received is kept; run the same command again to continue."""


class NonFiniteLoss(StoppedEarly):
    """The loss or its gradients became NaN or infinite; the weights are those from before."""


class LoaderFailed(StoppedEarly):
    """A loader process was killed or hangs; the run can be resumed."""


class WorkerLost(StoppedEarly):
    """A worker process died while it worked on a case; finished work is kept and the same command continues."""


class RankLost(StoppedEarly):
    """One of the processes that train a run together is gone; the run can be resumed."""


def _tree(base: type[PpgsError]) -> dict[str, type[PpgsError]]:
    found = {base.__name__: base}
    for child in base.__subclasses__():
        found.update(_tree(child))
    return found


def from_record(record: dict[str, Any]) -> PpgsError:
    """Return the error described by `PpgsError.to_record`.

    A kind that this process does not know, such as a later version's, becomes the base of those with its exit code.
    """
    bases: tuple[type[PpgsError], ...] = (BadInput, DoesNotFit, RunError, StoppedEarly)
    base = next((base for base in bases if base.exit_code == record.get("exit_code")), PpgsError)
    kind = _tree(PpgsError).get(str(record.get("kind")), base)
    problems = [
        Problem(str(p.get("what", "")), str(p.get("where", "")), str(p.get("remedy", "")))
        for p in record.get("problems", [])
        if isinstance(p, dict)
    ]
    return kind(str(record.get("what", "unknown error")), problems=problems)


@dataclass
class Problems:
    """Collects problems and raises them together."""

    found: list[Problem] = field(default_factory=list)

    def add(self, what: str, where: object = "", remedy: str = "") -> None:
        self.found.append(Problem(what, str(where), remedy))

    def raise_as(self, kind: type[PpgsError], summary: str) -> None:
        """Raise `kind` with all problems if there are any."""
        if not self.found:
            return
        raise kind(self.found[0].what if len(self.found) == 1 else summary, problems=self.found)


def nearest_name(word: str, known: Iterable[str]) -> str | None:
    """Return the known name most similar to this one (itself if known); None if nothing is similar."""
    return next(iter(difflib.get_close_matches(word, known, n=1)), None)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint such as `did you mean 'efficiency'?`, or the list of known names if nothing is similar."""
    names = list(known)
    if (near := nearest_name(word, names)) is not None:
        return f"did you mean '{near}'?"
    return f"known: {', '.join(names)}" if names else ""
