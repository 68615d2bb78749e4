"""A model folder: `config.json` and `weights.safetensors`, the only place that knows these names.

Each file carries its own digest, so it goes wherever the file goes: model folders, checkpoints, the registry.
One flipped bit can make every prediction 1e38. Files of others have none, and are read as they are.
"""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

WEIGHTS, CONFIG = "weights.safetensors", "config.json"
_DIGEST = "digest"
"""Key of the digest, in the config and in the metadata of the weights."""


def is_model_folder(path: Path | str) -> bool:
    """Whether the local folder `path` holds both files of a model."""
    return all((Path(path) / name).is_file() for name in (CONFIG, WEIGHTS))


def read_config(folder: Path) -> dict[str, Any]:
    """The JSON object in the `config.json` of a model's `folder`.

    Raises ValueError if it is not one, or it has a digest, and that is another.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_bytes())
        if not isinstance(config, dict):
            raise ValueError("it is not an object")
        wanted = config.pop(_DIGEST, None)
        damaged = wanted is not None and wanted != _seal(config)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error!s:.200}") from error
    if damaged:
        raise ValueError(
            f"{path} is damaged: it differs from its digest; copy it again, or, if it was edited on purpose, "
            f"remove its key {_DIGEST!r}"
        )
    return config


def config_text(config: Mapping[str, Any]) -> str:
    """The content of `config.json` for a `config`, with its digest."""
    plain = json.loads(json.dumps(config))  # as it is read: lists, no tuples
    return json.dumps({**plain, _DIGEST: _seal(plain)}, indent=2) + "\n"


def write_folder(tensors: Mapping[str, Tensor], config: str, folder: Path, weights: str) -> None:
    """Write `tensors` to the file `weights`, and the text `config`, to `folder`, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_safetensors(plain, folder / weights)
    (folder / CONFIG).write_text(config)


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


def _seal(config: Mapping[str, Any]) -> str:
    """SHA-256 of a `config` without digest, in hexadecimal."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256, in hexadecimal, of names, types, shapes and CRC-32 of `tensors`.

    The check is against damage, not forgery, and reading a gigabyte must not wait a second for it: CRC-32 is
    twice as fast, and tensors share the cores.
    """

    def line(item: tuple[str, Tensor]) -> str:
        name, tensor = item
        check = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return f"{name} {tensor.dtype} {list(tensor.shape)} {check}\n"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        lines = pool.map(line, sorted(tensors.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()
