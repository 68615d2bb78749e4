"""System metrics of a machine of a run: CPU, memory, GPUs, disk and network, as MLflow itself measures them.

`mlflow.system_metrics.SystemMetricsMonitor` asks the server for the run's status before every sample, and
ends for ever at the first failure; so only its collectors are used, as read in MLflow 3.17. Its environment
variables hold: MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING (`false`), MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL in
seconds, and MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING.
"""

from __future__ import annotations

import platform
import threading
import time
from collections import Counter
from contextlib import suppress

import torch
from mlflow.environment_variables import (
    MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING,
    MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING,
    MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL,
)
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from pipelines.tracking.runs import MetricPoint, Run

_SECONDS, _SAMPLES = 10.0, 6
_MOST_KEPT = 1000
_CLOSING_SECONDS = 30.0


class MachineMonitor:
    """Logs this machine's metrics to a run, the mean of each minute, in a thread of its own until `close`.

    Names are MLflow's, `system/cpu_utilization_percentage`, or `system/node_1/…` on several machines; the
    step is the time in seconds. The tag `node_1` is the machine's name and GPUs. What MLflow does not take
    while it is down is sent later.

    Args:
        run: that is logged to.
        node: number of this machine among those of the run, from 0.
        nodes: number of machines.
    """

    def __init__(self, run: Run, node: int, nodes: int) -> None:
        self._run, self._tag = run, f"node_{node}"
        self._prefix = f"system/{self._tag}/" if nodes > 1 else "system/"
        self._collectors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        with suppress(ImportError, RuntimeError):  # no nvidia-ml-py, or no GPU
            self._collectors.append(GPUMonitor())
        self._seconds = MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or _SECONDS
        self._samples = MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING.get() or _SAMPLES
        self._points: list[MetricPoint] = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="machine", daemon=True)
        if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get() or not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.is_set():
            self._thread.start()

    def close(self) -> None:
        """Log what was measured since the last time, and stop."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSING_SECONDS)

    def _watch(self) -> None:
        tags = {self._tag: machine()}
        ends = False
        while not ends:
            for _ in range(self._samples):
                for collector in self._collectors:
                    collector.collect_metrics()
                if ends := self._closing.wait(self._seconds):
                    break
            self._points = (self._points + self._means())[-_MOST_KEPT:]
            with suppress(Exception):  # every store has its own; kept until the next time
                self._run.set_tags(tags)
                tags = {}
                self._run.log_points(self._points)
                self._points = []

    def _means(self) -> list[MetricPoint]:
        now = time.time()
        means = {name: mean for one in self._collectors for name, mean in one.aggregate_metrics().items()}
        for collector in self._collectors:
            collector.clear_metrics()
        return [
            MetricPoint(f"{self._prefix}{name}", mean, int(now * 1000), int(now))
            for name, mean in means.items()
        ]


def machine() -> str:
    """Name and GPUs of this machine: `ip-10-0-0-7: 8 x NVIDIA H200`."""
    gpus = Counter(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    return f"{platform.node()}: {', '.join(f'{count} x {name}' for name, count in gpus.items()) or 'no GPU'}"
