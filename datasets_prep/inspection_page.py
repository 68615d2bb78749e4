"""The page of `dpt inspect`: one HTML file with random samples, statistics and problems of every dataset.

Pictures are part of the file, so that it can be sent and kept; it loads nothing and runs nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from datasets_prep.formats import encode_jpeg
from datasets_prep.inspect import Inspection, LeftOut
from datasets_prep.row_pictures import Picture, pictures_of_row

JPEG_QUALITY = 80
_LABELS = ("image", "ground truth", "validity")
_SHOWN_REASONS = 30

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fafaf8; --line: #d8d8d4; --bad: #b00020; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e4e0; --paper: #171717; --line: #3a3a3a; --bad: #ff7a85; }
}
body { margin: 0 auto; max-width: 88rem; padding: 1rem; background: var(--paper); color: var(--ink);
       font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.2rem; margin-top: 3rem; border-top: 1px solid var(--line);
     padding-top: 1rem; }
nav a { margin-right: 1rem; } a { color: inherit; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem .2rem 0; text-align: right; border-bottom: 1px solid var(--line);
         font-weight: normal; vertical-align: top; }
th:first-child, td.text { text-align: left; } td.text { overflow-wrap: anywhere; }
.problems { color: var(--bad); font-weight: 600; }
.samples { display: grid; gap: 1.2rem;
           grid-template-columns: repeat(auto-fill, minmax(min(100%, 34rem), 1fr)); }
figure { margin: 0; min-width: 0; } figcaption { font-size: .85rem; overflow-wrap: anywhere; }
.triple { display: grid; grid-template-columns: repeat(3, 1fr); gap: 2px; }
.triple img { width: 100%; height: auto; display: block; background: #888; }
"""


def write_page(path: Path, datasets: Sequence[tuple[Inspection, list[dict[str, Any]]]]) -> Path:
    """Write the page of some datasets, each with the rows to show; returns its path.

    Args:
        datasets: inspections, each with rows of `schema.SCHEMA`.
    """
    names = [inspection.name for inspection, _ in datasets]
    links = " ".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in names)
    sections = "\n".join(_section(inspection, rows) for inspection, rows in datasets)
    title = f"Inspection: {', '.join(names)}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n<nav>{links}</nav>\n{sections}\n</body></html>\n",
        encoding="utf-8",
    )
    return path


def _section(inspection: Inspection, rows: list[dict[str, Any]]) -> str:
    problems = "".join(f"<li>{escape(problem)}</li>" for problem in inspection.problems)
    verdict = (
        f'<ul class="problems">{problems}</ul>'
        if problems
        else "<p>Every shard is as its digest and the schema say.</p>"
    )
    figures = "\n".join(_figure(row) for row in rows)
    return (
        f'<section id="{escape(inspection.name)}"><h2>{escape(inspection.name)}</h2>\n'
        f"<p>{escape(inspection.dataset)}</p>\n{verdict}\n{_statistics(inspection)}\n"
        f'{_quarantine(inspection.quarantine)}\n<div class="samples">{figures}</div></section>'
    )


def _statistics(inspection: Inspection) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in inspection.columns)
    lines = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{escape(value)}</td>' for value in values)}</tr>"
        for name, values in inspection.rows.items()
    )
    return f'<div class="scroll"><table><tr><th>over samples</th>{head}</tr>{lines}</table></div>'


def _quarantine(left_out: list[LeftOut]) -> str:
    if not left_out:
        return "<p>Nothing was left out.</p>"
    lines = "".join(
        f'<tr><td>{entry.count}</td><td class="text">{escape(entry.reason)}</td>'
        f'<td class="text">{escape(entry.example)}</td></tr>'
        for entry in left_out[:_SHOWN_REASONS]
    )
    more = f"<p>… and {len(left_out) - _SHOWN_REASONS} more.</p>" if len(left_out) > _SHOWN_REASONS else ""
    return (
        "<h3>Left out</h3>"
        '<div class="scroll"><table><tr><th>samples</th><td class="text">reason</td>'
        f'<td class="text">one of them</td></tr>{lines}</table></div>{more}'
    )


def _figure(row: dict[str, Any]) -> str:
    pictures = "".join(
        f'<img alt="{label}" title="{label}" src="{_data_uri(picture)}">'
        for label, picture in zip(_LABELS, pictures_of_row(row), strict=True)
    )
    facts = [row["split"], f"{row['width']} by {row['height']}", row["target_kind"]]
    if row["valid_share"] is not None:
        facts.append(f"{row['valid_share']:.0%} valid")
    if row["sky_share"]:
        facts.append(f"{row['sky_share']:.0%} sky")
    if row["scale"] is not None and row["target_kind"] == "metric":
        facts.append(f"nearest {1 / row['scale']:.2f} m")
    caption = f"<b>{escape(row['sample_id'])}</b><br>{escape(', '.join(facts))}"
    return f'<figure><div class="triple">{pictures}</div><figcaption>{caption}</figcaption></figure>'


def _data_uri(picture: Picture) -> str:
    data = base64.b64encode(encode_jpeg(picture, JPEG_QUALITY)).decode("ascii")
    return f"data:image/jpeg;base64,{data}"
