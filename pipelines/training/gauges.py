"""A training's progress as metrics of Ray, which every node exports to Prometheus.

Ray puts `ray_` before the names; `docs/grafana.json` is a dashboard of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Gauge

_GAUGES = {
    "loss": "Mean loss since the last point.",
    "images_per_second": "Throughput of the whole run.",
    "step_seconds": "Mean time of a step.",
    "data_wait_share": "Share of the time in which rank 0 waits for data.",
    "matrix_rate_share": "FLOP/s as a share of those of a large matrix product.",
    "skipped_steps": "Steps skipped since the start of the run.",
    "gpu_memory_gib": "Largest GPU memory of rank 0.",
}
"""Metric in MLflow → description."""


class TrainingGauges:
    """The gauges `dpt_train_…` of the run `name`; setting them costs microseconds, and reaches no network."""

    def __init__(self, name: str) -> None:
        tags = {"run": name}
        self._gauges = {
            key: Gauge(f"dpt_train_{key}", text, ("run",)).set_default_tags(tags)
            for key, text in _GAUGES.items()
        }
        self._step = Gauge("dpt_train_step", "Steps done.", ("run",)).set_default_tags(tags)
        description = "Samples of a dataset that were trained on."
        self._seen = Gauge("dpt_train_samples", description, ("run", "dataset")).set_default_tags(tags)

    def set(self, step: int, metrics: Mapping[str, float], seen: Mapping[str, int]) -> None:
        """Set all gauges after `step` steps: to `metrics` by name, and `seen` samples by dataset."""
        self._step.set(step)
        for key, value in metrics.items():
            if key in self._gauges:
                self._gauges[key].set(value)
        for dataset, samples in seen.items():
            self._seen.set(samples, {"dataset": dataset})
