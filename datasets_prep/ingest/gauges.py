"""An ingest's progress as metrics of Ray, which every node exports to Prometheus as `ray_dpt_ingest_…`."""

import time

from ray.util.metrics import Gauge

from datasets_prep.progress import Progress

_GAUGES = {
    "images": "Images done.",
    "quarantined": "Of these, left out.",
    "images_per_second": "Mean rate since the command was started.",
}


class IngestGauges:
    """The gauges `dpt_ingest_…` of the prepared `dataset`."""

    def __init__(self, dataset: str) -> None:
        self._started = time.monotonic()
        self._gauges = {
            key: Gauge(f"dpt_ingest_{key}", text, ("dataset",)).set_default_tags({"dataset": dataset})
            for key, text in _GAUGES.items()
        }

    def set(self, state: Progress) -> None:
        """Set all gauges to a `state` of the ingest."""
        rate = state.done / max(1e-9, time.monotonic() - self._started)
        values = {"images": state.done, "quarantined": state.rejected, "images_per_second": rate}
        for key, value in values.items():
            self._gauges[key].set(value)
