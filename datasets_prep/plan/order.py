"""Order of the samples in shards, and held-out groups: decided by a seed and names alone."""

import hashlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datasets_prep.errors import UserError
from datasets_prep.storage.listing import strings


def shuffled_order(sample_ids: pa.ChunkedArray, seed: int) -> NDArray[np.intp]:
    """Positions of the samples in a pseudo-random order.

    Samples are sorted by a hash of `seed` and id (`sample_ids`), so adding one never changes the order of the
    others. Raises UserError if an id occurs twice: equal hashes are neighbours after sorting.
    """
    ranks = _ranks(strings(sample_ids), seed)
    order = np.argsort(ranks, kind="stable")
    doubled = np.flatnonzero(ranks[order[1:]] == ranks[order[:-1]])
    if doubled.size:
        first = sample_ids[int(order[: len(order) - 1][doubled].min())].as_py()
        times = pc.sum(pc.equal(sample_ids, first)).as_py()
        ids = len(np.unique(ranks[order[1:]][doubled]))
        found = f"sample {first!r} is found {times} times ({ids} such ids)"
        raise UserError(f"{found}: is the dataset unpacked twice below one folder?")
    return order


def order_of_groups(groups: Iterable[str], seed: int) -> NDArray[np.intp]:
    """Positions of samples: their `groups` in a pseudo-random order by `seed`, each of them in one piece."""
    return np.argsort(_ranks(groups, seed), kind="stable")


def with_held_out(
    splits: pa.ChunkedArray, groups: pa.ChunkedArray, share: float, seed: int
) -> NDArray[np.str_]:
    """The split of each sample: official where there is any; else whole groups are held out for validation.

    Groups without an official split are sorted by a hash of `seed` and name; the first of them become `val`.

    Args:
        splits: `train`, `val`, `test`, or null where there is no official split.
        groups: group of each sample.
        share: share of these groups that become `val`; at least one, if there are two.
        seed: other seeds, other groups.
    """
    free = pc.is_null(splits)
    names = pc.unique(groups.filter(free))
    order = np.argsort(_ranks(names.to_pylist(), seed), kind="stable")
    count = max(round(len(names) * share), int(share > 0 and len(names) > 1))
    held_out = pc.is_in(groups, value_set=names.take(pa.array(order[:count])))
    drawn = pc.if_else(held_out, "val", "train")
    chosen = pc.dictionary_encode(pc.coalesce(splits, drawn)).combine_chunks()
    result: NDArray[np.str_] = np.array(chosen.dictionary.to_pylist(), np.str_)[chosen.indices.to_numpy()]
    return result


def _ranks(texts: Iterable[str], seed: int) -> NDArray[np.bytes_]:
    """Pseudo-random ranks; no library's generator, so that they never change with its version."""
    prefix = f"{seed}:"
    digests = (hashlib.blake2b(f"{prefix}{text}".encode(), digest_size=16).digest() for text in texts)
    return np.frombuffer(b"".join(digests), "S16")
