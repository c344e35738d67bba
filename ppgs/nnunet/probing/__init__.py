"""Probes of one training step of the plans' network: traced without data, or taken and measured.

Runs as its own process (`python -m ppgs.nnunet.probing`), one JSON request on stdin, one JSON answer on stdout, so that
those who ask need no torch.
"""
