"""All paths of a run in one class: an nnU-Net result folder of one fold plus `ppgs/`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

TRAINER = "nnUNetTrainerPPGS"

Checkpoint = Literal["final", "best", "latest"]


def configuration_of(model: Path) -> str:
    """Return the configuration in the name of a model's folder, `TRAINER__PLANS__CONFIGURATION`."""
    return model.name.rsplit("__", 1)[-1]


@dataclass(frozen=True)
class RunFolder:
    """`nnUNet_results/DatasetNNN_NAME/TRAINER__PLANS__CONFIGURATION/fold_K`."""

    path: Path

    @classmethod
    def place(
        cls, results: Path, dataset: str, label: str, plans: str, configuration: str, fold: int | str
    ) -> RunFolder:
        """Return the folder of a run; `label` distinguishes runs of one task (schedule, seed, suffix)."""
        model = f"{TRAINER}_{label}__{plans}__{configuration}"
        return cls(results / dataset / model / f"fold_{fold}")

    @property
    def model(self) -> Path:
        """The folder of all folds, with nnU-Net's `plans.json` and `dataset.json`."""
        return self.path.parent

    @property
    def fold(self) -> str:
        """`0`, `1`, ... or `all`."""
        return self.path.name.removeprefix("fold_")

    def in_configuration(self, configuration: str) -> RunFolder:
        """Return the same fold, trained the same way under another configuration of the same plans."""
        trainer_and_plans = self.model.name.rsplit("__", 1)[0]
        return RunFolder(self.model.with_name(f"{trainer_and_plans}__{configuration}") / self.path.name)

    @property
    def results(self) -> Path:
        return self.path.parent.parent.parent

    @property
    def own(self) -> Path:
        return self.path / "ppgs"

    @property
    def manifest(self) -> Path:
        return self.own / "run.json"

    @property
    def data(self) -> Path:
        """Digests of every case that the run is trained and validated on (see `ppgs.runs.prepared`)."""
        return self.own / "data.json"

    @property
    def schedule(self) -> Path:
        return self.own / "schedule.yaml"

    @property
    def pretrained(self) -> Path:
        """Copy of the checkpoint that the run starts from, until it has its own."""
        return self.own / "pretrained.pth"

    @property
    def events(self) -> Path:
        return self.own / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.own / "train.log"

    @property
    def slices(self) -> Path:
        """Pictures of a validation case, one file each (see `ppgs.nnunet.trainer.slices`)."""
        return self.own / "slices"

    @property
    def trackers(self) -> Path:
        """Files of experiment trackers (see `ppgs.trackers`)."""
        return self.own / "trackers"

    @property
    def reserve(self) -> Path:
        """Reserved space for the end of event log and manifest on a full disk; exists only during training."""
        return self.own / "reserve"

    @property
    def lock(self) -> Path:
        return self.own / "lock"

    @property
    def checkpoint_latest(self) -> Path:
        return self.path / "checkpoint_latest.pth"

    @property
    def checkpoint_best(self) -> Path:
        return self.path / "checkpoint_best.pth"

    @property
    def checkpoint_final(self) -> Path:
        return self.path / "checkpoint_final.pth"

    def checkpoint(self, which: Checkpoint) -> Path:
        return self.path / f"checkpoint_{which}.pth"

    @property
    def validation(self) -> Path:
        return self.path / "validation"

    def validation_by(self, which: Checkpoint) -> Path:
        """Return the folder of a checkpoint's repeated validation; nnU-Net would use `validation` for all."""
        return self.validation if which == "final" else self.path / f"validation_{which}"

    @property
    def summary(self) -> Path:
        return self.validation / "summary.json"
