"""The command line: one function a command, grouped by topic."""
