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
from datasets_prep.manifest import PreparedDataset, open_datasets
from dpt.weights.folder import read_config
from pipelines.config import EvaluateConfig
from pipelines.evaluation.metric_depth import evaluate_metric
from pipelines.evaluation.official_splits import log_metric_results
from pipelines.evaluation.relative_depth import mean_over_datasets, relative_share
from pipelines.evaluation.sets import PROTOCOLS, MetricProtocol
from pipelines.evaluation.share import evaluate_shares
from pipelines.tracking.metric_keys import MEAN, RELATIVE, keyed
from pipelines.tracking.registry import evaluation_run


def evaluate_and_log(
    config: EvaluateConfig, model: Path, reference: str, datasets: Sequence[PreparedDataset]
) -> dict[str, dict[str, float]]:
    """As `evaluate`, logged to an MLflow run of its own, as an evaluation of the model's `reference`."""
    with evaluation_run(reference, "evaluate", config, datasets) as run:
        results = evaluate(config, model, [d.folder.uri for d in datasets])
        if _is_metric(model):
            log_metric_results(run, results, datasets, config.split, _protocols(config, datasets))
        else:
            mean = {MEAN: {"abs_rel": mean_over_datasets(results, "abs_rel")}}
            run.log_metrics(keyed(RELATIVE, {**results, **mean}), step=0)
    return results


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
    split, size, resources = config.split, (config.side, config.rule), (config.workers, config.device)
    if network.config.metric:
        protocols = _protocols(config, datasets)
        return evaluate_metric(network, datasets, split, protocols, *resources, size, config.exact)
    shares = dict.fromkeys(
        (d.name for d in datasets), partial(relative_share, split=split, caps=config.caps, size=size)
    )
    sums = evaluate_shares(shares, network, datasets, split, *resources, threads, config.exact)
    return {name: total.result() for name, total in sums.items()}


def _is_metric(model: Path) -> bool:
    return dpt.ModelConfig.from_dict(read_config(model)).metric


def _protocols(config: EvaluateConfig, datasets: Sequence[PreparedDataset]) -> dict[str, MetricProtocol]:
    """The published protocol of each dataset's depth in metres; the whole image up to the cap without one."""
    return {d.name: PROTOCOLS.get(d.name, MetricProtocol(config.caps.metres)) for d in datasets}
