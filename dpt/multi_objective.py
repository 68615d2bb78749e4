"""Training on several datasets as multi-objective optimisation (section 4.1).

Sener and Koltun, Multi-Task Learning as Multi-Objective Optimization, NeurIPS 2018: every dataset is an
objective, and a step follows the shortest vector among all convex combinations of their gradients. Where that
vector is zero no objective can be improved without harming another; elsewhere it improves all of them.

All datasets share all parameters but no images, so the paper's upper bound by the gradient of a shared
representation does not apply, and the gradients themselves are needed. That costs no more arithmetic than
plain averaging, because an image contributes to the gradient of its own dataset only
(`dpt.dataset_gradients`); it costs memory for one gradient per dataset. Several ranks need not exchange them:
the weights follow from scalar products, for which `dpt.sketch` suffices.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dpt.sketch import Sketch

_MOST_ENUMERATED = 10
"""The paper's MIX 6 has ten datasets: 1,023 systems of 11 equations."""

_PIECES = 256
"""Into so many pieces at most a scalar product of gradients is parted."""

_SMALL = 16_384
"""Parameters of so many numbers at most are handled together."""

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


def shortest_combination(gram: Tensor, present: Tensor) -> Tensor:
    """`min_norm_weights` on the device that the scalar products are on, without waiting for them.

    The shortest point lies inside the convex hull of some of the vectors, and is the shortest point of their
    affine hull too. Of up to `_MOST_ENUMERATED` vectors all subsets are tried at once: of those whose affine
    minimum has no negative weight, the shortest is the solution. More vectors are solved for by the host.

    Args:
        gram: (L, L) float64 scalar products of the vectors.
        present: (L,) bool, the vectors that take part; others have weight 0.

    Returns:
        (L,) float64 weights with sum 1, equal ones if `gram` is not finite.
    """
    count = len(gram)
    healthy = torch.isfinite(gram).all()
    gram = torch.where(healthy, gram, torch.eye(count, dtype=gram.dtype, device=gram.device))
    gram = torch.where(present & present[:, None], gram, 0)
    if count > _MOST_ENUMERATED:
        here = present.cpu().numpy()
        found = np.zeros(count)
        found[here] = min_norm_weights(gram.cpu().numpy()[here][:, here])
        return torch.where(healthy, torch.from_numpy(found).to(gram), average_weights(gram, present))
    gram = gram / gram.trace().clamp(min=torch.finfo(gram.dtype).tiny)
    subsets = _subsets(count, gram.device)
    inside = subsets.to(gram.dtype)
    # For each subset G w + μ 1 = 0 and 1 · w = 1; of the vectors outside, w = 0.
    system = torch.zeros(len(subsets), count + 1, count + 1, dtype=gram.dtype, device=gram.device)
    system[:, :count, :count] = inside[:, :, None] * inside[:, None] * gram + torch.diag_embed(1 - inside)
    system[:, :count, count] = system[:, count, :count] = inside
    right = torch.zeros(count + 1, 1, dtype=gram.dtype, device=gram.device)
    right[count] = 1
    weights = torch.linalg.solve_ex(system, right.expand(len(subsets), -1, -1))[0][:, :count, 0]
    possible = torch.isfinite(weights).all(1) & (weights >= -1e-12).all(1) & ~(subsets & ~present).any(1)
    weights = torch.where(possible[:, None], weights.clamp(min=0), inside)
    weights = weights / weights.sum(1, keepdim=True)
    lengths = torch.einsum("si,ij,sj->s", weights, gram, weights)
    best = torch.where(possible, lengths, torch.inf).argmin()
    return torch.where(healthy, weights.index_select(0, best[None])[0], average_weights(gram, present))


@cache
def _subsets(count: int, device: torch.device) -> Tensor:
    """All subsets of `count` vectors but the empty one, (2^count − 1, count) bool; single vectors first."""
    numbers = sorted(range(1, 2**count), key=lambda number: number.bit_count())
    return torch.tensor([[bool(number >> index & 1) for index in range(count)] for number in numbers]).to(
        device
    )


def average_weights(gram: Tensor, present: Tensor) -> Tensor:
    """Equal weights for those of the vectors with products `gram` (L, L) that are `present`, (L,) bool."""
    share = present.to(gram.dtype)
    return share / share.sum().clamp(min=1)


def gradients_one_by_one(
    objectives: Sequence[Objective | None], parameters: Sequence[nn.Parameter]
) -> dict[nn.Parameter, Tensor]:
    """Gradients of L datasets from a pass for each: for models that couple the images of a batch.

    `objectives` are one per dataset, None for a dataset without images. Returns (L, *shape) for each of
    `parameters`, zero for None.
    """
    found = {p: torch.zeros(len(objectives), *p.shape, dtype=p.dtype, device=p.device) for p in parameters}
    for index, objective in enumerate(objectives):
        if objective is not None:
            for rows, grad in zip(found.values(), torch.autograd.grad(objective(), parameters), strict=True):
                rows[index] = grad
    return found


