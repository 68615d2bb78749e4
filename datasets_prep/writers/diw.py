"""Generated files in the layout of Depth in the Wild; the format's facts are in `sources.diw`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets_prep.formats.pictures import encode_jpeg
from datasets_prep.render.scenes import Scene, render_scene
from datasets_prep.writers.base import Layout, grey, write_file


def diw_line(scene: Scene, seed: int) -> str:
    """The annotation of two points whose depths differ clearly: row before column, counted from 1."""
    rng = np.random.default_rng(seed)
    height, width = scene.depth.shape
    while True:
        (y_a, y_b), (x_a, x_b) = rng.integers(height, size=2), rng.integers(width, size=2)
        a, b = scene.depth[y_a, x_a], scene.depth[y_b, x_b]
        if max(a, b) > 1.1 * min(a, b):
            break
    relation = ">" if a > b else "<"
    return f"{y_a + 1},{x_a + 1},{y_b + 1},{x_b + 1},{relation},{width},{height}"


def _path(index: int) -> str:
    return f"DIW_{('test', 'train_val')[index % 2]}/{index:040x}.thumb"


def _write_scene(root: Path, index: int, seed: int, height: int, width: int) -> None:
    """The photo, and its part of the table, which the lists are made of at the end."""
    scene = render_scene(seed, height, width)
    write_file(root / _path(index), encode_jpeg(scene.image))
    write_file(root / f"part_{index:06d}.csv", f"./{_path(index)}\n{diw_line(scene, seed)}\n".encode())


def _write_lists(root: Path, seeds: Sequence[int]) -> None:
    tables: dict[str, list[bytes]] = {"test": [], "train": [], "val": []}
    for index in range(len(seeds)):
        part = root / f"part_{index:06d}.csv"
        tables[("test", "train", "test", "val")[index % 4]].append(part.read_bytes())
        part.unlink()
    for split, lines in tables.items():
        write_file(root / f"DIW_{split}.csv", b"".join(lines))


def _write_traps(root: Path, seed: int, height: int, width: int) -> dict[str, str]:
    scene = render_scene(seed, height, width)
    image, line = encode_jpeg(scene.image), diw_line(scene, seed)
    *numbers, sign, _, _ = line.split(",")
    size = f"{width},{height}"
    files = {
        "missing partner": (None, line),
        "truncated image": (image[: len(image) // 2], line),
        "equal points": (image, ",".join([*numbers, "=", size])),
        "point outside": (image, ",".join([str(height + 1), *numbers[1:], sign, size])),
        "mismatched size": (image, ",".join([*numbers, sign, f"{width},{height + 1}"])),
        "grey image": (encode_jpeg(grey(scene.image)), line),
    }
    traps, lines = {}, []
    for what, (picture, annotation) in files.items():
        name = f"DIW_test/{what.replace(' ', '_')}"
        if picture is not None:
            write_file(root / f"{name}.thumb", picture)
        lines.append(f"./{name}.thumb\r\n{annotation}\r\n")
        traps[name] = what
    with (root / "DIW_test.csv").open("ab") as table:
        table.write("".join(lines).encode())
    return traps


LAYOUT = Layout(_write_scene, _write_traps, _write_lists)
