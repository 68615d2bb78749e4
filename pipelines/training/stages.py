"""From the config to the stages of the sample plan: how often each dataset is sampled in each stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from datasets_prep.manifest import PreparedDataset
from pipelines.config import ConfigError, MixSection, TrainConfig
from pipelines.sampling.plan import Stage


def run_stages(config: TrainConfig, datasets: Sequence[PreparedDataset]) -> list[Stage]:
    """The stages of a run: those of its `config`, then the full mix for the remaining steps.

    The run's `datasets` are sorted by name, and each has the training split.

    Raises:
        ConfigError: if the config names a dataset that is missing, or omits one in `weights`.
    """
    rows = {d.name: d.manifest.samples[config.train_split] for d in datasets}
    for key, names in config.of_datasets.items():
        _require(key, names, rows)
    left = config.steps - sum(stage.steps for stage in config.stages)
    stages = [
        Stage(stage.steps, _shares(f"stages.{i}.", stage, stage.datasets or rows, rows), config.sampling)
        for i, stage in enumerate(config.stages)
    ]
    return [*stages, Stage(left, _shares("", config, rows, rows), config.sampling)]


def _shares(key: str, mix: MixSection, chosen: Iterable[str], rows: Mapping[str, int]) -> list[float]:
    """Relative frequency of each dataset in `rows`; 0 for those that are not chosen."""
    _require(f"{key}datasets", chosen, rows)
    if mix.weights and set(mix.weights) != set(chosen):
        raise ConfigError(
            f"{key}weights: given for {sorted(mix.weights)}, but the datasets are {sorted(chosen)}"
        )
    shares = mix.weights or {name: rows[name] if mix.balance == "size" else 1.0 for name in chosen}
    return [float(shares.get(name, 0.0)) for name in rows]


def _require(key: str, names: Iterable[str], rows: Mapping[str, int]) -> None:
    if missing := sorted(set(names) - rows.keys()):
        raise ConfigError(f"{key}: no dataset {', '.join(missing)}; there are {sorted(rows)}")
