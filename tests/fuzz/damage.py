"""Random damage to a file's bytes, any format: the seed decides all of it."""

import io
import re
import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Rng = np.random.Generator

_EXTREMES = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_HUGE_NUMBERS = (b"0", b"-1", b"1e9", b"99999", b"65535", b"2147483647", b"4294967296", b"9" * 40, b"nan")
_PNG_HEADER = 8
_MATLAB_COMPRESSED = 15
_WORDS = (
    *(b"\r\n", b"\n\n\n", b"\0", b"\t", b" ", b"\xff\xfe", b"\xef\xbb\xbf", b"\xe2\x80\xa8"),
    *(b"#", b",", b"=", b"/", b"../", b"../../outside/", b"/etc/passwd", b"..\\", b"%2e%2e/"),
    *(b"None", b"~", b"$HOME", b"-", b"''"),
)


def damage(data: bytes, donors: Sequence[bytes], rng: Rng) -> bytes:
    """One to three wounds; `donors` are other files, to splice with."""
    for _ in range(int(rng.integers(1, 4))):
        wound = _WOUNDS[int(rng.integers(len(_WOUNDS)))]
        data = wound(data, donors, rng)
    return data


def damage_text(data: bytes, donors: Sequence[bytes], rng: Rng) -> bytes:
    """As `damage`, or wounds that leave it text: numbers, words, line ends."""
    if rng.random() < 0.3:
        return damage(data, donors, rng)
    for _ in range(int(rng.integers(1, 6))):
        action = int(rng.integers(4))
        if action == 0:
            data = _replace_match(data, rb"\d+", _HUGE_NUMBERS, rng)
        elif action == 1:
            data = _replace_match(data, rb"\S+", _WORDS, rng)
        elif action == 2:
            at = _position(data, rng)
            data = data[:at] + _WORDS[int(rng.integers(len(_WORDS)))] + data[at:]
        else:
            data = data.replace(b"\n", b"\r\n" if rng.random() < 0.7 else b"\r")
    return data


def damage_png(data: bytes, donors: Sequence[bytes], rng: Rng) -> bytes:
    """Damage inside chunks, whose checksums are then made good, so that it gets past the first door."""
    chunks = png_chunks(data)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(chunks)))
        kind, content = chunks[at]
        action = int(rng.integers(6))
        if action == 0 and len(chunks) > 1:
            del chunks[at]
        elif action == 1:
            chunks.insert(int(rng.integers(len(chunks) + 1)), chunks[at])
        elif action == 2:
            kinds = (b"PLTE", b"tRNS", b"gAMA", b"iCCP", b"zTXt", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"IHDR")
            chunks.insert(at + 1, (kinds[int(rng.integers(len(kinds)))], rng.bytes(int(rng.integers(40)))))
        elif action == 3 and kind == b"IDAT":
            chunks[at] = kind, _damaged_stream(content, donors, rng)
        elif action == 4:
            field = int(rng.integers(8, 13))  # depth, colour, compression, filter, interlace
            values = (0, 1, 2, 3, 4, 6, 8, 16, 255)
            chunks[0] = chunks[0][0], _poke(chunks[0][1], field, values[int(rng.integers(len(values)))])
        else:
            chunks[at] = kind, damage(content, donors, rng)
    return png_of(chunks)


def damage_shard(data: bytes, donors: Sequence[bytes], rng: Rng) -> bytes:
    """Damage in one cell of a row, in a shard that is whole again afterwards."""
    table = pq.read_table(io.BytesIO(data))
    rows = table.to_pylist()
    row = rows[int(rng.integers(len(rows)))]
    action = int(rng.integers(4))
    if action == 0:
        row["image"] = damage(row["image"], donors, rng)
    elif action == 1:
        row[("height", "width")[int(rng.integers(2))]] = int(rng.integers(-5, 2**31))
    else:  # behind the header of the Blosc2 chunk, whose sizes are looked at first
        kept = (0, 16, 32)[int(rng.integers(3))]
        body = damage(row["inverse_depth"][kept:], donors, rng)
        chunk = row["inverse_depth"][:kept] + body
        # The header's own word on the chunk's length made good.
        row["inverse_depth"] = chunk[:12] + struct.pack("<i", len(chunk)) + chunk[16:]
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, table.schema), stream)
    return stream.getvalue()


