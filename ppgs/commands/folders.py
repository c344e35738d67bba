"""Checks nnU-Net's three folders against each other and against the data, before anything is written to them."""

from __future__ import annotations

from ppgs.errors import BadInput, PathUnusable, Problems
from ppgs.outputs import data_around, lies_in, same_place
from ppgs.tasks import Roots, Task


def check_folders(roots: Roots, task: Task) -> None:
    """Raise `BadInput` if preparing or training the task would write into raw data or their source."""
    problems = Problems()
    folders = tuple(roots.folders.items())
    separate = "give nnUNet_raw, nnUNet_preprocessed and nnUNet_results folders of their own, or use --root"
    for name, folder in folders[1:]:
        if folder == roots.raw or same_place(folder, roots.raw):
            problems.add(f"nnUNet_raw and {name} are one folder: raw data would be written to", folder, separate)
    for name, folder in folders[:2]:
        # Raw data of nnU-Net's own kind are not needed once they are prepared.
        prepared = task.kind == "nnunet" and (roots.preprocessed / task.dataset / "dataset.json").is_file()
        needed = name != "nnUNet_raw" or not prepared
        if needed and (unusable := PathUnusable.as_folder(folder)) is not None:
            problems.found += unusable.problems
    for name, folder in folders:
        if task.kind == "decathlon" and task.source is not None and lies_in(folder, task.source):
            problems.add(f"{name} would lie in the task's own folder {task.source}", folder, "use another --root")
        elif (data := data_around(folder / "any")) is not None:
            problems.add(f"{name} would lie in {data}", folder, "use another --root")
    problems.raise_as(BadInput, "the folders to write to overlap with the data")
