"""Trainer classes as their source describes them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from ppgs.errors import BadInput
from ppgs.trainers import DEFAULT, EXTERNAL, Trainers, suffix

NNUNET = Trainers.of({})


def external(folder: Path, source: str, name: str = "lab") -> Trainers:
    (folder / "trainers").mkdir(parents=True)
    (folder / "trainers" / f"{name}.py").write_text(source)
    return Trainers.of({EXTERNAL: os.pathsep.join((str(folder / "not there"), str(folder)))})


def test_at_least_fifty_of_those_that_nnunet_ships_can_be_trained() -> None:
    shipped = [name for name in NNUNET.classes if name.startswith(DEFAULT) and name != DEFAULT]
    assert len(shipped) == 56
    refused = set()
    for name in shipped:
        try:
            NNUNET.check(name)
        except BadInput:
            refused.add(name)
    assert refused == {
        "nnUNetTrainerBenchmark_5epochs",
        "nnUNetTrainerBenchmark_5epochs_noDataLoading",
        "nnUNetTrainer_warmup",
    }


@pytest.mark.parametrize(
    ("name", "epochs"),
    [
        ("nnUNetTrainer", None),
        ("nnUNetTrainerDiceLoss", None),
        ("nnUNetTrainer_250epochs_NoMirroring", 250),
        ("nnUNetTrainerDA5_10epochs", 10),
        ("nnUNetTrainer_onlyMirror01_1500ep", 1500),
    ],
)
def test_a_trainers_own_number_of_epochs(name: str, epochs: int | None) -> None:
    assert NNUNET.epochs(name) == epochs


def test_what_the_curriculum_must_own_is_refused_by_name_also_where_it_is_inherited() -> None:
    with pytest.raises(BadInput) as refused:
        NNUNET.check("nnUNet_Primus_M_Trainer_BS8")
    assert refused.value.problems[0].where == "--trainer nnUNet_Primus_M_Trainer_BS8: train_step (of AbstractPrimus)"
    assert "its own training step" in str(refused.value)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(BadInput) as unknown:
        NNUNET.check("nnUNetTrainerDicLoss")
    assert "nnUNetTrainerDiceLoss" in unknown.value.problems[0].remedy
    # A class of nnU-Net's that is no trainer.
    with pytest.raises(BadInput):
        NNUNET.check("PolyLRScheduler")


def test_a_labs_own_trainers_are_found_and_inherit(tmp_path: Path) -> None:
    trainers = external(
        tmp_path,
        "from nnunetv2.training.nnUNetTrainer.variants.x import nnUNetTrainer_250epochs\n"
        "class Lab(nnUNetTrainer_250epochs):\n    pass\n"
        "class Step(Lab):\n    def train_step(self, batch):\n        return {}\n",
    )
    assert trainers.epochs("Lab") == 250
    trainers.check("Lab")
    with pytest.raises(BadInput, match="training step"):
        trainers.check("Step")


def test_a_number_of_epochs_as_people_write_it(tmp_path: Path) -> None:
    trainers = external(
        tmp_path,
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as Base\n"
        "EPOCHS: int = 70\n"
        "class Named(Base):\n    def __init__(self, *a):\n        self.num_epochs = EPOCHS\n"
        "class Annotated(Base):\n    def __init__(self, *a):\n        self.num_epochs: int = 50\n"
        "class Computed(Base):\n    def __init__(self, *a):\n        self.num_epochs = EPOCHS // 2\n",
    )
    assert [trainers.epochs(name) for name in ("Named", "Annotated", "Computed")] == [70, 50, None]


NOW = "(self, plans, configuration, fold, dataset_json, device=None)"
BUILD = "plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision=True"


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        (f"def __init__{NOW}: ...", None),
        ("def __init__(this, plans, configuration, fold, dataset_json, *, device): ...", None),
        ("@wrapped\n    def __init__(self, *args, **kwargs): ...", None),
        ("def __init__(self, plans, configuration, fold, dataset_json, unpack_dataset=True, device=None): ...", "2.6"),
        # nnU-Net's own constructor raises KeyError for each of these.
        (f"def __init__{NOW[:-1]}, more=1): ...", "nnU-Net's parameters"),
        ("def __init__(self, *args, **kwargs): ...", "nnU-Net's parameters"),
        ("def __init__(self, plans, configuration, fold, dataset_json): ...", "nnU-Net's parameters"),
        (f"@staticmethod\n    def build_network_architecture({BUILD}): ...", None),
        (f"@classmethod\n    def build_network_architecture(cls, {BUILD}): ...", None),
        (f"def build_network_architecture(self, {BUILD}): ...", "staticmethod"),
        (
            "@staticmethod\n    def build_network_architecture(plans_manager, dataset_json, configuration_manager, "
            "num_input_channels, enable_deep_supervision=True): ...",
            "before 2.3",
        ),
        # For old and new versions.
        (f"@staticmethod\n    def build_network_architecture({BUILD}, dataset_json=None): ...", None),
        ("@staticmethod\n    def get_training_transforms(patch_size, **more): ...", None),
        ("def get_training_transforms(self, patch_size, **more): ...", "staticmethod"),
        ("def get_validation_transforms(self, scales, **more): ...", "staticmethod"),
    ],
)
def test_a_class_that_nnunet_cannot_use_is_refused_and_no_other(tmp_path: Path, methods: str, said: str | None) -> None:
    trainers = external(
        tmp_path,
        f"class Lab(nnUNetTrainer):\n    {methods}\n"
        f"class Below(Lab):\n    pass\n"
        f"class Mended(Lab):\n    def __init__{NOW}: ...\n"
        f"    @staticmethod\n    def build_network_architecture({BUILD}): ...\n"
        "    @staticmethod\n    def get_training_transforms(patch_size): ...\n"
        "    @staticmethod\n    def get_validation_transforms(scales): ...\n",
    )
    trainers.check("Mended")
    for name in ("Lab", "Below"):
        if said is None:
            trainers.check(name)
            continue
        with pytest.raises(BadInput, match=f"{name} cannot be trained") as refused:
            trainers.check(name)
        (problem,) = refused.value.problems
        assert problem.where.startswith(f"{tmp_path / 'trainers' / 'lab.py'}: Lab.")
        assert said in f"{problem}"


@pytest.mark.parametrize(
    "source",
    [
        "class Helper:\n    pass\nclass Foo(Helper):\n    pass\n",
        "from lab import Other as Base\nclass Other:\n    pass\nclass Foo(Base):\n    pass\n",
        "from lab import Foo as Base\nclass Foo(Base):\n    pass\n",
    ],
)
def test_a_class_that_is_no_trainer_is_unknown(tmp_path: Path, source: str) -> None:
    with pytest.raises(BadInput, match="there is no trainer class 'Foo'"):
        external(tmp_path, source).check("Foo")


def test_a_base_that_is_not_found_is_named(tmp_path: Path) -> None:
    trainers = external(tmp_path, "from elsewhere import Unknown\nclass Lab(Unknown):\n    pass\n")
    with pytest.raises(BadInput, match="'Unknown'") as unknown:
        trainers.check("Lab")
    (problem,) = unknown.value.problems
    assert problem.where == str(tmp_path / "trainers" / "lab.py") and EXTERNAL in problem.remedy


@pytest.mark.parametrize("source", ["class Broken(nnUNetTrainer", "\0", "class Other:\n    pass"])
def test_files_that_are_no_trainers_are_passed_over(tmp_path: Path, source: str) -> None:
    assert external(tmp_path, source).classes.keys() == NNUNET.classes.keys()


def test_folders_say_which_trainer() -> None:
    assert [suffix(name) for name in (DEFAULT, "nnUNetTrainer_250epochs", "Lab_A")] == [None, "250epochs", "Lab-A"]


def test_the_table_of_the_docs_has_every_class_and_refuses_what_is_refused() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "how-to" / "trainers.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| \d+ \| (.*) \|$", page, flags=re.MULTILINE))
    assert rows.keys() == NNUNET.classes.keys() - {DEFAULT}
    refused = set()
    for name in rows:
        try:
            NNUNET.check(name)
        except BadInput:
            refused.add(name)
    assert {name for name, said in rows.items() if said.startswith("refused")} == refused
    assert sum(said.startswith("works") for name, said in rows.items() if name.startswith(DEFAULT)) >= 50
