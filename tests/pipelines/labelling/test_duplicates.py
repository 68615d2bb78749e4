import cv2
import numpy as np
import pytest

from pipelines.labelling.duplicates import near_duplicates, perceptual_hash
from tests.support.labelling import blurred


def test_the_hash_of_a_picture_that_brightens_to_the_right_is_all_ones():
    image = np.tile(np.linspace(0, 255, 90, dtype=np.uint8)[:, None], (80, 1, 3))
    assert perceptual_hash(image) == 2**64 - 1
    assert perceptual_hash(image[:, ::-1]) == 0


def test_the_first_bit_is_the_upper_left_one():
    image = np.full((80, 90, 3), 100, np.uint8)
    image[:10, 10:] = 200
    assert perceptual_hash(image) == 1 << 63


def test_size_compression_and_brightness_hardly_change_a_hash():
    image = blurred(3, 300, 400)
    _, data = cv2.imencode(".jpg", (image * 0.8).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 60])
    other = cv2.resize(cv2.imdecode(data, cv2.IMREAD_COLOR), (160, 120), interpolation=cv2.INTER_AREA)
    assert (perceptual_hash(image) ^ perceptual_hash(other)).bit_count() <= 4
    assert (perceptual_hash(image) ^ perceptual_hash(blurred(4))).bit_count() > 16


@pytest.mark.parametrize("distance", [0, 1, 3, 7])
def test_near_duplicates_are_those_that_comparing_all_finds(distance):
    generator = np.random.default_rng(distance)
    hashes: list[int | None] = []
    for position in range(300):
        if position % 3 and hashes[position - 1] is not None:  # flip some bits of an earlier one
            flipped = sum(1 << int(bit) for bit in generator.choice(64, generator.integers(0, 9), False))
            hashes.append(int(hashes[int(generator.integers(position))] or 0) ^ flipped)
        else:
            hashes.append(None if position % 50 == 49 else int(generator.integers(2**63)))
    kept: list[int] = []
    expected = {}
    for position, value in enumerate(hashes):
        if value is None:
            continue
        near = [one for one in kept if bin(value ^ int(hashes[one] or 0)).count("1") <= distance]
        if near:
            expected[position] = near[0]
        else:
            kept.append(position)
    assert expected
    assert near_duplicates(hashes, distance) == expected
