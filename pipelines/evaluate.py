"""`dpt evaluate`: AbsRel and δ of a model on prepared datasets, each image once.

Protocol (paper section 4.3, after MiDaS): the prediction, resized to the ground truth, is aligned to it by
least squares in inverse depth, image by image; both are inverted and compared as depth where the ground truth
is valid and nearer than a cap. A dataset's figure is the mean over its images; the overall one the mean over
datasets.

Models of metric depth are evaluated without alignment, by the protocol of their dataset
(`pipelines.evaluation.metric_protocol`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import dpt
from datasets_prep.manifest import open_datasets
from dpt.metrics import MetricSums
from pipelines.cluster.workers import on_workers
from pipelines.config import EvaluateConfig
from pipelines.evaluation.metric_depth import evaluate_metric, whole_results
from pipelines.evaluation.metric_protocol import PROTOCOLS, MetricProtocol
from pipelines.evaluation.relative_depth import evaluate_share


def evaluate(
    config: EvaluateConfig, model: Path, data: Sequence[str], threads: int | None = None
) -> dict[str, dict[str, float]]:
    """Evaluate a saved model on Ray.

    Args:
        model: folder of `dpt.save_model`, or a training checkpoint.
        data: prepared datasets, or folders full of them.
        threads: CPU cores of each worker without GPU; None for all that there are.

    Returns:
        dataset → metric → mean over its images.

    Raises:
        NotADataset: if a dataset has no such split.
    """
    datasets = open_datasets(list(data))
    network = dpt.load_model(model)
    if network.config.metric:
        protocols = {d.name: PROTOCOLS.get(d.name, MetricProtocol(config.caps.metres)) for d in datasets}
        size = (config.side, config.rule)
        return evaluate_metric(
            network, datasets, config.split, protocols, config.workers, config.device, size
        )
    for dataset in datasets:
        dataset.manifest.split(config.split)  # before Ray is started
    job = partial(_shares, [d.folder.uri for d in datasets], config)
    parts = on_workers(job, network, config.workers, config.device, threads)
    return whole_results(parts, datasets, config.split)


def _shares(
    uris: list[str], config: EvaluateConfig, model: dpt.DPT, rank: int, workers: int
) -> dict[str, MetricSums]:
    size = (config.side, config.rule)
    return {
        dataset.name: evaluate_share(model, dataset, config.split, config.caps, rank, workers, *size)
        for dataset in open_datasets(uris)
    }
