"""How a predicted label map is written down: as numbers, as a palette picture, over the image.

room.npy            (H, W) uint8, the number of the class
room.png            the same numbers as a PNG with a palette, so that it is also a picture
room_colour.png     the classes' colours over the image
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dpt.predict.colours import class_colours, overlay
from pipelines.prediction.outputs import Form, encode_png


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
    return encode_png(overlay(image, labels)[..., ::-1])


def classes_in_words(labels: NDArray[np.uint8], names: tuple[str, ...], most: int = 5) -> str:
    """The largest classes of a map and their shares: `sky 41%, road 30%, …`."""
    counts = np.bincount(labels.ravel(), minlength=len(names))
    order = [int(index) for index in np.argsort(-counts, kind="stable")[:most] if counts[index]]
    words = [f"{names[index] if names else index} {counts[index] / labels.size:.0%}" for index in order]
    return ", ".join(words)
