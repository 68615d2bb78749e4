"""The command of `dpt` that makes raw datasets of stereo videos: stereo."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import Console

from pipelines.cli.options import Config, Overrides, lasting

if TYPE_CHECKING:
    from datasets_prep.stereo.run import StereoProgress

console = Console()


def stereo(
    dataset: Annotated[str, typer.Argument(help="movies or wsvd.")],
    videos: Annotated[str, typer.Option(help="Folder of stereo videos; a path or s3://…")],
    out: Annotated[str, typer.Option(help="Where to put the raw dataset; a path or s3://…")],
    overrides: Overrides = None,
    config: Config = None,
    lists: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Folder of the authors' lists of frames; wsvd needs it.", show_default="all shots"),
    ] = None,
    sky: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Folder of sky masks, FRAME.png, not 0 where sky is.", show_default="none"),
    ] = None,
) -> None:
    """Compute the ground truth of stereo videos: disparity of their left views, for `dpt prepare`."""
    from datasets_prep.stereo.plan import StereoSettings
    from datasets_prep.stereo.run import plan_stereo, read_report, run_stereo
    from pipelines.cluster.session import connect
    from pipelines.config_files import load_section, to_yaml

    out = lasting(out)
    settings = load_section("stereo", StereoSettings, config, overrides or [])
    plan = plan_stereo(dataset, videos, settings, lists, sky)
    console.print(to_yaml(plan.settings), end="", highlight=False)
    connect()
    _watch(run_stereo(plan, out), dataset)
    report = read_report(out)
    typer.echo(
        f"{dataset}: {report.frames} frames of {report.videos} videos, {len(report.missing)} videos missing"
    )
    for reason, count in report.rejected.items():
        typer.echo(f"left out: {count} frames: {reason}")
    typer.echo(f"what was left out, and why: {out.rstrip('/')}/rejected.parquet")
    typer.echo(f"next: dpt prepare {dataset} --raw {out} --out shards")


def _watch(progress: Iterable[StereoProgress], dataset: str) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames, {task.fields[rejected]} left out,"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(dataset, total=None, rejected=0)
        for state in progress:
            bar.update(task, total=state.frames, completed=state.done, rejected=state.rejected)
