"""Disparity and uncertainty files of 3DVideos2Stereo: values, texts, damage."""

import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from datasets_prep.errors import BadSample
from datasets_prep.formats.disparity_png import (
    decode_disparity,
    decode_uncertainty,
    encode_disparity,
    encode_uncertainty,
)
from datasets_prep.formats.pictures import encode_png


def authors_file(steps: np.ndarray, **texts: str) -> bytes:
    """As the authors' script writes it: Pillow, with texts."""
    meta = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        meta.add_text(key, value)
    stream = io.BytesIO()
    Image.fromarray(steps).save(stream, "PNG", pnginfo=meta)
    return stream.getvalue()


def test_disparity_comes_back_to_half_a_step():
    values = np.random.default_rng(0).normal(-3, 20, (37, 53)).astype(np.float32)
    found = decode_disparity(encode_disparity(values))
    assert found.dtype == np.float32
    assert found.min() < 0
    np.testing.assert_allclose(found, values, atol=np.ptp(values) / 65535)


def test_a_flat_map_comes_back():
    values = np.full((4, 5), -2.5, np.float32)
    np.testing.assert_array_equal(decode_disparity(encode_disparity(values)), values)


def test_the_authors_files_are_read():
    steps = np.array([[0, 1], [1000, 65535]], np.uint16)
    data = authors_file(steps, offset="-12.345678", scale="0.0012")
    np.testing.assert_allclose(decode_disparity(data), -12.345678 + 0.0012 * steps, rtol=1e-6)


def test_pillow_reads_our_files():
    values = np.linspace(-5, 30, 12, dtype=np.float32).reshape(3, 4)
    image = Image.open(io.BytesIO(encode_disparity(values)))
    steps = np.asarray(image).astype(np.float64)
    found = float(image.info["offset"]) + float(image.info["scale"]) * steps
    np.testing.assert_allclose(found, values, atol=1e-3)


@pytest.mark.parametrize(("texts", "reason"), [
    ({}, "depth PNG has no text 'offset'"),
    ({"offset": "1"}, "depth PNG has no text 'scale'"),
    ({"offset": "1", "scale": "many"}, "depth PNG has scale 'many', expected a number"),
    ({"offset": "nan", "scale": "1"}, "depth PNG has offset 'nan', expected a number"),
    ({"offset": "1e999", "scale": "1"}, "depth PNG has offset '1e999', expected a number"),
    ({"offset": "1e300", "scale": "1"}, "which overflow"),
    ({"offset": "1_000", "scale": "1"}, "depth PNG has offset '1_000', expected a number"),
])  # fmt: skip
def test_bad_texts_are_refused(texts, reason):
    with pytest.raises(BadSample, match=reason):
        decode_disparity(authors_file(np.zeros((2, 2), np.uint16), **texts))


def test_eight_bits_of_disparity_are_refused():
    with pytest.raises(BadSample, match="8 bits, expected 16"):
        decode_disparity(authors_file(np.zeros((2, 2), np.uint8), offset="0", scale="1"))


def test_truncated_files_are_refused():
    data = encode_disparity(np.eye(20, dtype=np.float32))
    for length in (0, 20, len(data) // 2, len(data) - 1):
        with pytest.raises(BadSample, match=r"^depth"):
            decode_disparity(data[:length])


def test_flipped_bytes_are_read_or_refused():
    data = bytearray(encode_disparity(np.eye(20, dtype=np.float32)))
    rng = np.random.default_rng(3)
    for _ in range(300):
        damaged = data.copy()
        damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
        try:
            values = decode_disparity(bytes(damaged))
        except BadSample:
            continue
        assert np.isfinite(values).all()


def test_text_chunks_are_checked_by_their_sum():
    data = encode_disparity(np.eye(4, dtype=np.float32))
    position = data.index(b"offset")
    with pytest.raises(BadSample, match="checksum"):
        decode_disparity(data[:position] + b"o" + b"F" + data[position + 2 :])


def test_uncertainty_has_tenths_of_a_pixel():
    values = np.array([[0.0, 0.04, 0.06, 1.99], [2.0, 25.5, 400.0, np.inf]], np.float32)
    found = decode_uncertainty(encode_uncertainty(values))
    np.testing.assert_allclose(found, [[0, 0, 0.1, 2.0], [2.0, 25.5, 25.5, 25.5]], atol=1e-6)


def test_sixteen_bits_of_uncertainty_are_refused():
    with pytest.raises(BadSample, match="uncertainty PNG has 16 bits"):
        decode_uncertainty(encode_png(np.zeros((2, 2), np.uint16)))
