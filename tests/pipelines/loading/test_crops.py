import numpy as np
import pytest

from pipelines.loading.crops import crop_and_flip


def cropped_to(
    side: int, image: np.ndarray, target: np.ndarray, draws: tuple[float, float, float], flip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """`crop_and_flip` into memory that held something else before."""
    image_out, target_out = np.full((side, side, 3), 99, np.uint8), np.full((side, side), 99, np.float16)
    crop_and_flip(image, target, np.asarray(draws), flip, image_out, target_out)
    return image_out, target_out


@pytest.mark.parametrize("draws", [(0.0, 0.0, 0.9), (0.999, 0.999, 0.9), (0.5, 0.25, 0.1)])
def test_crops_stay_inside_and_move_image_and_target_alike(draws):
    rows, columns = np.mgrid[:20, :30]
    image = np.stack([rows, columns, rows + columns], axis=-1).astype(np.uint8)
    target = (rows * 30 + columns).astype(np.float16)
    cropped, cropped_target = cropped_to(16, image, target, draws, flip=True)
    assert cropped.shape == (16, 16, 3)
    expected = cropped[..., 0].astype(int) * 30 + cropped[..., 1]
    np.testing.assert_array_equal(cropped_target, expected.astype(np.float16))
    mirrored = cropped[0, 0, 1] > cropped[0, -1, 1]
    assert mirrored == (draws[2] < 0.5)


def test_without_flip_nothing_is_mirrored():
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    same, _ = cropped_to(4, image, np.zeros((4, 4), np.float16), (0.0, 0.0, 0.0), flip=False)
    np.testing.assert_array_equal(same, image)


def test_what_is_too_small_is_padded_as_invalid():
    image = np.full((10, 40, 3), 7, np.uint8)
    for draws in ((0.9, 0.9, 0.9), (0.9, 0.9, 0.1)):
        padded, target = cropped_to(32, image, np.ones((10, 40), np.float16), draws, flip=True)
        assert (padded[:10] == 7).all()
        assert (padded[10:] == 0).all()
        assert (target[:10] == 1).all()
        assert np.isnan(target[10:]).all()


def test_a_rectangular_crop_keeps_image_and_target_together():
    rows, columns = np.mgrid[:20, :30]
    image = np.stack([rows, columns, rows], axis=-1).astype(np.uint8)
    image_out, target_out = np.empty((8, 24, 3), np.uint8), np.empty((8, 24), np.float16)
    crop_and_flip(
        image, (rows + columns).astype(np.float16), np.asarray([0.5, 0.9, 0.9]), True, image_out, target_out
    )
    np.testing.assert_array_equal(target_out, image_out[..., 0].astype(np.float16) + image_out[..., 1])
    assert (image_out[0, 0, 0], image_out[0, 0, 1]) == (6, 6)
