"""Collects what a GPU machine without a network needs beside this checkout, its own PyTorch and NumPy.

    python benchmarks/gpu_prepare.py [--folder .gpu] [--plans DIR] [--python 3.12] [--present FILE] [--itk]

Downloads wheels for Linux on x86-64 in the versions of `constraints.txt`, builds those that come as source, copies the
plans of the Decathlon's tasks, and writes `install.sh` for the other machine. `--present` is that machine's `pip list
--format=freeze`: what it has is not carried. Without `--itk` a stub takes SimpleITK's place, with which training from
prepared cases works; `--itk` collects SimpleITK alone, into its own folder (give another `--folder`), for
validation and prediction. Fails where the folder would be larger than `--most` MiB.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parents[1]
# What a training imports and a machine for PyTorch lacks.
_WHEELS = (
    "acvl_utils", "annotated-types", "batchgenerators", "batchgeneratorsv2", "blosc2", "connected-components-3d",
    "dynamic_network_architectures", "httpx", "ndindex", "nibabel", "nnunetv2", "numexpr", "platformdirs", "pooch",
    "pydantic", "pydantic_core", "typing_extensions", "typing-inspection",
)  # fmt: skip
# Carried even where they are present: pydantic needs a version that a machine for PyTorch may lack.
_ALWAYS = {"typing-extensions"}
# Named by their needs, but imported in no training, or replaced by the stub. Without CodeCarbon the battery reads the
# GPU's own energy counter.
_UNUSED = {
    "argparse", "codecarbon", "dicom2nifti", "fft-conv-pytorch", "future", "graphviz", "imagecodecs", "jinja2",
    "simpleitk", "surface-distance", "textual", "textual-hires-canvas", "textual-plot", "timm", "unittest2", "yacs",
}  # fmt: skip
_GLIBC = (39, 35, 34, 31, 28, 27, 24, 17)

_INSTALL = """\
# Source this on the GPU machine, in the checkout: . FOLDER/install.sh [SITE]
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
site="${1:-/tmp/ppgs-site}"
python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" \\
    "$here"/wheels/*.whl || return
case ":$PYTHONPATH:" in *":$site:"*) ;; *) PYTHONPATH="$site:$PWD${PYTHONPATH:+:$PYTHONPATH}" ;; esac
if [ -d "$here/stubs" ] && ! python3 -c 'import SimpleITK' 2>/dev/null; then PYTHONPATH="$PYTHONPATH:$here/stubs"; fi
export PYTHONPATH
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / ".gpu")
    parser.add_argument("--plans", type=Path, help="folder of DatasetNNN_NAME with the Decathlon's plans")
    parser.add_argument("--python", default="3.12")
    parser.add_argument("--present", type=Path)
    parser.add_argument("--itk", action="store_true")
    parser.add_argument("--most", type=float, default=60.0, help="MiB")
    return parser.parse_args()


def platforms() -> list[str]:
    return [f"manylinux_2_{n}_x86_64" for n in _GLIBC] + ["manylinux2014_x86_64", "manylinux1_x86_64"]


def collect(names: list[str], folder: Path, python: str) -> None:
    """One wheel of each name, as tested; built from source if there is none."""
    folder.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    chosen = [option for platform in platforms() for option in ("--platform", platform)]
    for name, asked in pinned(names).items():
        download = [*pip, "download", "-q", "--no-deps", "--only-binary=:all:", "--python-version", python, *chosen]
        done = subprocess.run([*download, "-d", str(folder), asked], capture_output=True, text=True)
        if done.returncode:
            build = [*pip, "wheel", "-q", "--no-deps", "-w", str(folder), asked]
            built = subprocess.run(build, capture_output=True, text=True)
            if built.returncode:
                sys.exit(f"{name}: neither a wheel nor a source that can be built\n{done.stderr}\n{built.stderr}")


def pinned(names: list[str]) -> dict[str, str]:
    """Requirements with the versions of `constraints.txt`, by name; those that it lacks in any version."""
    known = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"([A-Za-z0-9_.-]+)==(\S+)", line.strip()):
            known[canonicalize_name(match[1])] = f"{match[1]}=={match[2]}"
    return {name: known.get(canonicalize_name(name), name) for name in names}


def unfitting(folder: Path, python: str) -> list[str]:
    """Wheels that this Python on Linux and x86-64 does not take."""
    version = tuple(int(part) for part in python.split("."))
    interpreter = f"cp{version[0]}{version[1]}"
    taken: set[Tag] = {
        *cpython_tags(version, platforms=platforms()),
        *compatible_tags(version, interpreter=interpreter, platforms=platforms()),
    }
    return [path.name for path in sorted(folder.glob("*.whl")) if not parse_wheel_filename(path.name)[3] & taken]


def missing(folder: Path, present: set[str], python: str) -> list[str]:
    """Return requirements of the wheels that are neither among them, nor present, nor known to be unused."""
    have = {str(parse_wheel_filename(path.name)[0]) for path in folder.glob("*.whl")} | present | _UNUSED
    found = set()
    for path in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(path) as wheel:
            (metadata,) = [n for n in wheel.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n)]
            text = wheel.read(metadata).decode("utf-8", "replace")
        for line in Parser().parsestr(text, headersonly=True).get_all("Requires-Dist") or []:
            need = Requirement(line)
            there = {"extra": "", "python_version": python, "sys_platform": "linux", "platform_machine": "x86_64"}
            if need.marker is not None and not need.marker.evaluate(there):
                continue
            if canonicalize_name(need.name) not in have:
                found.add(f"{need.name} (needed by {path.name.split('-')[0]})")
    return sorted(found)


def mebibytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def fill(folder: Path, options: argparse.Namespace) -> None:
    present: set[str] = set()
    if options.present is not None:
        present = {canonicalize_name(re.split(r"[=<>@ ]", line)[0]) for line in options.present.read_text().split("\n")}
    spared = present - _ALWAYS
    names = ["SimpleITK"] if options.itk else [n for n in _WHEELS if canonicalize_name(n) not in spared]
    collect(names, folder / "wheels", options.python)
    if wrong := unfitting(folder / "wheels", options.python):
        sys.exit(f"not for Python {options.python} on Linux and x86-64: {', '.join(wrong)}")
    if not options.itk:
        shutil.copytree(ROOT / "benchmarks" / "stubs", folder / "stubs", ignore=shutil.ignore_patterns("__pycache__"))
    if options.plans is not None:
        for plans in sorted(options.plans.glob("Dataset*/nnUNetPlans.json")):
            place = folder / "plans" / plans.parent.name
            place.mkdir(parents=True)
            for file in ("nnUNetPlans.json", "dataset.json"):
                shutil.copyfile(plans.parent / file, place / file)
    (folder / "install.sh").write_text(_INSTALL, encoding="utf-8")
    if options.present is not None and (lacking := missing(folder / "wheels", present, options.python)):
        print(f"neither carried nor present: {', '.join(lacking)}")


def main() -> None:
    options = arguments()
    options.folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder.parent, prefix=".gpu-part-") as place:
        made = Path(place) / "made"
        fill(made, options)
        total = mebibytes(made)
        if total > options.most:
            sys.exit(f"{total:.1f} MiB were collected, at most {options.most:g} travel (--most)")
        shutil.rmtree(options.folder, ignore_errors=True)
        made.rename(options.folder)
    count = len(list((options.folder / "wheels").glob("*.whl")))
    print(f"{options.folder}: {count} wheels, {total:.1f} MiB in all. On the GPU machine, in the checkout:")
    print(
        f". {options.folder.name}/install.sh && python3 benchmarks/gpu_battery.py 0 --out out --root /tmp/root "
        f"--plans {options.folder.name}/plans"
    )


if __name__ == "__main__":
    main()
