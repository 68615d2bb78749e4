"""Pickles of strangers, read without importing or calling anything that they name.

A pickle is a program. This reader executes only the instructions that build lists, dicts and plain values.
A name is refused, or becomes an inert record if the caller lists it: calling it or giving it a state only
notes arguments and state. No callable, not even NumPy's, is ever called with data of the file.

The only user of the private `pickle._Unpickler`, read from Python 3.11's `pickle.py`: it executes
`dispatch[code](self)` per instruction and keeps its values in `stack`. (The interpreter in C cannot be
restricted to some instructions, and allocates as many memo slots as the file says, up to four billion.)
"""

import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

_INSTRUCTIONS = (
    "PROTO FRAME STOP MARK POP POP_MARK DUP EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT DICT SETITEM "
    "SETITEMS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 "
    "LONG LONG1 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE "
    "BINUNICODE8 BINBYTES SHORT_BINBYTES GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL "
    "STACK_GLOBAL REDUCE BUILD"
)


@dataclass(frozen=True, slots=True)
class _Name:
    """A name that the pickle looked up, as the caller calls it."""

    what: str


@dataclass(slots=True)
class Record:
    """A call that the pickle asked for and that was not made.

    `what` is the caller's word for the name that is called with `arguments`, `state` what the result was to
    be given, or None.
    """

    what: str
    arguments: tuple[Any, ...]
    state: Any = None


def load_inert(data: bytes, names: Mapping[tuple[str, str], str] | None = None) -> Any:
    """The value of the pickle `data` of any protocol; texts of Python 2 are decoded as Latin-1.

    `names` maps (module, name) to the caller's word for it; a call of one of these becomes a `Record`. Raises
    pickle.UnpicklingError if it names anything else, or has an instruction that is not needed; and any other
    exception that a damaged pickle runs into.
    """
    return _InertUnpickler(data, names or {}).load()


class _InertUnpickler(pickle._Unpickler):
    stack: list[Any]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        code: pickle._Unpickler.dispatch[code]
        for code in (getattr(pickle, name)[0] for name in _INSTRUCTIONS.split())
    }

    def __init__(self, data: bytes, names: Mapping[tuple[str, str], str]) -> None:
        super().__init__(io.BytesIO(data), encoding="latin-1")
        self._names = names

    def load(self) -> Any:
        try:
            return super().load()
        except KeyError as error:
            raise pickle.UnpicklingError(f"it has the instruction {error}, which is not allowed") from error

    def find_class(self, module: str, name: str) -> _Name:
        if (module, name) not in self._names:
            wanted = f"{module}.{name}".encode("unicode_escape").decode()
            raise pickle.UnpicklingError(f"it names {wanted:.80}, which is not allowed")
        return _Name(self._names[module, name])

    def _record_call(self) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("it calls something that is not allowed")
        self.stack.append(Record(name.what, arguments))

    def _record_state(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], Record):
            raise pickle.UnpicklingError("it changes something that is not allowed")
        self.stack[-1].state = state

    dispatch[pickle.REDUCE[0]] = _record_call
    dispatch[pickle.BUILD[0]] = _record_state
