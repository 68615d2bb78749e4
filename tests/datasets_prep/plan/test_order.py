import numpy as np
import pyarrow as pa
import pytest

from datasets_prep.errors import UserError
from datasets_prep.plan.order import shuffled_order, with_held_out


def names(count: int) -> list[str]:
    return [f"scene{i // 10}/{i}" for i in range(count)]


def test_the_order_is_a_permutation_that_the_seed_decides():
    ids = pa.chunked_array([names(100)])
    order = shuffled_order(ids, 0)
    assert sorted(order) == list(range(100))
    assert order.tolist() == shuffled_order(ids, 0).tolist()
    assert order.tolist() != shuffled_order(ids, 1).tolist()
    assert order.tolist() != list(range(100))


def test_samples_keep_their_order_whatever_else_is_there():
    few = [name for name in names(100) if name.endswith("3")]
    among_all = [n for i in shuffled_order(pa.chunked_array([names(100)]), 0) if (n := names(100)[i]) in few]
    alone = [few[i] for i in shuffled_order(pa.chunked_array([few]), 0)]
    assert among_all == alone


def test_an_id_that_is_there_twice_is_named():
    with pytest.raises(UserError, match=r"sample 'scene0/3' is found 3 times \(1 such ids\)"):
        shuffled_order(pa.chunked_array([[*names(10), "scene0/3", "scene0/3"]]), 0)


@pytest.mark.parametrize(("share", "held_out"), [(0.0, 0), (0.01, 1), (0.25, 2), (0.5, 5)])
def test_whole_groups_are_held_out(share, held_out):
    groups = [name.split("/")[0] for name in names(100)]
    splits = with_held_out(
        pa.chunked_array([[None] * 100], pa.string()), pa.chunked_array([groups]), share, 0
    )
    of_group = {group: set(splits[np.array(groups) == group].tolist()) for group in set(groups)}
    assert all(len(found) == 1 for found in of_group.values())
    assert sum(found == {"val"} for found in of_group.values()) == held_out


def test_official_splits_are_kept_and_their_groups_not_counted():
    official = pa.chunked_array([["test", "val", None, None, None]], pa.string())
    splits = with_held_out(official, pa.chunked_array([["a", "b", "c", "d", "d"]]), 0.5, 0)
    assert splits[:2].tolist() == ["test", "val"]
    assert sorted(set(splits[2:].tolist())) == ["train", "val"]
    assert splits[3] == splits[4]


def test_a_lone_group_is_not_held_out():
    splits = with_held_out(pa.chunked_array([[None]], pa.string()), pa.chunked_array([["a"]]), 0.05, 0)
    assert splits.tolist() == ["train"]
