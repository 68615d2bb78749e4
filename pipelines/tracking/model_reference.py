"""Models by reference: a registered one, a folder of ours, or any published checkpoint."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dpt
from datasets_prep.errors import NotFound, UserError
from datasets_prep.storage.folder import Folder
from dpt.weights.folder import CONFIG, WEIGHTS, is_model_folder
from pipelines.tracking import runs as tracking


class BadModel(UserError):
    """Weights that cannot be read, or do not belong to a known model; the message names file and reason."""


def names_a_model(reference: str) -> bool:
    """Whether this is the address of a model, or a file or folder that is there."""
    return reference.startswith((tracking.MODEL_SCHEME, "hf-hub:", "https://")) or Path(reference).exists()


def find_model(reference: str) -> Path:
    """The local folder of a model: a registry address (`models:/dpt@champion`) or a path.

    Raises:
        TrackingError, NotFound: if there is none.
    """
    if reference.startswith(tracking.MODEL_SCHEME):
        return tracking.fetch_model(reference)
    folder = Path(reference)
    if not is_model_folder(folder):
        raise NotFound(
            f"no model at {reference}: expected a folder with {CONFIG} and {WEIGHTS}, "
            f"or a registered one as {tracking.MODEL_SCHEME}NAME@ALIAS"
        )
    return folder


def load_network(reference: str, name: str | None = None) -> dpt.DPT:
    """A model in evaluation mode on the CPU.

    Args:
        reference: a registry address, or all that `dpt.load_weights` takes: a folder or checkpoint of ours,
            of the authors', of Hugging Face's or of Depth Anything's, `https://…` or `hf-hub:OWNER/NAME`.
        name: in the table of models, where a file does not tell.

    Raises:
        TrackingError, NotFound: if there is none.
        BadModel: if it cannot be read.
    """
    if reference.startswith(tracking.MODEL_SCHEME):
        return dpt.load_model(tracking.fetch_model(reference))
    try:
        return dpt.load_weights(reference, name)
    except FileNotFoundError as error:
        raise NotFound(
            f"no model at {reference}: expected a folder, a checkpoint, hf-hub:OWNER/NAME, "
            f"or a registered one as {tracking.MODEL_SCHEME}NAME@ALIAS"
        ) from error
    except ValueError as error:
        raise BadModel(f"{reference}: {error}") from error


@contextmanager
def as_folder(network: dpt.DPT) -> Iterator[Path]:
    """A folder of ours that holds a model as long as the block runs: what is sent to workers."""
    with tempfile.TemporaryDirectory(prefix="dpt-model-") as folder:
        dpt.save_model(network, Path(folder))
        yield Path(folder)


@contextmanager
def model_folder(reference: str) -> Iterator[Path]:
    """A folder of ours with any model that `load_network` takes, as long as the block runs.

    Raises:
        TrackingError, NotFound, BadModel: as `load_network`.
    """
    if is_model_folder(reference) or reference.startswith(tracking.MODEL_SCHEME):
        yield find_model(reference)
        return
    with as_folder(load_network(reference)) as folder:
        yield folder


def load_trained(checkpoint: str) -> dpt.DPT:
    """The model of a checkpoint on any storage."""
    folder = Folder(checkpoint)
    if folder.is_local:
        return load_network(folder.path)
    with tempfile.TemporaryDirectory(prefix="dpt-model-") as scratch:
        for file in (WEIGHTS, CONFIG):
            (Path(scratch) / file).write_bytes(folder.read_bytes(file))
        return load_network(scratch)
