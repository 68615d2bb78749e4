"""Byte formats against files typed by hand, other writers, and damage."""

import io
import struct
import zlib
from functools import partial

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets_prep.errors import BadSample
from datasets_prep.formats import maps
from datasets_prep.formats import pictures as formats
from datasets_prep.formats.hdf5 import decode_hdf5_array, encode_hdf5_arrays
from datasets_prep.formats.tiff import decode_tiff


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_typed_by_hand(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


# ---- PFM
def test_pfm_typed_by_hand_is_read_from_the_bottom_up():
    data = b"Pf\n3 2\n-1.000000\n" + struct.pack("<6f", 10, 11, 12, 20, 21, 22)
    assert maps.decode_pfm(data, "depth").tolist() == [[20, 21, 22], [10, 11, 12]]


def test_pfm_with_positive_scale_is_big_endian():
    data = b"Pf\n2 1\n1.0\n" + struct.pack(">2f", 1.5, -2.25)
    values = maps.decode_pfm(data, "depth")
    assert (values.tolist(), values.dtype) == ([[1.5, -2.25]], np.float32)
    assert values.dtype.isnative


@pytest.mark.parametrize(
    "header", [b"Pf\r\n2 1\r\n-1\r\n", b"Pf\n2 1 \n-1.0 \n", b"Pf 2 1 -1.0\n", b"Pf\n2\n1\n-1e0\n"]
)
def test_pfm_header_white_space(header):
    # The first value starts with the byte 0x0A, which must not be taken for a line end.
    values = np.frombuffer(b"\x0a\x00\x80\x3f\x00\x00\x00\x40", "<f4")
    assert maps.decode_pfm(header + values.tobytes(), "depth").ravel().tolist() == values.tolist()


def test_pfm_round_trip_and_exact_bytes():
    values = np.array([[1, np.nan, np.inf], [0, -1, 1e-38]], np.float32)
    data = maps.encode_pfm(values)
    assert data == b"Pf\n3 2\n-1.000000\n" + values[::-1].tobytes()
    np.testing.assert_array_equal(maps.decode_pfm(data, "depth"), values)


@pytest.mark.parametrize(("data", "reason"), [
    (b"Pf\n768 576\n-1\n" + bytes(1000),
     r"^depth PFM truncated: header says 768x576 = 1769472 bytes, .* 1000$"),
    (b"Pf\n2 1\n-1\n" + bytes(9), "^depth PFM longer than its header says"),
    (b"PF\n2 1\n-1\n" + bytes(24), "^depth PFM has three channels"),
    (b"Pf\n2 1\n-1-1\n" + bytes(8), "^depth PFM has scale"),
    (b"Pf\n0 5\n-1\n", "^depth declares 0x5"),
    (b"Pf\n99999 99999\n-1\n" + bytes(8), "^depth declares 99999x99999 pixels, more than 50 megapixels"),
    (b"P5\n2 1\n255\n\x00\x00", "^depth is not a PFM"),
    (b"", "^depth is not a PFM"),
])  # fmt: skip
def test_bad_pfm_is_refused_with_its_reason(data, reason):
    with pytest.raises(BadSample, match=reason):
        maps.decode_pfm(data, "depth")


# ---- NPY
def npy_typed_by_hand(descr: str, shape: tuple[int, ...], values: bytes, version: int = 1) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + values


@pytest.mark.parametrize("version", [1, 2, 3])
def test_npy_typed_by_hand(version):
    data = npy_typed_by_hand("'<f4'", (2, 3), struct.pack("<6f", *range(6)), version)
    assert maps.decode_npy(data, "depth").tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "|u1", ">i2", "|b1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_agrees_with_numpy(dtype, order):
    values = np.asarray(np.arange(12).reshape(3, 4) % 7 - 1, dtype=dtype, order=order)
    stream = io.BytesIO()
    np.save(stream, values)
    decoded = maps.decode_npy(stream.getvalue(), "depth")
    np.testing.assert_array_equal(decoded, values)
    assert decoded.dtype.isnative


@pytest.mark.parametrize("values", [np.zeros((480, 640), np.float32), np.arange(5, dtype=np.uint8)])
def test_npy_is_written_as_numpy_writes_it(values):
    stream = io.BytesIO()
    np.save(stream, values)
    assert maps.encode_npy(values) == stream.getvalue()


def test_npy_with_pickled_objects_is_refused_unopened():
    stream = io.BytesIO()
    np.save(stream, np.array([print, 1], dtype=object))
    with pytest.raises(BadSample, match=r"^depth NPY header does not describe a numeric array"):
        maps.decode_npy(stream.getvalue(), "depth")


@pytest.mark.parametrize(("data", "reason"), [
    (maps.encode_npy(np.zeros((4, 4), np.float32))[:-1], r"\(4, 4\) float32 = 64 bytes, file has 63"),
    (maps.encode_npy(np.zeros((4, 4), np.float32)) + b"\0", "= 64 bytes, file has 65"),
    (npy_typed_by_hand("'<f4'", (99999999, 99999999), b""), "declares 9999999800000001 values"),
    (npy_typed_by_hand("'<f4'", (0, 4611686018427387904), b""), "declares 0 values"),
    (npy_typed_by_hand("'<f3'", (1,), b"abc"), "unknown type"),
    (npy_typed_by_hand("[('a', '<f4')]", (1,), bytes(4)), "does not describe"),
    (b"\x93NUMPY\x01\x00\xff\xff{}", "header damaged"),
    (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{", "header damaged"),
    (b"not numpy at all", "is not an NPY file"),
    (b"", "is not an NPY file"),
])  # fmt: skip
def test_bad_npy_is_refused_with_its_reason(data, reason):
    with pytest.raises(BadSample, match=f"^depth.*{reason}"):
        maps.decode_npy(data, "depth")


# ---- PNG
def test_16_bit_grey_png_typed_by_hand():
    rows = b"\x00" + struct.pack(">3H", 0, 1, 65535) + b"\x00" + struct.pack(">3H", 256, 255, 4660)
    data = png_typed_by_hand(3, 2, 16, 0, rows)
    values = formats.decode_grey_png(data, "depth")
    assert (values.dtype, values.tolist()) == (np.uint16, [[0, 1, 65535], [256, 255, 4660]])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_png_of_few_bits_keeps_its_values(bits):
    # Two rows of a byte each, in which the samples count up: 0b00011011 are 0, 1, 2, 3 of 2 bits.
    per_byte = 8 // bits
    stored = np.arange(2 * per_byte).reshape(2, per_byte) % 2**bits
    rows = b"".join(b"\0" + bytes([int("".join(f"{v:0{bits}b}" for v in row), 2)]) for row in stored)
    values = formats.decode_grey_png(png_typed_by_hand(per_byte, 2, bits, 0, rows), "depth")
    assert (values.dtype, values.tolist()) == (np.uint8, stored.tolist())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_png_round_trip(dtype):
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (37, 53), endpoint=True).astype(dtype)
    decoded = formats.decode_grey_png(formats.encode_png(values), "depth")
    assert decoded.dtype == dtype
    np.testing.assert_array_equal(decoded, values)


def test_map_stored_three_times_is_read_once():
    values = np.random.default_rng(0).integers(0, 255, (9, 7)).astype(np.uint8)
    data = formats.encode_png(np.dstack([values] * 3))
    np.testing.assert_array_equal(formats.decode_grey_png(data, "depth"), values)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_colour_picture_is_no_map(channel):
    values = np.full((9, 7, 3), 50, np.uint8)
    values[4, 4, channel] = 51
    with pytest.raises(BadSample, match=r"^depth PNG is a colour picture"):
        formats.decode_grey_png(formats.encode_png(values), "depth")


@pytest.mark.parametrize("keep", [4, 20, 33, 0.5, -12, -1])
def test_truncated_png_is_refused(keep):
    data = formats.encode_png(np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8))
    with pytest.raises(BadSample, match=r"^mask"):
        formats.decode_grey_png(data[: int(keep * len(data)) if isinstance(keep, float) else keep], "mask")


def test_png_with_a_flipped_bit_is_refused():
    data = bytearray(formats.encode_png(np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)))
    data[len(data) // 2] ^= 1
    with pytest.raises(BadSample, match=r"^mask PNG damaged: wrong checksum at byte"):
        formats.decode_grey_png(bytes(data), "mask")


def test_png_whose_data_ends_early_is_refused():
    # Every chunk is whole, but the compressed rows stop after the first of a hundred.
    data = png_typed_by_hand(4, 100, 8, 0, b"\x00abcd")
    with pytest.raises(BadSample, match=r"^mask"):
        formats.decode_grey_png(data, "mask")


@pytest.mark.parametrize("size", [(100_000, 100_000), (2**31 - 1, 1), (0, 5)])
def test_absurd_png_size_is_refused_from_the_header(size):
    data = png_typed_by_hand(*size, 8, 0, b"\x00")
    for decode in (formats.decode_grey_png, formats.decode_rgb, formats.image_size):
        with pytest.raises(BadSample, match=r"^image declares"):
            decode(data, "image")


# ---- Sintel
def test_sintel_depth_typed_by_hand():
    data = b"PIEH" + struct.pack("<2i", 3, 2) + struct.pack("<6f", *range(6))
    assert maps.decode_sintel_depth(data, "depth").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert maps.encode_sintel_depth(np.arange(6, dtype=np.float32).reshape(2, 3)) == data
    assert struct.unpack("<f", b"PIEH") == (202021.25,)


@pytest.mark.parametrize(("data", "reason"), [
    (b"PIEH" + struct.pack("<2i", 3, 2) + bytes(23), "does not fit: header says 3x2 = 24 bytes, .* 23"),
    (b"PIEH" + struct.pack("<2i", 3, 2) + bytes(25), "does not fit"),
    (b"PIEH" + struct.pack("<2i", -3, 2), "declares -3x2"),
    (b"PIEH" + struct.pack("<2i", 2**30, 2**30), ".* more than 50 megapixels"),
    (b"PIEH\0\0", "is not a Sintel depth file"),
    (b"HEIP" + struct.pack("<2i", 1, 1) + bytes(4), "is not a Sintel depth file"),
])  # fmt: skip
def test_bad_sintel_depth_is_refused_with_its_reason(data, reason):
    with pytest.raises(BadSample, match=f"^depth {reason}"):
        maps.decode_sintel_depth(data, "depth")


# ---- Raw floats
def test_raw_floats_need_exactly_the_promised_size():
    data = struct.pack("<6f", *range(6))
    assert maps.decode_raw_floats(data, "depth", 2, 3).tolist() == [[0, 1, 2], [3, 4, 5]]
    for wrong in (data[:-1], data + b"\0"):
        with pytest.raises(BadSample, match=r"^depth has \d+ bytes, 3x2 float32 needs 24$"):
            maps.decode_raw_floats(wrong, "depth", 2, 3)


# ---- Pictures
def picture(height: int = 40, width: int = 56) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.dstack([x * 255 // width, y * 255 // height, (x + y) % 256]).astype(np.uint8)


def saved(image: Image.Image, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, **options)
    return stream.getvalue()


def test_jpeg_size_is_not_that_of_its_thumbnail():
    # An embedded thumbnail has a frame header of its own, inside a segment that must be skipped.
    thumbnail = b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x01\x00\x02\x01\x01\x11\x00"
    exif = b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    data = formats.encode_jpeg(picture())
    assert formats.image_size(data[:2] + exif + data[2:]) == (40, 56)


def test_jpeg_whose_size_is_hidden_from_a_careless_reader_is_refused():
    # Behind a stuffed byte, a reader that goes by lengths skips what the decoder takes for the frame header.
    large = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, 65000, 65000, 1) + b"\x01\x11\x00"
    data = formats.encode_jpeg(picture())
    hidden = data[:2] + b"\xff\x00" + struct.pack(">H", 2 + len(large)) + large + data[2:]
    for decode in (formats.image_size, formats.decode_rgb):
        with pytest.raises(BadSample, match=r"^image "):
            decode(hidden)


def test_jpeg_of_many_scans_is_refused_undecoded():
    data = saved(Image.fromarray(picture()), format="JPEG", progressive=True)
    assert formats.decode_rgb(data).shape == (40, 56, 3)
    scan = data.index(b"\xff\xda")
    with pytest.raises(BadSample, match=r"^image JPEG has \d+ scans, more than 100$"):
        formats.decode_rgb(data[:scan] + data[scan : scan + 10] * 100 + data[scan:])


@pytest.mark.parametrize(
    "options", [{"format": "JPEG"}, {"format": "JPEG", "progressive": True}, {"format": "PNG"}]
)
def test_image_size_agrees_with_pillow(options):
    assert formats.image_size(saved(Image.fromarray(picture()), **options)) == (40, 56)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "I;16"])
