import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sampling.mixture import BLOCK, DEALT_STEPS, Multinomial, Stratified, reversed_bits


def test_datasets_are_drawn_alike():
    datasets, _ = Multinomial([1, 1, 1], seed=1, batch_size=16).draws(np.arange(3 * BLOCK))
    counts = np.bincount(datasets)
    chi_squared = ((counts - BLOCK) ** 2 / BLOCK).sum()
    # 2 degrees of freedom: 99.99 % lie below 18.4.
    assert chi_squared < 18.4


def test_draws_are_independent_of_each_other():
    datasets, _ = Multinomial([1] * 4, seed=5, batch_size=16).draws(np.arange(BLOCK))
    pairs = np.bincount(4 * datasets[:-1] + datasets[1:], minlength=16)
    expected = (BLOCK - 1) / 16
    chi_squared = ((pairs - expected) ** 2 / expected).sum()
    # 15 degrees of freedom: 99.99 % lie below 44.3.
    assert chi_squared < 44.3


@pytest.mark.parametrize("kind", [Multinomial, Stratified])
def test_shares_are_kept(kind):
    datasets, _ = kind([1, 0, 3], 1, 16).draws(np.arange(2 * BLOCK))
    share = np.bincount(datasets, minlength=3) / (2 * BLOCK)
    np.testing.assert_allclose(share, [0.25, 0, 0.75], atol=0.01)
    assert share[1] == 0


@pytest.mark.parametrize("kind", [Multinomial, Stratified])
@pytest.mark.parametrize("batch", [1, 16, 100, 40_000])
def test_each_dataset_is_numbered_from_nothing_and_without_gaps(kind, batch):
    together = batch * DEALT_STEPS
    datasets, ordinals = kind([1, 2, 3], 3, batch).draws(np.arange(-(-2 * BLOCK // together) * together))
    for dataset in range(3):
        mine = datasets.reshape(-1, together) == dataset
        numbers = [
            np.sort(row[chosen]) for row, chosen in zip(ordinals.reshape(-1, together), mine, strict=True)
        ]
        np.testing.assert_array_equal(np.concatenate(numbers), np.arange(mine.sum()))


@pytest.mark.parametrize("kind", [Multinomial, Stratified])
def test_numbers_at_neighbouring_places_of_some_batches_follow_each_other(kind):
    datasets, ordinals = kind([1, 2, 3], 3, 64).draws(np.arange(64 * DEALT_STEPS))
    for rank in np.split(np.arange(64), 8):
        mine = np.s_[:, rank]
        for dataset in range(3):
            chosen = datasets.reshape(-1, 64)[mine] == dataset
            numbers = np.sort(ordinals.reshape(-1, 64)[mine][chosen])
            np.testing.assert_array_equal(np.diff(numbers), np.ones(max(0, len(numbers) - 1)))


def test_going_back_gives_the_same():
    mixture = Multinomial([1, 2, 3], seed=3, batch_size=16)
    early, late = np.arange(100), np.arange(5 * BLOCK, 5 * BLOCK + 100)
    first = mixture.draws(early)
    expected = mixture.draws(late)
    np.testing.assert_array_equal(mixture.draws(early), first)
    np.testing.assert_array_equal(Multinomial([1, 2, 3], seed=3, batch_size=16).draws(late), expected)


# ---- stratified

BATCHES = st.integers(1, 48)
SHARES = st.lists(st.integers(0, 20), min_size=1, max_size=12).filter(any)


def counts_of(shares: list[int], batch_size: int, batches: int) -> np.ndarray:
    """How often each dataset comes in each batch: (batches, datasets)."""
    datasets, _ = Stratified(shares, 7, batch_size).draws(np.arange(batches * batch_size))
    rows = datasets.reshape(batches, batch_size)
    return np.stack([(rows == index).sum(axis=1) for index in range(len(shares))], axis=1)


@settings(max_examples=60, deadline=None)
@given(shares=SHARES, batch_size=BATCHES)
def test_every_batch_has_its_shares_as_nearly_as_whole_samples_allow(shares, batch_size):
    exact = batch_size * np.asarray(shares) / sum(shares)
    counts = counts_of(shares, batch_size, 100)
    assert (counts >= np.floor(exact + 1e-9)).all()
    assert (counts <= np.ceil(exact - 1e-9)).all()


@settings(max_examples=60, deadline=None)
@given(shares=SHARES, batch_size=BATCHES)
def test_over_many_batches_the_shares_are_exact(shares, batch_size):
    exact = batch_size * np.asarray(shares) / sum(shares)
    batches = np.arange(1, 301)
    off = np.abs(np.cumsum(counts_of(shares, batch_size, 300), axis=0) - batches[:, None] * exact)
    assert (off <= np.log2(batches)[:, None] + 2).all()
    assert (off[255] < 1 + 1e-6).all()


def test_no_dataset_is_preferred_in_single_batches():
    counts = counts_of([1] * 10, 16, 1000)
    assert set(np.unique(counts)) == {1, 2}
    np.testing.assert_allclose((counts == 2).mean(axis=0), 0.6, atol=0.01)


def test_the_place_in_the_batch_is_random():
    datasets, _ = Stratified([1, 1], 7, 16).draws(np.arange(16_000))
    first = datasets.reshape(-1, 16)[:, 0]
    assert 420 < first.sum() < 580


@settings(max_examples=40, deadline=None)
@given(shares=SHARES, batch_size=st.integers(1, 40), block=st.integers(1, 3))
def test_counts_before_a_block_are_the_sum_of_the_batches(shares, batch_size, block):
    batches = block * DEALT_STEPS * (BLOCK // (batch_size * DEALT_STEPS))
    ends = np.rint(batch_size * np.cumsum(np.asarray(shares) / sum(shares)) * 2**40).astype(np.int64)
    ends[-1] = batch_size << 40
    each = (ends + reversed_bits(np.arange(batches))[:, None]) >> 40
    expected = np.diff(each.sum(axis=0), prepend=0)
    first = batches * batch_size
    datasets, ordinals = Stratified(shares, 7, batch_size).draws(np.arange(first, first + BLOCK // 2))
    for dataset in np.unique(datasets):
        assert ordinals[datasets == dataset].min() == expected[dataset]


def test_reversed_bits_is_van_der_corputs_sequence():
    sequence = reversed_bits(np.arange(8)) / 2**40
    np.testing.assert_array_equal(sequence, [0, 0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875])
