"""The paper's ablation split: its size, its groups, and that nothing but names decides it."""

import pytest

from datasets_prep.errors import WrongLayout
from datasets_prep.plan.ablation_split import DATASETS, ablation_split
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.settings import IngestSettings
from datasets_prep.sources.samples import Sample
from datasets_prep.synthetic import write_dataset

SIZES = {"redweb": (3600, 1), "hrwsi": (20778, 1), "blendedmvs": (113, 150)}
"""Groups and images of each, about as published."""


def published(dataset: str) -> list[Sample]:
    groups, images = SIZES[dataset]
    return [
        Sample(f"{group}/{i}", {"image": ""}, f"{group}", split="val" if group % 2 else None)
        for group in range(groups)
        for i in range(images)
    ]


def test_the_three_sets_hold_out_about_a_thousand_images():
    splits = {name: [sample.split for sample in ablation_split(name, published(name))] for name in DATASETS}
    held_out = {name: found.count("val") for name, found in splits.items()}
    assert held_out == {"redweb": 333, "hrwsi": 333, "blendedmvs": 300}


def test_groups_stay_whole_and_official_splits_play_no_part():
    splits: dict[str, set[str | None]] = {}
    for sample in ablation_split("blendedmvs", published("blendedmvs")):
        splits.setdefault(sample.group, set()).add(sample.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {split for found in splits.values() for split in found} == {"train", "val"}


@pytest.mark.heavy
@pytest.mark.parametrize("dataset", DATASETS)
def test_seed_and_limit_change_nothing_of_it(dataset, tmp_path):
    write_dataset(dataset, tmp_path, scenes=12, height=32, width=48)

    def validation(**settings: object) -> tuple[set[str], set[str]]:
        plan = plan_ingest(dataset, str(tmp_path), IngestSettings(split_rule="ablation", **settings))
        names: dict[str, set[str]] = {"train": set(), "val": set()}
        for shard in plan.shards:
            names[shard.split] |= {sample.sample_id for sample in shard.samples}
        return names["train"], names["val"]

    train, val = validation()
    assert val
    assert len(val) < len(train)
    assert validation(seed=7) == (train, val)
    few_train, few_val = validation(limit=10)
    assert few_train <= train
    assert few_val <= val


def test_other_datasets_have_no_such_split(tmp_path):
    write_dataset("tum", tmp_path, scenes=1, height=32, width=48)
    with pytest.raises(WrongLayout, match="split_rule: the ablation split is of redweb, hrwsi, blendedmvs"):
        plan_ingest("tum", str(tmp_path), IngestSettings(split_rule="ablation"))


def test_it_takes_no_lists(tmp_path):
    write_dataset("redweb", tmp_path / "raw", scenes=2, height=32, width=48)
    (tmp_path / "list.txt").write_text("000000")
    settings = IngestSettings(split_rule="ablation", lists={"val": str(tmp_path / "list.txt")})
    with pytest.raises(WrongLayout, match="the ablation split takes none"):
        plan_ingest("redweb", str(tmp_path / "raw"), settings)
