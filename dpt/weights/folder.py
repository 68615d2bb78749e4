"""A model folder: `config.json` and `weights.safetensors`, read and written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

WEIGHTS, CONFIG = "weights.safetensors", "config.json"


def read_config(folder: Path) -> dict[str, Any]:
    """The JSON object in the `config.json` of a model's `folder`; ValueError if it is not one."""
    try:
        config = json.loads((folder / CONFIG).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / CONFIG} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{folder / CONFIG} is no JSON object")
    return config


def write_folder(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path, weights: str
) -> None:
    """Write `tensors` to the file `weights` in `folder`, and `config` beside them; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, folder / weights, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
