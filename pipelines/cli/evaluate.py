"""The command `dpt evaluate`: which protocol it runs, and what it prints.

`--data` evaluates on prepared shards (`pipelines.evaluate`, `evaluation.segmentation`). `--on` evaluates
on published sets as they lie in their raw folders, by the protocol that `--protocol` names, else by that of
the model's task.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from typer.core import TyperCommand

from datasets_prep.errors import UserError
from pipelines.cli.options import Config, Overrides, lasting

if TYPE_CHECKING:
    import dpt
    from datasets_prep.manifest import PreparedDataset
    from pipelines.config import EvaluateConfig
    from pipelines.tracking.runs import Run, RunInput
    from pipelines.zero_shot.report import Report
    from pipelines.zero_shot.run import SetResult
    from pipelines.zero_shot.sets import FoundSet

console = Console()
_SHOWN = 4
"""Images in the picture of predictions of a segmentation model."""


class Spreading(TyperCommand):
    """A command whose options `--on` and `--raw` take several words: `--on diw eth3d --raw /data`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give every word an option of its own, which is the form that the parser knows."""
        return list(super().parse_args(ctx, spread(args)))


def spread(words: Sequence[str]) -> list[str]:
    """`--on a b --raw c` → `--on a --on b --raw c`.

    Words after an option's first that are `KEY=VALUE` belong to it only where KEY is an evaluation set;
    others are config overrides.
    """
    result: list[str] = []
    option, fresh = "", False
    for word in words:
        if word in ("--on", "--raw"):
            option, fresh = word, True
        elif word.startswith("-") or (not fresh and _is_override(word)):
            option = ""
        elif option and not fresh:
            result.append(option)
        else:
            fresh = False
        result.append(word)
    return result


def _is_override(word: str) -> bool:
    if "=" not in word:
        return False
    from pipelines.evaluation.sets import ZERO_SHOT

    return word.partition("=")[0] not in ZERO_SHOT


def evaluate(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="A registered model (models:/dpt@champion), a model's folder, a published checkpoint, or "
            "hf-hub:OWNER/NAME.",
        ),
    ],
    overrides: Overrides = None,
    config: Config = None,
    data: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--data", "-d", help="A prepared dataset, or a folder of them. Repeat for more."),
    ] = None,
    on: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--on", metavar="SET…", help="Published sets: diw eth3d sintel kitti nyu tum."),
    ] = None,
    raw: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--raw", metavar="FOLDER|SET=FOLDER…", help="Their raw data: a folder of all, or one each."
        ),
    ] = None,
    protocol: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="How to evaluate on them.", show_default="by the model's task"),
    ] = None,
    out: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Folder for tables and pictures of published sets; a path or s3://…",
            show_default="evaluation",
        ),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Evaluate on sets that are not whole, and say so.")
    ] = False,
) -> None:
    """Evaluate a model: on prepared datasets, or on published evaluation sets beside the paper's figures."""
    from pipelines.tracking.model_reference import load_network

    if bool(data) == bool(on):
        raise UserError("give either --data SHARDS or --on SET… with --raw FOLDER")
    if data:
        for name, value in {"--raw": raw, "--protocol": protocol, "--out": out}.items():
            if value:
                raise UserError(f"{name} goes with --on, not with --data")
        chosen = ["allow_missing=true"] if allow_missing else []
        _on_shards(model, [*(overrides or []), *chosen], config, data)
        return
    folder = lasting(out or "evaluation")
    network = load_network(model)
    run = _protocol(protocol or DEFAULT_PROTOCOL[network.config.task])
    run(
        EvaluationRequest(model, network, on or [], raw or [], overrides or [], config, folder, allow_missing)
    )


