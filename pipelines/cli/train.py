"""The commands that train: train and finetune."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli import options
from pipelines.cli.options import require_durable_path
from pipelines.terminal import console, echo

if TYPE_CHECKING:
    from pipelines.train import TrainResult


def train(
    data: options.Data,
    name: options.RunName,
    overrides: options.Overrides = None,
    config: options.Config = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="depth or segmentation; also selects the paper's settings for it, without --config."
        ),
    ] = None,
    storage: options.Storage = "runs",
    resume: options.Resume = False,
    allow_changes: options.AllowChanges = False,
    verbose: options.Verbose = False,
) -> None:
    """Train a model on prepared datasets and log it to MLflow."""
    from pipelines.config import TrainConfig
    from pipelines.config_files import TASK_CONFIGS, load_section

    storage = require_durable_path(storage)
    config = config or TASK_CONFIGS.get(task or "")
    settings = load_section("train", TrainConfig, config, overrides or [], options={"task": task})
    with options.waiting(f"run {name}: loading PyTorch and Ray") as stop:
        from pipelines.train import train as run_training

        show = options.after(stop, partial(options.show_config, settings, verbose))
        result = run_training(settings, data, name, storage, resume, allow_changes, show)
    _print_result(result, name, "dpt" if settings.task == "depth" else f"dpt-{name}")


def finetune(
    target: Annotated[
        str,
        typer.Argument(
            metavar="kitti|nyu|FOLDER", help="What to train on; a folder is a prepared dataset, or a raw one."
        ),
    ],
    name: options.RunName,
    overrides: options.Overrides = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="A relative depth model: registered, a folder, any checkpoint."),
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", "-d", help="Shards of kitti or nyu, or a folder of them.")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", help=f"Over the target's own: {options.CONFIG_HELP}"),
    ] = None,
    storage: options.Storage = "runs",
    out: Annotated[str, typer.Option(help="Folder of shards of a raw dataset; a path or s3://…")] = "shards",
    resume: options.Resume = False,
    allow_changes: options.AllowChanges = False,
    allow_missing: options.AllowMissing = False,
    verbose: options.Verbose = False,
) -> None:
    """Fine-tune a relative depth model to depth in metres; evaluate it as in the paper's Tables 2 and 3."""
    from datasets_prep.settings import IngestSettings
    from pipelines.config import TrainConfig
    from pipelines.config_files import load_section

    storage, out = require_durable_path(storage), require_durable_path(out)
    with options.waiting(f"run {name}: loading PyTorch and Ray") as stop:
        from pipelines.evaluation.tables import metric_table
        from pipelines.finetune import finetune as run_finetuning
        from pipelines.finetune import preset_of, training_data

        preset = preset_of(target)
        settings = load_section("train", TrainConfig, config, overrides or [], preset, {"model.start": model})
        show = options.after(stop, partial(options.show_config, settings, verbose))
        prepare = load_section("prepare", IngestSettings, config, [], preset)
        dataset = training_data(target, data or [], out, prepare, show)
        done = run_finetuning(settings, dataset, name, storage, resume, allow_changes, allow_missing, show)
    if done.split:
        console.print(metric_table(done.dataset, done.split, done.metrics))
    _print_result(done.training, name, f"dpt-{name}")


def _print_result(result: TrainResult, name: str, registered: str) -> None:
    """Print where the model of the run `name` is, and how to register it under the name `registered`."""
    echo(f"checkpoint: {result.checkpoint}")
    command = f"dpt publish {name} --name {registered} --alias champion"
    echo(f"model: {result.model_uri}; to register it: {command}")
