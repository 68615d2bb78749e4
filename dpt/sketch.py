"""Scalar products of long vectors whose parts lie on several ranks, from short sketches that add up.

A CountSketch (Charikar, Chen and Farach-Colton, Finding Frequent Items in Data Streams, 2002) throws the n
numbers of a vector into k buckets, each with a random sign. It is linear, so the sketch of a sum over ranks
is the sum of the ranks' sketches; and since the signs are independent, products of numbers that share a
bucket cancel in the mean: the scalar product of two sketches has that of the vectors as its expectation. Its
standard deviation is about √(2/k) |a| |b| at most (Pham and Pagh, Fast and Scalable Polynomial Kernels via
Explicit Feature Maps, 2013), here 0.6 % of the product of the lengths. Ranks exchange k numbers a vector
instead of n.
"""

import random
from functools import cache
from math import isqrt

import torch
from torch import Tensor

LENGTH = 65_536
"""Buckets k."""


class Sketch:
    """Sketches of several vectors, each given in parts, equal on all ranks for the same `seed`.

    Args:
        vectors: number D of vectors.
        seed: of signs and buckets. A new one for every step makes the errors of many steps cancel.
        device: of the vectors.

    Attributes:
        rows: (D, `LENGTH`) float64, to be summed over ranks.
    """

    def __init__(self, vectors: int, seed: int, device: torch.device) -> None:
        self._seed = seed
        self._signs = torch.Generator(device)
        self.rows = torch.zeros(vectors, LENGTH, dtype=torch.float64, device=device)

    def add(self, part: int, numbers: Tensor) -> None:
        """Add the vectors' part number `part`, `numbers` (D, ...) of a real dtype.

        Parts of the same number add up: the sketch is that of their sum.
        """
        drawn = random.Random(f"{self._seed}/{part}")
        numbers = numbers.flatten(1)
        self._signs.manual_seed(drawn.getrandbits(63))
        signs = torch.randint(
            0, 2, numbers.shape[1:], generator=self._signs, device=numbers.device, dtype=torch.int8
        )
        # Position modulo a prime is the bucket: a sum over rows of a matrix, where one drawn for each number
        # would be a scattered write. The prime is drawn, since a weight's numbers have periods of their own.
        period = drawn.choice(_periods())
        signed = torch.nn.functional.pad(numbers * (2 * signs - 1), (0, -numbers.shape[1] % period))
        wide = torch.promote_types(numbers.dtype, torch.float32)
        sums = signed.view(len(numbers), -1, period).sum(1, dtype=wide)
        self.rows[:, :period] += sums.roll(drawn.randrange(period), 1)

    def products(self) -> Tensor:
        """Estimated scalar products of the vectors, (D, D) float64."""
        return self.rows @ self.rows.T


@cache
def _periods() -> list[int]:
    """The primes of the last eighth below `LENGTH`."""
    numbers = range(LENGTH - LENGTH // 8 + 1, LENGTH, 2)
    divisors = range(3, isqrt(LENGTH) + 1, 2)
    return [number for number in numbers if all(number % divisor for divisor in divisors)]
