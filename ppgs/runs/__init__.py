"""A run on disk: its folder, manifest, lock, event log, and the state folded from the log.

Pure and cheap to import: Pydantic, psutil and the standard library alone.
"""
