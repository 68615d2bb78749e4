"""The console script `dpt`: the commands of `pipelines.cli`, and tune, report and demo, which need sweeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from datasets_prep.errors import UserError
from pipelines.cli import options
from pipelines.cli.app import app, main
from pipelines.terminal import console, echo

if TYPE_CHECKING:
    from tune.ablations import AblationTable
    from tune.plan import SweepPlan


def tune(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TABLE|FILE|KEY=VALUE]...",
            help="The paper's tables: skip (6), readout (7), backbone (8), speed (9), resolution (Figure 4); "
            "by default all. YAML files of your own ablations (example: `tune/user_ablation.py`). "
            "Overrides of the training config, e.g. steps=72000.",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data", "-d", help="A dataset prepared with split_rule=ablation, or a folder of them."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", "-n", help="Name of the sweep.")] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Resume a sweep: run what is missing. Needs nothing else."),
    ] = None,
    config: options.Config = None,
    storage: options.Storage = "runs",
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Trainings of each variant.", show_default="1")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Trials at once.", show_default="as many as fit")
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(min=0.0, help="Save checkpoints and stop after this time.", show_default="none"),
    ] = None,
    early_stopping: Annotated[
        str | None,
        typer.Option(help="asha stops hopeless trials; none trains all to the end.", show_default="none"),
    ] = None,
) -> None:
    """Run ablations: every variant of some tables, with the same data and schedule, cluster-wide."""
    from pipelines.config import ConfigError
    from pipelines.config_files import with_changes
    from tune.report.terminal import print_tables
    from tune.sweep import read_plan, run_sweep

    storage = options.require_durable_path(storage)
    settings = {"seeds": seeds, "concurrency": concurrency, "hours": hours, "early_stopping": early_stopping}
    given: dict[str, object] = {key: value for key, value in settings.items() if value is not None}
    if not resume:
        plan = _new_plan(what or [], data or [], name, config, given)
    elif what or data or name or config or early_stopping:
        raise ConfigError("--resume: the sweep knows its tables, data and configs; leave them out")
    else:
        # How many trials it has, and when they run, may change.
        plan = read_plan(resume, storage)
        plan = replace(plan, tune=with_changes(plan.tune, given))
    run_sweep(plan, storage, show=echo)
    print_tables(plan.name, console)
    echo(f"sweep {plan.name} is finished; beside the paper: dpt report {plan.name}")
    echo(f"to register its best model: dpt publish {plan.name} --best")


def _new_plan(
    what: list[str], data: list[str], name: str | None, config: str | None, given: dict[str, object]
) -> SweepPlan:
    """The plan that a command line describes."""
    from pipelines.config import ConfigError, TrainConfig, TuneConfig
    from pipelines.config_files import load_section
    from pipelines.tasks.selection import training_datasets
    from tune.plan import plan_sweep

    if not data or name is None:
        raise ConfigError(f"{'--name' if data else '--data'} is missing; a started sweep needs only --resume")
    train = load_section("train", TrainConfig, config, [word for word in what if "=" in word])
    settings = load_section("tune", TuneConfig, config, [], options=given)
    tables = _tables([word for word in what if "=" not in word])
    return plan_sweep(name, tables, training_datasets(train, data, echo), train, settings)


def _tables(words: list[str]) -> list[AblationTable]:
    """The tables with these names, the paper's or in files; without names all of the paper's."""
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
                f"no table {word!r}; there are: {', '.join(PAPER)}; an ablation of your own is a .yaml file"
            )
    return found


def report(
    what: Annotated[
        str,
        typer.Argument(
            metavar="SWEEP|MODEL", help="Name of a sweep of dpt tune, or a model as predict takes it."
        ),
    ],
    out: Annotated[
        str, typer.Option(help="Folder for the page, its tables and charts; a path or s3://…")
    ] = "report",
    data: Annotated[
        list[str] | None,
        typer.Option("--data", "-d", help="A prepared dataset to show predictions of. Repeat for more."),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Number of images of each dataset.")] = 4,
    split: Annotated[
        str | None, typer.Option(help="Split of these datasets.", show_default="val, or the last one")
    ] = None,
) -> None:
    """Set a sweep's ablations, or a model's measurements, beside the paper's: one page, from MLflow."""
    from datasets_prep.storage.uploads import made_locally
    from pipelines.tracking.model_reference import is_model_reference

    with made_locally(out) as folder:
        if is_model_reference(what):
            from pipelines.report.model_page import write_model_report

            path = write_model_report(what, folder, data or [], images, split)
            if not data:
                echo("without predictions: give --data, prepared datasets, to show some")
        elif data:
            raise UserError(f"--data belongs to the report of a model, and there is none at {what}")
        else:
            from tune.report.page import write_report

            path = write_report(what, folder)
    echo(f"page: {out.rstrip('/')}/{path.name}")


def demo(
    out: Annotated[str, typer.Option(help="Folder to work in.")] = "demo",
    config: Annotated[str, typer.Option("--config", "-c", help=options.CONFIG_HELP)] = "demo",
) -> None:
    """Run all steps on rendered scenes: generate, prepare, train, evaluate, publish, predict, tune."""
    from datasets_prep.storage.uploads import require_local
    from pipelines.demo import run_demo
    from tune.demo import run_demo_sweep

    run_demo(require_local(out), config, run_demo_sweep)


for command in (tune, report, demo):
    app.command()(command)

if __name__ == "__main__":
    main()
