"""Pictures made to hurt: JPEG and PNG that promise too much, inflate without end or never finish.

`LIGHT` ones are small to make and quick to refuse. `HEAVY` ones go to the limit of what is read, and take
seconds.
"""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from datasets_prep.formats.pictures import MAX_PIXELS
from tests.fuzz.damage import png_chunks, png_of

SIDE = int(MAX_PIXELS**0.5)  # Side of the largest square that is read.

Variant = Callable[[bytes], bytes]


# ---- PNG
def _png(width: int, height: int, bits: int, colour: int, rows: bytes, interlace: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    return png_of([(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")])


def _zeros(size: int) -> bytes:
    """A zlib stream of zeros, a thousandth of their size."""
    packer = zlib.compressobj(9)
    block = bytes(2**20)
    parts = [packer.compress(block) for _ in range(size // len(block))]
    return b"".join([*parts, packer.compress(bytes(size % len(block))), packer.flush()])


def _flat_png(side: int, bits: int, colour: int, interlace: int = 0) -> Variant:
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]

    def build(_: bytes) -> bytes:
        row = 1 + (side * channels * bits + 7) // 8
        return _png(side, side, bits, colour, _zeros(row * side * (2 if interlace else 1)), interlace)

    return build


def _with_size(width: int, height: int) -> Variant:
    def build(data: bytes) -> bytes:
        (kind, header), *rest = png_chunks(data)
        return png_of([(kind, struct.pack(">II", width, height) + header[8:]), *rest])

    return build


def _with_chunk(kind: bytes, content: Callable[[], bytes], times: int = 1) -> Variant:
    def build(data: bytes) -> bytes:
        first, *rest = png_chunks(data)
        return png_of([first, *[(kind, content())] * times, *rest])

    return build


def _resaved(mode: str, **options: object) -> Variant:
    def build(data: bytes) -> bytes:
        stream = io.BytesIO()
        kind = "PNG" if data.startswith(b"\x89PNG") else "JPEG"
        with Image.open(io.BytesIO(data)) as image:
            image.convert("L").convert(mode).save(stream, format=kind, **options)
        return stream.getvalue()

    return build


def _animated(frames: int) -> Variant:
    def build(data: bytes) -> bytes:
        first, *rest = png_chunks(data)
        size = first[1][:8]
        control = struct.pack(">I", 0) + size + struct.pack(">IIHHBB", 0, 0, 1, 10, 0, 0)
        more = struct.pack(">I", 1) + struct.pack(">II", 2**31 - 1, 2**31 - 1) + bytes(14)
        chunks = [first, (b"acTL", struct.pack(">II", frames, 0)), (b"fcTL", control), *rest[:-1]]
        return png_of([*chunks, (b"fcTL", more), (b"fdAT", struct.pack(">I", 2) + rest[0][1]), rest[-1]])

    return build


def _bomb_behind_the_rows(data: bytes) -> bytes:
    """Rows as promised, then 300 MB of zeros in the same stream."""
    first, *rest = png_chunks(data)
    rows = zlib.decompress(b"".join(content for kind, content in rest if kind == b"IDAT"))
    packer = zlib.compressobj(9)
    stream = packer.compress(rows) + b"".join(packer.compress(bytes(2**20)) for _ in range(300))
    return png_of([first, (b"IDAT", stream + packer.flush()), (b"IEND", b"")])


PNG_LIGHT: dict[str, Variant] = {
    "no width": _with_size(0, 48),
    "no height": _with_size(64, 0),
    "one column": _with_size(1, 64 * 48),
    "another size": _with_size(65, 48),
    "31-bit width": _with_size(2**31 - 1, 1),
    "32-bit size": _with_size(2**32 - 1, 2**32 - 1),
    "100,000 squared": _with_size(100_000, 100_000),
    "1 bit": _resaved("1"),
    "palette": _resaved("P"),
    "grey and alpha": _resaved("LA"),
    "RGB": _resaved("RGB"),
    "RGBA": _resaved("RGBA"),
    "16-bit grey": _resaved("I;16"),
    "interlaced": lambda _: _png(8, 8, 8, 0, zlib.compress(bytes(200)), 1),
    "wrong bit depth": lambda _: _png(64, 48, 3, 0, zlib.compress(bytes(5000))),
    "wrong colour type": lambda _: _png(64, 48, 8, 5, zlib.compress(bytes(5000))),
    "palette missing": lambda _: _png(64, 48, 8, 3, zlib.compress(bytes(65 * 48))),
    "wrong row filter": lambda _: _png(64, 48, 8, 0, zlib.compress(b"\x09" * 65 * 48)),
    "no rows": lambda _: _png(64, 48, 8, 0, b""),
    "rows are no zlib stream": lambda _: _png(64, 48, 8, 0, b"not compressed" * 10),
    "animated": _animated(2),
    "animated without end": _animated(2**31 - 1),
    "5,000 text chunks": _with_chunk(b"tEXt", lambda: b"key\0value", 5000),
    "second header": _with_chunk(b"IHDR", lambda: struct.pack(">IIBBBBB", 60000, 60000, 8, 6, 0, 0, 0)),
    "animation larger than its header": _with_chunk(b"fcTL", lambda: b"\x7f" * 26),
}
PNG_HEAVY: dict[str, Variant] = {
    "largest grey 8": _flat_png(SIDE, 8, 0),
    "largest grey 16": _flat_png(SIDE, 16, 0),
    "largest grey 1": _flat_png(SIDE, 1, 0),
    "largest RGB 8": _flat_png(SIDE, 8, 2),
    "largest RGB 16": _flat_png(SIDE, 16, 2),
    "largest RGBA 8": _flat_png(SIDE, 8, 6),
    "largest RGBA 16": _flat_png(SIDE, 16, 6),
    "largest interlaced RGBA 16": _flat_png(SIDE, 16, 6, interlace=1),
    "slightly too large": _flat_png(SIDE + 10, 8, 0),
    "flat": lambda _: _png(MAX_PIXELS, 1, 8, 0, _zeros(MAX_PIXELS + 1)),
    "tall": lambda _: _png(1, MAX_PIXELS, 8, 0, _zeros(2 * MAX_PIXELS)),
    "small picture, large size": _with_size(SIDE, SIDE),
    "300 MB behind the rows": _bomb_behind_the_rows,
    "300 MB of colour profile": _with_chunk(b"iCCP", lambda: b"profile\0\0" + _zeros(300 * 2**20)),
    "300 MB of text": _with_chunk(b"zTXt", lambda: b"key\0\0" + _zeros(300 * 2**20)),
    "20 large texts": _with_chunk(b"zTXt", lambda: b"key\0\0" + _zeros(7 * 2**20), 20),
    "200,000 text chunks": _with_chunk(b"tEXt", lambda: b"key\0value", 200_000),
}


# ---- JPEG
def _with_frame(**fields: int) -> Variant:
    """A field of the frame header (precision, height, width, components) overwritten."""
    places = {"precision": (4, "B"), "height": (5, ">H"), "width": (7, ">H"), "components": (9, "B")}

    def build(data: bytes) -> bytes:
        at = next(p for p in range(len(data)) if data[p] == 0xFF and data[p + 1] in (0xC0, 0xC2))
        changed = bytearray(data)
        for name, value in fields.items():
            offset, code = places[name]
            struct.pack_into(code, changed, at + offset, value)
        return bytes(changed)

    return build


def _segment(marker: int, content: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def _hidden_frame(data: bytes) -> bytes:
    """Large picture where a reader that skips by length sees a small one: behind a stuffed byte."""
    large = _segment(0xC0, struct.pack(">BHHB", 8, 65000, 65000, 1) + b"\x01\x11\x00")
    return data[:2] + b"\xff\x00" + struct.pack(">H", len(large) + 2) + large + data[2:]


def _thumbnail(data: bytes) -> bytes:
    return data[:2] + _segment(0xE1, b"Exif\0\0" + data[:20000]) + data[2:]


def _scans(side: int, scans: int) -> Variant:
    """A flat progressive picture in many scans, each a few bytes that go over every block again."""

    def build(_: bytes) -> bytes:
        blocks = (-(-side // 8)) ** 2
        parts = [
            b"\xff\xd8",
            _segment(0xDB, b"\0" + b"\x01" * 64),
            _segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\x01\x11\x00"),
            # One code of one bit in each table: a difference of 0, and a run of 16,384 empty blocks and more.
            _segment(0xC4, b"\x00" + b"\x01" + bytes(15) + b"\x00"),
            _segment(0xC4, b"\x10" + b"\x01" + bytes(15) + b"\xe0"),
            _segment(0xDA, b"\x01\x01\x00\x00\x00\x00") + bytes(-(-blocks // 8)),
        ]
        runs = -(-blocks // 32767)
        bits = "0" + "11111111111111"  # the code, and the run's lower bits
        stream = bits * (runs - 1)
        rest = blocks - 32767 * (runs - 1)
        # What is left may be less than the shortest run of this code; the decoder stops at the last block.
        stream += "0" + f"{max(0, rest - 16384):014b}"
        stream += "1" * (-len(stream) % 8)
        packed = int(stream, 2).to_bytes(len(stream) // 8, "big").replace(b"\xff", b"\xff\x00")
        orders = [(bit, k) for bit in range(13, -1, -1) for k in range(1, 64)][:scans]
        for bit, k in orders:
            approximation = bit if bit == 13 else ((bit + 1) << 4) | bit
            parts.append(_segment(0xDA, bytes([1, 1, 0, k, k, approximation])) + packed)
        return b"".join([*parts, b"\xff\xd9"])

    return build


def _largest_jpeg(**options: object) -> Variant:
    def build(_: bytes) -> bytes:
        stream = io.BytesIO()
        picture = np.zeros((SIDE, SIDE, 3), np.uint8)
        picture[::16, ::16] = 255
        Image.fromarray(picture).save(stream, format="JPEG", **options)
        return stream.getvalue()

    return build


JPEG_LIGHT: dict[str, Variant] = {
    "no height": _with_frame(height=0),
    "no width": _with_frame(width=0),
    "65,535 squared": _with_frame(height=65535, width=65535),
    "another size": _with_frame(height=49),
    "12 bits": _with_frame(precision=12),
    "no components": _with_frame(components=0),
    "255 components": _with_frame(components=255),
    "grey": _resaved("L"),
    "CMYK": _resaved("CMYK"),
    "progressive": _resaved("RGB", progressive=True),
    "thumbnail": _thumbnail,
    "frame hidden from a careless reader": _hidden_frame,
    "no scan": lambda data: data[: data.index(b"\xff\xda")] + b"\xff\xd9",
    "picture twice": lambda data: data + data,
    "rubbish behind the end": lambda data: data + b"\0" * 1000,
    "no end": lambda data: data[:-2],
    "many scans": _scans(256, 63 * 14),
}
JPEG_HEAVY: dict[str, Variant] = {
    "small picture, large size": _with_frame(height=SIDE, width=SIDE),
    "largest": _largest_jpeg(),
    "largest progressive": _largest_jpeg(progressive=True, subsampling=0),
    "largest in many scans": _scans(SIDE, 63 * 14),
    "largest in some scans": _scans(SIDE, 60),
    "slightly too large": _with_frame(height=SIDE + 10, width=SIDE),
}


# ---- TIFF
def _tiff(mode: str, width: int = 64, height: int = 48, **options: object) -> Variant:
    def build(_: bytes) -> bytes:
        stream = io.BytesIO()
        Image.new(mode, (width, height)).save(stream, format="TIFF", **options)
        return stream.getvalue()

    return build


def _with_tag(tag: int, value: int) -> Variant:
    """The value of a tag of the first directory of a little-endian TIFF overwritten."""

    def build(data: bytes) -> bytes:
        (start,) = struct.unpack_from("<I", data, 4)
        (count,) = struct.unpack_from("<H", data, start)
        changed = bytearray(data)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            if struct.unpack_from("<H", data, entry)[0] == tag:
                struct.pack_into("<I", changed, entry + 8, value)
        return bytes(changed)

    return build


TIFF_LIGHT: dict[str, Variant] = (
    {f"mode {mode}": _tiff(mode) for mode in ("1", "L", "P", "I;16", "I", "F", "RGB", "RGBA", "CMYK")}
    | {
        f"{name} {value}": _with_tag(tag, value)
        for name, tag in (("width", 256), ("height", 257), ("bits", 258), ("strip", 273), ("rows", 278))
        for value in (0, 1, 65535, 2**31 - 1, 2**32 - 1)
    }
    | {f"compression {code}": _with_tag(259, code) for code in (0, 2, 5, 6, 7, 8, 32773, 50000, 65535)}
    | {
        "directory in itself": lambda data: data[:4] + struct.pack("<I", 4) + data[8:],
        "directory beyond the end": lambda data: data[:4] + b"\xff\xff\xff\x7f" + data[8:],
        "deflated": _tiff("F", compression="tiff_adobe_deflate"),
        "many pages": _tiff("F", save_all=True, append_images=[Image.new("F", (64, 48))] * 50),
    }
)
TIFF_HEAVY: dict[str, Variant] = {
    "largest, deflated": _tiff("F", SIDE, SIDE, compression="tiff_adobe_deflate"),
    "slightly too large": _tiff("L", SIDE + 10, SIDE, compression="tiff_adobe_deflate"),
    "small picture, large size": lambda data: _with_tag(256, SIDE)(_with_tag(257, SIDE)(data)),
}
