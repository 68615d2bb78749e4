"""What a short command imports and starts: nothing that it does not use, since that is most of its time."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

import dpt
from pipelines.cluster import workers
from tests.support.paths import REPOSITORY

SLOW = ("blosc2", "mlflow", "pandas", "ray", "sympy", "torch._dynamo")


@pytest.mark.heavy
def test_predicting_an_image_imports_no_job_and_no_compiler(tmp_path):
    dpt.save_model(dpt.create_model("dpt_small"), tmp_path / "model")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 50, 3), np.uint8))
    code = (
        "import sys; from tune.cli import app\n"
        "app(['predict', 'a.png', '--model', 'model', '--out', 'out'], standalone_mode=False)\n"
        f"print('imported', *(name for name in {SLOW} if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "1 of 1 predicted" in done.stdout
    assert done.stdout.splitlines()[-1] == "imported"


@pytest.mark.heavy
def test_networks_without_values_need_no_compiler():
    code = (
        "import sys, torch, dpt; from dpt.layers.late_compiler import shapes_only\n"
        "with shapes_only():\n"
        "    model, kind = dpt.create_model('dpt_hybrid_small'), (torch.zeros(2) != 0).dtype\n"
        "print(model.size_divisor, next(model.parameters()).device, kind, 'torch._dynamo' in sys.modules)\n"
        "print(torch.compile(lambda x: 2 * x, backend='eager')(torch.ones(2)).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["32 meta torch.bool False", "[2.0, 2.0]"]


@pytest.mark.heavy
def test_the_compiler_works_when_it_is_used():
    assert torch.compile(lambda x: 2 * x, backend="eager")(torch.ones(2)).tolist() == [2, 2]
    model = dpt.create_model("dpt_tiny").eval()
    compiled = torch.compile(model, backend="eager")
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), model(images))


def test_one_worker_on_a_machine_without_ray_is_this_process(monkeypatch):
    def job(model: dpt.DPT, rank: int, count: int) -> tuple[bool, int, int, int]:
        assert isinstance(model, dpt.FastDPT)
        return model.exact, rank, count, os.getpid()

    monkeypatch.setattr(workers.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(workers, "running_cluster", lambda: None)
    monkeypatch.setattr(workers, "connect", lambda: 1 / 0)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    model = dpt.create_model("dpt_tiny")
    for exact in (False, True):
        found = workers.on_workers(job, model, 1, "cpu", exact=exact)
        assert found == [(exact, 0, 1, os.getpid())]
    with pytest.raises(ZeroDivisionError):
        workers.on_workers(job, model, 2, "cpu")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ZeroDivisionError):
        workers.on_workers(job, model, 1, "cpu")
