"""Generated files in the layout of TartanAir V1; the format's facts are in `sources.tartanair`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.maps import encode_npy
from datasets_prep.formats.pictures import encode_png
from datasets_prep.render.scenes import Scene, render_scene, render_views
from datasets_prep.sources.tartanair import SEGMENTATION_OF_DOME
from datasets_prep.writers.base import VIEWS, Layout, with_alpha, write_file

_SKY_METRES = 10000.0
KINDS = ("countryside", "street")


def tartanair_depth(scene: Scene) -> NDArray[np.float32]:
    """(H, W) float32 metres as TartanAir stores them: every value fits half precision, sky is 10,000."""
    metres = np.where(scene.sky, np.float32(_SKY_METRES), scene.depth)
    return metres.astype(np.float16).astype(np.float32)


def _write_scene(root: Path, index: int, seed: int, height: int, width: int) -> None:
    environment, difficulty = f"rendered{index:03d}", ("Easy", "Hard")[index % 2]
    # The archives unpack to a doubled environment folder.
    trajectory = root / environment / environment / difficulty / f"P{index // 2 % 2:03d}"
    scenes = render_views(seed, VIEWS, height, width, KINDS)
    for number, scene in enumerate(scenes):
        _write_frame(trajectory, number, scene)
    poses = [" ".join(f"{value:.6f}" for value in _ned_pose(scene)) for scene in scenes]
    write_file(trajectory / "pose_left.txt", ("\n".join(poses) + "\n").encode())


def _write_frame(trajectory: Path, number: int, scene: Scene) -> None:
    labels = np.where(scene.sky, SEGMENTATION_OF_DOME, 1).astype(np.uint8)
    write_file(trajectory / "image_left" / f"{number:06d}_left.png", encode_png(scene.image))
    write_file(trajectory / "depth_left" / f"{number:06d}_left_depth.npy", encode_npy(tartanair_depth(scene)))
    write_file(trajectory / "seg_left" / f"{number:06d}_left_seg.npy", encode_npy(labels))


def _ned_pose(scene: Scene) -> list[float]:
    """Position and unit quaternion (x, y, z, w) of the camera in a frame of north, east, down."""
    to_world = scene.world_to_camera[:3, :3].T
    position = -to_world @ scene.world_to_camera[:3, 3]
    flip = np.diag([1.0, -1.0, -1.0])
    # Columns: forward, right, down of the camera.
    rotation = flip @ to_world[:, [2, 0, 1]]
    return [*(flip @ position), *_quaternion(rotation)]


def _quaternion(rotation: NDArray[np.float64]) -> list[float]:
    """Unit quaternion (x, y, z, w) of a rotation: the largest eigenvector of its symmetric form."""
    r = rotation
    form = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0], r[2, 1] - r[1, 2]],
            [r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], r[1, 2] + r[2, 1], r[0, 2] - r[2, 0]],
            [r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1], r[1, 0] - r[0, 1]],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], np.trace(r)],
        ]
    )
    vector = np.linalg.eigh(form)[1][:, -1]
    return [float(v) for v in vector * (1 if vector[3] >= 0 else -1)]


def _write_traps(root: Path, seed: int, height: int, width: int) -> dict[str, str]:
    trajectory = root / "traps" / "traps" / "Hard" / "P000"
    scene = render_scene(seed, height, width, KINDS)
    image, metres = encode_png(scene.image), tartanair_depth(scene)
    stored = encode_npy(metres)
    files = {
        "missing partner": (image, None),
        "truncated image": (image[: len(image) // 2], stored),
        "truncated depth": (image, stored[: len(stored) // 2]),
        "mismatched size": (image, encode_npy(metres[: height // 2])),
        "empty depth": (image, encode_npy(np.zeros_like(metres))),
        "RGBA image": (encode_png(with_alpha(scene.image)), stored),
    }
    traps = {}
    for number, (what, (image, npy)) in enumerate(files.items()):
        write_file(trajectory / "image_left" / f"{number:06d}_left.png", image)
        if npy is not None:
            write_file(trajectory / "depth_left" / f"{number:06d}_left_depth.npy", npy)
        traps[f"traps/Hard/P000/{number:06d}"] = what
    return traps


LAYOUT = Layout(_write_scene, _write_traps)
