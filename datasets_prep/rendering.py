"""Rendering datasets on Ray Data: a row is a scene, so that every core of the cluster renders.

A scene is a function of its dataset, number and seed alone: the files are the same for any number of
workers, and a task that dies is run again.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import ray

from datasets_prep.synthetic import write_lists, write_scene

_SCENES_A_TASK = 8
"""One to two seconds of rendering at 384 by 512 pixels."""


def rendering_datasets(
    datasets: Mapping[str, tuple[Path, int]], seed: int = 0, height: int = 384, width: int = 512
) -> Iterator[int]:
    """Write published datasets in miniature, as `synthetic.writing_dataset`; Ray must be running.

    Yields the number of scenes that are written.

    Args:
        datasets: key of `WRITERS` → the dataset's root, which all machines must share, and number of scenes.
        seed: as in `write_dataset`.
        height: of the images in pixels.
        width: of the images in pixels.
    """
    settings = {"seed": seed, "height": height, "width": width}
    rows = [
        {"name": name, "root": str(root), "index": index, **settings}
        for name, (root, scenes) in datasets.items()
        for index in range(scenes)
    ]
    yield 0
    scenes_done = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // _SCENES_A_TASK)).map(render)
    for number, _ in enumerate(scenes_done.iter_rows(), start=1):
        yield number
    for name, (root, scenes) in datasets.items():
        write_lists(name, root, scenes, seed)


def render(row: dict[str, Any]) -> dict[str, Any]:
    """Write one scene: `row` has the arguments of `synthetic.write_scene`; returns its `index`."""
    cv2.setNumThreads(1)
    write_scene(**{**row, "root": Path(row["root"])})
    return {"index": row["index"]}
