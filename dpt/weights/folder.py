"""A model folder: `config.json` and `weights.safetensors`, the only place that knows these names.

Weights carry the digest of their tensors in the file's own metadata, so it goes wherever the file goes: model
folders, checkpoints, the registry. One flipped bit can make every prediction 1e38.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

WEIGHTS, CONFIG = "weights.safetensors", "config.json"
_DIGEST = "sha256"


def is_model_folder(path: Path | str) -> bool:
    """Whether the local folder `path` holds both files of a model."""
    return all((Path(path) / name).is_file() for name in (CONFIG, WEIGHTS))


def read_config(folder: Path) -> dict[str, Any]:
    """The JSON object in the `config.json` of a model's `folder`; ValueError if it is not one."""
    try:
        config = json.loads((folder / CONFIG).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / CONFIG} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{folder / CONFIG} is not a JSON object")
    return config


def write_folder(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path, weights: str
) -> None:
    """Write `tensors` to the file named `weights` in `folder`, which is created, and `config` beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_safetensors(plain, folder / weights)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def save_safetensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write contiguous `tensors` of the CPU with their digest to the file `path`: equal ones, equal bytes.

    Raises OSError if it cannot be written.
    """
    try:
        save_file(dict(tensors), path, metadata={"format": "pt", _DIGEST: _digest(tensors)})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    # The library writes its metadata in an order that changes from call to call.
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of the file at `path`.

    Raises SafetensorError if it is damaged; ValueError if it has a digest, and that is another.
    """
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        wanted = (file.metadata() or {}).get(_DIGEST)
    if wanted is not None and _digest(tensors) != wanted:
        raise ValueError(f"{path} is damaged: the weights differ from their digest; copy the file again")
    return tensors


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes of `tensors`, in hexadecimal."""
    state = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        state.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()
