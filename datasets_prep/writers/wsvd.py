"""Generated web videos, their lists and their tree; the format's facts are in `sources.wsvd`.

Each scene is a video, `videos/<id>.mp4`, squeezed side by side: a clip, a cut, a clip without depth. The
lists of clips are the authors' pickles, and name a video that is gone as well.
"""

from __future__ import annotations

import base64
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets_prep.writers.base import Layout, write_file
from datasets_prep.writers.stereo_video import (
    FRAMES_A_SHOT,
    StereoFrame,
    encode_video,
    flat_shot,
    half_side_by_side,
    render_shot,
    tree_files,
    write_tree_files,
    write_tree_traps,
)

KINDS = ("street", "countryside", "plaza", "room")
GONE = "_gone-video"
"""An id of the lists whose video is not there."""

_TEST_EVERY = 4
_CLIPS = (range(3, 19, 3), range(FRAMES_A_SHOT + 3, FRAMES_A_SHOT + 12, 3))
_TRAPS = "-traps_12345/clip0001"


def video_name(seed: int) -> str:
    """The YouTube id of a scene; every other one starts with a dash, as some do."""
    digits = base64.urlsafe_b64encode(seed.to_bytes(8, "little")).decode()[:10]
    return ("-" if seed % 2 else "_") + digits


def video_shots(seed: int, height: int, width: int) -> list[list[StereoFrame]]:
    """The shots of a video; the second has no depth."""
    size = (FRAMES_A_SHOT, height, width, KINDS)
    return [render_shot(seed, *size), flat_shot(seed + 1, *size)]


def _write_scene(root: Path, index: int, seed: int, height: int, width: int) -> None:
    frames = [frame for shot in video_shots(seed, height, width) for frame in shot]
    # A downloader's suffix on some, as users have them.
    suffix = ".f136" if index % 3 == 1 else ""
    video = encode_video([half_side_by_side(frame) for frame in frames], "mp4")
    write_file(root / "videos" / f"{video_name(seed)}{suffix}.mp4", video)
    for number in _CLIPS[0]:
        name = f"{video_name(seed)}/clip0001/out{number + 1:08d}"
        write_tree_files(root, name, tree_files(frames[number], 1))


def _write_traps(root: Path, seed: int, height: int, width: int) -> dict[str, str]:
    write_file(root / "lists" / "traps" / "train.txt", f"{_TRAPS.split('/')[0]}\n".encode())
    return write_tree_traps(root, _TRAPS, render_shot(seed, 1, height, width, KINDS)[0], 1)


def _write_lists(root: Path, seeds: Sequence[int]) -> None:
    names: dict[str, list[str]] = {"train": [GONE], "test": []}
    for index, seed in enumerate(seeds):
        names["test" if index % _TEST_EVERY == _TEST_EVERY - 1 else "train"].append(video_name(seed))
    for split, found in names.items():
        write_file(root / "lists" / f"{split}.txt", "".join(f"{name}\n" for name in sorted(found)).encode())
        content = pickle.dumps([_clip_list(name) for name in found], protocol=3)
        write_file(root / "lists" / f"wsvd_{split}_clip_frame_ids.pkl", content)


def _clip_list(name: str) -> dict[str, Any]:
    clips = [{"frames": np.array(clip, np.int32), "label": np.int32(1)} for clip in _CLIPS]
    # Ids in the lists carry the downloader's format now and then.
    return {"name": f"{name}.f247" if name == GONE else name, "clips": clips}


LAYOUT = Layout(_write_scene, _write_traps, _write_lists)
