"""`dpt report SWEEP`: our ablations beside the paper's, from MLflow alone: a page, Markdown, CSV, charts.

report.html         everything, in one self-contained file
report.md           tables and remarks, which links to the charts
tables.csv          every figure: table, row, metric, paper, ours, deviation, seeds
trials.csv          every trial: variant, seed, status, run_id, its metrics
charts/*.svg, *.png
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from html import escape
from pathlib import Path

from mlflow import MlflowClient

from datasets_prep.inspect.html import header, write_document
from pipelines.plain_tables import comma_separated, in_markdown
from pipelines.report import blocks as page
from pipelines.report.charts import Chart
from pipelines.report.table import MISSING, NumberTable
from tune import records
from tune.report.charts import Colours, charts_of, cost_chart, resolution_chart, variant_colours
from tune.report.comparison import TableResults, agreement, tables_of
from tune.report.pictures import picture_rows
from tune.report.remarks import finding, progress, remarks, settings
from tune.report.results import SweepResults, read_sweep
from tune.report.tables import accuracy_table, data_table, resolution_table, speed_table, trial_table

ARTIFACT_FOLDER = "report"
"""Artifact folder of the sweep's run in MLflow."""


@dataclass(frozen=True, slots=True)
class Part:
    """A section of the report, for the page and for Markdown.

    Attributes:
        anchor, title: of the section.
        text: paragraphs.
        problems: lines that are set apart: what failed or is missing.
        tables, charts: in their order.
        remarks: lines below the tables.
        pictures: title and HTML of each grid; the page only.
    """

    anchor: str
    title: str
    text: Sequence[str] = ()
    problems: Sequence[str] = ()
    tables: Sequence[NumberTable] = ()
    remarks: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    pictures: Sequence[tuple[str, str]] = ()


def write_report(name: str, out: Path) -> Path:
    """Write the report of the sweep `name` to the folder `out` and log it to its run; returns the page.

    Raises:
        TrackingError: if there is no such sweep.
    """
    sweep = read_sweep(name)
    tables = tables_of(sweep)
    parts = list(_parts(sweep, tables))
    for chart in (chart for part in parts for chart in part.charts):
        chart.write(out / "charts")
    write_document(out / "report.md", _markdown(sweep, parts))
    write_document(out / "tables.csv", _figures_csv(tables))
    write_document(out / "trials.csv", _trials_csv(sweep))
    path = write_document(out / "report.html", _html(sweep, tables, parts))
    client = MlflowClient()
    for file in ("report.html", "report.md", "tables.csv", "trials.csv"):
        client.log_artifact(sweep.run_id, str(out / file), ARTIFACT_FOLDER)
    if (out / "charts").is_dir():
        client.log_artifacts(sweep.run_id, str(out / "charts"), f"{ARTIFACT_FOLDER}/charts")
    return path


def _parts(sweep: SweepResults, tables: Sequence[TableResults]) -> Iterator[Part]:
    colours = variant_colours(sweep)
    for results in tables:
        yield _table_part(sweep, results, colours)
    shown = picture_rows(sweep)
    if shown:
        text = ["The same validation images through every variant; bright is near."]
        grids = [(title, page.picture_grid(pictures)) for title, pictures in shown]
        yield Part("pictures", "Predictions", text, pictures=grids)
    yield Part("run", "Run", text=settings(sweep), tables=[data_table(sweep), trial_table(sweep)])


def _table_part(sweep: SweepResults, results: TableResults, colours: Colours) -> Part:
    table = results.table
    title = f"{table.number}: {_TITLES.get(table.name, table.name)}" if table.number else table.name
    text = [f"{table.caption}."] if table.caption != table.name else []
    text += [f"The paper: “{table.claims}”"] if table.claims else []
    problems = [f"{row.title}: {'; '.join(row.missing)}" for row in results.rows if row.missing]
    charts: list[Chart | None]
    if table.name == "resolution":
        charts, shown = [resolution_chart(results, colours)], resolution_table(results)
    elif table.name == "speed":
        charts, shown = [cost_chart(sweep, colours)], speed_table(results)
    else:
        charts, shown = [*charts_of(results, colours)], accuracy_table(results)
    drawn = [chart for chart in charts if chart]
    return Part(table.name, title, text, problems, tables=[shown], remarks=remarks(results), charts=drawn)


_TITLES = {
    "skip": "skip connections",
    "readout": "readout token",
    "backbone": "backbones",
    "resolution": "inference resolution",
    "speed": "parameters and latency",
}


