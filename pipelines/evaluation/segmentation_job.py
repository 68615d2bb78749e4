"""`dpt evaluate` of segmentation models: pixels are counted on Ray, each image by one worker."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pyarrow.parquet as pq

import dpt
from datasets_prep.errors import UserError
from datasets_prep.manifest import QUARANTINE_NAME, NotADataset, PreparedDataset, open_datasets
from dpt.metrics import SegmentationCounts
from pipelines.cluster.workers import on_workers
from pipelines.config import EvaluateConfig
from pipelines.evaluation.segmentation import count_share, require_same_classes, require_size_fits

_REASONS_SHOWN = 3
_OTHER_SPLIT = {"ade20k": {"val": "/training/", "train": "/validation/"}}
"""What a file's path has in it if it belongs to the other split; of Pascal Context it does not tell."""


class MissingSamples(UserError):
    """Samples of the evaluated split could not be prepared, so an average would be over fewer."""


def has_labels(datasets: Sequence[PreparedDataset]) -> bool:
    """Whether these are segmentation sets.

    Raises:
        NotADataset: if some are and some are not; they have no metric in common.
    """
    labelled = [d.name for d in datasets if d.manifest.target_kind == "labels"]
    others = [d.name for d in datasets if d.manifest.target_kind != "labels"]
    if labelled and others:
        raise NotADataset(f"{labelled[0]} has labels and {others[0]} has none: evaluate them separately")
    return bool(labelled)


def check(config: EvaluateConfig, model: dpt.DPT, datasets: Sequence[PreparedDataset]) -> None:
    """Find out before anything is started whether config, model and data go together.

    Raises:
        NotADataset, BadModel: if model and datasets do not go together, or there is no such split.
        MissingSamples: if samples of the split were left out of the shards, unless `config.allow_missing`.
        ConfigError: if a size is asked for that windows do not have.
    """
    for dataset in datasets:
        require_same_classes(model.config, dataset)
        dataset.manifest.split(config.split)
        if not config.allow_missing:
            require_whole(dataset, config.split)
    require_size_fits(config)


def evaluate_segmentation(
    config: EvaluateConfig, model: dpt.DPT, datasets: Sequence[PreparedDataset]
) -> dict[str, SegmentationCounts]:
    """Count the pixels of a split of every dataset by label and prediction.

    Args:
        model: on any device.

    Returns:
        dataset → counts of all its images.

    Raises:
        UserError: see `check`.
        BadLabels: naming a sample whose labels are damaged.
    """
    check(config, model, datasets)
    expected = {d.name: sum(shard.rows for shard in d.manifest.split(config.split)) for d in datasets}
    job = partial(_shares, [d.folder.uri for d in datasets], config)
    parts = on_workers(job, model, config.workers, config.device)
    total = {d.name: SegmentationCounts(model.config.classes) for d in datasets}
    for name, counts in total.items():
        for part in parts:
            counts.merge(part[name])
        if counts.images != expected[name]:
            raise RuntimeError(f"{name}: evaluated {counts.images} images of {expected[name]}")
    return total


def left_out(dataset: PreparedDataset, split: str) -> list[dict[str, Any]]:
    """The samples that ingest could not use and that may be of this split: `source_path` and `reason`."""
    if not dataset.manifest.quarantined:
        return []
    with dataset.folder.fs.open(dataset.folder.path_of(QUARANTINE_NAME), "rb") as file:
        entries = pq.read_table(file).to_pylist()
    elsewhere = _OTHER_SPLIT.get(dataset.name, {}).get(split)
    return [entry for entry in entries if elsewhere is None or elsewhere not in f"/{entry['source_path']}"]


def require_whole(dataset: PreparedDataset, split: str) -> None:
    """Refuse a split of which samples were left out.

    Raises:
        MissingSamples: with how many, and the first of them.
    """
    missing = left_out(dataset, split)
    if missing:
        shown = "; ".join(f"{entry['source_path']}: {entry['reason']}" for entry in missing[:_REASONS_SHOWN])
        more = f"; and {len(missing) - _REASONS_SHOWN} more" if len(missing) > _REASONS_SHOWN else ""
        raise MissingSamples(
            f"{dataset.name}: {len(missing)} samples were left out of the shards: {shown}{more} "
            "(--allow-missing evaluates the others, and says so)"
        )


def _shares(
    uris: list[str], config: EvaluateConfig, model: dpt.DPT, rank: int, workers: int
) -> dict[str, SegmentationCounts]:
    shares = (config.inference, rank, workers, config.side, config.rule)
    return {d.name: count_share(model, d, config.split, *shares) for d in open_datasets(uris)}
