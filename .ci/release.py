"""Make a release: check the version, write it everywhere, build and check the wheel, commit and tag.

    python .ci/release.py 0.2.0 --dry-run      # all of it in a temporary clone; the checkout stays as it is
    python .ci/release.py 0.2.0 --for-real

Nothing is uploaded or pushed: the last lines say how.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INIT, CITATION, CHANGELOG = "ppgs/__init__.py", "CITATION.cff", "CHANGELOG.md"
HEAD = "## Unreleased"


class Refused(Exception):
    """Reason why there is no release."""


def parse(version: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", version)
    if match is None:
        raise Refused(f"'{version}' is not a version such as 0.2.0")
    major, minor, patch = map(int, match.groups())
    return major, minor, patch


def released_changelog(text: str, version: str) -> str:
    """The changelog with what was unreleased under the version, below a new and empty head."""
    before, head, after = text.partition(f"{HEAD}\n")
    changes = after.split("\n## ", 1)[0]
    if not head or not re.search(r"^- ", changes, re.MULTILINE):
        raise Refused(f"{CHANGELOG} has no changes under '{HEAD}'")
    if f"## {version}\n" in text:
        raise Refused(f"{version}: {CHANGELOG} knows it already")
    return f"{before}{HEAD}\n\n## {version}\n{after}"


def replaced(text: str, pattern: str, new: str, where: str) -> str:
    found, count = re.subn(pattern, new, text, flags=re.MULTILINE)
    if count != 1:
        raise Refused(f"{where} gives its version {count} times, not once")
    return found


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise Refused(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def write_version(root: Path, version: str) -> None:
    init, citation, changelog = (root / name for name in (INIT, CITATION, CHANGELOG))
    text = init.read_text(encoding="utf-8")
    current = re.search(r'^__version__ = "(.*)"$', text, re.MULTILINE)
    if current is None or parse(version) <= parse(current[1]):
        raise Refused(f"{version} is not newer than {current[1] if current else 'the present version'}")
    contents = {
        init: replaced(text, r'^__version__ = ".*"$', f'__version__ = "{version}"', INIT),
        citation: replaced(citation.read_text(encoding="utf-8"), r"^version: .*$", f"version: {version}", CITATION),
        changelog: released_changelog(changelog.read_text(encoding="utf-8"), version),
    }
    for path, content in contents.items():
        path.write_text(content, encoding="utf-8")


def build(root: Path, version: str) -> Path:
    """Build sdist and wheel into `dist/`; return the wheel."""
    target = root / "dist"
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
    if done.returncode:
        raise Refused(f"the build failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    wheel = target / f"ppgs-{version}-py3-none-any.whl"
    if not wheel.is_file():
        raise Refused(f"the build made {', '.join(p.name for p in target.iterdir())}, not {wheel.name}")
    return wheel


def check_wheel(wheel: Path, version: str) -> None:
    """The wheel contains the package and its data, names the version, and runs outside the checkout."""
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        names = set(archive.namelist())
        wanted = {"ppgs/py.typed", "ppgs/shipped_schedules/efficiency.yaml", f"ppgs-{version}.dist-info/METADATA"}
        if missing := wanted - names:
            raise Refused(f"the wheel lacks {', '.join(sorted(missing))}")
        if not any(name.startswith("ppgs/shipped_schedules/msd/laws/") for name in names):
            raise Refused("the wheel lacks the traced laws of the shipped tasks")
        archive.extractall(folder)
        done = subprocess.run(
            [sys.executable, "-m", "ppgs", "--version"],
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": folder},
        )
    if done.stdout.split() != ["ppgs", version]:
        raise Refused(f"the wheel's 'ppgs --version' says {done.stdout.strip() or done.stderr[-500:]!r}")


def release(root: Path, version: str) -> None:
    parse(version)
    tag = f"v{version}"
    if git(root, "status", "--porcelain"):
        raise Refused("there are changes that are not committed")
    if git(root, "tag", "--list", tag):
        raise Refused(f"there is a tag {tag} already")
    write_version(root, version)
    try:
        wheel = build(root, version)
        check_wheel(wheel, version)
    except Refused:
        git(root, "checkout", "--", INIT, CITATION, CHANGELOG)
        raise
    git(root, "commit", "--quiet", "--message", f"Release {version}", "--", INIT, CITATION, CHANGELOG)
    git(root, "tag", "--annotate", tag, "--message", f"ppgs {version}")
    print(f"{version}: built and checked {wheel.name}, committed, tagged {tag}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--dry-run", action="store_true", help="in a temporary clone of what is committed")
    how.add_argument("--for-real", action="store_true", help="in this checkout")
    asked = parser.parse_args()
    try:
        if asked.for_real:
            release(ROOT, asked.version)
            print("now: git push --follow-tags, and upload dist/ with twine")
        else:
            with tempfile.TemporaryDirectory() as folder:
                clone = Path(folder, "clone")
                git(ROOT, "clone", "--quiet", str(ROOT), str(clone))
                git(clone, "config", "user.name", "dry run")
                git(clone, "config", "user.email", "dry-run@localhost")
                release(clone, asked.version)
            print("that was a dry run: nothing in this checkout has changed")
    except Refused as problem:
        print(f"no release: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
