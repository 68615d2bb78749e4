"""Sintel, ETH3D, KITTI, NYUv2 and TUM: units, invalid pixels, splits, pairing, and real files."""

from pathlib import Path

import numpy as np
import pytest

from datasets_prep.errors import BadSample, WrongLayout
from datasets_prep.formats import maps
from datasets_prep.formats import pictures as formats
from datasets_prep.formats.hdf5 import encode_hdf5_arrays
from datasets_prep.plan.listing import list_samples
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.plan.split_lists import read_lists
from datasets_prep.settings import IngestSettings
from datasets_prep.sources import SOURCES
from datasets_prep.sources.tum import TUM
from datasets_prep.storage.folder import Folder
from datasets_prep.synthetic import VIEWS
from datasets_prep.writers.eth3d import eth3d_map
from tests.support.paths import SAMPLES
from tests.support.raw_files import good_samples, put, read_first

SCENES = 4
REAL = SAMPLES
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="no real samples beside the repository")


def grey(values, dtype=np.uint16):
    return formats.encode_png(np.array(values, dtype))


BLACK = np.zeros((1, 3, 3), np.uint8)


# ---- The generated sets
@pytest.mark.heavy
@pytest.mark.parametrize(("name", "farthest", "error"), [
    ("sintel", np.inf, 0.0),
    ("eth3d", np.inf, 0.0),
    ("kitti", 90, 0.5 / 256),
    ("nyuv2", 10, 0.5e-3),
    ("tum", 13, 0.5 / 5000),
])  # fmt: skip
def test_values_are_the_scenes_metres(name, farthest, error, written):
    tree = written(name, SCENES)
    pictures = [(scene.image.astype(int), scene) for views in tree.scenes for scene in views]
    samples = good_samples(SOURCES[name], tree)
    assert samples
    for sample in samples:
        raw = SOURCES[name].read(tree.root, sample)
        seen = formats.decode_rgb(raw.image).astype(int)
        _, scene = min(pictures, key=lambda pair, seen=seen: np.abs(pair[0] - seen).mean())
        surface = raw.valid & ~scene.sky
        assert surface.mean() > 0.03
        assert scene.depth[surface].max() <= farthest
        assert np.abs(raw.target - scene.depth)[surface].max() <= error * 1.01


@pytest.mark.parametrize(("name", "splits"), [
    ("sintel", {"test": SCENES * VIEWS}),
    ("eth3d", {"test": SCENES * VIEWS}),
    ("tum", {"test": SCENES * VIEWS}),
    ("nyuv2", {"train": 3 * VIEWS, "test": VIEWS}),
    # Drives 0 and 1 have two listed frames each with depth; drive 1 is in `val`.
    ("kitti", {"test": 4, "train": 2 + 4 + 4, "val": 2}),
    ("kitti_161", {"test": 2}),
])  # fmt: skip
def test_splits(name, splits, written):
    tree = written(name, SCENES)
    listing = list_samples(SOURCES[name], tree.root)
    found = [s.split for s in listing.samples if s.sample_id not in tree.traps]
    assert {split: found.count(split) for split in set(found)} == splits


# ---- Sintel
def test_sintel_uses_the_final_pass_only(written):
    samples = good_samples(SOURCES["sintel"], written("sintel", SCENES))
    assert all("/final/" in s.files["image"] for s in samples)
    assert {s.group for s in samples} == {f"rendered_{i}" for i in range(SCENES)}


def test_sintel_invalid_values(tmp_path):
    depth = np.array([[0, np.nan, 1e10]], np.float32)
    files = {
        "training/final/alley_1/frame_0001.png": formats.encode_png(BLACK),
        "training/depth/alley_1/frame_0001.dpt": maps.encode_sintel_depth(depth),
    }
    assert read_first(SOURCES["sintel"], put(tmp_path, files)).valid.tolist() == [[False, False, True]]


# ---- ETH3D
def test_eth3d_infinity_is_invalid(written):
    tree = written("eth3d", SCENES)
    sample = good_samples(SOURCES["eth3d"], tree)[0]
    raw = SOURCES["eth3d"].read(tree.root, sample)
    np.testing.assert_array_equal(raw.valid, np.isfinite(eth3d_map(tree.scenes[0][0])))
    assert (raw.target[~raw.valid] == 0).all()


