import numpy as np
import pytest
import torch
from scipy import optimize

from dpt.multi_objective import (
    average_weights,
    combine_gradients,
    gradients_one_by_one,
    min_norm_weights,
    shortest_combination,
)
from tests.support.two_ranks import run_in_two_ranks


def problems(count):
    generator = np.random.default_rng(0)
    for _ in range(count):
        objectives = generator.integers(1, 13)
        vectors = generator.normal(size=(objectives, generator.integers(1, 20)))
        vectors += generator.normal(size=vectors.shape[1]) * generator.uniform(0, 3)
        size = (objectives, 1) if generator.random() < 0.3 else (1, 1)
        vectors *= 10 ** generator.uniform(-3, 3, size=size)
        if generator.random() < 0.2:
            vectors[-1] = vectors[0]
        yield vectors


def solved_by_scipy(gram):
    """The same quadratic programme, by sequential least squares from equal weights."""
    scale = np.trace(gram)
    functions = {"fun": lambda x: x @ gram @ x / scale, "jac": lambda x: 2 * gram @ x / scale}
    simplex = {"type": "eq", "fun": lambda x: x.sum() - 1, "jac": np.ones_like}
    limits = {"bounds": [(0, 1)] * len(gram), "constraints": simplex, "method": "SLSQP"}
    start, options = np.full(len(gram), 1 / len(gram)), {"ftol": 1e-14, "maxiter": 500}
    return optimize.minimize(x0=start, **functions, **limits, options=options).x


@pytest.mark.heavy
def test_weights_are_those_of_a_quadratic_programming_library():
    for vectors in problems(1000):
        gram = vectors @ vectors.T
        weights = min_norm_weights(gram)
        assert weights.min() >= 0
        assert weights.sum() == pytest.approx(1, abs=1e-12)
        norm, expected = weights @ gram @ weights, solved_by_scipy(gram)
        assert norm <= expected @ gram @ expected + 1e-9 * np.trace(gram)
        # optimality: no vector has a smaller product with the combination than the combination itself
        assert (gram @ weights).min() >= norm - 1e-9 * np.trace(gram)


def test_two_opposing_gradients_cancel_by_their_lengths():
    vectors = np.array([[3.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_allclose(min_norm_weights(vectors @ vectors.T), [0.25, 0.75], rtol=1e-12)


def test_zero_gradients_do_not_break_the_solver():
    np.testing.assert_allclose(min_norm_weights(np.zeros((3, 3))).sum(), 1)
    assert min_norm_weights(np.ones((1, 1))).tolist() == [1.0]


def small_problem():
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 1)
    inputs, targets = torch.randn(9, 6), torch.randn(9, 1)
    datasets = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 1])
    return model, inputs, targets, datasets


def objectives_of(model, inputs, targets, datasets, count=4):
    def objective(chosen):
        return lambda: (model(inputs[chosen]) - targets[chosen]).square().sum()

    masks = [datasets == dataset for dataset in range(count)]
    images = [int(mask.sum()) for mask in masks]
    return [objective(mask) if mask.any() else None for mask in masks], images


def combine(objectives, images, model, choose=None):
    parameters = list(model.parameters())
    return combine_gradients(gradients_one_by_one(objectives, parameters), images, parameters, choose)


def test_gradients_are_the_chosen_combination():
    model, inputs, targets, datasets = small_problem()
    objectives, images = objectives_of(model, inputs, targets, datasets)
    weights = combine(objectives, images, model)
    expected = []
    for dataset in range(3):
        mask = datasets == dataset
        loss = (model(inputs[mask]) - targets[mask]).square().mean()
        expected.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, model.parameters())]))
    expected = torch.stack(expected)
    np.testing.assert_allclose(
        weights[:3], min_norm_weights((expected @ expected.T).double().numpy()), rtol=1e-4, atol=1e-6
    )
    assert weights[3] == 0
    combined = torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters()])
    torch.testing.assert_close(combined, weights[:3].float() @ expected, rtol=1e-5, atol=1e-6)
    # a step along it improves every dataset at first
    assert (expected @ combined >= -1e-6).all()


def test_plain_averaging_is_the_mean_over_datasets():
    model, inputs, targets, datasets = small_problem()
    objectives, images = objectives_of(model, inputs, targets, datasets)
    weights = combine(objectives, images, model, average_weights)
    assert weights.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    got = [parameter.grad.clone() for parameter in model.parameters()]
    losses = [(model(inputs[datasets == d]) - targets[datasets == d]).square().mean() for d in range(3)]
    for gradient, expected in zip(got, torch.autograd.grad(sum(losses) / 3, model.parameters()), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.heavy
def test_all_subsets_at_once_give_the_same_shortest_vector():
    for vectors in problems(300):
        vectors = vectors[:10]
        gram = vectors @ vectors.T
        absent = np.zeros((len(gram) + 2,) * 2)
        absent[1:-1, 1:-1] = gram
        here = np.array([False, *[True] * len(gram), False])
        for matrix, present in ((gram, here[1:-1]), (absent, here)):
            weights = shortest_combination(torch.from_numpy(matrix), torch.from_numpy(present)).numpy()
            assert weights.min() >= 0
            assert weights.sum() == pytest.approx(1, abs=1e-12)
            assert not weights[~present].any()
            expected = min_norm_weights(gram)
            length = expected @ gram @ expected
            assert weights @ matrix @ weights == pytest.approx(length, abs=1e-9 * np.trace(gram))
            # Where vectors outnumber dimensions, several weights give the same shortest vector.
            if np.linalg.cond(gram) < 1e6:
                np.testing.assert_allclose(weights[present], expected, atol=1e-6)


def test_products_that_are_not_finite_have_equal_weights():
    gram = torch.full((12, 12), torch.nan, dtype=torch.float64)
    for count in (3, 12):
        present = torch.arange(count) > 0
        weights = shortest_combination(gram[:count, :count], present)
        torch.testing.assert_close(weights, present / (count - 1), check_dtype=False)


def test_more_vectors_than_are_tried_are_solved_by_the_host():
    vectors = np.random.default_rng(0).normal(size=(13, 20))
    gram = vectors @ vectors.T
    present = np.arange(13) != 5
    weights = shortest_combination(torch.from_numpy(gram), torch.from_numpy(present)).numpy()
    assert weights[5] == 0
    np.testing.assert_allclose(weights[present], min_norm_weights(gram[present][:, present]), rtol=1e-12)


def rank_of_two(rank):
    model, inputs, targets, datasets = small_problem()
    # rank 1 has no image of dataset 0
    first = (datasets == 0) | (torch.arange(9) % 2 == 0)
    mine = first if rank == 0 else ~first
    objectives, images = objectives_of(model, inputs[mine], targets[mine], datasets[mine])
    weights = combine(objectives, images, model)
    return weights, torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters()])


@pytest.mark.heavy
def test_ranks_agree_with_one_process(tmp_path):
    model, inputs, targets, datasets = small_problem()
    expected = combine(*objectives_of(model, inputs, targets, datasets), model)
    gradient = torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters()])
    for got, got_gradient in run_in_two_ranks(rank_of_two, tmp_path):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(got_gradient, gradient, rtol=1e-4, atol=1e-6)
