"""A user's own folder: its description, units, invalid pixels, formats and splits."""

import io

import numpy as np
import pytest
from PIL import Image

from datasets_prep.errors import BadSample, WrongLayout
from datasets_prep.formats import maps
from datasets_prep.formats import pictures as formats
from datasets_prep.plan.listing import list_samples
from datasets_prep.plan.shards import open_source, plan_ingest
from datasets_prep.settings import IngestSettings
from datasets_prep.sources.folder import FolderSource, read_description
from datasets_prep.storage.folder import Folder
from datasets_prep.synthetic import VIEWS
from datasets_prep.writers.folder import ENCODERS, UNIT_METRES, folder_map
from tests.support.raw_files import good_samples, put, read_first

GOOD = "name: mine\nquantity: depth\nmetric: true\nscale: 0.001\n"


def write(root, values=((0, 1000, 2500),), description=GOOD, name="a", suffix="npy"):
    stored = np.array(values, np.float32)
    depth, black = ENCODERS[suffix](stored), formats.encode_jpeg(np.zeros((*stored.shape, 3), np.uint8))
    files = {f"images/{name}.jpg": black, f"depth/{name}.{suffix}": depth}
    return put(root, {**files, "dataset.yaml": description.encode()})


def read_one(root):
    source = FolderSource().opened(root, {})
    return source, read_first(source, root)


def test_every_format_gives_the_scenes_metres(written):
    tree = written("folder", 2)
    source = FolderSource().opened(tree.root, {})
    seen = set()
    for sample in good_samples(source, tree):
        scene = tree.scenes[int("/" in sample.sample_id)][int(sample.sample_id[-4:])]
        raw = source.read(tree.root, sample)
        stored = folder_map(scene)
        np.testing.assert_array_equal(raw.valid, (stored > 0) & ~scene.sky)
        np.testing.assert_array_equal(raw.sky, scene.sky & (stored > 0))
        np.testing.assert_allclose(raw.target[raw.valid], stored[raw.valid] * UNIT_METRES)
        seen.add(sample.files["depth"].rpartition(".")[2])
    assert seen == set(ENCODERS)
    assert len(ENCODERS) <= VIEWS


def test_folders_inside_are_scenes(written):
    groups = {sample.group for sample in FolderSource().list(written("folder", 2).root).samples}
    assert {"place 1", "traps"} < groups
    assert len(groups) == 2 + VIEWS


@pytest.mark.parametrize(("description", "kind"), [
    (GOOD, "metric"),
    ("name: x\nquantity: depth\nmetric: false", "up-to-scale"),
    ("name: x\nquantity: disparity\nmetric: false", "affine"),
    ("name: x\nquantity: inverse_depth\nmetric: false", "affine"),
    ("name: x\nquantity: disparity\nmetric: true\nscale: 0.02", "metric"),
])  # fmt: skip
def test_the_description_says_what_is_known(tmp_path, description, kind):
    assert FolderSource().opened(write(tmp_path, description=description), {}).target_kind == kind


def test_scale_and_invalid_values(tmp_path):
    description = GOOD + "invalid: [-1, 65535]\nsky: 7\n"
    root = write(tmp_path, [[0, -1, 65535, 7, 2000, np.nan, np.inf]], description)
    _, raw = read_one(root)
    assert raw.valid.tolist() == [[False, False, False, False, True, False, False]]
    assert (raw.sky.tolist(), raw.target[0, 4]) == ([[False, False, False, True, False, False, False]], 2)


def test_disparity_of_zero_is_far_unless_it_is_invalid(tmp_path):
    kind = "name: x\nquantity: disparity\nmetric: false\n"
    _, raw = read_one(write(tmp_path, [[0, 1, 2]], kind + "invalid: []\n"))
    assert raw.quantity == "inverse_depth"
    assert raw.valid.all()
    _, raw = read_one(write(tmp_path, [[0, 1, 2]], kind))
    assert raw.valid.tolist() == [[False, True, True]]


@pytest.mark.parametrize(("description", "message"), [
    ("quantity: depth\nmetric: false", "name: missing"),
    (GOOD.replace("mine", "My Robot"), "name: .*pattern.*'My Robot'"),
    (GOOD.replace("depth", "height"), "quantity: .*'depth', 'inverse_depth' or 'disparity'.*'height'"),
    (GOOD.replace("0.001", "0"), "scale: .*greater than 0, got 0"),
    (GOOD.replace("0.001", ".inf"), "scale: .*finite"),
    (GOOD.replace("true", "false"), "scale: needed where metric is true, and only there"),
    ("name: x\nquantity: depth\nmetric: true", "scale: needed where metric is true"),
    (GOOD + "units: mm", r"units: unknown key; there are: name, quantity, metric, scale, invalid, sky"),
    (GOOD + "invalid: zero", "invalid: .*got 'zero'"),
    ("- a\n- b", "expected keys with values, got list"),
    ("name: {", "not valid YAML: line 1: "),
    ("", "expected keys with values, got NoneType"),
])  # fmt: skip
def test_a_wrong_description_is_refused_naming_the_key(tmp_path, description, message):
    with pytest.raises(WrongLayout, match=rf"dataset\.yaml.*{message}"):
        read_description(write(tmp_path, description=description))


