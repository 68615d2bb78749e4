import pytest

from pipelines.training.optimizer import learning_rate_factor


def test_constant_is_the_papers_and_never_changes():
    assert {learning_rate_factor(step, 100, "constant") for step in range(100)} == {1.0}


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (50, 0.5**0.9), (99, 0.01**0.9)])
def test_poly_falls_with_power_nine_tenths(step, factor):
    assert learning_rate_factor(step, 100, "poly") == pytest.approx(factor)


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (50, 0.5), (75, 0.146447)])
def test_cosine_falls_half_a_period(step, factor):
    assert learning_rate_factor(step, 100, "cosine") == pytest.approx(factor, abs=1e-6)


def test_warmup_rises_linearly_and_is_over_on_time():
    factors = [learning_rate_factor(step, 100, "constant", warmup=4) for step in range(6)]
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
