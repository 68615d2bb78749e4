"""`dpt evaluate --on … --protocol zero-shot`: Table 1 with a row of ours."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from pipelines.cli.evaluation_request import EvaluationRequest

if TYPE_CHECKING:
    from pipelines.tracking.runs import Run, RunInput
    from pipelines.zero_shot.report import Report
    from pipelines.zero_shot.run import SetResult
    from pipelines.zero_shot.sets import FoundSet

console = Console()


def zero_shot(request: EvaluationRequest) -> None:
    """Evaluate a depth model zero-shot; log and print the outcome beside the paper's.

    Raises:
        UserError: if model, sets or settings cannot be used, or what was found is not whole.
    """
    from pipelines.config import ZeroShotConfig
    from pipelines.config_files import load_section, to_yaml
    from pipelines.tracking import runs as tracking
    from pipelines.tracking.registry import note_evaluation
    from pipelines.zero_shot.report import make_report
    from pipelines.zero_shot.run import draw_worst, evaluate_zero_shot, require_depth_model
    from pipelines.zero_shot.sets import find_sets, require_complete

    settings = load_section("zero_shot", ZeroShotConfig, request.config, list(request.overrides))
    console.print(to_yaml(settings), end="", highlight=False)
    require_depth_model(request.network)
    found = find_sets(request.on, request.raw, settings.lists)
    _say_what_was_found(found)
    require_complete(found, request.allow_missing)
    run = tracking.start_run(f"evaluate {request.model}", "zero_shot", settings, _inputs(found))
    if request.model.startswith(tracking.MODEL_SCHEME):
        note_evaluation(run, request.model)
    with tracking.finishing(run):
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task("evaluate", total=sum(len(entry.samples) for entry in found))
            results = evaluate_zero_shot(
                settings, request.network, found, request.allow_missing, lambda n: bar.advance(task, n)
            )
        worst = draw_worst(settings, request.network, found, results)
        report = make_report(request.model, results, settings.resamples, settings.seed)
        names = _keep(run, request.out, report, results, worst)
    _print(report, results)
    for name in names:
        typer.echo(f"{request.out.rstrip('/')}/{name}")


def _inputs(found: Sequence[FoundSet]) -> list[RunInput]:
    from pipelines.tracking.runs import RunInput
    from pipelines.zero_shot.sets import SPLIT

    return [
        RunInput(entry.name, entry.raw, entry.digest, entry.digest[:16], {SPLIT: len(entry.samples)})
        for entry in found
    ]


def _keep(
    run: Run,
    out: str,
    report: Report,
    results: Sequence[SetResult],
    worst: dict[str, list[tuple[str, bytes]]],
) -> list[str]:
    """Write all files, and log them with the metrics; returns the files' names."""
    from datasets_prep.storage.folder import Folder
    from pipelines.zero_shot.report import write_files

    names = write_files(Folder(out), report, results, worst)
    with tempfile.TemporaryDirectory(prefix="dpt-evaluation-") as local:
        write_files(Folder(local), report, results, worst)
        run.log_files(Path(local), "zero_shot")
    means = {f"{metric}/{one.name}": value for one in results for metric, value in one.means().items()}
    run.log_metrics(means | report.metrics(), step=0)
    return names


def _say_what_was_found(found: Sequence[FoundSet]) -> None:
    for entry in found:
        whole = entry.description.images
        typer.echo(
            f"{entry.name}: {len(entry.samples)} of {whole} images, read as {entry.source} from {entry.raw}"
        )


def _print(report: Report, results: Sequence[SetResult]) -> None:
    from pipelines.zero_shot.report import header, notes, our_lines, paper_lines

    table = Table(*header(report))
    for line in our_lines(report):
        table.add_row(*line)
    table.add_section()
    for line in paper_lines(report):
        table.add_row(*line)
    console.print(table)
    typer.echo(notes(report))
    for result in results:
        if result.beyond_cap:
            names = ", ".join(result.beyond_cap)
            typer.echo(f"{result.name}: {len(result.beyond_cap)} without ground truth below the cap: {names}")
        for problem in result.unreadable:
            typer.echo(f"{result.name}: left out: {problem}")
