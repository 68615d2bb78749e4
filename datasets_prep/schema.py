"""What one sample is: the Arrow schema of every shard, and how its two big columns are encoded.

A sample is a row; a shard is a plain Parquet file. Both big columns hold encoded bytes that a well-kept
library decodes, so a reader needs none of our code:

    row = pyarrow.parquet.read_table("train-00000.parquet").slice(0, 1).to_pylist()[0]
    image = simplejpeg.decode_jpeg(row["image"])                       # or any other JPEG decoder
    values = numpy.frombuffer(blosc2.decompress(row["inverse_depth"]), numpy.float16)
    inverse_depth = values.reshape(row["height"], row["width"])        # NaN = no ground truth

The image is always a JPEG: the source's own bytes where it is one of the right size already, so that no
generation is lost, else encoded once. (A PNG of the right size is not kept: it decodes four times slower.)

Inverse depth is stored divided by its maximum, so it lies in [0, 1] with 1 the nearest valid point and 0
infinitely far (sky): float16 then keeps 11 significant bits over a depth range of 1 : 16,000 whatever the
source's unit. Where the source is metric, `scale` undoes that: `inverse_depth · scale` is in 1/metres.
"""

from __future__ import annotations

import struct

import blosc2
import numpy as np
import pyarrow as pa
import simplejpeg
from numpy.typing import NDArray

SCHEMA_VERSION = 1

ROW_GROUP_ROWS = 8
"""Rows of a Parquet row group: 2 to 3 MB at 384 x 512, one ranged read from object storage."""

SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("inverse_depth", pa.binary(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("target_kind", pa.string(), nullable=False),
        pa.field("scale", pa.float64()),
        pa.field("valid_share", pa.float32(), nullable=False),
        pa.field("sky_share", pa.float32(), nullable=False),
        pa.field("inverse_depth_min", pa.float32(), nullable=False),
        pa.field("inverse_depth_median", pa.float32(), nullable=False),
        pa.field("inverse_depth_max", pa.float32(), nullable=False),
        pa.field("source_path", pa.string(), nullable=False),
        pa.field("source_digest", pa.string(), nullable=False),
    ]
)
"""One row a sample. `split` is train, val or test; `height` and `width` are those of image and inverse
depth alike; `valid_share` counts pixels with ground truth (sky included), `sky_share` those set to 0 because
they are sky; the three statistics are of the stored values over valid pixels; `source_path` is the image's
path in the raw dataset and `source_digest` the SHA-256 of all files that the sample was read from."""

_BLOSC2_HEADER_BYTES = 16


def encode_inverse_depth(values: NDArray[np.floating]) -> bytes:
    """Compress an (H, W) map as float16 (row-major, NaN = invalid) with Blosc2: shuffle, ZSTD level 1."""
    half = np.ascontiguousarray(values, dtype=np.float16)
    return bytes(
        blosc2.compress2(
            half,
            codec=blosc2.Codec.ZSTD,
            clevel=1,
            typesize=2,
            filters=[blosc2.Filter.SHUFFLE],
            # One thread: an ingest task owns one core, and the bytes must not depend on the core count.
            nthreads=1,
        )
    )


def decode_inverse_depth(data: bytes, height: int, width: int) -> NDArray[np.float16]:
    """Undo `encode_inverse_depth`.

    Returns:
        (height, width) float16, NaN = invalid.

    Raises:
        ValueError: if the bytes are not a Blosc2 chunk of exactly that size. The header is checked before
            anything is decompressed, so hostile bytes cannot ask for memory.
    """
    expected = height * width * 2
    if len(data) < _BLOSC2_HEADER_BYTES:
        raise ValueError(f"inverse_depth has {len(data)} bytes: no Blosc2 chunk")
    declared, _, compressed = struct.unpack_from("<iii", data, 4)
    if declared != expected or compressed != len(data):
        raise ValueError(
            f"inverse_depth declares {declared} bytes in a chunk of {compressed}; "
            f"{height}x{width} float16 needs {expected} in {len(data)}"
        )
    try:
        values = blosc2.decompress2(data, nthreads=1)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"inverse_depth cannot be decompressed: {error}") from error
    return np.frombuffer(values, dtype=np.float16).reshape(height, width)


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG.

    Returns:
        (H, W, 3) uint8 RGB. EXIF orientation is ignored: ground truth belongs to the pixels as stored.

    Raises:
        ValueError: if the bytes are no complete JPEG.
    """
    image: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB")
    return image
