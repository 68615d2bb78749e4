from pathlib import Path

import PIL.Image
import pytest

from datasets_prep.errors import NotFound
from pipelines.prediction.inputs import AmbiguousOutputs, Input, find_inputs


def files(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def outputs_of(source: Input) -> list[str]:
    return [source.name + suffix for suffix in (".npy", ".png", "_colour.png")]


def names(*arguments: Path | str, out: Path | None = None) -> dict[str, str]:
    """File name → name of its results."""
    found = find_inputs([str(argument) for argument in arguments], outputs_of, out)
    return {source.path.as_posix(): source.name for source in found}


def test_folders_are_searched_at_any_depth_and_keep_their_shape(tmp_path):
    a, b, clip, _ = files(tmp_path / "in", "a.JPG", "x/y/b.png", "x/clip.mp4", "notes.txt")
    assert names(tmp_path / "in") == {str(a): "a", str(clip): "x/clip", str(b): "x/y/b"}


def test_patterns_are_named_below_what_their_matches_share(tmp_path):
    a, b, _ = files(tmp_path / "in", "x/a.jpg", "y/b.jpg", "y/c.txt")
    assert names(tmp_path / "in" / "*" / "*") == {str(a): "x/a", str(b): "y/b"}
    (literal,) = files(tmp_path, "photo[1].jpg")
    assert names(literal) == {str(literal): "photo[1]"}


def test_a_name_that_exists_is_no_pattern(tmp_path):
    a, b = files(tmp_path / "my photos [2024]", "a.png", "x/b.png")
    assert names(tmp_path / "my photos [2024]" / "*.png") == {str(a): "a"}
    assert names(tmp_path / "my photos [2024]" / "**" / "*.png") == {str(a): "a", str(b): "x/b"}
    assert names(tmp_path / "my photos [2024]") == {str(a): "a", str(b): "x/b"}
    assert names(tmp_path / "my photos ?2024?" / "?.png") == {str(a): "a"}


def test_the_folder_of_the_results_may_be_that_of_the_images(tmp_path, monkeypatch):
    a, b = files(tmp_path, "a.jpg", "x/b.jpg")
    assert names(tmp_path, out=tmp_path) == {str(a): "a", str(b): "x/b"}
    assert names(tmp_path / "x", out=tmp_path) == {str(b): "b"}
    monkeypatch.chdir(tmp_path)
    assert names(".", out=Path()) == {"a.jpg": "a", "x/b.jpg": "x/b"}
    assert names("*.jpg", out=Path()) == {"a.jpg": "a"}
    files(tmp_path, "a.png")  # of an earlier run, or not
    with pytest.raises(AmbiguousOutputs, match=r"a\.png is an input and would be overwritten"):
        names(".", out=Path())


def test_links_are_followed_but_not_in_circles(tmp_path):
    a, b = files(tmp_path, "in/a.png", "elsewhere/deep/b.png")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "self").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "c.png").symlink_to(b)
    folder = tmp_path / "in"
    expected = {str(a): "a", str(folder / "c.png"): "c", str(folder / "link/deep/b.png"): "link/deep/b"}
    assert names(folder) == expected


def test_what_is_not_taken_is_counted_and_named(tmp_path, monkeypatch):
    monkeypatch.delitem(PIL.Image.registered_extensions(), ".heic", raising=False)
    folder = tmp_path / "in"
    (a, *_) = files(folder, "a.png", "._a.png", ".git/x.png", "notes.txt", "IMG_1.HEIC", "out/b.png", "t.py")
    (folder / "gone.jpg").symlink_to(tmp_path / "nowhere")
    lines: list[str] = []
    found = find_inputs([str(folder)], outputs_of, folder / "out", lines.append)
    assert [source.path for source in found] == [a]
    [line] = lines
    assert line.startswith("7 files were not taken: ")
    for part in (
        "2 hidden (._a.png, .git)",
        "2 neither image nor video (notes.txt, t.py)",
        "1 no decoder of .heic is installed, convert it to PNG or JPEG (IMG_1.HEIC)",
        "1 a broken link (gone.jpg)",
        "1 in the folder of the results (b.png)",
    ):
        assert part in line
    lines.clear()
    find_inputs([str(folder / "*.png"), str(folder / "a*")], outputs_of, None, lines.append)
    assert lines == []
    with pytest.raises(NotFound, match=r"matches .*; not taken: 1 neither .* \(notes\.txt\)"):
        names(folder / "*.txt")


def test_standard_input_is_an_input(tmp_path):
    (a,) = files(tmp_path, "a.jpg")
    assert names("-", a) == {"-": "stdin", str(a): "a"}


def test_a_file_that_is_named_twice_is_predicted_once(tmp_path):
    (a,) = files(tmp_path, "a.jpg")
    (tmp_path / "x").mkdir()
    assert names(a, tmp_path, tmp_path / "*.jpg", tmp_path / "x" / ".." / "a.jpg") == {str(a): "a"}


def test_equal_names_are_told_apart_by_folder_or_suffix(tmp_path):
    one, other = files(tmp_path, "x/a.png", "y/a.png")
    assert names(one, other) == {str(one): "x/a", str(other): "y/a"}
    png, jpg = files(tmp_path / "z", "a.png", "a.jpg")
    assert names(png, jpg) == {str(png): "a.png", str(jpg): "a.jpg"}


def test_names_of_results_count_too(tmp_path):
    """a_colour.png is a result of a.jpg, and so is one of a_colour.jpg."""
    one, other = files(tmp_path, "a.jpg", "a_colour.jpg")
    assert names(one, other) == {str(one): "a.jpg", str(other): "a_colour.jpg"}
    odd = files(tmp_path / "odd", "a", "a_colour")
    with pytest.raises(AmbiguousOutputs, match=r"outputs of .*a and .*a_colour would overwrite each other"):
        names(*odd)


def test_results_never_overwrite_an_input_nor_become_one(tmp_path):
    (a,) = files(tmp_path, "a.png")
    with pytest.raises(AmbiguousOutputs, match=r"a\.png is an input and would be overwritten"):
        names(a, out=tmp_path)
    files(tmp_path, "predictions/a.png", "predictions/a_colour.png")
    assert names(tmp_path, out=tmp_path / "predictions") == {str(a): "a"}


def test_what_cannot_be_found_is_refused(tmp_path):
    with pytest.raises(NotFound, match=r"no such image: .*nothing"):
        names(tmp_path / "nothing.jpg")
    with pytest.raises(NotFound, match=r"no image or video in folder .* \(looked for \.avi"):
        names(tmp_path)
    with pytest.raises(NotFound, match=r"no image or video matches .*\*\.jpg"):
        names(tmp_path / "*.jpg")
