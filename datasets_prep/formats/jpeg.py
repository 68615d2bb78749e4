"""JPEG files as cameras and careless writers leave them → the same picture for every decoder, losslessly.

A JPEG is a row of segments, `FF kind length content`, in which compressed data follow each scan's header;
there FF is always followed by 00, or by D0 to D7.
"""

import re
from collections.abc import Iterator

_SEGMENT = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_SCAN, _END, _EXIF_OR_XMP = 0xDA, 0xD9, 0xE1
_WITHOUT_LENGTH = (0x01, 0xD8)
_MOST_STRAY = 8
"""More bytes that belong to no segment are damage: the shortest segment that decides the colours has 14."""


def plain_versions(data: bytes) -> Iterator[bytes]:
    """The JPEG `data` without metadata that turn it, and repaired; the first that decodes cleanly is right.

    Both are without Exif and XMP, whose orientation some decoders apply, and without a few stray bytes
    between the segments before the first scan. The second is also without a few such bytes between later
    segments, and without zeros that pad a scan's data. (Only decoding tells these from data.)
    """
    yield b"".join(_plain(data, repair_scans=False))
    yield b"".join(_plain(data, repair_scans=True))


def _plain(data: bytes, repair_scans: bool) -> Iterator[bytes]:
    """What is kept of a JPEG, piece by piece; all that follows where its segments cannot be followed."""
    yield data[:2]
    position, in_scan = 2, False
    while repair_scans or not in_scan:
        found = _SEGMENT.search(data, position)
        if found is None:
            break
        between = data[position : found.start()]
        if in_scan:
            padded = between.rstrip(b"\0")
            yield padded if len(between) - len(padded) <= _MOST_STRAY else between
        elif len(between) > _MOST_STRAY:
            break
        position, end, kind = found.start(), found.end(), found[1][0]
        if kind == _END:
            break
        if kind not in _WITHOUT_LENGTH:
            end += int.from_bytes(data[end : end + 2], "big")
        if kind != _EXIF_OR_XMP:
            yield data[position:end]
        position, in_scan = end, kind == _SCAN
    yield data[position:]
