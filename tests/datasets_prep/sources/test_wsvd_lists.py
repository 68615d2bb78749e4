"""WSVD's pickles: the published form is read, everything else is refused, nothing is ever run."""

import io
import os
import pickle
from typing import Any

import numpy as np
import pytest

from datasets_prep.sources.wsvd_lists import BadClipList, VideoClips, read_clips, video_id

RAN: list[str] = []


def note(what: str) -> None:
    RAN.append(what)


class Hostile:
    """Pickles to a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def published(name: str = "-a_B3", frames: Any = None) -> list[dict[str, Any]]:
    clip = np.arange(5, 35, dtype=np.int32) if frames is None else frames
    return [{"name": name, "clips": [{"frames": clip, "label": np.int32(1)}]}]


@pytest.mark.parametrize("protocol", [3, 4])
def test_the_published_form_is_read(protocol):
    videos = [*published(), {"name": "x.f247", "clips": []}]
    found = read_clips(pickle.dumps(videos, protocol), "list.pkl")
    assert found == [VideoClips("-a_B3", [list(range(5, 35))]), VideoClips("x", [])]


@pytest.mark.parametrize("dtype", ["<i4", ">i4", "<i8", "<u2", ">u8", "i1"])
def test_any_integers_are_read_in_their_byte_order(dtype):
    frames = np.array([3, 100, 7], dtype)
    [video] = read_clips(pickle.dumps(published(frames=frames), 3), "list.pkl")
    assert video.clips == [[3, 100, 7]]


def test_numpys_older_module_names_are_read():
    data = pickle.dumps(published(), 3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert read_clips(data, "list.pkl")[0].clips == [list(range(5, 35))]


def test_plain_lists_of_numbers_are_read():
    assert read_clips(pickle.dumps(published(frames=[1, 2]), 3), "list.pkl")[0].clips == [[1, 2]]


@pytest.mark.parametrize("hostile", [
    Hostile(os.system, "exit 1"),
    Hostile(note, "ran"),
    Hostile(eval, "RAN.append(1)"),
    Hostile(getattr, "text", "upper"),
    Hostile(np.load, "x.npy"),
    Hostile(bytearray, 10),
    Hostile(np.dtype, "i4"),
], ids=["system", "function", "eval", "getattr", "numpy", "builtin", "dtype for a list"])  # fmt: skip
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_hostile_pickles_are_refused_and_never_run(hostile, protocol):
    RAN.clear()
    for content in (hostile, [hostile], [{"name": "a", "clips": hostile}], published(frames=hostile)):
        with pytest.raises(BadClipList, match=r"^list\.pkl"):
            read_clips(pickle.dumps(content, protocol), "list.pkl")
    assert RAN == []


def test_the_refusal_names_what_was_wanted():
    with pytest.raises(
        BadClipList, match=r"list\.pkl is not a list of clips: it names builtins\.eval, which is not"
    ):
        read_clips(pickle.dumps([Hostile(eval, "1")], 4), "list.pkl")


@pytest.mark.parametrize("program", [
    b"cnumpy\nndarray\n(I1\ntR.",  # an array's class, called
    b"cnumpy\ndtype\n}b.",  # a name whose state is changed
    b"\x80\x02cnumpy\ndtype\n)\x81.",  # made without being called
    b"(cposix\nsystem\nX\x04\x00\x00\x00exito.",  # OBJ
    b"(X\x04\x00\x00\x00exitiposix\nsystem\n.",  # INST
    b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x0f.",  # a bytearray of 2^60 bytes
    b"\x80\x02X\xff\xff\xff\x7fshort.",  # a text of 2 GB that is not there
    b"\x80\x03]r\xff\xff\xff\xffh\x00.",  # memory for 2^32 notes
    b"\x80\x02\x82\x01.",  # a class by its registered number
    b"Pid\n.",  # a persistent object
    b"\x80\x03" + b"(" * 100_000,
    b".",
    b"",
])  # fmt: skip
def test_programs_that_no_list_needs_are_refused(program):
    with pytest.raises(BadClipList, match=r"^list\.pkl"):
        read_clips(program, "list.pkl")


@pytest.mark.parametrize(("content", "problem"), [
    ({"a": 1}, "expected a list of videos, got dict"),
    ([1], "expected a dict for each video, got int"),
    ([{}], "expected a YouTube id as name, got NoneType"),
    (published("../../etc/passwd"), "expected a YouTube id as name, got '../../etc/passwd'"),
    (published("a/b"), "expected a YouTube id as name"),
    ([{"name": "a"}], "expected a list as clips of a"),
    (published(frames=["1"]), "expected an array of integers as frames of -a_B3"),
    (published(frames=np.zeros(3, np.float32)), "expected integers as frames"),
    (published(frames=np.array(["a", "b"])), "expected integers as frames"),
    (published(frames=np.array([None])), "expected integers as frames"),
    (published(frames=np.zeros((2, 2), np.int32)), "expected a one-dimensional array"),
    (published(frames=np.array([4, -1])), "expected frame numbers from 0 on for -a_B3, got -1"),
])  # fmt: skip
def test_other_contents_are_refused_by_name(content, problem):
    with pytest.raises(BadClipList, match="is not a list of clips") as caught:
        read_clips(pickle.dumps(content, 3), "list.pkl")
    assert problem in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_array_that_promises_more_than_it_holds_is_refused():
    data = pickle.dumps(published(), 3)
    shape = b"K\x1e\x85"  # (30,)
    assert data.count(shape) == 1
    with pytest.raises(BadClipList, match="as many bytes as its shape says"):
        read_clips(data.replace(shape, b"K\x1f\x85"), "list.pkl")


def test_a_small_pickle_that_names_a_list_many_times_is_refused(monkeypatch):
    monkeypatch.setattr("datasets_prep.sources.wsvd_lists.MAX_FRAMES", 10_000)
    clip = {"frames": list(range(100)), "label": 1}
    data = pickle.dumps([{"name": "a", "clips": [clip] * 200}] * 200, 3)
    assert len(data) < 20_000
    with pytest.raises(BadClipList, match="it names more than 10000 frames"):
        read_clips(data, "list.pkl")


def test_mutations_are_read_or_refused():
    RAN.clear()
    data = pickle.dumps(published() * 2, 3)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        damaged = bytearray(data)
        for _ in range(rng.integers(1, 5)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        content = (
            bytes(damaged[: rng.integers(1, len(damaged) + 1)]) if rng.random() < 0.3 else bytes(damaged)
        )
        try:
            found = read_clips(content, "list.pkl")
        except BadClipList:
            continue
        assert all(isinstance(video, VideoClips) for video in found)
    assert RAN == []


def test_the_hostile_pickles_of_these_tests_do_run_in_pythons_own_reader():
    """Else the tests above would prove nothing."""
    RAN.clear()
    pickle.load(io.BytesIO(pickle.dumps([Hostile(note, "ran")], 3)))
    assert RAN == ["ran"]


def test_names_of_videos():
    assert video_id("-a_B3.f136") == "-a_B3"
    assert video_id("_x") == "_x"
    assert [video_id(name) for name in ("", "a b", "a/b", "..", "é", "a.mp4", "a" * 65)] == [None] * 7
