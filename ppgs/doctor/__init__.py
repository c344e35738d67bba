"""Checks of a machine and of a task, each a finding with its remedy; what needs torch or images is nnunet's."""
