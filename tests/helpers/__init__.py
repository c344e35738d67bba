"""Helpers that several test modules share and that are not fixtures."""
