"""Speed and memory of DPT side by side with `transformers`' port: same weights, threads and dtype, one run.

    python benchmarks/model.py                         # CPU, float32: forward and training step
    python benchmarks/model.py --dtype bfloat16
    python benchmarks/model.py --device cuda --dtype bfloat16  # also Table 9's models, compiled

Calls of the two implementations alternate, so that a busy machine slows both. The table shows the fastest and
the median call, and the median processor time, which other programs disturb less. Peak memory is what a call
allocates beyond what the process held before it; on the CPU it is measured last, in a process where glibc
returns freed memory, as otherwise holes in the heap count against whichever is measured second. Shares are of
the matrix rate measured in the same run: the best of three sizes of A @ B.
"""

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import dpt
from dpt.dataset_gradients import DatasetGradients
from dpt.losses import ScaleShiftInvariantLoss
from dpt.multi_objective import combine_gradients
from dpt.weights.files import from_tensors

THEIRS: dict[str, dict[str, Any]] = {
    "dpt_base": {},
    "dpt_large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "backbone_out_indices": [5, 11, 17, 23],
        "neck_hidden_sizes": [256, 512, 1024, 1024],
    },
    "dpt_hybrid": {"is_hybrid": True, "neck_hidden_sizes": [256, 512, 768, 768]},
}
TABLE_9 = ("midas_v21", "dpt_base", "dpt_hybrid", "dpt_large")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["dpt_large", "dpt_hybrid"], choices=THEIRS)
    parser.add_argument("--size", type=int, default=384, help="height and width of the images")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--skip-training", action="store_true")
    parser.add_argument("--memory", action="store_true", help="measure peak memory alone")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bench = Bench(arguments)
    if not bench.memory:
        bench.header()
    for name in arguments.models:
        bench.side_by_side(name)
    bench.multi_objective()
    if bench.device.type == "cuda":
        bench.table_9()
    elif not bench.memory:
        again = [sys.executable, *sys.argv, "--memory"]
        subprocess.run(again, env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**18)}, check=True)


@dataclass(frozen=True)
class Times:
    """Seconds of repeated calls: wall clock, and processor time over all cores."""

    wall: list[float]
    processor: list[float]

    def summary(self) -> tuple[float, float, float]:
        """Fastest and median, and median processor time."""
        return min(self.wall), statistics.median(self.wall), statistics.median(self.processor)


