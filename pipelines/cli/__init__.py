"""The command line: one function a command, grouped by topic; each parameter is documented by its `help`."""
