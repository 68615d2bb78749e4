"""Videos written by FFmpeg's libraries, without our writer."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FASTSTART = {"movflags": "faststart"}
"""Options that put an MP4's header first, as for the web: cut, it can still be opened."""


def encoded(
    path: Path,
    pictures: Sequence[np.ndarray],
    rate: Fraction | int = 30,
    times: Sequence[int] | None = None,
    aspect: Fraction | None = None,
    options: Mapping[str, str] | None = None,
    codec: str = "mpeg4",
) -> Path:
    """Write (H, W, 3) uint8 `pictures`, one each 1 / `rate` seconds or at `times` in that unit.

    `aspect` is the sample aspect ratio, `options` are those of the container. Returns `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=dict(options or {})) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = 1 / Fraction(rate)
        stream.codec_context.bit_rate = 4_000_000
        stream.codec_context.sample_aspect_ratio = aspect or Fraction(1)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = times[number] if times else number, 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def with_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Give an MP4 the display matrix (a b; c d), by its bytes: nine numbers of 16.16, the last of 2.30."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 4 + 20 + 16  # after type, version, times and ids, layer and volume
    numbers = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    data[matrix : matrix + 36] = b"".join(number.to_bytes(4, "big", signed=True) for number in numbers)
    path.write_bytes(data)
    return path


def noise(seed: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Blocks of random colours, so that every frame has about as many bytes."""
    blocks = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


def scene(height: int = 32, width: int = 64) -> np.ndarray:
    """A picture that no turning or mirroring maps to itself."""
    picture = np.full((height, width, 3), 40, np.uint8)
    picture[: height // 4] = 230
    picture[:, : width // 6] = 130
    picture[3 * height // 4 :, 2 * width // 3 :] = 250
    return picture
