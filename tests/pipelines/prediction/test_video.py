from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from datasets_prep.formats.video import Video
from datasets_prep.storage.folder import Folder
from pipelines.prediction.video import BadVideo, Frame, read_frames, writing_video
from tests.support.videos import FASTSTART, encoded, noise, scene, with_matrix


def write(path: Path, pictures: list[np.ndarray], times: list[int], time_base: Fraction) -> None:
    with writing_video(path) as write_frame:
        for picture, time in zip(pictures, times, strict=True):
            write_frame(Frame(picture, time, 1, time_base))


def flat(level: int, height: int = 32, width: int = 48) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def test_frames_come_back_in_order_at_their_times(tmp_path):
    levels, times = [40, 120, 200, 90], [0, 3, 4, 9]
    write(tmp_path / "a.mp4", [flat(level) for level in levels], times, Fraction(1, 30))
    frames = list(read_frames(tmp_path / "a.mp4"))
    assert [frame.time * frame.time_base for frame in frames] == [Fraction(time, 30) for time in times]
    for frame, level in zip(frames, levels, strict=True):
        assert frame.image.shape == (32, 48, 3)
        assert np.abs(frame.image.astype(int) - level).max() < 12


def test_odd_sizes_are_padded(tmp_path):
    write(tmp_path / "a.mp4", [flat(100, 33, 47)], [0], Fraction(1, 25))
    (frame,) = read_frames(tmp_path / "a.mp4")
    assert frame.image.shape == (34, 48, 3)
    assert np.abs(frame.image.astype(int) - 100).max() < 12


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(BadVideo, match=r"text\.mp4 is not a readable video: .*, after 0 frames"):
        list(read_frames(tmp_path / "text.mp4"))
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(BadVideo, match=r"empty\.mp4 is not a readable video"):
        list(read_frames(tmp_path / "empty.mp4"))


def seconds(path: Path) -> float:
    """How long a player shows the file."""
    with av.open(str(path)) as container:
        return container.duration / av.time_base


@pytest.mark.parametrize(("rate", "times", "expected"), [
    (30, range(10), 10 / 30),
    (1, range(4), 4.0),
    (Fraction(30000, 1001), range(7), 7 * 1001 / 30000),
    (10, (0, 1, 5, 6), 0.7),  # variable rate
])  # fmt: skip
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_copy_takes_as_long_as_its_original(tmp_path, suffix, rate, times, expected):
    if suffix == "avi" and len(set(np.diff(times))) > 1:
        pytest.skip("AVI has no times")
    times = list(times)
    original = encoded(tmp_path / f"a.{suffix}", [noise(n) for n in times], rate, times)
    with writing_video(tmp_path / "copy.mp4") as write_frame:
        for frame in read_frames(original):
            write_frame(frame)
    assert seconds(tmp_path / "copy.mp4") == pytest.approx(expected, abs=2e-3)
    shown = [float(frame.time * frame.time_base) for frame in read_frames(tmp_path / "copy.mp4")]
    np.testing.assert_allclose(shown, [float(time / rate) for time in times], atol=1e-3)


@pytest.mark.parametrize(("suffix", "options"), [("mp4", FASTSTART), ("mkv", {}), ("avi", {})])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_cut_video_is_read_up_to_the_cut_which_is_said(tmp_path, suffix, options, share):
    path = encoded(tmp_path / f"a.{suffix}", [noise(n) for n in range(60)], options=options)
    assert len(list(read_frames(path))) == 60
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    frames = []
    with pytest.raises(BadVideo, match=rf"breaks off after {len_of(path)} of 60 frames"):
        frames.extend(read_frames(path))
    assert 0 < len_of(path) < 60


def len_of(path: Path) -> int:
    """Frames that FFmpeg's own loop decodes before it ends, for whatever reason."""
    count = 0
    with av.open(str(path)) as container:
        try:
            for _ in container.decode(video=0):
                count += 1
        except av.error.FFmpegError:
            pass
    return count


def test_frames_after_damage_are_read_and_the_damage_is_said(tmp_path):
    path = encoded(tmp_path / "a.mov", [noise(n) for n in range(20)], codec="mjpeg")
    data = bytearray(path.read_bytes())
    third = [place for place in range(len(data) - 1) if data[place : place + 3] == b"\xff\xd8\xff"][3]
    data[third : third + 600] = bytes(600)
    path.write_bytes(data)
    frames: list[Frame] = []
    with pytest.raises(BadVideo, match="is damaged: of its frames 1 could not be decoded"):
        frames.extend(read_frames(path))
    assert len(frames) == 19
    assert float(frames[-1].time * frames[-1].time_base) == pytest.approx(19 / 30, abs=1e-3)


