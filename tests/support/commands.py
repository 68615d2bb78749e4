"""The command line, run in this process."""

import signal
import sys

import pytest
from typer.testing import CliRunner

from pipelines.cluster import signals
from tune import cli


def dpt(*arguments: object) -> int:
    """Run the console script; returns its exit code."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["dpt", *map(str, arguments)])
        patch.setattr(sys, "unraisablehook", sys.unraisablehook)
        with pytest.raises(SystemExit) as caught:
            cli.main()
        signals.handle()  # forgets a signal, which would end this process too
    for number, handler in before.items():
        signal.signal(number, handler)
    return int(caught.value.code or 0)


def said(*arguments: object) -> str:
    """Run a command that must work; returns what it prints."""
    words = [str(argument) for argument in arguments]
    result = CliRunner().invoke(cli.app, words, env={"COLUMNS": "160"}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output
