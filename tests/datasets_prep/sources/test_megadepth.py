"""MegaDepth: HDF5, outliers, ordinal maps, layouts."""

import pickle

import numpy as np
import pytest

from datasets_prep.errors import BadSample
from datasets_prep.formats import pictures as formats
from datasets_prep.formats.hdf5 import encode_hdf5_arrays
from datasets_prep.plan.listing import list_samples
from datasets_prep.sources.megadepth import MegaDepth
from datasets_prep.storage.folder import Folder
from datasets_prep.synthetic import VIEWS, scene_seed
from datasets_prep.writers.megadepth import megadepth_map
from tests.support.raw_files import good_samples, put, read_first

SCENES = 2


def write(root, depth, scene="0015", dense="dense0", name="1_o"):
    image = formats.encode_jpeg(np.zeros((*depth.shape, 3), np.uint8))
    stored = encode_hdf5_arrays({"depth": depth})
    put(root / scene / dense, {f"imgs/{name}.jpg": image, f"depths/{name}.h5": stored})


def read_one(root):
    return read_first(MegaDepth(), root)


def test_counts_and_groups(written):
    tree = written("megadepth", SCENES)
    samples = good_samples(MegaDepth(), tree)
    assert len(samples) == SCENES * VIEWS
    assert {s.group for s in samples} == {"0000", "0001"}
    assert {s.files["image"].rsplit(".", 1)[1] for s in samples} == {"jpg", "JPG"}


def test_values_are_the_scenes_depth_times_one_factor_without_outliers(written):
    tree = written("megadepth", SCENES)
    listing = MegaDepth().list(tree.root)
    for index in range(SCENES):
        samples = [s for s in listing.samples if s.group == f"{index:04d}"]
        samples.sort(key=lambda s: int(s.sample_id.rsplit("/", 1)[1].split("_")[0]))
        for sample, scene in zip(samples, tree.scenes[index], strict=True):
            raw = MegaDepth().read(tree.root, sample)
            stored = megadepth_map(scene, scene_seed("megadepth", 0, index))
            np.testing.assert_array_equal(raw.target[raw.valid], stored[raw.valid])
            assert 0.95 < raw.valid.sum() / (stored > 0).sum() < 0.985


def test_outliers_are_dropped_at_both_ends_one_after_the_other(tmp_path):
    depth = np.arange(0, 1001, dtype=np.float32).reshape(7, 143)
    write(tmp_path, depth)
    raw = read_one(tmp_path)
    # 1…1000 without those over 980.02; of the rest those under 10.79.
    assert (raw.target[raw.valid].min(), raw.target.max(), raw.valid.sum()) == (11, 980, 970)
    assert not raw.valid[0, 0]


def test_few_points_are_kept_whole(tmp_path):
    depth = np.zeros((4, 5), np.float32)
    depth[0] = [1.5, 2, 3, 4, 500]
    write(tmp_path, depth)
    assert read_one(tmp_path).valid.sum() == 5


@pytest.mark.parametrize("labels", [(-1.0, 0.0, 1.0), (0.0, 1.0, 2.0, 3.0), (-0.5, 2.25, 7.0)])
def test_ordinal_maps_are_refused(tmp_path, labels):
    write(tmp_path, np.resize(np.float32(labels), (30, 40)))
    with pytest.raises(BadSample, match="ordinal"):
        read_one(tmp_path)


@pytest.mark.parametrize("values", [(0, 1.25, 2.5), range(1, 50)], ids=["no whole numbers", "many values"])
def test_depths_that_are_few_or_whole_are_depth(tmp_path, values):
    write(tmp_path, np.resize(np.float32(values), (30, 40)))
    assert read_one(tmp_path).valid.any()


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_empty_map_is_refused(tmp_path, value):
    write(tmp_path, np.full((30, 40), value, np.float32))
    with pytest.raises(BadSample, match="empty"):
        read_one(tmp_path)


def test_dense_folders_are_not_limited(tmp_path):
    for dense in ("dense0", "dense1", "dense17"):
        write(tmp_path / "phoenix/S6/zl548/MegaDepth_v1", np.ones((2, 2), np.float32), "5018", dense)
    samples = MegaDepth().list(Folder(tmp_path)).samples
    assert [s.sample_id for s in samples] == ["5018/dense0/1_o", "5018/dense1/1_o", "5018/dense17/1_o"]
    assert {s.group for s in samples} == {"5018"}


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_lists_of_the_authors_give_the_split(tmp_path, protocol):
    lists = {
        "train_list/landscape": ["0015/dense0/imgs/1_o.jpg", "0015/dense0/imgs/gone.jpg"],
        "train_list/portrait": ["/0016/dense0/imgs/1_o.jpg"],
        "val_list/landscape": ["0017/dense0/imgs/1_o.jpg"],
    }
    for scene in ("0015", "0016", "0017", "0018"):
        write(tmp_path / "phoenix/S6/zl548/MegaDepth_v1", np.ones((2, 2), np.float32), scene)
    files = {f"{folder}/imgs_MD.p": pickle.dumps(names, protocol) for folder, names in lists.items()}
    put(tmp_path / "final_list", files)
    listing = list_samples(MegaDepth(), Folder(tmp_path))
    splits = {sample.group: sample.split for sample in listing.samples}
    assert splits == {"0015": "train", "0016": "train", "0017": "val"}
    assert sorted(r.reason.split(",")[0] for r in listing.rejected) == [
        "1 of 2 entries name no sample that is here",
        "1 samples are in no list",
    ]
