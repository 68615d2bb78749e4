"""How a prediction is written down: as numbers, as pictures, as a point cloud.

room.npy            (H, W) float32, as the model gives it
room.png            16 bits: inverse depth stretched over 0 to 65535, larger is nearer; of models that
                    predict metres, 256 times the depth, as KITTI stores it
room_colour.png     inverse depth in a colour map, bright is near
room.ply            coloured points in space
room_attention.png  attention maps
"""

from __future__ import annotations

import io
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets_prep.formats.pictures import encode_png
from datasets_prep.storage.folder import Folder
from dpt.config import ModelConfig
from dpt.predict.colours import class_colours, colourise, overlay
from dpt.predict.depth import inverse_depth_of
from dpt.predict.point_cloud import encode_ply, relative_depth, unproject

Form = Literal["npy", "png", "colour"]
FORMS: tuple[Form, ...] = get_args(Form)
SUFFIXES = {"npy": ".npy", "png": ".png", "colour": "_colour.png"}
POINTS, ATTENTION = ".ply", "_attention.png"
METRIC_PNG_SCALE = 256
_MOST = np.iinfo(np.uint16).max


def encode(form: Form, prediction: NDArray[np.float32], model: ModelConfig, colours: str) -> bytes:
    """The bytes of one of the three files of a (H, W) float32 prediction."""
    if form == "npy":
        buffer = io.BytesIO()
        np.save(buffer, prediction, allow_pickle=False)
        return buffer.getvalue()
    if form == "png":
        return encode_png(_sixteen_bits(prediction, model), level=None)
    return encode_png(colourise(inverse_depth_of(prediction, model), colours), level=None)


def encode_points(
    prediction: NDArray[np.float32], image: NDArray[np.uint8], model: ModelConfig, field_of_view: float
) -> bytes:
    """A PLY file of the points that a camera of this horizontal field of view (degrees) sees.

    In metres where the model is metric, else in units of the nearest point.
    """
    if not model.metric:
        depth = relative_depth(prediction)
    else:
        inverse = np.maximum(inverse_depth_of(prediction, model), np.finfo(np.float32).tiny)
        depth = np.where(prediction > 0, 1 / inverse, np.nan).astype(np.float32)
    return encode_ply(unproject(depth, field_of_view), image)


def write_prediction(
    folder: Folder, name: str, prediction: NDArray[np.float32], model: ModelConfig, colours: str = "inferno"
) -> None:
    """Write a prediction's three files, each whole or not at all."""
    for form in FORMS:
        write_result(folder, name + SUFFIXES[form], encode(form, prediction, model, colours))


def write_result(folder: Folder, name: str, data: bytes) -> None:
    """Write one file, whole or not at all."""
    with folder.writing(name) as path:
        path.write_bytes(data)


def _sixteen_bits(prediction: NDArray[np.float32], model: ModelConfig) -> NDArray[np.uint16]:
    if model.predicts_depth:
        return np.round(np.clip(prediction * METRIC_PNG_SCALE, 0, _MOST)).astype(np.uint16)
    low, high = float(prediction.min()), float(prediction.max())
    if high <= low:
        return np.zeros(prediction.shape, np.uint16)
    return np.round((prediction - low) * (_MOST / (high - low))).astype(np.uint16)


def encode_classes(form: Form, labels: NDArray[np.uint8], image: NDArray[np.uint8]) -> bytes:
    """The bytes of one of the three files of (H, W) uint8 classes, predicted for an (H, W, 3) RGB image."""
    buffer = io.BytesIO()
    if form == "npy":
        np.save(buffer, labels, allow_pickle=False)
        return buffer.getvalue()
    if form == "png":
        picture = Image.fromarray(labels)
        picture.putpalette(class_colours().tobytes())
        picture.save(buffer, "PNG", optimize=True)
        return buffer.getvalue()
    return encode_png(overlay(image, labels), level=None)


def classes_in_words(labels: NDArray[np.uint8], names: tuple[str, ...], most: int = 5) -> str:
    """The largest classes of a map and their shares: `sky 41%, road 30%, …`."""
    counts = np.bincount(labels.ravel(), minlength=len(names))
    order = [int(index) for index in np.argsort(-counts, kind="stable")[:most] if counts[index]]
    words = [f"{names[index] if names else index} {counts[index] / labels.size:.0%}" for index in order]
    return ", ".join(words)
