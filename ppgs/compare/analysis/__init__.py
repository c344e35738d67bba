"""From runs to a comparison: comparable runs, paired differences, ranks, the verdict.

Reads segmentations for Dice and surface distances, but writes and formats nothing.
"""
