"""`dpt predict`: images and videos of any size → depth as numbers, pictures, point clouds, attention maps.

Models of segmentation give classes instead. Images that go through the network at one size are predicted
together. What cannot be read is reported, and the rest go on. What is written for each image is told by
`pipelines.prediction.outputs` and `pipelines.prediction.outputs`; of a video `clip.mp4` it is
`clip_colour.mp4`, and of its frames, on request, what is written for images, in `clip/`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray

import dpt
from datasets_prep.errors import UserError
from datasets_prep.storage.folder import Folder
from dpt.predict.attention import check_layers
from dpt.predict.classes import predict_classes
from dpt.predict.colours import colourise, display_range, overlay
from dpt.predict.depth import input_size, inverse_depth_of, predict_batch
from pipelines.cluster.session import resolve_device
from pipelines.config import ConfigError, InferenceSection, PredictConfig
from pipelines.evaluation.segmentation import require_size_fits
from pipelines.loading.batches import SameSizeBatches
from pipelines.prediction.attention_figure import attention_figure
from pipelines.prediction.inputs import Input, find_inputs
from pipelines.prediction.outputs import (
    ATTENTION,
    POINTS,
    SUFFIXES,
    Form,
    classes_in_words,
    encode,
    encode_classes,
    encode_png,
    encode_points,
    write_result,
)
from pipelines.prediction.video import BadVideo, Frame, read_frames, writing_video
from pipelines.tracking.model_reference import BadModel

STANDARD_OUTPUT = "-"
VIDEO = "_colour.mp4"
_WAITING = 4
"""Batches' worth of images that wait for others of their size before one goes on incomplete."""
_STEADINESS = 0.9
"""Share of a video's colour range that stays from frame to frame, lest it flickers."""

Image = NDArray[np.uint8]
Prediction = NDArray[Any]
"""(H, W): float32 depth or inverse depth, or uint8 classes."""


class BadImage(UserError):
    """A file that is no readable image; the message names it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an input: the files that were written and what is in them, or the problem."""

    source: Input
    written: tuple[str, ...] = ()
    problem: str | None = None
    content: str = ""


def predict(settings: PredictConfig, model: dpt.DPT, paths: Sequence[str], out: str) -> Iterator[Outcome]:
    """Predict and write results; yields one outcome an input, in about the order of `paths`.

    Args:
        settings: what to write and how to compute.
        model: of depth, inverse depth or classes.
        paths: see `pipelines.prediction.inputs.find_inputs`.
        out: folder for the results; a path or URI.

    Raises:
        ConfigError, BadModel, NotFound, AmbiguousResults: before anything is predicted.
    """
    predictor = Predictor(settings, model)
    folder = Folder(out)
    local = Path(folder.path) if folder.is_local else None
    inputs = find_inputs(paths, lambda source: results_of(source, settings), local)
    size = settings.batch_size
    waiting = SameSizeBatches[tuple[Input, Image]](size, most_waiting=_WAITING * size)
    for source in inputs:
        if source.is_video:
            yield _predict_video(predictor, source, folder)
            continue
        try:
            image = read_image(source)
        except BadImage as error:
            yield Outcome(source, problem=str(error))
            continue
        if batch := waiting.add((source, image), predictor.input_size(image)):
            yield from _predict_images(predictor, batch, folder)
    for batch in waiting.rest():
        yield from _predict_images(predictor, batch, folder)


def predict_one(settings: PredictConfig, model: dpt.DPT, paths: Sequence[str]) -> bytes:
    """The one file that `settings.write` names, for the one image that `paths` names.

    Raises:
        UserError: if it is not one image and one file, or the image cannot be read.
    """
    predictor = Predictor(settings, model)
    inputs = find_inputs(paths, lambda source: results_of(source, settings))
    if len(inputs) != 1 or inputs[0].is_video or len(results_of(inputs[0], settings)) != 1:
        raise UserError("--out - takes one image, and one of --write npy, png, colour")
    image = read_image(inputs[0])
    return predictor.encode(settings.write[0], image, predictor([image])[0])


def results_of(source: Input, settings: PredictConfig) -> list[str]:
    """Relative paths of what is written for an input (for a video, without what is for its frames)."""
    return [source.name + VIDEO] if source.is_video else _results_of_image(source.name, settings)


def _results_of_image(name: str, settings: PredictConfig) -> list[str]:
    suffixes = [SUFFIXES[form] for form in settings.write]
    suffixes += [POINTS] if settings.ply is not None else []
    suffixes += [ATTENTION] if settings.attention else []
    return [name + suffix for suffix in suffixes]


