"""A user's own ablation: a small YAML file that names what varies, over which values.

    name: decoder                          # of the table; unique
    caption: Width and rate of the decoder # optional
    vary:                                  # every combination of
      model.overrides.features: [128, 256]
      optimizer.decoder_lr: [1.0e-4, 3.0e-4]

or, instead of `vary`, a list of the variants by title:

    variants:
      without gradient matching: {loss.gradient_weight: 0}
      as in the paper: {}

Keys are those of `dpt config train`, with dots.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets_prep.strict_yaml import InvalidYaml, load_yaml
from pipelines.config import ConfigError
from tune.ablations import PAPER, AblationTable, Row

_KEYS = {"name", "caption", "vary", "variants"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def read_ablation(path: Path) -> AblationTable:
    """The table that the YAML file at `path` describes.

    Raises:
        ConfigError: naming file and key, if it does not describe a table.
    """
    try:
        content = load_yaml(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"no ablation at {path}: {error.strerror}") from error
    except InvalidYaml as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected the keys name and vary or variants, got {content!r:.100}")
    unknown = sorted(set(map(str, content)) - _KEYS)
    if unknown:
        raise ConfigError(f"{path}: {unknown[0]}: unknown key; there are: {', '.join(sorted(_KEYS))}")
    rows = tuple(_rows(content, path))
    name = content.get("name", path.stem)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{path}: name: expected letters, digits, - and _, got {name!r:.100}")
    if name in PAPER:
        raise ConfigError(f"{path}: name: {name} is a table of the paper")
    return AblationTable(name, "", str(content.get("caption", "")), rows)


def _rows(content: dict[str, Any], path: Path) -> Iterator[Row]:
    if ("vary" in content) == ("variants" in content):
        raise ConfigError(f"{path}: expected either vary or variants")
    if "variants" in content:
        variants = _mapping(content["variants"], path, "variants", "title: {key: value}")
        for title, changes in variants.items():
            yield Row(title, _mapping(changes, path, f"variants.{title}", "key: value", empty=True))
        return
    grid = _mapping(content["vary"], path, "vary", "key: [values]")
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{path}: vary.{key}: expected a list of values, got {values!r:.100}")
    for combination in itertools.product(*grid.values()):
        changes = dict(zip(grid, combination, strict=True))
        yield Row(", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in changes.items()), changes)


def _mapping(value: Any, path: Path, key: str, expected: str, empty: bool = False) -> dict[str, Any]:
    if not isinstance(value, dict) or not (value or empty):
        raise ConfigError(f"{path}: {key}: expected {expected}, got {value!r:.100}")
    return {str(name): content for name, content in value.items()}
