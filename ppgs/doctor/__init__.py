"""Checks of a machine and of a task, each a finding with its remedy; checks with torch or images are in nnunet."""
