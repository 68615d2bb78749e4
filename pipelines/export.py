"""`dpt export`: a model → one file that other programs run: ONNX, or a program of torch.export."""

from __future__ import annotations

import logging
import re
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import dpt
from datasets_prep.errors import UserError
from datasets_prep.storage.writing import creating
from dpt.weights.export import PACKAGES, PRECISIONS
from dpt.weights.export import export as write
from pipelines.tracking.model_reference import load_model


@dataclass(frozen=True, slots=True)
class Exported:
    """The `config` of an exported model, and the file's `error` beside PyTorch."""

    config: dpt.ModelConfig
    error: float


def export(reference: str, form: str, path: Path, precision: str = "float32") -> Exported:
    """Export a model to a new file, atomically, after a comparison of what the file and PyTorch predict.

    Args:
        reference: see `pipelines.tracking.model_reference.load_model`.
        form: `onnx` or `pt2`.
        path: of the file.
        precision: `float32`, `float16` or `bfloat16`.

    Raises:
        UserError: if the file exists, a name is unknown, a package is missing or predictions differ.
        TrackingError, NotFound, BadModel: see `load_model`.
    """
    for what, value, known in (("--to", form, PACKAGES), ("--precision", precision, PRECISIONS)):
        if value not in known:
            raise UserError(f"{what}: there is no {value!r}; choose from {', '.join(known)}")
    if path.suffix != f".{form}":
        raise UserError(f"--out: a file of --to {form} ends in .{form}, not {path.name}")
    if path.exists():
        raise UserError(f"{path} exists; give a file that does not")
    missing = [name for name in PACKAGES[form] if find_spec(name) is None]
    if missing:
        raise UserError(f"--to {form} needs {', '.join(missing)}: pip install 'dpt-on-ray[export]'")
    model = load_model(reference)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # which optimisations it leaves out
    with creating(path) as partial:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the exporters' are about themselves
                error = write(model, partial, precision)
        except ValueError as problem:
            raise UserError(f"{reference}: {problem}") from problem
    return Exported(model.config, error)


def file_name(reference: str, form: str) -> str:
    """Name of the file of a model: `models:/dpt@champion`, `hf-hub:Intel/dpt`, `runs/dpt`, `dpt.pt` → `dpt`.

    `form` is its ending; `reference` as of `export`.
    """
    registered = re.fullmatch(r"models:/([^/@]+)(@.*|/\d+)?", reference)
    return f"{registered[1] if registered else Path(reference.rstrip('/')).stem}.{form}"
