"""The plan of a sweep: tables, their variants, seeds, data and configs, all in one YAML file.

A variant is a configuration that differs from the others: rows of several tables that resolve to the same
training are one variant, and are trained once. The plan is written beside the trials' checkpoints before the
first of them starts; to resume a sweep is to read it back, so nothing is given twice, or differently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter, ValidationError

import dpt
from datasets_prep.errors import UserError
from datasets_prep.manifest import PreparedDataset
from datasets_prep.storage.sealed import SEAL, DamagedFile, checked, seal_of
from datasets_prep.strict_yaml import InvalidYaml, dump_yaml, load_yaml
from dpt.zoo import resolve_config
from pipelines.config import ConfigError, TrainConfig, TuneConfig
from pipelines.config_files import with_changes
from pipelines.train import check_fits, require_name
from tune.ablations import AblationTable, Row
from tune.records import trial_name

_NOT_IN_DIGEST = {"seeds", "concurrency", "hours", "max_failures"}
"""Settings of `TuneConfig` that change how many trials run and when, not their results."""

_LONGEST_KEY = 80
_MODEL_NAME, _OVERRIDES = "model.name", "model.overrides."


class DamagedSweep(UserError):
    """A sweep's file that cannot be read; the message names it."""


@dataclass(frozen=True)
class Variant:
    """One configuration of a sweep.

    Attributes:
        key: unique in the sweep; a path segment such as `dpt_base.readout-ignore`.
        changes: dotted key of `TrainConfig` → value.
        rows: table → title of the variant's row in it.
        trained: whether any of the tables needs it trained.
    """

    key: str
    changes: Mapping[str, Any]
    rows: Mapping[str, str]
    trained: bool

    def config(self, base: TrainConfig, seed: int) -> TrainConfig:
        """The training config of its trial with that `seed`: `base` with the variant's changes."""
        return with_changes(base, {**self.changes, "seed": seed})


@dataclass(frozen=True)
class Trial:
    """A `variant` with a `seed`: one training."""

    variant: Variant
    seed: int

    @property
    def path(self) -> str:
        """Its folder in the sweep's; also its name in the sweep."""
        return f"{self.variant.key}/s{self.seed}"


@dataclass(frozen=True)
class SweepPlan:
    """A resolved sweep.

    Attributes:
        name: of the sweep.
        tables: whose rows are run.
        variants: the different configurations of these rows.
        data: version folders of the prepared datasets, sorted by dataset name.
        manifests: dataset → digest of its manifest.
        train: the training config that all trials share.
        tune: how they are run.
    """

    name: str
    tables: tuple[AblationTable, ...]
    variants: tuple[Variant, ...]
    data: tuple[str, ...]
    manifests: Mapping[str, str]
    train: TrainConfig
    tune: TuneConfig

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds with which each variant is trained."""
        return tuple(self.train.seed + number for number in range(self.tune.seeds))

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """All trainings, one seed after the other: the first seed's tables are complete first."""
        trained = [variant for variant in self.variants if variant.trained]
        return tuple(Trial(variant, seed) for seed in self.seeds for variant in trained)

    @cached_property
    def measured(self) -> tuple[Trial, ...]:
        """One trial of each variant in a table that needs no training (Table 9)."""
        untrained = {table.name for table in self.tables if not table.trained}
        return tuple(Trial(v, self.seeds[0]) for v in self.variants if untrained & v.rows.keys())

    def config(self, trial: Trial) -> TrainConfig:
        """The training config of a `trial`."""
        return trial.variant.config(self.train, trial.seed)

    def run_name(self, trial: Trial) -> str:
        """Name of the MLflow run of a `trial`."""
        return trial_name(self.name, trial.variant.key, trial.seed)

    def to_yaml(self) -> str:
        """The plan as YAML, with the seeds spelled out."""
        plain = _ADAPTER.dump_python(self, mode="json")
        plain = {**plain, "seeds": list(self.seeds)}
        return dump_yaml({**plain, SEAL: seal_of(plain)})

    @staticmethod
    def from_yaml(text: str | bytes, where: str) -> SweepPlan:
        """Inverse of `to_yaml`: the plan in `text`, the content of the file `where`.

        Raises:
            DamagedSweep: if `text` is not a plan.
        """
        try:
            content = checked(load_yaml(text), where)
            return _ADAPTER.validate_python({k: v for k, v in content.items() if k != "seeds"})
        except DamagedFile as error:
            raise DamagedSweep(f"{error}; a copy is in MLflow") from error
        except (InvalidYaml, ValidationError) as error:
            raise DamagedSweep(f"{where}: not a sweep: {' '.join(str(error).split()):.300}") from error

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that a trial's metrics depend on: not names, nor how many trials run when."""
        plain: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        tune = {key: value for key, value in plain["tune"].items() if key not in _NOT_IN_DIGEST}
        return seal_of({key: plain[key] for key in ("variants", "manifests", "train")} | {"tune": tune})