def _html(sweep: SweepResults, tables: Sequence[TableResults], parts: Sequence[Part]) -> str:
    links = {part.anchor: part.title.partition(": ")[2].capitalize() or part.title for part in parts}
    top = header("Ablations of dense prediction transformers", sweep.name, escape(finding(sweep)), links)
    sections = {part.anchor: (part.title, _section(part)) for part in parts}
    foot = (
        f"Built from MLflow on {datetime.now(timezone.utc):%d %B %Y}; the sweep's run is "
        f"<code>{escape(sweep.run_id)}</code>. The paper: Ranftl, Bochkovskiy, Koltun, "
        "<i>Vision Transformers for Dense Prediction</i>, ICCV 2021."
    )
    return page.report_page(
        f"Ablations: {sweep.name}", top, page.tiles(_tiles(sweep, tables)), sections, foot
    )


def _section(part: Part) -> str:
    text = "".join(f"<p>{escape(line)}</p>" for line in part.text)
    pictures = "".join(f"<h3>{escape(title)}</h3>{grid}" for title, grid in part.pictures)
    tables = "\n".join(table.html() for table in part.tables)
    problems = page.notes(part.problems, "problems")
    return f"{text}{problems}{tables}{page.notes(part.remarks)}{page.charts(part.charts)}{pictures}"


def _tiles(sweep: SweepResults, tables: Sequence[TableResults]) -> list[tuple[str, str, str]]:
    found = [
        (results.table.number or results.table.name, ranks.tau)
        for results in tables
        if results.table.trained and results.table.name != "resolution" and (ranks := agreement(results))
    ]
    done, all_of_them, hours = progress(sweep)
    agreed = ", ".join(f"{tau:.2f}" for _, tau in found)
    compared = ", ".join(name for name, _ in found) or "nothing to compare yet"
    commit = sweep.tags.get("git_commit", "unknown")
    changed = " with changes" if commit.endswith("-dirty") else ""
    started = f"{datetime.fromtimestamp(sweep.started / 1000, timezone.utc):%d %b %Y}"
    seeds = [str(seed) for seed in sorted({trial.seed for trial in sweep.trials})]
    seed_words = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}" if seeds else ""
    return [
        ("Trainings finished", f"{done} of {all_of_them}", f"{hours:.2f} hours of training"),
        ("Variants", str(len({trial.variant for trial in sweep.trials})), seed_words),
        ("Rank agreement τ", agreed or MISSING, compared),
        ("Started", started, f"commit {commit[:10]}{changed}"),
    ]


# ---- the other forms


def _markdown(sweep: SweepResults, parts: Sequence[Part]) -> str:
    lines = [f"# Ablations: {in_markdown(sweep.name)}", "", in_markdown(finding(sweep)), ""]
    for part in parts:
        lines += [f"## {in_markdown(part.title)}", "", *(f"{in_markdown(line)}\n" for line in part.text)]
        lines += [*(f"- **{in_markdown(line)}**" for line in part.problems), ""]
        for table in part.tables:
            lines += [f"{in_markdown(table.title)}\n", table.markdown()]
        lines += [*(f"- {in_markdown(line)}" for line in part.remarks), ""]
        lines += [f"![{in_markdown(chart.title)}](charts/{chart.name}.png)\n" for chart in part.charts]
    return "\n".join(lines)


def _figures_csv(tables: Sequence[TableResults]) -> str:
    rows = [("table", "row", "metric", "paper", "ours", "deviation", "seeds")]
    speed = (records.PARAMETERS, records.LATENCY)
    prefixes, others = (records.abs_rel(""), "resolution_"), (*speed, records.TRAIN_HOURS)
    for results in tables:
        for row in results.rows:
            columns = row.row.paper
            printed = {name if name in speed else records.abs_rel(name): columns[name] for name in columns}
            metrics = {metric for trial in row.trials for metric in trial.metrics}
            ours_too = {name for name in metrics if name.startswith(prefixes) or name in others}
            for metric in sorted(printed.keys() | ours_too):
                paper, ours = printed.get(metric), row.value(metric)
                mean, count = (ours.mean, ours.count) if ours else (None, 0)
                deviation = ours.deviation if ours and ours.count > 1 else None
                figures = (_plain(paper), _plain(mean), _plain(deviation), str(count))
                rows.append((results.table.name, row.title, metric, *figures))
    return comma_separated(rows)


def _trials_csv(sweep: SweepResults) -> str:
    metrics = sorted({metric for trial in sweep.trials for metric in trial.metrics})
    rows = [("variant", "seed", "status", "run_id", *metrics)]
    for trial in sweep.trials:
        values = (_plain(trial.metrics.get(metric)) for metric in metrics)
        rows.append((trial.variant, str(trial.seed), trial.state, trial.run_id, *values))
    return comma_separated(rows)


def _plain(value: float | None) -> str:
    return "" if value is None else repr(float(value))