class Predictor:
    """A model on its device, with all that decides how images go through it.

    Raises:
        ConfigError, BadModel: if settings and model do not go together.
    """

    def __init__(self, settings: PredictConfig, model: dpt.DPT) -> None:
        self.settings, self.config = settings, model.config
        device = resolve_device(settings.device)
        self.segments = model.config.task == "segmentation"
        if self.segments and settings.ply is not None:
            raise BadModel("this is a segmentation model; a point cloud (ply) needs one of depth")
        require_size_fits(settings)
        if settings.inference != InferenceSection() and not self.segments:
            raise BadModel("this is a depth model; scales and flip (inference) are for segmentation")
        if settings.colours not in matplotlib.colormaps:
            raise ConfigError(
                f"predict.colours: Matplotlib has no {settings.colours!r}; some are: inferno, viridis, gray"
            )
        if settings.dtype == "float16" and device.type == "cpu":
            raise ConfigError("predict.dtype: float16 is for GPUs; on a CPU take bfloat16 or float32")
        try:
            if settings.attention:
                check_layers(model, settings.attention)
        except ValueError as error:
            raise ConfigError(f"predict.attention: {error}") from error
        self.model = model.to(device).eval()

    def __call__(self, images: Sequence[Image]) -> list[Prediction]:
        """Images that go through the network at one size -> predictions of their own sizes."""
        settings = self.settings
        size, dtype = (settings.side, settings.rule), getattr(torch, settings.dtype)
        if not self.segments:
            return list(predict_batch(self.model, images, *size, dtype=dtype))
        inference = settings.inference
        return list(predict_classes(self.model, images, inference.scales, inference.flip, *size, dtype=dtype))

    def encode(self, form: Form, image: Image, prediction: Prediction) -> bytes:
        """The bytes of one of a prediction's three files."""
        if self.segments:
            return encode_classes(form, prediction, image)
        return encode(form, prediction, self.config, self.settings.colours)

    def describe(self, prediction: Prediction) -> str:
        """What is in a prediction, where that can be said in a few words."""
        return classes_in_words(prediction, self.config.class_names) if self.segments else ""

    def input_size(self, image: Image) -> tuple[int, int]:
        """(height, width) at which an image goes through the network."""
        return input_size(self.model, image, self.settings.side, self.settings.rule)

    def write(self, folder: Folder, name: str, image: Image, prediction: Prediction) -> list[str]:
        """Write what is to be written of an image; returns the relative paths."""
        settings = self.settings
        contents = [self.encode(form, image, prediction) for form in settings.write]
        if settings.ply is not None:
            contents.append(encode_points(prediction, image, self.config, settings.ply))
        if settings.attention:
            figure = attention_figure(
                self.model, image, settings.attention, settings.references, settings.side, settings.rule
            )
            contents.append(encode_png(figure[..., ::-1]))
        names = _results_of_image(name, settings)
        for result, content in zip(names, contents, strict=True):
            write_result(folder, result, content)
        return names


def _predict_images(
    predictor: Predictor, batch: Sequence[tuple[Input, Image]], folder: Folder
) -> Iterator[Outcome]:
    predictions = predictor([image for _, image in batch])
    for (source, image), prediction in zip(batch, predictions, strict=True):
        written = tuple(predictor.write(folder, source.name, image, prediction))
        yield Outcome(source, written, content=predictor.describe(prediction))


def _predict_video(predictor: Predictor, source: Input, folder: Folder) -> Outcome:
    """Paint a video; a broken one leaves no painted video, but the frames before the break."""
    name = source.name + VIDEO
    paint = _painter(predictor)
    number = 0
    try:
        with folder.writing(name) as path, writing_video(path) as video:
            for frames in _batches(read_frames(source.path), predictor.settings.batch_size):
                predictions = predictor([frame.image for frame in frames])
                for frame, prediction in zip(frames, predictions, strict=True):
                    video.write(paint(frame.image, prediction), frame.time, frame.time_base)
                    if predictor.settings.frames:
                        predictor.write(folder, f"{source.name}/{number:06}", frame.image, prediction)
                    number += 1
    except BadVideo as error:
        return Outcome(source, problem=str(error))
    return Outcome(source, (name, f"{source.name}/") if predictor.settings.frames else (name,))


def _painter(predictor: Predictor) -> Callable[[Image, Prediction], Image]:
    """Paints the frames of one video, in order."""
    limits: tuple[float, float] | None = None

    def paint(image: Image, prediction: Prediction) -> Image:
        nonlocal limits
        if predictor.segments:
            return overlay(image, prediction)
        inverse_depth = inverse_depth_of(prediction, predictor.config)
        limits = _steadied(limits, display_range(inverse_depth))
        return colourise(inverse_depth, predictor.settings.colours, limits)

    return paint


def _batches(frames: Iterator[Frame], size: int) -> Iterator[list[Frame]]:
    batch: list[Frame] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _steadied(before: tuple[float, float] | None, now: tuple[float, float]) -> tuple[float, float]:
    if before is None:
        return now
    low, high = (_STEADINESS * old + (1 - _STEADINESS) * new for old, new in zip(before, now, strict=True))
    return low, high


def read_image(source: Input) -> Image:
    """Read an image as a person sees it (EXIF orientation applied): (H, W, 3) uint8 RGB.

    Raises:
        BadImage: naming the file.
    """
    where = "standard input" if source.is_standard_input else str(source.path)
    data = sys.stdin.buffer.read() if source.is_standard_input else source.path.read_bytes()
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error as error:  # among others, more pixels than OpenCV decodes
        raise BadImage(f"{where} is no readable image: {error.err}") from error
    if decoded is None:
        raise BadImage(f"{where} is no readable image")
    return np.ascontiguousarray(decoded[..., ::-1], dtype=np.uint8)
