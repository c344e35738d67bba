"""`completion install`: finds where a shell looks for completions, and installs the script there."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ppgs.errors import BadInput
from ppgs.outputs import is_own, remember
from ppgs.runs.atomic import write_text

_MADE_BY = "made by 'ppgs completion"


@dataclass(frozen=True)
class Place:
    """Path of a shell's script, and the startup file that must load it (None if the shell finds it without)."""

    script: Path
    startup: Path | None


def login_shell(environ: Mapping[str, str], known: tuple[str, ...]) -> str:
    """Return the name of the user's login shell; raises `BadInput` for a shell without completions."""
    name = Path(environ.get("SHELL", "")).name
    if name not in known:
        what = f"there are no completions for the login shell '{name}'" if name else "SHELL does not say which shell"
        raise BadInput(what, "SHELL", f"name one: {', '.join(known)}")
    return name


def place_of(shell: str, environ: Mapping[str, str]) -> Place:
    """Return where the completions of a shell belong: bash, zsh or fish."""
    home = Path(environ.get("HOME") or Path.home())
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    if shell == "bash":
        return Place(data / "bash-completion" / "completions" / "ppgs", home / ".bashrc")
    if shell == "zsh":
        return Place(data / "zsh" / "site-functions" / "_ppgs", Path(environ.get("ZDOTDIR") or home) / ".zshrc")
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    return Place(config / "fish" / "completions" / "ppgs.fish", None)


def install(place: Place, script: str) -> list[str]:
    """Install the script and the line that loads it; return what was written where. Raises `BadInput`."""
    said = []
    try:
        there = place.script.read_text(encoding="utf-8") if place.script.is_file() else None
        if there is not None and _MADE_BY not in there and not is_own(place.script):
            raise BadInput("the file exists and was not written by ppgs", place.script, "move it elsewhere")
        if there == script:
            said.append(f"{place.script}: is there already")
        else:
            place.script.parent.mkdir(parents=True, exist_ok=True)
            # Through a link, as those who keep their settings in one folder have them.
            write_text(place.script.resolve(), script)
            remember(place.script)
            said.append(f"{place.script}: written")
        if place.startup is not None:
            said.append(_name_it(place.script, place.startup))
    except (OSError, UnicodeDecodeError) as problem:
        raise BadInput(f"cannot be installed: {problem}", place.script, "'ppgs completion show' prints it") from None
    return said


def _name_it(script: Path, startup: Path) -> str:
    before = startup.read_text(encoding="utf-8") if startup.is_file() else ""
    path = shlex.quote(str(script))
    line = f"[ -f {path} ] && . {path}"
    if line in before.splitlines():
        return f"{startup}: names it already"
    with startup.open("a", encoding="utf-8") as file:
        file.write(f"{'' if before.endswith(chr(10)) or not before else chr(10)}{line}\n")
    return f"{startup}: added '{line}'"
