"""Photos of 10, 12 and 14 bits in files of 16: stretched by the bits that are significant."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from dpt.predict.bit_depth import decode_photo, significant_bits

SCENE = np.arange(6 * 8 * 3).reshape(6, 8, 3) % 143  # 0 … 142


def photo(largest: int, sbit: bytes | None = None, **options: object) -> tuple[np.ndarray, bytes]:
    """A scene of 16-bit samples whose largest is `largest`, RGB; and its PNG, with a chunk `sBIT`."""
    pixels = (SCENE * largest // 142).astype(np.uint16)
    data = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
    if sbit is not None:
        body = b"sBIT" + sbit
        chunk = struct.pack(">I", len(sbit)) + body + struct.pack(">I", zlib.crc32(body))
        data = data[:33] + chunk + data[33:]  # behind the header
    return pixels, data


@pytest.mark.parametrize(("largest", "sbit", "bits"), [
    (65535, None, 16), (40000, None, 16), (32767, None, 16),  # dark, but a sensor of 15 bits doesn't exist
    (16383, None, 14), (4095, None, 12), (3000, None, 12), (2000, None, 12), (1023, None, 10),
    (512, None, 10), (255, None, 8), (3, None, 8), (0, None, 8),
    (4095, b"\x0c\x0c\x0c", 12), (900, b"\x0c\x0c\x0c", 12), (900, b"\x0a\x0c\x0b", 12),
    (900, b"\x10\x10\x10", 16),  # dark, and said to be so
    (65535, b"\x0c\x0c\x0c", 16), (20000, b"\x0c\x0c\x0c", 16),  # scaled to the full range by the writer
    (3, b"\x05\x06\x05", 8),
])  # fmt: skip
def test_photos_are_stretched_by_their_significant_bits(largest, sbit, bits):
    pixels, data = photo(largest, sbit)
    image, found = decode_photo(data)
    assert (found, image.dtype) == (bits, np.uint8)
    np.testing.assert_array_equal(image, np.rint(pixels.astype(float) * 255 / (2**bits - 1)))


def test_bits_of_alpha_do_not_count():
    pixels = np.full((2, 2, 4), (900, 900, 900, 65535), np.uint16)
    data = cv2.imencode(".png", pixels)[1].tobytes()
    assert decode_photo(data)[1] == 10
    body = b"sBIT\x0c\x0c\x0c\x10"
    chunk = struct.pack(">I", 4) + body + struct.pack(">I", zlib.crc32(body))
    assert significant_bits(data[:33] + chunk + data[33:], pixels[..., :3]) == 12


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".ppm", ".tiff"])
def test_photos_of_8_bits_stay(suffix):
    pixels = SCENE.astype(np.uint8)
    options = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else []
    image, bits = decode_photo(cv2.imencode(suffix, pixels[..., ::-1], options)[1].tobytes())
    assert bits is None
    np.testing.assert_array_equal(image, pixels)


@pytest.mark.parametrize("suffix", [".ppm", ".tiff"])
def test_other_formats_of_16_bits_are_stretched_too(suffix):
    pixels, _ = photo(4095)
    image, bits = decode_photo(cv2.imencode(suffix, pixels[..., ::-1])[1].tobytes())
    assert bits == 12
    np.testing.assert_array_equal(image, np.rint(pixels.astype(float) * 255 / 4095))


def test_an_image_of_floats_is_refused_by_its_sample_type():
    data = cv2.imencode(".tiff", np.ones((4, 4, 3), np.float32))[1].tobytes()
    with pytest.raises(ValueError, match="an image of float32 samples, expected integers of 8 or 16 bits"):
        decode_photo(data)


def in_planes(pixels: np.ndarray) -> bytes:
    """A TIFF that says by its tag PlanarConfiguration that channels are pictures of their own."""
    data: bytes = cv2.imencode(".tiff", pixels)[1].tobytes()
    at = data.index(struct.pack("<HHIH", 284, 3, 1, 1)) + 8
    return data[:at] + b"\2" + data[at + 1 :]


def test_a_tiff_of_16_bits_in_planes_is_refused_as_opencv_mixes_them_up():
    pixels, _ = photo(4095)
    with pytest.raises(ValueError, match="a TIFF of 16 bits with its channels one after another, expected"):
        decode_photo(in_planes(pixels))
    grey, bits = decode_photo(in_planes(pixels[..., 0]))  # of one channel both are the same
    assert (grey.shape, bits) == ((6, 8, 3), 12)


@pytest.mark.parametrize("data", [b"", b"no image", photo(99)[1][:60]])
def test_what_is_not_an_image_is_refused(data):
    with pytest.raises(ValueError, match="not a readable image"):
        decode_photo(data)
