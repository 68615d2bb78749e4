"""The authors' lists of frames against the videos that are there."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from datasets_prep.errors import UserError
from datasets_prep.sources.base import Rejection
from datasets_prep.sources.wsvd_lists import BadClipList
from datasets_prep.stereo.lists import read_movie_lists, read_wsvd_lists
from datasets_prep.stereo.plan import BadVideoFolder, StereoVideo
from datasets_prep.storage.folder import Folder
from tests.support.paths import SAMPLES

REAL = SAMPLES / "splits"
LISTS = ("3dmovies_test.txt", "3dmovies_validation.txt")


def chapter(folder: str, start: int = 0) -> StereoVideo:
    return StereoVideo(folder, f"{folder}.mkv", 10, "side_by_side", False, True, start)


def web_video(name: str) -> StereoVideo:
    return StereoVideo(name, f"{name}.mp4", 10, "half_side_by_side", False, False)


def test_frames_of_films(tmp_path):
    lines = "hugo/chapter2/out00000005\r\nhugo/chapter2/out00000011.jpg\n\nexodus/chapter3/out00000001"
    (tmp_path / "train.txt").write_bytes(lines.encode())
    found = read_movie_lists(
        Folder(tmp_path), [chapter("hugo/chapter2", start=100), chapter("pina/chapter1")]
    )
    [piece] = found.pieces
    assert piece.numbers == (104, 110)
    assert piece.names == ("hugo/chapter2/out00000005", "hugo/chapter2/out00000011")
    reason = "no video of this chapter, for which 1 frames are listed"
    assert (found.missing, found.splits) == ([Rejection("exodus/chapter3", reason)], {})


@pytest.mark.parametrize("line", [
    *("../../etc/passwd", "/hugo/chapter2/out00000005", "hugo/chapter2/../out00000005"),
    *("hugo/out00000005", "x", "hugo/chapter2/out00000000", "hugo/chapter2/out5"),
    "hugo/chapter2/out00000005 extra",
])  # fmt: skip
def test_a_line_that_is_no_frame_is_refused_by_number(line, tmp_path):
    (tmp_path / "train.txt").write_text(f"hugo/chapter2/out00000005\n{line}\n")
    with pytest.raises(BadVideoFolder, match=r"train\.txt, line 2: expected film/chapter2/out00000042"):
        read_movie_lists(Folder(tmp_path), [chapter("hugo/chapter2")])


def test_lists_may_be_utf_16_and_other_encodings_are_refused_by_name(tmp_path):
    (tmp_path / "train.txt").write_text("hugo/chapter2/out00000005\n", encoding="utf-16")
    [piece] = read_movie_lists(Folder(tmp_path), [chapter("hugo/chapter2")]).pieces
    assert piece.numbers == (4,)
    (tmp_path / "train.txt").write_bytes(b"hugo/chapter2/out00000005\n\xfc/chapter1/out00000001\n")
    with pytest.raises(UserError, match=r"train\.txt: line 2 is not UTF-8"):
        read_movie_lists(Folder(tmp_path), [chapter("hugo/chapter2")])


def test_a_folder_without_lists_is_refused(tmp_path):
    with pytest.raises(BadVideoFolder, match="no list of frames"):
        read_movie_lists(Folder(tmp_path), [])
    with pytest.raises(BadVideoFolder, match="no list of clips"):
        read_wsvd_lists(Folder(tmp_path), [])


@pytest.mark.skipif(not REAL.is_dir(), reason="the folder of real samples is not there")
def test_the_authors_own_lists_are_read(tmp_path):
    for name in LISTS:
        (tmp_path / name).write_bytes((REAL / name).read_bytes())
    folders = sorted({line.rsplit("/", 1)[0] for name in LISTS for line in (REAL / name).read_text().split()})
    found = read_movie_lists(Folder(tmp_path), [chapter(folder) for folder in folders])
    assert sum(len(piece.numbers) for piece in found.pieces) == 788 + 3058
    assert found.missing == []
    without_gatsby = [chapter(folder) for folder in folders if not folder.startswith("gatsby")]
    found = read_movie_lists(Folder(tmp_path), without_gatsby)
    assert sum(len(piece.numbers) for piece in found.pieces) == 788 + 1243
    assert {entry.path.split("/")[0] for entry in found.missing} == {"gatsby"}


def write_clips(path: Path, **clips: list[list[int]]) -> None:
    videos = [
        {"name": name, "clips": [{"frames": np.array(f, np.int32), "label": np.int32(1)} for f in frames]}
        for name, frames in clips.items()
    ]
    path.write_bytes(pickle.dumps(videos, 3))


def test_clips_of_web_videos(tmp_path):
    write_clips(tmp_path / "wsvd_train_clip_frame_ids.pkl", a=[[3, 4, 5], list(range(40, 70))], gone=[[1]])
    write_clips(tmp_path / "wsvd_test_clip_frame_ids.pkl", b=[[0, 7]])
    (tmp_path / "notes.txt").write_text("no list")
    found = read_wsvd_lists(Folder(tmp_path), [web_video("a"), web_video("b"), web_video("unlisted")])
    numbers = [(piece.names[0], piece.numbers) for piece in found.pieces]
    assert ("a/clip0001/out00000004", (3, 4, 5)) in numbers
    assert ("b/clip0001/out00000001", (0, 7)) in numbers
    assert sum(len(n) for name, n in numbers if name.startswith("a/clip0002/")) == 30
    assert [entry.path for entry in found.missing] == ["gone"]
    assert found.splits == {"train": ["a", "gone"], "test": ["b"]}


def test_a_hostile_list_of_clips_is_refused_by_name(tmp_path):
    (tmp_path / "wsvd_test_clip_frame_ids.pkl").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(BadClipList, match=r"wsvd_test_clip_frame_ids\.pkl"):
        read_wsvd_lists(Folder(tmp_path), [web_video("a")])
