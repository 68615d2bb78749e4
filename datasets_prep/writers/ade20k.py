"""Files in the layout of SceneParse150; the format's facts are in `sources.ade20k`."""

from functools import partial
from pathlib import Path

import numpy as np

from datasets_prep.formats.pictures import encode_jpeg, encode_png
from datasets_prep.render.scenes import Scene
from datasets_prep.writers.base import Pair, Writer, label_map, write_sample
from datasets_prep.writers.traps import Traps

CLASSES = (3, 13, 10, 5, 17)
"""Of sky, person, grass, tree and mountain, as SceneParse150 numbers them, from 1."""

_VAL_EVERY = 4


def _pair(folder: str) -> Pair:
    image, labels = (f"ADEChallengeData2016/{kind}/{folder}/{{id}}" for kind in ("images", "annotations"))
    return Pair(f"{image}.jpg", encode_jpeg, f"{labels}.png", encode_png, partial(label_map, classes=CLASSES))


def _write_views(root: Path, index: int, seed: int, views: list[Scene]) -> None:
    held_out = index % _VAL_EVERY == _VAL_EVERY - 1
    folder, split = ("validation", "val") if held_out else ("training", "train")
    write_sample(root, f"ADE_{split}_{index + 1:08d}", _pair(folder).files(views[0]))


_UNUSABLE = ("missing partner", "truncated image", "truncated label", "unknown label", "mismatched size")
_UNKNOWN = {"unknown label": lambda scene, labels: np.full_like(labels, 151)}
_DEFECTS = (*_UNUSABLE, "empty label", "grey image")
_TRAPS = Traps("ADE_train_9{number:07d}", _pair("training"), _DEFECTS, maps=_UNKNOWN)
WRITER = Writer(_write_views, _TRAPS, portraits=True)
