"""Files in the layout of Depth in the Wild; the format's facts are in `sources.diw`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets_prep.formats.pictures import encode_jpeg
from datasets_prep.render.scenes import Scene
from datasets_prep.writers.base import Writer, write_file
from datasets_prep.writers.traps import grey_jpeg, half, write_traps


def _annotation(scene: Scene, seed: int) -> str:
    """Two points of clearly different depth: row before column, counted from 1."""
    rng = np.random.default_rng(seed)
    height, width = scene.depth.shape
    while True:
        (y_a, y_b), (x_a, x_b) = rng.integers(height, size=2), rng.integers(width, size=2)
        a, b = scene.depth[y_a, x_a], scene.depth[y_b, x_b]
        if max(a, b) > 1.1 * min(a, b):
            break
    relation = ">" if a > b else "<"
    return f"{y_a + 1},{x_a + 1},{y_b + 1},{x_b + 1},{relation},{width},{height}"


def _write_views(root: Path, index: int, seed: int, views: list[Scene]) -> None:
    """The photo, and its part of the table, which the lists are made of at the end."""
    path = f"DIW_{('test', 'train_val')[index % 2]}/{index:040x}.thumb"
    write_file(root / path, encode_jpeg(views[0].image))
    write_file(root / f"part_{index:06d}.csv", f"./{path}\n{_annotation(views[0], seed)}\n".encode())


def _write_lists(root: Path, seeds: Sequence[int]) -> None:
    tables: dict[str, list[bytes]] = {"test": [], "train": [], "val": []}
    for index in range(len(seeds)):
        part = root / f"part_{index:06d}.csv"
        tables[("test", "train", "test", "val")[index % 4]].append(part.read_bytes())
        part.unlink()
    for split, lines in tables.items():
        write_file(root / f"DIW_{split}.csv", b"".join(lines))


def _write_traps(root: Path, seed: int, scene: Scene) -> dict[str, str]:
    image, line = encode_jpeg(scene.image), _annotation(scene, seed)
    *points, sign, width, height = line.split(",")
    taller = str(int(height) + 1)
    traps = {
        "missing partner": (None, line),
        "truncated image": (half(image), line),
        "equal points": (image, ",".join([*points, "=", width, height])),
        "point outside": (image, ",".join([taller, *points[1:], sign, width, height])),
        "mismatched size": (image, ",".join([*points, sign, width, taller])),
        "grey image": (grey_jpeg(scene.image), line),
    }
    photos = {what: (photo,) for what, (photo, _) in traps.items()}
    names = write_traps(root, "DIW_test/{what}", ("{id}.thumb",), photos)
    more = [f"./{name}.thumb\r\n{traps[what][1]}\r\n".encode() for name, what in names.items()]
    write_file(root / "DIW_test.csv", b"".join([(root / "DIW_test.csv").read_bytes(), *more]))
    return names


WRITER = Writer(_write_views, _write_traps, _write_lists)
