"""Names of metrics in MLflow: `PROTOCOL/METRIC/DATASET`, such as `zero_shot/abs_rel/kitti`.

The same metric of the same dataset is another figure by another protocol: KITTI's AbsRel is 0.10 after
alignment of each image (Table 1) and 0.06 in metres (Table 3). Names without a protocol (`loss`,
`share/redweb`) are not measurements of a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import NamedTuple

RELATIVE = "relative"
"""Prepared datasets, each image aligned by scale and shift (`pipelines.evaluation.relative_depth`)."""

METRIC = "metric"
"""Prepared datasets, in metres as predicted (`pipelines.evaluation.metric_depth`)."""

SEGMENTATION = "segmentation"
"""Prepared datasets with labels (`pipelines.evaluation.segmentation`)."""

ZERO_SHOT = "zero_shot"
"""Raw evaluation sets of Table 1, by their published protocol (`pipelines.zero_shot`)."""

PROTOCOLS = (RELATIVE, METRIC, SEGMENTATION, ZERO_SHOT)

MEAN = "mean"
"""In place of a dataset's name: the mean over datasets."""

MEAN_MAP = "mean_map_abs_rel"
"""Metric: AbsRel of the dataset's mean map, on the same images (`pipelines.evaluation.mean_map`)."""

SKILL = "skill"
"""Metric: 1 - AbsRel / AbsRel of the mean map."""

AVERAGED = ("abs_rel", MEAN_MAP, SKILL, "miou")
"""Metrics whose mean over datasets is logged; what validation is decided by is one of them."""


class MetricKey(NamedTuple):
    """The parts of a name: `protocol` of `PROTOCOLS`, `metric` of `dpt.metrics`, `dataset` or `MEAN`."""

    protocol: str
    metric: str
    dataset: str

    def __str__(self) -> str:
        return "/".join(self)

    @classmethod
    def parse(cls, name: str) -> MetricKey | None:
        """The parts of the metric `name`; None if it is not a measurement of a model."""
        protocol, _, rest = name.partition("/")
        metric, _, dataset = rest.partition("/")
        return cls(protocol, metric, dataset) if protocol in PROTOCOLS and dataset else None


def with_mean(
    results: Mapping[str, Mapping[str, float]], metrics: Iterable[str] = AVERAGED
) -> dict[str, Mapping[str, float]]:
    """`results`, dataset → metric → value, and in `MEAN` the means of `metrics` that all datasets have."""
    shared = (name for name in metrics if all(name in result for result in results.values()))
    means = {name: fmean(result[name] for result in results.values()) for name in shared}
    return {**results, MEAN: means}


def keyed(protocol: str, results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """`results`, dataset → metric → value by a `protocol`, by the names that they are logged under."""
    return {
        str(MetricKey(protocol, metric, dataset)): value
        for dataset, metrics in results.items()
        for metric, value in metrics.items()
    }
