"""An evaluation on many workers: a share of the images each, all shares added up, each image counted once.

A metric's sums do not depend on who saw which image (`dpt.metrics.Sums`), so the number of workers changes
nothing but the order of additions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dpt
from datasets_prep.manifest import PreparedDataset, open_datasets
from dpt.metrics import AnySums, merged
from pipelines.cluster.workers import on_workers

InputSize = tuple[int | None, str | None]
"""Side and rule of the network's input (`transforms.network_size`); None for the model's own."""

MODEL_SIZE: InputSize = (None, None)
"""The input size that the model was trained with."""

Share = Callable[[Any, PreparedDataset, int, int], AnySums]
"""(model or None, dataset, rank, number of workers) → sums over that worker's images; picklable."""


def evaluate_shares(
    shares: Mapping[str, Share[AnySums]],
    model: dpt.DPT | None,
    datasets: Sequence[PreparedDataset],
    split: str,
    workers: int,
    device: str,
    threads: int | None = None,
    exact: bool = False,
) -> dict[str, AnySums]:
    """Evaluate a `split` of some prepared `datasets` on Ray, each image once.

    `shares` has what a worker computes of each dataset, of the same split. `model`, `workers`, `device`,
    `threads` and `exact` are as in `pipelines.cluster.workers.on_workers`.

    Returns:
        dataset → sums over all its images.

    Raises:
        NotADataset: if a dataset has no such split; before Ray is started.
        RuntimeError: if images are missing or were seen twice.
    """
    expected = {d.name: sum(shard.rows for shard in d.manifest.split(split)) for d in datasets}
    uris = [d.folder.uri for d in datasets]

    def job(model: dpt.DPT | None, rank: int, workers: int) -> dict[str, AnySums]:
        return {d.name: shares[d.name](model, d, rank, workers) for d in open_datasets(uris)}

    parts = on_workers(job, model, workers, device, threads, exact)
    total = {name: merged([part[name] for part in parts]) for name in expected}
    for name, sums in total.items():
        result = sums.result()
        seen = result["images"] + result.get("empty_images", 0)
        if seen != expected[name]:
            raise RuntimeError(f"{name}: evaluated {seen:.0f} images of {expected[name]}")
    return total
