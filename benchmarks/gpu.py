"""Everything worth knowing about this project on one GPU, most valuable first, within some minutes.

    python benchmarks/gpu.py                            # on any CUDA machine; also `make gpu`
    python benchmarks/gpu.py --parts compiled --minutes 15
    python benchmarks/gpu.py --tiny                     # on a CPU, to try the script itself

Needs the project's source and its dependencies: no git, no network, no weights. Prints tables in Markdown.
What fails is a row that says why. What the time does not suffice for is named.
"""

# ruff: noqa: E402 (the clock starts before the imports, which take seconds)
from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

START = time.monotonic()
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpu_supervisor import LEAST, supervise

if __name__ == "__main__" and not {"--rest", "--tiny", "--help", "-h"} & set(sys.argv):
    sys.exit(supervise(Path(__file__), sys.argv[1:]))  # before the imports, which take seconds

import torch
from gpu_bench import Bench, reason
from gpu_commands import COMPILED, END_TO_END, FOLDERS, compiled, end_to_end, folders
from gpu_inference import INFERENCE, main_inference, other_inference
from gpu_training import SECTIONS, STEP, Row, main_steps, other_steps, sections

from dpt.inference import tf32
from pipelines.training.report import matrix_rate, wait_for


@dataclass(frozen=True)
class Part:
    """A table: its name, the titles of its columns after the first, and its rows."""

    name: str
    columns: Sequence[str]
    rows: Callable[[Bench], Iterator[Row]]
    in_tiny: bool = True


def ceilings(bench: Bench) -> Iterator[Row]:
    """What the device reaches at best."""
    yield "bf16 matrix product", lambda: [f"{bench.peak / 1e12:,.2f} TFLOP/s"]
    for name, enabled in (("tf32", True), ("fp32", False)):
        yield f"{name} matrix product", partial(float32_rate, bench, enabled)
    yield "copy, read and written", lambda: copy_rate(bench)


def float32_rate(bench: Bench, enabled: bool) -> list[str]:
    """Rate of a float32 product, with TF32 `enabled` or not."""
    with tf32(enabled):
        return [f"{matrix_rate(bench.device, torch.float32) / 1e12:,.2f} TFLOP/s"]


def copy_rate(bench: Bench) -> list[str]:
    """Bytes read and written a second by a copy on the device."""
    source = torch.zeros(2**22 if bench.tiny else 2**28, device=bench.device)
    target = torch.empty_like(source)
    return [f"{2 * source.nbytes / bench.seconds(lambda: target.copy_(source)) / 1e9:,.0f} GB/s"]


PARTS = (
    Part("ceilings", ("reached",), ceilings),
    Part("training", STEP, main_steps),
    Part("sections", SECTIONS, sections),
    Part("inference", INFERENCE, main_inference),
    Part("end-to-end", END_TO_END, end_to_end, in_tiny=False),
    Part("training-others", STEP, other_steps, in_tiny=False),
    Part("inference-others", INFERENCE, other_inference, in_tiny=False),
    Part("compiled", COMPILED, compiled, in_tiny=False),
    Part("folders", FOLDERS, folders, in_tiny=False),
)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [part.name for part in PARTS]
    parser.add_argument("--parts", help=f"some of {','.join(names)}; all by default")
    parser.add_argument("--minutes", type=float, default=6.0, help="after which it ends, whatever is running")
    parser.add_argument("--tiny", action="store_true", help="a small model on the CPU, without slow parts")
    parser.add_argument("--rest", type=Path, help=argparse.SUPPRESS)  # see `gpu_supervisor`
    given = parser.parse_args(arguments)
    chosen = given.parts.split(",") if given.parts else [p.name for p in PARTS if p.in_tiny or not given.tiny]
    if unknown := set(chosen) - set(names):
        parser.error(f"--parts: there is no {', '.join(sorted(unknown))}; choose from {', '.join(names)}")
    if given.minutes <= 0:
        parser.error("--minutes: expected a positive number")
    if not given.tiny and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --tiny tries the script on the CPU")
    started = START if arguments is None else time.monotonic()
    end = started + 60 * given.minutes
    bench = Bench(torch.device("cpu" if given.tiny else "cuda"), given.tiny, end)
    # A call that hangs cannot be interrupted otherwise.
    faulthandler.dump_traceback_later(max(1.0, bench.left), exit=True, file=2)
    try:
        show(f"{machine(bench)}; {given.minutes:g} minutes, of which {bench.left:.0f} s are left")
        measure([part for part in PARTS if part.name in chosen], bench, given.rest)
    finally:
        faulthandler.cancel_dump_traceback_later()


def machine(bench: Bench) -> str:
    """What is measured with what."""
    software = f"torch {torch.__version__}, {os.cpu_count()} CPU cores"
    if bench.device.type != "cuda":
        return software
    memory = torch.cuda.get_device_properties(bench.device).total_memory / 2**30
    return f"{torch.cuda.get_device_name()}, {memory:.0f} GiB, CUDA {torch.version.cuda}, {software}"


def measure(parts: Sequence[Part], bench: Bench, rest: Path | None = None) -> None:
    """Print the tables of the `parts`, as far as the time suffices; the file `rest` has those to come."""
    for number, part in enumerate(parts, start=1):
        if rest:
            names = [later.name for later in parts[number:]]
            rest.write_text(json.dumps({"parts": names, "end": bench.end}), encoding="utf-8")
        if bench.left <= LEAST:
            show(f"\n{part.name}: skipped, the time is used up")
            continue
        before = time.monotonic()
        show(f"\n| {part.name} | {' | '.join(part.columns)} |\n|{'---|' * (1 + len(part.columns))}")
        try:
            unmeasured = _table(part, bench)
        except Exception as error:  # a part that cannot even say what its rows are
            unmeasured = [reason(error)]
        for note in dict.fromkeys(bench.notes):
            show(note)
        bench.notes.clear()
        if unmeasured:
            show(f"not measured: {'; '.join(unmeasured)}")
        show(f"{part.name}: {time.monotonic() - before:.1f} s, {max(0.0, bench.left):.0f} s are left")


def _table(part: Part, bench: Bench) -> list[str]:
    """Print the rows of a `part`; returns the titles of those that the time does not suffice for."""
    late = []
    for title, call in part.rows(bench):
        if bench.left <= LEAST:
            late.append(title)
            continue
        try:
            cells = call()
        except Exception as error:  # the other rows can do without
            cells = [f"failed: {reason(error)}"]
        show(f"| {title} | {' | '.join(cells)} |")
        if bench.device.type == "cuda":
            gc.collect()
            _require_usable(bench)
            torch.cuda.empty_cache()
    return late


def _require_usable(bench: Bench) -> None:
    """End this process if no call reaches the GPU any more; see `gpu_supervisor`."""
    try:
        wait_for(bench.device)
    except RuntimeError as error:
        show(f"this process has lost the GPU: {reason(error)}")
        raise SystemExit(1) from None


def show(line: str) -> None:
    """Print a `line` at once, for readers of a process that may be ended."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
