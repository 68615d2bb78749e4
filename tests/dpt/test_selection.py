import numpy as np
import pytest
import torch

from dpt.selection import by_median, by_sorting, lower_median

NAN, INF = float("nan"), float("inf")
RANDOM = np.random.default_rng(0)
ROWS = {
    "random": RANDOM.normal(size=(3, 101)).tolist(),
    "one known": [[NAN, NAN, 3.0, NAN], [NAN, -2.0, NAN, NAN]],
    "none known": [[NAN] * 4, [1.0, 2.0, 3.0, NAN]],
    "tied": RANDOM.integers(0, 4, (3, 50)).astype(float).tolist(),
    "some NaN": [[5.0, NAN, 1.0, NAN, 4.0, 2.0], [NAN, 7.0, NAN, 7.0, NAN, -1.0]],
    "infinite": [[INF, 1.0, -INF, INF, 0.5, NAN], [-INF, -INF, INF, NAN, INF, 2.0]],
}


def expected(row: list[float], k: int) -> float:
    known = sorted(value for value in row if not np.isnan(value))
    return known[k - 1] if k <= len(known) else NAN


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_ways_select_the_same_values_and_pass_the_same_gradients(kind, dtype):
    values = torch.tensor(ROWS[kind], dtype=dtype)
    for k in range(1, values.shape[1] + 1):
        ranks = torch.full((len(values),), k)
        wanted = torch.tensor([expected(row, k) for row in values.tolist()], dtype=dtype)
        for select in (by_sorting, by_median):
            leaf = values.clone().requires_grad_()
            found = select(leaf, ranks)
            torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
            # an infinite value may be one of the padding; a loss of it is skipped
            finite = wanted.isfinite()
            found[finite].sum().backward()
            # 1 in all, to the selected value; which of equal ones has it is the operation's choice
            selected = values == wanted[:, None]
            assert (leaf.grad * selected).sum(dim=1).tolist() == finite.double().tolist()
            assert not leaf.grad[~selected].any()


@pytest.mark.parametrize("kind", ROWS)
def test_the_median_is_the_lower_middle_value(kind):
    values = torch.tensor(ROWS[kind], dtype=torch.float64)
    known = (~values.isnan()).sum(dim=1)
    middle = [expected(row, (n + 1) // 2) if n else NAN for row, n in zip(ROWS[kind], known, strict=True)]
    wanted = torch.tensor(middle, dtype=torch.float64)
    for found in (lower_median(values), by_sorting(values, (known + 1) // 2)):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)


def test_an_empty_batch_has_no_values():
    for select in (by_sorting, by_median):
        assert select(torch.zeros(0, 5), torch.zeros(0, dtype=torch.long)).shape == (0,)
