"""From tables to variants: each different configuration once, however many tables have a row of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dpt
from dpt.zoo import resolve_config
from pipelines.config import ConfigError, TrainConfig
from pipelines.config_files import with_changes
from tune.ablations import Row, Table

_LONGEST_KEY = 80
_MODEL_NAME, _OVERRIDES = "model.name", "model.overrides."


@dataclass(frozen=True)
class Variant:
    """One configuration of a sweep.

    Attributes:
        key: unique in the sweep; a path segment that says what the variant is.
        changes: dotted key of `TrainConfig` → value.
        rows: table → title of the variant's row there.
        trained: whether any of the tables needs it trained.
    """

    key: str
    changes: Mapping[str, Any]
    rows: Mapping[str, str]
    trained: bool

    def config(self, base: TrainConfig, seed: int) -> TrainConfig:
        """The training config of its trial with that seed."""
        return with_changes(base, {**self.changes, "seed": seed})


def find_variants(tables: Sequence[Table], base: TrainConfig) -> list[Variant]:
    """The variants of some tables, in their rows' order.

    Raises:
        ConfigError: if a row's settings are no training config, or name no model; says which row's.
    """
    found: dict[str, Variant] = {}
    for table in tables:
        for row in table.rows:
            identity = _identity(table, row, base)
            key = _key(row, base)
            if identity not in found and key in {variant.key for variant in found.values()}:
                key = f"{key}-{identity[:8]}"
            known = found.get(identity, Variant(key, dict(row.changes), {}, False))
            found[identity] = Variant(
                known.key,
                known.changes,
                {table.name: row.title, **known.rows},
                known.trained or table.trained,
            )
    return list(found.values())


def _identity(table: Table, row: Row, base: TrainConfig) -> str:
    """Digest of the resolved config: equal for rows that are the same training."""
    try:
        config = with_changes(base, row.changes)
        model = resolve_config(config.model.name, **config.model.overrides)
    except (ConfigError, ValueError, TypeError) as error:
        raise ConfigError(f"{table.name}: row {row.title!r}: {error}") from error
    settings = json.loads(config.model_dump_json(exclude={"model": {"name", "overrides"}, "seed": True}))
    return _digest({"model": model.to_dict(), "settings": settings})


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _key(row: Row, base: TrainConfig) -> str:
    """What the row changes, without what is the model's default anyway: `dpt_base.readout-ignore`."""
    name = row.changes.get(_MODEL_NAME, base.model.name)
    default = dpt.zoo.MODELS[name].config.to_dict()
    parts = [str(name)]
    for key, value in row.changes.items():
        plain = list(value) if isinstance(value, tuple) else value
        is_default = key.startswith(_OVERRIDES) and default.get(key.removeprefix(_OVERRIDES)) == plain
        if key != _MODEL_NAME and not is_default:
            parts.append(f"{key.rpartition('.')[2]}-{_slug(plain)}")
    key = ".".join(parts)
    return key if len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]}-{_digest(key)[:8]}"


def _slug(value: Any) -> str:
    if isinstance(value, Mapping):
        return _digest(value)[:6]
    text = "_".join(map(str, value)) if isinstance(value, list) else str(value)
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", text)
