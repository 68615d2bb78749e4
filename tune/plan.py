"""What a sweep is: tables, their variants, seeds, data and configs; one YAML that says all of it.

The plan is written beside the trials' checkpoints before the first of them starts. Going on with a sweep
reads it back, so that nothing has to be said twice, and nothing can be said differently.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from datasets_prep.errors import UserError
from datasets_prep.manifest import PreparedDataset
from pipelines.config import ConfigError, TrainConfig, TuneConfig
from pipelines.train import check_fits
from tune.ablations import Table
from tune.records import trial_name
from tune.variants import Variant, find_variants

_FREE = {"seeds", "concurrency", "hours", "max_failures"}
"""Settings of `TuneConfig` that change how many trials run and when, not what they are."""


class DamagedSweep(UserError):
    """A sweep's file that cannot be read; the message names it."""


@dataclass(frozen=True)
class Trial:
    """A variant with a seed: one training."""

    variant: Variant
    seed: int

    @property
    def path(self) -> str:
        """Where it lies in the sweep's folder; also its name in the sweep."""
        return f"{self.variant.key}/s{self.seed}"


@dataclass(frozen=True)
class SweepPlan:
    """A resolved sweep.

    Attributes:
        name: of the sweep.
        tables: what it fills.
        variants: every different configuration of their rows.
        data: version folders of the prepared datasets, sorted by dataset name.
        manifests: dataset → digest of its manifest.
        train: what all trials have in common.
        tune: how they are run.
    """

    name: str
    tables: tuple[Table, ...]
    variants: tuple[Variant, ...]
    data: tuple[str, ...]
    manifests: Mapping[str, str]
    train: TrainConfig
    tune: TuneConfig

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Of all trials of a variant."""
        return tuple(self.train.seed + number for number in range(self.tune.seeds))

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """All trainings, one seed after the other: the first seed's tables are complete first."""
        trained = [variant for variant in self.variants if variant.trained]
        return tuple(Trial(variant, seed) for seed in self.seeds for variant in trained)

    @cached_property
    def measured(self) -> tuple[Trial, ...]:
        """The trials whose variants are in a table of figures that need no training, one each."""
        untrained = {table.name for table in self.tables if not table.trained}
        return tuple(Trial(v, self.seeds[0]) for v in self.variants if untrained & v.rows.keys())

    def config(self, trial: Trial) -> TrainConfig:
        """The training config of a trial."""
        return trial.variant.config(self.train, trial.seed)

    def run_name(self, trial: Trial) -> str:
        """Name of a trial's MLflow run."""
        return trial_name(self.name, trial.variant.key, trial.seed)

    def to_yaml(self) -> str:
        """The plan as YAML, with the seeds spelled out."""
        plain = _ADAPTER.dump_python(self, mode="json")
        return yaml.safe_dump({**plain, "seeds": list(self.seeds)}, sort_keys=False, allow_unicode=True)

    @staticmethod
    def from_yaml(text: str, where: str) -> SweepPlan:
        """Inverse of `to_yaml`.

        Args:
            where: named in errors.

        Raises:
            DamagedSweep: if it is no plan.
        """
        try:
            content = yaml.safe_load(text)
            return _ADAPTER.validate_python({k: v for k, v in content.items() if k != "seeds"})
        except (yaml.YAMLError, ValidationError, AttributeError) as error:
            raise DamagedSweep(f"{where}: not a sweep: {' '.join(str(error).split()):.300}") from error

    def identity(self) -> dict[str, Any]:
        """What a trial's figures depend on: all but names, and how many trials run where and when."""
        plain: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        tune = {key: value for key, value in plain["tune"].items() if key not in _FREE}
        return {key: plain[key] for key in ("variants", "manifests", "train")} | {"tune": tune}

    @cached_property
    def digest(self) -> str:
        """Of the identity."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()


_ADAPTER = TypeAdapter(SweepPlan)


def plan_sweep(
    name: str,
    tables: Sequence[Table],
    datasets: Sequence[PreparedDataset],
    train: TrainConfig,
    tune: TuneConfig,
) -> SweepPlan:
    """Resolve a sweep.

    Raises:
        ConfigError: if there is nothing to run, or a variant does not fit the data or the config; names it.
    """
    if "/" in name or not name.strip():
        raise ConfigError(f"name: expected a name without slashes, got {name!r}")
    repeated = {table.name for table in tables if [t.name for t in tables].count(table.name) > 1}
    if repeated or not tables:
        raise ConfigError(f"tables: {', '.join(sorted(repeated))} given twice" if repeated else "no tables")
    if train.task != "depth":
        raise ConfigError(f"task: the tables compare AbsRel of depth, not {train.task}")
    for dataset in datasets:
        if train.val_split not in dataset.manifest.samples:
            raise ConfigError(f"val_split: {dataset.name} has no split {train.val_split!r} to compare on")
    variants = find_variants(tables, train)
    for variant in variants:
        _check_fits(variant, train, datasets)
    return SweepPlan(
        name,
        tuple(tables),
        tuple(variants),
        tuple(dataset.folder.uri for dataset in datasets),
        {dataset.name: dataset.manifest.digest for dataset in datasets},
        train,
        tune,
    )


def _check_fits(variant: Variant, train: TrainConfig, datasets: Sequence[PreparedDataset]) -> None:
    try:
        check_fits(variant.config(train, train.seed), datasets)
    except ConfigError as error:
        raise ConfigError(f"{variant.key}: {error}") from error
