"""The reader of strangers' pickles, and Python's private interpreter that it is built on.

What hostile and damaged pickles come to is tested where they are read: `sources/test_wsvd_lists.py` and
`plan/test_split_lists.py`.
"""

import io
import pickle
import pickletools
from typing import ClassVar

import pytest

from datasets_prep.formats import pickles
from datasets_prep.formats.pickles import Record, load_inert


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_come_back(protocol):
    plain = [{"a": [1, 2.5, None, True, 10**40], 7: ("x", "é", ())}, "text" * 100, [[]], (1, 2, 3, 4)]
    assert load_inert(pickle.dumps(plain, protocol)) == plain


def test_texts_of_python_2_are_latin_1():
    assert load_inert(b"(lp0\nS'caf\xe9'\np1\na.") == ["café"]
    assert load_inert(b"\x80\x02]U\x04caf\xe9a.") == ["café"]


def test_a_listed_name_becomes_a_record_of_its_call():
    names = {("os", "system"): "run"}
    assert load_inert(b"cos\nsystem\n(S'exit 1'\ntR}b.", names) == Record("run", ("exit 1",), {})
    with pytest.raises(pickle.UnpicklingError, match=r"^it names os\.system, which is not allowed$"):
        load_inert(b"cos\nsystem\n(S'exit 1'\ntR.")


def test_pythons_interpreter_is_the_one_that_was_read():
    """Fails when `pickle._Unpickler` moves: the methods that `_InertUnpickler` overrides must be called."""
    private = pickle._Unpickler
    assert pickles._InertUnpickler.__mro__[1] is private
    assert private.dispatch[pickle.REDUCE[0]] is private.load_reduce
    assert private.dispatch[pickle.BUILD[0]] is private.load_build
    codes = {ord(op.code) for op in pickletools.opcodes}
    assert set(pickles._InertUnpickler.dispatch) < codes
    seen = []

    class Watched(pickle._Unpickler):
        def find_class(self, module: str, name: str) -> object:
            seen.append((module, name))
            return "class"

        def noted(self) -> None:
            seen.append(list(self.stack))

        dispatch: ClassVar = {**private.dispatch, pickle.NONE[0]: noted}

    Watched(io.BytesIO(b"ca\nb\nN."), encoding="latin-1").load()
    assert seen == [("a", "b"), ["class"]]
