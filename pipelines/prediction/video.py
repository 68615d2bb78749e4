"""Videos, frame by frame: reading what FFmpeg decodes, and writing MP4."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
import av.logging
import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import UserError
from datasets_prep.formats.video import as_shown
from pipelines.prediction.outputs import SOFTWARE

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
_ENCODERS = ("libx264", "libopenh264", "mpeg4")
_DEFAULT_RATE = Fraction(25)


class BadVideo(UserError):
    """A file that is not a readable video, or not as a whole; the message names it."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture of a video.

    Attributes:
        image: (H, W, 3) uint8 RGB, as shown: upright, with square pixels.
        time: when it is shown, in units of `time_base`.
        duration: for how long, in the same units.
        time_base: in seconds.
    """

    image: NDArray[np.uint8]
    time: int
    duration: int
    time_base: Fraction


WriteFrame = Callable[[Frame], None]
"""Takes frames of one size and one time base, in order."""


def read_frames(path: Path) -> Iterator[Frame]:
    """The frames of the first video stream of the file at `path`, in presentation order.

    What is damaged is skipped; frames after it are read.

    Raises:
        BadVideo: if the file cannot be opened, or has no frame, or its frames change their size; after all
            frames that can be decoded, if others are damaged or missing, counting them.
    """
    count, corrupt, end, shape, skipped = 0, 0, Fraction(0), None, 0
    damage: list[str] = []
    try:
        with av.open(str(path)) as container, _errors() as errors:
            if not container.streams.video:
                raise BadVideo(f"{path} has no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            rate, aspect = stream.average_rate or _DEFAULT_RATE, stream.sample_aspect_ratio
            for frame in _decoded(container, stream, damage):
                time, duration, time_base = _times(frame, count, rate)
                image = as_shown(frame, aspect)
                shape = shape or image.shape
                if image.shape != shape:
                    raise BadVideo(f"{path}: its frames change their size after {count} frames")
                yield Frame(image, time, duration, time_base)
                if container.format.name == "avi" or (count and container.format.name == "mpeg"):
                    skipped += max(0, round((time * time_base - end) * rate))
                count, corrupt = count + 1, corrupt + frame.is_corrupt
                end = max(end, Fraction(time_base * (time + duration)))
            expected = _expected(container, stream, count, end)
            lost = next((text.strip() for _, name, text in errors if name == container.format.name), None)
    except av.error.FFmpegError as error:
        raise BadVideo(f"{path} is not a readable video: {error.strerror}, after {count} frames") from error
    if not count:
        raise BadVideo(f"{path} has no frames" + (f" that can be decoded: {damage[0]}" if damage else ""))
    if expected > count:
        raise BadVideo(f"{path} breaks off after {count} of {expected} frames")
    if damage or corrupt:
        what = f"{len(damage)} could not be decoded, {corrupt} were decoded with errors"
        raise BadVideo(f"{path} is damaged: of its frames {what}")
    if skipped:
        raise BadVideo(f"{path} is damaged, or was recorded with gaps: {skipped} frames are missing")
    if lost:
        raise BadVideo(f"{path} is damaged, and frames may be missing: {lost}")


@contextmanager
def _errors() -> Iterator[list[tuple[int, str, str]]]:
    """What FFmpeg says of errors: a demuxer that finds garbage skips it, and raises nothing.

    Yields:
        level, part of FFmpeg (the name of a container format, of a codec, …) and text, while they come.
    """
    before = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture(local=False) as found:
            yield found
    finally:
        av.logging.set_level(before)


def _decoded(
    container: av.container.InputContainer, stream: av.VideoStream, damage: list[str]
) -> Iterator[av.VideoFrame]:
    """Frames of all packets that can be decoded; the reasons of the others are added to `damage`."""
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError as error:
            damage.append(str(error.strerror))
            continue
        yield from (frame for frame in frames if isinstance(frame, av.VideoFrame))


def _times(frame: av.VideoFrame, number: int, rate: Fraction) -> tuple[int, int, Fraction]:
    """Time, duration and time base of a frame, from its `number` and average `rate` if the file has none."""
    if frame.pts is None or not frame.time_base:
        return number, 1, 1 / rate
    return frame.pts, frame.duration or max(1, round(1 / rate / frame.time_base)), frame.time_base


def _expected(
    container: av.container.InputContainer, stream: av.VideoStream, count: int, end: Fraction
) -> int:
    """Number of frames that a file should have, of which `count` were read, the last ending at `end` seconds.

    By its header's number of frames and its duration: edits of an MP4 hide frames, and shorten the duration
    with them; FFmpeg shortens the duration of a cut AVI. A container's own duration is that of its longest
    stream.
    """
    rate, stop = stream.average_rate or _DEFAULT_RATE, None
    if stream.duration and stream.time_base:
        duration = stream.duration * stream.time_base
        if container.format.name == "avi":
            duration = max(duration, stream.frames / rate)
        stop = (stream.start_time or 0) * stream.time_base + duration
    elif container.duration and len(container.streams) == 1:
        stop = Fraction(container.duration, av.time_base)  # of Matroska: from time 0, not from its start
    if stop is None:
        return count
    missing = round((stop - end) * rate)
    if missing < 1 or 0 < stream.frames <= count:
        return count
    return stream.frames or count + missing


def is_result(path: Path) -> bool:
    """Whether `writing_video` wrote the file at `path`."""
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            return container.metadata.get("comment") == SOFTWARE
    except (av.error.FFmpegError, OSError):  # whoever reads it says why not
        return False


@contextmanager
def writing_video(path: Path) -> Iterator[WriteFrame]:
    """Open a file at `path` to write the frames of an MP4 to; it is complete when the block ends.

    The codec is H.264 where this machine's FFmpeg has it. The usual formats store colour at half the
    resolution, so frames of odd height or width are padded by repeating the last row or column.
    """
    stream: av.VideoStream | None = None
    durations: dict[int | None, int] = {}
    with av.open(str(path), "w", format="mp4") as container:
        container.metadata["comment"] = SOFTWARE

        def write(frame: Frame) -> None:
            nonlocal stream
            height, width = frame.image.shape[:2]
            image = np.pad(frame.image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            stream = stream or _new_stream(container, image.shape[1], image.shape[0], frame.time_base)
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            picture.pts, picture.time_base = frame.time, frame.time_base
            durations[frame.time] = frame.duration
            send(stream.encode(picture))

        def send(packets: list[av.Packet]) -> None:
            for packet in packets:
                packet.duration = durations.pop(packet.pts)  # encoders do not keep it
                container.mux(packet)

        yield write
        if stream is not None:
            send(stream.encode(None))  # what the encoder holds back


def _new_stream(
    container: av.container.OutputContainer, width: int, height: int, time_base: Fraction
) -> av.VideoStream:
    encoder = next(name for name in _ENCODERS if name in av.codec.codecs_available)
    stream = container.add_stream(encoder, rate=_DEFAULT_RATE)
    assert isinstance(stream, av.VideoStream)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.time_base = time_base
    stream.codec_context.max_b_frames = (
        0  # the last packet is then the last frame, whose duration ends the video
    )
    return stream
