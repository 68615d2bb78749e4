"""Models by reference: registered in MLflow, a model's folder, or any published checkpoint."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import dpt
from datasets_prep.errors import NotFound, UserError
from datasets_prep.storage.folder import Folder
from dpt.weights.folder import CONFIG, WEIGHTS, is_model_folder
from dpt.weights.onnx import OnnxDPT

MODEL_SCHEME = "models:/"

ONNX = ".onnx"


class BadModel(UserError):
    """Weights that cannot be read, or are not of a known model; the message names file and reason."""


def is_model_reference(text: str) -> bool:
    """Whether `text` is the address of a model, or an existing file or folder."""
    return text.startswith((MODEL_SCHEME, "hf-hub:")) or "://" in text or Path(text).exists()


def load_model(reference: str, name: str | None = None) -> dpt.DPT:
    """A model in evaluation mode on the CPU.

    Args:
        reference: a registry address (`models:/dpt@champion`), or any source of `dpt.load_weights`: a folder
            or checkpoint of this project, of the authors, of Hugging Face or of Depth Anything, also on an
            object store (`s3://…`), `https://…` or `hf-hub:OWNER/NAME`.
        name: in the model zoo, for a file from which that does not follow.

    Raises:
        UserError: if there is a `name` for a folder of this project, which has it in its config.
        TrackingError, NotFound: if there is none.
        BadModel: if it cannot be read.
    """
    if Path(reference).suffix == ONNX:
        raise BadModel(f"{reference}: an ONNX file is for dpt predict; give the model it was exported from")
    try:
        registered = reference.startswith(MODEL_SCHEME)
        with nullcontext(_registered(reference)) if registered else _local(reference) as local:
            if name is not None and is_model_folder(local):
                raise UserError(f"--name {name}: the {CONFIG} of {reference} names its model; leave this out")
            return dpt.load_weights(local, name)
    except FileNotFoundError as error:
        raise NotFound(
            f"no model at {reference}: expected a folder, a checkpoint, hf-hub:OWNER/NAME, "
            f"or a registered one as {MODEL_SCHEME}NAME@ALIAS"
        ) from error
    except UserError:
        raise
    except (OSError, ValueError) as error:  # among others a download that fails
        named = str(error).startswith(reference)
        raise BadModel(str(error) if named else f"{reference}: {error}") from error


def load_predictor(reference: str) -> dpt.DPT:
    """As `load_model`, for inference: also the file of `dpt export --to onnx` at `reference`."""
    if Path(reference).suffix != ONNX:
        return load_model(reference)
    try:
        with _local(reference) as local:
            return OnnxDPT(local)
    except ImportError as error:
        raise UserError(f"{reference} needs onnxruntime: pip install 'dpt-on-ray[export]'") from error
    except ValueError as error:
        raise BadModel(f"{reference}: {error}") from error


@contextmanager
def _local(reference: str) -> Iterator[str]:
    """The `reference`, or until the block ends a local copy of what it names on an object store."""
    if "://" not in reference or reference.startswith("https://") or Path(reference).exists():
        yield reference
        return
    folder = Folder(reference.removesuffix(f"/{WEIGHTS}"))
    if all(folder.has_file(name) for name in (WEIGHTS, CONFIG)):
        with model_files(folder.uri) as local:
            yield str(local)
        return
    if folder.has_file():
        names, folder = [reference.rpartition("/")[2]], Folder(reference.rpartition("/")[0])
    else:
        names = [name for name in folder.children() if folder.has_file(name)]
    if not names:
        yield reference
        return
    with tempfile.TemporaryDirectory(prefix="dpt-model-") as scratch:
        for name in names:
            (Path(scratch) / name).write_bytes(folder.read_bytes(name))
        yield str(Path(scratch) / names[0]) if len(names) == 1 else scratch


def _registered(reference: str) -> Path:
    from pipelines.tracking.runs import fetch_model  # only these need MLflow

    return fetch_model(reference)


@contextmanager
def temporary_folder(model: dpt.DPT) -> Iterator[Path]:
    """A folder that `model` is saved in until the block ends, to be sent to workers."""
    with tempfile.TemporaryDirectory(prefix="dpt-model-") as folder:
        dpt.save_model(model, Path(folder))
        yield Path(folder)


@contextmanager
def model_folder(reference: str) -> Iterator[Path]:
    """A local folder, valid inside the block, with the model of a `reference` as in `load_model`."""
    ours = is_model_folder(reference)
    if ours or reference.startswith(MODEL_SCHEME):
        yield Path(reference) if ours else _registered(reference)
        return
    with temporary_folder(load_model(reference)) as folder:
        yield folder


@contextmanager
def model_files(uri: str) -> Iterator[Path]:
    """A local folder, until the block ends, with copies of the two files of the model in the folder `uri`.

    Of a checkpoint the optimiser's state, two thirds of its bytes, is left where it is.
    """
    with tempfile.TemporaryDirectory(prefix="dpt-model-") as scratch:
        model = Path(scratch) / "model"
        model.mkdir()
        for file in (WEIGHTS, CONFIG):
            (model / file).write_bytes(Folder(uri).read_bytes(file))
        yield model


def load_checkpoint(uri: str) -> dpt.DPT:
    """The model of the training checkpoint in the folder `uri`, in evaluation mode on the CPU."""
    folder = Folder(uri)
    if folder.is_local:
        return load_model(folder.path)
    with model_files(uri) as local:
        return load_model(str(local))
