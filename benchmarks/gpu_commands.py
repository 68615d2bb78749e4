"""Commands in processes of their own: the way from raw data to predictions by `dpt`, and what is compiled."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from gpu_bench import Bench
from gpu_training import AVERAGE, REGIONS, Row

HERE = Path(__file__).resolve().parent
END_TO_END = ("seconds", "to the first step", "last line")
FOLDERS = ("images/s", "the network, before and after", "share")
COMPILED = ("ms", "images/s", "of the matrix rate", "compiling")
_GRACE = 5
"""Seconds in which a process that must end may end by itself; as many are kept for what follows."""

_LONGEST = 120
"""Seconds of a command of the whole way at most: one that hangs must not use up the time of all others."""


def end_to_end(bench: Bench) -> Iterator[Row]:
    """Generate, prepare, train, predict, evaluate; then the other executor."""
    side, steps = ("64", 2) if bench.tiny else ("384", 20)
    device = bench.device.type
    (model,) = bench.chosen("dpt_base")
    batch, processes = (4, 2) if bench.tiny else (16, 4)
    training = (
        f"model.name={model}", "model.pretrained=false", f"crop={side}", f"batch_size={batch}",
        f"steps={steps}", "log_every=1", f"device={device}", f"loader_workers={processes}",
    )  # fmt: skip
    preparing = (f"side={side}", "validation_share=0.25")
    checkpoint = f"runs/local/step_{steps:08d}"
    with tempfile.TemporaryDirectory(prefix="dpt-gpu-", ignore_cleanup_errors=True) as folder:
        for words in (
            ("generate", "tartanair", "--out", "raw", "--scenes", "8" if bench.tiny else "24"),
            ("prepare", "tartanair", "--raw", "raw", "--out", "shards", *preparing),
            ("train", "--data", "shards", "--name", "local", "executor=local", *training),
            ("predict", "raw", "--model", checkpoint, "--out", "predicted", "--device", device),
            ("evaluate", "--data", "shards", "--model", checkpoint, f"device={device}"),
            ("train", "--data", "shards", "--name", "ray", "executor=ray", *training),
        ):
            executor = next((word for word in words if word.startswith("executor=")), "")
            yield (
                f"dpt {words[0]} {executor}".strip(),
                lambda words=words: command_cells(bench, words, Path(folder)),
            )


def command_cells(bench: Bench, words: Sequence[str], folder: Path) -> list[str]:
    """Cells of the columns `END_TO_END` for the command `dpt` with these `words`."""
    seconds = min(_LONGEST, bench.left - 2 * _GRACE)
    lines = run([sys.executable, "-m", "tune.cli", *words], seconds, folder)
    first = next((f"{at:.1f}" for at, line in lines if line.startswith("step 1/")), "-")
    said = [line for _, line in lines if any(map(str.isalnum, line))]
    steps = [line for line in said if line.startswith("step ")]
    last = (steps or said or [""])[-1].replace("|", "/")
    return [f"{lines[-1][0]:.1f}", first, last[:110]]


def folders(bench: Bench) -> Iterator[Row]:
    """`dpt predict FOLDER` beside the bare network, by `benchmarks/predict.py`."""
    for name in bench.chosen("dpt_large", "dpt_hybrid"):
        for dtype in ("bfloat16", "float32"):
            yield f"{name}, {dtype}", lambda name=name, dtype=dtype: folder_cells(bench, name, dtype)


def folder_cells(bench: Bench, name: str, dtype: str) -> list[str]:
    """Cells of the columns `FOLDERS` for the model `name` in the precision `dtype`."""
    images, batch = (12, 2) if bench.tiny else (1024, 32)
    given = {
        "model": name,
        "dtype": dtype,
        "device": bench.device.type,
        "images": images,
        "batch-size": batch,
    }
    words = [f"--{key}={value}" for key, value in given.items()]
    command = [sys.executable, str(HERE / "predict.py"), "--rounds=1", *words]
    lines = run(command, bench.left - 2 * _GRACE, HERE.parent)
    (line,) = (line for _, line in lines if line.startswith("dpt predict "))
    rate, before, after, share = re.findall(r"\d+\.\d+", line)
    return [rate, f"{before}, {after}", share]


def compiled(bench: Bench) -> Iterator[Row]:
    """Steps and predictions by `torch.compile`, each in a process that ends with the time."""
    (large,), (hybrid,) = bench.chosen("dpt_large"), bench.chosen("dpt_hybrid")
    for name, what, count in (
        (large, REGIONS, 16), (large, AVERAGE, 16), (large, "ours", 1), (large, "transformers", 1),
        (hybrid, "ours", 1), (hybrid, "transformers", 1), (large, "ours", 32), (hybrid, AVERAGE, 16),
    ):  # fmt: skip
        yield f"{name}, {what}, batch {count}", lambda row=(name, what, count): compiled_cells(bench, *row)


def compiled_cells(bench: Bench, name: str, what: str, count: int) -> list[str]:
    """Cells of the columns `COMPILED`, measured by `benchmarks/gpu_compiled.py`."""
    given = [name, what, str(count), str(bench.peak), *(["--tiny"] if bench.tiny else [])]
    lines = run([sys.executable, str(HERE / "gpu_compiled.py"), *given], bench.left - 2 * _GRACE, HERE.parent)
    return next(line for _, line in reversed(lines) if "\t" in line).split("\t")


def run(command: Sequence[str], seconds: float, folder: Path) -> list[tuple[float, str]]:
    """Run a `command` in a `folder`: the lines it prints, each after so many seconds; last the end, empty.

    Raises:
        RuntimeError: with its last line, if it fails or needs more than `seconds`.
    """
    start = time.monotonic()
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    paths = [str(HERE.parent), environment.get("PYTHONPATH", "")]
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, text=True, errors="replace", start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        late = threading.Event()
        timer = threading.Timer(max(0.0, seconds), _end, (process, late))
        timer.start()
        assert process.stdout is not None
        try:
            lines = [(time.monotonic() - start, line.rstrip()) for line in process.stdout]
            code = process.wait()
        finally:
            timer.cancel()
    last = next((line for _, line in reversed(lines) if line.strip()), "it printed nothing")
    if late.is_set():
        raise RuntimeError(f"ended after {seconds:.0f} s, all it may take; its last line: {last}")
    if code:
        raise RuntimeError(f"exit status {code}; its last line: {last}")
    return [*lines, (time.monotonic() - start, "")]


def _end(process: subprocess.Popen[str], late: threading.Event) -> None:
    """Ask a process and those that it started to end, and end them where they do not."""
    late.set()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
        os.killpg(process.pid, signal.SIGKILL)
