"""The Arrow schema of every shard, and the encoding of its large columns.

A sample is a row; a shard is a plain Parquet file. The large columns hold encoded bytes that well-maintained
libraries decode, so a reader needs none of this code:

    row = pyarrow.parquet.read_table("train-00000.parquet").slice(0, 1).to_pylist()[0]
    image = simplejpeg.decode_jpeg(row["image"])                       # or any other JPEG decoder
    values = numpy.frombuffer(blosc2.decompress(row["inverse_depth"]), numpy.float16)
    inverse_depth = values.reshape(row["height"], row["width"])        # NaN = no ground truth

For training, the image is always a JPEG: the source's own bytes if it is a JPEG of the right size, so that no
generation is lost, else encoded once. (A PNG of the right size is not kept: it decodes four times slower.)
Kept bytes have no Exif or XMP, whose orientation other decoders would apply.

Inverse depth is stored divided by its maximum, so it lies in [0, 1] with 1 the nearest valid point and 0
infinitely far (sky): float16 then keeps 11 significant bits over a depth range of 1 : 16,000 in any unit.
Where the source is metric, `inverse_depth · scale` is in 1/metres.

For evaluation nothing may be lost: the splits for it keep the image's own bytes (JPEG or PNG) and, in `depth`
instead of `inverse_depth`, the ground truth as float32 at native resolution:

    values = numpy.frombuffer(blosc2.decompress2(row["depth"]), numpy.float32)
    depth = values.reshape(row["height"], row["width"])                # NaN = no ground truth

Two kinds of ground truth are not depth maps: `label` holds a segmentation as a grey PNG of 8 bits, whose
values are class ids (255 = ignore), and `point_pair` two points of which the farther one is known.
"""

import struct
from typing import Any

import blosc2
import numpy as np
import pyarrow as pa
import simplejpeg
from numpy.typing import NDArray

from datasets_prep.formats.pictures import decode_grey_png, decode_rgb, encode_png

SCHEMA_VERSION = 2

ROW_GROUP_ROWS = 8
"""Rows of a Parquet row group: 2 to 3 MB at 384 x 512, one ranged read from object storage."""

POINT_PAIR = pa.struct(
    [
        *(pa.field(name, pa.int32(), nullable=False) for name in ("y_a", "x_a", "y_b", "x_b")),
        pa.field("a_is_farther", pa.bool_(), nullable=False),
    ]
)
"""Two points A and B in pixels of the image as stored, counted from 0, and their order in depth."""

SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("inverse_depth", pa.binary()),
        pa.field("depth", pa.binary()),
        pa.field("label", pa.binary()),
        pa.field("point_pair", POINT_PAIR),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("target_kind", pa.string(), nullable=False),
        pa.field("scale", pa.float64()),
        pa.field("valid_share", pa.float32()),
        pa.field("sky_share", pa.float32()),
        pa.field("inverse_depth_min", pa.float32()),
        pa.field("inverse_depth_median", pa.float32()),
        pa.field("inverse_depth_max", pa.float32()),
        pa.field("source_path", pa.string(), nullable=False),
        pa.field("source_digest", pa.string(), nullable=False),
    ]
)
"""One row per sample, with exactly one of `inverse_depth`, `depth`, `label` and `point_pair`. `split` is
train, val or test; `height` and `width` are those of image and map alike; `target_kind` is metric,
up-to-scale, affine, ordinal (a point pair) or labels; `valid_share` counts pixels with ground truth (sky
included), `sky_share` those set to 0 because they are sky; the three statistics are of inverse depth divided
by its maximum, over valid pixels, also where the row holds `depth` (and `scale` is that maximum); statistics
are null where they do not apply; `source_path` is the image's path in the raw dataset and `source_digest` the
SHA-256 of all files that the sample was read from."""

LABELLED_SCHEMA = SCHEMA.append(pa.field("agreement", pa.float32()))
"""Schema of the shards of `dpt label`: `agreement` is the share of pixels at which the teacher's predictions
of several views of the image agree; null if it predicted one view only."""

