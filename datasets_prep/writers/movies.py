"""Generated stereo films and the tree that comes of them; the format's facts are in `sources.movies`.

Each scene is a chapter of a film, `videos/<film>/chapter<N>.mkv`: a shot, a cut to one without depth, a cut
to a third. What the exact disparity of its clips looks like in the tree is there too, so the folder can be
prepared at once, and `dpt stereo movies --videos …/videos` makes such a tree from the videos alone.
"""

from __future__ import annotations

from pathlib import Path

from datasets_prep.stereo.shot_cuts import clips_of_shot
from datasets_prep.writers.base import Layout, write_file
from datasets_prep.writers.stereo_video import (
    FRAMES_A_SECOND,
    FRAMES_A_SHOT,
    StereoFrame,
    encode_video,
    flat_shot,
    render_shot,
    side_by_side,
    tree_files,
    write_tree_files,
    write_tree_traps,
)

KINDS = ("street", "room", "hall", "things on a floor")
FILMS = ("battle", "exodus", "hugo", "pina", "wolf", "xmen", "gatsby", "streetdance")
"""Six for training, one each for validation and testing."""

SHRINK = 2
_RATES = {"gatsby": 1, "streetdance": 1}
_TRAPS = "nurse/chapter1"


def chapter_of(index: int) -> str:
    """Film and chapter of a scene, as in the names of its frames."""
    return f"{FILMS[index % len(FILMS)]}/chapter{index // len(FILMS) + 1}"


def chapter_shots(seed: int, height: int, width: int) -> list[list[StereoFrame]]:
    """The shots of a chapter; the second has no depth."""
    size = (FRAMES_A_SHOT, height, width, KINDS)
    return [render_shot(seed, *size), flat_shot(seed + 1, *size), render_shot(seed + 2, *size)]


def _write_scene(root: Path, index: int, seed: int, height: int, width: int) -> None:
    chapter, shots = chapter_of(index), chapter_shots(seed, height, width)
    frames = [frame for shot in shots for frame in shot]
    video = encode_video([side_by_side(frame) for frame in frames])
    write_file(root / "videos" / f"{chapter}.mkv", video)
    rate = _RATES.get(chapter.split("/")[0], 4)
    for shot in (0, 2):
        start = shot * FRAMES_A_SHOT
        for clip in clips_of_shot(start, start + FRAMES_A_SHOT, FRAMES_A_SECOND, rate):
            for number in clip:
                name = f"{chapter}/out{number + 1:08d}"
                write_tree_files(root, name, tree_files(frames[number], SHRINK))


def _write_traps(root: Path, seed: int, height: int, width: int) -> dict[str, str]:
    return write_tree_traps(root, _TRAPS, render_shot(seed, 1, height, width, KINDS)[0], 1)


LAYOUT = Layout(_write_scene, _write_traps)
