"""Runs `benchmarks/gpu.py` in a process of its own, and again for the parts that are left if one ends it.

After some errors, such as an illegal address, a process cannot use its GPU any more, and a fault of a driver
or a profiler ends the process: neither may take the other parts with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

LEAST = 15
"""Seconds that must be left for anything to begin."""


def supervise(script: Path, arguments: Sequence[str]) -> int:
    """Run `script` with `arguments`; returns its last exit status."""
    with tempfile.TemporaryDirectory(prefix="dpt-gpu-") as folder:
        rest, more = Path(folder) / "rest", list[str]()
        while True:
            rest.write_text("{}", encoding="utf-8")
            command = [sys.executable, str(script), *arguments, *more, "--rest", str(rest)]
            status = subprocess.call(command)
            left = json.loads(rest.read_text(encoding="utf-8"))
            if status == 0 or not left.get("parts") or left["end"] - time.monotonic() < LEAST:
                return status
            print(f"the process ended with status {status}; another one measures the rest", flush=True)
            minutes = (left["end"] - time.monotonic()) / 60
            more = ["--parts", ",".join(left["parts"]), "--minutes", f"{minutes:.3f}"]