def damage_matlab(data: bytes, donors: Sequence[bytes], rng: Rng) -> bytes:
    """Damage below the compression of a MATLAB file's first element."""
    kind, size = struct.unpack_from("<2I", data.ljust(136, b"\0"), 128)
    if kind != _MATLAB_COMPRESSED:
        return damage(data, donors, rng)
    stream = _damaged_stream(data[136 : 136 + size], donors, rng)
    return data[:128] + struct.pack("<2I", kind, len(stream)) + stream


def _damaged_stream(stream: bytes, donors: Sequence[bytes], rng: Rng) -> bytes:
    """Damage below the compression, unless the stream is broken already."""
    try:
        rows = zlib.decompressobj().decompress(stream, 2**22)
    except zlib.error:
        return damage(stream, donors, rng)
    return zlib.compress(damage(rows, donors, rng), 1)


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and content of each chunk of a good PNG."""
    chunks, position = [], _PNG_HEADER
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        chunks.append((kind, data[position + 8 : position + 8 + length]))
        position += 12 + length
    return chunks


def png_of(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A PNG of those chunks, with good checksums."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, content in chunks:
        checksum = zlib.crc32(kind + content)
        parts.append(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum))
    return b"".join(parts)


# ---- wounds
def _position(data: bytes, rng: Rng) -> int:
    """Half of the time in the first 300 bytes, where headers are."""
    return int(rng.integers(0, 1 + (min(len(data), 300) if rng.random() < 0.5 else len(data))))


def _cut(data: bytes, _: Sequence[bytes], rng: Rng) -> bytes:
    return data[: _position(data, rng)]


def _flip(data: bytes, _: Sequence[bytes], rng: Rng) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 9)) if data else 0):
        changed[min(_position(data, rng), len(data) - 1)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _overwrite(data: bytes, _: Sequence[bytes], rng: Rng) -> bytes:
    at, length = _position(data, rng), int(rng.integers(1, 64))
    filling = (bytes(length), b"\xff" * length, rng.bytes(length))[int(rng.integers(3))]
    return data[:at] + filling + data[at + length :]


def _extreme_number(data: bytes, _: Sequence[bytes], rng: Rng) -> bytes:
    at, size = _position(data, rng), (1, 2, 4, 8)[int(rng.integers(4))]
    value = _EXTREMES[int(rng.integers(len(_EXTREMES)))] % 256**size
    return data[:at] + value.to_bytes(size, "little" if rng.random() < 0.5 else "big") + data[at + size :]


def _remove(data: bytes, _: Sequence[bytes], rng: Rng) -> bytes:
    at = _position(data, rng)
    return data[:at] + data[at + int(rng.integers(1, 1 + max(1, len(data) // 4))) :]


def _repeat(data: bytes, _: Sequence[bytes], rng: Rng) -> bytes:
    at, length = _position(data, rng), int(rng.integers(1, 200))
    return data[:at] + data[at : at + length] * int(rng.integers(1, 20)) + data[at:]


def _insert(data: bytes, _: Sequence[bytes], rng: Rng) -> bytes:
    at = _position(data, rng)
    return data[:at] + rng.bytes(int(rng.integers(1, 64))) + data[at:]


def _splice(data: bytes, donors: Sequence[bytes], rng: Rng) -> bytes:
    donor = donors[int(rng.integers(len(donors)))]
    return data[: _position(data, rng)] + donor[_position(donor, rng) :]


_WOUNDS: tuple[Callable[[bytes, Sequence[bytes], Rng], bytes], ...] = (
    *(_cut, _flip, _overwrite, _extreme_number, _remove, _repeat, _insert, _splice),
)


def _poke(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes([value]) + data[at + 1 :]


def _replace_match(data: bytes, pattern: bytes, replacements: Sequence[bytes], rng: Rng) -> bytes:
    found = list(re.finditer(pattern, data[:100_000]))
    if not found:
        return data
    match = found[int(rng.integers(len(found)))]
    return data[: match.start()] + replacements[int(rng.integers(len(replacements)))] + data[match.end() :]
