"""Statistics of tables, against counting and closed forms."""

import math

import pytest
from scipy import stats

from tune.ablations import PAPER, AblationTable, Row
from tune.report.comparison import RowResults, TableResults, against_the_best, agreement, reference
from tune.report.results import Trial


def trial(seed: int, value: float, status: str = "FINISHED", stopped: str | None = None) -> Trial:
    return Trial(
        "id",
        "v",
        seed,
        {},
        status,
        stopped,
        {"relative/abs_rel/mean": value, "relative/abs_rel/redweb": value},
        {},
        {},
        (),
    )


def results(rows: dict[str, tuple[float, list[float]]]) -> TableResults:
    """Row → the paper's mean, ours a seed."""
    trials = {title: tuple(trial(*pair) for pair in enumerate(ours)) for title, (_, ours) in rows.items()}
    shown = [Row(title, {}, {"mean": paper}) for title, (paper, _) in rows.items()]
    found = tuple(RowResults(row, trials[row.title], (0, 1, 2)) for row in shown)
    return TableResults(AblationTable("t", "", "t", tuple(row.row for row in found)), found)


def test_the_slip_of_table_6_is_not_compared_with():
    rows = PAPER["skip"].rows
    assert reference(rows[-1], "mean") == pytest.approx((0.0742 + 0.0751 + 0.0857) / 3, abs=5e-5)
    for row in (*rows[:-1], *PAPER["readout"].rows, *PAPER["backbone"].rows):
        assert reference(row, "mean") == row.paper["mean"]


def test_only_whole_trainings_count():
    trials = (trial(0, 0.1), trial(1, 0.2, "FAILED"), trial(2, 0.3, stopped="40"), trial(3, math.nan))
    row = RowResults(Row("r", {}), trials, (0, 1, 2, 3, 4, 5))
    assert row.by_seed("relative/abs_rel/mean") == {0: 0.1}
    assert row.missing == ["seed 1 failed", "seed 2 stopped early at step 40", "seeds 4, 5 not started"]


def test_kendalls_tau_by_counting():
    found = agreement(results({"a": (1, [10.0]), "b": (2, [30.0]), "c": (3, [20.0]), "d": (4, [40.0])}))
    assert found is not None
    assert (found.alike, found.pairs) == (5, 6)
    assert found.tau == pytest.approx((5 - 1) / 6)
    reversed_ = agreement(results({"a": (1, [3.0]), "b": (2, [2.0]), "c": (3, [1.0])}))
    assert reversed_ is not None
    assert reversed_.tau == pytest.approx(-1)
    assert agreement(results({"a": (1, [3.0])})) is None


def test_the_best_is_compared_with_every_other_that_shares_a_seed():
    table = results({"a": (1, [0.1, 0.2, 0.3]), "b": (1, [0.12, 0.23, 0.31]), "c": (1, [])})
    found = against_the_best(table)
    assert found is not None
    best, others = found
    assert best == "a"
    # t = mean / (s / √n) of the differences 0.02, 0.03, 0.01.
    t = 0.02 / (0.01 / math.sqrt(3))
    assert others.keys() == {"b"}
    assert (others["b"].difference, others["b"].seeds) == (pytest.approx(0.02), 3)
    assert others["b"].p_value == pytest.approx(2 * stats.t.sf(t, df=2), rel=1e-6)
    assert against_the_best(results({"a": (1, [0.1])})) is None
