"""Texts of users in files of other programs: spreadsheets compute formulas, Markdown pages show HTML."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from datasets_prep.errors import one_line, printable


def comma_separated(rows: Iterable[Sequence[object]]) -> str:
    """CSV of `rows`; text that a spreadsheet would take for a formula gets an apostrophe in front."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def in_markdown(text: str) -> str:
    """`text` in one line of Markdown, also in a table's cell: without HTML, links and pictures."""
    plain = printable(text).replace("\n", " ").replace("&", "&amp;").replace("<", "&lt;")
    return plain.replace("|", "\\|").replace("](", "]\\(")


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    formula = value.startswith(("=", "+", "-", "@", "\t", "\r")) and not _is_number(value)
    return "'" * formula + one_line(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
