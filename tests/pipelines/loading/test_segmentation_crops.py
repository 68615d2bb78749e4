import subprocess
import sys

import numpy as np
import pytest

from datasets_prep.formats.pictures import encode_jpeg, encode_png
from datasets_prep.schema import encode_label
from pipelines.loading.rows import BadRow, decode_labelled_row
from pipelines.loading.segmentation_crops import SegmentationCrops, rescaled_size

CROP = 96


def row(labels: np.ndarray, image: np.ndarray | None = None, dataset: str = "ade20k") -> dict:
    """A row whose image shows its classes: red is 20 times the class."""
    if image is None:
        image = np.zeros((*labels.shape, 3), np.uint8)
        image[..., 0] = np.where(labels == 255, 0, 20 * labels.astype(int))
        image[..., 2] = 255
    return {
        "sample_id": "a photo", "dataset": dataset, "scale": None,
        "image": encode_png(image), "label": encode_label(labels),
    }  # fmt: skip


def crop(
    given: dict, draws: tuple[float, ...], flip: bool = True, side: int = CROP
) -> tuple[np.ndarray, np.ndarray]:
    image, target = np.full((side, side, 3), 7, np.uint8), np.full((side, side), 7, np.uint8)
    SegmentationCrops((side, side), flip, 104, (0.5, 2.0))(given, np.array(draws), image, target)
    return image, target


def blocks(height: int = 90, width: int = 130) -> np.ndarray:
    """Rectangles of the classes 0 to 11."""
    rows, columns = np.arange(height) * 3 // height, np.arange(width) * 4 // width
    return (4 * rows[:, None] + columns).astype(np.uint8)


@pytest.mark.parametrize("size", [0.0, 0.33, 0.7, 0.999])
@pytest.mark.parametrize("place", [(0.0, 0.0), (0.4, 0.6), (0.999, 0.999)])
@pytest.mark.parametrize("mirror", [0.1, 0.9])
def test_image_and_labels_stay_together(size, place, mirror):
    image, target = crop(row(blocks()), (size, *place, mirror))
    inside = target != 255
    assert set(np.unique(target[inside])) <= set(range(12))  # no class is mixed of two others
    wrong = np.abs(image[..., 0].astype(int) - 20 * target.astype(int)) > 10
    # Where classes meet the image is mixed; the nearest label is that of one of both.
    assert (wrong & inside).mean() < 0.1
    assert (image[~inside] == 0).all()
    assert (image[inside][:, 2] > 200).all()


def test_sizes_are_those_of_the_protocol():
    assert rescaled_size(512, 683, 520, (0.5, 2.0), 0.0) == (195, 260)
    assert rescaled_size(683, 512, 520, (0.5, 2.0), 0.999999) == (1040, 780)
    lengths = {rescaled_size(100, 200, 520, (0.5, 2.0), draw)[1] for draw in np.linspace(0, 0.9999, 5000)}
    assert lengths == set(range(260, 1041))


def test_what_is_too_small_is_filled_up_at_the_right_and_below():
    image, target = crop(row(np.full((60, 80), 3, np.uint8)), (0.0, 0.5, 0.5, 0.9))
    assert rescaled_size(60, 80, 104, (0.5, 2.0), 0.0) == (39, 52)
    assert (target[:39, :52] == 3).all()
    assert (target[39:] == 255).all()
    assert (target[:, 52:] == 255).all()
    assert (image[39:] == 0).all()


def test_loading_processes_import_no_network():
    heavy = "{'torch', 'ray', 'mlflow'}"
    code = f"import sys, pipelines.loading.segmentation_crops; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_half_are_mirrored():
    labels = blocks()
    one, _ = crop(row(labels), (0.5, 0.2, 0.3, 0.6))
    mirrored, _ = crop(row(labels), (0.5, 0.2, 0.3, 0.4))
    never, _ = crop(row(labels), (0.5, 0.2, 0.3, 0.4), flip=False)
    np.testing.assert_array_equal(mirrored, one[:, ::-1])
    np.testing.assert_array_equal(never, one)


def test_crops_are_a_function_of_row_and_draws():
    first, again = (crop(row(blocks()), (0.31, 0.7, 0.2, 0.8)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("change", "message"), [
    ({"label": None}, "sample a photo: it has no labels"),
    ({"label": b"nonsense"}, "sample a photo: "),
    ({"image": encode_jpeg(np.zeros((5, 5, 3), np.uint8))}, "sample a photo: image is"),
    ({"label": encode_label(np.full((90, 130), 150, np.uint8))},
     "label 150 is not one of the 150 classes of ade20k"),
    ({"dataset": "pascal_context_59", "label": encode_label(np.full((90, 130), 59, np.uint8))},
     "label 59 is not one of the 59 classes of pascal_context_59"),
])  # fmt: skip
def test_damage_names_the_sample(change, message):
    with pytest.raises(BadRow, match=message):
        decode_labelled_row(row(blocks()) | change)
    unlabelled = np.full((90, 130), 255, np.uint8)
    assert (decode_labelled_row(row(blocks()) | {"label": encode_label(unlabelled)})[1] == 255).all()
