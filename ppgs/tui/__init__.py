"""The monitor: a Textual application that sees a run only through its folder (`ppgs.runs`).

It never imports nnU-Net or torch, and it can do nothing to a training but ask its process to stop.
"""
