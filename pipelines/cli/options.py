"""Options of the command line that several commands have."""

from __future__ import annotations

import os
from typing import Annotated, Optional

import typer

from datasets_prep.errors import UserError

Config = Annotated[
    Optional[str],  # noqa: UP045 (Typer reads annotations at run time, also on Python 3.10)
    typer.Option(
        "--config", "-c", help="A YAML file, or built in: paper, mix6, demo.", show_default="the paper's"
    ),
]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(
        metavar="[KEY=VALUE]...", help="Config overrides, e.g. seed=1. `dpt config JOB` lists the keys."
    ),
]

Data = Annotated[
    list[str], typer.Option("--data", "-d", help="A prepared dataset, or a folder of them. Repeat for more.")
]


def lasting(path: str) -> str:
    """Refuse a relative path inside a submitted job: it would lie in the job's directory, and go with it.

    Raises:
        UserError: if it is one.
    """
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and "://" not in path and not os.path.isabs(path):
        raise UserError(
            f"{path}: inside a Ray job give an absolute path or a URI, or it is lost with the job"
        )
    return path