@pytest.mark.parametrize(("image", "depth"), [
    ("office/images/dslr_images", "office/ground_truth_depth/dslr_images"),
    ("rgb/office/images/dslr_images", "depth/office_dslr_depth/office/ground_truth_depth/dslr_images"),
])  # fmt: skip
def test_eth3d_folders(tmp_path, image, depth):
    values = np.ones((1, 3), "<f4").tobytes()
    files = {f"{image}/DSC_0219.JPG": formats.encode_jpeg(BLACK), f"{depth}/DSC_0219.JPG": values}
    root = put(tmp_path, files)
    [sample] = SOURCES["eth3d"].list(root).samples
    assert sample.sample_id == "office/DSC_0219"
    assert SOURCES["eth3d"].read(root, sample).target.tolist() == [[1, 1, 1]]


# KITTI

DRIVE = "2011_09_26_drive_0002_sync"


def kitti_frame(root, number, split="val", camera="image_02", values=((0, 256, 128),), suffix="png"):
    image = formats.encode_png(BLACK) if suffix == "png" else formats.encode_jpeg(BLACK)
    depth = f"{split}/{DRIVE}/proj_depth/groundtruth/{camera}/{number:010d}.png"
    put(root, {f"raw/2011_09_26/{DRIVE}/{camera}/data/{number:010d}.{suffix}": image, depth: grey(values)})


def test_kitti_units_and_folder_splits(tmp_path):
    kitti_frame(tmp_path, 5, "val")
    kitti_frame(tmp_path, 6, "train", suffix="jpg")
    kitti_frame(tmp_path, 7, "data")
    root = Folder(tmp_path)
    samples = list(SOURCES["kitti"].list(root).samples)
    assert [s.split for s in samples] == ["val", "train", None]
    raw = SOURCES["kitti"].read(root, samples[0])
    assert (raw.valid.tolist(), raw.target.tolist()) == ([[False, True, True]], [[0, 1, 0.5]])


@pytest.mark.parametrize("lines", [
    f"2011_09_26/{DRIVE} 0000000069 l\n2011_09_26/{DRIVE} 0000000054 r",
    f"2011_09_26/{DRIVE} 69 l\r\n2011_09_26/{DRIVE} 54 r\r\n",
    f"2011_09_26/{DRIVE}/image_02/data/0000000069.png {DRIVE}/x.png 721.5377\n"
    f"/2011_09_26/{DRIVE}/image_03/data/0000000054.png None 721.5377\n",
])  # fmt: skip
def test_kitti_lists_of_every_form(tmp_path, lines):
    kitti_frame(tmp_path, 69)
    kitti_frame(tmp_path, 69, camera="image_03")
    kitti_frame(tmp_path, 54, split="train", camera="image_03")
    (tmp_path / "eigen_test_files.txt").write_bytes(lines.encode())
    root = Folder(tmp_path)
    splits = {s.sample_id: s.split for s in list_samples(SOURCES["kitti"], root).samples}
    assert splits == {
        f"{DRIVE}/image_02/0000000069": "test",
        f"{DRIVE}/image_03/0000000054": "test",
        f"{DRIVE}/image_03/0000000069": "val",
    }
    chosen = list_samples(SOURCES["kitti_161"], root).samples
    assert [s.sample_id for s in chosen] == [f"{DRIVE}/image_02/0000000069"]


def test_kitti_with_the_training_list_too_leaves_out_the_rest_of_the_test_drives(tmp_path):
    for number in (1, 2, 3):
        kitti_frame(tmp_path / "data", number, split="train")
    kitti_frame(tmp_path / "data", 4, split="val")
    frame = f"2011_09_26/{DRIVE}/image_02/data"
    (tmp_path / "test.txt").write_text(f"2011_09_26/{DRIVE} 1 l\n")
    lines = (f"{frame}/{n:010d}.png {d} 721.5" for n, d in ((2, "a.png"), (9, "None")))
    (tmp_path / "train.txt").write_text("\n".join(lines))
    lists = read_lists({split: str(tmp_path / f"{split}.txt") for split in ("train", "test")})
    listing = list_samples(SOURCES["kitti"], Folder(tmp_path / "data"), lists)
    assert {int(s.sample_id[-10:]): s.split for s in listing.samples} == {1: "test", 2: "train", 4: "val"}
    assert len(listing.rejected) == 2


