"""How long a GPU is busy during a call, and with how many kernels, by PyTorch's profiler."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

ON_THE_GPU = {"kernel", "gpu_memcpy", "gpu_memset"}
"""Categories of a trace's events that occupy the GPU; annotations of spans on it do not."""


@dataclass(frozen=True)
class Kernels:
    """Seconds in which at least one kernel or copy ran, and the number of both."""

    busy: float
    count: int


def kernels_of(call: Callable[[], object]) -> Kernels:
    """Those of one `call` on a GPU.

    Raises:
        RuntimeError: if the profiler sees none, because CUPTI is missing or not permitted.
    """
    # As PyTorch does where it records CUDA graphs, which do not survive that CUPTI is started again.
    os.environ |= {"DISABLE_CUPTI_LAZY_REINIT": "1", "TEARDOWN_CUPTI": "0"}
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory(prefix="dpt-trace-") as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        found = kernels_in(json.loads(path.read_text(encoding="utf-8"))["traceEvents"])
    if not found.count:
        raise RuntimeError("the profiler sees no kernels: CUPTI is missing or not permitted")
    return found


def kernels_in(events: Sequence[Mapping[str, Any]]) -> Kernels:
    """Those among the `events` of a trace, with times `ts` and `dur` in µs; they may overlap."""
    spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e.get("cat") in ON_THE_GPU)
    busy, reached = 0.0, float("-inf")
    for start, end in spans:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return Kernels(busy / 1e6, len(spans))
