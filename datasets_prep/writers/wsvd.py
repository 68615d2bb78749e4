"""Web videos, their lists and their tree; the format's facts are in `sources.wsvd`.

Each scene is a video, `videos/<id>.mp4`, squeezed side by side: a clip, a cut, a clip without depth. The
lists of clips are the authors' pickles, and also name a video that does not exist.
"""

import base64
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets_prep.writers.base import write_file, write_lines, write_sample
from datasets_prep.writers.stereo_video import (
    FRAMES_A_SHOT,
    StereoFrame,
    StereoWriter,
    encode_video,
    half_side_by_side,
    tree_files,
    write_tree_traps,
)

_GONE = "_gone-video"  # an id of the lists whose video does not exist
_TEST_EVERY = 4
_CLIPS = (range(3, 19, 3), range(FRAMES_A_SHOT + 3, FRAMES_A_SHOT + 12, 3))
_TRAPS = "-traps_12345"


def _video_name(seed: int) -> str:
    """The YouTube id of a scene; every other one starts with a dash, as real ones may."""
    digits = base64.urlsafe_b64encode(seed.to_bytes(8, "little")).decode()[:10]
    return ("-" if seed % 2 else "_") + digits


def _write_video(root: Path, index: int, seed: int, frames: list[StereoFrame]) -> None:
    # Every third has the suffix that the downloader adds for some formats.
    suffix = ".f136" if index % 3 == 1 else ""
    video = encode_video([half_side_by_side(frame) for frame in frames], "mp4")
    write_file(root / "videos" / f"{_video_name(seed)}{suffix}.mp4", video)
    for number in _CLIPS[0]:
        write_sample(root, f"{_video_name(seed)}/clip0001/out{number + 1:08d}", tree_files(frames[number], 1))


def _write_traps(root: Path, frame: StereoFrame) -> dict[str, str]:
    write_lines(root / "lists" / "traps" / "train.txt", [_TRAPS])
    return write_tree_traps(root, frame, f"{_TRAPS}/clip0001")


def _write_lists(root: Path, seeds: Sequence[int]) -> None:
    names: dict[str, list[str]] = {"train": [_GONE], "test": []}
    for index, seed in enumerate(seeds):
        names["test" if index % _TEST_EVERY == _TEST_EVERY - 1 else "train"].append(_video_name(seed))
    for split, found in names.items():
        write_lines(root / "lists" / f"{split}.txt", sorted(found))
        content = []
        for name in found:
            clips = [{"frames": np.array(clip, np.int32), "label": np.int32(1)} for clip in _CLIPS]
            # Some ids in the lists carry the suffix of the downloader's format.
            content.append({"name": f"{name}.f247" if name == _GONE else name, "clips": clips})
        write_file(root / "lists" / f"wsvd_{split}_clip_frame_ids.pkl", pickle.dumps(content, protocol=3))


WRITER = StereoWriter(
    _write_video, _write_traps, kinds=("street", "countryside", "plaza", "room"), shots=2, lists=_write_lists
)
