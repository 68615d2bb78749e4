"""Strong perturbations of a student's images (L. Yang et al., Depth Anything, CVPR 2024, section 3.2).

A crop's colours are jittered and it is blurred; half of the crops get a rectangle of another crop, with its
labels: CutMix (Yun et al. 2019), M·u_a + (1 − M)·u_b. Labels are those of the unperturbed pictures.

The other crop is of a row of the same row group, chosen by the random numbers of the sample's position in the
run. Ingest shuffled the dataset before it cut row groups, so that is any other sample, and it is in memory.
The paper does not say how strong: these are the settings of UniMatch (CVPR 2023), by the same first author,
and the rectangles of CutMix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.config import PerturbSection
from pipelines.loading.crops import Crops, RandomNumbers
from pipelines.loading.rows import Image, Row

Box = tuple[int, int, int, int]
"""Top, left, bottom and right; all 0 if there is none."""

_JITTERED, _BRIGHTNESS, _CONTRAST, _SATURATION, _HUE, _BLURRED, _SIGMA, _COLOURS = range(8)
_MIXED, _PARTNER, _AREA, _VERTICAL, _HORIZONTAL, _OWN = range(6)


@dataclass(frozen=True, slots=True)
class Perturbation:
    """Perturbs crops as `settings` have it.

    Attributes:
        settings: strengths and probabilities.
        datasets: indices of the datasets whose crops are perturbed.
    """

    settings: PerturbSection
    datasets: tuple[int, ...]

    def draws(self, crops: Crops) -> int:
        """How many random numbers one of the `crops` takes."""
        return 2 * _COLOURS + _OWN + crops.draws

    def __call__(
        self,
        image: Image,
        target: NDArray[Any],
        draws: RandomNumbers,
        crops: Crops,
        partner: Callable[[float], Row],
    ) -> Box:
        """Perturb a crop in place.

        Args:
            image: (h, w, 3) RGB, contiguous.
            target: (h, w), contiguous.
            draws: as many as `draws` says, in [0, 1): colours, mixing, colours and crop of the other.
            crops: what made the crop, and will make the other.
            partner: a random number in [0, 1) → row of the other.

        Returns:
            the rectangle that is now from the other crop.

        Raises:
            ValueError: naming the other sample, if it is damaged.
        """
        colours, mixing, others, place = np.split(draws, np.cumsum([_COLOURS, _OWN, _COLOURS]))
        distort(image, self.settings, colours)
        top, left, bottom, right = box = rectangle(target.shape, mixing)
        if mixing[_MIXED] >= self.settings.cutmix or top == bottom or left == right:
            return 0, 0, 0, 0
        other, other_target = np.empty_like(image), np.empty_like(target)
        crops(partner(mixing[_PARTNER]), place, other, other_target)
        distort(other, self.settings, others)
        window = np.s_[top:bottom, left:right]
        image[window], target[window] = other[window], other_target[window]
        return box


def rectangle(shape: tuple[int, ...], draws: RandomNumbers) -> Box:
    """CutMix's rectangle in a crop of `shape` (h, w): its share of the area and its centre are uniform.

    What lies outside is cut off. Of `draws` the numbers of area, vertical and horizontal position count:
    0.25, 0.5, 0.5 → half of each side, in the middle.
    """
    limits = []
    for length, place in zip(shape, (draws[_VERTICAL], draws[_HORIZONTAL]), strict=True):
        side = int(length * draws[_AREA] ** 0.5)
        first = int(length * place) - side // 2
        limits.append((max(0, first), min(length, first + side)))
    (top, bottom), (left, right) = limits
    return top, left, bottom, right


def distort(image: Image, settings: PerturbSection, draws: RandomNumbers) -> None:
    """Jitter the colours of `image` (h, w, 3) in place and blur it, each with its probability in `settings`.

    Brightness, contrast, saturation and hue as torchvision defines them, in this order. `draws` are seven
    numbers in [0, 1).
    """

    def between(limits: tuple[float, float], number: int) -> float:
        return limits[0] + (limits[1] - limits[0]) * float(draws[number])

    if draws[_JITTERED] < settings.jitter:
        levels = np.arange(256)
        _look_up(image, levels * between(settings.brightness, _BRIGHTNESS))
        contrast = between(settings.contrast, _CONTRAST)
        _look_up(image, contrast * levels + (1 - contrast) * cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean())
        saturation = between(settings.saturation, _SATURATION)
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        cv2.addWeighted(image, saturation, grey, 1 - saturation, 0, dst=image)
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
        turn = between((-settings.hue, settings.hue), _HUE)
        hsv[..., 0] += np.uint8(round(256 * turn) % 256)  # a full turn is 256, where uint8 begins again
        cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL, dst=image)
    if draws[_BLURRED] < settings.blur:
        cv2.GaussianBlur(image, (0, 0), between(settings.sigma, _SIGMA), dst=image)


def _look_up(image: Image, levels: NDArray[np.floating]) -> None:
    """Replace each value of `image` by that of its level, rounded and clipped."""
    cv2.LUT(image, np.rint(levels).clip(0, 255).astype(np.uint8), dst=image)
