from pathlib import Path

import cv2
import numpy as np
import pytest

import dpt
from datasets_prep.storage import Folder
from pipelines.config import ConfigError, PredictConfig
from pipelines.predict import (
    BadImage,
    find_images,
    find_model,
    predict,
    read_image,
    resolve_device,
    write_prediction,
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    dpt.save_model(dpt.create_model("dpt_tiny"), tmp_path / "model")
    return tmp_path / "model"


def photo(path: Path, height: int, width: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))
    return path


@pytest.mark.parametrize("size", [(50, 70), (33, 200), (1, 1), (300, 40)])
def test_any_size_is_predicted_at_its_own_size(model: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    path = photo(tmp_path / "in" / "a.png", *size)
    assert list(predict(PredictConfig(side=64), model, [path], str(tmp_path / "out"))) == [(path, None)]
    inverse_depth = np.load(tmp_path / "out" / "a.npy")
    assert (inverse_depth.shape, inverse_depth.dtype) == (size, np.float32)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.npy", "a.png", "a_colour.png"]


def test_a_bad_image_is_named_and_the_others_go_on(model: Path, tmp_path: Path) -> None:
    good = photo(tmp_path / "in" / "good.jpg", 40, 40)
    bad, empty = tmp_path / "in" / "bad.jpg", tmp_path / "in" / "empty.jpg"
    bad.write_bytes(b"no image")
    empty.write_bytes(b"")
    results = dict(predict(PredictConfig(), model, [bad, empty, good], str(tmp_path / "out")))
    assert results == {
        bad: f"{bad} is no readable image",
        empty: f"{empty} is no readable image",
        good: None,
    }


def test_folders_are_searched_for_images(tmp_path: Path) -> None:
    first, second = photo(tmp_path / "in" / "a.JPG", 8, 8), photo(tmp_path / "in" / "b.png", 8, 8)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    assert find_images([tmp_path / "in"]) == [first, second]


def test_what_cannot_be_found_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such image: .*nothing"):
        find_images([tmp_path / "nothing.jpg"])
    with pytest.raises(FileNotFoundError, match=r"no image in folder .* \(looked for \.bmp"):
        find_images([tmp_path])
    with pytest.raises(FileNotFoundError, match="no model at"):
        find_model(str(tmp_path))


def test_results_that_would_overwrite_each_other_are_refused(tmp_path: Path) -> None:
    images = [photo(tmp_path / folder / "a.png", 8, 8) for folder in ("x", "y")]
    with pytest.raises(BadImage, match="2 images are called 'a'"):
        find_images(images)


def test_the_16_bit_picture_is_linear_in_inverse_depth(tmp_path: Path) -> None:
    inverse_depth = np.linspace(3, 9, 200, dtype=np.float32).reshape(10, 20)
    write_prediction(Folder(tmp_path), "a", inverse_depth)
    stored = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED).astype(np.float64)
    np.testing.assert_allclose(3 + 6 * stored / 65535, inverse_depth, atol=1e-4)


def test_a_constant_prediction_is_written_as_zeros(tmp_path: Path) -> None:
    write_prediction(Folder(tmp_path), "a", np.full((4, 4), 2.5, np.float32))
    assert (cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED) == 0).all()


def test_colours_are_red_green_blue(tmp_path: Path) -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 2] = 255
    cv2.imwrite(str(tmp_path / "red.png"), red)
    np.testing.assert_array_equal(read_image(tmp_path / "red.png")[0, 0], [255, 0, 0])


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="device: cuda is asked for"):
        resolve_device("cuda")
    assert resolve_device("auto").type == "cpu"
