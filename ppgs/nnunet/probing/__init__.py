"""Looks at one training step of the network that plans describe: traced without data, or taken for real.

Runs as its own process (`python -m ppgs.nnunet.probing`), one JSON request on stdin, one JSON answer on stdout, so that
those who ask need no torch.
"""
