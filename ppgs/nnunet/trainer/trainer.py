"""The trainer: nnU-Net's own, with the curriculum, keyed batches, exact checkpoints and an event log.

`nnUNetTrainer.run_training` is used as it is; only hooks are overridden. `tests/nnunet/test_contract.py` pins what is
relied on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch._dynamo import OptimizedModule

from ppgs import upstream
from ppgs.errors import BadInput, PpgsError, RunError, StoppedEarly, Untranslatable
from ppgs.nnunet.checkpoints import files as checkpoints
from ppgs.nnunet.checkpoints.content import content_of, restore_into, to_plain
from ppgs.nnunet.checkpoints.pretrained import matching
from ppgs.nnunet.data.cases import checked
from ppgs.nnunet.data.dataset import KeyedBatches, Pipeline, make_loader, samples_of
from ppgs.nnunet.data.keys import BatchKey, KeySampler, Oversampling
from ppgs.nnunet.data.loader import LOADER_TIMEOUT, Batches
from ppgs.nnunet.distributed import loss as ranked_loss
from ppgs.nnunet.distributed.ranks import Ranks
from ppgs.nnunet.host import determinism
from ppgs.nnunet.host.devices import compiled
from ppgs.nnunet.host.energy import EnergyMeter
from ppgs.nnunet.network import optimiser as updates
from ppgs.nnunet.network import precision
from ppgs.nnunet.network.activation_checkpointing import checkpoint_activations, keep_activations
from ppgs.nnunet.network.argmax import quick_argmax
from ppgs.nnunet.network.freezing import freeze
from ppgs.nnunet.trainer.compose import builder, compose
from ppgs.nnunet.trainer.learning_rate import CurriculumRate
from ppgs.nnunet.trainer.memory_guard import MemoryGuard
from ppgs.nnunet.trainer.nonfinite import NonFiniteBatches
from ppgs.nnunet.trainer.peaks import Peaks
from ppgs.nnunet.trainer.slices import SliceWriter
from ppgs.runs.folder import RunFolder
from ppgs.schedule import Schedule
from ppgs.schedule.shares import Cut
from ppgs.trainers import DEFAULT

_PLOT_SECONDS = 600.0
_PROGRESS_SECONDS = 0.5


@dataclass
class Settings:
    """What a run adds to nnU-Net's own settings. `emit(type, **fields)` appends to the event log.

    `plan` settles the next stage of a schedule that is planned on the way; on rank 0 alone.
    """

    run: RunFolder
    schedule: Schedule
    batch_size: int
    seed: int
    workers: int
    emit: Callable[..., object]
    stop_requested: Callable[[], str | None]
    energy: EnergyMeter
    loader_timeout: float = LOADER_TIMEOUT
    predicted_memory: tuple[int | None, ...] = ()
    bfloat16: bool = False
    batchwise: bool = True
    skip_nonfinite: bool = False
    schedules: frozenset[str] = frozenset()
    ranks: Ranks = field(default_factory=Ranks)
    plan: Callable[[Schedule], Schedule] | None = None
    patience: int | None = None
    deterministic: bool = False
    freeze: Sequence[str] = ()


class _PatienceSpent(Exception):
    """Ends nnU-Net's loop over epochs."""


def last_better(averages: Sequence[float]) -> int:
    """Return the index of the last value that is better than all before it; NaN is never better, 0 if none is."""
    best = 0
    for index, value in enumerate(averages):
        if value > averages[best] or (math.isnan(averages[best]) and not math.isnan(value)):
            best = index
    return best


