"""THE FENCE: the only room that imports nnunetv2, batchgenerators or torch."""
