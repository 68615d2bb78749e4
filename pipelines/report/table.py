"""Tables of numbers as data, rendered as HTML that sorts by any column, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from typing import Literal

from pipelines.plain_tables import in_markdown

Tone = Literal["", "better", "worse", "missing", "failed"]

MISSING = "\N{EN DASH}"

_LONG = 40
"""Cells of text with more characters may wrap."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column's `title`; adjacent columns of one `group` share a header above; `text` is aligned left."""

    title: str
    group: str = ""
    text: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell.

    Attributes:
        text: its content.
        key: sort key; cells with None are sorted last.
        detail: smaller text behind it.
        best: printed bold, as the paper prints the best of a column.
        tone: colour of the cell.
    """

    text: str
    key: float | str | None = None
    detail: str = ""
    best: bool = False
    tone: Tone = ""

    @classmethod
    def of(cls, text: str) -> Cell:
        """A cell of `text`, which is its sort key too."""
        return cls(text, text)

    @classmethod
    def absent(cls, why: str = MISSING) -> Cell:
        """A cell without a value, with the reason `why`."""
        return cls(why, None, tone="missing")


@dataclass(frozen=True, slots=True)
class NumberTable:
    """A table with a `title`; its `rows` have one cell for each of the `columns`, the first names the row."""

    title: str
    columns: Sequence[Column]
    rows: list[list[Cell]] = field(default_factory=list)

    def html(self) -> str:
        """As HTML that can be scrolled and sorted by keyboard."""
        rows = "\n".join(f"<tr>{''.join(self._cells(row))}</tr>" for row in self.rows)
        return (
            f'<p class="caption" aria-hidden="true">{escape(self.title)}</p>\n'
            f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(self.title)}">'
            f'<table class="sortable" aria-label="{escape(self.title)}">\n'
            f"<thead>{self._groups()}<tr>{''.join(self._headers())}</tr></thead>\n"
            f"<tbody>{rows}</tbody></table></div>"
        )

    def markdown(self) -> str:
        """As a Markdown table with one line of headers."""
        titles = [in_markdown(f"{column.group} {column.title}".strip()) for column in self.columns]
        lines = [titles, [":--" if column.text else "--:" for column in self.columns]]
        for row in self.rows:
            texts = [in_markdown(f"{cell.text} {cell.detail}".strip()) for cell in row]
            lines.append([f"**{t}**" if cell.best else t for t, cell in zip(texts, row, strict=True)])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    def _groups(self) -> str:
        if not any(column.group for column in self.columns):
            return ""
        headers = []
        for index, (title, members) in enumerate(groupby(self.columns, key=lambda column: column.group)):
            kind = "group first" if title and index else "group"
            scope = ' scope="colgroup"' if title else ""
            headers.append(f'<th class="{kind}" colspan="{len(list(members))}"{scope}>{escape(title)}</th>')
        return f"<tr>{''.join(headers)}</tr>"

    def _headers(self) -> Iterator[str]:
        for index, column in enumerate(self.columns):
            yield (
                f'<th scope="col" data-column="{index}" aria-sort="none"{_classes(self._kinds(index))}>'
                f'<button type="button">{escape(column.title)}</button></th>'
            )

    def _cells(self, row: list[Cell]) -> Iterator[str]:
        for index, (cell, column) in enumerate(zip(row, self.columns, strict=True)):
            kinds = [*self._kinds(index), *(["best"] if cell.best else []), cell.tone]
            if column.text and len(cell.text) > _LONG:
                kinds.append("wrap")
            # A key is missing, too, if it is NaN, which does not equal itself.
            key = "" if cell.key is None or cell.key != cell.key else escape(str(cell.key))
            name = 'th scope="row"' if index == 0 else "td"
            detail = f" <small>{escape(cell.detail)}</small>" if cell.detail else ""
            yield (
                f'<{name} data-key="{key}"{_classes(kinds)}>{escape(cell.text)}{detail}</{name.split()[0]}>'
            )

    def _kinds(self, index: int) -> list[str]:
        column = self.columns[index]
        starts = index > 0 and column.group and column.group != self.columns[index - 1].group
        return [*(["text"] if column.text else []), *(["first"] if starts else [])]


def _classes(kinds: Sequence[str]) -> str:
    names = " ".join(kind for kind in kinds if kind)
    return f' class="{names}"' if names else ""
