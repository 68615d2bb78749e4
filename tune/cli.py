"""The console script `dpt`, with the commands that need sweeps: tune, report, demo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import Console

from datasets_prep.errors import UserError
from pipelines.cli.app import app, main
from pipelines.cli.options import Config, lasting

if TYPE_CHECKING:
    from tune.ablations import Table
    from tune.plan import SweepPlan

console = Console()


def tune(
    what: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            metavar="[TABLE|FILE|KEY=VALUE]...",
            help="The paper's tables: skip (6), readout (7), backbone (8), speed (9), resolution (Figure 4); "
            "all if none is named. YAML files of your own ablations (example: `tune/user_ablation.py`). "
            "Overrides of the training config, e.g. steps=72000.",
        ),
    ] = None,
    data: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--data", "-d", help="A dataset prepared with split_rule=ablation, or a folder of them."
        ),
    ] = None,
    name: Annotated[Optional[str], typer.Option("--name", "-n", help="Name of the sweep.")] = None,  # noqa: UP045
    resume: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="NAME", help="Go on with a sweep: run what is missing. Needs nothing else."),
    ] = None,
    config: Config = None,
    storage: Annotated[str, typer.Option(help="Where sweeps keep checkpoints; a path or s3://…")] = "runs",
    seeds: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="How often each variant is trained.", show_default="1"),
    ] = None,
    concurrency: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Trials at once.", show_default="as many as fit"),
    ] = None,
    hours: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0.0, help="Save and stop after this time.", show_default="none"),
    ] = None,
    early_stopping: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="asha ends hopeless trials; none trains all to the end.", show_default="none"),
    ] = None,
) -> None:
    """Run ablations: every variant of some tables, with the same data and schedule, cluster-wide."""
    from tune.report.terminal import print_tables
    from tune.sweep import run_sweep

    storage = lasting(storage)
    options = {"seeds": seeds, "concurrency": concurrency, "hours": hours, "early_stopping": early_stopping}
    given: dict[str, object] = {key: value for key, value in options.items() if value is not None}
    plan = _known_plan(resume, what, data, name, config, storage, given) if resume else None
    plan = plan or _new_plan(what or [], data or [], name, config, given)
    run_sweep(plan, storage, show=typer.echo)
    print_tables(plan.name, console)
    typer.echo(f"sweep {plan.name} is finished; beside the paper: dpt report {plan.name}")
    typer.echo(f"to register its best model: dpt publish {plan.name} --best")


def _new_plan(
    what: list[str], data: list[str], name: str | None, config: str | None, options: dict[str, object]
) -> SweepPlan:
    """The plan that a command line describes."""
    from datasets_prep.manifest import open_datasets
    from pipelines.config import ConfigError, TrainConfig, TuneConfig
    from pipelines.config_files import load_section, with_changes
    from tune.plan import plan_sweep

    if not data or name is None:
        raise ConfigError(f"{'--name' if data else '--data'} is missing; a started sweep needs only --resume")
    train = load_section("train", TrainConfig, config, [word for word in what if "=" in word])
    settings = with_changes(load_section("tune", TuneConfig, config, []), options)
    tables = _tables([word for word in what if "=" not in word])
    return plan_sweep(name, tables, open_datasets(data), train, settings)


def _known_plan(
    resume: str,
    what: list[str] | None,
    data: list[str] | None,
    name: str | None,
    config: str | None,
    storage: str,
    options: dict[str, object],
) -> SweepPlan:
    """The plan of a started sweep; how many trials it has, and when they run, may change."""
    from dataclasses import replace

    from pipelines.config import ConfigError
    from pipelines.config_files import with_changes
    from tune.sweep import read_plan

    if what or data or name or config or "early_stopping" in options:
        raise ConfigError("--resume: the sweep knows its tables, data and configs; leave them out")
    plan = read_plan(resume, storage)
    return replace(plan, tune=with_changes(plan.tune, options))


def _tables(words: list[str]) -> list[Table]:
    """The tables that are named, the paper's or in files."""
    from pipelines.config import ConfigError
    from tune.ablations import PAPER
    from tune.user_ablation import read_ablation

    found = []
    for word in words or PAPER:
        if word in PAPER:
            found.append(PAPER[word])
        elif word.endswith((".yaml", ".yml")):
            found.append(read_ablation(Path(word)))
        else:
            raise ConfigError(
                f"no table {word!r}; there are: {', '.join(PAPER)}; an ablation of yours is a .yaml file"
            )
    return found


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


def demo(
    out: Annotated[str, typer.Option(help="Folder to work in.")] = "demo",
    config: Annotated[str, typer.Option("--config", "-c", help="A YAML file, or a built-in one.")] = "demo",
) -> None:
    """Run the whole way on rendered scenes: generate, prepare, train, evaluate, publish, predict, tune."""
    from pipelines.demo import run_demo
    from tune.demo import run_demo_sweep

    run_demo(Path(out), config, console)
    run_demo_sweep(Path(out), config, console, typer.echo)


for command in (tune, report, demo):
    app.command()(command)

if __name__ == "__main__":
    main()
