"""Training steps as `pipelines.training.step` runs them: images a second, use of the GPU, parts of a step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import repeat
from typing import Any

import torch
from gpu_bench import Bench, reason
from gpu_kernels import kernels_of
from torch import nn

from dpt.predict.transforms import normalise
from pipelines.config import TrainConfig
from pipelines.config_files import with_changes
from pipelines.loading.batches import Batch
from pipelines.loading.on_device import on_device
from pipelines.tasks.registry import task_of
from pipelines.training.optimizer import create_optimizer
from pipelines.training.ranks import Ranks
from pipelines.training.report import wait_for
from pipelines.training.step import TrainingStep

Row = tuple[str, Callable[[], list[str]]]
"""A row of a table: its title, and what measures its other cells."""

DATASETS = [f"set{number}" for number in range(10)]
"""As many as in MIX 6 (section 4.1)."""

AVERAGE, MULTI = "average", "multi_objective"
REGIONS = "regions"
"""Averaged steps, compiled by regions."""
VARIANTS: dict[str, dict[str, Any]] = {
    AVERAGE: {"optimizer.objective": AVERAGE},
    MULTI: {"optimizer.objective": MULTI},
    "average, upsampling in bfloat16": {"optimizer.objective": AVERAGE, "upsampling": "bfloat16"},
    "average, channels last": {"optimizer.objective": AVERAGE, "channels_last": True},
    "multi_objective, two passes": {"optimizer.objective": MULTI, "optimizer.two_passes": True},
}
"""What is measured → its settings."""

STEP = ("ms", "images/s", "TFLOP/s", "of the matrix rate", "GPU busy", "of the time", "kernels", "memory")
SECTIONS = ("to device", "normalise", "forward", "loss", "backward", "clip", "Adam", "together")


def main_steps(bench: Bench) -> Iterator[Row]:
    """Steps of DPT-Large."""
    yield from _steps(bench, bench.chosen("dpt_large"), (16, 64))


def other_steps(bench: Bench) -> Iterator[Row]:
    """Steps of other models; ResNet-50 couples the images of a batch, so it runs dataset by dataset."""
    yield from _steps(bench, bench.chosen("dpt_hybrid", "dpt_base", "dpt_resnet50"), (16, 64))


def _steps(bench: Bench, names: tuple[str, ...], batches: tuple[int, ...]) -> Iterator[Row]:
    for name in names:
        for count in (4,) if bench.tiny else batches:
            for variant in VARIANTS if name == names[0] else (AVERAGE, MULTI):
                yield (
                    f"{name}, {variant}, batch {count}",
                    lambda name=name, variant=variant, count=count: step_cells(bench, name, variant, count),
                )


def step_cells(bench: Bench, name: str, variant: str, count: int) -> list[str]:
    """Cells of the columns `STEP` for a step of model `name` on `count` images."""
    call = training_step(bench, name, variant, count)
    on_gpu = bench.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = bench.seconds(call)
    memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if on_gpu else "-"
    rate = bench.operations(name) * count / seconds
    speed = [
        f"{1000 * seconds:.1f}",
        f"{count / seconds:.1f}",
        f"{rate / 1e12:.2f}",
        f"{rate / bench.peak:.1%}",
    ]
    return [*speed, *busy_cells(bench, call, seconds), memory]


def busy_cells(bench: Bench, call: Callable[[], object], seconds: float) -> list[str]:
    """Milliseconds in which the GPU is busy, their share of a call's `seconds`, and the number of kernels."""
    if bench.device.type != "cuda":
        return ["-"] * 3
    try:
        found = kernels_of(call)
    except Exception as error:  # the times of the row hold without it
        bench.notes.append(f"GPU busy: {reason(error)}")
        return ["-"] * 3
    return [f"{1000 * found.busy:.1f} ms", f"{found.busy / seconds:.0%}", f"{found.count:,}"]


