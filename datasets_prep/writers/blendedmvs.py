"""Generated files in the layout of BlendedMVS; the format's facts are in `sources.blendedmvs`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.maps import encode_pfm
from datasets_prep.formats.pictures import encode_jpeg
from datasets_prep.render.scenes import Scene, render_scene, render_views
from datasets_prep.writers.base import VIEWS, Layout, grey, write_file

KINDS = ("plaza", "things on a floor")


def blendedmvs_scale(seed: int) -> float:
    """The arbitrary unit of a project: how many units a metre has."""
    return float(np.exp(np.random.default_rng(seed).uniform(-2, 4)))


def _project(seed: int) -> str:
    return f"{seed:016x}"[:8].rjust(8, "0") + f"{seed:016x}"


def _write_scene(root: Path, index: int, seed: int, height: int, width: int) -> None:
    project, scale = root / _project(seed), blendedmvs_scale(seed)
    scenes = render_views(seed, VIEWS, height, width, KINDS)
    for number, scene in enumerate(scenes):
        depth = np.where(scene.sky, 0, scene.depth * np.float32(scale)).astype(np.float32)
        masked = np.where(scene.sky[..., None], 0, scene.image).astype(np.uint8)
        write_file(project / "blended_images" / f"{number:08d}.jpg", encode_jpeg(scene.image))
        write_file(project / "blended_images" / f"{number:08d}_masked.jpg", encode_jpeg(masked))
        write_file(project / "rendered_depth_maps" / f"{number:08d}.pfm", encode_pfm(depth))
        write_file(project / "cams" / f"{number:08d}_cam.txt", _cam_text(scene, depth, scale).encode())
    pairs = [f"{len(scenes)}"]
    for number in range(len(scenes)):
        others = sorted(set(range(len(scenes))) - {number}, key=lambda other: abs(other - number))
        scores = " ".join(f"{other} {1000 / abs(other - number):.3f}" for other in others)
        pairs += [f"{number}", f"{len(others)} {scores}"]
    write_file(project / "cams" / "pair.txt", ("\n".join(pairs) + "\n").encode())


def _cam_text(scene: Scene, depth: NDArray[np.float32], scale: float) -> str:
    """A camera file: extrinsic, intrinsic, then nearest depth, interval, count and farthest depth."""
    extrinsic = scene.world_to_camera.copy()
    extrinsic[:3, 3] *= scale
    rows = {"extrinsic": extrinsic, "intrinsic": scene.intrinsics}
    blocks = [
        "\n".join([name, *(" ".join(f"{v:.8g}" for v in row) for row in matrix), ""])
        for name, matrix in rows.items()
    ]
    surface = depth[depth > 0]
    low, high = (float(surface.min()), float(surface.max())) if surface.size else (0.0, 0.0)
    return "\n".join([*blocks, f"{low:.6g} {(high - low) / 127:.6g} 128.0 {high:.6g}", ""])


def _write_traps(root: Path, seed: int, height: int, width: int) -> dict[str, str]:
    project = _project(seed)
    scene = render_scene(seed, height, width, KINDS)
    image, depth = encode_jpeg(scene.image), np.where(scene.sky, 0, scene.depth).astype(np.float32)
    damaged = depth.copy()
    damaged[: height // 4] = np.nan
    damaged[height // 4] = np.inf
    stored = encode_pfm(damaged)
    files = {
        "missing partner": (image, None),
        "truncated image": (image[: len(image) // 2], stored),
        "truncated depth": (image, stored[: len(stored) // 2]),
        "mismatched size": (image, encode_pfm(depth[: height // 2])),
        "empty depth": (image, encode_pfm(np.zeros_like(depth))),
        "grey image": (encode_jpeg(grey(scene.image)), stored),
    }
    traps = {}
    for number, (what, (image, pfm)) in enumerate(files.items()):
        write_file(root / project / "blended_images" / f"{number:08d}.jpg", image)
        if pfm is not None:
            write_file(root / project / "rendered_depth_maps" / f"{number:08d}.pfm", pfm)
        traps[f"{project}/{number:08d}"] = what
    write_file(root / "traps" / "BlendedMVS_training.txt", f"{project}\r\n".encode())
    return traps


def _write_lists(root: Path, seeds: Sequence[int]) -> None:
    """The authors' two list files, with their Windows line ends; a tenth of the projects is held out."""
    projects = [_project(seed) for seed in seeds]
    held_out = max(1, len(projects) // 10) if len(projects) > 1 else 0
    parts = {"BlendedMVS_training.txt": projects[held_out:], "validation_list.txt": projects[:held_out]}
    for file, names in parts.items():
        write_file(root / file, "".join(f"{project}\r\n" for project in names).encode())


LAYOUT = Layout(_write_scene, _write_traps, _write_lists)
