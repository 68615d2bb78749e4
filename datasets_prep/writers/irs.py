"""Files in the layout of IRS; the format's facts are in `sources.irs`."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.maps import encode_exr
from datasets_prep.formats.pictures import encode_png
from datasets_prep.render.scenes import Scene
from datasets_prep.sources.irs import METRE_PIXELS
from datasets_prep.writers.base import VIEWS, Pair, Writer, write_file, write_lines, write_sample
from datasets_prep.writers.traps import UNUSABLE, Traps

_PLACES = ("Home", "Office", "Restaurant", "Store")
_COLUMNS = (("l", "png"), ("r", "png"), ("d", "exr"), ("n", "exr"))
_IMAGE = "{folder}/l_{stem}.png"
_DEPTH = "{folder}/d_{stem}.exr"
_TRAPS_FOLDER = "Restaurant/Traps_NightFall"


def _disparity(scene: Scene) -> NDArray[np.float32]:
    """(H, W) float32 disparity in pixels of the real cameras."""
    return (np.float32(METRE_PIXELS) / scene.depth).astype(np.float32)


def _scene_folder(index: int) -> str:
    return f"{_PLACES[index % 4]}/Rendered{index:03d}"


def _number(index: int, view: int) -> str:
    """Unpadded in some scenes, five digits in others."""
    return str(view * 7 + 1) if index % 2 else f"{view * 7 + 1:05d}"


def _write_views(root: Path, index: int, seed: int, views: list[Scene]) -> None:
    # The channel of a file with one is called G; files with three hold the map three times.
    channels = ("G",) if index % 3 else ("R", "G", "B")
    for view, scene in enumerate(views):
        depth = encode_exr(dict.fromkeys(channels, _disparity(scene)))
        name = f"IRSDataset/{_scene_folder(index)}/{_number(index, view)}"
        write_sample(root, name, {_IMAGE: encode_png(scene.image), _DEPTH: depth})


def _write_lists(root: Path, seeds: Sequence[int]) -> None:
    """The first list has the folder's name in front and a tab at the end, the second is plain."""
    lines: dict[str, list[str]] = {"IRSDataset_TRAIN.list": [], "irs_test.list": []}
    for index, view in itertools.product(range(len(seeds)), range(VIEWS)):
        number, folder = _number(index, view), _scene_folder(index)
        names = [f"{folder}/{kind}_{number}.{suffix}" for kind, suffix in _COLUMNS]
        if index % 8 == 7:
            lines["irs_test.list"].append(" ".join(names))
        else:
            lines["IRSDataset_TRAIN.list"].append(" ".join(f"IRSDataset/{name}" for name in names) + "\t")
    for name, rows in lines.items():
        write_lines(root / name, rows)


_PAIR = Pair(_IMAGE, encode_png, _DEPTH, lambda disparity: encode_exr({"G": disparity}), _disparity)
_TRAPS = Traps(_TRAPS_FOLDER + "/{number:05d}", _PAIR, (*UNUSABLE, "RGBA image"))


def _write_traps(root: Path, seed: int, scene: Scene) -> dict[str, str]:
    """With a list that names all of them."""
    lines = [f"{_TRAPS_FOLDER}/l_{number}.png" for number in range(len(_TRAPS.defects))]
    write_file(root / "traps_train.list", "\n".join(lines).encode())
    return _TRAPS(root, seed, scene)


WRITER = Writer(_write_views, _write_traps, _write_lists, ("room", "hall"), VIEWS)
