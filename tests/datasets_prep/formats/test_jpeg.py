"""JPEG as cameras and careless writers leave it: kept bytes show the stored pixels in every decoder."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import decode_plain, decode_rgb, image_size
from datasets_prep.ingest.row import pixel_columns
from datasets_prep.schema import decode_image
from datasets_prep.settings import IngestSettings
from datasets_prep.sources import SOURCES
from datasets_prep.sources.base import RawSample

HEIGHT, WIDTH = 48, 72
ROWS, COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH]
SCENE = np.dstack([COLUMNS * 3, ROWS * 5, np.where((ROWS < 12) & (COLUMNS < 30), 250, 20)]).astype(np.uint8)
"""No turn or mirror of it resembles it."""

XMP = (
    b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


def encoded(kind: str = "JPEG", scene: np.ndarray = SCENE, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(scene).save(stream, kind, **options)
    return stream.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = orientation, "A camera"
    return tags


def as_others_show_it(data: bytes) -> list[np.ndarray]:
    """(H, W, 3) RGB by two decoders that apply every orientation they find."""
    opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    return [np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")), opencv]


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel().astype(float), other.ravel().astype(float))[0, 1])


def turned_files() -> dict[str, bytes]:
    plain, files = encoded(), {}
    for orientation in range(1, 9):
        for kind in ("JPEG", "PNG"):
            files[f"{kind}, Exif {orientation}"] = encoded(kind, exif=exif(orientation))
        segment = XMP % orientation
        header = b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big")
        files[f"JPEG, XMP {orientation}"] = plain[:2] + header + segment + plain[2:]
    return files


TURNED = turned_files()


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", TURNED)
def test_kept_bytes_show_the_stored_pixels_in_every_decoder(name, split):
    stored = Image.open(io.BytesIO(TURNED[name]))
    depth = 1 + ROWS.astype(np.float32) * 0.1 + COLUMNS * 0.02
    raw = RawSample(TURNED[name], depth, "depth", depth > 0)
    row = pixel_columns(raw, SOURCES["kitti"], split, IngestSettings(resize="none"))
    for shown in as_others_show_it(row["image"]):
        assert shown.shape == (HEIGHT, WIDTH, 3)
        assert correlation(shown, SCENE) > 0.99
    if stored.format == "JPEG" or split == "test":
        kept = Image.open(io.BytesIO(row["image"]))
        np.testing.assert_array_equal(np.asarray(kept), np.asarray(stored))


def test_bytes_without_metadata_are_kept_bit_for_bit():
    profile = encoded(icc_profile=bytes(300))
    for data in (encoded(), encoded(progressive=True), encoded(optimize=True), profile, encoded("PNG")):
        assert decode_plain(data)[0] == data


# ---- bytes that belong to nothing

KINDS = {
    "baseline": {}, "progressive": {"progressive": True}, "optimised": {"optimize": True},
    "restarts": {"restart_marker_blocks": 2}, "grey": {},
}  # fmt: skip


def segment_ends(data: bytes) -> list[int]:
    """Where the segments before the first scan end, the start mark among them."""
    ends = [2]
    while data[ends[-1] + 1] != 0xDA:
        ends.append(ends[-1] + 2 + int.from_bytes(data[ends[-1] + 2 : ends[-1] + 4], "big"))
    return ends


def kind_of(name: str) -> bytes:
    return encoded(scene=SCENE[..., 0] if name == "grey" else SCENE, **KINDS[name])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("stray", [b"\0\0", b"ab", b"\r\n", b"\0", b"\xff\0", b"\0\0\0\0"])
def test_stray_bytes_between_segments_change_nothing(name, stray):
    clean = kind_of(name)
    for end in segment_ends(clean):
        data = clean[:end] + stray + clean[end:]
        assert image_size(data) == (HEIGHT, WIDTH)
        kept, image = decode_plain(data)
        np.testing.assert_array_equal(image, decode_rgb(clean))
        assert kept == clean
        np.testing.assert_array_equal(decode_image(kept), image)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("zeros", [1, 2, 3, 8])
@pytest.mark.parametrize("behind", [b"", b"\0\0 trailer"])
def test_zeros_before_the_end_mark_change_nothing(name, zeros, behind):
    clean = kind_of(name)
    kept, image = decode_plain(clean[:-2] + bytes(zeros) + clean[-2:] + behind)
    expected = np.asarray(Image.open(io.BytesIO(clean)).convert("RGB")).astype(int)
    np.testing.assert_array_equal(image, decode_rgb(clean))
    assert np.abs(image - expected).max() <= 2
    np.testing.assert_array_equal(decode_image(kept), image)


def test_zeros_and_stray_bytes_between_the_scans_of_a_progressive_jpeg():
    clean = encoded(progressive=True)
    second = clean.index(b"\xff\xc4", clean.index(b"\xff\xda"))  # a table between two scans
    end = second + 2 + int.from_bytes(clean[second + 2 : second + 4], "big")
    kept, image = decode_plain(clean[:second] + b"\0\0" + clean[second:end] + b"ab" + clean[end:])
    np.testing.assert_array_equal(image, decode_rgb(clean))
    assert kept == clean


def test_zeros_that_are_data_stay():
    # With tables of its own, a grey picture of one level is nothing but zeros.
    clean = encoded(scene=np.full((256, 256), 128, np.uint8), optimize=True)
    assert clean[-5:-2] == b"\0\0\0"
    assert decode_plain(clean)[0] == clean


@pytest.mark.parametrize("damage", [
    lambda data: data[:400] + b"\0\0" + data[-2:],  # the end of a download that was preallocated
    lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2 - 2) + data[-2:],
    lambda data: data[:2] + bytes(40) + data[2:],
    lambda data: data[:-2] + b"abcdefgh" + data[-2:],  # not zeros: might be data
    lambda data: data.replace(b"\xff\xc4", b"\xfe\xc4", 1),  # a table that is not recognised
    lambda data: data[:-2],
    lambda data: data[:2],
])  # fmt: skip
@pytest.mark.parametrize("name", KINDS)
def test_damage_is_still_refused(name, damage):
    with pytest.raises(BadSample, match=r"^image JPEG damaged"):
        decode_plain(damage(kind_of(name)))
