"""The checks of `doctor` that need torch or read images."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from ppgs.doctor.findings import Finding, error, of_problem, ok, warning
from ppgs.doctor.labels import check_labels, check_splits
from ppgs.errors import PpgsError
from ppgs.nnunet.environment import cpu_count
from ppgs.nnunet.prediction import find_images
from ppgs.nnunet.raw_data import CaseFacts, Examination, examine_raw
from ppgs.plans import Dataset, load_dataset
from ppgs.wording import patch_text

_RARE_CASES = 5
Report = Callable[[int, int], None]


def check_torch() -> Iterator[Finding]:
    """Whether PyTorch can use the GPU that is there, and compile for it."""
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        remedy = "with a GPU: install the PyTorch build that suits the driver (pytorch.org), or update the driver"
        kinds = "MPS and CPU" if torch.backends.mps.is_available() else "CPU"
        yield warning("torch", f"PyTorch {torch.__version__}, {built}: computes on {kinds}", remedy)
        return
    major, minor = torch.cuda.get_device_capability()
    name = torch.cuda.get_device_name()
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    text = f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {cudnn}, {name}"
    families = {a.split("_")[1].rstrip("af")[:-1] for a in torch.cuda.get_arch_list() if a.startswith("sm_")}
    if str(major) not in families:
        remedy = "install a PyTorch build that knows it (pytorch.org)"
        yield error("torch", f"{text}: this build does not know capability {major}.{minor}", remedy)
        return
    try:
        torch.ones(8, device="cuda").sum().item()
    except RuntimeError as problem:
        first = str(problem).splitlines()[0]
        yield error("torch", f"{text}: {first}", "is another process holding the GPU exclusively? see nvidia-smi")
        return
    yield ok("torch", text, capability=[major, minor])
    try:
        import triton
    except ImportError:
        remedy = "install triton, or set nnUNet_compile=f and train slower"
        yield warning("compile", "Triton is missing: torch.compile cannot work on the GPU", remedy)
    else:
        yield ok("compile", f"Triton {triton.__version__}")


def check_task(folder: Path, preprocessed: Path, *, decathlon: bool, report: Report) -> Iterator[Finding]:
    """Everything about the images and labels of a raw folder, each read once; `report(done, total)`."""
    try:
        dataset = load_dataset(folder / "dataset.json")
        found = examine_raw(folder, decathlon=decathlon, report=report, threads=min(8, cpu_count()), facts=True)
    except PpgsError as wrong:
        yield from (of_problem("dataset.json", p) for p in wrong.problems)
        return
    yield from check_labels(dataset)
    yield from (of_problem("cases", p) for p in found.problems.found)
    if not found.problems.found:
        yield ok("cases", f"{len(found.cases)} cases with finite voxels, known label values, matching labels")
    if found.facts:
        yield _check_geometry(found.facts)
        yield _check_places(found.facts)
        yield _check_constant(found.facts)
        yield _check_empty(found.facts)
        yield _check_classes(found.facts, dataset)
    yield from _check_duplicates(folder / "imagesTs", found)
    yield from _check_splits(preprocessed / "splits_final.json", found)


def _names(facts: list[CaseFacts]) -> list[str]:
    return [f.name for f in facts]


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _check_geometry(facts: list[CaseFacts]) -> Finding:
    median = [round(statistics.median(axis)) for axis in zip(*(f.shape for f in facts), strict=True)]
    spacings = list(zip(*(f.spacing for f in facts), strict=True))
    ranges = " x ".join(f"{min(a):.3g}-{max(a):.3g}" if min(a) < max(a) else f"{a[0]:.3g}" for a in spacings)
    data = {
        "median_shape": median,
        "spacing_min": [min(a) for a in spacings],
        "spacing_max": [max(a) for a in spacings],
    }
    if any(min(a) <= 0 for a in spacings):
        return error("geometry", f"spacing {ranges} mm is not positive", "correct the headers", **data)
    directions = Counter(tuple(round(v, 2) for v in f.direction) for f in facts if f.direction is not None)
    text = f"median shape {patch_text(median)}, spacing {ranges} mm (z y x)"
    if len(directions) > 1:
        usual = directions.most_common(1)[0][0]
        others = [f for f in facts if f.direction is not None and tuple(round(v, 2) for v in f.direction) != usual]
        remedy = "reorient all images alike: nnU-Net trains on voxels as they are stored"
        return warning("geometry", f"{text}; {_some(_names(others))} oriented otherwise", remedy, **data)
    return ok("geometry", text, **data)


def _check_places(facts: list[CaseFacts]) -> Finding:
    misplaced = [f for f in facts if f.is_misplaced]
    if misplaced:
        remedy = "are these the labels of these images? if so, copy the image's header to the label"
        return warning("places", f"labels lie elsewhere than their images: {_some(_names(misplaced))}", remedy)
    return ok("places", "labels and images have the same origin and orientation")


def _check_constant(facts: list[CaseFacts]) -> Finding:
    constant = [f for f in facts if f.is_constant]
    if constant:
        return warning(
            "intensities", f"all voxels are equal: {_some(_names(constant))}", "remove or replace these images"
        )
    return ok("intensities", "every image varies")


def _check_empty(facts: list[CaseFacts]) -> Finding:
    empty = [f for f in facts if not any(n for value, n in f.counts.items() if value != 0)]
    if empty:
        what = f"{len(empty)} of {len(facts)} cases have no foreground: {_some(_names(empty))}"
        remedy = "are their labels missing? healthy cases may stay, but count as NaN in Dice"
        return warning("empty cases", what, remedy, cases=_names(empty))
    return ok("empty cases", "every case has foreground")


def _check_classes(facts: list[CaseFacts], dataset: Dataset) -> Finding:
    total = sum(sum(f.counts.values()) for f in facts)
    rows = {}
    for name, value in dataset.foreground.items():
        values = value if isinstance(value, tuple) else (value,)
        voxels = [sum(f.counts.get(v, 0) for v in values) for f in facts]
        rows[name] = {"cases": sum(v > 0 for v in voxels), "voxels": sum(voxels), "share": sum(voxels) / max(1, total)}
    text = ", ".join(f"{name} {100 * r['share']:.2g} % in {r['cases']} cases" for name, r in rows.items())
    absent = [name for name, r in rows.items() if r["cases"] == 0]
    rare = [name for name, r in rows.items() if 0 < r["cases"] < _RARE_CASES]
    if absent:
        remedy = "remove them from dataset.json, or are their labels stored under other values?"
        return warning("classes", f"never labelled: {_some(absent)}; {text}", remedy, classes=rows)
    if rare:
        remedy = "with five folds some validate or train without them: trust no Dice of these classes"
        return warning("classes", f"in fewer than {_RARE_CASES} cases: {_some(rare)}; {text}", remedy, classes=rows)
    return ok("classes", text, classes=rows)


def _check_duplicates(test: Path, found: Examination) -> Iterator[Finding]:
    """Training images that are also test images, or that are there twice, by their voxels."""
    by_digest: dict[str, list[str]] = {}
    for case in found.facts:
        by_digest.setdefault(case.digest, []).append(case.name)
    twice = [" = ".join(names) for names in by_digest.values() if len(names) > 1]
    if twice:
        remedy = "remove the copies: folds would be validated on what they trained on"
        yield warning("duplicates", f"training images that are the same: {_some(twice)}", remedy, pairs=twice)
    else:
        yield ok("duplicates", "no training image is there twice")
    if not test.is_dir() or not any(test.iterdir()):
        yield ok("test images", "there are none")
        return
    both, unreadable = [], []
    try:
        images = find_images(test, len(found.dataset.channels), found.dataset.file_ending)
    except PpgsError as wrong:
        yield of_problem("test images", wrong.problems[0])
        return
    for image in images:
        try:
            same = by_digest.get(found.read(image.files, False).digest)
        except Exception:  # every reader raises its own kinds
            unreadable.append(image.name)
            continue
        if same is not None:
            both.append(f"{image.name} = {same[0]}")
    if unreadable:
        yield error("test images", f"cannot be read: {_some(unreadable)}", "truncated or damaged: get them anew", test)
    if both:
        remedy = "remove them from one side: a test on training images tells nothing"
        yield error("test images", f"are training images too: {_some(both)}", remedy, test, pairs=both)
    if not unreadable and not both:
        yield ok("test images", f"{len(images)}, none of which is a training image")


def _check_splits(path: Path, found: Examination) -> Iterator[Finding]:
    if not path.is_file():
        return
    try:
        yield check_splits(json.loads(path.read_text(encoding="utf-8")), [c.name for c in found.cases])
    except (ValueError, RecursionError, AttributeError, TypeError):
        yield error("splits", "cannot be read", "restore the file, or remove it to have nnU-Net make new splits", path)
