"""JPEG and PNG: bytes ↔ NumPy arrays.

Raw data comes with truncated downloads, wrong channels and headers that declare more than the file holds. The
decoders of this folder check a header's sizes against the file's size before they allocate, and every failure
is a `BadSample` whose reason starts with the role of the file (`depth`, `mask`, …), so that rows of the
quarantine table can be understood by themselves.
"""

import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from datasets_prep.errors import BadSample, Note
from datasets_prep.formats.jpeg import plain_versions

MAX_ASPECT = 20
"""Largest ratio of an image's sides. A photo of 10x2000 pixels would become 384x76,800, which takes 7 GB;
panoramas have up to 10:1."""

MAX_PIXELS = 8192 * 6144
"""Larger pictures are refused by their header alone, so that no file can require more than about 1.5 GiB in
all steps of an ingest. It is the size of a 50-megapixel camera; the largest published pictures (ETH3D) have
24 megapixels."""

MAX_JPEG_SCANS = 100
"""A progressive JPEG has about ten scans; each costs time for the whole picture, even if it has few bytes."""

_JPEG_MAGIC = b"\xff\xd8"
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
PNG_HEADER_BYTES = 33
"""Signature and IHDR, which must come first; text may follow."""

_PNG_GREY = 0
_PNG_METADATA = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
_JPEG_SCAN = b"\xff\xda"


def image_size(data: bytes, role: str = "image") -> tuple[int, int]:
    """Height and width of the JPEG or PNG `data`, from its header alone; errors begin with `role`.

    Raises BadSample if the bytes are neither, the header is damaged, or it declares more than `MAX_PIXELS`.
    """
    if data.startswith(_PNG_MAGIC):
        if len(data) < 24 or data[12:16] != b"IHDR":
            raise BadSample(f"{role} PNG header damaged")
        width, height = struct.unpack_from(">II", data, 16)
    elif data.startswith(_JPEG_MAGIC):
        # By the library that will decode it: a hostile file could show another size to another parser.
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(next(plain_versions(data)), strict=True)
        except ValueError as error:
            raise BadSample(f"{role} JPEG damaged: {error}") from error
    else:
        raise BadSample(f"{role} is neither JPEG nor PNG ({len(data)} bytes, starts {data[:8]!r})")
    check_size(height, width, role)
    return height, width


def decode_rgb(data: bytes, role: str = "image") -> NDArray[np.uint8]:
    """Decode the whole JPEG or PNG `data`, of any channel count, to RGB; errors begin with `role`.

    Alpha is dropped, grey is repeated, 16 bits become 8 (`dpt.predict.bit_depth`; a `Note` if stretched).
    EXIF orientation is ignored: ground truth belongs to the pixels as stored. Returns (H, W, 3) uint8. Raises
    BadSample if the file is damaged anywhere. A truncated JPEG is refused although its upper part could be
    shown: the grey rest would be taken for scenery.
    """
    return decode_plain(data, role)[1]


def decode_plain(data: bytes, role: str = "image") -> tuple[bytes, NDArray[np.uint8]]:
    """As `decode_rgb`, with the bytes to keep of `data`: the same compressed picture for every decoder.

    They have no metadata whose orientation other decoders apply, and, of a JPEG, no stray bytes.
    """
    height, width = image_size(data, role)
    if data.startswith(_PNG_MAGIC):
        mode = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
        bgr = _in_eight_bits(data, _decode_png(data, role, mode))
        image: NDArray[np.uint8] = np.ascontiguousarray(bgr[..., ::-1])
        plain = _without_metadata(data, role)
    else:
        plain, image = _decode_jpeg(data, role)
    if image.shape != (height, width, 3):
        raise BadSample(f"{role} decodes to {image.shape}, its header says {width}x{height}")
    return plain, image


def note_stretched(bits: int) -> None:
    """Say of a photo of `bits` significant bits in 16 that it is stretched; nothing if it fills them."""
    if bits < 16:
        what = f"photo of {bits} bits in samples of 16"
        warnings.warn(Note(f"{what}: stretched, its value {2**bits - 1} is white"), stacklevel=2)


