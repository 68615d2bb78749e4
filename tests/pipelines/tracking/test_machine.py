"""System metrics of a machine: under MLflow's names, and none is lost while MLflow is away."""

import threading
import time
from types import SimpleNamespace

import psutil
import pytest
import torch

from pipelines.tracking.machine import MachineMonitor, machine


class Store:
    """A run whose server is away for the first `failures` requests."""

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.tags, self.points, self.asked = failures, {}, [], threading.Event()

    def set_tags(self, tags):
        self._answer()
        self.tags |= tags

    def log_points(self, points):
        self._answer()
        self.points += points

    def _answer(self):
        if self.failures:
            self.failures -= 1
            self.asked.set()
            raise ConnectionError


def test_one_machine_has_mlflows_names_and_several_have_their_number_too(monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "60")
    alone, second = Store(), Store()
    for store, node, nodes in ((alone, 0, 1), (second, 1, 2)):
        MachineMonitor(store, node, nodes).close()
    values = {point.name: point.value for point in alone.points}
    used = psutil.virtual_memory().percent
    assert values["system/system_memory_usage_percentage"] == pytest.approx(used, abs=10)
    assert {"system/cpu_utilization_percentage", "system/network_receive_megabytes"} <= values.keys()
    assert {point.name for point in second.points} == {name.replace("/", "/node_1/") for name in values}
    assert second.tags == {"node_1": machine()}
    assert abs(alone.points[0].step - time.time()) < 60


def test_what_mlflow_did_not_take_is_sent_later(monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.02")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "1")
    store = Store(failures=1)
    monitor = MachineMonitor(store, 0, 1)
    assert store.asked.wait(10)
    monitor.close()
    name = "system/cpu_utilization_percentage"
    assert sum(point.name == name for point in store.points) >= 2
    assert store.tags == {"node_0": machine()}


def test_it_can_be_turned_off_as_mlflows_own(monkeypatch):
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    store = Store()
    MachineMonitor(store, 0, 1).close()
    assert store.points == []


def test_a_machine_says_what_it_has(monkeypatch):
    names = ["NVIDIA H200", "NVIDIA H200", "NVIDIA L4"]
    monkeypatch.setattr(
        torch, "cuda", SimpleNamespace(device_count=lambda: 3, get_device_name=names.__getitem__)
    )
    assert machine().endswith(": 2 x NVIDIA H200, 1 x NVIDIA L4")
