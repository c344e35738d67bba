"""Public archives: fetched whole or not at all, checked, and unpacked into one folder."""
