import colorsys
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest

from pipelines.config import PerturbSection
from pipelines.loading.crops import Crops
from pipelines.loading.perturbation import Perturbation, distort, rectangle

UNCHANGED = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": 0.0, "blur": 0.0}
ALWAYS = {"jitter": 1.0, **UNCHANGED}


@dataclass(frozen=True, slots=True)
class Flat(Crops):
    """Crops of one colour and one depth, the number in the row."""

    target_dtype = np.dtype(np.float16)
    draws = 3

    def __call__(self, row: Any, draws: Any, image_out: Any, target_out: Any) -> None:
        image_out[...], target_out[...] = row["number"], row["number"] / 256


def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (24, 32, 3), np.uint8)


def distorted(image: np.ndarray, draws: float = 0.0, **settings: Any) -> np.ndarray:
    result = image.copy()
    distort(result, PerturbSection(**{**ALWAYS, **settings}), np.full(7, draws))
    return result


@pytest.mark.parametrize(("draws", "expected"), [
    ((0.25, 0.5, 0.5), (5, 8, 15, 24)),  # half of each side, in the middle
    ((0.25, 0.0, 0.99), (0, 23, 5, 32)),  # cut off at the corner
    ((0.0, 0.5, 0.5), (10, 16, 10, 16)),
    ((1.0, 0.5, 0.5), (0, 0, 20, 32)),
])  # fmt: skip
def test_rectangles_are_those_of_cutmix(draws, expected):
    assert rectangle((20, 32), np.array([0, 0, *draws])) == expected


def test_a_crop_gets_a_rectangle_of_the_other_with_its_labels():
    perturb, crops = Perturbation(PerturbSection(jitter=0.0, blur=0.0), (0,)), Flat((20, 32), False)
    draws = np.zeros(perturb.draws(crops))
    draws[7:13] = 0.0, 0.75, 0.25, 0.5, 0.5, 0.0  # mixed, the partner's number, area, centre
    draws[12] = 1.0
    image, target = np.full((20, 32, 3), 10, np.uint8), np.full((20, 32), 10 / 256, np.float16)
    box = perturb(image, target, draws, crops, lambda draw: {"number": 100 * draw})
    assert box == (5, 8, 15, 24)
    expected = np.full((20, 32), 10)
    expected[5:15, 8:24] = 75
    np.testing.assert_array_equal(image, expected[..., None].repeat(3, 2))
    np.testing.assert_array_equal(target, (expected / 256).astype(np.float16))


def test_half_of_the_crops_are_mixed_and_the_others_have_no_box():
    perturb, crops = Perturbation(PerturbSection(), (0,)), Flat((20, 32), False)
    found = []
    for draws in np.random.default_rng(0).random((400, perturb.draws(crops))):
        target = np.full((20, 32), 10 / 256, np.float16)
        top, left, bottom, right = perturb(
            np.zeros((20, 32, 3), np.uint8), target, draws, crops, lambda _: {"number": 200}
        )
        assert (target > 0.5).sum() == (bottom - top) * (right - left)
        found.append(bottom > top)
    assert np.mean(found) == pytest.approx(0.5, abs=0.07)


def test_what_has_strength_zero_changes_nothing():
    image = np.repeat(picture()[..., :1], 3, axis=2)  # grey: a colour's hue is rounded
    np.testing.assert_array_equal(distorted(image), image)
    np.testing.assert_array_equal(distorted(image, jitter=0.0, brightness=(2, 2)), image)


def test_brightness_contrast_and_saturation_are_torchvisions():
    image = np.repeat(picture()[..., :1], 3, axis=2)
    np.testing.assert_array_equal(distorted(image, brightness=(1.5, 1.5)), np.rint(image * 1.5).clip(0, 255))
    expected = np.rint(0.5 * image + 0.5 * image[..., 0].mean()).clip(0, 255)
    np.testing.assert_array_equal(distorted(image, contrast=(0.5, 0.5)), expected)
    coloured = picture()
    grey = coloured @ [0.299, 0.587, 0.114]
    found = distorted(coloured, saturation=(0.5, 0.5)).astype(float)
    assert np.abs(found - (0.5 * coloured + 0.5 * grey[..., None])).max() < 6  # of which hue rounds some


def test_hue_turns_by_a_share_of_the_circle():
    image = np.full((4, 4, 3), (200, 60, 40), np.uint8)
    for draws, turn in ((0.0, -0.25), (0.999, 0.25), (0.75, 0.125)):
        hue, saturation, value = colorsys.rgb_to_hsv(*(image[0, 0] / 255))
        expected = 255 * np.array(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value))
        found = distorted(image, draws, hue=0.25, jitter=1.0)
        assert np.abs(found - expected).max() < 6


def test_blur_is_gaussian():
    image = np.zeros((33, 33, 3), np.uint8)
    image[16, 16] = 255
    found = distorted(image, jitter=0.0, blur=1.0, sigma=(1.0, 1.0))
    x = np.arange(-16, 17)
    bell = np.exp(-(x**2) / 2) / np.exp(-(x**2) / 2).sum()
    assert np.abs(found[..., 0] - 255 * np.outer(bell, bell)).max() < 1.5
    assert cv2.norm(distorted(image, 0.9, jitter=0.0, blur=0.5) - image) == 0
