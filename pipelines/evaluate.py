"""`dpt evaluate --data`: AbsRel and δ of a depth model on prepared datasets, each image once.

Relative depth is compared after alignment (`pipelines.evaluation.relative_depth`), beside the mean map
(`pipelines.evaluation.mean_map`); metric depth as predicted, by the protocol of its dataset
(`pipelines.evaluation.metric_depth`). A dataset's figure is the mean over its images; the overall one the
mean over datasets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

import dpt
from datasets_prep.manifest import PreparedDataset, open_datasets
from dpt.weights.folder import read_config
from pipelines.config import EvaluateConfig
from pipelines.evaluation.mean_map import FITTED_ON
from pipelines.evaluation.metric_depth import evaluate_metric
from pipelines.evaluation.official_splits import log_metric_results
from pipelines.evaluation.relative_depth import relative_share
from pipelines.evaluation.sets import PROTOCOLS, MetricProtocol
from pipelines.evaluation.share import evaluate_shares
from pipelines.tracking.metric_keys import RELATIVE, keyed, with_mean
from pipelines.tracking.registry import evaluation_run


def evaluate_and_log(
    config: EvaluateConfig,
    model: Path | None,
    reference: str,
    datasets: Sequence[PreparedDataset],
    tags: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, dict[str, float]]:
    """As `evaluate`, logged to an MLflow run of its own, as an evaluation of the `reference` of the model.

    `config`, `model` and `datasets` are as there, `tags` further ones of the run.
    """
    with evaluation_run(reference, "evaluate", config, datasets, tags=tags) as run:
        results = evaluate(config, model, [d.folder.uri for d in datasets])
        if model is not None and _is_metric(model):
            log_metric_results(run, results, datasets, config.split, _protocols(config, datasets))
        else:
            run.log_metrics(keyed(RELATIVE, with_mean(results)), step=0)
    return results


def evaluate(
    config: EvaluateConfig, model: Path | None, data: Sequence[str], threads: int | None = None
) -> dict[str, dict[str, float]]:
    """Evaluate a saved depth model, or the mean map, on Ray, as `config` says.

    `model` is a folder of `dpt.save_model` or a training checkpoint, None for the mean map; `data` are
    prepared datasets or folders of them, `threads` the CPU cores of each worker without GPU; None for an
    equal share of all.

    Returns:
        dataset → metric → mean over its images.

    Raises:
        NotADataset: if a dataset has no such split, no depth of the model's kind, or, for the mean map, no
            training split.
        ProtocolError: if predictions or images do not fit the protocol of metric depth.
    """
    datasets = open_datasets(list(data))
    network = dpt.load_model(model) if model else None
    split, size = config.split, (config.side, config.rule)
    resources = config.workers, config.device if network else "cpu"
    if network is None:
        for dataset in datasets:
            dataset.manifest.split(FITTED_ON)
    elif network.config.metric:
        protocols = _protocols(config, datasets)
        return evaluate_metric(network, datasets, split, protocols, *resources, size, config.exact)
    share = partial(relative_share, split=split, caps=config.caps, size=size)
    shares = dict.fromkeys((d.name for d in datasets), share)
    sums = evaluate_shares(shares, network, datasets, split, *resources, threads, config.exact)
    return {name: total.result() for name, total in sums.items()}


def _is_metric(model: Path) -> bool:
    return dpt.ModelConfig.from_dict(read_config(model)).metric


def _protocols(config: EvaluateConfig, datasets: Sequence[PreparedDataset]) -> dict[str, MetricProtocol]:
    """The published protocol of each dataset's depth in metres; the whole image up to the cap without one."""
    return {d.name: PROTOCOLS.get(d.name, MetricProtocol(config.caps.metres)) for d in datasets}
