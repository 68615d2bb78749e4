"""The command `dpt evaluate`: which protocol it runs, and what it prints.

`--data` evaluates on prepared shards: depth (`pipelines.evaluate`), or, of a model that predicts classes,
segmentation (`pipelines.evaluation.segmentation`). `--on` evaluates on published sets in their raw folders,
by one of `PROTOCOLS`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.progress import Progress
from rich.table import Table
from typer.core import TyperCommand

from datasets_prep.errors import UserError
from pipelines.cli import options
from pipelines.cli.options import require_durable_path
from pipelines.terminal import console, echo

if TYPE_CHECKING:
    import dpt
    from datasets_prep.manifest import PreparedDataset
    from pipelines.config import EvaluateConfig
    from pipelines.zero_shot.report import Report
    from pipelines.zero_shot.run import SetResult

_PICTURED = 4
"""Images in the picture of predictions of a segmentation model."""

_MEAN_MAP = "mean-map"
"""Value of `--baseline`."""


class SpreadOptions(TyperCommand):
    """A command whose options `--on` and `--raw` take several words: `--on diw eth3d --raw /data`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See `click.Command.parse_args`; each word becomes an option of its own first."""
        return list(super().parse_args(ctx, spread(args)))


def spread(words: Sequence[str]) -> list[str]:
    """`words` of a command line with an option for each value: `--on a b --raw c` → `--on a --on b --raw c`.

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
    overrides: options.Overrides = None,
    model: options.OptionalModel = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="Instead of a model: mean-map, the mean of the training split's inverse depth."),
    ] = None,
    config: options.Config = None,
    data: options.OptionalData = None,
    on: Annotated[
        list[str] | None,
        typer.Option("--on", metavar="SET…", help="Published sets: diw eth3d sintel kitti nyu tum."),
    ] = None,
    raw: Annotated[
        list[str] | None,
        typer.Option("--raw", metavar="FOLDER|SET=FOLDER…", help="Their raw data: one folder, or one a set."),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="How to evaluate on them.", show_default="zero-shot")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="Folder for their tables and pictures; path or s3://…", show_default="evaluation"),
    ] = None,
    allow_missing: options.AllowMissing = False,
    exact: options.Exact = False,
    verbose: options.Verbose = False,
) -> None:
    """Evaluate a model: on prepared datasets, or on published evaluation sets beside the paper's figures."""
    if bool(data) == bool(on):
        raise UserError("give either --data SHARDS or --on SET… with --raw FOLDER")
    if baseline not in (None, _MEAN_MAP):
        raise UserError(f"--baseline: there is no {baseline!r}; the only one is {_MEAN_MAP}")
    if bool(model) == bool(baseline):
        raise UserError(f"give either --model MODEL or --baseline {_MEAN_MAP}")
    if data:
        for name, value in {"--raw": raw, "--protocol": protocol, "--out": out}.items():
            if value:
                raise UserError(f"{name} goes with --on, not with --data")
        _on_shards(model, overrides or [], config, data, allow_missing, exact, verbose)
        return
    if model is None:
        raise UserError(f"--baseline goes with --data: raw sets have no training split to fit {_MEAN_MAP} on")
    chosen = protocol or "zero-shot"
    if chosen not in PROTOCOLS:
        raise UserError(f"--protocol: there is no {chosen!r}; choose from {', '.join(PROTOCOLS)}")
    folder = require_durable_path(out or "evaluation")
    PROTOCOLS[chosen](
        model, overrides or [], config, on or [], raw or [], folder, allow_missing, exact, verbose
    )


# ---- prepared shards: relative depth


def _on_shards(
    reference: str | None,
    overrides: list[str],
    config: str | None,
    data: list[str],
    allow_missing: bool,
    exact: bool,
    verbose: bool,
) -> None:
    """AbsRel and δ on prepared datasets after affine alignment; pixAcc and mIoU where they have labels.

    Of the model of a `reference`, None for the mean map.
    """
    import dpt
    from dpt.weights.folder import read_config
    from pipelines.config import EvaluateConfig
    from pipelines.config_files import load_section
    from pipelines.evaluate import evaluate_and_log
    from pipelines.evaluation.mean_map import FITTED_ON
    from pipelines.evaluation.selection import evaluation_datasets
    from pipelines.tracking.metric_keys import SKILL
    from pipelines.tracking.model_reference import load_model, model_folder

    given = {"allow_missing": allow_missing or None, "exact": exact or None}
    settings = load_section("evaluate", EvaluateConfig, config, overrides, options=given)
    with model_folder(reference) if reference else nullcontext() as folder:
        model = dpt.ModelConfig.from_dict(read_config(folder)) if folder else None
        datasets = evaluation_datasets(model, settings.split, data, echo)
        if reference and model and model.task == "segmentation":
            _on_labels(load_model(str(folder)), reference, settings, datasets, verbose)
            return
        if settings.allow_missing:
            raise UserError("--allow-missing goes with --on, or with datasets that have labels")
        options.show_config(settings, verbose)
        results = evaluate_and_log(settings, folder, reference or _MEAN_MAP, datasets)
    console.print(_depth_table(results))
    alone = [name for name, result in results.items() if SKILL not in result]
    if model and not model.metric and alone:
        echo(f"no skill on {', '.join(alone)}: no {FITTED_ON} split that a mean map is fitted on")


