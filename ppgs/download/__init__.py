"""Public archives: atomic download, checksum, and unpacking into one folder."""
