"""Image files on disk: discovery and integrity checks."""
