"""nnU-Net's trainer classes and a lab's own ones, read from their source without importing nnU-Net.

`ppgs train --trainer NAME` puts the curriculum on top of such a class. A class is found where nnU-Net finds it
(`nnunetv2.utilities.find_objects`): among its own, then in the folders of `nnUNet_extTrainer`.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from ppgs import upstream
from ppgs.errors import BadInput, nearest

DEFAULT = "nnUNetTrainer"
EXTERNAL = "nnUNet_extTrainer"

# What the curriculum must own, and why a class that has its own cannot be trained with it.
REFUSED = {
    "run_training": "it has its own training loop, which knows no stages",
    "train_step": "it has its own training step, which cannot be repeated in parts or stopped exactly",
    "get_dataloaders": "it loads its own batches, which are not functions of seed, epoch and iteration",
    "get_plain_dataloaders": "it loads its own batches, which are not functions of seed, epoch and iteration",
    "save_checkpoint": "it has its own checkpoints, which do not hold what an exact resume needs",
    "load_checkpoint": "it has its own checkpoints, which do not hold what an exact resume needs",
    "perform_actual_validation": "it has its own validation, which would not be used",
    "do_split": "it has its own split of the cases, so that the run's fold would not be what it says",
    "get_tr_and_val_datasets": "it chooses its own cases, so that the run's fold would not be what it says",
    "_set_batch_size_and_oversample": "it sets its own batch size, which is the schedule's business",
}
# A class that has it may mirror other axes than nnU-Net does.
MIRRORS = "configure_rotation_dummyDA_mirroring_and_inital_patch_size"
# Attributes of nnU-Net's trainer that are read from it (`ppgs.nnunet.data.keys.Oversampling`).
_KNOWN = {("nnUNetTrainer_probabilisticOversampling", "_set_batch_size_and_oversample")}
# Methods that are called without a trainer: by the processes that load batches, and by `predict`.
_STATIC = ("build_network_architecture", "get_training_transforms", "get_validation_transforms")


@dataclass(frozen=True)
class Method:
    """A method as it is written: the names of its parameters, `self` included, and if it has decorators."""

    parameters: tuple[str, ...]
    decorated: bool

    def outdated(self, name: str) -> tuple[str, str] | None:
        """Return why nnU-Net cannot call a method of this name that is written so, and the remedy."""
        if name == "__init__" and not self.decorated and set(self.parameters[1:]) != set(upstream.TRAINER_PARAMETERS):
            return (
                "its constructor does not have nnU-Net's parameters",
                f"let it take {', '.join(upstream.TRAINER_PARAMETERS)} and no others, and pass these on to "
                "super().__init__ (unpack_dataset is gone since nnU-Net 2.6)",
            )
        if name == "build_network_architecture" and self.parameters[1:2] == ("dataset_json",):
            return (
                "it builds its network as nnU-Net did before 2.3, from dataset_json",
                "let it take plans_manager, configuration_manager, num_input_channels, num_output_channels and "
                "enable_deep_supervision",
            )
        if name in _STATIC and not self.decorated:
            return "this method is called without a trainer", "make it a @staticmethod without self, as nnU-Net's is"
        return None


@dataclass(frozen=True)
class TrainerClass:
    """One class statement: its module (in `file`, below `folder`), the names of its bases, and what it defines."""

    name: str
    folder: Path
    file: Path
    module: str
    bases: tuple[str, ...]
    methods: Mapping[str, Method]
    epochs: int | None = None

    @property
    def refused(self) -> set[str]:
        """Those of its methods that the curriculum must own."""
        return {method for method in self.methods.keys() & REFUSED.keys() if (self.name, method) not in _KNOWN}


@dataclass(frozen=True)
class Trainers:
    """All trainer classes that can be named; `external` are the folders of `nnUNet_extTrainer`."""

    external: tuple[Path, ...] = ()
    package: Path | None = field(default_factory=lambda: _package())

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Trainers:
        """Return the trainers that nnU-Net would find in this environment."""
        folders = environ.get(EXTERNAL, "").split(os.pathsep)
        return cls(tuple(Path(folder) for folder in folders if folder.strip() and Path(folder).is_dir()))

    @cached_property
    def classes(self) -> dict[str, TrainerClass]:
        """The classes by name."""
        return {name: one for name, one in self._described.items() if DEFAULT in _line(name, self._described)}

    @cached_property
    def _described(self) -> dict[str, TrainerClass]:
        """All class statements, also of what is no trainer; nnU-Net's own come first, as in nnU-Net."""
        found: dict[str, TrainerClass] = {}
        places = [*([(self.package, "nnunetv2.training.nnUNetTrainer.")] if self.package is not None else [])]
        for folder, prefix in [*places, *((folder, "") for folder in self.external)]:
            for one in _classes_in(folder, prefix):
                found.setdefault(one.name, one)
        return found

    def line(self, name: str) -> list[TrainerClass]:
        """Return the class and its bases before `nnUNetTrainer`. Raises `BadInput` for an unknown name."""
        if name == DEFAULT:
            # The most common trainer needs no search.
            return []
        if name not in self.classes:
            one = self._described.get(name)
            missing = [base for base in _line(name, self._described) if base not in self._described]
            if one is not None and one.folder in self.external and missing:
                raise BadInput(
                    f"'{name}' is no trainer class by its source: its base '{missing[0]}' is not found",
                    one.file,
                    f"put the folder of '{missing[0]}' into {EXTERNAL}",
                )
            raise BadInput(
                f"there is no trainer class '{name}'",
                "--trainer",
                f"{nearest(name, self.classes)}; one of your own: put its folder into {EXTERNAL}",
            )
        return [self.classes[one] for one in _line(name, self.classes) if one in self.classes and one != DEFAULT]

    def check(self, name: str) -> None:
        """Raise `BadInput` if the curriculum cannot be put on top of this class, or nnU-Net cannot use it."""
        line = self.line(name)
        for one in line:
            for method in sorted(one.refused):
                whose = "" if one.name == name else f" (of {one.name})"
                raise BadInput(
                    f"{name} cannot be trained under a curriculum: {REFUSED[method]}",
                    f"--trainer {name}: {method}{whose}",
                    f"train it with nnUNetv2_train -tr {name}, or take what else it does into a class without this",
                )
        for method in ("__init__", *_STATIC):
            # A class hides what its bases have.
            owner = next((one for one in line if method in one.methods), None)
            if owner is not None and (fault := owner.methods[method].outdated(method)) is not None:
                reason, remedy = fault
                raise BadInput(f"{name} cannot be trained: {reason}", f"{owner.file}: {owner.name}.{method}", remedy)

    def epochs(self, name: str) -> int | None:
        """Return the number of epochs set by the class; None if it leaves nnU-Net's."""
        return next((one.epochs for one in self.line(name) if one.epochs is not None), None)


