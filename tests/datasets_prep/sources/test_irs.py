"""IRS: OpenEXR channels, metric inverse depth, ids of any width, list files."""

import numpy as np
import pytest

from datasets_prep.errors import BadSample
from datasets_prep.formats import maps
from datasets_prep.formats import pictures as formats
from datasets_prep.plan.listing import list_samples
from datasets_prep.sources.irs import IRS
from datasets_prep.storage.folder import Folder
from datasets_prep.synthetic import VIEWS
from tests.support.raw_files import good_samples, left_out, put, read_first

SCENES = 8


def write(root, disparity, number="1960", scene="Home/A", channels=("G",)):
    image = formats.encode_png(np.zeros((*disparity.shape, 3), np.uint8))
    depth = maps.encode_exr(dict.fromkeys(channels, disparity))
    put(root / scene, {f"l_{number}.png": image, f"d_{number}.exr": depth})


@pytest.mark.heavy
def test_counts_groups_and_official_lists(written):
    tree = written("irs", SCENES)
    samples = [s for s in list_samples(IRS(), tree.root).samples if s.sample_id not in tree.traps]
    assert len(samples) == SCENES * VIEWS
    assert len({s.group for s in samples}) == SCENES
    held_out = {s.group for s in samples if s.split == "test"}
    assert held_out == {"Store/Rendered007"}
    assert {s.split for s in samples} == {"train", "test"}


def test_values_are_the_scenes_inverse_metres(written):
    tree = written("irs", SCENES)
    for sample in good_samples(IRS(), tree):
        scene = tree.scenes[int(sample.group[-3:])][int(sample.sample_id[-5:]) // 7]
        raw = IRS().read(tree.root, sample)
        assert raw.quantity == "inverse_depth"
        assert raw.valid.all()
        np.testing.assert_allclose(raw.target, 1 / scene.depth, rtol=1e-5)


def test_invalid_disparity(tmp_path):
    write(tmp_path, np.array([[0, -3, np.nan, np.inf, 48, 24]], np.float32))
    raw = read_first(IRS(), tmp_path)
    assert raw.valid.tolist() == [[False, False, False, False, True, True]]
    assert raw.target.tolist() == [[0, 0, 0, 0, 1.0, 0.5]]


@pytest.mark.parametrize("channels", [("G",), ("Y",), ("R", "G", "B"), ("B", "R")])
def test_channel_names(tmp_path, channels):
    write(tmp_path, np.full((2, 3), 24, np.float32), channels=channels)
    assert (read_first(IRS(), tmp_path).target == 0.5).all()


def test_green_comes_first():
    channels = {name: np.full((2, 3), value, np.float32) for name, value in (("R", 1), ("G", 2), ("B", 3))}
    assert (maps.decode_exr(maps.encode_exr(channels), "depth", ("G", "R")) == 2).all()


def test_ids_of_any_width_are_numbers(tmp_path):
    write(tmp_path, np.ones((1, 2), np.float32), "7")
    write(tmp_path, np.ones((1, 2), np.float32), "00012")
    assert [s.sample_id for s in IRS().list(Folder(tmp_path)).samples] == ["Home/A/00007", "Home/A/00012"]


def test_list_files_may_pad_ids_otherwise(tmp_path):
    for number in ("7", "8", "9"):
        write(tmp_path, np.ones((1, 2), np.float32), number)
    line = "IRSDataset/Home/A/l_00007.png IRSDataset/Home/A/r_00007.png\t\r\n../../etc/passwd x\n\n"
    (tmp_path / "IRSDataset_TEST.list").write_text(line)
    (tmp_path / "train.list").write_text("Home/A/l_8.png Home/A/r_8.png Home/A/d_8.exr Home/A/n_8.exr")
    listing = list_samples(IRS(), Folder(tmp_path))
    splits = {s.sample_id: s.split for s in listing.samples}
    assert splits == {"Home/A/00007": "test", "Home/A/00008": "train"}
    assert [r.reason for r in listing.rejected] == [
        "1 of 2 entries name no sample that is here, the first: '../../etc/passwd x'",
        "1 samples are in no list, the first: Home/A/00009",
    ]


def test_empty_disparity_is_refused(tmp_path):
    write(tmp_path, np.zeros((2, 3), np.float32))
    with pytest.raises(BadSample, match="empty"):
        read_first(IRS(), tmp_path)


def test_missing_image_is_left_out(tmp_path):
    write(tmp_path, np.ones((2, 3), np.float32))
    (tmp_path / "Home" / "A" / "l_1960.png").unlink()
    assert left_out(IRS(), tmp_path) == ["no image l_1960.png"]


# ---- OpenEXR
def test_exr_round_trip():
    values = np.random.default_rng(0).normal(size=(33, 47)).astype(np.float32)
    decoded = maps.decode_exr(maps.encode_exr({"G": values}), "depth", ("G",))
    np.testing.assert_array_equal(decoded, values)


def test_exr_without_the_channels_is_refused():
    data = maps.encode_exr(dict.fromkeys(("X", "Y"), np.ones((2, 2), np.float32)))
    with pytest.raises(BadSample, match=r"^depth EXR has channels \['X', 'Y'\], expected G or R$"):
        maps.decode_exr(data, "depth", ("G", "R"))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.9, 0.999])
def test_truncated_exr_is_refused(share):
    values = np.random.default_rng(0).normal(size=(133, 147)).astype(np.float32)
    data = maps.encode_exr({"G": values})
    with pytest.raises(BadSample, match=r"^depth EXR"):
        maps.decode_exr(data[: int(share * len(data))], "depth", ("G",))


def test_absurd_exr_size_is_refused_from_the_header():
    data = bytearray(maps.encode_exr({"G": np.ones((4, 4), np.float32)}))
    at = data.index(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4
    data[at + 8 : at + 16] = np.array([99_999, 99_999], "<i4").tobytes()
    with pytest.raises(BadSample, match=r"^depth declares 100000x100000 pixels, more than 50 megapixels$"):
        maps.decode_exr(bytes(data), "depth", ("G",))


@pytest.mark.heavy
def test_exr_with_absurdly_many_channels_is_refused():
    channels = {f"c{number:03d}": np.zeros((400, 500), np.float32) for number in range(260)}
    with pytest.raises(BadSample, match="more than 50 megapixels"):
        maps.decode_exr(maps.encode_exr(channels), "depth", ("G",))


def test_a_list_with_an_endless_number_names_nothing():
    assert IRS().listed((f"Home/x/l_{'9' * 5000}.png",)) is None