def test_a_folder_without_description_is_none(tmp_path):
    root = write(tmp_path)
    (tmp_path / "dataset.yaml").unlink()
    with pytest.raises(WrongLayout, match=r"^no .*dataset.yaml: it says what the depth is"):
        plan_ingest("folder", root.uri, IngestSettings())


def test_the_name_and_the_version_come_from_the_description(tmp_path):
    root = write(tmp_path)
    first = plan_ingest("folder", root.uri, IngestSettings())
    assert (first.source, first.dataset, first.target_kind) == ("folder", "mine", "metric")
    (tmp_path / "dataset.yaml").write_text(f"# my robot\n{GOOD}")
    assert plan_ingest("folder", root.uri, IngestSettings()).version == first.version
    (tmp_path / "dataset.yaml").write_text(GOOD.replace("0.001", "0.002"))
    assert plan_ingest("folder", root.uri, IngestSettings()).version != first.version


def test_splits_by_name_with_or_without_suffix(tmp_path):
    for name in ("a", "b/c", "d"):
        root = write(tmp_path, name=name)
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train.txt").write_text("a\r\nimages/b/c.jpg\n")
    (tmp_path / "splits" / "test.txt").write_text("d.jpg\n")
    source = FolderSource().opened(Folder(root.uri), {})
    splits = {s.sample_id: s.split for s in list_samples(source, Folder(root.uri)).samples}
    assert splits == {"a": "train", "b/c": "train", "d": "test"}


def test_two_images_of_one_name(tmp_path):
    write(tmp_path)
    (tmp_path / "images" / "a.png").write_bytes(formats.encode_png(np.zeros((1, 3, 3), np.uint8)))
    listing = FolderSource().list(Folder(tmp_path))
    assert len(listing.samples) == 1
    assert [r.reason for r in listing.rejected] == ["second file of the name of images/a.jpg"]


@pytest.mark.parametrize(("suffix", "data", "message"), [
    ("tif", b"II*\0garbage", "depth is not a TIFF, or damaged"),
    ("tif", "RGB", "depth TIFF has pixels of kind RGB"),
    ("npy", maps.encode_npy(np.zeros((2, 2, 3), np.float32)), r"depth NPY holds \(2, 2, 3\)"),
    ("png", formats.encode_png(np.arange(12, dtype=np.uint8).reshape(2, 2, 3)), "colour picture"),
])  # fmt: skip
def test_maps_that_are_none_are_refused(tmp_path, suffix, data, message):
    if data == "RGB":
        stream = io.BytesIO()
        Image.new("RGB", (3, 2)).save(stream, "TIFF")
        data = stream.getvalue()
    root = write(tmp_path, suffix=suffix)
    (tmp_path / "depth" / f"a.{suffix}").write_bytes(data)
    with pytest.raises(BadSample, match=message):
        read_one(root)


@pytest.mark.parametrize("shape", [(1, 2, 3), (2, 3, 1)])
def test_an_npy_map_may_have_one_channel(tmp_path, shape):
    root = write(tmp_path, np.zeros((2, 3)))
    (tmp_path / "depth" / "a.npy").write_bytes(maps.encode_npy(np.ones(shape, np.float32)))
    assert read_one(root)[1].target.shape == (2, 3)


@pytest.mark.parametrize("mode", ["L", "I;16", "I", "F"])
def test_tiff_of_every_kind_of_number(tmp_path, mode):
    dtype = {"L": np.uint8, "I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    values = np.array([[0, 100, 200]], dtype)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "TIFF")
    root = write(tmp_path, suffix="tif")
    (tmp_path / "depth" / "a.tif").write_bytes(stream.getvalue())
    np.testing.assert_allclose(read_one(root)[1].target, [[0, 0.1, 0.2]], rtol=1e-6)


@pytest.mark.parametrize("name", ["redweb", "folder"])
def test_the_name_of_a_published_dataset_is_refused(name, tmp_path):
    root = write(tmp_path, description=GOOD.replace("mine", name))
    with pytest.raises(WrongLayout, match=f"name: '{name}' is taken by a published dataset"):
        open_source("folder", root.uri, IngestSettings())
