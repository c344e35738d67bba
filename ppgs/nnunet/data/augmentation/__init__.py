"""nnU-Net's augmentation of a whole batch together, as tensor operations on any device.

`translate` reads the pipeline that nnU-Net itself builds (`nnUNetTrainer.get_training_transforms`) and takes ranges and
probabilities from it; what a sample undergoes is a function of its row of uniform random numbers alone.

On the CPU `BatchAugmentation` takes `Crops`. For another device the loader's worker packs them as `Prepared`, with all
parameters in one tensor: few copies and operators then serve many batches, without host synchronisation.
"""

from __future__ import annotations

from ppgs.nnunet.data.augmentation.pipeline import BatchAugmentation, Crops, Moved, Prepared, Target, translate

__all__ = ["BatchAugmentation", "Crops", "Moved", "Prepared", "Target", "translate"]
