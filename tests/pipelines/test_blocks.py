import torch

from pipelines.blocks import MemoryRing


def test_memory_comes_again_after_a_round_and_grows_when_it_must() -> None:
    made: list[int] = []

    def make(size: int) -> torch.Tensor:
        made.append(size)
        return torch.empty(size, dtype=torch.uint8)

    ring = MemoryRing(2, make)
    first, second, third = ring(8), ring(8), ring(6)
    assert len(third) == 6
    assert third.data_ptr() == first.data_ptr() != second.data_ptr()
    assert len(ring(9)) == 9
    assert made == [8, 8, 9]
