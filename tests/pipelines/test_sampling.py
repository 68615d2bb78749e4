import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sampling import BLOCK, Draws, SamplePlan, augmentation_draws

ROW_GROUPS = [[8] * 100 + [3], [8] * 5, [8] * 30 + [1]]


def flat_rows(row_groups: list[list[int]], draws: Draws, dataset: int) -> np.ndarray:
    """Row numbers over all row groups of the draws of one dataset."""
    chosen = draws.dataset == dataset
    starts = np.concatenate([[0], np.cumsum(row_groups[dataset])[:-1]])
    return starts[draws.row_group[chosen]] + draws.row[chosen]


def test_datasets_are_drawn_alike_whatever_their_size() -> None:
    draws = SamplePlan(ROW_GROUPS, seed=1).draws(0, 3 * BLOCK)
    counts = np.bincount(draws.dataset)
    expected = BLOCK
    deviation = np.sqrt(3 * BLOCK * (1 / 3) * (2 / 3))
    assert (np.abs(counts - expected) < 4 * deviation).all()


def test_the_draws_of_datasets_are_independent_of_each_other() -> None:
    draws = SamplePlan([[8]] * 4, seed=5).draws(0, BLOCK)
    pairs = np.bincount(4 * draws.dataset[:-1] + draws.dataset[1:], minlength=16)
    expected = (BLOCK - 1) / 16
    chi_squared = ((pairs - expected) ** 2 / expected).sum()
    # 15 degrees of freedom: 99.99 % lie below 44.3.
    assert chi_squared < 44.3


def test_weights_are_kept() -> None:
    draws = SamplePlan(ROW_GROUPS, seed=1, weights=[1, 0, 3]).draws(0, 2 * BLOCK)
    share = np.bincount(draws.dataset, minlength=3) / (2 * BLOCK)
    np.testing.assert_allclose(share, [0.25, 0, 0.75], atol=0.01)


def test_every_pass_of_a_dataset_has_each_row_once_in_a_new_order() -> None:
    draws = SamplePlan(ROW_GROUPS, seed=2).draws(0, BLOCK)
    for dataset, groups in enumerate(ROW_GROUPS):
        size = sum(groups)
        rows = flat_rows(ROW_GROUPS, draws, dataset)
        passes = [rows[i : i + size] for i in range(0, len(rows) - size, size)]
        assert len(passes) > 10
        for one in passes:
            assert sorted(one) == list(range(size))
        assert not np.array_equal(passes[0], passes[1])


def test_consecutive_draws_of_a_dataset_share_row_groups() -> None:
    draws = SamplePlan(ROW_GROUPS, seed=2).draws(0, 3000)
    groups = draws.row_group[draws.dataset == 0]
    assert np.count_nonzero(np.diff(groups)) < len(groups) / 7


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    row_groups=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=4),
    start=st.integers(0, 3 * BLOCK),
    length=st.integers(0, 200),
)
def test_any_slice_is_what_the_whole_has_there(
    seed: int, row_groups: list[list[int]], start: int, length: int
) -> None:
    part = SamplePlan(row_groups, seed).draws(start, start + length)
    whole = SamplePlan(row_groups, seed).draws(max(0, start - 1000), start + length + 500)
    first = start - max(0, start - 1000)
    for name in ("dataset", "row_group", "row"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[first : first + length])
    for dataset, row_group, row in zip(part.dataset, part.row_group, part.row, strict=True):
        assert 0 <= row < row_groups[dataset][row_group]


def test_another_seed_is_another_order() -> None:
    one, other = (SamplePlan(ROW_GROUPS, seed).draws(0, 500) for seed in (1, 2))
    assert not np.array_equal(one.dataset, other.dataset)


def test_a_late_start_needs_no_memory_of_what_came_before() -> None:
    plan = SamplePlan(ROW_GROUPS, seed=1)
    tracemalloc.start()
    draws = plan.draws(64_000_000, 64_000_064)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(draws.dataset) == 64
    assert peak < 20 * 2**20


def test_a_dataset_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="dataset 1 has no rows"):
        SamplePlan([[8], []], seed=0)


def test_augmentation_is_uniform_and_the_same_from_any_start() -> None:
    draws = augmentation_draws(7, 0, 100_000)
    assert draws.min() >= 0
    assert draws.max() < 1
    np.testing.assert_allclose(draws.mean(axis=0), 0.5, atol=0.005)
    np.testing.assert_allclose(np.corrcoef(draws.T), np.eye(3), atol=0.02)
    np.testing.assert_array_equal(augmentation_draws(7, 500, 600), draws[500:600])
    assert not np.array_equal(augmentation_draws(8, 0, 10), draws[:10])
