from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from pipelines.training.ranks import Ranks


def of_all(ranks: Ranks) -> tuple[list[float], list[float], list[str], str, list[float]]:
    values = torch.tensor([1.0, 10.0]) * (ranks.rank + 1)
    name = f"rank {ranks.rank}"
    sums, most = ranks.sum(values).tolist(), ranks.max(values).tolist()
    return sums, most, ranks.gather(name), ranks.broadcast(name), values.tolist()


def test_a_single_rank_needs_no_group():
    assert of_all(Ranks()) == ([1.0, 10.0], [1.0, 10.0], ["rank 0"], "rank 0", [1.0, 10.0])


def _rank(rank: int, rendezvous: str, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    torch.save(of_all(Ranks(rank, 2)), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_agree_and_keep_their_own_values(tmp_path):
    mp.spawn(_rank, args=(f"file://{tmp_path}/rendezvous", tmp_path), nprocs=2)
    for rank in range(2):
        sums, most, names, first, own = torch.load(tmp_path / f"{rank}.pt")
        assert (sums, most) == ([3.0, 30.0], [2.0, 20.0])
        assert (names, first) == (["rank 0", "rank 1"], "rank 0")
        assert own == [1.0 * (rank + 1), 10.0 * (rank + 1)]
