"""Recognises errors that come from a package which cannot be imported, rather than from this one."""

from __future__ import annotations

import sys
import traceback

from ppgs.errors import BadInput


class BrokenInstallation(BadInput):
    """A package that is needed cannot be imported in this Python environment."""

    @classmethod
    def of(cls, error: BaseException) -> BrokenInstallation | None:
        """Return this error if `error` was raised while another project's package was imported, else None."""
        # pydoc, with which nnU-Net looks up classes by name, wraps what an import raises.
        cause = getattr(error, "value", None) if type(error).__name__ == "ErrorDuringImport" else error
        if not isinstance(cause, Exception):
            return None
        package = _package_being_imported(cause)
        missing = (cause.name or "").partition(".")[0] if isinstance(cause, ModuleNotFoundError) else ""
        if missing not in ("", "ppgs"):
            kind = "module" if missing in sys.stdlib_module_names else "package"
            what, package = f"the {kind} {missing} is missing", missing
        elif package is not None:
            first = (str(cause).strip().splitlines() or ["no reason given"])[0][:200]
            what = f"the package {package} cannot be imported: {type(cause).__name__}: {first}"
        else:
            return None
        if package in sys.stdlib_module_names:
            remedy = "use a complete Python on Linux or macOS; on Windows use WSL 2 (Windows Subsystem for Linux)"
        elif package in ("torchvision", "torchaudio"):
            remedy = f"install the {package} built for the installed torch (pytorch.org), or remove it"
        else:
            remedy = f"reinstall {package} in this environment; 'pip check' lists packages that do not fit together"
        return cls(what, sys.executable, remedy)


def _package_being_imported(error: Exception) -> str | None:
    """Return the package whose module-level code raised `error`; None where that is no import, or one of ours."""
    modules = [
        str(frame.f_globals.get("__name__"))
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_name == "<module>"
    ]
    package = modules[-1].partition(".")[0] if modules else "__main__"
    return None if package in ("__main__", "ppgs") else package
