"""The commands of `dpt` for MLflow's model registry: publish, models, promote, rollback."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from pipelines.terminal import console, echo

Registered = Annotated[str, typer.Argument(help="Name of the registered model.")]
Alias = Annotated[str, typer.Option(help="Alias to move.")]
Metric = Annotated[
    str | None,
    typer.Option(
        help="PROTOCOL/METRIC/DATASET in which the version must not be worse; DATASET may be mean.",
        show_default="of its kind, e.g. relative/abs_rel/mean",
    ),
]


def publish(
    run: Annotated[str, typer.Argument(help="Name or id of a finished training run, or name of a sweep.")],
    best: Annotated[
        bool, typer.Option("--best", help="Of a sweep: its trial with the lowest mean AbsRel.")
    ] = False,
    name: Annotated[str, typer.Option(help="Registered model to add a version to.")] = "dpt",
    alias: Annotated[str, typer.Option(help="Alias of the version: models:/NAME@ALIAS.")] = "champion",
    force: Annotated[
        bool, typer.Option("--force", help="Move the alias even from a model of another task or unit.")
    ] = False,
) -> None:
    """Register the model of a finished run, or the best one of a sweep, in MLflow's registry."""
    from pipelines.publish import best_trial
    from pipelines.publish import publish as register

    if best:
        trial = best_trial(run)
        echo(f"best of {run}: {trial.name}, {trial.metric} {trial.value:.4f}")
        run = trial.run_id
    published = register(run, name, alias, force)
    predicts = f"predicts {published.kind}; trained at commit {published.commit}"
    echo(f"{published.name} version {published.version} {predicts}")
    if published.moved:
        echo(str(published.moved))


def models(
    name: Annotated[
        str | None, typer.Argument(help="Name of a registered model.", show_default="all")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Metric to show. Repeat for more.", show_default="that of each model's kind"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """List registered models: versions, aliases, what they predict, metrics, data and commit."""
    from pipelines.tracking.registry import list_models
    from pipelines.tracking.runs import store_name
    from pipelines.tracking.source_commit import short

    found = list_models(name)
    if as_json:
        typer.echo(json.dumps([version.as_json() for version in found], indent=1))
        return
    if not found:
        echo(f"no registered models in {store_name()}")
        return
    shown = metric or list(dict.fromkeys(version.kind.compared_by for version in found))
    table = Table("model", "aliases", "predicts", "run", *shown, "data", "commit")
    for version in found:
        metrics = version.metrics()
        table.add_row(
            f"{version.name} {version.version}",
            ", ".join(version.aliases),
            f"{version.kind.quantity}, {version.kind.unit}",
            version.run_name,
            *(f"{metrics[key]:.4f}" if key in metrics else "" for key in shown),
            "\n".join(f"{dataset} {digest[:8]}" for dataset, digest in sorted(version.data.items())),
            short(version.git_commit),
        )
    console.print(table)


def promote(
    name: Registered,
    version: Annotated[str, typer.Argument(help="Number of the version, or another alias of it.")],
    alias: Alias = "champion",
    metric: Metric = None,
    force: Annotated[bool, typer.Option("--force", help="Move the alias without comparing.")] = False,
) -> None:
    """Move an alias to a version of the same kind that is not worse than the one that has it."""
    from pipelines.tracking.registry import promote as move

    echo(str(move(name, version, alias, metric, force)))


def rollback(
    name: Registered,
    alias: Alias = "champion",
) -> None:
    """Move an alias back to the version that had it before, whatever its metrics."""
    from pipelines.tracking.registry import rollback as move

    echo(str(move(name, alias)))
