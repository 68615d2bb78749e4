"""Frames by number: seeking finds what counting finds, and damage is a reason, not a crash."""

import errno
import io
from contextlib import suppress
from fractions import Fraction

import av
import numpy as np
import pytest

from datasets_prep.errors import BadSample
from datasets_prep.formats.video import Video
from datasets_prep.storage.folder import Folder
from datasets_prep.writers.stereo_video import encode_video
from tests.support.videos import encoded, noise

FRAMES, HEIGHT, WIDTH = 60, 64, 96


def shade_of(number: int) -> int:
    return 20 + 3 * number


def numbered_frames(count: int = FRAMES) -> list[np.ndarray]:
    """Frames whose grey value tells their number."""
    return [np.full((HEIGHT, WIDTH, 3), shade_of(number), np.uint8) for number in range(count)]


def number_of(frame: np.ndarray) -> int:
    assert (frame.shape, frame.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    return round((float(frame.mean()) - 20) / 3)


@pytest.fixture(scope="module", params=["matroska", "mp4"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    root = tmp_path_factory.mktemp("videos")
    (root / "a.video").write_bytes(encode_video(numbered_frames(), request.param, [(0, 20), (20, 60)]))
    return Folder(root)


@pytest.mark.parametrize("numbers", [[0], [0, 1, 2], [11, 12, 13], [25, 40, 59], [59], []])
def test_frames_are_found_by_number(folder, numbers):
    with Video(folder, "a.video") as video:
        assert [number_of(frame) for frame in video.frames(numbers)] == numbers
        # Again from the same open video, backwards.
        assert [number_of(frame) for frame in video.frames([5])] == [5]


def test_every_frame_is_found_by_seeking_to_it(folder):
    with Video(folder, "a.video") as video:
        found = [number_of(next(video.frames([number]))) for number in range(FRAMES)]
    assert found == list(range(FRAMES))


def test_frames_that_are_stored_out_of_order_are_found_at_a_rate_of_ntsc(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        stream = output.add_stream("mpeg4", rate=Fraction(24000, 1001), options={"bf": "2", "g": "12"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 10**6
        for frame in numbered_frames():
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode())
    with av.open(str(tmp_path / "a.mkv")) as stored:
        decoding_order = [packet.pts for packet in stored.demux(video=0) if packet.pts is not None]
    assert decoding_order != sorted(decoding_order)
    with Video(Folder(tmp_path), "a.mkv") as video:
        assert video.frame_rate == Fraction(24000, 1001)
        found = [number_of(next(video.frames([number]))) for number in range(FRAMES)]
    assert found == list(range(FRAMES))


def test_rate_and_chapters(folder):
    with Video(folder, "a.video") as video:
        assert (video.frame_rate, video.chapters()) == (24, [(0, 20), (20, 60)])


def test_thumbnails_cover_a_range(folder):
    with Video(folder, "a.video") as video:
        found = list(video.thumbnails(17, 31, 32))
        whole = list(video.thumbnails(0, None, 32))
    assert [number for number, _ in found] == list(range(17, 31))
    assert [number for number, _ in whole] == list(range(FRAMES))
    for number, thumbnail in found:
        assert thumbnail.shape == (21, 32)
        assert abs(int(np.median(thumbnail)) - shade_of(number)) < 12


def test_a_frame_after_the_end_is_missing(folder):
    with Video(folder, "a.video") as video:
        frames = video.frames([58, 59, 60])
        assert [number_of(next(frames)) for _ in range(2)] == [58, 59]
        with pytest.raises(BadSample, match="frame missing: the video has no frame 60"):
            next(frames)


@pytest.mark.parametrize("content", [b"", b"<html>login</html>", b"\x00" * 4096])
def test_what_is_no_video_is_refused(content, tmp_path):
    (tmp_path / "bad.mkv").write_bytes(content)
    with pytest.raises(BadSample, match=r"^video cannot be opened: "):
        Video(Folder(tmp_path), "bad.mkv")


def test_a_video_without_pictures_is_refused(tmp_path):
    with av.open(str(tmp_path / "sound.mkv"), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        for packet in (*stream.encode(frame), *stream.encode()):
            output.mux(packet)
    with pytest.raises(BadSample, match=r"^video cannot be opened: "):
        Video(Folder(tmp_path), "sound.mkv")


def test_a_truncated_video_gives_what_it_has(tmp_path):
    whole = encode_video(numbered_frames())
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    with Video(Folder(tmp_path), "cut.mkv") as video:
        assert number_of(next(video.frames([3]))) == 3
        with pytest.raises(BadSample, match=r"^(frame missing|video damaged): "):
            list(video.frames([3, 59]))


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_is_read_or_refused(seed, tmp_path):
    rng = np.random.default_rng(seed)
    content = np.frombuffer(encode_video(numbered_frames(30)), np.uint8).copy()
    places = rng.integers(0, len(content), 40)
    content[places] = rng.integers(0, 256, 40)
    (tmp_path / "bad.mkv").write_bytes(content.tobytes())
    with suppress(BadSample), Video(Folder(tmp_path), "bad.mkv") as video:
        for frame in video.frames([0, 7, 29]):
            assert frame.ndim == 3


def test_a_frame_decoded_with_errors_is_missing(tmp_path):
    path = encoded(tmp_path / "a.avi", [noise(number, HEIGHT, WIDTH) for number in range(40)])
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes(200) + data[middle + 200 :])
    with Video(Folder(tmp_path), "a.avi") as video:
        with pytest.raises(BadSample, match="frame missing: the video has no frame"):
            list(video.frames(range(40)))
        assert len(list(video.frames(range(5)))) == 5


def test_failing_storage_is_not_blamed_on_the_video(folder, monkeypatch):
    class Failing(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise OSError("storage is gone")

    remote = Folder("memory://failing")
    monkeypatch.setattr(remote.fs, "open", lambda *_: Failing())
    with pytest.raises(OSError, match="storage is gone"):
        Video(remote, "a.video")


def test_videos_are_read_from_remote_folders(folder):
    remote = Folder("memory://videos")
    remote.fs.pipe(remote.path_of("a.video"), folder.read_bytes("a.video"))
    with Video(remote, "a.video") as video:
        assert [number_of(frame) for frame in video.frames([30, 31])] == [30, 31]


@pytest.mark.parametrize(("code", "expected"), [(errno.EINVAL, BadSample), (errno.EIO, OSError)])
def test_a_place_before_the_start_is_damage_and_a_failing_disk_is_not(tmp_path, monkeypatch, code, expected):
    class Stubborn(io.BytesIO):
        def seek(self, offset: int, whence: int = 0) -> int:
            raise OSError(code, "no")

    data = encode_video(numbered_frames(5), "mp4")
    root = Folder(tmp_path)
    monkeypatch.setattr(root.fs, "open", lambda *_: Stubborn(data))
    with pytest.raises(expected), Video(root, "a.mp4"):
        pass
