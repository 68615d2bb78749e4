"""Bootstrap intervals."""

import numpy as np
import pytest

from pipelines.zero_shot.report import bootstrap_interval


def test_the_interval_is_that_of_the_normal_approximation_for_many_values():
    values = np.random.default_rng(1).gamma(2.0, size=2000)
    low, high = bootstrap_interval(values, 2000, seed=0)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


@pytest.mark.heavy
def test_it_holds_the_true_mean_about_nineteen_times_in_twenty():
    rng = np.random.default_rng(2)
    hits = 0
    for seed in range(200):
        low, high = bootstrap_interval(rng.normal(3.0, 1.0, size=50), 400, seed)
        hits += low <= 3.0 <= high
    assert 180 <= hits <= 197


def test_a_seed_gives_the_same_interval():
    values = np.arange(10.0)
    assert bootstrap_interval(values, 100, 3) == bootstrap_interval(values, 100, 3)
    assert bootstrap_interval(values, 100, 3) != bootstrap_interval(values, 100, 4)


def test_equal_values_have_no_width_and_none_have_no_interval():
    assert bootstrap_interval(np.full(5, 0.25), 100, 0) == (0.25, 0.25)
    assert all(np.isnan(bootstrap_interval(np.empty(0), 100, 0)))
