import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from datasets_prep.manifest import PreparedDataset, open_datasets
from pipelines.evaluation.official_splits import WrongSplit, check_split, of_how_many
from pipelines.evaluation.sets import OFFICIAL
from tests.support.paths import SAMPLES

LISTS = SAMPLES / "splits"


def renamed(folder: Path, train: int, test: int) -> PreparedDataset:
    """A prepared dataset that says it is KITTI, with so many images."""
    (dataset,) = open_datasets([str(folder / "tartanair")])
    splits = {"train": "train", "val": "test"}
    shards = [replace(shard, split=splits[shard.split]) for shard in dataset.manifest.shards]
    changes = {"dataset": "kitti", "samples": {"train": train, "test": test}, "shards": shards}
    return PreparedDataset(dataset.folder, replace(dataset.manifest, **changes))


def test_missing_images_are_counted_and_refused_unless_allowed(shards_folder):
    few = renamed(shards_folder, 23_158, 650)
    with pytest.raises(WrongSplit, match=r"kitti has 650 of 652 test images.*lists\.test=.*--allow-missing"):
        check_split(few, allow_missing=False, say=print)
    said: list[str] = []
    check_split(few, allow_missing=True, say=said.append)
    assert re.search("650 of 652", said[0])


def test_a_list_of_other_images_is_refused(shards_folder):
    with pytest.raises(WrongSplit, match="the 652 test images are not those of the Eigen split"):
        check_split(renamed(shards_folder, 23_158, 652), allow_missing=False, say=print)


def test_other_datasets_have_no_official_split(shards_folder):
    check_split(open_datasets([str(shards_folder / "redweb")])[0], allow_missing=False, say=print)


def test_a_table_says_how_many_images_it_is_of():
    assert of_how_many("kitti", "test", 650.0) == "650 of 652"
    assert of_how_many("kitti", "test", 652.0) == "652"
    assert of_how_many("my_robot", "test", 10.0) == "10"


@pytest.mark.skipif(not LISTS.is_dir(), reason="the authors' lists are not here")
def test_the_digests_are_those_of_the_authors_lists():
    kitti = []
    for line in (LISTS / "bts_eigen_test_files_with_gt.txt").read_text().splitlines():
        image, depth, _ = line.split()
        if depth != "None":
            drive, camera, _, name = image.split("/")[-4:]
            kitti.append(f"{drive}/{camera}/{name[:10]}")
    nyu = []
    for line in (LISTS / "bts_nyudepthv2_test_files_with_gt.txt").read_text().splitlines():
        scene, name = line.split()[0].split("/")
        nyu.append(f"{scene}/{name[4:9]}")
    for dataset, names in (("kitti", kitti), ("nyuv2", nyu)):
        assert len(names) == OFFICIAL[dataset].images
        digest = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
        assert digest == OFFICIAL[dataset].digest
