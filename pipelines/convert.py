"""`dpt convert`: published weights in any layout → a folder of this project's, or of Hugging Face's."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import dpt
from datasets_prep.errors import UserError
from pipelines.tracking.model_reference import BadModel, load_model

EXPORTERS: dict[str, Callable[[dpt.DPT, Path], None]] = {
    "ours": dpt.save_model,
    "huggingface": dpt.save_hugging_face,
}


def convert(source: str, destination: Path, layout: str = "ours", name: str | None = None) -> dpt.DPT:
    """Read weights and write them to a new folder, atomically; returns the model.

    Args:
        source: see `pipelines.tracking.model_reference.load_model`.
        destination: a folder that does not exist yet.
        layout: `ours` (weights.safetensors and config.json, which every command takes), or `huggingface`
            (what `transformers` reads as DPTForDepthEstimation or DPTForSemanticSegmentation).
        name: of the model (`dpt.list_models`), for files that do not contain it.

    Raises:
        UserError: if `destination` exists, or `layout` is unknown.
        TrackingError, NotFound, BadModel: see `load_model`; BadModel also if the layout cannot express it.
    """
    if layout not in EXPORTERS:
        raise UserError(f"no layout {layout!r} to write; there are: {', '.join(EXPORTERS)}")
    if destination.exists():
        raise UserError(f"{destination} exists; give a folder that does not")
    model = load_model(source, name)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f"{destination.name}.partial-", dir=destination.parent
    ) as partial:
        written = Path(partial) / "model"
        try:
            EXPORTERS[layout](model, written)
        except ValueError as error:
            raise BadModel(f"{source}: {error}") from error
        try:
            os.rename(written, destination)  # fails if files have been put there meanwhile
        except OSError as error:
            raise UserError(f"{destination} cannot be created: {error.strerror}") from error
    return model
