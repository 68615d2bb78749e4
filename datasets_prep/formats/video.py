"""Frames of a video by number, decoded by FFmpeg's libraries through PyAV, from any storage.

A frame's number is its time since the start of the video stream times the average frame rate. In videos of
constant rate, such as films and nearly all web videos, it counts from 0. It needs no index, so a clip in the
middle of a film is read by seeking to the key frame before it. Frames are as a person sees them: with square
pixels, turned and mirrored as the file says.
"""

import errno
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.sidedata.sidedata import SideData
from numpy.typing import NDArray

from datasets_prep.errors import BadSample
from datasets_prep.storage.folder import Folder

SUFFIXES = ("mkv", "mp4", "webm", "m4v", "mov", "avi")
"""File name endings of videos. MPEG transport streams are not accepted: they have no index, and seeking in
them loses frames at both ends."""

MAX_FRAME_PIXELS = 8192 * 4320
"""Larger frames are refused: no stereo film has them, and a damaged header could require any memory."""


_WIDEST = 8
"""A sample aspect ratio beyond it comes from a damaged header, and could require any memory: ignored."""


def as_shown(frame: av.VideoFrame, aspect: Fraction | None) -> NDArray[np.uint8]:
    """The picture of a `frame` as a player shows it, (H, W, 3) uint8 RGB.

    `aspect` is the width of a stored pixel over its height (`sample_aspect_ratio`), None for square ones.
    They are stretched along their shorter side, so that nothing is lost. Then the file's display matrix is
    applied: telephones film in landscape and store the rotation, other cameras mirror.
    """
    width, height = frame.width, frame.height
    if aspect and 1 < aspect <= _WIDEST:
        width = round(width * aspect)
    elif aspect and 1 > aspect >= Fraction(1, _WIDEST):
        height = round(height / aspect)
    image = _oriented(frame.to_ndarray(format="rgb24", width=width, height=height), frame)
    return np.ascontiguousarray(image, dtype=np.uint8)


