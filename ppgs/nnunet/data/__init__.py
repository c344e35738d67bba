"""Batches as pure functions of keys: which case, which crop, which augmentation.

Everything between the preprocessed cases on disk and the batch that a training step takes.
"""
