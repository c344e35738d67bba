"""A run on disk: its folder, manifest, lock, event log, and the state that the log adds up to.

Pure and cheap to import: Pydantic, psutil and the standard library alone.
"""