def training_step(
    bench: Bench, name: str, variant: str, count: int, compiler: str | None = None, regions: bool = False
) -> Callable[[], None]:
    """A step that can be called again and again, on one batch.

    It is compiled by a backend of `torch.compile`, if one is given, as a whole or by `regions`.
    """
    config, batch = config_of(bench, name, variant, count), batch_of(bench, count)
    model = bench.model(name).train()
    model.set_upsampling(as_given=config.upsampling == "bfloat16")
    if config.channels_last:
        model.to(memory_format=torch.channels_last)
    if compiler:
        model.compile_regions(backend=compiler) if regions else model.compile(backend=compiler)
    step = TrainingStep(model, model, create_optimizer(model, config), None, config, DATASETS, Ranks())
    batches = on_device(repeat(batch), bench.device)

    def call() -> None:
        if step(next(batches), 1).skipped:
            bench.notes.append(f"{name}, {variant}: a step was skipped, its loss or gradient out of bounds")

    return call


def config_of(bench: Bench, name: str, variant: str, count: int) -> TrainConfig:
    """The paper's config, apart from what is measured; float32 on CPUs, many of which lack bfloat16."""
    changes: dict[str, Any] = {"model.name": name, "model.pretrained": False, "batch_size": count}
    changes |= {"crop": bench.crop, "precision": bench.precision, **VARIANTS[variant]}
    # Steps on one batch over and over must not train the model to where numbers overflow.
    changes |= {"optimizer.backbone_lr": 1e-9, "optimizer.decoder_lr": 1e-9}
    return with_changes(TrainConfig(), changes)


def batch_of(bench: Bench, count: int) -> Batch:
    """Random images and ground truth as the loader hands them over, not pinned, a tenth of it invalid."""
    random, side = torch.Generator().manual_seed(0), bench.crop
    images = torch.randint(256, (count, side, side, 3), dtype=torch.uint8, generator=random)
    target = torch.rand(count, side, side, generator=random)
    target = torch.where(target < 0.1, torch.nan, target).half()
    dataset = torch.randint(len(DATASETS), (count,), generator=random)
    scale, box = torch.ones(count, dtype=torch.float64), torch.zeros(count, 4, dtype=torch.int64)
    return Batch(images, target, scale, dataset, box, [str(n) for n in range(count)])


def sections(bench: Bench) -> Iterator[Row]:
    """Where the time of an averaged step goes."""
    for name in bench.chosen("dpt_large", "dpt_hybrid"):
        count = 4 if bench.tiny else 16
        yield f"{name}, batch {count}", lambda name=name, count=count: section_cells(bench, name, count)


def section_cells(bench: Bench, name: str, count: int) -> list[str]:
    """Milliseconds of the `SECTIONS`, each waited for, so that together they take longer than a step."""
    config, batch = config_of(bench, name, AVERAGE, count), batch_of(bench, count)
    model, task, device = bench.model(name).train(), task_of(config), bench.device
    optimizer = create_optimizer(model, config)
    totals = [0.0] * (len(SECTIONS) - 1)
    repeats = 1 if bench.tiny else 5
    for turn in range(2 + repeats):
        clock = _Clock(device)
        images, target = (side.to(device, non_blocking=True) for side in (batch.images, batch.target))
        clock.lap()
        pixels = normalise(images, model.mean, model.std)
        clock.lap()
        with torch.autocast(device.type, torch.bfloat16, bench.precision == "bfloat16"):
            output = model(pixels)
        clock.lap()
        loss = task.losses(output, replace(batch, images=images, target=target)).mean()
        clock.lap()
        loss.backward()
        clock.lap()
        nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
        clock.lap()
        optimizer.step()
        clock.lap()
        optimizer.zero_grad(set_to_none=True)
        if turn >= 2:
            totals = [total + lap for total, lap in zip(totals, clock.laps, strict=True)]
    return [f"{1000 * total / repeats:.2f}" for total in (*totals, sum(totals))]


class _Clock:
    """Seconds of consecutive sections of work on a `device`."""

    def __init__(self, device: torch.device) -> None:
        self._device, self.laps = device, list[float]()
        wait_for(device)
        self._start = time.perf_counter()

    def lap(self) -> None:
        """End a section, and start the next."""
        wait_for(self._device)
        now = time.perf_counter()
        self.laps.append(now - self._start)
        self._start = now
