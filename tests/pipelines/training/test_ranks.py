from typing import Any

import pytest
import torch

from pipelines.training.ranks import Ranks
from tests.support.two_ranks import run_in_two_ranks


def of_all(ranks: Ranks) -> tuple[list[float], list[float], list[str], str, list[float]]:
    values = torch.tensor([1.0, 10.0]) * (ranks.rank + 1)
    name = f"rank {ranks.rank}"
    sums, most = ranks.sum(values).tolist(), ranks.max(values).tolist()
    return sums, most, ranks.gather(name), ranks.broadcast(name), values.tolist()


def test_a_single_rank_needs_no_group():
    assert of_all(Ranks()) == ([1.0, 10.0], [1.0, 10.0], ["rank 0"], "rank 0", [1.0, 10.0])


def rank_of_two(rank: int) -> Any:
    return of_all(Ranks(rank, 2))


@pytest.mark.heavy
def test_two_ranks_agree_and_keep_their_own_values(tmp_path):
    for rank, (sums, most, names, first, own) in enumerate(run_in_two_ranks(rank_of_two, tmp_path)):
        assert (sums, most) == ([3.0, 30.0], [2.0, 20.0])
        assert (names, first) == (["rank 0", "rank 1"], "rank 0")
        assert own == [1.0 * (rank + 1), 10.0 * (rank + 1)]
