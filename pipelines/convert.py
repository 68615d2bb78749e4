"""`dpt convert`: published weights in any layout → a folder of this project's, or of Hugging Face's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import dpt
from datasets_prep.errors import UserError
from datasets_prep.storage.writing import creating
from pipelines.report.model_card import model_card
from pipelines.tracking.model_reference import MODEL_SCHEME, BadModel, load_model

if TYPE_CHECKING:
    from pipelines.tracking.registry import Measurement

HUGGING_FACE = "huggingface"

EXPORTERS: dict[str, Callable[[dpt.DPT, Path], None]] = {
    "ours": dpt.save_model,
    HUGGING_FACE: dpt.save_hugging_face,
}


def convert(source: str, destination: Path, layout: str = "ours", name: str | None = None) -> dpt.DPT:
    """Read weights and write them to a new folder, atomically; returns the model.

    Args:
        source: see `pipelines.tracking.model_reference.load_model`.
        destination: a folder that does not exist yet.
        layout: `ours` (weights.safetensors and config.json, which every command takes), or `huggingface`
            (what `transformers` reads as DPTForDepthEstimation or DPTForSemanticSegmentation, with a model
            card).
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
    with creating(destination) as written:
        try:
            EXPORTERS[layout](model, written)
        except ValueError as error:
            raise BadModel(f"{source}: {error}") from error
        if layout == HUGGING_FACE:
            measured = _measured(source) if source.startswith(MODEL_SCHEME) else []
            (written / "README.md").write_text(model_card(model.config, source, measured), encoding="utf-8")
    return model


def _measured(source: str) -> list[Measurement]:
    from pipelines.tracking.registry import measurements_of  # only registered models need MLflow

    return measurements_of(source)


def push(folder: Path, repository: str) -> str:
    """Upload a converted `folder` to the Hub as the model `repository`, OWNER/NAME; returns its address.

    Raises:
        UserError: if the Hub cannot be reached, or refuses it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx  # of its own choice

    hub = HfApi()
    try:
        hub.create_repo(repository, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="Model converted by dpt")
    except (OfflineModeIsEnabled, ConnectionError, httpx.TransportError) as error:
        raise UserError(
            f"--push: Hugging Face cannot be reached, or HF_HUB_OFFLINE is set; {folder} is complete"
        ) from error
    except (HfHubHTTPError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"--push {repository}: {reason}; `hf auth login` stores a token") from error
    return f"{hub.endpoint}/{repository}"
