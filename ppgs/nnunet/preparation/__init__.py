"""From raw images to training data: checks, conversion, fingerprint, plans, preprocessed cases, splits.

The work is nnU-Net's own; here is what makes it safe to repeat and to interrupt.
"""
