"""`dpt evaluate --data`: AbsRel and δ of a depth model on prepared datasets, each image once.

Relative depth is compared after alignment (`pipelines.evaluation.relative_depth`), metric depth as predicted,
by the protocol of its dataset (`pipelines.evaluation.metric_depth`). A dataset's figure is the mean over
its images; the overall one the mean over datasets.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import dpt
from datasets_prep.manifest import open_datasets
from pipelines.config import EvaluateConfig
from pipelines.evaluation.metric_depth import evaluate_metric
from pipelines.evaluation.relative_depth import relative_share
from pipelines.evaluation.sets import PROTOCOLS, MetricProtocol
from pipelines.evaluation.share import evaluate_shares


def evaluate(
    config: EvaluateConfig, model: Path, data: Sequence[str], threads: int | None = None
) -> dict[str, dict[str, float]]:
    """Evaluate a saved depth model on Ray, as `config` says.

    `model` is a folder of `dpt.save_model` or a training checkpoint, `data` are prepared datasets or folders
    of them, `threads` the CPU cores of each worker without GPU; None for an equal share of all.

    Returns:
        dataset → metric → mean over its images.

    Raises:
        NotADataset: if a dataset has no such split, or no depth of the model's kind.
        ProtocolError: if predictions or images do not fit the protocol of metric depth.
    """
    datasets = open_datasets(list(data))
    network = dpt.load_model(model)
    split, size = config.split, (config.side, config.rule)
    if network.config.metric:
        protocols = {d.name: PROTOCOLS.get(d.name, MetricProtocol(config.caps.metres)) for d in datasets}
        return evaluate_metric(network, datasets, split, protocols, config.workers, config.device, size)
    shares = dict.fromkeys(
        (d.name for d in datasets), partial(relative_share, split=split, caps=config.caps, size=size)
    )
    sums = evaluate_shares(shares, network, datasets, split, config.workers, config.device, threads)
    return {name: total.result() for name, total in sums.items()}
