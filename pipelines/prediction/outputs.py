"""The files that a prediction is written to: numbers, pictures, a point cloud.

                    of depth                                            of classes
room.npy            (H, W) float32, the model's output                  (H, W) uint8
room.png            16 bits, see `_sixteen_bits`                        classes, with a palette
room_colour.png     inverse depth in a colour map, bright is near       class colours over the image
room.ply            coloured points in space
room_attention.png  attention maps                                      attention maps

PNG files say in their text chunks what wrote them and what their values mean, PLY files the unit.
"""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets_prep.formats.maps import encode_npy
from datasets_prep.formats.pictures import PNG_HEADER_BYTES, encode_png, png_chunk
from datasets_prep.storage.folder import Folder
from dpt.config import ModelConfig
from dpt.predict.colours import class_colours, colourise, overlay
from dpt.predict.depth import inverse_depth_of
from dpt.predict.point_cloud import encode_ply, relative_depth, unproject

Form = Literal["npy", "png", "colour"]
SUFFIXES = {"npy": ".npy", "png": ".png", "colour": "_colour.png"}
POINTS, ATTENTION = ".ply", "_attention.png"
METRIC_PNG_SCALE = 256
SOFTWARE = "dpt predict"
"""What results say that they were written by."""

_MOST = np.iinfo(np.uint16).max


def encode(form: Form, prediction: NDArray[np.float32], model: ModelConfig, colours: str) -> bytes:
    """The file `form` of a depth `prediction` (H, W), the output of a `model` with this config.

    `colours` is a colour map of Matplotlib.
    """
    if form == "npy":
        return encode_npy(prediction)
    if form == "png":
        return described(encode_png(_sixteen_bits(prediction, model), level=None), _scale(prediction, model))
    picture = colourise(inverse_depth_of(prediction, model), colours)
    return described(encode_png(picture, level=None), "inverse depth in colours")


def encode_classes(form: Form, labels: NDArray[np.uint8], image: NDArray[np.uint8]) -> bytes:
    """The file `form` of classes `labels` (H, W) predicted for an `image` (H, W, 3) uint8 RGB."""
    if form == "npy":
        return encode_npy(labels)
    if form == "colour":
        return described(encode_png(overlay(image, labels), level=None), "classes in colours")
    buffer = io.BytesIO()
    picture = Image.fromarray(labels)
    picture.putpalette(class_colours().tobytes())
    picture.save(buffer, "PNG", optimize=True)
    return described(buffer.getvalue(), "indices of classes")


def described(png: bytes, what: str) -> bytes:
    """A `png` that says in text chunks (in Latin-1) `what` its values are, and what wrote it."""
    texts = {"Software": SOFTWARE, "Description": what}
    chunks = [png_chunk(b"tEXt", f"{key}\0{text}".encode("latin-1")) for key, text in texts.items()]
    return png[:PNG_HEADER_BYTES] + b"".join(chunks) + png[PNG_HEADER_BYTES:]


def encode_points(
    prediction: NDArray[np.float32], image: NDArray[np.uint8], model: ModelConfig, field_of_view: float
) -> bytes:
    """A PLY file of the points of a depth `prediction` (H, W), coloured as its `image` (H, W, 3) uint8 RGB.

    They are in metres if the config of the `model` is metric, else relative. `field_of_view` is that of the
    camera, horizontal, in degrees.
    """
    unit = "metre" if model.metric else "depth of the nearest point"
    if not model.metric:
        depth = relative_depth(prediction)
    else:
        inverse = np.maximum(inverse_depth_of(prediction, model), np.finfo(np.float32).tiny)
        depth = np.where(prediction > 0, 1 / inverse, np.nan).astype(np.float32)
    return encode_ply(unproject(depth, field_of_view), image, unit)


def write_file(folder: Folder, name: str, data: bytes) -> None:
    """Write `data` to the file `name` of a `folder`, atomically."""
    with folder.writing(name) as path:
        path.write_bytes(data)


def classes_in_words(labels: NDArray[np.uint8], names: tuple[str, ...], most: int = 5) -> str:
    """The `most` frequent of the classes `names` in `labels` (H, W): `sky 41%, road 30%, …`."""
    counts = np.bincount(labels.ravel(), minlength=len(names))
    order = [int(index) for index in np.argsort(-counts, kind="stable")[:most] if counts[index]]
    words = [f"{names[index] if names else index} {counts[index] / labels.size:.0%}" for index in order]
    return ", ".join(words)


def _sixteen_bits(prediction: NDArray[np.float32], model: ModelConfig) -> NDArray[np.uint16]:
    """256 × depth in metres, as KITTI stores it; inverse depth is stretched linearly over 0 to 65535."""
    if model.predicts_depth:
        return np.round(np.clip(prediction * METRIC_PNG_SCALE, 0, _MOST)).astype(np.uint16)
    low, high = float(prediction.min()), float(prediction.max())
    if high <= low:
        return np.zeros(prediction.shape, np.uint16)
    return np.round((prediction - low) * (_MOST / (high - low))).astype(np.uint16)


def _scale(prediction: NDArray[np.float32], model: ModelConfig) -> str:
    """What the values of `_sixteen_bits` mean, in words."""
    if model.predicts_depth:
        return f"{model.meaning}, times {METRIC_PNG_SCALE}"
    low, high = float(prediction.min()), float(prediction.max())
    return f"{model.meaning}, linear from {low:.6g} at 0 to {high:.6g} at {_MOST}"