def test_a_gap_in_the_container_is_said(tmp_path):
    """The demuxer of Matroska skips what it cannot read, without an error."""
    path = encoded(tmp_path / "a.mkv", [noise(n) for n in range(20)])
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 600] = bytes(byte ^ 0x5A for byte in data[middle : middle + 600])
    path.write_bytes(data)
    frames: list[Frame] = []
    with pytest.raises(BadVideo, match=r"a\.mkv is damaged"):
        frames.extend(read_frames(path))
    assert 10 <= len(frames) < 20


def damaged(kind: str, data: bytes, start: int, count: int, rng: np.random.Generator) -> bytes:
    middle = {"zeros": bytes(count), "noise": rng.bytes(count), "removed": b""}[kind]
    return data[:start] + middle + data[start + count :]


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["zeros", "noise", "removed"])
@pytest.mark.parametrize(
    ("suffix", "codec"), [("avi", "mpeg4"), ("mpg", "mpeg1video"), ("mpeg", "mpeg2video")]
)
def test_a_garbled_avi_or_program_stream_is_never_taken_for_a_whole_one(tmp_path, suffix, codec, kind):
    """FFmpeg skips what it cannot read of them, without an error: the times of frames then have a hole."""
    pictures = [noise(number, 64, 96) for number in range(40)]
    path = encoded(tmp_path / f"a.{suffix}", pictures, rate=25, codec=codec)
    data, clean = path.read_bytes(), [frame.image for frame in read_frames(path)]
    assert len(clean) == 40
    rng = np.random.default_rng(3)
    for start in np.linspace(6000, 0.8 * len(data), 8).astype(int):
        path.write_bytes(damaged(kind, data, start, 1500, rng))
        found: list[Frame] = []
        with pytest.raises(BadVideo, match=rf"a\.{suffix} (is damaged|breaks off)"):
            found.extend(read_frames(path))
        assert len(found) > 0


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "webm"])
def test_a_video_may_begin_late(tmp_path, suffix):
    codec = "libvpx" if suffix == "webm" else "mpeg4"
    times = range(150, 160)
    path = encoded(tmp_path / f"a.{suffix}", [noise(n) for n in range(10)], times=times, codec=codec)
    assert len(list(read_frames(path))) == 10


@pytest.mark.parametrize(("aspect", "size"), [
    (Fraction(2), (32, 128)),
    (Fraction(1, 2), (64, 64)),
    (Fraction(4, 3), (32, 85)),
    (None, (32, 64)),
    (Fraction(200), (32, 64)),  # a damaged header
])  # fmt: skip
def test_pixels_are_shown_square(tmp_path, aspect, size):
    path = encoded(tmp_path / "a.mkv", [scene()] * 2, aspect=aspect)
    for frame in read_frames(path):
        assert frame.image.shape[:2] == size
        assert agreement(frame.image, Image.fromarray(scene()).resize(size[::-1])) > 0.98


@pytest.mark.parametrize(("matrix", "oriented"), [
    ((1, 0, 0, 1), lambda picture: picture),
    ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),  # as telephones held upright write
    ((0, -1, 1, 0), np.rot90),
    ((-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
    ((-1, 0, 0, 1), np.fliplr),
    ((1, 0, 0, -1), np.flipud),
    ((0, 1, 1, 0), lambda picture: picture.swapaxes(0, 1)),
])  # fmt: skip
def test_pictures_are_upright(tmp_path, matrix, oriented):
    path = with_matrix(encoded(tmp_path / "a.mp4", [scene()] * 2, aspect=Fraction(2)), *matrix)
    wide = np.asarray(Image.fromarray(scene()).resize((128, 32)))
    expected = oriented(wide)
    for image in [frame.image for frame in read_frames(path)] + list(raw_frames(path)):
        assert image.shape == expected.shape
        assert agreement(image, expected) > 0.98


def raw_frames(path: Path) -> list[np.ndarray]:
    """As the readers of films have them."""
    with Video(Folder(path.parent), path.name) as opened:
        return list(opened.frames([0, 1]))


def agreement(image: np.ndarray, expected: np.ndarray | Image.Image) -> float:
    return float(np.corrcoef(image.ravel(), np.asarray(expected).ravel())[0, 1])
