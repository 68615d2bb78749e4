"""BlendedMVS: depth up to scale, holes, projects as groups, list files."""

import numpy as np
import pytest

from datasets_prep.errors import BadSample
from datasets_prep.formats import maps
from datasets_prep.formats import pictures as formats
from datasets_prep.plan.listing import list_samples
from datasets_prep.sources.blendedmvs import BlendedMVS
from datasets_prep.storage.folder import Folder
from datasets_prep.synthetic import VIEWS
from tests.support.raw_files import good_samples, put, read_first

SCENES = 3
PROJECT, OTHER = "5b7a3890fc8fcf6781e2593a", "5c189f2326173c3a09ed7ef3"


def test_counts_groups_and_masked_copies(written):
    tree = written("blendedmvs", SCENES)
    samples = good_samples(BlendedMVS(), tree)
    assert len(samples) == SCENES * VIEWS
    assert len({s.group for s in samples}) == SCENES
    assert not any("masked" in path for s in samples for path in s.files.values())
    assert sum(path.endswith("_masked.jpg") for path in tree.root.files()) == SCENES * VIEWS


def test_values_are_the_scenes_depth_times_one_factor_a_project(written):
    tree = written("blendedmvs", SCENES)
    factors: dict[str, set[float]] = {}
    scenes = {tuple(scene.image[40, ::7].ravel()): scene for views in tree.scenes for scene in views}
    compared = 0
    for sample in good_samples(BlendedMVS(), tree):
        raw = BlendedMVS().read(tree.root, sample)
        picture = formats.decode_rgb(raw.image).astype(int)
        scene = min(scenes.values(), key=lambda scene, picture=picture: np.abs(scene.image - picture).mean())
        np.testing.assert_array_equal(raw.valid, ~scene.sky)
        assert (raw.target[~raw.valid] == 0).all()
        ratio = raw.target[raw.valid] / scene.depth[raw.valid]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)
        factors.setdefault(sample.group, set()).add(round(float(np.log(ratio[0])), 4))
        compared += 1
    assert compared == SCENES * VIEWS
    assert all(len(values) == 1 for values in factors.values())
    assert len({next(iter(values)) for values in factors.values()}) == SCENES


def test_generated_lists_give_the_split(written):
    tree = written("blendedmvs", SCENES)
    listing = list_samples(BlendedMVS(), tree.root)
    splits = {s.group: s.split for s in listing.samples if s.sample_id not in tree.traps}
    assert sorted(splits.values()) == ["train", "train", "val"]


def test_what_is_no_surface_is_invalid(tmp_path):
    depth = np.array([[0, -1, np.nan, np.inf, 2.5, 1e-20]], np.float32)
    write(tmp_path, PROJECT, depth)
    raw = read_first(BlendedMVS(), tmp_path)
    assert raw.valid.tolist() == [[False, False, False, False, True, True]]
    assert raw.target.tolist() == [[0, 0, 0, 0, 2.5, np.float32(1e-20)]]
    assert raw.sky is None


def test_empty_map_is_refused(tmp_path):
    write(tmp_path, PROJECT, np.zeros((2, 2), np.float32))
    with pytest.raises(BadSample, match="depth map is empty"):
        read_first(BlendedMVS(), tmp_path)


def test_list_files_of_the_authors_give_the_split(tmp_path):
    write(tmp_path, PROJECT, np.ones((2, 2), np.float32))
    write(tmp_path, OTHER, np.ones((2, 2), np.float32))
    unlisted = "0" * 24
    write(tmp_path, unlisted, np.ones((2, 2), np.float32))
    (tmp_path / "validation_list.txt").write_bytes(f"{PROJECT}\r\n\r\n".encode())
    (tmp_path / "BlendedMVS_training.txt").write_bytes(OTHER.encode())
    listing = list_samples(BlendedMVS(), Folder(tmp_path))
    assert {s.group: s.split for s in listing.samples} == {PROJECT: "val", OTHER: "train"}
    assert [r.reason for r in listing.rejected] == [
        f"1 samples are in no list, the first: {unlisted}/00000000"
    ]


def test_unlisted_projects_are_for_training_where_only_the_validation_list_is_there(tmp_path):
    write(tmp_path, PROJECT, np.ones((2, 2), np.float32))
    write(tmp_path, OTHER, np.ones((2, 2), np.float32))
    (tmp_path / "validation_list.txt").write_text(f"{OTHER}\n../../etc/passwd\n")
    listing = list_samples(BlendedMVS(), Folder(tmp_path))
    assert {s.group: s.split for s in listing.samples} == {PROJECT: "train", OTHER: "val"}
    assert [r.path for r in listing.rejected] == ["validation_list.txt"]


def test_nested_project_folders_of_the_high_resolution_archives(tmp_path):
    write(tmp_path / "high" / PROJECT / PROJECT, PROJECT, np.ones((2, 2), np.float32))
    [sample] = BlendedMVS().list(Folder(tmp_path)).samples
    assert (sample.sample_id, sample.group) == (f"{PROJECT}/00000000", PROJECT)


def test_second_copy_of_a_photo_is_left_out(tmp_path):
    write(tmp_path / "high", PROJECT, np.ones((2, 2), np.float32))
    write(tmp_path / "low", PROJECT, np.ones((2, 2), np.float32))
    listing = BlendedMVS().list(Folder(tmp_path))
    [sample] = listing.samples
    assert all(path.startswith("high/") for path in sample.files.values())
    assert sorted(r.path.split("/")[0] for r in listing.rejected) == ["low", "low"]
    assert all("second copy of high/" in r.reason for r in listing.rejected)


def write(root, project, depth):
    files = {
        "blended_images/00000000.jpg": formats.encode_jpeg(np.zeros((*depth.shape, 3), np.uint8)),
        "rendered_depth_maps/00000000.pfm": maps.encode_pfm(depth),
    }
    put(root / project, files)