class PpgsTrainer(nnUNetTrainer):
    """A trainer under a patch-size curriculum: a mixin over `nnunet_trainer`. Build it with `build_trainer`."""

    nnunet_trainer: Any = nnUNetTrainer
    build_network_architecture = staticmethod(builder(nnUNetTrainer))

    settings: Settings
    network: Any
    dataset_class: Any
    dataloader_train: Any
    dataloader_val: Any
    device: torch.device
    current_epoch: int
    _best_ema: float | None
    enable_deep_supervision: bool

    def attach(self, settings: Settings) -> None:
        """Everything beyond the constructor, whose signature nnU-Net prescribes."""
        self.settings = settings
        schedule, ranks = settings.schedule, settings.ranks
        # nnU-Net's own way with several processes is not taken (see ppgs.nnunet.distributed.ranks); it only need not
        # repeat what the first of them does.
        self.local_rank, self.device = ranks.rank, ranks.device(self.device)
        whole_batch = self.configuration_manager.batch_dice or self.label_manager.has_ignore_label
        self._cut = Cut(ranks.rank, ranks.count, together=whole_batch)
        self.num_epochs = schedule.epochs
        self._has_begun = self._ends_early = False
        self.num_iterations_per_epoch = schedule.iterations_per_epoch
        # Checkpoints are this class's business: nnU-Net's own periodic one never comes due.
        self.save_every = 10**9 + 1
        named = self.configuration_manager.configuration.get("architecture", {}).get("ppgs", {})
        self.enable_deep_supervision = self.enable_deep_supervision and named.get("deep_supervision", True)
        self._batchwise = settings.batchwise
        self._first_iteration = 0
        self._losses_before: list[float] = []
        self._losses: list[float] = []
        self._guard = MemoryGuard(self, self._stop_for, self._cut)
        self._nonfinite: str | None = None
        # How weights are updated without waiting for the device, and what is not read yet of the newest batch.
        self._late: updates.LateUpdate | None = None
        self._unread: tuple[updates.Reading, BatchKey] | None = None
        self._left_out = NonFiniteBatches(
            skip=settings.skip_nonfinite, warn=lambda message: settings.emit("warning", message=message)
        )
        self._best_is_now = False
        self._peaks = Peaks(self.device)
        self._writer = checkpoints.CheckpointWriter(lambda fields: settings.emit("checkpoint_saved", **fields))
        self._times: dict[str, float] = {}
        self._last_progress = self._last_plot = -math.inf
        self._plot = self.logger.plot_progress_png
        self.logger.plot_progress_png = self._plot_now_and_then
        if settings.bfloat16:
            # bfloat16 has float32's range: there is nothing to scale, and no step to skip.
            self.grad_scaler = None
        self.deterministic_setup()

    def deterministic_setup(self) -> None:
        """Weights and whatever else draws in this process start from the seed."""
        seed = np.random.SeedSequence([self.settings.seed, 2]).generate_state(1)
        torch.manual_seed(int(seed[0]))
        np.random.seed(int(seed[0]))

    # What nnU-Net builds

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:
        rotation, dummy_2d, initial_patch, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        allowed = self.settings.schedule.mirroring
        if isinstance(allowed, tuple):
            axes = tuple(axis for axis in axes if axis in allowed)
            # Goes into the checkpoint: inference mirrors what training did. nnU-Net says None where that is nothing.
            self.inference_allowed_mirroring_axes = axes or None
        return rotation, dummy_2d, initial_patch, axes

    def initialize(self) -> None:
        super().initialize()
        if self.settings.freeze:
            freeze(self._module, self.settings.freeze)
        if isinstance(self.network, OptimizedModule):
            # nnU-Net's own wrapping has compiled nothing yet.
            self.network = compiled(self._module)
        if self.settings.deterministic:
            determinism.replace_pooling(self._module)
            if isinstance(self.loss, nn.Module):
                determinism.replace_reduction(self.loss)
        if self.grad_scaler is None and self.settings.ranks.count == 1:
            self._late = updates.late_update(self.optimizer, self.device, skip=self.settings.skip_nonfinite)
        self.dataset_class = checked(self.dataset_class)
        kinds = torch.nn.modules.batchnorm._BatchNorm
        if self.settings.ranks.count > 1 and any(isinstance(m, kinds) for m in self._module.modules()):
            raise BadInput("a network with batch norm trains on one GPU", "--gpus", "leave the option out")
        try:
            # Before the first batch, and in this process: from a loader's it would come as text.
            self._make_pipeline().check({stage.patch_size for stage in self.settings.schedule.stages})
        except Untranslatable as unknown:
            if self.nnunet_trainer is nnUNetTrainer:
                raise
            self._batchwise = False
            message = f"{self.nnunet_trainer.__name__} augments sample by sample, as nnU-Net does: {unknown}"
            self.settings.emit("warning", message=message)

    def _do_i_compile(self) -> bool:
        # Inductor chooses kernels by timing them.
        return not self.settings.deterministic and bool(super()._do_i_compile())

    def _build_loss(self) -> Any:
        loss = super()._build_loss()
        if self.settings.ranks.count == 1:
            return loss
        if self._has_own_loss:
            raise BadInput(
                f"the loss of {self.nnunet_trainer.__name__} cannot be shared out among processes",
                "--gpus",
                "leave the option out",
            )
        if not self._cut.together:
            return loss
        return ranked_loss.RankedLoss(
            loss,
            self.settings.ranks,
            self.label_manager.num_segmentation_heads,
            batch_dice=self.configuration_manager.batch_dice,
            ignore=self.label_manager.has_ignore_label,
        )

    @property
    def _has_own_loss(self) -> bool:
        """Whether the trainer's loss is not nnU-Net's, of which is known how the parts of a batch add up."""
        return self.nnunet_trainer._build_loss is not nnUNetTrainer._build_loss

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        # nnU-Net looks into DistributedDataParallel where its validation is shared out among processes.
        if self.enable_deep_supervision:
            decoder: Any = self._module.decoder
            decoder.deep_supervision = enabled

    def _set_batch_size_and_oversample(self) -> None:
        self.batch_size = self.settings.batch_size

    def configure_optimizers(self) -> tuple[Any, Any]:
        """nnU-Net's, in one pass over the parameters."""
        optimizer, scheduler = super().configure_optimizers()
        updates.fuse(optimizer)
        return optimizer, CurriculumRate(scheduler, optimizer, lambda: self.settings.schedule)

    @property
    def _oversampling(self) -> Oversampling | None:
        """How the trainer chooses samples that show foreground; None where it leaves that to the schedule."""
        share, random = self.oversample_foreground_percent, self.probabilistic_oversampling
        return Oversampling(share, random) if random or share != upstream.FOREGROUND_SHARE else None

    def _make_pipeline(self) -> Pipeline:
        rotation, dummy_2d, crop, mirror_axes = self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        final = tuple(self.configuration_manager.patch_size)
        regions = self.label_manager.foreground_regions if self.label_manager.has_regions else None
        shared = {
            "is_cascaded": self.is_cascaded,
            "foreground_labels": self.label_manager.foreground_labels,
            "regions": regions,
            "ignore_label": self.label_manager.ignore_label,
        }
        pipeline = Pipeline(
            # Not this run's own class, which spawned loader processes could not be given.
            trainer=self.nnunet_trainer,
            channels=self.num_input_channels,
            # A cascade's two transforms of the earlier segmentation work sample by sample.
            batchwise=self._batchwise and not self.is_cascaded,
            rotation=rotation,
            dummy_2d=dummy_2d,
            mirror_axes=mirror_axes,
            deep_supervision_scales=self._get_deep_supervision_scales(),
            options={**shared, "use_mask_for_norm": self.configuration_manager.use_mask_for_norm},
            validation_options=shared,
        )
        own = tuple(map(int, crop))
        return pipeline if pipeline.crop_size(final) == own else replace(pipeline, own_crop=(final, own))

    def get_dataloaders(self) -> tuple[Batches, Batches]:
        """The one loader, twice: its keys come in the order in which training and validation ask."""
        pipeline = self._make_pipeline()
        training, validation = self.get_tr_and_val_datasets()
        self._slices = SliceWriter(self, validation)
        # A GPU augments whole batches itself; the CPU's loader processes do it beside the training.
        self._dataset = KeyedBatches(
            training, validation, pipeline, self.label_manager, finished=self.device.type != "cuda"
        )
        self._keys = sampler = KeySampler(
            self.settings.schedule,
            self.settings.seed,
            self.settings.batch_size,
            epoch=self.current_epoch,
            iteration=self._first_iteration,
            cut=self._cut,
            oversampling=self._oversampling,
        )
        batches = Batches(
            make_loader(self._dataset, sampler, workers=self.settings.workers, pin_memory=self.device.type == "cuda"),
            self.settings.loader_timeout,
            self._stop_for,
        )
        # Known to `close` even if nnU-Net never gets to take it: a run ends with its loader's workers.
        self.dataloader_train = self.dataloader_val = batches
        return batches, batches

    # The hooks of nnUNetTrainer.run_training, in their order

    def train(self) -> None:
        """Run nnU-Net's `run_training`, once for every decision of a schedule that is planned on the way.

        Its loop takes the number of epochs once, before it begins.
        """
        while not self._has_begun or self.current_epoch < self.settings.schedule.epochs:
            self._plan_next_stage()
            self.num_epochs = self.settings.schedule.decision_epoch
            try:
                # A process may have been killed after the last epoch that there was patience for.
                self._check_patience()
                self.run_training()
            except _PatienceSpent:
                self._ends_early = True
                self.on_train_end()
                return

    def _check_patience(self) -> None:
        """Raise `_PatienceSpent` as the log in the checkpoint decides: the same after a resume, and on all ranks."""
        schedule, patience = self.settings.schedule, self.settings.patience
        if patience is None or schedule.settled < len(schedule.stages) or self.current_epoch >= schedule.epochs:
            return
        first = schedule.first_epoch(len(schedule.stages) - 1)
        averages = self.logger.get_checkpoint()["ema_fg_dice"][first : self.current_epoch]
        best = last_better(averages)
        if len(averages) - 1 - best >= patience:
            self.settings.emit(
                "early_stopping",
                epoch=self.current_epoch - 1,
                patience=patience,
                best_epoch=first + best,
                ema_dice=float(averages[best]),
            )
            raise _PatienceSpent

    def _plan_next_stage(self) -> None:
        """Settle the stage that begins now, the same on all ranks; a resumed run may have settled it before."""
        settings = self.settings
        while settings.schedule.settled < len(settings.schedule.stages):
            if self.current_epoch < settings.schedule.decision_epoch:
                return
            planned = None if settings.plan is None else settings.plan(settings.schedule)
            shared = settings.ranks.share(planned)
            if shared is None:
                raise RunError("the schedule is not settled, and nothing plans it", settings.run.schedule, "")
            settings.schedule = shared
            if self._has_begun:
                self._keys.schedule = shared

    def on_train_start(self) -> None:
        if self._has_begun:
            return
        super().on_train_start()
        self._has_begun = True
        # Only now: its thread must not run while the loader's workers are forked.
        self.settings.energy.start()

    def on_epoch_start(self) -> None:
        super().on_epoch_start()
        self._times = {"start": time.perf_counter(), "waited": self.dataloader_train.waited}
        schedule, epoch = self.settings.schedule, self.current_epoch
        stage = schedule.stage_index_at(epoch)
        self._peaks.begin(stage)
        if epoch == schedule.first_epoch(stage) and self._first_iteration == 0:
            self.settings.emit(
                "stage_started",
                stage=stage,
                epoch=epoch,
                patch_size=schedule.stages[stage].patch_size,
                batch_size=schedule.stages[stage].batch_size,
            )

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._set_checkpointing()
        self._guard.enter(self.settings.schedule.stage_index_at(self.current_epoch))
        self._losses = list(self._losses_before)
        # run_training asks for this many: what a stop within the epoch left to do.
        self.num_iterations_per_epoch = self.settings.schedule.iterations_per_epoch - self._first_iteration

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        self._stop_if_requested()
        parts = self.settings.schedule.stage_at(self.current_epoch).accumulation
        with determinism.refusals():
            result = self._guard.step(lambda n: self._step(batch, n), batch["key"].batch_size, parts)
        if self._late is None:
            self._take_note(batch["key"], float(result["loss"]), self._nonfinite)
            return result
        before, self._unread = self._unread, (result["reading"], batch["key"])
        if before is not None:
            self._read(*before)
        return {"loss": result["loss"]}

    def _read_all(self) -> None:
        """Wait for the newest batch, if it is not known yet what became of it."""
        if self._unread is not None:
            newest, self._unread = self._unread, None
            self._read(*newest)

    def _read(self, reading: updates.Reading, key: BatchKey) -> None:
        loss, norm = reading()
        loss = float(np.float32(loss))
        reason = None if math.isfinite(loss) else f"the loss became {loss}"
        if reason is None and not math.isfinite(norm):
            reason = f"the gradients' norm became {norm}"
        self._take_note(key, loss, reason)

    def _take_note(self, key: BatchKey, loss: float, nonfinite: str | None) -> None:
        """Record a batch that was trained on or, if something was not finite, not. Raises `NonFiniteLoss`."""
        if nonfinite is None:
            self._left_out.end_row()
        else:
            self._meet_nonfinite(nonfinite, sorted(set(self._dataset.cases_of(key))), loss)
        self._losses.append(loss)
        self._progress("train", len(self._losses), self.settings.schedule.iterations_per_epoch, loss)

    def _step(self, batch: dict[str, Any], parts: int) -> dict[str, Any]:
        """`nnUNetTrainer.train_step` in equal parts whose gradients are added up before the one optimiser step."""
        parameters = [p for p in self._module.parameters() if p.requires_grad]
        if self._late is not None:
            whole = self._backward(batch, parts)
            self._guard.begin_update()
            return {"loss": whole.float(), "reading": self._late(parameters, whole)}
        try:
            loss = self.settings.ranks.gradients(lambda: float(self._backward(batch, parts)), parameters)
        except PpgsError as lost:
            # Another process is gone; no weight has been touched.
            self._save_and_raise(lost)
        result = {"loss": np.float32(loss)}
        self._nonfinite = None if math.isfinite(loss) else f"the loss became {loss}"
        if self._nonfinite is not None:
            return result
        if self.grad_scaler is not None:
            self._guard.begin_update()
            self.grad_scaler.unscale_(self.optimizer)
        # With a scaler infinite gradients are its way to find the scale, and nothing waits for the norm.
        norm = updates.clip(parameters, wait=self.grad_scaler is None)
        if norm is not None and not math.isfinite(norm):
            self._nonfinite = f"the gradients' norm became {norm}"
            return result
        self._guard.begin_update()
        if self.grad_scaler is not None:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        else:
            self.optimizer.step()
        return result

    def _meet_nonfinite(self, reason: str, cases: list[str], loss: float) -> None:
        """Leave the batch out, or stop before anything is made of it. Raises `NonFiniteLoss`."""
        # Epochs are 1-based in messages (as in the monitor) and 0-based in the event log.
        what = f"{reason} in epoch {self.current_epoch + 1}, iteration {len(self._losses) + 1}"
        error = self._left_out.leave_out(what, cases)
        if error is None:
            return
        if self._late is not None:
            if self.settings.skip_nonfinite:
                # The batch after it may have been trained on.
                self._losses.append(loss)
            else:
                self._unread = None
        state = self._module.state_dict().values()
        if all(bool(value.isfinite().all()) for value in state if value.is_floating_point()):
            self._stop_for(error)
        raise error

    def _backward(self, batch: dict[str, Any], parts: int) -> Any:
        """Leave the gradients of this process's samples; return what they contribute to the batch's loss.

        That is a number on the device where nothing may wait for it.
        """
        self.optimizer.zero_grad(set_to_none=True)
        total: Any = 0.0
        if self.grad_scaler is not None:
            # Makes the scale that a process without samples needs too.
            self.grad_scaler.scale(torch.zeros(1, device=self.device))
        pieces = self._cut.pieces(batch["key"].batch_size, parts)
        with ranked_loss.settled(self.loss, len(pieces), self.device):
            batch = self._dataset.finish(batch, self.device)
            for piece in pieces:
                if not piece.count:
                    total += ranked_loss.absent(self.loss, piece.whole, self.device) * piece.weight
                    continue
                part = samples_of(batch, piece.slots)
                loss = self._loss_of(part["data"], part["target"], piece.whole) * piece.weight
                scaled: Any = loss if self.grad_scaler is None else self.grad_scaler.scale(loss)
                scaled.backward()
                total += float(loss.detach()) if self._late is None else loss.detach().double()
        return total

    def _loss_of(self, data: torch.Tensor, target: Any, whole: int) -> torch.Tensor:
        targets = [t.to(self.device, non_blocking=True) for t in (target if isinstance(target, list) else [target])]
        with precision.autocast(self.device, bfloat16=self.settings.bfloat16):
            output = self.network(data.to(self.device, non_blocking=True))
        # The loss is a matter of single precision, as autocast assumes on CUDA.
        with precision.autocast(self.device, bfloat16=False):
            output = [o.float() for o in output] if isinstance(output, list | tuple) else output.float()
            ranked_loss.announce(self.loss, whole)
            loss: torch.Tensor = self.loss(output, targets if isinstance(target, list) else targets[0])
        return loss

    def _set_checkpointing(self) -> None:
        """Recompute activations in the stages of the schedule that ask for it, and in no other."""
        keep_activations(self._module)
        if self.settings.schedule.stage_at(self.current_epoch).checkpointing:
            checkpoint_activations(self._module)

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        self._read_all()
        if self._late is not None:
            train_outputs = [{"loss": np.float32(loss)} for loss in self._losses[len(self._losses_before) :]]
        outputs = [{"loss": np.float32(loss)} for loss in self._losses_before] + train_outputs
        super().on_train_epoch_end([o for o in outputs if math.isfinite(o["loss"])] or outputs)
        self._peaks.trained()
        self._times["trained"] = time.perf_counter()

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.num_val_iterations_per_epoch = self.settings.schedule.validation_iterations_at(self.current_epoch)
        self._validated = 0

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        self._stop_if_requested()
        plain = super().validation_step
        parts = self._cut.validation_parts(self.settings.schedule.stages[-1].accumulation)
        pieces = self._cut.pieces(batch["key"].batch_size, parts)
        first = pieces[0] if pieces else None
        if first is None or not first.count:
            outputs = self.label_manager.num_segmentation_heads - (not self.label_manager.has_regions)
            loss = 0.0 if first is None else ranked_loss.absent(self.loss, first.whole, self.device)
            return {"loss": loss} | {name: np.zeros(outputs) for name in ("tp_hard", "fp_hard", "fn_hard")}
        ranked_loss.announce(self.loss, first.whole)

        def take(_: int) -> dict[str, Any]:
            with ranked_loss.settled(self.loss, len(pieces), self.device):
                finished, seen = self._dataset.finish(batch, self.device), []
                for piece in pieces:
                    with (
                        precision.autocast(self.device, bfloat16=self.settings.bfloat16),
                        quick_argmax(self.network, self.device),
                    ):
                        one = plain(samples_of(finished, piece.slots))
                    seen.append({**one, "loss": one["loss"] * np.float32(piece.weight)})
            return {name: sum(one[name] for one in seen) for name in seen[0]}

        result = self._guard.step(take, 1, 1)
        self._validated += 1
        self._progress("validation", self._validated, self.num_val_iterations_per_epoch, None)
        return result

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        ranks = self.settings.ranks
        if ranks.count > 1:
            # Where memory ran out on one of them, all learn it before they add up.
            self._stop_if_requested()
            # Overlaps of samples add up, as do the ranks' shares of the loss.
            names = list(val_outputs[0])
            rows = np.array([np.concatenate([np.ravel(o[n]) for n in names]) for o in val_outputs], np.float64)
            ends = np.cumsum([np.size(val_outputs[0][n]) for n in names])[:-1]
            summed = [np.split(row, ends) for row in ranks.sum(rows)]
            val_outputs = [{n: v[0] if n == "loss" else v for n, v in zip(names, row, strict=True)} for row in summed]
        super().on_validation_epoch_end(val_outputs)
        self._peaks.validated()
        logged = self.logger.get_checkpoint()
        # Few patches may show no foreground at all: that says nothing, and must not end the moving average for good.
        averages: list[float] = logged["ema_fg_dice"]
        if math.isnan(averages[-1]):
            before = averages[-2] if len(averages) > 1 else math.nan
            averages[-1] = logged["mean_fg_dice"][-1] if math.isnan(before) else before
        # The moving average is computed from the logged value before: it must be what a checkpoint gives back, or
        # the first epoch after a resume would round otherwise.
        for values in logged.values():
            if values:
                values[-1] = to_plain(values[-1])

    def on_epoch_end(self) -> None:
        self._check_alike()
        validated = time.perf_counter()
        super().on_epoch_end()
        if self._best_ema is not None and math.isnan(self._best_ema):
            # Nothing would be better than NaN.
            self._best_ema = None
        self._first_iteration, self._losses_before, self._losses = 0, [], []
        epoch = self.current_epoch - 1
        self._slices.write(epoch)
        waiting = time.perf_counter()
        self._save(self.settings.run.checkpoint_latest, iteration=0)
        ended = time.perf_counter()
        value = self.logger.get_value
        self.settings.emit(
            "epoch_finished",
            epoch=epoch,
            stage=self.settings.schedule.stage_index_at(epoch),
            train_loss=float(value("train_losses", -1)),
            val_loss=float(value("val_losses", -1)),
            pseudo_dice=[float(d) for d in value("dice_per_class_or_region", -1)],
            ema_dice=float(value("ema_fg_dice", -1)),
            learning_rate=float(value("lrs", -1)),
            seconds=ended - self._times["start"],
            train_seconds=self._times["trained"] - self._times["start"],
            validation_seconds=validated - self._times["trained"],
            checkpoint_seconds=ended - waiting,
            data_wait_seconds=self.dataloader_train.waited - self._times["waited"],
            peak_memory_bytes=self._largest(self._peaks.whole),
            train_peak_memory_bytes=self._largest(self._peaks.training),
            validation_peak_memory_bytes=self._largest(self._peaks.validation),
            energy_wh=self.settings.energy.lap(),
        )
        self._check_patience()

    def on_train_end(self) -> None:
        if self.current_epoch < self.settings.schedule.epochs and not self._ends_early:
            return
        super().on_train_end()
        keep_activations(self._module)
        self.close()

    # Checkpoints

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's call for the best and the final one; the latest is written after every epoch."""
        path = Path(filename)
        if path == self.settings.run.checkpoint_best:
            self._best_is_now = True
        elif self.settings.ranks.rank == 0:
            # on_train_end has set the epoch back by one for nnU-Net's own counting.
            self._writer.submit(self._content(self.current_epoch + 1, 0), path)
            self._writer.wait()

    def _save(self, path: Path, *, iteration: int) -> None:
        if self.settings.ranks.rank != 0:
            return
        links = [self.settings.run.checkpoint_best] if self._best_is_now else []
        self._best_is_now = False
        self._writer.submit(self._content(self.current_epoch, iteration), path, *links)

    def _content(self, epochs_done: int, iteration: int) -> dict[str, Any]:
        return content_of(self, self._module, epochs_done, iteration, self._losses)

    def restore(self, content: dict[str, Any], where: Path) -> None:
        """Continue from a checkpoint's content; raises `RunError` when it belongs to another schedule or seed."""
        self._first_iteration, self._losses_before = restore_into(self, self._module, content, where)

    def start_from(self, weights: dict[str, torch.Tensor]) -> None:
        """Begin with pretrained weights; raises `BadInput` where they do not match the network."""
        self._module.load_state_dict(matching(self._module.state_dict(), weights))

    # Stopping

    def _check_alike(self) -> None:
        """That all ranks have the same weights, bit for bit, before they are saved."""
        if self.settings.ranks.count == 1:
            return
        # Integers add up to the same in any order.
        sums = [p.detach().float().view(torch.int32).sum(dtype=torch.int64) for p in self._module.parameters()]
        if len(set(self.settings.ranks.gather(float(torch.stack(sums).sum() % 2**52)))) > 1:
            raise PpgsError(
                f"the processes' weights differ after epoch {self.current_epoch + 1}",
                self.settings.run.path,
                "'ppgs resume' continues from the checkpoint before; should it happen again, a GPU may be faulty",
            )

    def _stop_if_requested(self) -> None:
        """At the same iteration on all ranks; so are all errors that `_stop_for` is called with."""
        reason, unsaved = self.settings.stop_requested(), self._writer.failure()
        where = f"epoch {self.current_epoch + 1} after iteration {len(self._losses)}"
        asked = StoppedEarly(f"stopped in {where} ({reason})", self.settings.run.path) if reason is not None else None
        if (error := self._agreed(asked or unsaved)) is not None:
            self._save_and_raise(error)

    def _stop_for(self, error: PpgsError) -> NoReturn:
        """Save the state of the training, between two iterations, and raise the reason."""
        self._save_and_raise(self._agreed(error) or error)

    def _agreed(self, error: PpgsError | None) -> PpgsError | None:
        try:
            return self.settings.ranks.agree(error)
        except PpgsError as lost:
            return error or lost

    def _save_and_raise(self, error: PpgsError) -> NoReturn:
        self._read_all()
        self._save(self.settings.run.checkpoint_latest, iteration=len(self._losses))
        self.close()
        raise error

    def close(self) -> None:
        """Finish the last checkpoint and end the loader's workers."""
        self._writer.wait()
        if self.dataloader_train is not None:
            self.dataloader_train.close()
        self.dataloader_train = self.dataloader_val = None
        self.settings.energy.stop()

    # Odds and ends

    @property
    def _module(self) -> nn.Module:
        """The network itself, without the compiler's wrapping."""
        module: nn.Module = self.network._orig_mod if isinstance(self.network, OptimizedModule) else self.network
        return module

    def _progress(self, phase: str, done: int, total: int, loss: float | None) -> None:
        now = time.monotonic()
        if now - self._last_progress < _PROGRESS_SECONDS and done < total:
            return
        self._last_progress = now
        self.settings.emit(
            "iterations",
            epoch=self.current_epoch,
            stage=self.settings.schedule.stage_index_at(self.current_epoch),
            phase=phase,
            iteration=done,
            iterations=total,
            loss=loss,
        )

    def _largest(self, peak: int | None) -> int | None:
        """The largest of all ranks' peaks; all have one or none has."""
        return None if peak is None else int(max(self.settings.ranks.gather(peak)))

    def _plot_now_and_then(self, output_folder: str) -> None:
        """nnU-Net draws a 30 x 54 inch picture every epoch, which takes longer than a small stage's epoch."""
        now = time.monotonic()
        last = self.current_epoch == self.settings.schedule.epochs - 1
        if last or (self._last_plot > -math.inf and now - self._last_plot > _PLOT_SECONDS):
            self._last_plot = now
            self._plot(output_folder)
        elif self._last_plot == -math.inf:
            self._last_plot = now

    def plot_network_architecture(self) -> None:
        """Needs hiddenlayer, which is rarely installed; nnU-Net only prints a note then."""


def build_trainer(
    *,
    label: str,
    trainer: str = DEFAULT,
    plans: dict[str, Any],
    configuration: str,
    fold: int | str,
    dataset_json: dict[str, Any],
    device: torch.device,
    continuing: bool,
) -> PpgsTrainer:
    """A trainer over nnU-Net's class `trainer`, named so that nnU-Net puts its results into the run's folder.

    The constructor changes the plans it is given, makes folders and opens a log: call it after validating.
    """
    made: PpgsTrainer = compose(label, PpgsTrainer, trainer)(
        {**deepcopy(plans), "continue_training": continuing},
        configuration,
        fold,
        deepcopy(dataset_json),
        device,
    )
    return made
