"""Training on several datasets as multi-objective optimisation (section 4.1).

Sener and Koltun, Multi-Task Learning as Multi-Objective Optimization, NeurIPS 2018: every dataset is an
objective, and a step follows the shortest vector among all convex combinations of their gradients. Where that
vector is zero no objective can be improved without harming another; elsewhere it improves all of them.

All datasets share all parameters but no images, so the paper's upper bound by the gradient of a shared
representation does not apply, and the gradients themselves are needed. That costs no more arithmetic than
plain averaging, because an image contributes to the gradient of its own dataset only; it costs memory for one
gradient per dataset.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

Objective = Callable[[], Tensor]
"""Runs the model on the images of one dataset and returns the sum of their losses."""


def min_norm_weights(gram: np.ndarray) -> np.ndarray:
    """Weights of the shortest convex combination of vectors, from their scalar products.

    Wolfe's algorithm (Finding the Nearest Point in a Polytope, 1976): grow an active set of vectors, jump to
    the shortest point of its affine hull, and drop vectors whose weights would turn negative on the way. It
    is exact after finitely many steps. For two vectors a and b it gives the closed form
    w_a = (b − a)·b / |a − b|², clamped to [0, 1]: a = (2, 0), b = (0, 1) → weights 0.2 and 0.8.

    Args:
        gram: (L, L) symmetric positive semidefinite matrix of the vectors' scalar products.

    Returns:
        (L,) float64, non-negative, with sum 1.
    """
    gram = np.asarray(gram, np.float64)
    scale = max(float(np.trace(gram)), np.finfo(np.float64).tiny)
    gram = gram / scale
    active = [int(np.argmin(np.diag(gram)))]
    weights = np.zeros(len(gram))
    weights[active] = 1.0
    # Each round shortens the vector or ends; the bound only stops rounding errors from going in circles.
    for _ in range(10 * len(gram) ** 2):
        # products[i] = v_i · x for the current point x = Σ weights_i v_i. x is the shortest point of the hull
        # if no vector lies nearer to the origin along x than x itself: v_i · x ≥ x · x for all i.
        products = gram @ weights
        candidate = int(np.argmin(products))
        if candidate in active or products[candidate] > weights @ products - 1e-12:
            break
        active.append(candidate)
        while True:
            affine = _affine_minimum(gram[np.ix_(active, active)])
            current = weights[active]
            falling = affine <= 1e-12
            if not falling.any():
                break
            # Walk from the current weights towards the affine minimum until the first weight reaches 0.
            steps = current[falling] / np.maximum(current[falling] - affine[falling], 1e-300)
            weights[active] = current + min(float(steps.min()), 1.0) * (affine - current)
            kept = [index for index in active if weights[index] > 1e-12]
            weights[[index for index in active if index not in kept]] = 0.0
            active = kept
        weights[active] = affine
    return weights / weights.sum()


def _affine_minimum(gram: np.ndarray) -> np.ndarray:
    """Weights of any sign with sum 1 of the shortest combination, the smallest such if there are several.

    With a Lagrange multiplier μ for the sum: G w + μ 1 = 0 and 1 · w = 1, a linear system of L + 1 equations.
    """
    count = len(gram)
    system = np.ones((count + 1, count + 1))
    system[:count, :count] = gram
    system[count, count] = 0.0
    right = np.zeros(count + 1)
    right[count] = 1.0
    return np.linalg.lstsq(system, right, rcond=1e-14)[0][:count]


def average_weights(gram: np.ndarray) -> np.ndarray:
    """Equal weights for the (L, L) `gram`: plain averaging over the datasets."""
    return np.full(len(gram), 1 / len(gram))


def combine_gradients(
    objectives: Sequence[Objective | None],
    images: Sequence[int],
    parameters: Iterable[torch.nn.Parameter],
    choose: Callable[[np.ndarray], np.ndarray] = min_norm_weights,
) -> Tensor:
    """Set every parameter's ``grad`` to the chosen combination of the datasets' mean gradients.

    With `torch.distributed` initialised, gradients are averaged over the images of all ranks before the
    weights are chosen, so that the result does not depend on how images are spread. The objectives must then
    run the bare module, not a DistributedDataParallel wrapper, which would average the gradients again.

    Args:
        objectives: one per dataset, in the same order on all ranks; None for a dataset without images here.
        images: number of images of each dataset on this rank, 0 for None.
        parameters: those of the model, all of one dtype and on one device.
        choose: maps the (L, L) scalar products to (L,) weights: `min_norm_weights` or `average_weights`.

    Returns:
        (L,) float64 weights on the CPU; 0 for datasets without images on any rank.

    Raises:
        ValueError: if no rank has any image.
    """
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    sizes = [parameter.numel() for parameter in parameters]
    device = parameters[0].device
    gradients = torch.zeros(len(objectives), sum(sizes), dtype=parameters[0].dtype, device=device)
    for row, objective in zip(gradients, objectives, strict=True):
        if objective is not None:
            grads = torch.autograd.grad(objective(), parameters)
            torch.cat([grad.reshape(-1) for grad in grads], out=row)
    counts = torch.tensor(images, dtype=torch.float64, device=device)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(gradients)
        dist.all_reduce(counts)
    present = counts > 0
    if not present.any():
        raise ValueError("there are no images in this step")
    gradients /= counts.clamp(min=1).to(gradients)[:, None]
    chosen = gradients[present] if not present.all() else gradients
    weights = torch.zeros(len(objectives), dtype=torch.float64)
    weights[present.cpu()] = torch.from_numpy(choose((chosen @ chosen.T).double().cpu().numpy()))
    combined = weights.to(gradients) @ gradients
    for parameter, gradient in zip(parameters, combined.split(sizes), strict=True):
        parameter.grad = gradient.view_as(parameter)
    return weights
