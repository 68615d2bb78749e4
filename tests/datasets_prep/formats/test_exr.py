"""EXR windows: pixels have the coordinates that the file gives them, in files typed by hand."""

import io
import struct

import numpy as np
import OpenEXR
import pytest

from datasets_prep.errors import BadSample
from datasets_prep.formats.maps import decode_exr

DEPTH = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
KINDS = {"uint32": 0, "float16": 1, "float32": 2}
"""Sample types in the numbering of the file format."""

Box = tuple[int, int, int, int]


def attribute(name: str, kind: str, content: bytes) -> bytes:
    return f"{name}\0{kind}\0".encode() + struct.pack("<i", len(content)) + content


def exr_typed_by_hand(values: np.ndarray, left: int, top: int, display: Box) -> bytes:
    """Uncompressed channel Z whose first value is the pixel (left, top); `display` is a box of pixels."""
    height, width = values.shape
    channel = b"Z\0" + struct.pack("<iB3xii", KINDS[values.dtype.name], 0, 1, 1) + b"\0"
    window = struct.pack("<4i", left, top, left + width - 1, top + height - 1)
    header = b"\x76\x2f\x31\x01\x02\0\0\0" + b"".join([
        attribute("channels", "chlist", channel),
        attribute("compression", "compression", b"\0"),
        attribute("dataWindow", "box2i", window),
        attribute("displayWindow", "box2i", struct.pack("<4i", *display)),
        attribute("lineOrder", "lineOrder", b"\0"),
        attribute("pixelAspectRatio", "float", struct.pack("<f", 1)),
        attribute("screenWindowCenter", "v2f", bytes(8)),
        attribute("screenWindowWidth", "float", struct.pack("<f", 1)),
    ]) + b"\0"  # fmt: skip
    lines = [struct.pack("<ii", top + y, row.nbytes) + row.tobytes() for y, row in enumerate(values)]
    offsets = (len(header) + 8 * height + y * len(lines[0]) for y in range(height))
    return header + b"".join(struct.pack("<Q", offset) for offset in offsets) + b"".join(lines)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize(("left", "top", "display"), [
    (0, 0, (0, 0, 3, 2)),
    (10, 5, (0, 0, 23, 17)),
    (1, 1, (0, 0, 3, 2)),  # of the same size, shifted: its last row and column lie outside
    (-1, -2, (0, 0, 3, 2)),
    (5, 5, (5, 5, 8, 7)),  # neither starts at 0
    (5, 5, (6, 6, 7, 6)),  # larger on all sides
    (-3, 1, (-1, 0, 5, 2)),
])  # fmt: skip
def test_exr_values_are_the_pixels_of_the_display_window(left, top, display, dtype):
    data = exr_typed_by_hand(DEPTH.astype(dtype), left, top, display)
    found = OpenEXR.File(io.BytesIO(data))
    assert np.ravel(found.header()["displayWindow"]).tolist() == list(display)
    values = found.channels()["Z"].pixels
    placed = {(left + x, top + y): float(values[y, x]) for y, x in np.ndindex(3, 4)}
    columns, rows = range(display[0], display[2] + 1), range(display[1], display[3] + 1)
    expected = [[placed.get((x, y), np.nan) for x in columns] for y in rows]
    decoded = decode_exr(data, "depth", ("Z",))
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, expected)


def test_an_exr_that_shows_nothing_of_its_data_is_empty():
    assert np.isnan(decode_exr(exr_typed_by_hand(DEPTH, 10, 5, (0, 0, 3, 2)), "depth", ("Z",))).all()


@pytest.mark.parametrize("display", [(0, 0, 2**30, 0), (0, 0, 99_999, 99_999)])
def test_an_absurd_display_window_is_refused(display):
    with pytest.raises(BadSample, match=r"^depth "):
        decode_exr(exr_typed_by_hand(DEPTH, 0, 0, display), "depth", ("Z",))
