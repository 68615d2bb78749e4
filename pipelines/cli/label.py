"""The command that makes training data of unlabelled pictures: label."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli import options
from pipelines.cli.options import after_config, require_durable_path, show_progress
from pipelines.cli.prepare import show_outcome

if TYPE_CHECKING:
    from pipelines.label import LabelJob


def label(
    photos: Annotated[
        list[str],
        typer.Argument(
            help="Images, videos, Parquet files; folders or archives of them; quoted patterns "
            "('in/**/*.jpg'). Paths or s3://…"
        ),
    ],
    model: options.Model,
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the dataset.")],
    out: Annotated[str, typer.Option(help="Folder to write NAME/ to; a path or s3://…")] = "shards",
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", help="A YAML file, or a built-in one.", show_default="none"),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Config override, e.g. duplicates=4. Repeat for more."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
) -> None:
    """Label pictures with a depth model, the teacher: shards that a student trains on."""
    from datasets_prep.manifest import open_dataset
    from pipelines.config import LabelConfig
    from pipelines.config_files import load_section
    from pipelines.label import plan_labelling

    out = require_durable_path(out)
    settings = load_section("label", LabelConfig, config, override or [])
    job = plan_labelling(settings, [require_durable_path(photo) for photo in photos], model, out, name)
    plan, show = job.plan, after_config(settings)
    show(
        f"{name}: {plan.samples} pictures in {len(plan.shards)} shards, "
        f"files left out: {len(plan.rejected)}; {plan.target_kind}, version {plan.version}"
    )
    if dry_run:
        _show_forecast(job)
        return

    def progress() -> Iterator[tuple[int, int | None, str]]:
        start = time.perf_counter()
        yield 0, plan.samples, f"pictures, 0.0 images/s, {len(plan.rejected)} left out"
        for state in job.run(show):
            rate = state.done / (time.perf_counter() - start)
            yield state.done, state.total, f"pictures, {rate:.1f} images/s, {state.rejected} left out"

    show_progress(name, progress())
    done = open_dataset(f"{out.rstrip('/')}/{name}")
    typer.echo(f"manifest: {done.folder.uri}/manifest.json")
    show_outcome(done)


def _show_forecast(job: LabelJob) -> None:
    import torch

    from pipelines.cluster.device import resolve_device

    if job.is_finished:
        typer.echo("finished already: nothing would be done")
        return
    device, settings = resolve_device(job.settings.device).type, job.settings
    machine = torch.cuda.device_count() if device == "cuda" else (os.cpu_count() or 1) // settings.threads
    workers = settings.workers or max(1, machine)
    expected = job.forecast(device)
    if expected.finished_shards:
        typer.echo(f"{expected.finished_shards} shards are finished and would be kept")
    size = "an unknown size" if expected.bytes is None else f"about {expected.bytes / 2**20:.1f} MiB"
    duration = timedelta(seconds=round(expected.core_seconds / workers))
    each = "a GPU each" if device == "cuda" else f"CPU cores each: {settings.threads}"
    typer.echo(
        f"{expected.missing_samples} pictures would be labelled: {size}, about {duration} with workers: "
        f"{workers}, {each} (from {expected.tried} pictures, {expected.usable} of them usable)"
    )
