"""What ppgs relies on in nnU-Net: fails first when nnU-Net changes."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nnunetv2.imageio
import nnunetv2.preprocessing
import nnunetv2.utilities.label_handling
import torch
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES
from nnunetv2.inference.export_prediction import export_prediction_from_logits, resample_and_save
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ImageNormalization
from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.utils import recursive_find_resampling_fn_by_name
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from ppgs.doctor.description import READABLE
from ppgs.nnunet.checkpoints.files import NNUNET_KEYS
from ppgs.nnunet.preparation.following import default_splits
from ppgs.nnunet.trainer.trainer import PpgsTrainer
from ppgs.plans.trust import PARTS
from ppgs.runs.cascade import NEXT_STAGE
from ppgs.runs.prepared import _CONFIGURATION_KEYS, _PLANS_KEYS


def calls(function: object) -> list[str]:
    """Names of methods of self that a function calls, in order of appearance."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))  # type: ignore[arg-type]
    found = [
        (node.lineno, node.col_offset, node.func.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "self"
    ]
    return [name for *_, name in sorted(found)]


def test_the_constructors_signature() -> None:
    assert list(inspect.signature(nnUNetTrainer.__init__).parameters) == [
        "self",
        "plans",
        "configuration",
        "fold",
        "dataset_json",
        "device",
    ]
    assert PpgsTrainer.__init__ is nnUNetTrainer.__init__


def test_run_training_is_nnunets_and_calls_the_hooks_in_this_order() -> None:
    assert PpgsTrainer.run_training is nnUNetTrainer.run_training
    in_loop = [
        "on_epoch_start",
        "on_train_epoch_start",
        "train_step",
        "on_train_epoch_end",
        "on_validation_epoch_start",
        "validation_step",
        "on_validation_epoch_end",
        "on_epoch_end",
    ]
    assert calls(nnUNetTrainer.run_training) == ["on_train_start", *in_loop, "on_train_end"]


def test_iteration_counts_are_read_after_the_hooks_that_set_them() -> None:
    source = inspect.getsource(nnUNetTrainer.run_training)
    assert source.index("self.on_train_epoch_start()") < source.index("range(self.num_iterations_per_epoch)")
    assert source.index("self.on_validation_epoch_start()") < source.index("range(self.num_val_iterations_per_epoch)")


def test_checkpoint_keys() -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(nnUNetTrainer.save_checkpoint)))
    (content,) = [n for n in ast.walk(tree) if isinstance(n, ast.Dict)]
    assert {k.value for k in content.keys if isinstance(k, ast.Constant)} == NNUNET_KEYS


def test_logger_keys() -> None:
    assert set(LocalLogger().my_fantastic_logging) == {
        "mean_fg_dice",
        "ema_fg_dice",
        "dice_per_class_or_region",
        "train_losses",
        "val_losses",
        "lrs",
        "epoch_start_timestamps",
        "epoch_end_timestamps",
    }


def test_signatures_that_are_called_or_overridden() -> None:
    expected = {
        nnUNetTrainer.build_network_architecture: (
            "plans_manager configuration_manager num_input_channels num_output_channels enable_deep_supervision"
        ),
        nnUNetTrainer.get_training_transforms: (
            "patch_size rotation_for_DA deep_supervision_scales mirror_axes do_dummy_2d_data_aug use_mask_for_norm "
            "is_cascaded foreground_labels regions ignore_label"
        ),
        nnUNetTrainer.get_validation_transforms: (
            "deep_supervision_scales is_cascaded foreground_labels regions ignore_label"
        ),
        nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size: "self",
        nnUNetTrainer.set_deep_supervision_enabled: "self enabled",
        nnUNetTrainer.perform_actual_validation: "self save_probabilities",
        resample_and_save: (
            "predicted target_shape output_file plans_manager configuration_manager properties_dict "
            "dataset_json_dict_or_file num_threads_torch dataset_class"
        ),
        export_prediction_from_logits: (
            "predicted_array_or_file properties_dict configuration_manager plans_manager dataset_json_dict_or_file "
            "output_file_truncated save_probabilities num_threads_torch"
        ),
        nnUNetTrainer.train_step: "self batch",
        nnUNetTrainer.validation_step: "self batch",
        nnUNetTrainer.on_train_epoch_end: "self train_outputs",
        nnUNetTrainer.save_checkpoint: "self filename",
        nnUNetDataLoader.get_indices: "self",
        nnUNetDataLoader._oversample_last_XX_percent: "self sample_idx",
        nnUNetPredictor.manual_initialization: (
            "self network plans_manager configuration_manager parameters dataset_json trainer_name "
            "inference_allowed_mirroring_axes"
        ),
    }
    for function, names in expected.items():
        assert " ".join(inspect.signature(function).parameters) == names, function


