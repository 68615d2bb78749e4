"""Feeding side by side with peers: images a second, first batch, memory. One run, same machine, same images.

    python -m venv PEERS
    python -c "import site; print(site.getsitepackages()[0])" > PEERS/lib/python3.11/site-packages/ours.pth
    PEERS/bin/pip install -r benchmarks/requirements-peers.txt
    python benchmarks/loading.py --peers PEERS/bin/python

The second line, run by this project's Python, makes the peers use its PyTorch instead of a second one. Ten
datasets of rendered scenes at 384 × 512; crops of 384, flip, batches of 16; uint8 images and float16 depth.
Contestants run one after the other in their own processes; the table has the median of the rounds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from loading_data import make_shards

HERE = Path(__file__).parent
OURS = ("limit", "local", "ray")
PEERS = ("litdata", "webdataset", "mosaicml", "dataloader", "files", "huggingface", "spdl", "grain")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peers", type=Path, help="Python of the peers' environment; by default only our loaders run"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("benchmark-data"), help="folder of the data; created once"
    )
    parser.add_argument("--rows", type=int, default=64, help="samples per dataset")
    parser.add_argument("--samples", type=int, default=8000, help="samples timed per round")
    parser.add_argument("--warmup", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument(
        "--memory-samples", type=int, default=20_000, help="samples of the memory test; 0 skips it"
    )
    arguments = parser.parse_args()
    shards = make_shards(arguments.data.absolute(), arguments.rows)
    bench = Bench(arguments, shards)
    bench.rates()
    if arguments.memory_samples:
        bench.memory()


class Bench:
    """State shared by all measurements."""

    def __init__(self, arguments: argparse.Namespace, shards: Path) -> None:
        self.arguments, self.shards = arguments, shards

    def rates(self) -> None:
        """Print the table of all contestants."""
        names = [*OURS, *(PEERS if self.arguments.peers else ())]
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for _ in range(self.arguments.rounds):
            for name in names:
                results[name].append(self.run(name, self.arguments.samples))
        limit = statistics.median(one["rate"] for one in results["limit"])
        print(f"{self.arguments.processes} processes, median of {self.arguments.rounds} rounds")
        print(f"{'':14} {'images/s':>9} {'of the limit':>13} {'first batch':>12}   processor ms an image")
        print(f"{'':14} {'':9} {'':13} {'':12} {'consumer':>11} {'the others':>11}")
        for name in names:
            rate, first, here, below = (
                statistics.median(one[what] for one in results[name])
                for what in ("rate", "first", "here", "below")
            )
            line = f"{name:14} {rate:9.0f} {rate / limit:13.2f} {first:11.1f}s {here:11.2f} {below:11.2f}"
            print(line, flush=True)

    def memory(self) -> None:
        """Print how the memory of our executors develops over many samples."""
        samples = self.arguments.memory_samples
        for name in ("local", "ray"):
            held = self.run(name, samples, "--memory")["memory"]
            ends = [len(held) * fifth // 5 for fifth in range(6)]
            parts = [statistics.mean(held[a:b]) / 2**20 for a, b in itertools.pairwise(ends)]
            line = ", ".join(f"{part:.0f}" for part in parts)
            spread = max(parts) / min(parts) - 1
            print(f"{name}: MiB in each fifth of {samples} samples: {line} (spread {spread:.0%})", flush=True)

    def run(self, name: str, samples: int, *flags: str) -> dict[str, Any]:
        """Run one contestant; returns what it reports."""
        python = sys.executable if name in OURS else str(self.arguments.peers)
        script = HERE / ("loading_ours.py" if name in OURS else "loading_peers.py")
        command = [python, script, name, self.shards, "--samples", samples, *flags]
        command += ["--warmup", self.arguments.warmup, "--processes", self.arguments.processes]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
        finished = subprocess.run(
            list(map(str, command)), env=environment, capture_output=True, text=True, check=False
        )
        if finished.returncode:
            raise SystemExit(f"{name} failed:\n{finished.stderr[-2000:]}")
        # Ray may print lines before or after it.
        (found,) = (line for line in finished.stdout.splitlines() if line.startswith('{"first"'))
        result: dict[str, Any] = json.loads(found)
        return result


if __name__ == "__main__":
    main()