def _depth_table(results: Mapping[str, Mapping[str, float]]) -> Table:
    """`results`, dataset → metric → value, and their mean over datasets; of columns those with any value."""
    from pipelines.report.table import MISSING
    from pipelines.tracking.metric_keys import MEAN, MEAN_MAP, SKILL, with_mean

    titles = {"abs_rel": "AbsRel", MEAN_MAP: "mean\nmap", SKILL: "skill"}
    titles |= {"delta1": "δ <\n1.25", "delta2": "δ <\n1.25²", "rmse": "RMSE"}
    shown = [metric for metric in titles if any(metric in result for result in results.values())]
    # Nine columns have to fit into a terminal of eighty.
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("dataset", no_wrap=True)
    for title in (*(titles[metric] for metric in shown), "images", "without\ntruth"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, result in with_mean(results, shown).items():
        figures = (f"{result[metric]:.4f}" if metric in result else MISSING for metric in shown)
        counts = (f"{result[count]:.0f}" if count in result else "" for count in ("images", "empty_images"))
        if name == MEAN:
            table.add_section()
        table.add_row(name, *figures, *counts)
    return table


# ---- prepared shards: segmentation


def _on_labels(
    model: dpt.DPT,
    reference: str,
    settings: EvaluateConfig,
    datasets: Sequence[PreparedDataset],
    verbose: bool,
) -> None:
    """pixAcc and mIoU; that all images are there is checked before anything is printed."""
    from pipelines.evaluation import segmentation, tables
    from pipelines.tracking.metric_keys import SEGMENTATION, keyed, with_mean
    from pipelines.tracking.registry import evaluation_run, note_protocol

    segmentation.check(settings, model, datasets)
    options.show_config(settings, verbose)
    with evaluation_run(reference, "evaluate", settings, datasets, "segmentation") as run:
        counts = segmentation.evaluate_segmentation(settings, model, datasets)
        results = {name: count.result() for name, count in counts.items()}
        run.log_metrics(keyed(SEGMENTATION, with_mean(results)), step=0)
        note_protocol(run, {}, [d for d in counts if segmentation.is_official(d, settings, counts[d])])
        for name, count in counts.items():
            run.log_text(tables.class_csv(name, count), f"classes/{name}.csv")
            run.log_picture(tables.class_figure(name, count), f"classes/{name}.png")
        picture = segmentation.sample_segmentations(model, datasets, settings.split, _PICTURED)
        run.log_picture(picture, "predictions.png")
    missing = {d.name: len(segmentation.left_out(d, settings.split)) for d in datasets}
    console.print(tables.summary_table(counts, missing))
    for name, count in counts.items():
        console.print(tables.extremes_table(name, count))
        table = tables.paper_table(name, count)
        if table is not None and settings.split == "val":
            console.print(table)
    console.print(f"every class: classes/ in MLflow's run {run.run_id}")


# ---- published sets


def _zero_shot(
    reference: str,
    overrides: list[str],
    config: str | None,
    on: list[str],
    raw: list[str],
    out: str,
    allow_missing: bool,
    exact: bool,
    verbose: bool,
) -> None:
    """A depth model on the sets of Table 1, beside the paper's figures."""
    from datasets_prep.storage.folder import Folder
    from pipelines.config import ZeroShotConfig
    from pipelines.config_files import load_section
    from pipelines.tracking.metric_keys import ZERO_SHOT, keyed
    from pipelines.tracking.model_reference import load_model
    from pipelines.tracking.registry import evaluation_run, note_protocol
    from pipelines.tracking.runs import RunInput
    from pipelines.zero_shot.report import make_report, write_files
    from pipelines.zero_shot.run import draw_worst, evaluate_zero_shot, require_depth_model
    from pipelines.zero_shot.sets import SPLIT, find_sets, require_complete

    model = load_model(reference)
    given = {"exact": exact or None}
    settings = load_section("zero_shot", ZeroShotConfig, config, overrides, options=given)
    require_depth_model(model)
    found = find_sets(on, raw, settings.lists)
    require_complete(found, allow_missing)
    Folder(out).require_writable()
    options.show_config(settings, verbose)
    for entry in found:
        counts = f"{len(entry.samples)} of {entry.description.images} images"
        echo(f"{entry.name}: {counts}, read as {entry.source} from {entry.raw}")
    inputs = [RunInput(f.name, f.raw, f.digest, f.digest[:16], {SPLIT: len(f.samples)}) for f in found]
    with evaluation_run(reference, "zero_shot", settings, inputs) as run:
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task("evaluate", total=sum(len(entry.samples) for entry in found))
            results = evaluate_zero_shot(
                settings, model, found, allow_missing, lambda n: bar.advance(task, n)
            )
        worst = draw_worst(settings, model, found, results)
        report = make_report(reference, results, settings.resamples, settings.seed)
        with tempfile.TemporaryDirectory(prefix="dpt-evaluation-") as local:
            write_files(Folder(local), report, results, worst)
            run.log_files(Path(local), "zero_shot")
        run.log_metrics(keyed(ZERO_SHOT, {one.name: one.means() for one in results}), step=0)
        run.log_metrics(keyed(ZERO_SHOT, report.metrics()), step=0)
        note_protocol(run, {}, [f.name for f in found if f.is_complete and settings.rule is None])
    names = write_files(Folder(out), report, results, worst)  # on a full disk MLflow has them all
    _print_report(report, results)
    for name in names:
        echo(f"{out.rstrip('/')}/{name}")


def _print_report(report: Report, results: Sequence[SetResult]) -> None:
    from pipelines.zero_shot.report import header, notes, our_lines, paper_lines

    table = Table(*header(report))
    for line in our_lines(report):
        table.add_row(*line)
    table.add_section()
    for line in paper_lines(report):
        table.add_row(*line)
    console.print(table)
    echo(notes())
    for result in results:
        if result.beyond_cap:
            names = ", ".join(result.beyond_cap)
            echo(f"{result.name}: {len(result.beyond_cap)} without ground truth below the cap: {names}")
        for problem in result.unreadable:
            echo(f"{result.name}: left out: {problem}")


PROTOCOLS = {"zero-shot": _zero_shot}
"""Values of `--protocol`."""