def suffix(name: str) -> str | None:
    """Return the suffix of folders and names for runs of this trainer; None for nnU-Net's plain trainer."""
    if name == DEFAULT:
        return None
    return name.removeprefix(DEFAULT).strip("_").replace("_", "-") or name


def _package() -> Path | None:
    spec = find_spec("nnunetv2")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "training" / "nnUNetTrainer"


def _classes_in(folder: Path, prefix: str) -> Iterator[TrainerClass]:
    for file in sorted(folder.rglob("*.py"), key=lambda path: (len(path.parts), path)):
        try:
            statements = ast.parse(file.read_bytes()).body
        except (OSError, SyntaxError, ValueError):
            continue
        parts = file.relative_to(folder).with_suffix("").parts
        names = {
            one.asname: one.name
            for node in statements
            if isinstance(node, ast.ImportFrom)
            for one in node.names
            if one.asname is not None
        }
        numbers = dict(_numbers(statements))
        module = prefix + ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for node in statements:
            if isinstance(node, ast.ClassDef):
                methods = [one for one in node.body if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef))]
                yield TrainerClass(
                    node.name,
                    folder,
                    file,
                    module.strip("."),
                    tuple(names.get(base, base) for base in map(_base, node.bases) if base),
                    {method.name: _method(method) for method in methods},
                    next(_epochs(methods, numbers), None),
                )


def _method(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Method:
    given = node.args
    named = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    return Method(tuple(one.arg for one in named if one is not None), bool(node.decorator_list))


def _base(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _epochs(methods: Iterable[ast.FunctionDef | ast.AsyncFunctionDef], numbers: Mapping[str, int]) -> Iterator[int]:
    """Yield the numbers that the constructor assigns to `self.num_epochs`; `numbers` are the module's constants."""
    for method in methods:
        if method.name != "__init__":
            continue
        for target, value in _assigned(ast.walk(method)):
            if target != "num_epochs":
                continue
            if isinstance(value, ast.Name) and value.id in numbers:
                yield numbers[value.id]
            elif isinstance(value, ast.Constant) and isinstance(value.value, int):
                yield value.value


def _numbers(statements: Iterable[ast.AST]) -> Iterator[tuple[str, int]]:
    for target, value in _assigned(statements):
        if isinstance(value, ast.Constant) and isinstance(value.value, int):
            yield target, value.value


def _assigned(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, ast.expr]]:
    """Yield names of variables and attributes with what is assigned to them."""
    for node in nodes:
        if isinstance(node, ast.Assign):
            yield from ((_base(target), node.value) for target in node.targets)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            yield _base(node.target), node.value


def _line(name: str, known: Mapping[str, TrainerClass]) -> list[str]:
    """Return the class and all of its bases, nearest first."""
    order: list[str] = []
    waiting = [name]
    while waiting:
        one = waiting.pop(0)
        if one not in order:
            order.append(one)
            waiting += known[one].bases if one in known else ()
    return order
