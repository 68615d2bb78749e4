import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets_prep.errors import BadSample, NotFound, UserError
from datasets_prep.storage.folder import Folder
from pipelines.config import ConfigError, LabelConfig
from pipelines.labelling.pictures import Pictures, find_pictures
from pipelines.labelling.reading import Fetch, fetching
from pipelines.prediction.decoding import decode_image
from tests.support.labelling import blurred, save
from tests.support.videos import encoded, noise


def found(*arguments: object, **settings: object) -> Pictures:
    return find_pictures([str(one) for one in arguments], "out", LabelConfig(**settings))


def ids(pictures: Pictures) -> list[str]:
    return [sample.sample_id for sample in pictures.samples]


def contents(pictures: Pictures, column: str | None = None) -> dict[str, np.ndarray | str]:
    """Id → pixels, or why there are none."""
    result: dict[str, np.ndarray | str] = {}
    for sample, fetch in fetching(list(pictures.samples), column):
        result[sample.sample_id] = pixels_or_reason(fetch)
    return result


def pixels_or_reason(fetch: Fetch) -> np.ndarray | str:
    try:
        content = fetch()
    except BadSample as error:
        return str(error)
    return decode_image(content) if isinstance(content, bytes) else content


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.png", "b/c.png", "b/d.PNG")):
        save(tmp_path / "photos" / name.replace("PNG", "png"), blurred(number))
    (tmp_path / "photos/b/d.png").rename(tmp_path / "photos/b/d.PNG")
    (tmp_path / "photos/.hidden.png").write_bytes(b"")
    (tmp_path / "photos/notes.txt").write_text("none")
    return tmp_path / "photos"


ALL = ["a.png", "b/c.png", "b/d.PNG"]


def test_a_folder(photos):
    pictures = found(photos)
    assert ids(pictures) == ALL
    assert {entry.path: entry.reason for entry in pictures.rejected} == {
        ".hidden.png": "hidden, special, or a file of the operating system",
        "notes.txt": "not read: neither image, video nor Parquet file",
    }
    pixels = contents(pictures)
    assert all((pixels[name] == blurred(number)).all() for number, name in enumerate(ALL))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_has_the_ids_and_contents_of_its_folder(photos, tmp_path, kind):
    (photos / ".hidden.png").unlink()
    archive = shutil.make_archive(str(tmp_path / "photos-archive"), kind, photos)
    pictures = found(archive)
    assert ids(pictures) == ALL
    pixels = contents(pictures)
    assert all((pixels[name] == blurred(number)).all() for number, name in enumerate(ALL))


def test_object_storage(photos):
    remote = Folder("memory://bucket-of-photos")
    for name in ALL:
        with remote.writing(name) as path:
            path.write_bytes((photos / name).read_bytes())
    assert ids(found("memory://bucket-of-photos")) == ALL
    pictures = found("memory://bucket-of-photos/b/*.png")
    assert ids(pictures) == ["c.png"]
    assert (contents(pictures)["c.png"] == blurred(1)).all()


def test_patterns_and_single_files(photos):
    assert ids(found(f"{photos}/**/*.png")) == ["a.png", "b/c.png"]
    assert ids(found(photos / "a.png")) == ["a.png"]
    with pytest.raises(NotFound, match=r"no file matches .*\.webp"):
        found(f"{photos}/*.webp")


def test_several_arguments_name_each_file_once_below_what_they_share(photos, tmp_path):
    save(tmp_path / "more/a.png", blurred(9))
    both = found(photos / "b", photos, tmp_path / "more")
    assert ids(both) == ["more/a.png", *(f"photos/{name}" for name in ALL)]
    other_order = found(tmp_path / "more", photos, photos / "b")
    assert (ids(other_order), other_order.digest) == (ids(both), both.digest)


def test_the_folder_of_the_results_is_not_an_input(photos):
    out = photos / "shards"
    save(out / "photos/1/x.png", blurred(1))
    pictures = find_pictures([str(photos)], str(out), LabelConfig())
    assert ids(pictures) == ALL


def test_nothing_to_label_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"no picture in .*first file left out: notes.txt: not read"):
        found(tmp_path)
    with pytest.raises(NotFound, match="nowhere"):
        found(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"notes\.txt is a file"):
        found(tmp_path / "notes.txt")


def test_every_nth_frame_of_a_video(tmp_path):
    frames = [np.full((64, 96, 3), 20 * number, np.uint8) for number in range(10)]
    encoded(tmp_path / "clip.mp4", frames)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    pictures = found(tmp_path, frame_step=4)
    assert ids(pictures) == ["clip.mp4#000000", "clip.mp4#000004", "clip.mp4#000008"]
    assert [entry.path for entry in pictures.rejected] == ["bad.mp4"]
    means = [pixels.mean() for pixels in contents(pictures).values()]
    assert means == pytest.approx([0, 80, 160], abs=6)


def test_frames_at_varying_intervals_and_a_header_that_promises_more(tmp_path):
    times = [0, 1, 2, 9, 10, 11]
    path = encoded(tmp_path / "clip.mp4", [noise(number) for number in times], times=times)
    pictures = found(path, frame_step=2)
    assert len(pictures.samples) == 3
    read = contents(pictures)
    assert all(isinstance(pixels, np.ndarray) for pixels in read.values())
    # a file cut after planning
    path.write_bytes(b"")
    assert "cannot be opened" in str(contents(pictures)["clip.mp4#000002"])


@pytest.mark.parametrize("struct", [False, True])
def test_rows_of_a_parquet_file(tmp_path, struct):
    data = [(save(tmp_path / "one.png", blurred(number))).read_bytes() for number in range(5)]
    (tmp_path / "one.png").unlink()
    values = [{"bytes": one, "path": "x"} for one in data] if struct else list(data)
    table = pa.table({"image": [*values, None], "caption": [b"not"] * 6})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=2)
    pq.write_table(pa.table({"label": [1, 2]}), tmp_path / "other.parquet")
    pictures = found(tmp_path)
    assert ids(pictures) == [f"rows.parquet#{number:06}" for number in range(6)]
    assert "no column 'image'" in pictures.rejected[0].reason
    read = contents(pictures)
    assert all((read[f"rows.parquet#{number:06}"] == blurred(number)).all() for number in range(5))
    assert read["rows.parquet#000005"] == "the row has no image"
