"""The page of `dpt inspect`: random samples, statistics and problems of every dataset in one HTML file."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from datasets_prep.inspect.html import document, header, image, section, write_document
from datasets_prep.inspect.row_pictures import pictures_of_row
from datasets_prep.inspect.verify import Inspection, LeftOut

_LABELS = ("image", "ground truth", "validity")
_STATISTICS = {
    "height": "height, pixels",
    "width": "width, pixels",
    "valid_share": "pixels with ground truth, share",
    "sky_share": "pixels of sky, share",
    "inverse_depth_min": "inverse depth, smallest",
    "inverse_depth_median": "inverse depth, median",
    "inverse_depth_max": "inverse depth, largest",
}
_UNITS = (
    "Each row is a number that every sample has, and its spread over samples: 5 % of them are below the "
    "column 5 %. Inverse depth is stored without unit, from 0 (infinitely far, sky) to 1 (the nearest point "
    "of the sample); of a metric dataset the caption of a sample says how many metres 1 is."
)
_LEGEND = (
    "Samples, drawn at random. Left the image. In the middle the ground truth: of depth, bright is near, "
    "dark is far, black is sky or unknown; of labels, a colour a class; of point pairs, red is the farther "
    "point. Right where there is ground truth: white where there is, grey for sky, black where there is none."
)
_SHOWN_REASONS = 30
_NAMED = 4  # up to this many datasets are named in the title; more are counted
_STYLE = """
.samples { display: grid; gap: 1.4rem; margin-top: 1.5rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 32rem), 1fr)); }
.triple { display: grid; grid-template-columns: repeat(3, 1fr); gap: 3px; border-radius: .4rem;
  overflow: hidden; border: 1px solid var(--line); }
.triple img { width: 100%; height: auto; display: block; background: var(--wash); }
"""


def write_page(path: Path, datasets: Sequence[tuple[Inspection, list[dict[str, Any]]]]) -> Path:
    """Write the page of `datasets`, inspections with rows of `schema.SCHEMA`; returns its `path`."""
    names = [inspection.name for inspection, _ in datasets]
    title = ", ".join(names) if len(names) <= _NAMED else f"{len(names)} datasets"
    sections = "\n".join(_section(inspection, rows) for inspection, rows in datasets)
    top = header("Inspection of prepared datasets", title, links={name: name for name in names})
    return write_document(path, document(f"Inspection: {title}", f"{top}\n{sections}", _STYLE))


def _section(inspection: Inspection, rows: list[dict[str, Any]]) -> str:
    problems = "".join(f"<li>{escape(problem)}</li>" for problem in inspection.problems)
    sound = "<p>Every shard is as its digest and the schema say.</p>"
    verdict = f'<ul class="problems">{problems}</ul>' if problems else sound
    figures = "\n".join(_figure(row) for row in rows)
    body = (
        f"<p>{escape(inspection.dataset)}</p>\n{verdict}\n{_statistics(inspection)}\n"
        f'{_quarantine(inspection.quarantine)}\n<p class="note">{escape(_LEGEND)}</p>\n'
        f'<div class="samples">{figures}</div>'
    )
    return section(inspection.name, inspection.name, body)


def _statistics(inspection: Inspection) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in inspection.columns)
    lines = "".join(
        f'<tr><th scope="row">{escape(_STATISTICS.get(name, name))}</th>'
        f"{''.join(f'<td>{escape(value)}</td>' for value in values)}</tr>"
        for name, values in inspection.rows.items()
    )
    return (
        '<div class="scroll" role="region" tabindex="0" '
        f'aria-label="Statistics of {escape(inspection.name)}">'
        f'<table><thead><tr><th class="text" scope="col">over samples</th>{head}</tr></thead>'
        f'<tbody>{lines}</tbody></table></div>\n<p class="note">{escape(_UNITS)}</p>'
    )


def _quarantine(left_out: list[LeftOut]) -> str:
    if not left_out:
        return "<p>Nothing was left out.</p>"
    lines = "".join(
        f'<tr><td>{entry.count}</td><td class="text wrap">{escape(entry.reason)}</td>'
        f'<td class="text wrap">{escape(entry.example)}</td></tr>'
        for entry in left_out[:_SHOWN_REASONS]
    )
    more = f"<p>… and {len(left_out) - _SHOWN_REASONS} more.</p>" if len(left_out) > _SHOWN_REASONS else ""
    return (
        "<h3>Left out</h3>"
        '<div class="scroll"><table><thead><tr><th>samples</th><th class="text">reason</th>'
        f'<th class="text">one of them</th></tr></thead><tbody>{lines}</tbody></table></div>{more}'
    )


def _figure(row: dict[str, Any]) -> str:
    pictures = "".join(
        image(picture, f"{row['sample_id']}: {label}")
        for label, picture in zip(_LABELS, pictures_of_row(row), strict=True)
    )
    facts = [row["split"], f"{row['width']} by {row['height']}", row["target_kind"]]
    if row["valid_share"] is not None:
        facts.append(f"{row['valid_share']:.0%} valid")
    if row["sky_share"]:
        facts.append(f"{row['sky_share']:.0%} sky")
    if row["scale"] is not None and row["target_kind"] == "metric":
        facts.append(f"nearest {1 / row['scale']:.2f} m")
    caption = f"<b>{escape(row['sample_id'])}</b><br/>{escape(', '.join(facts))}"
    return f'<figure><div class="triple">{pictures}</div><figcaption>{caption}</figcaption></figure>'
