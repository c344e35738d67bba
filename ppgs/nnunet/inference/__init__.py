"""Segmentation with trained folds: nnU-Net's preprocessing, sliding window and export.

A cascade's first stage, whose segmentations the second trains on, is segmented here too.
"""
