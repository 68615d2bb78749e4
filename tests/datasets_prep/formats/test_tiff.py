"""TIFF maps of every sample type and orientation, typed by hand, and as Pillow compresses them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from datasets_prep.errors import BadSample
from datasets_prep.formats.tiff import decode_tiff

FORMATS = {"u": 1, "i": 2, "f": 3, "c": 6}
TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f2", "f8", "u8", "i8"]


def tiff_typed_by_hand(
    values: np.ndarray, order: str = "<", strip: bytes | None = None, **changes: int | None
) -> bytes:
    """A TIFF of one strip, uncompressed if none is given.

    `changes` are tags, `t274=3`, where None leaves one out.
    """
    height, width = values.shape
    if strip is None:
        strip = values.astype(values.dtype.newbyteorder(order)).tobytes()
    tags: dict[int, int | None] = {
        256: width, 257: height, 258: 8 * values.itemsize, 259: 1, 262: 1, 273: 8, 277: 1, 278: height,
        279: len(strip), 339: FORMATS[values.dtype.kind],
    }  # fmt: skip
    tags |= {int(tag[1:]): value for tag, value in changes.items()}
    present = sorted((tag, value) for tag, value in tags.items() if value is not None)
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in present)
    directory = struct.pack(f"{order}H", len(present)) + entries + bytes(4)
    start = struct.pack(f"{order}HI", 42, 8 + len(strip))
    return (b"II" if order == "<" else b"MM") + start + strip + directory


def scene(dtype: str) -> np.ndarray:
    """An asymmetric map at both ends of what the type holds; floats are exact in half precision."""
    values = np.arange(12).reshape(3, 4).astype(dtype)
    values[0, 1], values[2, 3] = (
        (-3.5, 60000) if dtype[0] == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    )
    return values


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", TYPES)
def test_values_are_as_stored_whatever_the_orientation(dtype, order):
    values = scene(dtype)
    for orientation in (None, 1, 2, 3, 4, 5, 6, 7, 8):
        decoded = decode_tiff(tiff_typed_by_hand(values, order, t274=orientation), "depth")
        assert decoded.dtype == np.float32
        np.testing.assert_array_equal(decoded, values.astype(np.float32))


def differences(values: np.ndarray, order: str, predictor: int) -> bytes:
    """The bytes of `values` as Deflate gets them (TIFF 6.0, section 14; TIFF technical note 3).

    With predictor 2 the differences of neighbours in a row; with 3 those of the bytes of a row, its most
    significant ones first.
    """
    if predictor == 3:
        rows = [
            row.astype(row.dtype.newbyteorder(">")).view(np.uint8).reshape(len(row), -1).T for row in values
        ]
        return b"".join(np.diff(row.ravel(), prepend=np.uint8(0)).tobytes() for row in rows)
    if predictor == 2:
        values = np.diff(values, axis=1, prepend=values.dtype.type(0))
    return values.astype(values.dtype.newbyteorder(order)).tobytes()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("dtype", "predictor"), [
    *((dtype, 1) for dtype in TYPES),
    *((dtype, 2) for dtype in ("u1", "i1", "u2", "i2", "u4", "i4")),
    *((dtype, 3) for dtype in ("f4", "f8")),
])  # fmt: skip
def test_compressed_values_are_as_stored_in_both_byte_orders(dtype, predictor, order):
    values = scene(dtype)
    strip = zlib.compress(differences(values, order, predictor))
    data = tiff_typed_by_hand(values, order, strip, t259=8, t317=predictor)
    np.testing.assert_array_equal(decode_tiff(data, "depth"), values.astype(np.float32))


def test_black_and_white_exchanged_and_a_missing_sample_format_change_no_value():
    values = scene("u2")
    data = tiff_typed_by_hand(values, t262=0, t339=None)
    np.testing.assert_array_equal(decode_tiff(data, "depth"), values.astype(np.float32))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_every_compression_keeps_values_in_place(compression, big, dtype):
    values = np.random.default_rng(0).integers(0, 200, (37, 53)).astype(dtype)
    stream = io.BytesIO()
    options = {"compression": compression, "big_tiff": big, "tiffinfo": {274: 3}}
    Image.fromarray(values).save(stream, "TIFF", **options)
    np.testing.assert_array_equal(decode_tiff(stream.getvalue(), "depth"), values)


def test_numbers_too_large_for_single_precision_become_infinite():
    data = tiff_typed_by_hand(np.array([[1e300, -1e300, 1e-300]], "f8"))
    assert decode_tiff(data, "depth").tolist() == [[np.inf, -np.inf, 0]]


@pytest.mark.parametrize(("changes", "reason"), [
    ({"t258": 1}, "1-bit unsigned integer; read are"),
    ({"t258": 24, "t339": 3}, "24-bit float;"),
    ({"t258": 32, "t339": 5}, "32-bit complex integer;"),
    ({"t258": 64, "t339": 6}, "64-bit complex;"),
    ({"t339": 4}, "16-bit samples of format 4;"),
    ({"t277": 3, "t262": 2}, "pixels of kind RGB, expected one channel"),
    ({"t262": 3}, "pixels of kind palette"),
    ({"t277": 2}, "pixels of kind 2 channels"),
])  # fmt: skip
def test_what_is_not_a_map_is_refused_with_its_sample_type(changes, reason):
    with pytest.raises(BadSample, match=f"^depth TIFF has {reason}"):
        decode_tiff(tiff_typed_by_hand(scene("u2"), **changes), "depth")


@pytest.mark.parametrize("dtype", ["u1", "f4", "f8", "f2"])
def test_a_truncated_tiff_is_refused(dtype):
    data = tiff_typed_by_hand(np.zeros((40, 50), dtype))
    body, directory = data[8:-130], data[-130:]
    short = data[:4] + struct.pack("<I", 8 + len(body) // 2) + body[: len(body) // 2] + directory
    for damaged in (short, data[:-100], data[:6], b""):
        with pytest.raises(BadSample, match=r"^depth "):
            decode_tiff(damaged, "depth")


@pytest.mark.parametrize("size", [{"t256": 2**31}, {"t256": 99_999, "t257": 99_999}, {"t257": 0}])
def test_an_absurd_tiff_size_is_refused_from_the_header(size):
    with pytest.raises(BadSample, match=r"^depth declares"):
        decode_tiff(tiff_typed_by_hand(scene("f4"), **size), "depth")
