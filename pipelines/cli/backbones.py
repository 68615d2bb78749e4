"""The command of `dpt` that lists networks of timm."""

from __future__ import annotations

from typing import Annotated

import typer

from datasets_prep.errors import NotFound
from pipelines.terminal import echo


def backbones(
    pattern: Annotated[
        str | None,
        typer.Argument(help="E.g. convnext, 'vit_*dinov3*'.", show_default="families, an example each"),
    ] = None,
) -> None:
    """List backbones of timm: parameters in millions, strides, licence of their weights."""
    from dpt.layers.catalogue import describe, families

    if pattern is None:
        for family, (name, number) in families().items():
            echo(f"{family:26}{name}" + (f" and {number - 1} others" if number > 1 else ""))
        echo("`dpt backbones PATTERN` lists networks and their weights, and says which do not work")
        return
    found = 0
    for found, one in enumerate(describe(pattern), start=1):  # noqa: B007
        if isinstance(one, str):
            echo(one, err=True)
        else:
            strides = ", ".join(map(str, one.strides))
            echo(f"{one.name:56} {one.parameters / 1e6:7.1f} M  {strides:16} {one.licence or 'unknown'}")
    if not found:
        raise NotFound(f"timm has no network {pattern!r}; `dpt backbones` lists families")
