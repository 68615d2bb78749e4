"""The sides of Figure 4."""

import pytest

from tune.measurements import resolutions


@pytest.mark.parametrize(("crop", "divisor", "chosen", "expected"), [
    (384, 32, (), [384, 448, 512, 576, 640]),
    (64, 32, (), [64, 96]),
    (384, 32, (500, 384, 640), [384, 512, 640]),
    (384, 32, (100,), [384]),
    (518, 14, (700,), [518, 700]),
])  # fmt: skip
def test_sides_are_whole_patches_and_start_at_the_crop(crop, divisor, chosen, expected):
    assert resolutions(crop, divisor, chosen) == expected
