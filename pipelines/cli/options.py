"""Options that several commands share, the check of paths inside a job, and the progress bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from datasets_prep.errors import UserError, one_line, printable
from pipelines.terminal import echo

if TYPE_CHECKING:
    from pydantic import BaseModel

_BUILT_IN = ", ".join(sorted(path.stem for path in (Path(__file__).parents[1] / "configs").glob("*.yaml")))
CONFIG_HELP = f"A YAML file, or built in: {_BUILT_IN}."
Config = Annotated[
    str | None, typer.Option("--config", "-c", help=CONFIG_HELP, show_default="the paper's settings")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="Config overrides, e.g. seed=1. `dpt config JOB` lists the keys."
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print the resolved config.")]
MODEL_HELP = "A registered model (models:/dpt@champion), a model's folder, a checkpoint or hf-hub:OWNER/NAME."
_MODEL = typer.Option("--model", "-m", help=MODEL_HELP)
Model = Annotated[str, _MODEL]
OptionalModel = Annotated[str | None, _MODEL]
_DATA = typer.Option("--data", "-d", help="A prepared dataset, or a folder of them. Repeat for more.")
Data = Annotated[list[str], _DATA]
OptionalData = Annotated[list[str] | None, _DATA]
RunName = Annotated[str, typer.Option("--name", "-n", help="Name of the run.")]
Storage = Annotated[str, typer.Option(help="Folder of checkpoints; a path or s3://…")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume the run of that name.")]
AllowChanges = Annotated[
    bool, typer.Option("--allow-changes", help="Resume even if config or data changed since its start.")
]
Exact = Annotated[
    bool,
    typer.Option(
        "--exact",
        help="Multiply float32 numbers exactly on GPUs. Without it TF32 keeps 10 of 23 bits of each factor, "
        "which is about twice as fast and changes predictions by 0.1 percent.",
    ),
]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Accept sets and splits with missing images, and report them.")
]


def require_durable_path(path: str) -> str:
    """Return `path`, unless it is relative inside a submitted job, whose working directory is temporary.

    Raises:
        UserError: for such a path.
    """
    from pipelines.cluster.ray_private import inside_submitted_job

    if "://" not in path and not os.path.isabs(path) and inside_submitted_job():
        raise UserError(
            f"{path}: inside a Ray job give an absolute path or a URI, or it is lost with the job"
        )
    return path


@contextmanager
def waiting(what: str) -> Iterator[Callable[[], None]]:
    """Show in a terminal what the command is at, until the block ends or what it yields is called."""
    status = Console(stderr=True).status(what)
    status.start()
    try:
        yield status.stop
    finally:
        status.stop()


def show_config(settings: BaseModel, verbose: bool) -> None:
    """Print the resolved `settings` of a command as YAML if that is wanted (`verbose`)."""
    from pipelines.config_files import to_yaml

    if verbose:
        typer.echo(printable(to_yaml(settings)), nl=False)


def after(*before: Callable[[], None]) -> Callable[[str], None]:
    """A function that prints lines, and calls all of `before` once, before the first."""
    calls = list(before)

    def show(line: str) -> None:
        while calls:
            calls.pop(0)()
        echo(line)

    return show


def show_progress(description: str, states: Iterable[tuple[int, int | None, str]]) -> None:
    """Show a progress bar until `states` ends.

    Args:
        description: left of the bar.
        states: number done, total number (None if unknown), and the text right of the bar.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]},", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task(one_line(description), total=None, detail="starting")
        for done, total, detail in states:
            bar.update(task, completed=done, total=total, detail=one_line(detail))