def _oriented(image: NDArray[Any], frame: av.VideoFrame) -> NDArray[Any]:
    """An `image` turned and mirrored by the display matrix of its `frame`, in steps of 90°.

    The matrix (a b; c d) takes column x and row y to column a·x + c·y and row b·x + d·y.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    (a, b, _), (c, d, _), _ = np.frombuffer(bytes(cast(SideData, matrix)), np.int32).reshape(3, 3).tolist()
    across, down = a, d
    if abs(b) > abs(a):
        image, across, down = image.swapaxes(0, 1), c, b
    return image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


class Video:
    """The open video file `path` in `folder`, decoded on one thread (the jobs run one task per core).

    Raises BadSample if it is not a video, or its frames are too large; OSError when storage fails.
    """

    def __init__(self, folder: Folder, path: str) -> None:
        self.path = path
        self._file = folder.open(path)
        try:
            # Titles in encodings other than UTF-8 do not matter.
            self._container = av.open(self._file, "r", metadata_errors="replace")
        except (av.FFmpegError, ValueError, OSError) as error:
            self._file.close()
            if not _is_damage(error):
                raise
            raise BadSample(f"video cannot be opened: {_message(error)}") from error
        problem = _problem_of(self._container)
        if problem:
            self.close()
            raise BadSample(f"video cannot be opened: {problem}")
        self._stream = self._container.streams.video[0]
        self._stream.codec_context.thread_count = 1

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        self._file.close()

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second, on average."""
        rate = self._stream.average_rate
        assert rate is not None
        return Fraction(rate)

    def chapters(self) -> list[tuple[int, int]]:
        """The chapters that the container marks, as half-open ranges of frame numbers; often none."""
        marks: list[Any] = self._container.chapters()
        rates = [(mark, mark["time_base"] * self.frame_rate) for mark in marks]
        return [(round(mark["start"] * rate), round(mark["end"] * rate)) for mark, rate in rates]

    def frames(self, numbers: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """The frames with these ascending `numbers`.

        Yields:
            (H, W, 3) uint8 RGB for each number.

        Raises:
            BadSample: naming the first frame that is missing or cannot be decoded.
        """
        wanted = list(numbers)
        for number, frame in self._decode_from(wanted[0] if wanted else 0):
            if not wanted or wanted[0] < number:
                break
            if wanted[0] == number:
                wanted.pop(0)
                yield as_shown(frame, self._stream.sample_aspect_ratio)
        if wanted:
            raise BadSample(f"frame missing: the video has no frame {wanted[0]}")

    @property
    def count(self) -> int:
        """How many frames the header tells, or else its duration."""
        if self._stream.frames:
            return self._stream.frames
        return int(Fraction(self._container.duration or 0, av.time_base) * self.frame_rate)

    def frames_from(self, numbers: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """For each of the ascending `numbers` the first frame at or after it, (H, W, 3) uint8 RGB.

        Frames come at varying intervals from telephones, so that some numbers have none. Numbers beyond the
        end of the video are left out. Raises BadSample where it cannot be decoded further.
        """
        wanted = deque(numbers)
        for number, frame in self._decode_from(wanted[0]):
            while wanted and number >= wanted[0]:
                yield wanted.popleft(), as_shown(frame, self._stream.sample_aspect_ratio)
            if not wanted:
                return

    def thumbnails(self, start: int, stop: int | None, width: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Number and reduced luma of all frames from `start` to before `stop` (None: the end).

        Yields:
            The frame's number, and (h, `width`) uint8.

        Raises:
            BadSample: where the video cannot be decoded further.
        """
        height = max(2, round(width * self._stream.height / self._stream.width))
        for number, frame in self._decode_from(start):
            if stop is not None and number >= stop:
                return
            if number >= start:
                small = frame.reformat(width=width, height=height, format="gray")
                yield number, np.asarray(small.to_ndarray(), np.uint8)

    def _decode_from(self, number: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames that can be decoded with their numbers, from the key frame at or before `number`."""
        try:
            self._seek(number)
            first = True
            for frame in self._sound():
                found = self._number(frame)
                if first and found > number > 0:
                    # Some containers seek to the key frame after it; only the start is certain then.
                    self._seek(0)
                    yield from ((self._number(one), one) for one in self._sound())
                    return
                first = False
                yield found, frame
        except (av.FFmpegError, ValueError, OSError) as error:
            if isinstance(error, BadSample) or not _is_damage(error):
                raise
            raise BadSample(f"video damaged: {_message(error)}") from error

    def _sound(self) -> Iterator[av.VideoFrame]:
        return (frame for frame in self._container.decode(self._stream) if not frame.is_corrupt)

    def _seek(self, number: int) -> None:
        assert self._stream.time_base is not None
        ticks = number / self.frame_rate / self._stream.time_base
        self._container.seek((self._stream.start_time or 0) + int(ticks), stream=self._stream)

    def _number(self, frame: av.VideoFrame) -> int:
        if frame.pts is None or frame.time_base is None:
            raise BadSample("video damaged: it has a frame without time")
        seconds = (frame.pts - (self._stream.start_time or 0)) * frame.time_base
        return round(seconds * self.frame_rate)


def _problem_of(container: av.container.InputContainer) -> str | None:
    """The defect of a file without pictures or with a damaged header; None if there is none."""
    if not container.streams.video:
        return "no video in it"
    stream = container.streams.video[0]
    if stream.codec_context is None:
        return "unknown codec"
    if not 0 < (stream.width or 0) * (stream.height or 0) <= MAX_FRAME_PIXELS:
        return f"frames of {stream.width}x{stream.height} pixels"
    if not stream.average_rate or not stream.time_base:
        return "no frame rate"
    return None


def _is_damage(error: Exception) -> bool:
    """Whether the file is at fault: an error of FFmpeg, or a seek before its start (EINVAL)."""
    beyond = isinstance(error, OSError) and error.errno == errno.EINVAL
    return beyond or isinstance(error, (av.FFmpegError, ValueError))


def _message(error: Exception) -> str:
    return " ".join(str(error).split())
