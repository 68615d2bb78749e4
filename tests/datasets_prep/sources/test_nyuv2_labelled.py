"""NYUv2's labelled file: axes, units, the split, what is read of it, and damage."""

import h5py
import numpy as np
import pytest

from datasets_prep.errors import BadSample, WrongLayout
from datasets_prep.formats import pictures as formats
from datasets_prep.formats.matlab import decode_matlab_array, encode_matlab_arrays
from datasets_prep.sources.nyuv2_labelled import NYUv2Labelled
from datasets_prep.storage.folder import DigestingFolder, Folder
from datasets_prep.synthetic import VIEWS
from datasets_prep.writers.nyuv2_labelled import raw_depth
from tests.support.paths import SAMPLES
from tests.support.raw_files import good_samples

SCENES = 2
NAME = "nyu_depth_v2_labeled.mat"
REAL = SAMPLES / "splits" / "nyuv2_splits.mat"
SPLITS = {"trainNdxs": np.array([[1.0], [3.0]]), "testNdxs": np.array([[2.0]])}


def write(root, photos=3, splits=SPLITS, **changes):
    """A file of `photos` photos of 2 x 3 pixels; photo n is grey of value n."""
    greys = np.arange(1, photos + 1, dtype=np.uint8)[:, None, None, None]
    depths = np.arange(photos * 6, dtype=np.float32).reshape(photos, 3, 2)
    arrays = {"images": greys * np.ones((1, 3, 3, 2), np.uint8), "rawDepths": depths, **changes}
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / NAME, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    (root / "splits.mat").write_bytes(encode_matlab_arrays(splits))
    return Folder(root)


def test_pixels_and_metres_are_the_scenes(written):
    tree, source = written("nyuv2_labelled", SCENES), NYUv2Labelled()
    samples = good_samples(source, tree)
    scenes = [scene for views in tree.scenes[:SCENES] for scene in views]
    assert len(samples) == len(scenes) == SCENES * VIEWS
    for sample, scene in zip(samples, scenes, strict=True):
        raw = source.read(tree.root, sample)
        np.testing.assert_array_equal(formats.decode_rgb(raw.image), scene.image)
        np.testing.assert_array_equal(raw.target, raw_depth(scene))
        np.testing.assert_array_equal(raw.valid, raw_depth(scene) > 0)


def test_the_split_counts_from_one(tmp_path):
    listing = NYUv2Labelled().list(write(tmp_path / "a" / "b"))
    splits = {s.sample_id: s.split for s in listing.samples}
    assert splits == {"0001": "train", "0002": "test", "0003": "train"}


def test_columns_come_before_rows(tmp_path):
    root = write(tmp_path)
    raw = NYUv2Labelled().read(root, list(NYUv2Labelled().list(root).samples)[1])
    assert raw.target.tolist() == [[6, 8, 10], [7, 9, 11]]
    assert formats.decode_rgb(raw.image).tolist() == [[[2, 2, 2]] * 3] * 2


def test_a_photo_is_read_without_the_others(tmp_path, monkeypatch):
    root = write(tmp_path)
    sample = next(iter(NYUv2Labelled().list(root).samples))

    def refuse(self, relative, most=None):
        raise AssertionError(f"{relative} was loaded whole")

    monkeypatch.setattr(Folder, "read_bytes", refuse)
    assert NYUv2Labelled().read(root, sample).target.shape == (2, 3)


def test_the_digest_is_of_the_photo(tmp_path):
    write(tmp_path)
    root = DigestingFolder(str(tmp_path))
    samples = list(NYUv2Labelled().list(root).samples)
    digests = []
    for index in (0, 1, 0):
        root.take_digest()
        NYUv2Labelled().read(root, samples[index])
        digests.append(root.take_digest())
    assert digests[0] == digests[2] != digests[1]


def test_a_file_that_changed_is_opened_again(tmp_path):
    root = write(tmp_path)
    sample = next(iter(NYUv2Labelled().list(root).samples))
    before = NYUv2Labelled().read(root, sample).target
    (tmp_path / NAME).unlink()
    write(tmp_path, photos=5)
    with h5py.File(tmp_path / NAME, "r+") as file:
        file["rawDepths"][...] = 9
    after = NYUv2Labelled().read(Folder(tmp_path), sample).target
    assert before.tolist() != after.tolist() == [[9, 9, 9]] * 2


def test_without_splits_it_is_refused(tmp_path):
    write(tmp_path)
    (tmp_path / "splits.mat").unlink()
    with pytest.raises(WrongLayout, match=rf"^no splits.mat beside {NAME}"):
        NYUv2Labelled().list(Folder(tmp_path))


def test_photos_in_no_split_are_left_out(tmp_path):
    listing = NYUv2Labelled().list(write(tmp_path, photos=5))
    assert len(listing.samples) == 3
    assert [r.reason for r in listing.rejected] == [f"photo {n} is in no split of splits.mat" for n in (4, 5)]


@pytest.mark.parametrize(("changes", "message"), [
    ({"images": np.zeros((3, 2, 2), np.uint8)}, "/images is not an array of 4 dimensions"),
    ({"rawDepths": np.zeros((3, 2, 3, 1), np.float32)}, "/rawDepths is not an array of 3 dimensions"),
    ({"rawDepths": np.zeros((3, 3, 2), np.uint16)}, "depth has type uint16"),
    ({"images": np.zeros((3, 4, 3, 2), np.uint8)}, "expected 3 channels"),
    ({"rawDepths": np.zeros((1, 3, 2), np.float32)}, "HDF5 damaged"),
])  # fmt: skip
def test_other_arrays_than_expected_are_refused(tmp_path, changes, message):
    root = write(tmp_path, **changes)
    with pytest.raises((BadSample, WrongLayout), match=message):
        NYUv2Labelled().read(root, list(NYUv2Labelled().list(root).samples)[2])


def test_values_in_other_files_are_not_followed(tmp_path):
    root = write(tmp_path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = np.zeros((3, 3, 3, 2), np.uint8)
    with h5py.File(tmp_path / NAME, "r+") as file:
        del file["images"]
        file["images"] = h5py.ExternalLink("other.h5", "/images")
    with pytest.raises(WrongLayout, match="no dataset /images"):
        NYUv2Labelled().list(root)


def test_a_truncated_file_is_refused(tmp_path):
    root = write(tmp_path)
    data = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(data[: len(data) // 2])
    with pytest.raises(WrongLayout, match=rf"^{NAME}: .*HDF5 damaged"):
        NYUv2Labelled().list(root)


@pytest.mark.parametrize("data", [b"", b"MATLAB 5.0 MAT-file", encode_matlab_arrays({"x": np.ones((2, 2))})])
def test_damaged_splits_are_refused(tmp_path, data):
    root = write(tmp_path)
    (tmp_path / "splits.mat").write_bytes(data)
    with pytest.raises(WrongLayout, match=r"splits.mat MATLAB file"):
        NYUv2Labelled().list(root)


@pytest.mark.skipif(not REAL.is_file(), reason="no real samples beside the repository")
def test_the_real_split_has_654_photos_for_testing():
    data = REAL.read_bytes()
    test, train = (decode_matlab_array(data, "splits", name).ravel() for name in ("testNdxs", "trainNdxs"))
    assert (len(test), len(train)) == (654, 795)
    assert sorted([*test, *train]) == list(range(1, 1450))
