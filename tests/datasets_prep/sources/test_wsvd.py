"""WSVD: ids that start with a dash, and the split by video of the lists in the tree."""

import pytest

from datasets_prep.plan.listing import list_samples
from datasets_prep.sources.movies import Movies
from datasets_prep.sources.wsvd import WSVD

SCENES = 4


@pytest.mark.heavy
def test_the_lists_in_the_tree_decide_the_split(written):
    tree = written("wsvd", SCENES)
    listing = list_samples(WSVD(), tree.root)
    samples = [s for s in listing.samples if s.sample_id not in tree.traps]
    splits = {sample.group: sample.split for sample in samples}
    assert sorted(splits.values()) == ["test", "train", "train", "train"]
    assert len(samples) == 6 * SCENES
    assert all(video[0] in "-_" for video in splits)
    # The lists name a video that is gone.
    assert any("1 of 4 entries name no sample" in rejection.reason for rejection in listing.rejected)


def test_lists_may_carry_the_downloaders_format():
    assert WSVD().listed(("-a_B3.f136",)) == "-a_B3"
    assert WSVD().listed(("../x",)) is None


def test_films_and_web_videos_are_told_apart(written):
    tree = written("wsvd", SCENES)
    assert not Movies().list(tree.root).samples
