"""Everything that ppgs relies on in nnU-Net: fails first when nnU-Net changes."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import multiprocessing
import pkgutil
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nnunetv2
import nnunetv2.imageio
import nnunetv2.preprocessing
import nnunetv2.utilities.label_handling
import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import blur_dimension
from nnunetv2.configuration import ANISO_THRESHOLD
from nnunetv2.evaluation.evaluate_predictions import compute_metrics, compute_metrics_on_folder
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES
from nnunetv2.inference.export_prediction import export_prediction_from_logits, resample_and_save
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ImageNormalization
from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.utils import recursive_find_resampling_fn_by_name
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2, nnUNetDatasetNumpy
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from ppgs import upstream
from ppgs.nnunet.preparation.following import default_splits
from ppgs.nnunet.preparation.pipeline import PLANNERS
from ppgs.nnunet.trainer.trainer import PpgsTrainer
from ppgs.processes.pool import WorkerPool, watched_pools


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
        compute_metrics_on_folder: (
            "folder_ref folder_pred output_file image_reader_writer file_ending regions_or_labels ignore_label "
            "num_processes chill"
        ),
        resample_and_save: (
            "predicted target_shape output_file plans_manager configuration_manager properties_dict "
            "dataset_json_dict_or_file num_threads_torch dataset_class"
        ),
        nnUNetPredictor._internal_predict_sliding_window_return_logits: "self data slicers do_on_device",
        nnUNetPredictor._internal_maybe_mirror_and_predict: "self x",
        nnUNetPredictor.predict_logits_from_preprocessed_data: "self data",
        export_prediction_from_logits: (
            "predicted_array_or_file properties_dict configuration_manager plans_manager dataset_json_dict_or_file "
            "output_file_truncated save_probabilities num_threads_torch"
        ),
        compute_metrics: "reference_file prediction_file image_reader_writer labels_or_regions ignore_label",
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


def test_what_the_sliding_window_does_with_all_classes_at_once() -> None:
    """`ppgs.nnunet.inference.window` allocates them and goes through them class by class."""
    source = inspect.getsource(nnUNetPredictor._internal_predict_sliding_window_return_logits)
    assert "predicted_logits = torch.zeros((self.label_manager.num_segmentation_heads, *data.shape[1:])," in source
    assert "torch.div(predicted_logits, n_predictions, out=predicted_logits)" in source
    assert "torch.any(torch.isinf(predicted_logits))" in source


def test_what_the_final_validation_reads_and_writes() -> None:
    """`ppgs.nnunet.inference.validation` does the same; its own test compares the results."""
    source = inspect.getsource(nnUNetTrainer.perform_actual_validation)
    for part in (
        "nnUNetPredictor(tile_step_size=0.5, use_gaussian=True, use_mirroring=True,",
        "self.inference_allowed_mirroring_axes)",
        "val_keys[self.local_rank:: dist.get_world_size()]",
        "convert_labelmap_to_one_hot(seg_prev, self.label_manager.foreground_labels,",
        "join(validation_output_folder, k)",
        "join(self.output_folder_base, 'predicted_next_stage', n)",
        "target_shape = d.shape[1:]",
        "join(self.preprocessed_dataset_folder_base, 'gt_segmentations')",
        "join(validation_output_folder, 'summary.json')",
    ):
        assert part in source, part
    assert set(re.findall(r'log_summary\(f?"([^"]+)"', source)) == {
        "final_val/class_{label}_dice",
        "final_val/foreground_dice",
    }


def test_where_a_first_stages_segmentations_lie() -> None:
    assert "self.folder_with_segs_from_previous_stage" in inspect.getsource(nnUNetTrainer.get_tr_and_val_datasets)


def test_a_sample_is_begun_by_asking_for_oversampling() -> None:
    """The keyed loader seeds here: before anything of a sample is drawn, and once per sample."""
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


def test_cases_listed_in_dataset_json_keep_nnunet_from_listing_folders(tmp_path: Path) -> None:
    listed = {"a": {"images": [str(tmp_path / "x_0000.nii.gz")], "label": str(tmp_path / "y.nii.gz")}}
    assert get_filenames_of_train_images_and_targets("/nowhere", {"dataset": listed}) == listed


def test_nnunets_own_folds_are_those_that_a_preparation_makes() -> None:
    assert "generate_crossval_split(all_keys_sorted, seed=12345" in inspect.getsource(nnUNetTrainer.do_split)
    assert [len(fold["val"]) for fold in default_splits([f"case_{i}" for i in range(11)])] == [3, 2, 2, 2, 2]


def test_a_channels_name_says_no_more_than_how_it_is_normalised() -> None:
    assert get_normalization_scheme("CT").__name__ == get_normalization_scheme("ct").__name__ == "CTNormalization"
    assert get_normalization_scheme("T1") is get_normalization_scheme("MR")


def test_ignored_voxels_count_for_the_normalisation_of_ct() -> None:
    # Once they do not, the warning of `ppgs.doctor.images` is wrong.
    images, labels = np.array([[[[0.0, 50.0, -1000.0]]]]), np.array([[[[0, 1, 2]]]])
    found, _ = DatasetFingerprintExtractor.collect_foreground_intensities(labels, images)
    assert set(found[0]) == {50.0, -1000.0}
    assert "ignore" not in inspect.getsource(DatasetFingerprintExtractor)


def in_source(function: Any, pattern: str) -> str:
    """Return the match of the pattern's group in a function's source."""
    found = re.search(pattern, inspect.getsource(function))
    assert found is not None, f"{pattern} is not in {function.__qualname__}"
    return found[1]


def defined(package: Any, base: type) -> frozenset[str]:
    """Classes that the modules of a package define."""
    return frozenset(
        name
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        for name, value in vars(importlib.import_module(info.name)).items()
        if isinstance(value, type) and value.__module__ == info.name and issubclass(value, base)
        if not inspect.isabstract(value)
    )


def named_classes() -> dict[str, frozenset[str]]:
    """Classes that `recursive_find_python_class` is meant to find; functions that can be found are as they are here."""
    functions = upstream.NAMED_CLASSES["resampling_fn"]
    assert all(callable(recursive_find_resampling_fn_by_name(name)) for name in functions)
    return {
        "image_reader_writer": defined(nnunetv2.imageio, BaseReaderWriter),
        "label_manager": defined(nnunetv2.utilities.label_handling, LabelManager),
        "preprocessor_name": defined(nnunetv2.preprocessing, DefaultPreprocessor),
        "normalization_schemes": defined(nnunetv2.preprocessing, ImageNormalization),
        "resampling_fn": functions,
    }


def checkpoint_keys() -> set[object]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(nnUNetTrainer.save_checkpoint)))
    (content,) = [node for node in ast.walk(tree) if isinstance(node, ast.Dict)]
    return {key.value for key in content.keys if isinstance(key, ast.Constant)}


def read_by_preprocessing(manager: str) -> set[str]:
    """Return the keys of plans or configuration that the default preprocessor reads."""
    steps = (DefaultPreprocessor.run_case, DefaultPreprocessor.run_case_npy, DefaultPreprocessor._normalize)
    source = "\n".join(map(inspect.getsource, steps))
    # The reader's class is found by its name.
    named = {"image_reader_writer_class": "image_reader_writer"}
    return {named.get(name, name) for name in re.findall(rf"\b{manager}_manager\.(\w+)", source)}


def of_a_trainer(name: str) -> int:
    return int(in_source(nnUNetTrainer.__init__, rf"self\.{name} = (\d+)"))


# Each constant of `ppgs.upstream` as the installed nnU-Net has it.
FACTS: dict[str, Callable[[], Any]] = {
    "TRAINER_PARAMETERS": lambda: tuple(inspect.signature(nnUNetTrainer.__init__).parameters)[1:],
    "EPOCHS": lambda: of_a_trainer("num_epochs"),
    "ITERATIONS": lambda: of_a_trainer("num_iterations_per_epoch"),
    "VALIDATION_ITERATIONS": lambda: of_a_trainer("num_val_iterations_per_epoch"),
    "VERSIONS": lambda: (".".join(importlib.metadata.version("nnunetv2").split(".")[:2]) + ".",),
    "POLY_EXPONENT": lambda: inspect.signature(PolyLRScheduler.__init__).parameters["exponent"].default,
    "LARGEST_NORM": lambda: float(in_source(nnUNetTrainer.train_step, r"clip_grad_norm_\(.*, (\d+)\)")),
    "FOREGROUND_SHARE": lambda: float(in_source(nnUNetTrainer.__init__, r"oversample_foreground_percent = ([\d.]+)")),
    "SCALE_RANGE": lambda: ast.literal_eval(
        in_source(
            nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size,
            r"get_patch_size\([^()]*?(\([\d., ]+\))\)",
        )
    ),
    "ANISOTROPY": lambda: ANISO_THRESHOLD,
    "BLUR_TRUNCATE": lambda: float(in_source(blur_dimension, r"truncate\D*([\d.]+)")),
    "SPLITS": lambda: in_source(nnUNetTrainer.do_split, r'"(\w+\.json)"'),
    "FOLDS": lambda: int(in_source(nnUNetTrainer.do_split, r"n_splits=(\d+)")),
    "NEXT_STAGE": lambda: in_source(nnUNetTrainer.__init__, r"'(predicted\w+)'"),
    "CHECKPOINT_KEYS": checkpoint_keys,
    "WEIGHTS": lambda: in_source(load_pretrained_weights, r"saved_model\['(\w+)'\]"),
    "SEGMENTATION_HEADS": lambda: in_source(load_pretrained_weights, r"skip_strings_in_pretrained = \[\s*'(.+)'"),
    "CASE_ENDINGS": lambda: case_endings(),
    "READABLE": lambda: {ending for reader in LIST_OF_IO_CLASSES for ending in reader.supported_file_endings},
    "PICTURES": lambda: tuple(NaturalImage2DIO.supported_file_endings),
    "REORIENTING": lambda: {n for n in named_classes()["image_reader_writer"] if n.endswith("WithReorient")},
    "FLAT": lambda: (
        set(NaturalImage2DIO.supported_file_endings)
        - {e for reader in LIST_OF_IO_CLASSES if reader is not NaturalImage2DIO for e in reader.supported_file_endings}
    ),
    "CONFIGURATIONS": lambda: set(
        re.findall(r"'configurations'(?:\]\[|: \{)'(\w+)'", inspect.getsource(ExperimentPlanner.plan_experiment))
    ),
    "PLANNERS": lambda: {name: planner.__name__ for name, planner in PLANNERS.items()},
    "PREPROCESSING_PLANS_KEYS": lambda: (
        read_by_preprocessing("plans")
        # Labels are described by `dataset.json`; intensities are taken from the fingerprint in the plans.
        - {"get_label_manager"}
        | {"label_manager"}
    ),
    # Its own class is named there, and `ConfigurationManager` binds the functions' arguments to them.
    "PREPROCESSING_CONFIGURATION_KEYS": lambda: (
        read_by_preprocessing("configuration")
        | {"preprocessor_name", "resampling_fn_data_kwargs", "resampling_fn_seg_kwargs"}
    ),
    "NAMED_CLASSES": named_classes,
}


def case_endings() -> set[str]:
    source = inspect.getsource(nnUNetDatasetBlosc2) + inspect.getsource(nnUNetDatasetNumpy)
    return {
        re.sub(r"^\{\w+\}", "", ending) for ending in re.findall(r"['\"]((?:_seg)?\.(?:b2nd|np[yz]|pkl))['\"]", source)
    }


def test_every_fact_is_compared() -> None:
    assert FACTS.keys() == {name for name in vars(upstream) if name.isupper()}


@pytest.mark.parametrize("name", FACTS)
def test_what_is_borrowed_is_as_it_is_there(name: str) -> None:
    ours, theirs = getattr(upstream, name), FACTS[name]()
    unordered = isinstance(theirs, (set, frozenset))
    assert (set(ours) if unordered else ours) == theirs


def test_worker_pools_have_all_that_nnunets_code_asks_of_a_pool() -> None:
    """In the modules that ppgs uses; dataset conversions of single datasets and its own prediction are not."""
    used: set[str] = set()
    for path in Path(nnunetv2.__file__).parent.rglob("*.py"):
        if path.parent.name in ("dataset_conversion", "inference") and path.name != "convert_MSD_dataset.py":
            continue
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"Pool\([^\n]*\) as (\w+):", text):
            used.update(re.findall(rf"\b{name}\.(\w+)", text))
        assert "multiprocessing.Process(" not in text, path
    assert {"starmap", "starmap_async", "_pool"} <= used
    pool = WorkerPool(1)
    pool.terminate()
    assert {name for name in used if not hasattr(pool, name)} == set()


def test_pools_are_looked_up_when_they_are_made() -> None:
    """`watched_pools` relies on it, for pools of every context that nnU-Net uses."""
    with watched_pools():
        for make in (multiprocessing.Pool, *(multiprocessing.get_context(kind).Pool for kind in ("fork", "spawn"))):
            with make(1) as pool:
                assert isinstance(pool, WorkerPool)


def test_the_fingerprint_is_one_task_per_case_in_a_pool_of_its_own() -> None:
    """Its progress is the number of finished tasks; while it waits, it asks the workers whether they are alive."""
    source = inspect.getsource(DatasetFingerprintExtractor.run)
    assert source.count("Pool(") == 1
    assert source.count("starmap_async(") == 1
    assert "for k in self.dataset.keys():" in source
    assert "p._pool" in source
    assert "j.is_alive()" in source
