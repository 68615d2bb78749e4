"""The images of the paper's Tables 2 and 3, so that nobody's table is of others without saying so.

KITTI: the Eigen split in BTS's form, 23,158 training images and the 652 of the 697 test images that have
the improved ground truth. NYUv2: 24,231 and 654. Known are these numbers, and a digest of the test images'
names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow.parquet as pq

from datasets_prep.errors import UserError
from datasets_prep.manifest import QUARANTINE_NAME, PreparedDataset

_SHOWN = 5


class WrongSplit(UserError):
    """A dataset that does not have the images of its official split; the message says what differs."""


@dataclass(frozen=True, slots=True)
class OfficialSplit:
    """One dataset's.

    Attributes:
        name: what people call it.
        train, test: number of images.
        test_digest: SHA-256 of the sorted test images' names, one a line.
        lists: how `dpt prepare` is told.
        listed_name: what lists call a sample of this id.
    """

    name: str
    train: int
    test: int
    test_digest: str
    lists: str
    listed_name: Callable[[str], str]


def _scene_and_number(sample_id: str) -> str:
    return "/".join(sample_id.split("/")[-2:])


OFFICIAL = {
    "kitti": OfficialSplit(
        "Eigen split of KITTI",
        23_158,
        652,
        "a329db02370f8b892470909dbca8a616a2b7ec5b96a6a17ee796f331e1670180",
        "lists.train=… lists.test=… (BTS's eigen_train_files_with_gt.txt, eigen_test_files_with_gt.txt)",
        str,
    ),
    "nyuv2": OfficialSplit(
        "split of NYUv2",
        24_231,
        654,
        "006daa1fc1cdde7e9c9a08eefef2bec0480efdfab9cf24a145609752f8442f02",
        "lists.train=… lists.test=… (BTS's nyudepthv2_train_files_with_gt.txt, "
        "nyudepthv2_test_files_with_gt.txt)",
        _scene_and_number,
    ),
}


def check_split(dataset: PreparedDataset, allow_missing: bool, say: Callable[[str], None]) -> None:
    """Compare a prepared dataset with its official split, if it has one.

    Args:
        allow_missing: say what differs, and go on.
        say: takes a line.

    Raises:
        WrongSplit: naming what differs, and some of the images that were left out.
    """
    official = OFFICIAL.get(dataset.name)
    problem = _difference(dataset, official) if official else ""
    if problem and not allow_missing:
        raise WrongSplit(f"{problem}; --allow-missing goes on all the same")
    if problem:
        say(problem)


def of_how_many(dataset: str, split: str, images: float) -> str:
    """How many images a figure is the mean of, and of how many where that is another number."""
    official = OFFICIAL.get(dataset)
    whole = getattr(official, split, images) if official else images
    return f"{images:.0f}" if whole == images else f"{images:.0f} of {whole}"


def _difference(dataset: PreparedDataset, official: OfficialSplit) -> str:
    counts = dataset.manifest.samples
    wrong = [
        f"{counts.get(split, 0)} of {expected} {split} images"
        for split, expected in (("train", official.train), ("test", official.test))
        if counts.get(split, 0) != expected
    ]
    advice = f"it is prepared with {official.lists}"
    if wrong:
        return (
            f"{dataset.name} has {' and '.join(wrong)} of the {official.name}{_left_out(dataset)}; {advice}"
        )
    if _test_digest(dataset, official) != official.test_digest:
        return (
            f"{dataset.name}: the {official.test} test images are not those of the {official.name}; {advice}"
        )
    return ""


def _test_digest(dataset: PreparedDataset, official: OfficialSplit) -> str:
    names: list[str] = []
    for shard in dataset.manifest.split("test"):
        with dataset.folder.open(shard.name) as file:
            names += pq.read_table(file, columns=["sample_id"])["sample_id"].to_pylist()
    listed = sorted(official.listed_name(name) for name in names)
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()


def _left_out(dataset: PreparedDataset) -> str:
    """The first of what was left out in preparing, and where the rest is."""
    if not dataset.folder.exists(QUARANTINE_NAME):
        return ""
    rows = dataset.read_quarantine()
    if not rows:
        return ""
    shown = ", ".join(f"{row['source_path']} ({row['reason']})" for row in rows[:_SHOWN])
    return f" ({len(rows)} left out, all in {dataset.folder.uri}/{QUARANTINE_NAME}: {shown})"
