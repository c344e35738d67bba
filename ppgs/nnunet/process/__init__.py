"""The processes that train a run: what each of them does from its start to its exit code.

`python -m ppgs.nnunet.process FOLD_FOLDER` is what the commands start; it chooses the role of the process.
"""
