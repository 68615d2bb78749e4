"""MATLAB files of version 5, as SciPy writes them, and damage."""

import io
import struct
import zlib

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from datasets_prep.errors import BadSample
from datasets_prep.formats.matlab import decode_matlab_array, encode_matlab_arrays


def saved(compressed: bool = True, **arrays: object) -> bytes:
    stream = io.BytesIO()
    scipy.io.savemat(stream, arrays, do_compression=compressed)
    return stream.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_every_numeric_matrix_is_read_as_scipy_wrote_it(dtype, compressed):
    values = (np.arange(35).reshape(5, 7) * 3 % 100).astype(dtype)
    data = saved(
        compressed, first=np.ones((300, 200)), LabelMap=values, text="words", c={"a": 1}, last=np.eye(2)
    )
    decoded = decode_matlab_array(data, "label", "LabelMap")
    assert decoded.dtype == dtype
    np.testing.assert_array_equal(decoded, values)


@pytest.mark.parametrize("compressed", [False, True])
def test_one_value_lies_in_its_own_tag(compressed):
    data = saved(compressed, x=np.array([[7]], np.uint8), name_of_many_letters=np.array([[8, 9]], np.int16))
    assert decode_matlab_array(data, "label", "x").tolist() == [[7]]
    assert decode_matlab_array(data, "label", "name_of_many_letters").tolist() == [[8, 9]]


def test_typed_by_hand_with_a_smaller_stored_type():
    """A double matrix whose values MATLAB stores in single bytes."""
    body = struct.pack("<4I", 6, 8, 6, 0) + struct.pack("<2I2i", 5, 8, 2, 2)
    body += struct.pack("<HH4s", 1, 1, b"A\0\0\0") + struct.pack("<HH4B", 2, 4, 1, 2, 3, 4)
    data = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + struct.pack("<2I", 14, len(body)) + body
    decoded = decode_matlab_array(data, "label", "A")
    assert (decoded.dtype, decoded.tolist()) == (np.float64, [[1, 3], [2, 4]])
    assert scipy.io.loadmat(io.BytesIO(data))["A"].tolist() == [[1, 3], [2, 4]]


def test_the_same_bytes_every_time():
    values = {"LabelMap": np.ones((3, 4), np.uint16)}
    assert encode_matlab_arrays(values) == encode_matlab_arrays(values)
    np.testing.assert_array_equal(
        decode_matlab_array(encode_matlab_arrays(values), "label", "LabelMap"), values["LabelMap"]
    )


GOOD = saved(compressed=False, LabelMap=np.ones((4, 6), np.uint16))
SIZE = struct.pack("<2i", 4, 6)


@pytest.mark.parametrize(("data", "reason"), [
    (b"", "MATLAB file is not of version 5"),
    (GOOD[:126] + b"MI" + GOOD[128:], "MATLAB file is not of version 5"),
    (GOOD[:150], "truncated: an element"),
    (saved(other=np.ones((2, 2))), r"has no matrix LabelMap, but \['other'\]"),
    (saved(LabelMap="text"), "of no real numbers"),
    (saved(LabelMap=np.ones((2, 2), complex)), "of no real numbers"),
    (saved(LabelMap=scipy.sparse.csc_matrix(np.eye(5))), "damaged"),
    (saved(LabelMap=np.ones((2, 3, 4))), "not of two dimensions"),
    (saved(LabelMap=np.ones((0, 5))), "declares 0x5 values"),
    (GOOD.replace(SIZE, struct.pack("<2i", 2**31 - 1, 2**31 - 1)), "declares 2147483647x"),
    (GOOD.replace(SIZE, struct.pack("<2i", 4, 7)), "declares 4x7 values of <u2, holds 48"),
])  # fmt: skip
def test_bad_files_are_refused_with_their_reason(data, reason):
    with pytest.raises(BadSample, match=f"^label .*{reason}"):
        decode_matlab_array(data, "label", "LabelMap")


def test_damage_below_the_compression_is_read_or_refused():
    good = saved(LabelMap=np.arange(24, dtype=np.uint16).reshape(4, 6))
    body = zlib.decompress(good[136:])
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(2000):
        damaged = bytearray(body)
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        if rng.random() < 0.2:
            del damaged[rng.integers(len(damaged)) :]
        packed = zlib.compress(damaged)
        data = good[:128] + struct.pack("<2I", 15, len(packed)) + packed
        try:
            decode_matlab_array(data, "label", "LabelMap")
        except BadSample:
            refused += 1
    assert 500 < refused < 2000
