"""Batches on the GPU one step ahead: the training thread neither pins nor copies, and the GPU does not wait.

A GPU copies from page-locked memory only while it computes, so pixels are copied twice: into such memory by
a thread of the host, and from there to the GPU on a stream of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import torch

from pipelines.loading.batches import Batch

Item = TypeVar("Item")
Staged = TypeVar("Staged")


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The same `batches` with images and target on `device`; on a CPU they stay the views that they are.

    Which dataset an image is of stays on the CPU, where batches are taken apart.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)

    def copy(batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.device(device), torch.cuda.stream(stream):
            images, target = (
                side.pin_memory().to(device, non_blocking=True) for side in (batch.images, batch.target)
            )
            return replace(batch, images=images, target=target), stream.record_event()

    for batch, copied in one_ahead(batches, copy):
        copied.wait(torch.cuda.current_stream(device))
        for side in (batch.images, batch.target):
            side.record_stream(torch.cuda.current_stream(device))  # its memory is another stream's
        yield batch


def one_ahead(items: Iterator[Item], stage: Callable[[Item], Staged]) -> Iterator[Staged]:
    """`stage` applied to `items`, in order, by a thread that is at most one item ahead of the reader.

    Errors of `items` and `stage` are raised in their place. An item is let go as soon as it is staged.
    """

    def advance() -> tuple[Staged] | None:
        for item in items:
            return (stage(item),)
        return None

    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        coming = thread.submit(advance)
        while (found := coming.result()) is not None:
            coming = thread.submit(advance)
            yield found[0]
            del found
