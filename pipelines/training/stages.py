"""The stages of a run as its config names them: what the curated ones and the full mix draw from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from datasets_prep.manifest import PreparedDataset
from pipelines.config import ConfigError, MixSection, TrainConfig
from pipelines.sampling.plan import Stage


def run_stages(config: TrainConfig, datasets: Sequence[PreparedDataset]) -> list[Stage]:
    """The stages of a run: those of `config.stages`, and then the full mix for the steps that are left.

    Args:
        datasets: the run's, sorted by name; each must have the split that is trained on.

    Raises:
        ConfigError: if the config names a dataset that is not there, or leaves one out.
    """
    rows = {d.name: d.manifest.samples[config.train_split] for d in datasets}
    left = config.steps - sum(stage.steps for stage in config.stages)
    stages = [
        Stage(
            stage.steps, _shares(f"stages.{i}.", stage, stage.datasets or tuple(rows), rows), config.sampling
        )
        for i, stage in enumerate(config.stages)
    ]
    return [*stages, Stage(left, _shares("", config, tuple(rows), rows), config.sampling)]


def _shares(key: str, mix: MixSection, chosen: Sequence[str], rows: Mapping[str, int]) -> list[float]:
    """The share of each dataset in `rows`; 0 of those that are not chosen."""
    missing = sorted(set(chosen) - rows.keys())
    if missing:
        raise ConfigError(f"{key}datasets: no dataset {', '.join(missing)}; there are {sorted(rows)}")
    if mix.weights and set(mix.weights) != set(chosen):
        raise ConfigError(
            f"{key}weights: given for {sorted(mix.weights)}, but the datasets are {sorted(chosen)}"
        )
    shares = mix.weights or {name: rows[name] if mix.balance == "size" else 1.0 for name in chosen}
    return [float(shares.get(name, 0.0)) for name in rows]
