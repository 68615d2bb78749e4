"""`dpt predict`: images of any size → inverse depth as numbers and as pictures.

For `room.jpg` there will be `room.npy` (float32, as the model gives it), `room.png` (16 bits, that image's
range stretched over 0 to 65535, larger is nearer) and `room_colour.png`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

import dpt
from datasets_prep.errors import NotFound, UserError
from datasets_prep.storage import Folder
from dpt.predict import colourise, predict_inverse_depth
from pipelines import tracking
from pipelines.config import ConfigError, PredictConfig

_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}


class BadImage(UserError):
    """A file that is no readable image; the message names it."""


def find_model(reference: str) -> Path:
    """The local folder of a model: a registry address (`models:/dpt@champion`) or a path.

    Raises:
        TrackingError, NotFound: if there is none.
    """
    if reference.startswith(tracking.MODEL_SCHEME):
        return tracking.fetch_model(reference)
    folder = Path(reference)
    if not (folder / "config.json").is_file() or not (folder / "weights.safetensors").is_file():
        raise NotFound(
            f"no model at {reference}: expected a folder with config.json and weights.safetensors, "
            f"or a registered one as {tracking.MODEL_SCHEME}NAME@ALIAS"
        )
    return folder


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Image files, given those or folders of them.

    Raises:
        NotFound: if a path does not exist, or a folder has no image.
        BadImage: if two files would write the same results.
    """
    images: list[Path] = []
    for path in paths:
        if not path.exists():
            raise NotFound(f"no such image: {path}")
        inside = (
            sorted(p for p in path.iterdir() if p.suffix.lower() in _IMAGE_SUFFIXES)
            if path.is_dir()
            else [path]
        )
        if not inside:
            raise NotFound(f"no image in folder {path} (looked for {', '.join(sorted(_IMAGE_SUFFIXES))})")
        images += inside
    names = Counter(image.stem for image in images)
    doubled = [name for name, count in names.items() if count > 1]
    if doubled:
        raise BadImage(
            f"{names[doubled[0]]} images are called {doubled[0]!r}: their results would overwrite each other"
        )
    return images


def predict(
    config: PredictConfig, model: Path, images: Sequence[Path], out: str
) -> Iterator[tuple[Path, str | None]]:
    """Predict images one by one and write the results into a folder.

    Yields:
        each image, with the reason if it could not be read.
    """
    device = resolve_device(config.device)
    network = dpt.load_model(model).to(device).eval()
    folder = Folder(out)
    for path in images:
        try:
            image = read_image(path)
        except BadImage as error:
            yield path, str(error)
            continue
        write_prediction(folder, path.stem, predict_inverse_depth(network, image, config.side, config.rule))
        yield path, None


def resolve_device(device: str) -> torch.device:
    """The device of this process for `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: if a GPU is demanded and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda is asked for, but this machine has no GPU that PyTorch can use")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file as a person sees it (EXIF orientation applied): (H, W, 3) uint8 RGB.

    Raises:
        BadImage: naming the file.
    """
    decoded = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) if path.stat().st_size else None
    if decoded is None:
        raise BadImage(f"{path} is no readable image")
    return np.ascontiguousarray(decoded[..., ::-1], dtype=np.uint8)


def write_prediction(folder: Folder, name: str, inverse_depth: NDArray[np.float32]) -> None:
    """Write a prediction's three files, each whole or not at all."""
    with folder.writing(f"{name}.npy") as path, path.open("wb") as file:
        np.save(file, inverse_depth, allow_pickle=False)
    low, high = float(inverse_depth.min()), float(inverse_depth.max())
    stretched = (inverse_depth - low) * (65535 / (high - low)) if high > low else np.zeros_like(inverse_depth)
    _write_png(folder, f"{name}.png", np.round(stretched).astype(np.uint16))
    _write_png(folder, f"{name}_colour.png", colourise(inverse_depth)[..., ::-1])


def _write_png(folder: Folder, name: str, picture: NDArray[np.uint16] | NDArray[np.uint8]) -> None:
    _, data = cv2.imencode(".png", picture)
    with folder.writing(name) as path:
        path.write_bytes(data.tobytes())
