"""WSVD's lists of clips, pickles of strangers: read by `datasets_prep.formats.pickles`, which runs nothing.

The authors publish `wsvd_{train,test}_clip_frame_ids.pkl`: a list of videos, each a dict with the YouTube id
as `name` and `clips`, a list of dicts with `frames` (int32 array of frame numbers) and `label`. The few names
that a NumPy array needs become inert records; every other name ends the reading.
"""

import math
import pickle
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from datasets_prep.errors import UserError
from datasets_prep.formats.pickles import Record, load_inert

MAX_LIST_BYTES = 128 * 2**20
"""The largest published list has 60 MB."""

MAX_FRAMES = 10_000_000
"""A list that names more frames is refused; the published ones name about 1.5 million."""

_FORMAT_SUFFIX = re.compile(r"\.f\d+$")
_VIDEO_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

_NAMES = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): "reconstruct" for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): "scalar" for core in ("core", "_core")},
    **{("numpy", name): name for name in ("ndarray", "dtype")},
}


class BadClipList(UserError):
    """A list of clips that cannot be used; the message names the file and what was expected."""


@dataclass(frozen=True, slots=True)
class VideoClips:
    """The clips of one video: its YouTube id as `name`, and the frame numbers of each of its `clips`."""

    name: str
    clips: list[list[int]]


def video_id(name: str) -> str | None:
    """The YouTube id in `name`, an entry of a list or a file's stem; None if it is not an id.

    Some carry the downloader's format: `abc.f136`.
    """
    stem = _FORMAT_SUFFIX.sub("", name)
    return stem if _VIDEO_ID.fullmatch(stem) else None


def read_clips(data: bytes, where: str) -> list[VideoClips]:
    """Read a list of clips from the content `data` of a pickle; `where` is its path, for errors.

    Raises BadClipList if it is damaged, asks to run anything, or holds something else.
    """
    try:
        videos = load_inert(data, _NAMES)
    except pickle.UnpicklingError as error:
        raise BadClipList(f"{where} is not a list of clips: {error}") from error
    except Exception as error:  # a damaged pickle fails in as many ways as there are instructions
        raise BadClipList(f"{where} is not a list of clips: {type(error).__name__} while reading") from error
    try:
        found, left = [], MAX_FRAMES
        for video in _expect(list, videos, "a list of videos"):
            found.append(_video(video, left))
            left -= sum(map(len, found[-1].clips))
    except BadClipList as error:
        raise BadClipList(f"{where} is not a list of clips: {error}") from error
    return found


def _video(video: Any, frames_left: int) -> VideoClips:
    fields = _expect(dict, video, "a dict for each video")
    name = video_id(_expect(str, fields.get("name"), "a YouTube id as name"))
    if name is None:
        raise BadClipList(f"expected a YouTube id as name, got {fields['name'][:80]!r}")
    clips = []
    for clip in _expect(list, fields.get("clips"), f"a list as clips of {name}"):
        clips.append(_frames(_expect(dict, clip, "a dict for each clip"), name))
        # Counted while reading: a pickle of a few bytes can name the same array many times.
        frames_left -= len(clips[-1])
        if frames_left < 0:
            raise BadClipList(f"it names more than {MAX_FRAMES} frames")
    return VideoClips(name, clips)


def _frames(clip: dict[Any, Any], name: str) -> list[int]:
    frames = clip.get("frames")
    numbers = _array(frames) if isinstance(frames, Record) else frames
    if not isinstance(numbers, list) or any(type(number) is not int for number in numbers):
        raise BadClipList(f"expected an array of integers as frames of {name}")
    if numbers and min(numbers) < 0:
        raise BadClipList(f"expected frame numbers from 0 on for {name}, got {min(numbers)}")
    return numbers


def _array(record: Record) -> list[int]:
    """The numbers of a recorded one-dimensional integer array: its state is NumPy's, of version 1."""
    state = record.state
    if record.what != "reconstruct" or not isinstance(state, tuple) or len(state) != 5:
        raise BadClipList("expected an array of integers as frames")
    _, shape, dtype, _, content = state
    code = _integer_code(dtype)
    length = math.prod(shape) if isinstance(shape, tuple) and len(shape) == 1 else -1
    if not isinstance(content, bytes) or len(content) != length * np.dtype(code).itemsize:
        raise BadClipList("expected a one-dimensional array of as many bytes as its shape says")
    return [int(number) for number in np.frombuffer(content, code)]


def _integer_code(dtype: Any) -> str:
    """NumPy's code of a recorded integer type, with its byte order."""
    code = dtype.arguments[0] if isinstance(dtype, Record) and dtype.arguments else None
    if not isinstance(code, str) or not re.fullmatch(r"[iu][1248]", code):
        raise BadClipList(f"expected integers as frames, got {code!r:.40}")
    state = dtype.state
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "<"
    return (">" if order == ">" else "<") + code


def _expect(kind: type, value: Any, what: str) -> Any:
    if not isinstance(value, kind):
        raise BadClipList(f"expected {what}, got {type(value).__name__}")
    return value