def _protocol(name: str) -> Callable[[EvaluationRequest], None]:
    if name not in PROTOCOLS:
        raise UserError(f"--protocol: there is no {name!r}; choose from {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


# ---- prepared shards


def _on_shards(model: str, overrides: list[str], config: str | None, data: list[str]) -> None:
    """AbsRel and δ on prepared datasets after affine alignment; pixAcc and mIoU where they have labels."""
    from datasets_prep.manifest import open_datasets
    from pipelines.config import EvaluateConfig
    from pipelines.config_files import load_section, to_yaml
    from pipelines.evaluate import evaluate as run_evaluation
    from pipelines.evaluation.relative_depth import mean_over_datasets
    from pipelines.evaluation.segmentation import has_labels
    from pipelines.tracking import runs as tracking
    from pipelines.tracking.model_reference import model_folder
    from pipelines.tracking.registry import note_evaluation

    settings = load_section("evaluate", EvaluateConfig, config, overrides)
    console.print(to_yaml(settings), end="", highlight=False)
    datasets = open_datasets(data)
    if has_labels(datasets):
        evaluate_labelled(settings, model, datasets, console)
        return
    if settings.allow_missing:
        raise UserError("--allow-missing goes with --on, or with datasets that have labels")
    with model_folder(model) as folder:
        run = tracking.start_run(f"evaluate {model}", "evaluate", settings, datasets)
        if model.startswith(tracking.MODEL_SCHEME):
            note_evaluation(run, model)
        with tracking.finishing(run):
            results = run_evaluation(settings, folder, data)
            for name, result in results.items():
                run.log_metrics({f"{metric}/{name}": value for metric, value in result.items()}, step=0)
            run.log_metrics({"abs_rel/mean": mean_over_datasets(results, "abs_rel")}, step=0)
    _print_results(results)


def _print_results(results: dict[str, dict[str, float]]) -> None:
    from pipelines.evaluation.relative_depth import mean_over_datasets

    shown = {"abs_rel": "AbsRel", "delta1": "δ < 1.25", "delta2": "δ < 1.25²", "rmse": "RMSE"}
    table = Table("dataset", *(f"{title}" for title in shown.values()), "images", "without ground truth")
    for name, result in results.items():
        counts = (f"{result['images']:.0f}", f"{result['empty_images']:.0f}")
        table.add_row(name, *(f"{result[metric]:.4f}" for metric in shown), *counts)
    table.add_section()
    table.add_row("mean", *(f"{mean_over_datasets(results, metric):.4f}" for metric in shown), "", "")
    console.print(table)


# ---- published sets


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """One call of the command.

    Attributes:
        model: how the user names the model.
        network: the model, loaded.
        on: names of evaluation sets.
        raw: where their raw data is: `SET=FOLDER`, or a folder of all.
        overrides, config: see `pipelines.config_files.load_section`.
        out: folder for tables and pictures; a path or URI.
        allow_missing: evaluate on sets that are not whole.
    """

    model: str
    network: dpt.DPT
    on: Sequence[str]
    raw: Sequence[str]
    overrides: Sequence[str]
    config: str | None
    out: str
    allow_missing: bool


def evaluate_labelled(
    settings: EvaluateConfig, reference: str, datasets: Sequence[PreparedDataset], console: Console
) -> None:
    """Evaluate a segmentation model; counts are checked before anything is printed.

    Args:
        reference: of the model, see `pipelines.tracking.model_reference.load_network`.

    Raises:
        UserError: see `pipelines.evaluation.segmentation.evaluate_segmentation`.
    """
    from pipelines.evaluation.segmentation import check, evaluate_segmentation, left_out, sample_segmentations
    from pipelines.evaluation.tables import (
        class_csv,
        class_figure,
        extremes_table,
        paper_table,
        summary_table,
    )
    from pipelines.tracking import runs as tracking
    from pipelines.tracking.model_reference import load_network
    from pipelines.tracking.registry import note_evaluation

    model = load_network(reference)
    check(settings, model, datasets)
    run = tracking.start_run(f"evaluate {reference}", "evaluate", settings, datasets)
    if reference.startswith(tracking.MODEL_SCHEME):
        note_evaluation(run, reference)
    with tracking.finishing(run):
        counts = evaluate_segmentation(settings, model, datasets)
        for name, count in counts.items():
            run.log_metrics({f"{metric}/{name}": value for metric, value in count.result().items()}, step=0)
            run.log_text(class_csv(name, count), f"classes/{name}.csv")
            run.log_picture(class_figure(name, count), f"classes/{name}.png")
        mean = sum(count.result()["miou"] for count in counts.values()) / len(counts)
        run.log_metrics({"miou/mean": mean}, step=0)
        run.log_picture(sample_segmentations(model, datasets, settings.split, _SHOWN), "predictions.png")
    missing = {d.name: len(left_out(d, settings.split)) for d in datasets}
    console.print(summary_table(counts, missing))
    for name, count in counts.items():
        console.print(extremes_table(name, count))
        table = paper_table(name, count)
        if table is not None and settings.split == "val":
            console.print(table)
    console.print(f"every class: classes/ in MLflow's run {run.run_id}")


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
    typer.echo(notes())
    for result in results:
        if result.beyond_cap:
            names = ", ".join(result.beyond_cap)
            typer.echo(f"{result.name}: {len(result.beyond_cap)} without ground truth below the cap: {names}")
        for problem in result.unreadable:
            typer.echo(f"{result.name}: left out: {problem}")


PROTOCOLS: dict[str, Callable[[EvaluationRequest], None]] = {"zero-shot": zero_shot}
"""What `--protocol` may name."""

DEFAULT_PROTOCOL = {"depth": "zero-shot", "segmentation": "zero-shot"}
"""A model's task → its protocol."""
