"""The checks of `doctor` that need torch or read images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from ppgs.doctor.findings import Finding, error, names_text, of_problem, ok, warning
from ppgs.doctor.folder import FolderCheck, check_folder
from ppgs.errors import PlansError, PpgsError
from ppgs.nnunet.host.devices import can_compile
from ppgs.nnunet.images.find import find_images
from ppgs.nnunet.preparation.conversion import SOURCE, Conversion
from ppgs.nnunet.preparation.raw_checks import Examination, Geometry, examine_images
from ppgs.plans import Dataset, load_plans_of
from ppgs.processes.limits import cpu_count
from ppgs.runs.prepared import difference, digests_of, look_at, read_record

Report = Callable[[int, int], None]


def check_torch() -> Iterator[Finding]:
    """Check that PyTorch can use the GPU that is there, and compile for it."""
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
    if not can_compile(torch.device("cuda")):
        what = f"{name} (capability {major}.{minor}) is too old to compile for: trains uncompiled"
        yield warning("compile", what, "networks train faster on a GPU of capability 7.0 or newer")
        return
    try:
        import triton
    except ImportError:
        remedy = "install triton, or set nnUNet_compile=f and train slower"
        yield warning("compile", "Triton is missing: torch.compile cannot work on the GPU", remedy)
    else:
        yield ok("compile", f"Triton {triton.__version__}")


def check_task(
    folder: Path, preprocessed: Path, converted: Path, *, decathlon: bool, geometry: Geometry, report: Report
) -> Iterator[Finding]:
    """Check a raw folder completely, reading each image and label once; calls `report(done, total)`.

    `converted` is the dataset in nnU-Net's layout: of a Decathlon folder what it was or would be converted to.
    """
    found = check_folder(folder, preprocessed, decathlon=decathlon)
    yield from found.findings
    examined = examine_images(found, decathlon=decathlon, geometry=geometry, report=report, threads=min(8, cpu_count()))
    if examined is not None and found.description.dataset is not None:
        yield from examined.findings
        yield from _check_test_images(
            folder / "imagesTs", found.description.dataset, examined, len(found.cases), report
        )
    yield from _check_plans(preprocessed)
    if not any(finding.level == "error" for finding in found.findings):
        yield from _check_prepared(found, preprocessed, converted if decathlon else None)


def _check_plans(preprocessed: Path) -> Iterator[Finding]:
    """Find plans that no training takes, such as copies under another name."""
    for file in sorted(preprocessed.glob("*Plans*.json")):
        try:
            load_plans_of(preprocessed, file.stem)
        except PlansError as wrong:
            problem = wrong.problems[0]
            yield warning("plans", problem.what, problem.remedy, problem.where)


def _check_prepared(found: FolderCheck, preprocessed: Path, converted: Path | None) -> Iterator[Finding]:
    """Check that what ppgs prepared earlier, if anything, still matches the raw files."""
    record = read_record(preprocessed)
    if record is None or not record.prepared:
        return
    threads = min(8, cpu_count())
    try:
        if converted is not None:
            if not (converted / SOURCE).is_file():
                return
            conversion = Conversion(found.folder, converted, lambda *_: None, processes=threads, checked="")
            changes = conversion.changes()
        else:
            files = {case.name: case.files for case in found.cases}
            changes = difference(record.digests, digests_of(look_at(files, record.cases, threads=threads)))
    except PpgsError as wrong:
        yield of_problem("preparation", wrong.problems[0])
        return
    if not changes:
        yield ok("preparation", "what is prepared fits the raw files")
        return
    remedy = "'ppgs prepare' or the next 'ppgs train' prepares these cases again; runs trained before stay as they are"
    yield warning("preparation", f"outdated: the raw files differ ({changes.text})", remedy, preprocessed)


def _check_test_images(
    test: Path, dataset: Dataset, examined: Examination, cases: int, report: Report
) -> Iterator[Finding]:
    """Find test images that are also training images, by their voxels. Only `doctor` checks this.

    They are reported as further cases after the `cases` for training.
    """
    by_digest: dict[str, list[str]] = {}
    for case in examined.facts:
        by_digest.setdefault(case.digest, []).append(case.name)
    if not test.is_dir() or not any(test.iterdir()):
        yield ok("test images", "there are none")
        return
    both, unreadable = [], []
    try:
        images = find_images(test, len(dataset.channels), dataset.file_ending).images
    except PpgsError as wrong:
        yield of_problem("test images", wrong.problems[0])
        return
    for done, image in enumerate(images, cases + 1):
        try:
            same = by_digest.get(examined.reader.read(image.files).digest)
        except Exception:  # every reader raises its own kinds
            unreadable.append(image.name)
        else:
            both += [f"{image.name} = {same[0]}"] if same is not None else []
        report(done, cases + len(images))
    if unreadable:
        what = f"cannot be read: {names_text(unreadable, 5)}"
        yield error("test images", what, "truncated or damaged: get them again", test)
    if both:
        remedy = "remove them from one side: a test on training images shows nothing"
        yield error("test images", f"are training images too: {names_text(both, 5)}", remedy, test, pairs=both)
    if not unreadable and not both:
        yield ok("test images", f"{len(images)}, none of which is a training image")