def _in_eight_bits(data: bytes, pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    # Imported here: with it comes PyTorch, for which every loading process would wait.
    from dpt.predict.bit_depth import eight_bits, significant_bits

    bits = significant_bits(data, pixels)
    note_stretched(bits)
    return eight_bits(pixels, bits)


def encode_jpeg(image: NDArray[np.uint8], quality: int = 92) -> bytes:
    """Encode the (H, W, 3) RGB or (H, W, 1) grey uint8 `image` as a baseline JPEG of this `quality`."""
    pixels, space = np.ascontiguousarray(image), "RGB" if image.shape[2] == 3 else "GRAY"
    return bytes(simplejpeg.encode_jpeg(pixels, quality=quality, colorspace=space, colorsubsampling="420"))


def decode_grey_png(data: bytes, role: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Decode the map in the grey PNG `data` without changing its values; errors begin with `role`.

    Some datasets store the map three times, as RGB; accepted if the channels are equal. Returns
    (H, W) uint8 or uint16 as stored, also of samples of 1, 2 or 4 bits: 15 stays 15. Raises BadSample if it
    is not a PNG, damaged, or a colour picture.
    """
    if not data.startswith(_PNG_MAGIC):
        raise BadSample(f"{role} is not a PNG ({len(data)} bytes, starts {data[:8]!r})")
    height, width = image_size(data, role)
    values = _decode_png(data, role, cv2.IMREAD_UNCHANGED)
    if values.ndim == 3:
        if (values[..., 1:3] != values[..., :1]).any():
            raise BadSample(f"{role} PNG is a colour picture, expected one channel")
        values = np.ascontiguousarray(values[..., 0])
    if values.shape != (height, width) or values.dtype not in (np.uint8, np.uint16):
        found = f"{values.shape} {values.dtype}"
        raise BadSample(f"{role} PNG decodes to {found}, its header says {width}x{height}")
    bits, colour_type = data[24], data[25]
    if bits < 8 and colour_type == _PNG_GREY:
        # OpenCV stretches them to 8 bits: with 4, from 0 … 15 to 0, 17, … 255.
        values //= 255 // (2**bits - 1)
    return values


def encode_png(values: NDArray[np.uint8] | NDArray[np.uint16], level: int | None = 1) -> bytes:
    """Encode a picture as PNG.

    Args:
        values: (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA, 8 or 16 bits.
        level: zlib's compression level; 1 is a third larger than zlib's default and five times as fast. None:
            OpenCV's default, run-length encoding.
    """
    if values.ndim == 3:
        values = values[..., [2, 1, 0, 3][: values.shape[2]]]
    options = [] if level is None else [cv2.IMWRITE_PNG_COMPRESSION, level]
    ok, data = cv2.imencode(".png", np.ascontiguousarray(values), options)
    if not ok:
        raise ValueError(f"OpenCV cannot encode {values.shape} {values.dtype} as PNG")
    return data.tobytes()


def check_size(height: int, width: int, role: str) -> None:
    """Raises BadSample, naming the file's `role`, if `height` × `width` pixels are none or too many."""
    if height < 1 or width < 1:
        raise BadSample(f"{role} declares {width}x{height} pixels")
    if height * width > MAX_PIXELS:
        most = f"{MAX_PIXELS // 10**6} megapixels"
        raise BadSample(f"{role} declares {width}x{height} pixels, more than {most}")


def check_aspect(height: int, width: int) -> None:
    """Raises BadSample if an image of `height` × `width` pixels is a strip, too long to be resized."""
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise BadSample(
            f"image of {width}x{height} is a strip: its sides may differ by a factor of {MAX_ASPECT}"
        )


def _decode_jpeg(data: bytes, role: str) -> tuple[bytes, NDArray[np.uint8]]:
    scans = data.count(_JPEG_SCAN)
    if scans > MAX_JPEG_SCANS:
        raise BadSample(f"{role} JPEG has {scans} scans, more than {MAX_JPEG_SCANS}")
    problems = []
    for plain in plain_versions(data):
        try:
            return plain, simplejpeg.decode_jpeg(plain, colorspace="RGB", strict=True)
        except ValueError as error:  # noqa: PERF203 (mostly one turn)
            problems.append(error)
    raise BadSample(f"{role} JPEG damaged: {problems[0]}") from problems[0]


def _without_metadata(data: bytes, role: str) -> bytes:
    """A PNG without the chunks that may hold an orientation: Exif, and texts, as XMP and older Exif are."""
    if not any(kind in data for kind in _PNG_METADATA):
        return data
    kept = (chunk for chunk in png_chunks(data, role) if chunk[0] not in _PNG_METADATA)
    return _PNG_MAGIC + b"".join(png_chunk(*chunk) for chunk in kept)


def _decode_png(data: bytes, role: str, mode: int) -> NDArray[Any]:
    """Decode after checking every chunk: OpenCV decodes a truncated PNG to black rows without an error."""
    kinds = [kind for kind, _ in png_chunks(data, role)]
    if b"IDAT" not in kinds:
        raise BadSample(f"{role} PNG has no picture data")
    return decode_with_opencv(data, f"{role} PNG", mode)


def decode_with_opencv(data: bytes, what: str, mode: int) -> NDArray[Any]:
    """Decode the picture `data` with OpenCV in an `IMREAD_…` mode; errors begin with `what`.

    Returns (H, W) or (H, W, C) of the file's sample type, channels in the order BGR. Raises BadSample if it
    cannot be decoded.
    """
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    except cv2.error as error:
        raise BadSample(f"{what} cannot be decoded: {error.err}") from error
    if values is None:
        raise BadSample(f"{what} cannot be decoded")
    return values


def png_chunk(kind: bytes, content: bytes | memoryview) -> bytes:
    """A PNG chunk of this `kind` and `content`, with its length and checksum."""
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png_chunks(data: bytes, role: str) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and content of each chunk of the PNG `data`, verified by checksum; errors begin with `role`."""
    view, position, kind = memoryview(data), len(_PNG_MAGIC), b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise BadSample(f"{role} PNG truncated at {len(data)} bytes")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            raise BadSample(f"{role} PNG truncated at {len(data)} bytes")
        if zlib.crc32(view[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise BadSample(f"{role} PNG damaged: wrong checksum at byte {position}")
        yield kind, view[position + 8 : end]
        position = end + 4