def combine_gradients(
    gradients: Mapping[nn.Parameter, Tensor],
    images: Sequence[int],
    parameters: Sequence[nn.Parameter],
    choose: Callable[[Tensor, Tensor], Tensor] | None = None,
    sketch: Sketch | None = None,
) -> Tensor:
    """Set every parameter's ``grad`` to the chosen combination of the datasets' mean gradients.

    With `torch.distributed` initialised, weights are chosen for the gradients over the images of all ranks,
    so that the result does not depend on how images are spread.

    Args:
        gradients: of the sum of each dataset's losses, (L, *shape) for a parameter (`dpt.dataset_gradients`);
            a parameter that is missing takes no part on this rank.
        images: number of images of each of the L datasets on this rank; the same datasets on all ranks.
        parameters: those that are trained, on one device, in the same order on all ranks.
        choose: maps scalar products (L, L), and which datasets have images, (L,), to weights (L,):
            `average_weights`; None for those of the shortest combination.
        sketch: an empty one of L vectors, from which ranks estimate the scalar products, to exchange then one
            gradient, the combination; with None they exchange all L.

    Returns:
        (L,) float64 weights; 0 for datasets without images on any rank. Of scalar products that are not
        finite, equal weights.
    """
    counts = torch.tensor(images, dtype=torch.float64).to(parameters[0].device, non_blocking=True)
    blocks = _blocks(gradients, parameters, len(images))
    if sketch is not None:
        for number, (rows, _) in enumerate(blocks):
            sketch.add(number, rows)
        sum_over_ranks([counts, sketch.rows])
        products = sketch.products()
    else:
        # A sum over ranks in bfloat16 would lose digits.
        blocks = [(rows.to(members[0].dtype), members) for rows, members in blocks] if _several() else blocks
        sum_over_ranks([counts, *(rows for rows, _ in blocks)])
        products = scalar_products([rows for rows, _ in blocks])
    factors, weights = combination(products, counts, choose)
    factors = factors.to(parameters[0].dtype)[None]
    combined = [(factors @ rows.to(factors.dtype))[0] for rows, _ in blocks]
    if sketch is not None:
        sum_over_ranks(combined)
    for values, (_, members) in zip(combined, blocks, strict=True):
        for parameter, part in zip(members, values.split([p.numel() for p in members]), strict=True):
            grad = part.view_as(parameter)
            if not parameter.is_contiguous():  # fused optimisers need one memory format
                grad = torch.empty_like(parameter).copy_(grad)
            parameter.grad = grad
    return weights


def combination(
    products: Tensor, counts: Tensor, choose: Callable[[Tensor, Tensor], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """The chosen combination of the datasets' mean gradients.

    Args:
        products: (L, L) float64 scalar products of the gradients of the sums of each dataset's losses.
        counts: (L,) float64 number of images of each.
        choose: see `combine_gradients`.

    Returns:
        (L,) float64 each: the factors of the sums' gradients, and the weights of the means'.
    """
    shares = 1 / counts.clamp(min=1)
    weights = (choose or shortest_combination)(products * shares * shares[:, None], counts > 0)
    return weights * shares, weights


def sum_over_ranks(tensors: Sequence[Tensor]) -> None:
    """Sum each of `tensors`, in place, over all ranks; without `torch.distributed` they are the sums."""
    if _several():
        for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
            work.wait()


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _blocks(
    gradients: Mapping[nn.Parameter, Tensor], parameters: Sequence[nn.Parameter], datasets: int
) -> list[tuple[Tensor, list[nn.Parameter]]]:
    """Gradients as matrices (`datasets`, numbers) with their parameters: small ones are joined."""

    def rows(parameter: nn.Parameter) -> Tensor:
        found = gradients.get(parameter)
        return parameter.new_zeros(datasets, parameter.numel()) if found is None else found.flatten(1)

    small = [parameter for parameter in parameters if parameter.numel() <= _SMALL]
    blocks = [(rows(parameter), [parameter]) for parameter in parameters if parameter.numel() > _SMALL]
    return [*blocks, (torch.cat([rows(p) for p in small], 1), small)] if small else blocks


def scalar_products(blocks: Sequence[Tensor]) -> Tensor:
    """Scalar products (L, L) float64 of L vectors, of which each of the `blocks`, (L, numbers), has a part.

    In pieces: a GPU shares a product among its processors by the size of its result, which here is tiny.
    """
    products = []
    for rows in blocks:
        exact = rows.float() if rows.dtype == torch.bfloat16 else rows
        pieces = exact.view(len(rows), math.gcd(rows.shape[1], _PIECES), -1).transpose(0, 1)
        products.append(torch.bmm(pieces, pieces.transpose(1, 2)))
    return torch.cat(products).double().sum(0)
