"""Files in the layout of KITTI; the format's facts are in `sources.kitti`."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.pictures import encode_png
from datasets_prep.render.scenes import Scene
from datasets_prep.writers.base import VIEWS, Pair, Writer, fixed_point, write_file, write_sample
from datasets_prep.writers.traps import UNUSABLE, Traps

_DATE = "2011_09_26"


def _drive(index: int) -> str:
    return f"{_DATE}_drive_{index:04d}_sync"


_TRAPS_DRIVE = _drive(9999)


def _depth(scene: Scene) -> NDArray[np.uint16]:
    """Metres times 256 on every third row of the lower part, as of a laser; 0 elsewhere and beyond 90 m."""
    stored = fixed_point(scene, 256, 90)
    rows = np.arange(stored.shape[0])
    stored[(rows % 3 != 0) | (rows < stored.shape[0] / 3)] = 0
    return stored


def _pair(split: str) -> Pair:
    image = f"raw/{_DATE}/{{folder}}/data/{{stem}}.png"
    depth = f"depth/{split}/{{parts[0]}}/proj_depth/groundtruth/{{parts[1]}}/{{stem}}.png"
    return Pair(image, encode_png, depth, encode_png, _depth)


def _write_views(root: Path, index: int, seed: int, views: list[Scene]) -> None:
    pair = _pair("val" if index % 3 == 1 else "train")
    for number, scene in enumerate(views):
        files: dict[str, bytes | None] = {**pair.files(scene)}
        if number == 0:  # the first and last frames of the real drives have no depth; here the first
            files[pair.target] = None
        write_sample(root, f"{_drive(index)}/image_0{2 + number % 2}/{number:010d}", files)


def _write_lists(root: Path, seeds: Sequence[int]) -> None:
    """An Eigen list of some frames of the first drives, with unpadded numbers and one frame without depth."""
    frames = itertools.product(range(min(2, len(seeds))), (0, 2, 3))
    lines = [f"{_DATE}/{_drive(index)} {number} {'lr'[number % 2]}" for index, number in frames]
    write_file(root / "eigen_test_files.txt", "\n".join(lines).encode())


_PAIR = _pair("val")
_TRAPS = Traps(_TRAPS_DRIVE + "/image_02/{number:010d}", _PAIR, (*UNUSABLE[1:], "RGBA image"))


def _write_traps(root: Path, seed: int, scene: Scene) -> dict[str, str]:
    """With an image that is missing, not a map: depth of a drive whose images were not downloaded.

    A list names all of them, so that every set made from the list meets them.
    """
    missing = f"{_TRAPS_DRIVE}/image_03/{77:010d}"
    write_sample(root, missing, {_PAIR.target: encode_png(_depth(scene))})
    lines = [f"{_DATE}/{_TRAPS_DRIVE} {number:010d} l" for number in range(len(_TRAPS.defects))]
    write_file(root / "more_test_files.txt", "\n".join([*lines, f"{_DATE}/{_TRAPS_DRIVE} 77 r"]).encode())
    return {**_TRAPS(root, seed, scene), missing: "missing partner"}


WRITER = Writer(_write_views, _write_traps, _write_lists, ("street from a car",), VIEWS)
