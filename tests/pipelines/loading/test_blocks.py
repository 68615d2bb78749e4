import subprocess
import sys

import numpy as np
import pytest
import torch

from pipelines.loading.blocks import BlockMemory, Memory, own_memory, release, released_with


def test_memory_is_taken_again_when_it_was_released_and_grows_when_it_must():
    made: list[int] = []

    def make(size: int) -> Memory:
        made.append(size)
        return own_memory(size)

    memory = BlockMemory(make)
    first, second = memory.take(8), memory.take(8)
    assert not np.shares_memory(first, second)
    release(second)
    assert np.shares_memory(memory.take(6), second)
    assert len(made) == 2
    release(first)
    assert len(memory.take(900)) >= 900
    assert len(made) == 3


def test_memory_is_released_with_the_last_tensor_over_it():
    memory = BlockMemory(own_memory)
    piece = memory.take(8)
    tensor = torch.from_numpy(released_with(piece, 8))
    views = [tensor[2:4], tensor.view(torch.int16).view(2, 2)[1].numpy()]
    del tensor
    while views:
        assert not np.shares_memory(memory.take(8), piece)
        views.pop()
    assert np.shares_memory(memory.take(8), piece)


@pytest.mark.heavy
def test_what_makes_blocks_starts_without_pytorch():
    modules = "pipelines.loading.on_ray, pipelines.loading.segmentation_crops"
    program = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
