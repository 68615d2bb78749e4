"""Pickles made to hurt, in the place of lists: they call, they share without end, they ask for memory."""

import pickle
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.fuzz.hostile_maps import CANARY_VARIABLE, Payload, always
from tests.fuzz.hostile_pictures import Variant


class _Calls:
    """Unpickles to a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._reduced = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduced


def _call(text: str) -> bytes:
    """Protocol 0, by hand: a name and a string, called."""
    module, name, argument = text.split(" ", 2)
    return f"c{module}\n{name}\n(V{argument}\ntR.".encode()


_TOUCH = f'touch "${CANARY_VARIABLE}"'
_PYTHON = f"open(__import__('os').environ['{CANARY_VARIABLE}'],'w')"


def _billions() -> bytes:
    """A list of nine lists of nine lists …: a hundred bytes that unfold to billions of entries."""
    parts = [b"\x80\x02]q\x00(" + b"X\x01\x00\x00\x00a" * 9 + b"e"]
    parts += [b"0]q%c(" % level + b"h%c" % (level - 1) * 9 + b"e" for level in range(1, 12)]
    return b"".join(parts) + b"."


def _shared_clips(clips: int, frames: int) -> bytes:
    """A list of clips, each of them the same large array, named again and again."""
    clip = {"frames": np.arange(frames, dtype=np.int32), "label": 1}
    return pickle.dumps([{"name": "abcdefghijk", "clips": [clip] * clips}], protocol=4)


def _clips(name: str, *clips: dict[str, Any]) -> bytes:
    return pickle.dumps([{"name": name, "clips": list(clips)}], protocol=3)


PICKLE_LIGHT: dict[str, Variant] = {
    "os.system": always(pickle.dumps([Payload()])),
    "os.system, protocol 0": always(_call(f"os system {_TOUCH}")),
    "posix.system": always(_call(f"posix system {_TOUCH}")),
    "eval": always(_call(f"builtins eval {_PYTHON}")),
    "exec, Python 2": always(_call(f"__builtin__ eval {_PYTHON}")),
    "subprocess": always(_call(f"subprocess getoutput {_TOUCH}")),
    "NumPy's own runner": always(_call(f"numpy.testing._private.utils runstring {_PYTHON}")),
    "attribute of an allowed module": always(_call(f"numpy core.multiarray.os.system {_TOUCH}")),
    "instance": always(f"(V{_TOUCH}\nios\nsystem\n.".encode()),
    "object": always(b"\x80\x02cos\nsystem\n(V" + _TOUCH.encode() + b"\nt\x81."),
    "by registered code": always(b"\x80\x02\x82\x01."),
    "behind an honest list": lambda data: data[:-1] + pickle.dumps(Payload())[2:],
    "array of objects": always(pickle.dumps([{"name": "a", "clips": np.array([Payload()], object)}])),
    "reads a file": always(_call("builtins open /etc/passwd")),
    "import of a module": always(b"\x80\x02cantigravity\nfly\n."),
    "array with a file for its buffer": always(pickle.dumps(_Calls(np.memmap, "/etc/passwd"))),
    "persistent": always(b"\x80\x02P1\n."),
    "memo of 200 million places": always(b"\x80\x02]r" + struct.pack("<I", 200_000_000) + b"."),
    "memo of four billion places": always(b"\x80\x02]r" + struct.pack("<I", 2**32 - 1) + b"."),
    "frame of 8 EiB": always(b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f]."),
    "text of 8 EiB": always(b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f."),
    "bytes of 4 GiB": always(b"\x80\x03B\xff\xff\xff\xff."),
    "number of 2 GiB": always(b"\x80\x02\x8b\xff\xff\xff\x7f."),
    "deep": always(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
    "billions of entries": always(_billions()),
    "a list in itself": always(b"\x80\x02]q\x00h\x00a."),
    "a set": always(pickle.dumps({1, 2})),
    "numbers": always(pickle.dumps(list(range(1000)))),
    "bytes": always(pickle.dumps([b"a/b", b"c/d"])),
    "nothing": always(pickle.dumps(None)),
    "empty": always(pickle.dumps([])),
    "frames of a float array": always(_clips("abcdefghijk", {"frames": np.ones(3)})),
    "frames beyond any video": always(_clips("abcdefghijk", {"frames": np.array([2**62])})),
    "name that is a path": always(_clips("../../outside/secret")),
    "ends early": lambda data: data[: len(data) // 2],
}
PICKLE_HEAVY: dict[str, Variant] = {
    "one clip, a million times": lambda _: _shared_clips(1_000_000, 1000),
    "one large clip, many times": lambda _: _shared_clips(10_000, 1_000_000),
    "a million texts of a megabyte": lambda _: pickle.dumps(["x" * 2**20] * 1_000_000, protocol=4),
}
