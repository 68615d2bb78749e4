"""Generated files in the layout of IRS; the format's facts are in `sources.irs`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.maps import encode_exr
from datasets_prep.formats.pictures import encode_png
from datasets_prep.render.scenes import Scene, render_scene, render_views
from datasets_prep.sources.irs import METRE_PIXELS
from datasets_prep.writers.base import VIEWS, Layout, with_alpha, write_file

KINDS = ("room", "hall")
_PLACES = ("Home", "Office", "Restaurant", "Store")
_COLUMNS = (("l", "png"), ("r", "png"), ("d", "exr"), ("n", "exr"))


def irs_map(scene: Scene) -> NDArray[np.float32]:
    """(H, W) float32 disparity in pixels of the real cameras."""
    return (np.float32(METRE_PIXELS) / scene.depth).astype(np.float32)


def _scene_folder(index: int) -> str:
    return f"{_PLACES[index % 4]}/Rendered{index:03d}"


def _number(index: int, view: int) -> str:
    """Unpadded in some scenes, five digits in others."""
    return str(view * 7 + 1) if index % 2 else f"{view * 7 + 1:05d}"


def _write_scene(root: Path, index: int, seed: int, height: int, width: int) -> None:
    for view, scene in enumerate(render_views(seed, VIEWS, height, width, KINDS)):
        number = _number(index, view)
        place = root / "IRSDataset" / _scene_folder(index)
        write_file(place / f"l_{number}.png", encode_png(scene.image))
        # A file of one channel calls it G; those of several hold the map three times.
        names = ("G",) if index % 3 else ("R", "G", "B")
        write_file(place / f"d_{number}.exr", encode_exr(dict.fromkeys(names, irs_map(scene))))


def _write_lists(root: Path, seeds: Sequence[int]) -> None:
    """The first list has the folder's name in front and a tab at the end, the second is plain."""
    lines: dict[str, list[str]] = {"IRSDataset_TRAIN.list": [], "irs_test.list": []}
    for index in range(len(seeds)):
        held_out = index % 8 == 7
        for view in range(VIEWS):
            number, folder = _number(index, view), _scene_folder(index)
            names = [f"{folder}/{kind}_{number}.{suffix}" for kind, suffix in _COLUMNS]
            if held_out:
                lines["irs_test.list"].append(" ".join(names) + "\n")
            else:
                prefixed = " ".join(f"IRSDataset/{name}" for name in names)
                lines["IRSDataset_TRAIN.list"].append(prefixed + "\t\n")
    for name, rows in lines.items():
        write_file(root / name, "".join(rows).encode())


def _write_traps(root: Path, seed: int, height: int, width: int) -> dict[str, str]:
    scene = render_scene(seed, height, width, KINDS)
    image, disparity = encode_png(scene.image), irs_map(scene)
    depth = encode_exr({"G": disparity})
    files = {
        "missing partner": (image, None),
        "truncated image": (image[: len(image) // 2], depth),
        "truncated depth": (image, depth[: len(depth) // 2]),
        "mismatched size": (image, encode_exr({"G": disparity[: height // 2]})),
        "empty depth": (image, encode_exr({"G": np.zeros_like(disparity)})),
        "RGBA image": (encode_png(with_alpha(scene.image)), depth),
    }
    traps = {}
    for number, (what, (picture, exr)) in enumerate(files.items()):
        place = root / "Restaurant" / "Traps_NightFall"
        write_file(place / f"l_{number:05d}.png", picture)
        if exr is not None:
            write_file(place / f"d_{number:05d}.exr", exr)
        traps[f"Restaurant/Traps_NightFall/{number:05d}"] = what
    lines = [f"Restaurant/Traps_NightFall/l_{number}.png" for number in range(len(files))]
    write_file(root / "traps_train.list", "\n".join(lines).encode())
    return traps


LAYOUT = Layout(_write_scene, _write_traps, _write_lists)
