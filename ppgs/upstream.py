"""Facts borrowed from nnU-Net, each with its source there. When nnU-Net changes, look here first.

Only literals: nothing here imports nnU-Net, so that planning and viewing stay fast. `tests/nnunet/test_contract.py`
compares every one of them with the installed nnU-Net.
"""

from __future__ import annotations

# `nnUNetTrainer.__init__`: it pairs the parameters of a subclass with its own.
TRAINER_PARAMETERS = ("plans", "configuration", "fold", "dataset_json", "device")
EPOCHS = 1000
ITERATIONS = 250
VALIDATION_ITERATIONS = 50
# Versions that the contract test passes with (`pyproject.toml` has the same range).
VERSIONS = ("2.8.",)
# Exponent of `nnunetv2.training.lr_scheduler.polylr.PolyLRScheduler`.
POLY_EXPONENT = 0.9
# Norm to which `nnUNetTrainer.train_step` clips gradients.
LARGEST_NORM = 12.0
# `nnUNetTrainer.oversample_foreground_percent`.
FOREGROUND_SHARE = 0.33
# Range that `nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size` gives to `get_patch_size`.
SCALE_RANGE = (0.85, 1.25)
# `nnunetv2.configuration.ANISO_THRESHOLD`: patches whose longest side is more than as many times the first are rotated
# slice by slice.
ANISOTROPY = 3
# Sigmas at which `batchgeneratorsv2...gaussian_blur.blur_dimension` cuts its kernel.
BLUR_TRUNCATE = 6.0
# Folds of a prepared dataset (`nnUNetTrainer.do_split`).
SPLITS = "splits_final.json"
# Folds that `nnUNetTrainer.do_split` makes if there is no such file.
FOLDS = 5
# Folder, in a first stage's model, with a folder for each configuration that follows it (`nnUNetTrainer.initialize`).
NEXT_STAGE = "predicted_next_stage"
# Keys of `nnUNetTrainer.save_checkpoint`.
CHECKPOINT_KEYS = frozenset(
    (
        "network_weights",
        "optimizer_state",
        "grad_scaler_state",
        "logging",
        "_best_ema",
        "current_epoch",
        "init_args",
        "trainer_name",
        "inference_allowed_mirroring_axes",
    )
)
# The one of them that holds the weights, and the part of names of layers that `load_pretrained_weights` leaves out.
WEIGHTS = "network_weights"
SEGMENTATION_HEADS = ".seg_layers."
# All files of a preprocessed case in either of nnU-Net's formats (`nnUNetDatasetBlosc2`, `nnUNetDatasetNumpy`).
CASE_ENDINGS = (".b2nd", "_seg.b2nd", ".npz", ".npy", "_seg.npy", ".pkl")
# File endings of `nnunetv2.imageio.reader_writer_registry.LIST_OF_IO_CLASSES`.
READABLE = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".png", ".bmp", ".tif", ".tiff")
# Formats of which one file may hold all channels of a picture (`NaturalImage2DIO`).
PICTURES = (".png", ".bmp", ".tif")
# Readers that turn images to one orientation, by their headers: image and label may be stored in different ones.
REORIENTING = ("SimpleITKIOWithReorient", "NibabelIOWithReorient")
# Formats that `NaturalImage2DIO` alone reads, so that a dataset of them has the configuration `2d` alone.
FLAT = (".png", ".bmp")
# Configurations of `ExperimentPlanner.plan_experiment`.
CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")
# Plans that can be made, each with the name of its planner (`ppgs.nnunet.preparation.pipeline.PLANNERS`).
PLANNERS = {
    "nnUNetPlans": "ExperimentPlanner",
    "nnUNetResEncUNetMPlans": "nnUNetPlannerResEncM",
    "nnUNetResEncUNetLPlans": "nnUNetPlannerResEncL",
    "nnUNetResEncUNetXLPlans": "nnUNetPlannerResEncXL",
    "nnUNetUNETRPlans": "UnetrPlanner",
    "nnUNetSwinUNETRPlans": "SwinUnetrPlanner",
}
# What `DefaultPreprocessor` reads from the plans.
PREPROCESSING_PLANS_KEYS = (
    "image_reader_writer",
    "transpose_forward",
    "label_manager",
    "foreground_intensity_properties_per_channel",
)
# What `DefaultPreprocessor` reads from a configuration.
PREPROCESSING_CONFIGURATION_KEYS = (
    "preprocessor_name",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
)
# Classes and functions that nnU-Net finds by name in its modules, by what they are for.
NAMED_CLASSES: dict[str, frozenset[str]] = {
    "image_reader_writer": frozenset(
        ("SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient", "NaturalImage2DIO", "Tiff3DIO")
    ),
    "label_manager": frozenset(("LabelManager",)),
    "preprocessor_name": frozenset(("DefaultPreprocessor",)),
    "normalization_schemes": frozenset(
        (
            "ZScoreNormalization",
            "CTNormalization",
            "NoNormalization",
            "RescaleTo01Normalization",
            "RGBTo01Normalization",
        )
    ),
    "resampling_fn": frozenset(
        ("resample_data_or_seg_to_shape", "resample_torch_simple", "resample_torch_fornnunet", "no_resampling_hack")
    ),
}
