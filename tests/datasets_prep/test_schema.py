import struct

import blosc2
import numpy as np
import pytest
import simplejpeg

from datasets_prep.schema import decode_image, decode_inverse_depth, encode_inverse_depth


def some_map() -> np.ndarray:
    values = np.random.default_rng(0).random((30, 40)).astype(np.float16)
    values[:3] = np.nan
    return values


def test_inverse_depth_survives_with_its_invalid_pixels():
    values = some_map()
    decoded = decode_inverse_depth(encode_inverse_depth(values), 30, 40)
    assert decoded.dtype == np.float16
    np.testing.assert_array_equal(decoded, values)


def test_inverse_depth_is_read_without_our_code():
    values = some_map()
    raw = blosc2.decompress2(encode_inverse_depth(values))
    np.testing.assert_array_equal(np.frombuffer(raw, np.float16).reshape(30, 40), values)


def test_the_same_map_gives_the_same_bytes():
    assert encode_inverse_depth(some_map()) == encode_inverse_depth(some_map())


def test_another_size_than_declared_is_refused_before_decompression():
    data = encode_inverse_depth(some_map())
    with pytest.raises(ValueError, match="30x41 float16 needs 2460"):
        decode_inverse_depth(data, 30, 41)
    with pytest.raises(ValueError, match="needs 2400"):
        decode_inverse_depth(data[:-1], 30, 40)
    with pytest.raises(ValueError, match="not a Blosc2 chunk"):
        decode_inverse_depth(b"short", 30, 40)


def test_a_header_that_asks_for_a_gigabyte_is_refused():
    data = bytearray(encode_inverse_depth(some_map()))
    struct.pack_into("<i", data, 4, 2**30)
    with pytest.raises(ValueError, match="declares 1073741824 bytes"):
        decode_inverse_depth(bytes(data), 30, 40)


def test_damaged_bytes_are_refused():
    data = bytearray(encode_inverse_depth(some_map()))
    data[40:200] = b"\xff" * 160
    with pytest.raises(ValueError, match="cannot be decompressed"):
        decode_inverse_depth(bytes(data), 30, 40)


def test_a_truncated_image_is_refused():
    data = simplejpeg.encode_jpeg(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    assert decode_image(data).shape == (64, 64, 3)
    with pytest.raises(ValueError, match=r".+"):
        decode_image(data[: len(data) // 2])
