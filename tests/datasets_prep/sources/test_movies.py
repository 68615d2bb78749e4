"""3D Movies: the authors' tree, negative disparity, the official split of films, and their lists."""

from pathlib import Path

import numpy as np
import pytest

from datasets_prep.errors import BadSample
from datasets_prep.formats.disparity_png import encode_disparity, encode_uncertainty
from datasets_prep.formats.pictures import encode_jpeg
from datasets_prep.plan.listing import list_samples
from datasets_prep.plan.split_lists import read_lists
from datasets_prep.sources.movies import Movies
from datasets_prep.storage.folder import Folder
from datasets_prep.writers.movies import FILMS
from tests.support.paths import SAMPLES
from tests.support.raw_files import good_samples, put, read_first

NAME = "hugo/chapter2/out00000042"
REAL = SAMPLES / "splits"


def write(
    root: Path, disparity: np.ndarray, uncertainty: np.ndarray, image_size=(8, 12), name=NAME
) -> Folder:
    contents = {
        f"image_left/{name}.jpg": encode_jpeg(np.zeros((*image_size, 3), np.uint8)),
        f"disparity/{name}.png": encode_disparity(disparity.astype(np.float32)),
        f"uncertainty/{name}.png": encode_uncertainty(uncertainty.astype(np.float32)),
    }
    return put(root, contents)


def test_negative_disparity_is_valid_and_uncertain_pixels_are_not(tmp_path):
    disparity = np.linspace(-7, 11, 24).reshape(4, 6)
    uncertainty = np.zeros((4, 6))
    uncertainty[0] = [0, 1.9, 2.0, 2.1, 25.5, 100]
    root = write(tmp_path, disparity, uncertainty)
    [sample] = Movies().list(root).samples
    raw = Movies().read(root, sample)
    assert (sample.sample_id, sample.group, sample.split) == (NAME, "hugo", "train")
    assert raw.quantity == "inverse_depth"
    assert raw.target.min() < -6.9
    np.testing.assert_allclose(raw.target, disparity, atol=1e-3)
    assert raw.valid[0].tolist() == [True, True, False, False, False, False]
    assert raw.valid[1:].all()


@pytest.mark.parametrize("size", [(8, 12), (4, 6), (9, 13), (12, 18)])
def test_images_are_whole_multiples_of_their_disparity(tmp_path, size):
    root = write(tmp_path, np.eye(4, 6), np.zeros((4, 6)), size)
    read_first(Movies(), root)


@pytest.mark.parametrize("size", [(8, 18), (3, 6), (8, 8)])
def test_images_of_another_shape_are_refused(tmp_path, size):
    root = write(tmp_path, np.eye(4, 6), np.zeros((4, 6)), size)
    with pytest.raises(BadSample, match="expected the same size, or half of it"):
        read_first(Movies(), root)


def test_uncertainty_of_another_size_is_refused(tmp_path):
    root = write(tmp_path, np.eye(4, 6), np.zeros((4, 5)))
    with pytest.raises(BadSample, match="depth is 6x4, its uncertainty 5x4"):
        read_first(Movies(), root)


@pytest.mark.heavy
def test_the_generated_films_have_the_official_split(written):
    tree = written("movies", len(FILMS))
    samples = good_samples(Movies(), tree)
    splits = {sample.group: sample.split for sample in samples}
    assert splits == {**dict.fromkeys(FILMS, "train"), "gatsby": "val", "streetdance": "test"}
    count = {film: sum(s.group == film for s in samples) for film in FILMS}
    assert count == {**dict.fromkeys(FILMS, 8), "gatsby": 2, "streetdance": 2}


def test_other_films_have_no_split(tmp_path):
    root = write(tmp_path, np.eye(4, 6), np.zeros((4, 6)), name="home_video/chapter1/out00000001")
    assert next(iter(Movies().list(root).samples)).split is None


def test_the_authors_lists_choose_frames(tmp_path):
    for number in (1, 2, 3):
        root = write(tmp_path, np.eye(4, 6), np.zeros((4, 6)), name=f"hugo/chapter2/out0000000{number}")
    (tmp_path / "train.txt").write_text("hugo/chapter2/out00000002\r\nhugo/chapter2/out00000003.jpg\r\n")
    listing = list_samples(Movies(), root)
    assert [s.sample_id[-1] for s in listing.samples] == ["2", "3"]


@pytest.mark.skipif(not REAL.is_dir(), reason="the folder of real samples is not there")
def test_the_authors_own_list_names_samples(tmp_path):
    name = (REAL / "3dmovies_test.txt").read_text().split()[5]
    root = write(tmp_path, np.eye(4, 6), np.zeros((4, 6)), name=name)
    listing = list_samples(Movies(), root, read_lists({"test": str(REAL / "3dmovies_test.txt")}))
    assert [(s.sample_id, s.split) for s in listing.samples] == [(name, "test")]
