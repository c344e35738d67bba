"""The processes that train a run, from start to exit code.

`python -m ppgs.nnunet.process FOLD_FOLDER` is what the commands start; it chooses the role of the process.
"""
