"""Which frames of which videos: names, chapters, packings, pieces, digests, and errors of the user's."""

from pathlib import Path

import numpy as np
import pytest

from datasets_prep.errors import NotFound
from datasets_prep.settings import StereoSettings
from datasets_prep.stereo.plan import (
    FRAMES_A_PIECE,
    BadVideoFolder,
    StereoVideo,
    find_videos,
    pieces_of_clip,
    sampling_rate,
    without_first_and_last,
)
from datasets_prep.storage.folder import Folder
from datasets_prep.writers.stereo_video import encode_video
from tests.support import raw_files

MOVIES = StereoSettings().of("movies")
WSVD = StereoSettings().of("wsvd")


def put(root: Path, *paths: str, content: bytes = b"not decoded here") -> Folder:
    return raw_files.put(root, dict.fromkeys(paths, content))


def video(folder: str = "hugo/chapter2", start: int = 0, stop: int | None = None) -> StereoVideo:
    return StereoVideo(folder, "hugo.mkv", 1000, "side_by_side", False, True, start, stop)


def test_datasets_have_settings_of_their_own_where_none_are_given():
    assert (MOVIES.packing, MOVIES.shrink) == ("side_by_side", 2)
    assert (WSVD.packing, WSVD.shrink) == ("half_side_by_side", 1)
    assert StereoSettings(packing="over_under", shrink=4).of("wsvd").packing == "over_under"
    assert StereoSettings(shrink=4).of("movies").shrink == 4


def test_films_and_chapters_are_found_by_name(tmp_path):
    folder = put(
        tmp_path,
        "hugo.mkv",
        "pina/chapter1.mp4",
        "pina/chapter12.mkv",
        "notes.txt",
        "a/b/c.mkv",
        "._hugo.mkv",
    )
    found = find_videos("movies", folder, MOVIES)
    assert [v.folder for v in found] == ["hugo/chapter1", "pina/chapter1", "pina/chapter12"]
    assert all(v.is_film and v.packing == "side_by_side" and not v.swapped for v in found)


def test_chapter_marks_make_chapters(tmp_path):
    frames = [np.zeros((32, 32, 3), np.uint8)] * 60
    put(tmp_path, "hugo.mkv", content=encode_video(frames, chapters=[(0, 24), (24, 48), (48, 60)]))
    found = find_videos("movies", Folder(tmp_path), MOVIES)
    expected = [("hugo/chapter1", 0, 24), ("hugo/chapter2", 24, 48), ("hugo/chapter3", 48, 60)]
    assert [(v.folder, v.start, v.stop) for v in found] == expected
    assert [v.folder for v in without_first_and_last(found)] == ["hugo/chapter2"]


def test_titles_and_credits_are_left_out_of_marked_films_only():
    files = [video(f"pina/chapter{n}") for n in range(1, 5)]
    assert without_first_and_last(files) == files
    two = [video(f"hugo/chapter{n}", 10 * n, 10 * n + 10) for n in (1, 2)]
    assert without_first_and_last(two) == two
    many = [video(f"hugo/chapter{n}", 10 * n, 10 * n + 10) for n in range(1, 12)]
    assert [v.start for v in without_first_and_last(many)] == list(range(20, 110, 10))


def test_web_videos_are_found_by_id(tmp_path):
    folder = put(tmp_path, "-a_b.mp4", "_x.f136.webm", "readme.txt", "no id.mp4", "deep/y.mp4")
    found = find_videos("wsvd", folder, WSVD)
    assert [v.folder for v in found] == ["-a_b", "_x"]
    assert not any(v.is_film for v in found)


def test_two_videos_of_one_name_are_refused(tmp_path):
    folder = put(tmp_path, "x.f136.mp4", "x.mp4")
    with pytest.raises(BadVideoFolder, match=r"x\.mp4 and x\.f136\.mp4 have one name"):
        find_videos("wsvd", folder, WSVD)
    folder = put(tmp_path / "films", "hugo.mkv", "hugo/chapter1.mkv")
    with pytest.raises(BadVideoFolder, match="have one name"):
        find_videos("movies", folder, MOVIES)


