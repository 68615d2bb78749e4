"""Finding evaluation sets, and refusing those that are not whole."""

import dataclasses
from pathlib import Path

import pytest

from datasets_prep.errors import NotFound, UserError, WrongLayout
from datasets_prep.synthetic import write_dataset
from pipelines.evaluation.sets import ZERO_SHOT
from pipelines.zero_shot.sets import IncompleteSet, find_sets, require_complete


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    write_dataset("eth3d", root / "ETH3D", scenes=1, height=48, width=64)
    write_dataset("sintel", root / "MPI-Sintel", scenes=1, height=48, width=64)
    write_dataset("kitti_161", root / "kitti", scenes=4, height=48, width=64)
    return root


@pytest.mark.heavy
def test_folders_are_found_by_name_in_the_order_of_the_paper(raw):
    found = find_sets(["kitti", "sintel", "eth3d"], [str(raw)], {})
    assert [entry.name for entry in found] == ["eth3d", "sintel", "kitti"]
    assert [Path(entry.raw).name for entry in found] == ["ETH3D", "MPI-Sintel", "kitti"]
    assert [len(entry.samples) for entry in found] == [5, 5, 2]


def test_a_set_may_be_named_with_its_folder_or_be_the_only_one(raw):
    [named] = find_sets(["eth3d"], [f"eth3d={raw / 'ETH3D'}"], {})
    [only] = find_sets(["eth3d"], [str(raw / "ETH3D")], {})
    assert named == only
    assert len(named.digest) == 64


@pytest.mark.parametrize(("on", "given", "message"), [
    (["kitty"], ["."], "no evaluation set 'kitty'; there are: diw, eth3d, sintel, kitti, nyu, tum"),
    (["eth3d", "tum"], ["eth3d=ETH3D"], "tum: no raw folder; give --raw tum=FOLDER"),
    (["eth3d", "tum"], ["."], r"tum: no raw folder in \S+ \(looked for tum, tum_rgbd\)"),
    (["eth3d"], ["eth3d=a", "eth3d=b"], "--raw eth3d=… is given twice: a, b"),
    (["eth3d"], ["eth3d=nowhere"], "no such folder: nowhere"),
])  # fmt: skip
def test_what_is_not_there_is_said(raw, on, given, message, monkeypatch):
    monkeypatch.chdir(raw)
    with pytest.raises(UserError, match=message):
        find_sets(on, given, {})


def test_a_folder_of_something_else_says_what_was_expected(raw):
    with pytest.raises(WrongLayout, match=r"^no image of tum in .*: expected rgbd_dataset_<sequence>/rgb"):
        find_sets(["tum"], [f"tum={raw / 'ETH3D'}"], {})


def test_kitti_without_its_list_says_which(raw, tmp_path):
    write_dataset("kitti_161", tmp_path, scenes=2, height=48, width=64)
    (tmp_path / "eigen_test_files.txt").rename(tmp_path.parent / "eigen.txt")
    with pytest.raises(WrongLayout, match=r"give it as lists\.kitti=FILE"):
        find_sets(["kitti"], [str(tmp_path)], {})
    [found] = find_sets(["kitti"], [str(tmp_path)], {"kitti": str(tmp_path.parent / "eigen.txt")})
    assert len(found.samples) == 2


def test_a_wrong_list_is_refused(raw, tmp_path):
    (tmp_path / "wrong.txt").write_text("2099_01_01/2099_01_01_drive_0001_sync 1 l\n")
    with pytest.raises(WrongLayout, match="none of its 1 entries names a kitti_161 sample"):
        find_sets(["kitti"], [f"kitti={raw / 'kitti'}"], {"kitti": str(tmp_path / "wrong.txt")})
    with pytest.raises(NotFound, match="no such file"):
        find_sets(["kitti"], [f"kitti={raw / 'kitti'}"], {"kitti": str(tmp_path / "none.txt")})
    with pytest.raises(NotFound, match="no evaluation set 'kity'"):
        find_sets(["kitti"], [f"kitti={raw / 'kitti'}"], {"kity": str(tmp_path / "wrong.txt")})


def test_sets_that_are_not_whole_are_refused_unless_that_is_asked_for(tmp_path):
    write_dataset("eth3d", tmp_path, scenes=1, height=48, width=64, traps=True)
    found = find_sets(["eth3d"], [str(tmp_path)], {})
    with pytest.raises(IncompleteSet) as caught:
        require_complete(found, allow_missing=False)
    first, offer = str(caught.value).splitlines()
    assert first.startswith("eth3d: 9 images are there, the set has 454 (1 left out: ")
    assert "no depth traps/ground_truth_depth" in first
    assert offer.startswith("--allow-missing evaluates what is there")
    require_complete(found, allow_missing=True)


def test_more_images_are_another_set(raw):
    [found] = find_sets(["eth3d"], [f"eth3d={raw / 'ETH3D'}"], {})
    smaller = dataclasses.replace(found, description=dataclasses.replace(ZERO_SHOT["eth3d"], images=4))
    for allow in (False, True):
        with pytest.raises(IncompleteSet, match=r"^eth3d: 5 images are there, the set has 4$"):
            require_complete([smaller], allow)
