"""Videos, frame by frame: reading what FFmpeg decodes, and writing MP4."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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

WriteFrame = Callable[[NDArray[np.uint8], int, Fraction], None]
"""(image (H, W, 3) uint8 RGB, time, time base in seconds) → None; images must be of one size."""


class BadVideo(UserError):
    """A file that is not a readable video; the message names it."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded `image`, (H, W, 3) uint8 RGB, upright, which is shown at `time` · `time_base` seconds."""

    image: NDArray[np.uint8]
    time: int
    time_base: Fraction


def read_frames(path: Path) -> Iterator[Frame]:
    """The frames of the first video stream of the file at `path`, in presentation order.

    Raises:
        BadVideo: if the file cannot be opened, has no frame, is truncated, or its frames change their size.
    """
    count, shape = 0, None
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise BadVideo(f"{path} has no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            rate = stream.average_rate or _DEFAULT_RATE
            for frame in container.decode(stream):
                if frame.pts is None or frame.time_base is None:
                    time, time_base = count, 1 / rate
                else:
                    time, time_base = frame.pts, frame.time_base
                # As a person sees it: telephones film in landscape and store the rotation.
                turned = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                image = np.ascontiguousarray(turned, dtype=np.uint8)
                shape = shape or image.shape
                if image.shape != shape:
                    raise BadVideo(f"{path}: its frames change their size after {count} frames")
                yield Frame(image, time, time_base)
                count += 1
    except av.error.FFmpegError as error:
        raise BadVideo(f"{path} is not a readable video: {error.strerror}, after {count} frames") from error
    if not count:
        raise BadVideo(f"{path} has no frames")


@contextmanager
def writing_video(path: Path) -> Iterator[WriteFrame]:
    """Open a file at `path` to write the frames of an MP4 to; it is complete when the block ends.

    The codec is H.264 where this machine's FFmpeg has it. The usual formats store colour at half the
    resolution, so frames of odd height or width are padded by repeating the last row or column.
    """
    stream: av.VideoStream | None = None
    with av.open(str(path), "w", format="mp4") as container:

        def write(image: NDArray[np.uint8], time: int, time_base: Fraction) -> None:
            nonlocal stream
            height, width = image.shape[:2]
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            stream = stream or _new_stream(container, image.shape[1], image.shape[0], time_base)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, time_base
            container.mux(stream.encode(frame))

        yield write
        if stream is not None:
            container.mux(stream.encode(None))  # what the encoder holds back


def _new_stream(
    container: av.container.OutputContainer, width: int, height: int, time_base: Fraction
) -> av.VideoStream:
    encoder = next(name for name in _ENCODERS if name in av.codec.codecs_available)
    stream = container.add_stream(encoder, rate=_DEFAULT_RATE)
    assert isinstance(stream, av.VideoStream)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.time_base = time_base
    return stream