class Bench:
    """State shared by all measurements."""

    def __init__(self, arguments: argparse.Namespace):
        self.device = torch.device(arguments.device)
        self.dtype = getattr(torch, arguments.dtype)
        self.repeats = arguments.repeats
        self.training = not arguments.skip_training
        self.images = torch.randn(arguments.batch, 3, arguments.size, arguments.size, device=self.device)
        self.memory = arguments.memory
        self.peak = float("nan") if self.memory else self.matrix_rate()

    def header(self) -> None:
        """Print what is measured and where."""
        where = (
            torch.cuda.get_device_name()
            if self.device.type == "cuda"
            else f"{torch.get_num_threads()} threads"
        )
        shape = " by ".join(map(str, self.images.shape))
        print(f"torch {torch.__version__}, {where}, {self.dtype}, images {shape}")
        print(f"matrix rate {self.peak / 1e9:,.0f} GFLOP/s\n")

    def matrix_rate(self) -> float:
        """FLOP/s of the best of three square matrix products in the dtype under test."""
        rates = []
        for side in (1024, 2048, 4096):
            a, b = (torch.randn(side, side, device=self.device, dtype=self.dtype) for _ in range(2))
            times = self.times({"product": lambda: a @ b})["product"]  # noqa: B023
            rates.append(2 * side**3 / min(times.wall))
        return max(rates)

    def times(self, calls: Mapping[str, Callable[[], object]]) -> dict[str, "Times"]:
        """Times of alternating calls, after a warm-up of each."""
        times = {name: Times([], []) for name in calls}
        for turn in range(self.repeats + 1):
            for name, call in calls.items():
                self.wait()
                wall, processor = time.perf_counter(), time.process_time()
                call()
                self.wait()
                if turn:
                    times[name].wall.append(time.perf_counter() - wall)
                    times[name].processor.append(time.process_time() - processor)
        return times

    def wait(self) -> None:
        """Wait for the device to finish."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def cast(self) -> torch.autocast:
        """Autocast to the dtype under test."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def side_by_side(self, name: str) -> None:
        """One model in both implementations: forward, its parts, and a training step."""
        from transformers import DPTConfig, DPTForDepthEstimation

        theirs = DPTForDepthEstimation(DPTConfig(**THEIRS[name], image_size=self.images.shape[-1])).eval()
        state = {key: tensor.clone() for key, tensor in theirs.state_dict().items()}
        ours = from_tensors(state, "model.safetensors").to(self.device)
        theirs = theirs.to(self.device)
        models: dict[str, Callable[[Tensor], Tensor]] = {
            "ours": ours,
            "transformers": lambda images: theirs(images).predicted_depth,
        }

        def forward(model: Callable[[Tensor], Tensor]) -> Callable[[], object]:
            def call() -> None:
                with torch.no_grad(), self.cast():
                    model(self.images)

            return call

        self.report(f"{name} forward", {key: forward(model) for key, model in models.items()})
        if not self.memory:
            self.parts(ours)
        if self.training:
            steps = {
                "ours": self.step(ours, models["ours"]),
                "transformers": self.step(theirs, models["transformers"]),
            }
            self.report(f"{name} training step", steps)

    def step(self, module: nn.Module, model: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        """Forward, loss and backward; the optimiser is the same for both and left out."""
        loss = ScaleShiftInvariantLoss()
        target = torch.rand(self.images.shape[0], *self.images.shape[2:], device=self.device)
        valid = torch.ones_like(target, dtype=torch.bool)

        def call() -> None:
            with self.cast():
                prediction = model(self.images)
            loss(prediction.float(), target, valid).mean().backward()
            module.zero_grad(set_to_none=True)

        return call

    def report(self, title: str, calls: Mapping[str, Callable[[], object]]) -> None:
        """Print times or peak memory, on GPUs both, and the ratios of the first call to the second."""
        rows: dict[str, list[float]] = {name: [] for name in calls}
        seconds = [] if self.memory else ["fastest", "median", "processor"]
        memory = ["peak memory"] if self.memory or self.device.type == "cuda" else []
        if seconds:
            for name, times in self.times(calls).items():
                rows[name] += times.summary()
        if memory:
            for name, call in calls.items():
                rows[name].append(self.peak_memory(call))
        print(f"{title:28} " + " ".join(f"{head:>11}" for head in seconds + memory))
        for name, values in rows.items():
            shown = [f"{value:10.3f}s" for value in values[: len(seconds)]]
            shown += [f"{value / 2**20:7,.0f} MiB" for value in values[len(seconds) :]]
            print(f"  {name:26} " + " ".join(shown))
        first, second = rows.values()
        ratios = [one / other if other else float("nan") for one, other in zip(first, second, strict=True)]
        print(f"  {'ratio':26} " + " ".join(f"{ratio:11.3f}" for ratio in ratios) + "\n", flush=True)

    def peak_memory(self, call: Callable[[], object]) -> float:
        """Bytes that a call allocates at its peak beyond what was held before it."""
        call()  # warm-up: caches stay
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated()
            call()
            return torch.cuda.max_memory_allocated() - held
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the highest resident size so far
        before = resident("VmRSS")
        call()
        return resident("VmHWM") - before

    def parts(self, model: dpt.DPT) -> None:
        """Time, arithmetic and share of the matrix rate of each part of the forward pass."""
        with torch.no_grad(), self.cast():
            taps = model.backbone(self.images)
            maps = model.reassemble(taps)
            features, _ = model.fusion(maps)
            size = tuple(self.images.shape[-2:])
            calls: dict[str, Callable[[], object]] = {
                "backbone": lambda: model.backbone(self.images),
                "reassemble": lambda: model.reassemble(taps),
                "fusion": lambda: model.fusion(maps),
                "head": lambda: model.head(features, size),
            }
            times = self.times(calls)
            for part, call in calls.items():
                with FlopCounterMode(display=False) as counter:
                    call()
                fastest, operations = min(times[part].wall), counter.get_total_flops()
                share = operations / fastest / self.peak
                giga = operations / 1e9
                print(f"    {part:12} {fastest:7.3f}s {giga:8.1f} GFLOP {share:6.0%} of the matrix rate")
        print()

    def multi_objective(self) -> None:
        """Gradients with MGDA over eight datasets against plain averaging, on the same batch of 16 images."""
        images = [1, 2, 3, 1, 2, 2, 3, 2]
        model, loss, size = dpt.create_model("dpt_base").to(self.device), ScaleShiftInvariantLoss(), 256
        batch = torch.randn(sum(images), 3, size, size, device=self.device, requires_grad=True)
        target = torch.rand(sum(images), size, size, device=self.device)
        valid = torch.ones_like(target, dtype=torch.bool)

        def losses() -> Tensor:
            with self.cast():
                prediction = model(batch)
            return loss(prediction, target, valid)

        def plain() -> None:
            model.zero_grad(set_to_none=True)
            losses().mean().backward()

        def multi() -> None:
            with (apart := DatasetGradients(images, batch.device)):
                found = losses()
            combine_gradients(apart.of_sums(found), images, list(model.parameters()))

        self.report("gradients of 8 datasets", {"MGDA": multi, "average": plain})

    def table_9(self) -> None:
        """Latency at batch 1 and throughput at the best batch of compiled bfloat16 models."""
        heads = ("ms at batch 1", "images/s", "at batch", "of matrix rate")
        print(f"{'compiled, bfloat16':18} " + " ".join(f"{head:>15}" for head in heads))
        for name in TABLE_9:
            model = dpt.create_model(name).to(self.device).to(memory_format=torch.channels_last).eval()
            compiled = torch.compile(model, fullgraph=True, mode="max-autotune-no-cudagraphs")
            one = self.images[:1].to(memory_format=torch.channels_last)
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                model(one)
            operations = counter.get_total_flops()
            rates = self.throughput(compiled, one)
            best = max(rates, key=lambda batch: rates[batch])
            share = rates[best] * operations / self.peak
            print(
                f"{name:18} {1000 / rates[1]:15.2f} {rates[best]:15.0f} {best:15} {share:15.0%}", flush=True
            )
            del model, compiled
            torch.compiler.reset()
            gc.collect()

    @torch.no_grad()
    def throughput(self, model: Callable[[Tensor], Tensor], image: Tensor) -> dict[int, float]:
        """Images a second at several batch sizes."""
        rates = {}
        for batch in (1, 8, 16, 32, 64, 128):
            images = image.expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)

            def call(images: Tensor = images) -> None:
                with torch.autocast("cuda", torch.bfloat16):
                    model(images)

            rates[batch] = batch / statistics.median(self.times({"call": call})["call"].wall)
        return rates


def resident(kind: str) -> float:
    """Resident bytes of this process, now (VmRSS) or at the highest (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind):
            return 1024 * float(line.split()[1])
    raise RuntimeError(f"no {kind} in /proc/self/status")


if __name__ == "__main__":
    main()