def test_where_a_first_stages_segmentations_lie() -> None:
    source = inspect.getsource(nnUNetTrainer)
    assert NEXT_STAGE in source
    assert "self.folder_with_segs_from_previous_stage" in inspect.getsource(nnUNetTrainer.get_tr_and_val_datasets)


def test_a_sample_is_begun_by_asking_for_oversampling() -> None:
    """Where the keyed loader seeds: before anything of the sample is drawn, and once a sample."""
    source = inspect.getsource(nnUNetDataLoader.generate_train_batch)
    loop = source[source.index("for j, i in enumerate(selected_keys)") :]
    assert loop.index("self.get_do_oversample(j)") < loop.index("self._data.load_case(i)") < loop.index("self.get_bbox")
    assert source.count("get_do_oversample") == 1
    assert "random" not in source.replace("get_do_oversample", "").split("for j, i in")[0]


def test_on_epoch_end_saves_the_best_through_save_checkpoint_and_counts_on() -> None:
    source = inspect.getsource(nnUNetTrainer.on_epoch_end)
    assert "checkpoint_best.pth" in source
    assert "(current_epoch + 1) % self.save_every == 0" in source
    assert source.rstrip().endswith("self.current_epoch += 1")


def test_the_only_difference_to_stock_instance_norm_is_the_refusal() -> None:
    source = inspect.getsource(torch.nn.functional.instance_norm)
    assert "_verify_spatial_size(input.size())" in source
    assert "torch.instance_norm(" in source


def test_all_that_plans_may_name_is_known() -> None:
    """Classes and functions of nnU-Net that its `recursive_find_python_class` is meant to find."""
    found = {
        "image_reader_writer": _defined(nnunetv2.imageio, lambda c: issubclass(c, BaseReaderWriter)),
        "label_manager": _defined(nnunetv2.utilities.label_handling, lambda c: issubclass(c, LabelManager)),
        "preprocessor_name": _defined(nnunetv2.preprocessing, lambda c: issubclass(c, DefaultPreprocessor)),
        "normalization_schemes": _defined(nnunetv2.preprocessing, lambda c: issubclass(c, ImageNormalization)),
    }
    assert {name: set(known) for name, known in PARTS.items() if name != "resampling_fn"} == found
    for name in PARTS["resampling_fn"]:
        assert callable(recursive_find_resampling_fn_by_name(name))


def _defined(package: Any, wanted: Callable[[type], bool]) -> set[str]:
    return {
        name
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        for name, value in vars(importlib.import_module(info.name)).items()
        if isinstance(value, type) and value.__module__ == info.name and wanted(value) and not inspect.isabstract(value)
    }


def test_the_file_endings_that_nnunet_reads() -> None:
    known = {ending for reader in LIST_OF_IO_CLASSES for ending in reader.supported_file_endings}
    assert set(READABLE) == known


def test_cases_listed_in_dataset_json_keep_nnunet_from_listing_folders(tmp_path: Path) -> None:
    listed = {"a": {"images": [str(tmp_path / "x_0000.nii.gz")], "label": str(tmp_path / "y.nii.gz")}}
    assert get_filenames_of_train_images_and_targets("/nowhere", {"dataset": listed}) == listed


def test_all_that_preprocessing_reads_of_plans_is_in_the_digest_of_its_settings() -> None:
    steps = (DefaultPreprocessor.run_case, DefaultPreprocessor.run_case_npy, DefaultPreprocessor._normalize)
    source = "\n".join(inspect.getsource(step) for step in steps)
    read = set(re.findall(r"\b(?:plans|configuration)_manager\.(\w+)", source))
    # The reader's class is found by its name, and labels by `dataset.json`, which is in the digest too.
    named = {"image_reader_writer_class": "image_reader_writer", "get_label_manager": "label_manager"}
    assert {named.get(name, name) for name in read} <= {*_PLANS_KEYS, *_CONFIGURATION_KEYS}


def test_nnunets_own_folds_are_those_that_a_preparation_makes() -> None:
    assert "generate_crossval_split(all_keys_sorted, seed=12345, n_splits=5)" in inspect.getsource(
        nnUNetTrainer.do_split
    )
    assert [len(fold["val"]) for fold in default_splits([f"case_{i}" for i in range(11)])] == [3, 2, 2, 2, 2]


def test_a_channels_name_says_no_more_than_how_it_is_normalised() -> None:
    assert get_normalization_scheme("CT").__name__ == "CTNormalization"
    assert get_normalization_scheme("T1") is get_normalization_scheme("MR")
