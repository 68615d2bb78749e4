"""Videos, frame by frame: reading any that FFmpeg decodes, and writing a picture of each frame's depth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import UserError

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
_ENCODERS = ("libx264", "libopenh264", "mpeg4")
_DEFAULT_RATE = Fraction(25)


class BadVideo(UserError):
    """A file that is no readable video; the message names it."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded frame: (H, W, 3) uint8 RGB, upright, and when it is shown, in `time_base` seconds."""

    image: NDArray[np.uint8]
    time: int
    time_base: Fraction


def read_frames(path: Path) -> Iterator[Frame]:
    """The frames of a video's first picture stream, in the order in which they are shown.

    Raises:
        BadVideo: if it cannot be opened, has no frame, breaks off, or changes its size.
    """
    count, shape = 0, None
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise BadVideo(f"{path} has no pictures in it")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            rate = stream.average_rate or _DEFAULT_RATE
            for frame in container.decode(stream):
                if frame.pts is None or frame.time_base is None:
                    time, time_base = count, 1 / rate
                else:
                    time, time_base = frame.pts, frame.time_base
                image = _upright(frame)
                shape = shape or image.shape
                if image.shape != shape:
                    raise BadVideo(f"{path}: its pictures change their size after {count} frames")
                yield Frame(image, time, time_base)
                count += 1
    except av.error.FFmpegError as error:
        raise BadVideo(f"{path} is no readable video: {error.strerror}, after {count} frames") from error
    if not count:
        raise BadVideo(f"{path} has no frames")


def _upright(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """A frame as a person sees it: telephones film in landscape and note the rotation."""
    quarters = round(frame.rotation / 90)
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), quarters), dtype=np.uint8)


class VideoWriter:
    """Writes pictures of one size as MP4, H.264 where this machine's FFmpeg has it.

    Pictures of an odd height or width get one more row or column, a repetition of the last: the usual
    formats store colour at half the resolution.
    """

    def __init__(self, container: av.container.OutputContainer) -> None:
        self._container = container
        self._stream: av.VideoStream | None = None

    def write(self, picture: NDArray[np.uint8], time: int, time_base: Fraction) -> None:
        """Add a (H, W, 3) uint8 RGB picture that is shown from a time on."""
        height, width = picture.shape[:2]
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._stream = self._start(picture.shape[1], picture.shape[0], time_base)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = time, time_base
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write what the encoder holds back."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))

    def _start(self, width: int, height: int, time_base: Fraction) -> av.VideoStream:
        encoder = next(name for name in _ENCODERS if name in av.codec.codecs_available)
        stream = self._container.add_stream(encoder, rate=_DEFAULT_RATE)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = time_base
        return stream


@contextmanager
def writing_video(path: Path) -> Iterator[VideoWriter]:
    """Open a file (whatever its name ends in) to write a video to; it is complete when the block ends."""
    with av.open(str(path), "w", format="mp4") as container:
        writer = VideoWriter(container)
        yield writer
        writer.finish()
