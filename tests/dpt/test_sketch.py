"""Scalar products of sketches against those of the vectors, in float64."""

import pytest
import torch

from dpt.sketch import LENGTH, Sketch

CPU = torch.device("cpu")


def vectors(kind):
    """Three vectors of 2^18 numbers, as gradients of a weight (256, 1024) have them."""
    torch.manual_seed(0)
    noise = torch.randn(3, 256, 1024)
    if kind == "rows of one head":
        weak = torch.full((256, 1), 1e-3)
        weak[5::64] = 1
        return noise * weak
    if kind == "one column":
        return noise * (torch.arange(1024) == 7)
    if kind == "one rank":
        return torch.randn(3, 256, 1) * torch.randn(3, 1, 1024)
    return {"noise": noise, "nearly the same": 1 + 0.1 * noise, "small": noise[:, :2, :3]}[kind]


@pytest.mark.parametrize(
    "kind", ["noise", "rows of one head", "one column", "one rank", "nearly the same", "small"]
)
def test_products_are_those_of_the_vectors_up_to_a_known_error(kind):
    found = vectors(kind)
    exact = found.flatten(1).double() @ found.flatten(1).double().T
    lengths = exact.diag().sqrt()
    errors = []
    for seed in range(40):
        sketch = Sketch(3, seed, CPU)
        sketch.add(0, found)
        errors.append((sketch.products() - exact) / (lengths * lengths[:, None]))
    deviation = torch.stack(errors).square().mean(0).sqrt()
    expected = (2 / LENGTH) ** 0.5  # 0.55 %
    assert deviation.max() < 1.5 * expected
    if kind not in ("small", "one column"):  # which have a bucket for every number that is not 0
        assert deviation.max() > 0.2 * expected
    # of the mean of 40, whose deviation is a sixth
    assert torch.stack(errors).mean(0).abs().max() < 0.7 * expected


def test_sketches_of_parts_and_ranks_add_up():
    torch.manual_seed(0)
    first, second = torch.randn(2, 2, 300, 300, dtype=torch.float64)
    other = torch.randn(2, 7, dtype=torch.float64)
    ranks = [Sketch(2, 5, CPU) for _ in range(3)]
    ranks[0].add(0, first)
    ranks[0].add(1, other)
    ranks[1].add(0, second)
    ranks[2].add(1, other)
    ranks[2].add(0, first + second)
    torch.testing.assert_close(ranks[0].rows + ranks[1].rows, ranks[2].rows)
    another = Sketch(2, 6, CPU)
    another.add(0, first)
    assert not torch.equal(another.rows, ranks[0].rows)


def test_parts_of_other_numbers_do_not_fall_onto_each_other():
    """The same numbers as two parts: products between the parts cancel, so that squares add up."""
    numbers = torch.randn(1, 5000, generator=torch.Generator().manual_seed(0))
    sums = []
    for seed in range(20):
        sketch = Sketch(1, seed, CPU)
        for part in range(2):
            sketch.add(part, numbers)
        sums.append(sketch.products().item() / (2 * numbers.square().sum().item()))
    assert sum(sums) / 20 == pytest.approx(1, abs=0.01)


def test_precision_of_the_numbers_is_kept():
    numbers = torch.randn(2, 100_000, generator=torch.Generator().manual_seed(0)).bfloat16()
    rows = []
    for dtype in (torch.bfloat16, torch.float64):
        sketch = Sketch(2, 0, CPU)
        sketch.add(0, numbers.to(dtype))
        rows.append(sketch.rows)
    torch.testing.assert_close(rows[0], rows[1], rtol=1e-5, atol=1e-5)
