import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sampling.mixture import BLOCK, DEALT_STEPS
from pipelines.sampling.plan import Draws, SamplePlan, Sampling, Stage

ROW_GROUPS = [[8] * 100 + [3], [8] * 5, [8] * 30 + [1]]
SAMPLINGS: list[Sampling] = ["multinomial", "stratified"]


def drawn(
    row_groups: list[list[int]], start: int, stop: int, seed: int = 1, sampling: Sampling = "multinomial"
) -> Draws:
    """Samples of a run of one stage, in batches of 16."""
    return SamplePlan(row_groups, [Stage(1, None, sampling)], 16, seed).draws(np.arange(start, stop))


def flat_rows(row_groups: list[list[int]], draws: Draws, dataset: int) -> np.ndarray:
    """Row numbers over all row groups of the draws of one dataset."""
    chosen = draws.dataset == dataset
    starts = np.concatenate([[0], np.cumsum(row_groups[dataset])[:-1]])
    return starts[draws.row_group[chosen]] + draws.row[chosen]


def number_order(draws: Draws, dataset: int) -> np.ndarray:
    """Order of the draws of one dataset by their numbers, from whole groups of steps of 16 samples."""
    places = np.arange(len(draws.dataset)).reshape(-1, DEALT_STEPS, 16).swapaxes(1, 2).ravel()
    return np.argsort(np.argsort(places)[draws.dataset == dataset])


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_every_pass_of_a_dataset_has_each_row_once_in_a_new_order(sampling):
    draws = drawn(ROW_GROUPS, 0, BLOCK, 2, sampling)
    for dataset, groups in enumerate(ROW_GROUPS):
        size = sum(groups)
        rows = flat_rows(ROW_GROUPS, draws, dataset)[number_order(draws, dataset)]
        passes = [rows[i : i + size] for i in range(0, len(rows) - size, size)]
        assert len(passes) > 10
        for one in passes:
            assert sorted(one) == list(range(size))
        assert not np.array_equal(passes[0], passes[1])


@pytest.mark.parametrize("ranks", [1, 2, 8, 64])
def test_the_draws_of_a_rank_share_row_groups(ranks):
    batch, groups = 16 * ranks, [[8] * 4000]
    plan = SamplePlan(groups, [Stage(1)], batch, seed=2)
    positions = np.arange(8 * batch).reshape(8, batch)
    for rank in range(min(ranks, 4)):
        draws = plan.draws(positions[:, 16 * rank : 16 * rank + 16].ravel())
        # Its 128 samples would lie in 16 row groups at best; two times four steps begin and end inside some.
        assert len(np.unique(draws.row_group)) <= 20


@pytest.mark.heavy
@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    row_groups=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=4),
    start=st.integers(0, 3 * BLOCK),
    length=st.integers(0, 200),
    sampling=st.sampled_from(SAMPLINGS),
)
def test_any_slice_is_what_the_whole_has_there(seed, row_groups, start, length, sampling):
    part = drawn(row_groups, start, start + length, seed, sampling)
    first = max(0, start - 1000)
    whole = drawn(row_groups, first, start + length + 500, seed, sampling)
    inside = slice(start - first, start - first + length)
    for name in ("dataset", "row_group", "row"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[inside])
    for dataset, row_group, row in zip(part.dataset, part.row_group, part.row, strict=True):
        assert 0 <= row < row_groups[dataset][row_group]


@pytest.mark.heavy
def test_the_slices_of_all_ranks_are_the_whole():
    positions = np.arange(5 * BLOCK).reshape(-1, 16)
    plan = SamplePlan(ROW_GROUPS, [Stage(1)], 16, seed=9)
    whole = plan.draws(positions.ravel()).row.reshape(-1, 16)
    for ranks in (slice(0, 5), slice(5, 10), slice(10, 16)):
        share = plan.draws(positions[:, ranks].ravel()).row
        np.testing.assert_array_equal(share, whole[:, ranks].ravel())


def test_another_seed_is_another_order():
    one, other = (drawn(ROW_GROUPS, 0, 500, seed) for seed in (1, 2))
    assert not np.array_equal(one.dataset, other.dataset)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_late_start_needs_no_memory_of_what_came_before(sampling):
    plan = SamplePlan(ROW_GROUPS, [Stage(1, None, sampling)], 16, seed=1)
    tracemalloc.start()
    draws = plan.draws(np.arange(64_000_000, 64_000_064))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(draws.dataset) == 64
    assert peak < 20 * 2**20


def test_a_dataset_without_rows_is_refused():
    with pytest.raises(ValueError, match="dataset 1 has no rows"):
        SamplePlan([[8], []], [Stage(1)], 16, seed=0)
    SamplePlan([[8], []], [Stage(1, [1.0, 0.0])], 16, seed=0)


# ---- stages

CURATED_THEN_ALL = [Stage(100, [1, 0, 1], "stratified"), Stage(50)]


def test_each_stage_draws_its_own_datasets():
    draws = SamplePlan(ROW_GROUPS, CURATED_THEN_ALL, 16, seed=4).draws(np.arange(150 * 16))
    np.testing.assert_array_equal(np.bincount(draws.dataset[:1600], minlength=3), [800, 0, 800])
    assert (np.bincount(draws.dataset[1600:], minlength=3) > 100).all()


def test_a_later_stage_starts_anywhere_as_it_is_in_the_whole():
    whole = SamplePlan(ROW_GROUPS, CURATED_THEN_ALL, 16, seed=4).draws(np.arange(150 * 16))
    for start in (1590, 1600, 1601, 2000):
        part = SamplePlan(ROW_GROUPS, CURATED_THEN_ALL, 16, seed=4).draws(np.arange(start, 150 * 16))
        for name in ("dataset", "row_group", "row"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[start:])


def test_two_like_stages_are_not_the_same_samples():
    draws = SamplePlan(ROW_GROUPS, [Stage(100), Stage(100)], 16, seed=4).draws(np.arange(200 * 16))
    assert not np.array_equal(draws.dataset[:1600], draws.dataset[1600:])
