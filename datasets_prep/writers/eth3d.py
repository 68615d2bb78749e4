"""Generated files in the layout of ETH3D; the format's facts are in `sources.eth3d`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.pictures import encode_jpeg
from datasets_prep.render.scenes import Scene, render_scene, render_views
from datasets_prep.writers.base import VIEWS, Layout, grey, write_file


def eth3d_map(scene: Scene) -> NDArray[np.float32]:
    """(H, W) float32 metres at two thirds of the pixels, as a laser would hit them; infinity elsewhere."""
    rows, columns = np.indices(scene.depth.shape)
    return np.where((rows + 2 * columns) % 3 == 0, np.float32(np.inf), scene.depth)


def _encode(values: NDArray[np.float32]) -> bytes:
    return values.astype("<f4").tobytes()


def _write_photo(root: Path, scene_name: str, name: str, image: bytes, depth: bytes | None) -> None:
    write_file(root / scene_name / "images" / "dslr_images" / f"{name}.JPG", image)
    if depth is not None:
        write_file(root / scene_name / "ground_truth_depth" / "dslr_images" / f"{name}.JPG", depth)


def _write_scene(root: Path, index: int, seed: int, height: int, width: int) -> None:
    for number, scene in enumerate(render_views(seed, VIEWS, height, width)):
        image, depth = encode_jpeg(scene.image), _encode(eth3d_map(scene))
        _write_photo(root, f"rendered_{index}", f"DSC_{number:04d}", image, depth)


def _write_traps(root: Path, seed: int, height: int, width: int) -> dict[str, str]:
    scene = render_scene(seed, height, width)
    image, depth = encode_jpeg(scene.image), _encode(eth3d_map(scene))
    files = {
        "missing partner": (image, None),
        "truncated image": (image[: len(image) // 2], depth),
        "truncated depth": (image, depth[: len(depth) // 2]),
        "empty depth": (image, _encode(np.full_like(scene.depth, np.inf))),
        "grey image": (encode_jpeg(grey(scene.image)), depth),
    }
    traps = {}
    for number, (what, (picture, stored)) in enumerate(files.items()):
        _write_photo(root, "traps", f"DSC_{number:04d}", picture, stored)
        traps[f"traps/DSC_{number:04d}"] = what
    return traps


LAYOUT = Layout(_write_scene, _write_traps)
