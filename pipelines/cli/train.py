"""The commands that train: train and finetune."""

from __future__ import annotations

import json
from typing import Annotated, Optional

import typer
from rich.console import Console

from pipelines.cli.options import Config, Data, Overrides, lasting

console = Console()


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


def finetune(
    target: Annotated[
        str,
        typer.Argument(
            metavar="kitti|nyu|FOLDER", help="What to train on; a folder is a prepared dataset, or a raw one."
        ),
    ],
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the run.")],
    overrides: Overrides = None,
    model: Annotated[
        Optional[str],  # noqa: UP045 (Typer reads annotations at run time, also on Python 3.10)
        typer.Option(
            "--model", "-m", help="A model of relative depth: registered, a folder, any checkpoint."
        ),
    ] = None,
    data: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--data", "-d", help="Shards of kitti or nyu, or a folder of them."),
    ] = None,
    config: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--config", "-c", help="A YAML file over the dataset's own: `dpt config train -c nyu`."),
    ] = None,
    storage: Annotated[str, typer.Option(help="Where runs keep checkpoints; a path or s3://…")] = "runs",
    out: Annotated[str, typer.Option(help="Where shards of a raw folder go; a path or s3://…")] = "shards",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run of that name.")] = False,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Go on even if config or data changed since its start.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Go on without all images of the official split.")
    ] = False,
) -> None:
    """Make depth in metres of a model of relative depth; evaluate it as the paper's Tables 2 and 3."""
    from datasets_prep.settings import IngestSettings
    from pipelines.config import TrainConfig
    from pipelines.config_files import load_section, to_yaml
    from pipelines.evaluation.tables import metric_table
    from pipelines.finetune import finetune as run_finetuning
    from pipelines.finetune import preset_of, training_data

    storage, out, preset = lasting(storage), lasting(out), preset_of(target)
    start = [f"model.start={json.dumps(model)}"] if model else []
    settings = load_section("train", TrainConfig, config, [*start, *(overrides or [])], preset)
    console.print(to_yaml(settings), end="", highlight=False)
    prepare = load_section("prepare", IngestSettings, config, [], preset)
    dataset = training_data(target, data or [], out, prepare, typer.echo)
    done = run_finetuning(
        settings, dataset, name, storage, resume, allow_changes, allow_missing, show=typer.echo
    )
    if done.split:
        console.print(metric_table(done.dataset, done.split, done.metrics))
    typer.echo(f"checkpoint: {done.training.checkpoint}")
    typer.echo(f"model: {done.training.model_uri}; to register it: dpt publish {name} --alias champion")
