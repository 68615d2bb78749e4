"""List files and settings made to hurt: paths that lead outside, bytes that are no text, no end."""

import re

from tests.fuzz.hostile_pictures import Variant

SECRET = "../outside/secret"
"""Where a list must not lead: files beside the dataset's folder; the campaign puts some there."""


def _paths(replacement: bytes) -> Variant:
    """Every word that looks like a path (or a name with a number) replaced, its line's other words kept."""
    return lambda data: re.sub(rb"[^\s,]*[/_][^\s,]*", replacement.replace(b"\\", b"\\\\"), data)


TEXT_LIGHT: dict[str, Variant] = {
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "CR": lambda data: data.replace(b"\n", b"\r"),
    "byte-order mark": lambda data: b"\xef\xbb\xbf" + data,
    "UTF-16": lambda data: data.decode("latin-1").encode("utf-16"),
    "Latin-1": lambda data: data.replace(b"\n", b"\xe4\xf6\n"),
    "blanks and tabs": lambda data: data.replace(b"\n", b" \t\n\n"),
    "nothing": lambda _: b"",
    "zero bytes": lambda data: data.replace(b" ", b"\0").replace(b"/", b"\0"),
    "path upwards": _paths(SECRET.encode() + b".png"),
    "path upwards by way of a folder": lambda data: re.sub(rb"/", b"/../../outside/", data),
    "absolute path": _paths(b"/etc/passwd"),
    "path upwards, backslashes": _paths(b"..\\outside\\secret.png"),
    "address": _paths(b"file:///etc/passwd"),
    "other address": _paths(b"s3://bucket/key"),
    "path of 100,000 steps": _paths(b"a/" * 100_000),
    "numbers of 5,000 digits": lambda data: re.sub(rb"\d+", b"9" * 5000, data),
    "other digits": lambda data: re.sub(rb"\d", "٣".encode(), data),
    "every line twice": lambda data: data + b"\n" + data,
    "deep": lambda _: b"[" * 100_000,
    "deep mapping": lambda _: b'{"a":' * 100_000,
    "laughs": lambda _: (
        b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(
            b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % (c, c, *[c - 1] * 8) for c in range(98, 110)
        )
    ),
    "code": lambda data: b"!!python/object/apply:os.system ['touch \"$FUZZ_CANARY\"']\n" + data,
}
TEXT_HEAVY: dict[str, Variant] = {
    "one line of 20 MB": lambda data: data.replace(b"\n", b" ") * (20_000_000 // max(1, len(data))),
    "500,000 lines": lambda data: data + b"\n" + b"a/b/c_1 2 l\n" * 500_000,
    "eight million lines": lambda data: data + b"\n" + b"ab\n" * 8_000_000,
}