def test_folders_without_videos_are_refused(tmp_path):
    with pytest.raises(NotFound, match="no such folder"):
        find_videos("movies", Folder(tmp_path / "nowhere"), MOVIES)
    with pytest.raises(BadVideoFolder, match=r"no video in .*expected <film>\.mkv or"):
        find_videos("movies", put(tmp_path, "readme.txt"), MOVIES)
    with pytest.raises(BadVideoFolder, match=r"expected <YouTube id>\.mp4"):
        find_videos("wsvd", Folder(tmp_path), WSVD)


def test_a_video_may_be_packed_otherwise_than_the_others(tmp_path):
    folder = put(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    (tmp_path / "videos.yaml").write_text(
        "a.mp4: {packing: over_under}\nb.mp4: {swapped: true, packing: half_over_under}\n"
    )
    found = {v.folder: (v.packing, v.swapped) for v in find_videos("wsvd", folder, WSVD)}
    expected = {"a": ("over_under", False), "b": ("half_over_under", True), "c": ("half_side_by_side", False)}
    assert found == expected


@pytest.mark.parametrize(("text", "problem"), [
    ("[", "not valid YAML: line 1: "),
    ("- a.mp4", "expected a file name in each line, got list"),
    ("b.mp4: {swapped: true}", "there is no video 'b.mp4'"),
    ("a.mp4: {packing: upside_down}", "a.mp4: packing: "),
    ("a.mp4: {swaped: true}", "a.mp4: swaped: "),
    ("a.mp4: over_under", "a.mp4: "),
])  # fmt: skip
def test_a_bad_description_is_refused_by_name(tmp_path, text, problem):
    folder = put(tmp_path, "a.mp4")
    (tmp_path / "videos.yaml").write_text(text)
    with pytest.raises(BadVideoFolder, match=r"videos\.yaml") as caught:
        find_videos("wsvd", folder, WSVD)
    assert problem in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_held_out_films_give_fewer_frames():
    expected = {"hugo": 4, "gatsby": 1, "doctor_who": 1, "x": 4}
    assert {film: sampling_rate(video(f"{film}/chapter1"), MOVIES) for film in expected} == expected


def test_pieces_hold_every_frame_once_in_order():
    numbers = [*range(100, 130), 115, 400, 401, 90]
    pieces = list(pieces_of_clip(video(), "hugo/chapter2", numbers))
    assert [n for piece in pieces for n in piece.numbers] == sorted(set(numbers))
    assert all(len(piece.numbers) <= FRAMES_A_PIECE for piece in pieces)
    assert pieces[-1].numbers == (400, 401)


def test_frames_are_counted_from_one_in_their_chapter():
    [piece] = pieces_of_clip(video(start=240), "hugo/chapter2", [240, 242])
    assert piece.names == ("hugo/chapter2/out00000001", "hugo/chapter2/out00000003")
    assert list(pieces_of_clip(video(), "x", [])) == []


def record_name(changes: dict[str, object] | None = None, **fields: object) -> str:
    settings = MOVIES.model_copy(update=changes or {})
    base = {"folder": "hugo/chapter2", "path": "hugo.mkv", "size": 1000, "packing": "side_by_side"}
    film = StereoVideo(**{**base, "swapped": False, "is_film": True, **fields})
    [piece] = pieces_of_clip(film, film.folder, [5, 6])
    return piece.record_name(settings, {})


def test_all_that_decides_the_bytes_is_in_a_records_name():
    fields = ({}, {"size": 1001}, {"path": "hugo.mp4"}, {"packing": "over_under"}, {"swapped": True})
    names = [record_name(**field) for field in fields]
    names += [record_name(change) for change in ({"flow": "raft"}, {"jpeg_quality": 50}, {"shrink": 1})]
    assert len(set(names)) == len(names)
    assert record_name() == names[0]
    assert all(name.startswith("pieces/hugo/chapter2/out00000006-") for name in names)


def test_sky_masks_are_in_a_records_name():
    [piece] = pieces_of_clip(video(), "hugo/chapter2", [5, 6])
    masks = [{}, {piece.names[0]: 10}, {piece.names[0]: 11}, {piece.names[1]: 10}, {"other": 10}]
    names = [piece.record_name(MOVIES, mask) for mask in masks]
    assert len(set(names)) == 4
    assert names[0] == names[4]
