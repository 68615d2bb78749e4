"""Numbers in the first directory of a TIFF file, read and overwritten in place.

Decoders act on some tags in ways that do not suit ground truth (they mirror, or invert values); with the tag
overwritten they return the samples as stored, in their stored places.
"""

import struct
from collections.abc import Mapping

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
ORIENTATION, CHANNELS, PLANES, SAMPLE_FORMAT = 274, 277, 284, 339
"""Tags. `SAMPLE_FORMAT` is 1 for unsigned integers, 2 for signed ones and 3 for floats; `PLANES` is 1 where
the channels of a pixel follow each other, 2 where each channel is a picture of its own."""

_CODES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # field types of unsigned integers → codes of `struct`
_CLASSIC, _BIG = 42, 43
_MAX_TAGS = 4096


class TiffTags:
    """The integer tags of the first directory of the TIFF `data`, classic or BigTIFF.

    Raises ValueError if there is no whole directory.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._places: dict[int, tuple[int, str]] = {}
        try:
            self._read()
        except struct.error as error:
            raise ValueError("its first directory is not whole") from error

    def number(self, tag: int, default: int) -> int:
        """The first value of `tag`; `default` if the file has no such integer."""
        if tag not in self._places:
            return default
        at, code = self._places[tag]
        value: int = struct.unpack_from(code, self._data, at)[0]
        return value

    def replaced(self, numbers: Mapping[int, int]) -> bytes:
        """The file with other `numbers` (tag → first value); tags that it does not have are left out."""
        data = bytearray(self._data)
        for tag in numbers.keys() & self._places.keys():
            at, code = self._places[tag]
            struct.pack_into(code, data, at, numbers[tag])
        return bytes(data)

    def _read(self) -> None:
        order = {b"II": "<", b"MM": ">"}.get(self._data[:2])
        version = struct.unpack_from(f"{order}H", self._data, 2)[0] if order else 0
        if version not in (_CLASSIC, _BIG):
            raise ValueError("it does not begin as a TIFF does")
        # A classic directory counts its entries in 16 bits and has offsets of 32, BigTIFF has 64 for both.
        count, offset, first = ("H", "I", 4) if version == _CLASSIC else ("Q", "Q", 8)
        width = struct.calcsize(f"<{offset}")
        (start,) = struct.unpack_from(f"{order}{offset}", self._data, first)
        (entries,) = struct.unpack_from(f"{order}{count}", self._data, start)
        entry = f"{order}HH{offset}"
        at = start + struct.calcsize(f"<{count}")
        for _ in range(min(entries, _MAX_TAGS)):
            tag, kind, values = struct.unpack_from(entry, self._data, at)
            at += struct.calcsize(entry)
            if kind in _CODES and values:
                code = f"{order}{_CODES[kind]}"
                fits = values * struct.calcsize(code) <= width
                place = at if fits else struct.unpack_from(f"{order}{offset}", self._data, at)[0]
                struct.unpack_from(code, self._data, place)
                self._places.setdefault(tag, (place, code))
            at += width
