"""What a terminal would obey is printed as an escape: a file name can hold anything but zero and slash."""

import warnings

import pytest
from rich.table import Table

from datasets_prep.errors import Note, NotFound, one_line, printable
from pipelines.cli import app, options
from pipelines.config import ConfigError
from pipelines.terminal import PlainConsole, echo

HOSTILE = "a\x1b[2J\x1b]0;title\x07\r\x08b\u202ec\u2066\u200bd\x9b1m\udcff [/red] :smile:"
SHOWN = r"a\x1b[2J\x1b]0;title\x07\r\x08b\u202ec\u2066\u200bd\x9b1m\udcff [/red] :smile:"


def test_control_characters_are_escaped_and_text_is_kept():
    assert printable(HOSTILE) == SHOWN
    assert printable("two\nlines") == "two\nlines"
    assert one_line("two\nlines\tö 日本 👩\u200d🚀 ن\u200cم") == "two\\nlines\tö 日本 👩\u200d🚀 ن\u200cم"


@pytest.mark.parametrize(("error", "shown"), [
    (NotFound(f"no model at {HOSTILE}\nx"), [f"dpt: no model at {SHOWN}\\nx"]),
    (ConfigError(f"seed: {HOSTILE}\nsteps: 1"), [f"dpt: seed: {SHOWN}", "steps: 1"]),
    (OSError(2, "No such file", f"{HOSTILE}\n"), [f"dpt: {SHOWN}\\n: No such file"]),
])  # fmt: skip
def test_errors(error, shown, monkeypatch, capsys):
    def fail() -> None:
        raise error

    monkeypatch.setattr(app, "app", fail)
    with pytest.raises(SystemExit):
        app.main()
    assert capsys.readouterr().err.splitlines() == shown


def test_lines_and_notes(capsys, monkeypatch):
    echo(f"{HOSTILE}\n → x.png")
    monkeypatch.setattr(warnings, "formatwarning", app._format_warning)
    assert warnings.formatwarning(Note(HOSTILE), Note, "x.py", 1) == f"{SHOWN}\n"
    assert capsys.readouterr().out == f"{SHOWN}\\n → x.png\n"


def test_cells_titles_and_texts_of_a_console(capsys):
    console, table = PlainConsole(width=200), Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    console.print(table)
    console.print(HOSTILE)
    printed = capsys.readouterr().out
    assert printed.count(SHOWN) == 4
    assert all(line.isprintable() for line in printed.splitlines())


def test_the_progress_bar(capsys):
    options.show_progress(HOSTILE, [(1, 2, f"{HOSTILE}\n")])
    printed = capsys.readouterr().out
    assert r"\x1b[2J" in printed
    assert not {"\x1b", "\x07", "\u202e"} & set(printed)
