"""Files in the layouts of DIML, indoor and outdoor; the format's facts are in `sources.diml`.

Every fourth scene is written as the sample set has it, the others as the full set.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.pictures import encode_png
from datasets_prep.render.scenes import Scene
from datasets_prep.writers.base import Pair, Writer, fixed_point, write_sample
from datasets_prep.writers.traps import UNUSABLE, Traps, half, write_traps

_SAMPLE_SET_EVERY = 4
_STEREO = tuple(f"{{folder}}/{kind}/{{stem}}_{kind}.png" for kind in ("left", "depth", "conf"))
_IMAGE = "{folder}/col/{stem}_c.png"
_DEPTH = "{folder}/up_png/{stem}_ud.png"


def _millimetres(scene: Scene) -> NDArray[np.uint16]:
    """As DIML stores depth: 0 where there is nothing or it is too far away."""
    return fixed_point(scene, 1000, 65.5)


def _write_indoor(root: Path, index: int, seed: int, views: list[Scene]) -> None:
    stem = f"in_k_{index % 3:02d}_170101_{index:06d}"
    image, depth = encode_png(views[0].image), encode_png(_millimetres(views[0]))
    if index % _SAMPLE_SET_EVERY == _SAMPLE_SET_EVERY - 1:
        split = "test" if index % (2 * _SAMPLE_SET_EVERY) == _SAMPLE_SET_EVERY - 1 else "train"
        files = {"{folder}/color/{stem}_c.png": image, "{folder}/depth_filled/{stem}_depth_filled.png": depth}
        write_sample(root, f"indoor/{split}/HR/rendered_room/{stem}", files)
        return
    # What follows the stem differs between the real folders.
    files = {_IMAGE: image, _DEPTH.replace("_ud", ("_ud", "_up_depth")[index % 2]): depth}
    write_sample(root, f"{index + 1}. Rendered Room/170101/1/{stem}", files)


def _confidence(scene: Scene) -> NDArray[np.uint8]:
    """(H, W) uint8: certain where depth is smooth, doubtful at its edges."""
    inverse = 1 / scene.depth
    step = np.abs(np.diff(inverse, axis=1, append=inverse[:, -1:]))
    return np.where(step < 0.02 * inverse.max(), 230, 90).astype(np.uint8)


def _write_outdoor(root: Path, index: int, seed: int, views: list[Scene]) -> None:
    [scene] = views
    image, depth = encode_png(scene.image), encode_png(_millimetres(scene))
    if index % _SAMPLE_SET_EVERY == _SAMPLE_SET_EVERY - 1:
        files = {"{folder}/outleft/{stem}.png": image, "{folder}/depthmap/{stem}.png": depth}
        write_sample(root, f"outdoor/train/HR/rendered/{index:06d}", files)
        return
    contents = (image, depth, encode_png(_confidence(scene)))
    write_sample(root, f"170721_C{index}/A/170721_{index:06d}", dict(zip(_STEREO, contents, strict=True)))


def _write_outdoor_traps(root: Path, seed: int, scene: Scene) -> dict[str, str]:
    confidence = _confidence(scene)
    image, depth, sure = encode_png(scene.image), encode_png(_millimetres(scene)), encode_png(confidence)
    contents = {
        "missing partner": (image, None, sure),
        "truncated image": (half(image), depth, sure),
        "truncated depth": (image, half(depth), sure),
        "empty depth": (image, depth, encode_png(np.zeros_like(confidence))),
    }
    return write_traps(root, "170101_C9/A/{what}", _STEREO, contents)


_PAIR = Pair(_IMAGE, encode_png, _DEPTH, encode_png, _millimetres)
_INDOOR_TRAPS = Traps("99. Traps/170101/1/{what}", _PAIR, (*UNUSABLE, "grey image", "RGBA image"))
INDOOR = Writer(_write_indoor, _INDOOR_TRAPS, kinds=("room", "hall"))
OUTDOOR = Writer(_write_outdoor, _write_outdoor_traps, kinds=("street", "countryside", "plaza"))