def test_png_of_any_kind_becomes_rgb(mode):
    if mode == "I;16":
        grey = picture()[..., 0].astype(np.uint16) * 257
        image, expected = Image.fromarray(grey), np.dstack([picture()[..., 0]] * 3)
    else:
        image = Image.fromarray(picture()).convert(mode)
        expected = np.asarray(image.convert("RGB"))
    decoded = formats.decode_rgb(saved(image, format="PNG"))
    assert decoded.shape == (40, 56, 3)
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_becomes_rgb_as_pillow_decodes_it(mode):
    data = saved(Image.fromarray(picture()).convert(mode), format="JPEG", quality=95, subsampling=0)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(formats.decode_rgb(data).astype(int) - expected).max() <= 2


def test_jpeg_encoder_keeps_the_picture():
    smooth = cv2.GaussianBlur(picture(), (9, 9), 3)
    assert np.abs(formats.decode_rgb(formats.encode_jpeg(smooth)).astype(int) - smooth).mean() < 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_orientation_tag_is_ignored(kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a right angle
    data = saved(Image.fromarray(picture()), format=kind, exif=exif)
    assert formats.decode_rgb(data).shape == (40, 56, 3)


@pytest.mark.parametrize("encode", [formats.encode_jpeg, formats.encode_png])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_picture_is_refused(encode, share):
    data = encode(picture(200, 300))
    with pytest.raises(BadSample, match=r"^image "):
        formats.decode_rgb(data[: int(share * len(data))])


def test_other_files_are_no_pictures():
    for data in (b"", b"GIF89a" + bytes(50), b"\xff\xd8", b"\xff\xd8\xff\xd9", b"<html>not found</html>"):
        with pytest.raises(BadSample, match=r"^image "):
            formats.decode_rgb(data)


# Damage of any kind

_SMALL = np.random.default_rng(3).integers(0, 255, (24, 31)).astype(np.uint8)
_FLOATS = _SMALL.astype(np.float32)
_DECODERS = {
    "pfm": (partial(maps.decode_pfm, role="depth"), maps.encode_pfm(_FLOATS)),
    "npy": (partial(maps.decode_npy, role="depth"), maps.encode_npy(_FLOATS)),
    "png": (partial(formats.decode_grey_png, role="depth"), formats.encode_png(_SMALL)),
    "rgb png": (formats.decode_rgb, formats.encode_png(picture(24, 31))),
    "jpeg": (formats.decode_rgb, formats.encode_jpeg(picture(24, 31))),
    "tiff": (partial(decode_tiff, role="depth"), saved(Image.fromarray(_FLOATS), format="TIFF")),
    "exr": (partial(maps.decode_exr, role="depth", channels=("G",)), maps.encode_exr({"G": _FLOATS})),
    "hdf5": (
        lambda data: decode_hdf5_array(data, "depth", "depth", 2),
        encode_hdf5_arrays({"depth": _FLOATS}),
    ),
    "sintel": (partial(maps.decode_sintel_depth, role="depth"), maps.encode_sintel_depth(_FLOATS)),
}


@pytest.mark.parametrize("name", _DECODERS)
def test_damage_is_either_read_or_refused(name):
    """Cut, flip, overwrite and repeat bytes: the only exception that may come out is `BadSample`."""
    decode, good = _DECODERS[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    refused = 0
    for _ in range(600):
        data = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            # Half of all damage hits the header, where the sizes are.
            at = int(rng.integers(0, min(len(data), 150) if rng.random() < 0.5 else len(data)))
            action = rng.integers(4)
            if action == 0:
                del data[at:]
            elif action == 1:
                data[at] ^= 1 << int(rng.integers(8))
            elif action == 2:
                data[at : at + 4] = rng.bytes(4)
            else:
                data[at:at] = data[at : at + 16]
            if not data:
                break
        try:
            decode(bytes(data))
        except BadSample:
            refused += 1
    assert refused > 100
