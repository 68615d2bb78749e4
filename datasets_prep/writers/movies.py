"""Stereo films and the tree made of them; the format's facts are in `sources.movies`.

Each scene is a chapter of a film, `videos/<film>/chapter<N>.mkv`: a shot, a cut to one without depth, a cut
to a third. The tree of its clips, with their exact disparity, is written too, so the folder can be ingested
at once; `dpt stereo movies --videos …/videos` makes such a tree from the videos alone.
"""

from functools import partial
from pathlib import Path

from datasets_prep.stereo.shot_cuts import clips_of_shot
from datasets_prep.writers.base import write_file, write_sample
from datasets_prep.writers.stereo_video import (
    FRAMES_A_SECOND,
    FRAMES_A_SHOT,
    StereoFrame,
    StereoWriter,
    encode_video,
    side_by_side,
    tree_files,
    write_tree_traps,
)

FILMS = ("battle", "exodus", "hugo", "pina", "wolf", "xmen", "gatsby", "streetdance")
"""Six for training, one each for validation and testing."""

_SHRINK = 2
_FRAMES_A_CLIP = {"gatsby": 1, "streetdance": 1}  # of the films for validation and testing; the others have 4


def _write_video(root: Path, index: int, seed: int, frames: list[StereoFrame]) -> None:
    film = FILMS[index % len(FILMS)]
    chapter = f"{film}/chapter{index // len(FILMS) + 1}"
    video = encode_video([side_by_side(frame) for frame in frames])
    write_file(root / "videos" / f"{chapter}.mkv", video)
    for start in (0, 2 * FRAMES_A_SHOT):
        per_clip = _FRAMES_A_CLIP.get(film, 4)
        for clip in clips_of_shot(start, start + FRAMES_A_SHOT, FRAMES_A_SECOND, per_clip):
            for number in clip:
                write_sample(root, f"{chapter}/out{number + 1:08d}", tree_files(frames[number], _SHRINK))


WRITER = StereoWriter(
    _write_video,
    partial(write_tree_traps, clip="nurse/chapter1"),
    kinds=("street", "room", "hall", "things on a floor"),
    shots=3,
)
