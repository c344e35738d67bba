"""The command line: one file per command, stdout and stderr, exit codes. The only room that prints.

stdout carries data (tables and JSON that a command was asked for), stderr carries narration.
"""