_BLOSC2_HEADER_BYTES = 16


def encode_inverse_depth(values: NDArray[np.floating]) -> bytes:
    """Compress the (H, W) `values` as float16 (row-major, NaN = invalid): Blosc2, shuffle, ZSTD level 1."""
    return _compress(np.ascontiguousarray(values, dtype=np.float16))


def encode_depth(values: NDArray[np.floating]) -> bytes:
    """As `encode_inverse_depth`, but float32."""
    return _compress(np.ascontiguousarray(values, dtype=np.float32))


def _compress(values: NDArray[np.floating]) -> bytes:
    return bytes(
        blosc2.compress2(
            values,
            codec=blosc2.Codec.ZSTD,
            clevel=1,
            typesize=values.itemsize,
            filters=[blosc2.Filter.SHUFFLE],
            # One thread: an ingest task owns one core, and the bytes must not depend on the number of cores.
            nthreads=1,
        )
    )


def decode_inverse_depth(data: bytes | memoryview, height: int, width: int) -> NDArray[np.float16]:
    """The (`height`, `width`) float16 map, NaN = invalid, that `encode_inverse_depth` made `data` of.

    Raises ValueError if the bytes are not a Blosc2 chunk of exactly that size. The header is checked before
    anything is decompressed, so hostile bytes cannot require memory.
    """
    values: NDArray[np.float16] = _decompress(data, "inverse_depth", np.dtype(np.float16), height, width)
    return values


def decode_depth(data: bytes | memoryview, height: int, width: int) -> NDArray[np.float32]:
    """As `decode_inverse_depth`, for the float32 map that `encode_depth` encoded."""
    values: NDArray[np.float32] = _decompress(data, "depth", np.dtype(np.float32), height, width)
    return values


def _decompress(
    data: bytes | memoryview, column: str, dtype: np.dtype[Any], height: int, width: int
) -> NDArray[Any]:
    # Blosc2's header: 4 bytes of version and flags, then three little-endian int32: the size of the content,
    # the size of a block, and the size of the whole chunk, which must be that of `data`.
    expected = height * width * dtype.itemsize
    if len(data) < _BLOSC2_HEADER_BYTES:
        raise ValueError(f"{column} has {len(data)} bytes: not a Blosc2 chunk")
    declared, _, compressed = struct.unpack_from("<iii", data, 4)
    if declared != expected or compressed != len(data):
        needed = f"{height}x{width} {dtype} needs {expected} in {len(data)}"
        raise ValueError(f"{column} declares {declared} bytes in a chunk of {compressed}; {needed}")
    try:
        values = blosc2.decompress2(data, nthreads=1)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{column} cannot be decompressed: {error}") from error
    return np.frombuffer(values, dtype=dtype).reshape(height, width)


def encode_label(labels: NDArray[np.uint8]) -> bytes:
    """Encode the (H, W) class ids `labels` (255 = ignore) as a grey PNG."""
    return encode_png(labels)


def decode_label(data: bytes | memoryview) -> NDArray[np.uint8]:
    """The (H, W) uint8 class ids that `encode_label` made `data` of.

    Raises ValueError if the bytes are not a grey PNG of 8 bits.
    """
    labels = decode_grey_png(bytes(data), "label")
    if labels.dtype != np.uint8:
        raise ValueError("label PNG has 16 bits, class ids have 8")
    return labels.astype(np.uint8, copy=False)


def decode_image(data: bytes | memoryview) -> NDArray[np.uint8]:
    """Decode the image `data`: a JPEG, or a PNG of an evaluation row.

    Returns (H, W, 3) uint8 RGB. EXIF orientation is ignored: ground truth belongs to the pixels as stored.
    Raises ValueError if the bytes are not a complete picture of these formats.
    """
    if not simplejpeg.is_jpeg(data):
        return decode_rgb(bytes(data))
    image: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB")
    return image
