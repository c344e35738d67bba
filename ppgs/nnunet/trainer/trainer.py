"""The trainer: nnU-Net's own, with the curriculum, keyed batches, exact checkpoints and an event log.

`nnUNetTrainer.run_training` is used as it is; only hooks are overridden. `tests/nnunet/test_contract.py` pins what is
relied on.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch._dynamo import OptimizedModule

from ppgs.errors import BadInput, PpgsError, RunError, StoppedEarly, Untranslatable
from ppgs.nnunet.checkpoints import files as checkpoints
from ppgs.nnunet.checkpoints.content import content_of, restore_into, to_plain
from ppgs.nnunet.checkpoints.pace import Pace
from ppgs.nnunet.checkpoints.pretrained import matching
from ppgs.nnunet.data.cases import checked
from ppgs.nnunet.data.dataset import KeyedBatches, make_loader
from ppgs.nnunet.data.keys import KeySampler
from ppgs.nnunet.data.loader import Batches
from ppgs.nnunet.distributed import loss as ranked_loss
from ppgs.nnunet.host import determinism
from ppgs.nnunet.host.devices import can_compile, compiled
from ppgs.nnunet.network import optimiser as updates
from ppgs.nnunet.network.activation_checkpointing import keep_activations
from ppgs.nnunet.network.freezing import freeze
from ppgs.nnunet.network.layout import lay_channels_last, lay_out_state
from ppgs.nnunet.trainer.compose import builder, check_patches
from ppgs.nnunet.trainer.learning_rate import CurriculumRate, built_for
from ppgs.nnunet.trainer.loading import oversampling_of, pipeline_of
from ppgs.nnunet.trainer.patience import PatienceSpent, check_patience
from ppgs.nnunet.trainer.reporting import Reports, SparsePlots
from ppgs.nnunet.trainer.settings import Settings
from ppgs.nnunet.trainer.slices import SliceWriter
from ppgs.nnunet.trainer.steps import Steps
from ppgs.schedule.shares import Cut

# What nnU-Net logs of a validation.
_FIGURES = ("mean_fg_dice", "ema_fg_dice", "dice_per_class_or_region", "val_losses")


class PpgsTrainer(nnUNetTrainer):
    """A trainer under a patch-size curriculum: a mixin over `nnunet_trainer`. Build it with `factory.build_trainer`."""

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
        """Set everything beyond the constructor, whose signature nnU-Net prescribes."""
        self.settings = settings
        schedule, ranks = settings.schedule, settings.ranks
        # nnU-Net's own way with several processes is not taken (see ppgs.nnunet.distributed.ranks); it only need not
        # repeat what the first of them does.
        self.local_rank, self.device = ranks.rank, ranks.device(self.device)
        whole_batch = self.configuration_manager.batch_dice or self.label_manager.has_ignore_label
        self._cut = Cut(ranks.rank, ranks.count, together=whole_batch)
        self.num_epochs = schedule.epochs
        self._has_begun = self._ends_early = self._trains = False
        self._unsaved: PpgsError | None = None
        self.num_iterations_per_epoch = schedule.iterations_per_epoch
        # This class writes the checkpoints; nnU-Net's own periodic one is never due.
        self.save_every = 10**9 + 1
        named = self.configuration_manager.configuration.get("architecture", {}).get("ppgs", {})
        self.enable_deep_supervision = self.enable_deep_supervision and named.get("deep_supervision", True)
        self._batchwise = settings.batchwise
        self._first_iteration = 0
        self._losses_before: list[float] = []
        self._losses: list[float] = []
        self._steps = Steps(self, self._cut, self._trained_batch)
        self._reports = Reports(settings, self.device)
        self._best_is_now = False
        # The best epoch so far, if no checkpoint was due at its end: it is written before the next one.
        self._unwritten_best: dict[str, Any] | None = None
        self._pace, self._copying = Pace(), 0.0
        self._writer = checkpoints.CheckpointWriter(lambda fields: settings.emit("checkpoint_saved", **fields))
        self.logger.plot_progress_png = SparsePlots(self.logger.plot_progress_png, self._is_last_epoch)
        if settings.bfloat16:
            # bfloat16 has float32's range: there is nothing to scale, and no step to skip.
            self.grad_scaler = None
        self.deterministic_setup()

    def deterministic_setup(self) -> None:
        """Seed this process's random generators, from which the weights are drawn."""
        seed = np.random.SeedSequence([self.settings.seed, 2]).generate_state(1)
        torch.manual_seed(int(seed[0]))
        np.random.seed(int(seed[0]))

    # What nnU-Net builds

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:
        rotation, dummy_2d, initial_patch, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        allowed = self.settings.schedule.mirroring
        if isinstance(allowed, tuple):
            axes = tuple(axis for axis in axes or () if axis in allowed)
            # Goes into the checkpoint: inference mirrors what training did. nnU-Net says None where that is nothing.
            self.inference_allowed_mirroring_axes = axes or None
        return rotation, dummy_2d, initial_patch, axes

    def initialize(self) -> None:
        super().initialize()
        if self.settings.freeze:
            freeze(self._module, self.settings.freeze)
        if self.settings.channels_last:
            lay_channels_last(self._module)
        if isinstance(self.network, OptimizedModule):
            # nnU-Net's own wrapping has compiled nothing yet.
            self.network = compiled(self._module)
        if not can_compile(self.device):
            self.settings.emit("warning", message="the GPU is too old to compile for: the network trains uncompiled")
        if self.settings.deterministic:
            determinism.replace_pooling(self._module)
            if isinstance(self.loss, nn.Module):
                determinism.replace_reduction(self.loss)
        self._steps.prepare()
        self.dataset_class = checked(self.dataset_class)
        kinds = torch.nn.modules.batchnorm._BatchNorm
        if self.settings.ranks.count > 1 and any(isinstance(m, kinds) for m in self._module.modules()):
            raise BadInput("a network with batch norm trains on one GPU", "--gpus", "leave the option out")
        check_patches(self)
        try:
            # Before the first batch and in this process: from a worker the error would arrive as text.
            pipeline_of(self, batchwise=self._batchwise).check(
                {stage.patch_size for stage in self.settings.schedule.stages}
            )
        except Untranslatable as unknown:
            if self.nnunet_trainer is nnUNetTrainer:
                raise
            self._batchwise = False
            message = f"{self.nnunet_trainer.__name__} augments sample by sample, as nnU-Net does: {unknown}"
            self.settings.emit("warning", message=message)

    def _do_i_compile(self) -> bool:
        # Inductor chooses kernels by timing them.
        return not self.settings.deterministic and can_compile(self.device) and bool(super()._do_i_compile())

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
        """True if the loss is not nnU-Net's, for which it is known how the parts of a batch add up."""
        return self.nnunet_trainer._build_loss is not nnUNetTrainer._build_loss

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        # Networks without it may have no decoder.
        if self.enable_deep_supervision:
            super().set_deep_supervision_enabled(enabled)

    def _set_batch_size_and_oversample(self) -> None:
        self.batch_size = self.settings.schedule.stages[-1].batch_size

    def configure_optimizers(self) -> tuple[Any, Any]:
        """Return nnU-Net's optimiser, updating all parameters in one pass."""
        epochs, self.num_epochs = self.num_epochs, built_for(self.settings.schedule)
        optimizer, scheduler = super().configure_optimizers()
        self.num_epochs = epochs
        updates.fuse(optimizer)
        return optimizer, CurriculumRate(scheduler, optimizer, lambda: self.settings.schedule)

    def get_dataloaders(self) -> tuple[Batches, Batches]:
        """Return the one loader twice: its keys come in the order in which training and validation ask."""
        pipeline = pipeline_of(self, batchwise=self._batchwise)
        training, validation = self.get_tr_and_val_datasets()
        self._slices = SliceWriter(self, validation)
        # A GPU augments whole batches itself; the CPU's loader processes do it beside the training.
        self._dataset = KeyedBatches(
            training, validation, pipeline, self.label_manager, finished=self.device.type != "cuda"
        )
        self._keys = sampler = KeySampler(
            self.settings.schedule,
            self.settings.seed,
            epoch=self.current_epoch,
            iteration=self._first_iteration,
            cut=self._cut,
            oversampling=oversampling_of(self),
        )
        batches = Batches(
            make_loader(self._dataset, sampler, workers=self.settings.workers, pin_memory=self.device.type == "cuda"),
            self.settings.loader_timeout,
            self._stop_for_loader,
        )
        # Known to `close` even if nnU-Net never uses it: a run's end must end the workers.
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
                check_patience(self.settings, self.logger.get_checkpoint(), self.current_epoch)
                self.run_training()
            except PatienceSpent:
                self._ends_early = True
                self.on_train_end()
                return

    def _plan_next_stage(self) -> None:
        """Settle the stage that begins now, equally on all ranks; a resumed run may have settled it before."""
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
        self._reports.begin_epoch(self.current_epoch, self.dataloader_train.waited, whole=self._first_iteration == 0)

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._steps.begin_epoch()
        self._losses = list(self._losses_before)
        self._trains = True
        # run_training asks for this many: what a stop within the epoch left to do.
        self.num_iterations_per_epoch = self.settings.schedule.iterations_per_epoch - self._first_iteration

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self.settings.ranks.may_stop:
            self._stop_if_requested()
        return self._steps.train(batch)

    def _trained_batch(self, loss: float) -> None:
        total = self.settings.schedule.iterations_per_epoch
        self._reports.progress(self.current_epoch, "train", len(self._losses), total, loss)

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        self._trains = False
        self._steps.read_all()
        if self._steps.late is not None:
            train_outputs = [{"loss": np.float32(loss)} for loss in self._losses[len(self._losses_before) :]]
        outputs = [{"loss": np.float32(loss)} for loss in self._losses_before] + train_outputs
        super().on_train_epoch_end([o for o in outputs if math.isfinite(o["loss"])] or outputs)
        self._reports.trained()

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.num_val_iterations_per_epoch = self.settings.schedule.validation_iterations_at(self.current_epoch)
        self._validated = 0

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        self._stop_if_requested()
        result = self._steps.validate(batch, super().validation_step)
        self._validated += 1
        total = self.num_val_iterations_per_epoch
        self._reports.progress(self.current_epoch, "validation", self._validated, total, None)
        return result

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        ranks = self.settings.ranks
        if not val_outputs:
            # nnU-Net's log needs a value for every epoch; the moving average must not count one twice.
            logged = self.logger.get_checkpoint()
            for name in _FIGURES:
                logged[name].append(logged[name][-1])
            return
        if ranks.count > 1:
            # If memory ran out on one rank, all ranks learn of it before the sum.
            self._stop_if_requested()
            # Overlaps of samples add up, as do the ranks' shares of the loss.
            names = list(val_outputs[0])
            rows = np.array([np.concatenate([np.ravel(o[n]) for n in names]) for o in val_outputs], np.float64)
            ends = np.cumsum([np.size(val_outputs[0][n]) for n in names])[:-1]
            summed = [np.split(row, ends) for row in ranks.sum(rows)]
            val_outputs = [{n: v[0] if n == "loss" else v for n, v in zip(names, row, strict=True)} for row in summed]
        super().on_validation_epoch_end(val_outputs)
        self._reports.peaks.validated()
        logged = self.logger.get_checkpoint()
        # A few patches without foreground are not informative, and must not break the moving average.
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
        self._reports.validated()
        super().on_epoch_end()
        if self._best_ema is not None and math.isnan(self._best_ema):
            # No value would be better than NaN.
            self._best_ema = None
        self._first_iteration, self._losses_before, self._losses = 0, [], []
        epoch = self.current_epoch - 1
        self._slices.write(epoch)
        saving = time.perf_counter()
        self._save_if_due()
        self._reports.end_epoch(epoch, self.logger.get_value, waited=self.dataloader_train.waited, saving=saving)
        check_patience(self.settings, self.logger.get_checkpoint(), self.current_epoch)

    def on_train_end(self) -> None:
        if self.current_epoch < self.settings.schedule.epochs and not self._ends_early:
            return
        super().on_train_end()
        keep_activations(self._module)
        self.close()

    # Checkpoints

    def save_checkpoint(self, filename: str) -> None:
        """Save what nnU-Net asks for (best and final checkpoint); `_save_if_due` writes the latest."""
        path = Path(filename)
        if path == self.settings.run.checkpoint_best:
            self._best_is_now = True
        elif self.settings.ranks.rank == 0:
            # on_train_end has set the epoch back by one for nnU-Net's own counting.
            self._submit(self._content(self.current_epoch + 1, 0), path)
            self._writer.wait()

    def _save_if_due(self) -> None:
        """Save the state after an epoch: after some of them, and after every stage."""
        schedule, epoch = self.settings.schedule, self.current_epoch
        due = self._pace.ends_epoch(self._copying + self._writer.seconds)
        if epoch == schedule.epochs or epoch == schedule.first_epoch(schedule.stage_index_at(epoch)):
            due = True
        if due:
            self._save(self.settings.run.checkpoint_latest, iteration=0)
        elif self._best_is_now and self.settings.ranks.rank == 0:
            self._unwritten_best, self._best_is_now = self._content(epoch, 0), False

    def _save(self, path: Path, *, iteration: int) -> None:
        if self.settings.ranks.rank != 0:
            return
        started = time.perf_counter()
        links = []
        if self._best_is_now:
            links, self._best_is_now, self._unwritten_best = [self.settings.run.checkpoint_best], False, None
        content = self._content(self.current_epoch, iteration)
        self._copying = time.perf_counter() - started
        self._submit(content, path, *links)
        self._pace.saved()

    def _submit(self, content: dict[str, Any], path: Path, *links: Path) -> None:
        # The best one first: after a kill in between, the latest would know of a best epoch that no file holds.
        best, self._unwritten_best = self._unwritten_best, None
        first = None if best is None else (best, self.settings.run.checkpoint_best)
        self._writer.submit(content, path, *links, first=first)

    def _content(self, epochs_done: int, iteration: int) -> dict[str, Any]:
        return content_of(self, self._module, epochs_done, iteration, self._losses)

    def restore(self, content: dict[str, Any], where: Path) -> None:
        """Continue from a checkpoint's content; raises `RunError` if it belongs to another schedule or seed."""
        self._first_iteration, self._losses_before = restore_into(self, self._module, content, where)
        lay_out_state(self.optimizer)

    def start_from(self, weights: dict[str, torch.Tensor]) -> None:
        """Begin with pretrained weights; raises `BadInput` if they do not match the network."""
        self._module.load_state_dict(matching(self._module.state_dict(), weights))

    # Stopping

    def _check_alike(self) -> None:
        """Check before saving that all ranks have the same weights, bit for bit."""
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

    def _wants_to_stop(self) -> bool:
        """Return whether `_stop_if_requested` would stop."""
        self._unsaved = self._unsaved or self._writer.failure()
        return self._unsaved is not None or self.settings.stop_requested() is not None

    def _stop_if_requested(self) -> None:
        """Stop on all ranks at the same iteration; so do all errors that `_stop_for` is called with."""
        reason, unsaved = self.settings.stop_requested(), self._unsaved or self._writer.failure()
        if reason is not None:
            # The newest batch counts too, although its loss may not have arrived.
            self._steps.read_all()
        where = f"epoch {self.current_epoch + 1} after iteration {len(self._losses)}"
        asked = StoppedEarly(f"stopped in {where} ({reason})", self.settings.run.path) if reason is not None else None
        if (error := self._agreed(asked or unsaved)) is not None:
            self._save_and_raise(error)

    def _stop_for(self, error: PpgsError) -> NoReturn:
        """Save the state of the training, between two iterations, and raise the reason."""
        self._save_and_raise(self._agreed(error) or error)

    def _stop_for_loader(self, error: PpgsError) -> NoReturn:
        """Do the same for an error of this rank's loader, while the others train on their parts of the batch."""
        if self._trains and not self.settings.ranks.may_stop:
            with suppress(PpgsError):
                self._steps.break_off()
        self._stop_for(error)

    def _agreed(self, error: PpgsError | None) -> PpgsError | None:
        try:
            return self.settings.ranks.agree(error)
        except PpgsError as lost:
            return error or lost

    def _save_and_raise(self, error: PpgsError) -> NoReturn:
        self._steps.read_all()
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
        """The network itself, without the compiler's wrapper."""
        module: nn.Module = self.network._orig_mod if isinstance(self.network, OptimizedModule) else self.network
        return module

    def _is_last_epoch(self) -> bool:
        return bool(self.current_epoch == self.settings.schedule.epochs - 1)

    def plot_network_architecture(self) -> None:
        """Skip the drawing: it needs hiddenlayer, which is rarely installed, and nnU-Net then only prints a note."""
