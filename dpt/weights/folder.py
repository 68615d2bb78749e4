"""A model folder: `config.json` and `weights.safetensors`, the only place that knows these names."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

WEIGHTS, CONFIG = "weights.safetensors", "config.json"


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
    save_file(plain, folder / weights, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