def test_kitti_161_without_the_list_is_empty_and_says_why(tmp_path):
    kitti_frame(tmp_path, 69)
    with pytest.raises(WrongLayout, match=r"First file left out: .*: 1 samples are in no list"):
        plan_ingest("kitti_161", str(tmp_path), IngestSettings())


@needs_real
def test_real_kitti_lists_name_697_and_652_frames(tmp_path):
    """Depth for all frames of the authors' lists: 697 frames, 652 of them with depth in the second list."""
    monodepth = (REAL / "splits" / "kitti_eigen_test_files.txt").read_text()
    bts = (REAL / "splits" / "bts_eigen_test_files_with_gt.txt").read_text()
    named: dict[str, list[tuple[str, str, int]]] = {"monodepth": [], "bts": []}
    for line in monodepth.splitlines():
        drive, number, side = line.split()
        named["monodepth"].append((drive, "image_02" if side == "l" else "image_03", int(number)))
    for line in bts.splitlines():
        image, depth, _ = line.split()
        if depth != "None":
            parts = image.split("/")
            named["bts"].append(("/".join(parts[:2]), parts[2], int(parts[4].split(".")[0])))
    assert (len(named["monodepth"]), len(named["bts"])) == (697, 652)
    for drive, camera, number in named["bts"]:
        depth = f"{drive.split('/')[1]}/proj_depth/groundtruth/{camera}/{number:010d}.png"
        put(tmp_path, {f"{drive}/{camera}/data/{number:010d}.png": b"", depth: b""})
    for name, text in {"test_files.txt": monodepth, "eigen_test.txt": bts}.items():
        for old in tmp_path.glob("*.txt"):
            old.unlink()
        listing = list_samples(SOURCES["kitti"], put(tmp_path, {name: text.encode()}))
        assert [s.split for s in listing.samples] == ["test"] * 652


@needs_real
def test_real_kitti_frame(tmp_path):
    image, depth = (REAL / "kitti" / kind / "0000000005.png" for kind in ("rgb", "depth"))
    files = {
        f"2011_09_26/{DRIVE}/image_02/data/0000000005.png": image.read_bytes(),
        f"val/{DRIVE}/proj_depth/groundtruth/image_02/0000000005.png": depth.read_bytes(),
    }
    raw = read_first(SOURCES["kitti"], put(tmp_path, files))
    assert raw.target.shape == formats.image_size(raw.image)
    assert raw.valid.mean() == pytest.approx(0.195, abs=0.001)
    assert np.flatnonzero(raw.valid.any(axis=1))[0] == 119
    assert 2 < raw.target[raw.valid].min() < raw.target.max() < 90


# ---- NYUv2
def test_nyuv2_list_beats_folder_and_slash_is_ignored(tmp_path):
    for number in (45, 46, 47):
        image, depth = formats.encode_jpeg(BLACK), grey([[0, 1, 2500]])
        files = {f"rgb_{number:05d}.jpg": image, f"sync_depth_{number:05d}.png": depth}
        put(tmp_path / "official_splits/test/bathroom", files)
    lines = "/bathroom/rgb_00045.jpg /bathroom/sync_depth_00045.png 518.8579\n/../etc/rgb_00046.jpg x\n"
    (tmp_path / "nyudepthv2_train_files.txt").write_text(lines)
    root = Folder(tmp_path)
    listing = list_samples(SOURCES["nyuv2"], root)
    samples = list(listing.samples)
    assert [s.split for s in samples] == ["train", "test", "test"]
    assert [r.reason.split(", the first")[0] for r in listing.rejected] == [
        "1 of 2 entries name no sample that is here"
    ]
    raw = SOURCES["nyuv2"].read(root, samples[0])
    assert (raw.target.tolist(), raw.valid.tolist()) == ([[0, np.float32(0.001), 2.5]], [[False, True, True]])


@needs_real
def test_real_nyuv2_photo(tmp_path):
    paths = [REAL / "nyuv2_sync" / name for name in ("rgb/rgb_00000.jpg", "depth/sync_depth_00000.png")]
    root = put(tmp_path, {f"sync/office_0001/{path.name}": path.read_bytes() for path in paths})
    raw = read_first(SOURCES["nyuv2"], root)
    assert raw.target.shape == formats.image_size(raw.image) == (480, 640)
    assert 0.4 < raw.target[raw.valid].min() < raw.target.max() < 10


