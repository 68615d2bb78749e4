"""Files in the layout of BlendedMVS; the format's facts are in `sources.blendedmvs`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.maps import encode_pfm
from datasets_prep.formats.pictures import encode_jpeg
from datasets_prep.render.scenes import Scene
from datasets_prep.writers.base import VIEWS, Pair, Writer, write_file, write_lines, write_sample
from datasets_prep.writers.traps import UNUSABLE, Traps

_IMAGE = "{folder}/blended_images/{stem}.jpg"
_DEPTH = "{folder}/rendered_depth_maps/{stem}.pfm"


def _project(seed: int) -> str:
    return f"{seed:016x}"[:8].rjust(8, "0") + f"{seed:016x}"


def _depth(scene: Scene, scale: float = 1.0) -> NDArray[np.float32]:
    return np.where(scene.sky, 0, scene.depth * np.float32(scale)).astype(np.float32)


def _write_views(root: Path, index: int, seed: int, views: list[Scene]) -> None:
    project = _project(seed)
    scale = float(
        np.exp(np.random.default_rng(seed).uniform(-2, 4))
    )  # units a metre, arbitrary as in real ones
    for number, scene in enumerate(views):
        depth = _depth(scene, scale)
        masked = np.where(scene.sky[..., None], 0, scene.image).astype(np.uint8)
        files = {
            _IMAGE: encode_jpeg(scene.image),
            _IMAGE.replace(".jpg", "_masked.jpg"): encode_jpeg(masked),
            _DEPTH: encode_pfm(depth),
            "{folder}/cams/{stem}_cam.txt": _cam_text(scene, depth, scale).encode(),
        }
        write_sample(root, f"{project}/{number:08d}", files)
    pairs = [f"{VIEWS}"]
    for number in range(VIEWS):
        others = sorted(set(range(VIEWS)) - {number}, key=lambda other: abs(other - number))
        scores = " ".join(f"{other} {1000 / abs(other - number):.3f}" for other in others)
        pairs += [f"{number}", f"{len(others)} {scores}"]
    write_lines(root / project / "cams" / "pair.txt", pairs)


def _cam_text(scene: Scene, depth: NDArray[np.float32], scale: float) -> str:
    """A camera file: extrinsic, intrinsic, then nearest depth, interval, count and farthest depth."""
    extrinsic = scene.world_to_camera.copy()
    extrinsic[:3, 3] *= scale
    rows = {"extrinsic": extrinsic, "intrinsic": scene.intrinsics}
    blocks = []
    for name, matrix in rows.items():
        blocks.append("\n".join([name, *(" ".join(f"{v:.8g}" for v in row) for row in matrix), ""]))
    surface = depth[depth > 0]
    low, high = (float(surface.min()), float(surface.max())) if surface.size else (0.0, 0.0)
    return "\n".join([*blocks, f"{low:.6g} {(high - low) / 127:.6g} 128.0 {high:.6g}", ""])


def _damaged(scene: Scene) -> NDArray[np.float32]:
    """Depth that is NaN in the upper quarter, then one row of infinity: read as pixels without depth."""
    depth = _depth(scene)
    depth[: len(depth) // 4] = np.nan
    depth[len(depth) // 4] = np.inf
    return depth


_PAIR = Pair(_IMAGE, encode_jpeg, _DEPTH, encode_pfm, _damaged)


def _write_traps(root: Path, seed: int, scene: Scene) -> dict[str, str]:
    write_file(root / "traps" / "BlendedMVS_training.txt", f"{_project(seed)}\r\n".encode())
    smaller = {"mismatched size": lambda scene, depth: _depth(scene)[: len(depth) // 2]}
    traps = Traps(f"{_project(seed)}/{{number:08d}}", _PAIR, (*UNUSABLE, "grey image"), maps=smaller)
    return traps(root, seed, scene)


def _write_lists(root: Path, seeds: Sequence[int]) -> None:
    """The authors' two list files, with their Windows line ends; a tenth of the projects is held out."""
    projects = [_project(seed) for seed in seeds]
    held_out = max(1, len(projects) // 10) if len(projects) > 1 else 0
    parts = {"BlendedMVS_training.txt": projects[held_out:], "validation_list.txt": projects[:held_out]}
    for file, names in parts.items():
        write_lines(root / file, names, "\r\n")


WRITER = Writer(
    _write_views, _write_traps, _write_lists, ("plaza", "facade", "facade", "things on a floor"), VIEWS
)
