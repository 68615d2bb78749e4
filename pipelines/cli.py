"""The console script `dpt`: every job of the project as a subcommand.

Heavy libraries are imported by the commands that need them, so that `dpt --help` answers at once.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from datasets_prep.errors import UserError
from pipelines import cli_predict, cli_registry, cli_stereo

if TYPE_CHECKING:
    from datasets_prep.shard_plan import IngestPlan

app = typer.Typer(
    name="dpt",
    help="Train dense prediction transformers: raw depth datasets to a registered model, on Ray.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console()


def _lasting(path: str) -> str:
    """Refuse a relative path inside a submitted job: it would lie in the job's directory, and go with it."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and "://" not in path and not os.path.isabs(path):
        raise UserError(
            f"{path}: inside a Ray job give an absolute path or a URI, or it is lost with the job"
        )
    return path


Config = Annotated[
    Optional[str],  # noqa: UP045 (Typer reads annotations at run time, also on Python 3.10)
    typer.Option(
        "--config", "-c", help="A YAML file, or a built-in one: paper, demo.", show_default="the paper's"
    ),
]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(
        metavar="[KEY=VALUE]...", help="Config overrides, e.g. seed=1. `dpt config JOB` lists the keys."
    ),
]
Data = Annotated[
    list[str], typer.Option("--data", "-d", help="A prepared dataset, or a folder of them. Repeat for more.")
]
Model = Annotated[
    str, typer.Option("--model", "-m", help="A registered model (models:/dpt@champion) or a model's folder.")
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dpt {importlib.metadata.version('dpt-on-ray')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train dense prediction transformers: raw depth datasets to a registered model, on Ray."""


@app.command()
def generate(
    dataset: Annotated[str, typer.Argument(help="Whose native layout to write, e.g. tartanair.")],
    out: Annotated[str, typer.Option(help="Folder to write to.")],
    scenes: Annotated[int, typer.Option(min=1, help="How many scenes to render.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Decides the scenes.")] = 0,
) -> None:
    """Render synthetic scenes in a dataset's published layout, to try things out without the real data."""
    from datasets_prep.synthetic import write_dataset

    write_dataset(dataset, Path(out), scenes, seed=seed)
    console.print(f"{scenes} scenes in the layout of {dataset}: {out}")


@app.command()
def datasets() -> None:
    """List the datasets that can be prepared, with the layout that is expected of each."""
    from datasets_prep.sources import SOURCES

    table = Table("dataset", "ground truth", show_lines=True)
    table.add_column("expected files", overflow="fold")
    for name in sorted(SOURCES):
        table.add_row(name, SOURCES[name].target_kind, escape(SOURCES[name].layout))
    console.print(table)


app.command()(cli_stereo.stereo)


@app.command()
def prepare(
    dataset: Annotated[str, typer.Argument(help="Which dataset, e.g. redweb; `dpt datasets` lists them.")],
    raw: Annotated[str, typer.Option(help="Its folder, in the published layout; a path or s3://…")],
    out: Annotated[str, typer.Option(help="Where to put DATASET/; a path or s3://…")],
    overrides: Overrides = None,
    config: Config = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Turn a raw dataset into shards of image, inverse depth and validity."""
    from datasets_prep.ingest import ingest, is_finished
    from datasets_prep.manifest import open_dataset
    from datasets_prep.shard_plan import IngestSettings, plan_ingest
    from pipelines.config import load_section, to_yaml
    from pipelines.ray_session import connect

    raw, out = _lasting(raw), _lasting(out)
    settings = load_section("prepare", IngestSettings, config, overrides or [])
    console.print(to_yaml(settings), end="", highlight=False)
    plan = plan_ingest(dataset, raw, settings)
    _show_plan(plan)
    if dry_run:
        return
    if not is_finished(plan, out):
        connect()
    _watch(ingest(plan, out), plan)
    done = open_dataset(f"{out.rstrip('/')}/{dataset}")
    samples = ", ".join(f"{count} {split}" for split, count in done.manifest.samples.items())
    console.print(f"{dataset}: {samples}, {done.manifest.quarantined} quarantined", highlight=False)
    if done.manifest.quarantined:
        typer.echo(f"what was left out, and why: {done.folder.uri}/quarantine.parquet")
    typer.echo(f"manifest: {done.folder.uri}/manifest.json")


def _show_plan(plan: IngestPlan) -> None:
    typer.echo(
        f"{plan.source}: {plan.samples} samples in {len(plan.shards)} shards, "
        f"{len(plan.rejected)} left out while listing, version {plan.version}"
    )


def _watch(progress: Any, plan: IngestPlan) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("samples, {task.fields[rate]:.1f} images/s, {task.fields[quarantined]} quarantined,"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(plan.source, total=plan.samples, rate=0.0, quarantined=len(plan.rejected))
        for state in progress:
            seconds = bar.tasks[0].elapsed or 1.0
            rate = state.samples_done / seconds
            bar.update(task, completed=state.samples_done, rate=rate, quarantined=state.quarantined)


@app.command()
def inspect(
    dataset: Annotated[str, typer.Argument(help="A prepared dataset's folder; a path or s3://…")],
    out: Annotated[str, typer.Option(help="Folder for the contact sheet.")] = "inspection",
    samples: Annotated[int, typer.Option(min=1, help="How many random samples to show.")] = 12,
) -> None:
    """Verify shards against their manifest, print statistics and draw a contact sheet."""
    from datasets_prep.inspect import draw_contact_sheet, verify
    from datasets_prep.manifest import open_datasets

    damaged = False
    for prepared in open_datasets([dataset]):
        report = verify(prepared)
        damaged |= bool(report.problems)
        _print_report(report)
        path = draw_contact_sheet(prepared, Path(out) / f"{prepared.name}.png", samples)
        typer.echo(f"contact sheet: {path}")
    if damaged:
        raise typer.Exit(1)


def _print_report(report: Any) -> None:
    table = Table(title=report.dataset, title_justify="left")
    for column in ("", *report.columns):
        table.add_column(column, justify="right" if column else "left")
    for name, values in report.rows.items():
        table.add_row(name, *values)
    console.print(table)
    for problem in report.problems:
        typer.echo(f"damaged: {problem}", err=True)


@app.command()
def train(
    data: Data,
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the run.")],
    overrides: Overrides = None,
    config: Config = None,
    storage: Annotated[str, typer.Option(help="Where runs keep checkpoints; a path or s3://…")] = "runs",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run of that name.")] = False,
) -> None:
    """Train a model on prepared datasets and log it to MLflow."""
    from pipelines.config import TrainConfig, load_section, to_yaml
    from pipelines.train import train as run_training

    storage = _lasting(storage)
    settings = load_section("train", TrainConfig, config, overrides or [])
    console.print(to_yaml(settings), end="", highlight=False)
    result = run_training(settings, data, name, storage, resume, show=typer.echo)
    typer.echo(f"checkpoint: {result.checkpoint}")
    typer.echo(f"model: {result.model_uri}; to register it: dpt publish {name} --alias champion")


@app.command()
def evaluate(
    data: Data,
    model: Model,
    overrides: Overrides = None,
    config: Config = None,
) -> None:
    """Evaluate a model on prepared datasets: AbsRel and δ after affine alignment."""
    from datasets_prep.manifest import open_datasets
    from pipelines import tracking
    from pipelines.config import EvaluateConfig, load_section, to_yaml
    from pipelines.evaluate import evaluate as run_evaluation
    from pipelines.evaluate import mean_over_datasets
    from pipelines.models import note_evaluation
    from pipelines.networks import find_model

    settings = load_section("evaluate", EvaluateConfig, config, overrides or [])
    console.print(to_yaml(settings), end="", highlight=False)
    folder = find_model(model)
    run = tracking.start_run(f"evaluate {model}", "evaluate", settings, open_datasets(data))
    if model.startswith(tracking.MODEL_SCHEME):
        note_evaluation(run, model)
    with tracking.finishing(run):
        results = run_evaluation(settings, folder, data)
        for name, result in results.items():
            run.log_metrics({f"{metric}/{name}": value for metric, value in result.items()}, step=0)
        run.log_metrics({"abs_rel/mean": mean_over_datasets(results, "abs_rel")}, step=0)
    _print_results(results)


def _print_results(results: dict[str, dict[str, float]]) -> None:
    from pipelines.evaluate import mean_over_datasets

    shown = {"abs_rel": "AbsRel", "delta1": "δ < 1.25", "delta2": "δ < 1.25²", "rmse": "RMSE"}
    table = Table("dataset", *(f"{title}" for title in shown.values()), "images", "without ground truth")
    for name, result in results.items():
        counts = (f"{result['images']:.0f}", f"{result['empty_images']:.0f}")
        table.add_row(name, *(f"{result[metric]:.4f}" for metric in shown), *counts)
    table.add_section()
    table.add_row("mean", *(f"{mean_over_datasets(results, metric):.4f}" for metric in shown), "", "")
    console.print(table)


for command in (cli_predict.predict, cli_predict.convert):
    app.command()(command)


for registered in (cli_registry.publish, cli_registry.models, cli_registry.promote, cli_registry.rollback):
    app.command()(registered)


@app.command(context_settings={"allow_interspersed_args": False})
def submit(
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND", help="E.g. train --data s3://bucket/shards.")
    ],
    address: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The cluster's job server.", show_default="RAY_API_SERVER_ADDRESS"),
    ] = None,
    env: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="KEY[=VALUE]",
            help="Environment of the job, which the cluster's users can see; MLFLOW_TRACKING_* go with every "
            "job. Repeat for more.",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Try first from the cluster what the job needs.")
    ] = True,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job's log to its end.")] = True,
) -> None:
    """Run a command of dpt on a cluster: with this working tree, its log here, its exit code."""
    from pipelines.submit import submit as run_there

    parameters = _parameters_of(command)
    write = partial(typer.echo, nl=False)
    raise typer.Exit(run_there(command, parameters, address, env or [], check, wait, write))


def _parameters_of(command: list[str]) -> dict[str, Any]:
    """What a command line of `dpt` gives to its subcommand; a mistake in it ends the program."""
    name, *arguments = command
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    if name not in group.commands:
        raise UserError(f"no command {name!r}; there are: {', '.join(sorted(group.commands))}")
    return group.commands[name].make_context(name, arguments).params


@app.command("config")
def show_config(
    job: Annotated[str, typer.Argument(help="stereo, prepare, train, evaluate or predict.")],
    overrides: Overrides = None,
    config: Config = None,
) -> None:
    """Print a job's resolved config: every key with its value."""
    from pipelines.config import ConfigError, Experiment, load_section, to_yaml

    if job not in Experiment.model_fields:
        raise ConfigError(f"no job {job!r}; there are: {', '.join(Experiment.model_fields)}")
    section = type(getattr(Experiment(), job))
    typer.echo(to_yaml(load_section(job, section, config, overrides or [])), nl=False)


@app.command()
def demo(
    out: Annotated[str, typer.Option(help="Folder to work in.")] = "demo",
    config: Annotated[str, typer.Option("--config", "-c", help="A YAML file, or a built-in one.")] = "demo",
) -> None:
    """Run the whole way on rendered scenes: generate, prepare, train, evaluate, publish, predict."""
    from pipelines.demo import run_demo

    run_demo(Path(out), config, console)


def main() -> None:
    """Run the command line; an error that a user can mend is one clear line, not a traceback."""
    # Ray gives workers their own working directory; what the user typed is relative to this one.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    try:
        app()
    except UserError as error:
        typer.echo(f"dpt: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