# ---- TUM RGB-D
def tum_files(root, images, depths):
    for folder, times in (("rgb", images), ("depth", depths)):
        for time in times:
            put(root, {f"rgbd_dataset_freiburg3_walking_xyz/{folder}/{time}.png": b""})


def pairs(root):
    listing = TUM().list(Folder(root))
    found = {Path(s.files["image"]).stem: Path(s.files["depth"]).stem for s in listing.samples}
    return found, [Path(r.path).stem for r in listing.rejected]


def test_tum_images_get_the_nearest_map_once(tmp_path):
    tum_files(tmp_path, ["10.000000", "10.010000", "10.500000"], ["10.008000", "10.019000", "10.525000"])
    found, left_out = pairs(tmp_path)
    # The map at 10.008 is nearest to the image at 10.010, so the one at 10.000 takes the next.
    assert found == {"10.010000": "10.008000", "10.000000": "10.019000"}
    assert left_out == ["10.500000"]


def test_tum_times_are_numbers_not_text(tmp_path):
    tum_files(tmp_path, ["9.995000", "10.500000"], ["10.001000", "10.490000"])
    assert pairs(tmp_path) == ({"9.995000": "10.001000", "10.500000": "10.490000"}, [])


def chosen_frame(root, colour, depth, name="tum_hdf5/a.h5"):
    folder = put(root, {name: encode_hdf5_arrays({"gt/img_1": colour, "gt/gt_depth": depth})})
    [sample] = TUM().list(folder).samples
    return sample, TUM().read(folder, sample)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_tum_chosen_frames(tmp_path, dtype):
    colour = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    depth = np.array([[0, np.nan, 1.5, -1, 9]] * 4, np.float32)
    stored = colour if dtype == np.uint8 else (colour / 255).astype(np.float32)
    sample, raw = chosen_frame(tmp_path, stored, depth)
    assert (sample.sample_id, sample.split, sample.group) == ("tum_hdf5/a", "test", "tum_hdf5")
    np.testing.assert_array_equal(formats.decode_rgb(raw.image), colour)
    assert raw.valid[0].tolist() == [False, False, True, False, True]
    assert raw.target[0].tolist() == [0, 0, 1.5, 0, 9]


@pytest.mark.parametrize(("colour", "depth", "message"), [
    (np.zeros((2, 3, 3)), np.zeros((2, 3), np.uint16), "depth HDF5: /gt/gt_depth has type uint16"),
    (np.zeros((3, 2, 3)), np.zeros((2, 3, 1)), "depth HDF5: /gt/gt_depth is not an array of 2 dimensions"),
    (np.zeros((2, 3)), np.ones((2, 3)), "image HDF5: /gt/img_1 is not an array of 3 dimensions"),
    (np.zeros((3, 2, 4)), np.ones((2, 3)), "image HDF5: /gt/img_1 has shape"),
])  # fmt: skip
def test_tum_frames_of_another_kind_are_refused(tmp_path, colour, depth, message):
    with pytest.raises(BadSample, match=message):
        chosen_frame(tmp_path, colour, depth)


@needs_real
def test_real_tum_frame(tmp_path):
    files = {
        f"rgbd_dataset_freiburg2_desk/{kind}/{time}.png": (REAL / "tum_rgbd" / kind / "1.png").read_bytes()
        for kind, time in (("rgb", "1.000000"), ("depth", "1.010000"))
    }
    raw = read_first(TUM(), put(tmp_path, files))
    assert raw.target.shape == formats.image_size(raw.image) == (480, 640)
    assert 0.3 < raw.target[raw.valid].min() < raw.target.max() < 13.2
    assert raw.valid.mean() > 0.5


@pytest.mark.parametrize(("name", "image", "depth"), [
    ("kitti", f"2011_09_26/{DRIVE}/image_02/data/0000000001.png",
     f"{DRIVE}/proj_depth/groundtruth/image_02/0000000001.png"),
    ("nyuv2", "a/rgb_00001.jpg", "a/sync_depth_00001.png"),
    ("tum", "rgbd_dataset_a/rgb/1.0.png", "rgbd_dataset_a/depth/1.0.png"),
])  # fmt: skip
def test_8_bit_depth_is_refused(tmp_path, name, image, depth):
    root = put(tmp_path, {image: formats.encode_png(BLACK), depth: grey([[1, 2, 3]], np.uint8)})
    with pytest.raises(BadSample, match="8 bits"):
        read_first(SOURCES[name], root)
