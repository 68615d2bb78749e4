"""The command `dpt evaluate`: which protocol it runs, and what it prints.

`--data` evaluates on prepared shards (`pipelines.evaluate`, `pipelines.evaluation.segmentation_job`). `--on`
evaluates on published sets as they lie in their raw folders, by the protocol that `--protocol` names, else by
that of the model's task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Optional

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperCommand

from datasets_prep.errors import UserError
from pipelines.cli import zero_shot as cli_zero_shot
from pipelines.cli.evaluation_request import EvaluationRequest as Request
from pipelines.cli.options import Config, Overrides, lasting

console = Console()


class Spreading(TyperCommand):
    """A command whose options `--on` and `--raw` take several words: `--on diw eth3d --raw /data`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give every word an option of its own, which is the form that the parser knows."""
        return list(super().parse_args(ctx, spread(args)))


def spread(words: Sequence[str]) -> list[str]:
    """`--on a b --raw c` → `--on a --on b --raw c`.

    Words after an option's first that are `KEY=VALUE` belong to it only where KEY is an evaluation set;
    others are config overrides.
    """
    result: list[str] = []
    option, fresh = "", False
    for word in words:
        if word in ("--on", "--raw"):
            option, fresh = word, True
        elif word.startswith("-") or (not fresh and _is_override(word)):
            option = ""
        elif option and not fresh:
            result.append(option)
        else:
            fresh = False
        result.append(word)
    return result


def _is_override(word: str) -> bool:
    if "=" not in word:
        return False
    from pipelines.zero_shot.sets import SETS

    return word.partition("=")[0] not in SETS


def evaluate(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="A registered model (models:/dpt@champion), a model's folder, a published checkpoint, or "
            "hf-hub:OWNER/NAME.",
        ),
    ],
    overrides: Overrides = None,
    config: Config = None,
    data: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--data", "-d", help="A prepared dataset, or a folder of them. Repeat for more."),
    ] = None,
    on: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--on", metavar="SET…", help="Published sets: diw eth3d sintel kitti nyu tum."),
    ] = None,
    raw: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--raw", metavar="FOLDER|SET=FOLDER…", help="Their raw data: a folder of all, or one each."
        ),
    ] = None,
    protocol: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="How to evaluate on them.", show_default="by the model's task"),
    ] = None,
    out: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Folder for tables and pictures of published sets; a path or s3://…",
            show_default="evaluation",
        ),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Evaluate on sets that are not whole, and say so.")
    ] = False,
) -> None:
    """Evaluate a model: on prepared datasets, or on published evaluation sets beside the paper's figures."""
    from pipelines.tracking.model_reference import load_network

    if bool(data) == bool(on):
        raise UserError("give either --data SHARDS or --on SET… with --raw FOLDER")
    if data:
        for name, value in {"--raw": raw, "--protocol": protocol, "--out": out}.items():
            if value:
                raise UserError(f"{name} goes with --on, not with --data")
        chosen = ["allow_missing=true"] if allow_missing else []
        _on_shards(model, [*(overrides or []), *chosen], config, data)
        return
    folder = lasting(out or "evaluation")
    network = load_network(model)
    run = _protocol(protocol or DEFAULT_PROTOCOL[network.config.task])
    run(Request(model, network, on or [], raw or [], overrides or [], config, folder, allow_missing))


def _protocol(name: str) -> Callable[[Request], None]:
    if name not in PROTOCOLS:
        raise UserError(f"--protocol: there is no {name!r}; choose from {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


# ---- prepared shards


def _on_shards(model: str, overrides: list[str], config: str | None, data: list[str]) -> None:
    """AbsRel and δ on prepared datasets after affine alignment; pixAcc and mIoU where they have labels."""
    from datasets_prep.manifest import open_datasets
    from pipelines.cli.segmentation import evaluate_labelled
    from pipelines.config import EvaluateConfig
    from pipelines.config_files import load_section, to_yaml
    from pipelines.evaluate import evaluate as run_evaluation
    from pipelines.evaluate import mean_over_datasets
    from pipelines.evaluation.segmentation_job import has_labels
    from pipelines.tracking import runs as tracking
    from pipelines.tracking.model_reference import model_folder
    from pipelines.tracking.registry import note_evaluation

    settings = load_section("evaluate", EvaluateConfig, config, overrides)
    console.print(to_yaml(settings), end="", highlight=False)
    datasets = open_datasets(data)
    if has_labels(datasets):
        evaluate_labelled(settings, model, datasets, console)
        return
    if settings.allow_missing:
        raise UserError("--allow-missing goes with --on, or with datasets that have labels")
    with model_folder(model) as folder:
        run = tracking.start_run(f"evaluate {model}", "evaluate", settings, datasets)
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


# ---- published sets


PROTOCOLS: dict[str, Callable[[Request], None]] = {"zero-shot": cli_zero_shot.zero_shot}
"""What `--protocol` may name."""

DEFAULT_PROTOCOL = {"depth": "zero-shot", "segmentation": "zero-shot"}
"""A model's task → its protocol."""
