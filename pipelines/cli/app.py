"""The console script `dpt`: every job of the project as a subcommand.

Heavy libraries are imported by the commands that need them, so that `dpt --help` answers at once.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from datasets_prep.errors import UserError
from pipelines.cli import evaluate as cli_evaluate
from pipelines.cli import predict as cli_predict
from pipelines.cli import prepare
from pipelines.cli import prepare as cli_prepare
from pipelines.cli import registry as cli_registry
from pipelines.cli import train as cli_finetune
from pipelines.cli.options import Config, Overrides, lasting
from tune import cli as cli_tune

app = typer.Typer(
    name="dpt",
    help="Train dense prediction transformers: raw depth datasets to a registered model, on Ray.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console()


Data = Annotated[
    list[str], typer.Option("--data", "-d", help="A prepared dataset, or a folder of them. Repeat for more.")
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


app.command()(prepare.stereo)


for shards_command in (cli_prepare.prepare, cli_prepare.inspect):
    app.command()(shards_command)


@app.command()
def train(
    data: Data,
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the run.")],
    overrides: Overrides = None,
    config: Config = None,
    task: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="What is learned; names the paper's settings for it too, unless --config does."),
    ] = None,
    storage: Annotated[str, typer.Option(help="Where runs keep checkpoints; a path or s3://…")] = "runs",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run of that name.")] = False,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Go on even if config or data changed since its start.")
    ] = False,
) -> None:
    """Train a model on prepared datasets and log it to MLflow."""
    from pipelines.config import TrainConfig
    from pipelines.config_files import TASK_CONFIGS, load_section, to_yaml
    from pipelines.train import train as run_training

    storage = lasting(storage)
    chosen = [f"task={task}"] if task else []
    config = config or TASK_CONFIGS.get(task or "")
    settings = load_section("train", TrainConfig, config, [*chosen, *(overrides or [])])
    console.print(to_yaml(settings), end="", highlight=False)
    result = run_training(settings, data, name, storage, resume, allow_changes, show=typer.echo)
    typer.echo(f"checkpoint: {result.checkpoint}")
    typer.echo(f"model: {result.model_uri}; to register it: dpt publish {name} --alias champion")


app.command()(cli_finetune.finetune)
app.command(cls=cli_evaluate.Spreading)(cli_evaluate.evaluate)


for command in (cli_predict.predict, cli_predict.convert):
    app.command()(command)


for registered in (cli_registry.publish, cli_registry.models, cli_registry.promote, cli_registry.rollback):
    app.command()(registered)


app.command()(cli_tune.tune)


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


@app.command()
def report(
    what: Annotated[
        str,
        typer.Argument(
            metavar="SWEEP|MODEL", help="Name of a sweep of dpt tune, or a model as predict takes it."
        ),
    ],
    out: Annotated[str, typer.Option(help="Folder for the page, its tables and charts.")] = "report",
    data: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--data", "-d", help="A prepared dataset to show a model's predictions of. Repeat for more."
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="How many images of each dataset.")] = 4,
    split: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Split of these datasets.", show_default="val, or the last one"),
    ] = None,
) -> None:
    """Set a sweep's ablations, or a model's measurements, beside the paper's: one page, from MLflow."""
    from pipelines.tracking.model_reference import names_a_model

    if names_a_model(what):
        from pipelines.report.model_page import write_model_report

        path = write_model_report(what, Path(out), data or [], images, split)
    elif data:
        raise UserError(f"--data belongs to the report of a model, and there is none at {what}")
    else:
        from tune.report.page import write_report

        path = write_report(what, Path(out))
    typer.echo(f"page: {path}")


@app.command("config")
def show_config(
    job: Annotated[str, typer.Argument(help="stereo, prepare, train, evaluate, zero_shot, predict or tune.")],
    overrides: Overrides = None,
    config: Config = None,
) -> None:
    """Print a job's resolved config: every key with its value."""
    from pipelines.config import ConfigError, Experiment
    from pipelines.config_files import load_section, to_yaml

    if job not in Experiment.model_fields:
        raise ConfigError(f"no job {job!r}; there are: {', '.join(Experiment.model_fields)}")
    section = type(getattr(Experiment(), job))
    typer.echo(to_yaml(load_section(job, section, config, overrides or [])), nl=False)


@app.command()
def demo(
    out: Annotated[str, typer.Option(help="Folder to work in.")] = "demo",
    config: Annotated[str, typer.Option("--config", "-c", help="A YAML file, or a built-in one.")] = "demo",
) -> None:
    """Run the whole way on rendered scenes: generate, prepare, train, evaluate, publish, predict, tune."""
    from pipelines.demo import run_demo
    from tune.demo import run_demo_sweep

    run_demo(Path(out), config, console)
    run_demo_sweep(Path(out), config, console, typer.echo)


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
