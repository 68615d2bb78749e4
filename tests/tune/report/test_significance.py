"""The paired test separates a difference from chance."""

import math

import numpy as np
import pytest

from tune.report.significance import Comparison, compare, note, summarise


def test_mean_and_deviation():
    summary = summarise([0.08, 0.10, 0.12])
    assert (summary.mean, summary.deviation, summary.count) == (pytest.approx(0.10), pytest.approx(0.02), 3)
    assert str(summary) == "0.1000 ± 0.0200"
    assert str(summarise([0.1])) == "0.1000"


def test_pairs_share_a_seed():
    mine = {0: 0.10, 1: 0.50, 2: 0.12, 3: 0.52}
    theirs = {0: 0.11, 1: 0.51, 2: 0.131, 3: 0.532, 4: 9.0}
    found = compare(mine, theirs)
    assert (found.seeds, found.difference) == (4, pytest.approx(0.01075))
    differences = np.array([0.01, 0.01, 0.011, 0.012])
    t = differences.mean() / (differences.std(ddof=1) / 2)
    assert t > 20
    assert 0 < found.p_value < 1e-3, "seeds differ by far more than variants, and that must not matter"


def test_luck_is_no_difference():
    random = np.random.default_rng(0)
    mine, theirs = (dict(enumerate(random.normal(0.1, 0.01, 6).tolist())) for _ in range(2))
    assert compare(mine, theirs).p_value > 0.05


def test_too_few_figures_tell_nothing():
    assert math.isnan(compare({0: 0.1}, {0: 0.2}).p_value)
    assert math.isnan(compare({0: 0.1, 1: 0.1}, {0: 0.2, 1: 0.2}).p_value)


def test_the_note_says_what_is_known():
    clear, luck = Comparison(0.01, 0.001, 6), Comparison(0.001, 0.4, 6)
    unknown = Comparison(0.01, math.nan, 1)
    assert note("A", {"B": clear}).startswith("A is better than all others (paired t-test over 6")
    assert "A is better than B; from the others it cannot be told apart" in note("A", {"B": clear, "C": luck})
    assert "cannot be told apart from the others" in note("A", {"C": luck})
    assert "one seed cannot tell that from chance" in note("A", {"B": unknown})
