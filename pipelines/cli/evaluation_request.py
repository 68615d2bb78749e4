"""What `dpt evaluate --on` is asked for, whatever the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dpt


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """One call of the command.

    Attributes:
        model: how the user names the model.
        network: the model, loaded.
        on: names of evaluation sets.
        raw: where their raw data is: `SET=FOLDER`, or a folder of all.
        overrides, config: see `pipelines.config_files.load_section`.
        out: folder for tables and pictures; a path or URI.
        allow_missing: evaluate on sets that are not whole.
    """

    model: str
    network: dpt.DPT
    on: Sequence[str]
    raw: Sequence[str]
    overrides: Sequence[str]
    config: str | None
    out: str
    allow_missing: bool
