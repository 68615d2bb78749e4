"""The command line, run in this process."""

import sys

import pytest
from typer.testing import CliRunner

from tune import cli


def dpt(*arguments: object) -> int:
    """Run the console script; returns its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["dpt", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    return int(caught.value.code or 0)


def said(*arguments: object) -> str:
    """Run a command that must work; returns what it prints."""
    words = [str(argument) for argument in arguments]
    result = CliRunner().invoke(cli.app, words, env={"COLUMNS": "160"}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output
