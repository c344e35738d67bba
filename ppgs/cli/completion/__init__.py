"""`ppgs completion`, the scripts for the shells, and the values that TAB offers."""