_ADAPTER = TypeAdapter(SweepPlan)


def plan_sweep(
    name: str,
    tables: Sequence[AblationTable],
    datasets: Sequence[PreparedDataset],
    train: TrainConfig,
    tune: TuneConfig,
) -> SweepPlan:
    """Resolve the sweep `name`, without slashes, over some `tables`, each of them once.

    All trials train and validate on the `datasets` with the config `train`; `tune` is how they are run.

    Raises:
        ConfigError: if there is nothing to run, or a variant does not fit the data or the config; names it.
    """
    require_name(name)
    repeated = {table.name for table in tables if [t.name for t in tables].count(table.name) > 1}
    if repeated or not tables:
        raise ConfigError(f"tables: {', '.join(sorted(repeated))} given twice" if repeated else "no tables")
    if train.task != "depth":
        raise ConfigError(f"task: the tables compare AbsRel of depth, not {train.task}")
    for dataset in datasets:
        if train.val_split not in dataset.manifest.samples:
            raise ConfigError(f"val_split: {dataset.name} has no split {train.val_split!r} to compare on")
    variants = find_variants(tables, train)
    try:
        for variant in variants:
            check_fits(variant.config(train, train.seed), datasets)
    except ConfigError as error:
        raise ConfigError(f"{variant.key}: {error}") from error
    data = tuple(dataset.folder.uri for dataset in datasets)
    manifests = {dataset.name: dataset.manifest.digest for dataset in datasets}
    return SweepPlan(name, tuple(tables), tuple(variants), data, manifests, train, tune)


def find_variants(tables: Sequence[AblationTable], base: TrainConfig) -> list[Variant]:
    """The variants of `tables` over the config `base`, in their rows' order.

    Raises:
        ConfigError: naming a row whose settings are not a training config, or whose model is unknown.
    """
    found: dict[str, Variant] = {}
    for table in tables:
        for row in table.rows:
            identity = _identity(table, row, base)
            key = _key(row, base)
            if identity not in found and key in {variant.key for variant in found.values()}:
                key = f"{key}-{identity[:8]}"
            known = found.get(identity, Variant(key, dict(row.changes), {}, False))
            rows, trained = {table.name: row.title, **known.rows}, known.trained or table.trained
            found[identity] = Variant(known.key, known.changes, rows, trained)
    return list(found.values())


def _identity(table: AblationTable, row: Row, base: TrainConfig) -> str:
    """Digest of the resolved config: equal for rows that are the same training."""
    try:
        config = with_changes(base, row.changes)
        model = resolve_config(config.model.name, **config.model.overrides)
    except (ConfigError, ValueError, TypeError) as error:
        raise ConfigError(f"{table.name}: row {row.title!r}: {error}") from error
    settings = json.loads(config.model_dump_json(exclude={"model": {"name", "overrides"}, "seed": True}))
    return seal_of({"model": model.to_dict(), "settings": settings})


def _key(row: Row, base: TrainConfig) -> str:
    """Model and changes of a row but those that are the model's defaults: `dpt_base.readout-ignore`."""
    name = row.changes.get(_MODEL_NAME, base.model.name)
    default = dpt.zoo.MODELS[name].config.to_dict()
    parts = [str(name)]
    for key, value in row.changes.items():
        plain = list(value) if isinstance(value, tuple) else value
        is_default = key.startswith(_OVERRIDES) and default.get(key.removeprefix(_OVERRIDES)) == plain
        if key != _MODEL_NAME and not is_default:
            text = "_".join(map(str, plain)) if isinstance(plain, list) else str(plain)
            slug = re.sub(r"[^A-Za-z0-9_.+-]+", "_", text)
            slug = seal_of(plain)[:6] if isinstance(plain, Mapping) else slug
            parts.append(f"{key.rpartition('.')[2]}-{slug}")
    key = ".".join(parts)
    return key if len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]}-{seal_of(key)[:8]}"
