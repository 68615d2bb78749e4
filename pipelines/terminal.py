"""What jobs print. Names of files and texts in them can hold what a terminal obeys: here it is escaped."""

from __future__ import annotations

import os
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from datasets_prep.errors import one_line, printable


class PlainConsole(Console):
    """A console that prints texts, cells and titles as they are, `printable`: brackets are no markup.

    `options` are those of `rich.console.Console`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """See `rich.console.Console.render_str`, which every `text` goes through that has no style yet."""
        return super().render_str(printable(text), **options)


LOG_WIDTH = 1000
"""Columns of a log or a pipe: more than any table has, so that none is cut."""

console = PlainConsole()
if not console.is_terminal and "COLUMNS" not in os.environ:
    console = PlainConsole(width=LOG_WIDTH)


def echo(line: str, err: bool = False) -> None:
    """Print a `line`, to the standard error if `err`."""
    typer.echo(one_line(line), err=err)
