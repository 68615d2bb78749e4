"""`dpt predict`: images and videos of any size → depth as numbers, pictures, point clouds, attention maps.

Segmentation models predict classes instead. Images with the same network input size form batches. Unreadable
inputs are reported, and the others predicted. `pipelines.prediction.outputs` lists what is written for an
image; a video `clip.mp4` gives `clip_colour.mp4` and, on request, all outputs of its frames in `clip/`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

import dpt
from datasets_prep.errors import BadSample, UserError
from datasets_prep.formats.pictures import encode_png
from datasets_prep.storage.folder import Folder
from dpt.predict.attention import check_layers
from dpt.predict.classes import predict_classes
from dpt.predict.colours import UNLABELLED, colour_table, colourise, display_range, overlay
from dpt.predict.depth import Launched, input_size, inverse_depth_of, launch, predict_batch, prepare
from dpt.weights.onnx import OnnxDPT
from pipelines.cluster.device import resolve_device
from pipelines.config import ConfigError, InferenceSection, PredictConfig, require_size_fits
from pipelines.prediction import outputs
from pipelines.prediction.ahead import THREADS, in_order, threads
from pipelines.prediction.attention_figure import attention_figure
from pipelines.prediction.batches import Batched
from pipelines.prediction.decoding import Unreadable, decode_image
from pipelines.prediction.inputs import Input, find_inputs
from pipelines.prediction.remote import local_copy
from pipelines.prediction.video import BadVideo, Frame, read_frames, writing_video
from pipelines.tracking.model_reference import BadModel

STANDARD_OUTPUT = "-"
VIDEO = "_colour.mp4"
_MOMENTUM = 0.9
"""Momentum of a video's colour range from frame to frame, which avoids flicker."""

Image = NDArray[np.uint8]
Prediction = NDArray[Any]
"""(H, W): float32 depth or inverse depth, or uint8 classes."""


class BadImage(UserError):
    """A file that is not a readable image; the message names it."""


class BadPrediction(UserError):
    """A prediction that is not finite; the message names its image."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of the input `source`.

    Attributes:
        written: relative paths of its outputs.
        problem: why it, or a part of it, could not be read or predicted; None if it could.
        content: a summary of the prediction, if there is a short one.
    """

    source: Input
    written: tuple[str, ...] = ()
    problem: str | None = None
    content: str = ""


def predict(
    settings: PredictConfig,
    model: dpt.DPT,
    paths: Sequence[str],
    out: str,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Outcome]:
    """Predict and write outputs.

    Args:
        settings: what to write and how to compute.
        model: predicts depth, inverse depth or classes.
        paths: see `pipelines.prediction.inputs.find_inputs`.
        out: folder for the outputs; a path or URI.
        say: takes a line about files that are not taken.

    Yields:
        one outcome per input, roughly in the order of `paths`.

    Raises:
        ConfigError, BadModel, NotFound, AmbiguousOutputs: before anything is predicted.
    """
    predictor = Predictor(settings, model)
    folder = Folder(out)
    sources = find_inputs(paths, partial(output_paths, settings=settings), Path(folder.uri), say)
    with threads() as pool:
        tasks = _tasks(predictor, sources, folder, pool)
        yield from in_order(pool, _end, tasks, settings.batch_size + THREADS)


def predict_one(settings: PredictConfig, model: dpt.DPT, paths: Sequence[str]) -> bytes:
    """The one output that `settings.write` names, predicted by `model` for the one image that `paths` name.

    Raises:
        UserError: if there are more images or outputs, or the image cannot be read or predicted.
    """
    predictor = Predictor(settings, model)
    inputs = find_inputs(paths, partial(output_paths, settings=settings))
    if len(inputs) != 1 or inputs[0].is_video or len(output_paths(inputs[0], settings)) != 1:
        raise UserError("--out - takes one image, and one of --write npy, png, colour")
    image = read_image(inputs[0])
    [prediction] = predictor([image])
    require_finite(prediction, inputs[0].where)
    return predictor.encode(settings.write[0], image, prediction)


def output_paths(source: Input, settings: PredictConfig) -> list[str]:
    """Relative paths of the outputs of `source` with these `settings`; of a video, without its frames'."""
    return [source.name + VIDEO] if source.is_video else _image_outputs(source.name, settings)


def _image_outputs(name: str, settings: PredictConfig) -> list[str]:
    suffixes = [outputs.SUFFIXES[form] for form in settings.write]
    suffixes += [outputs.POINTS] if settings.ply is not None else []
    suffixes += [outputs.ATTENTION] if settings.attention else []
    return [name + suffix for suffix in suffixes]


class Predictor:
    """A `model` on its device, with `settings` of what to write and how to compute.

    Raises:
        ConfigError, BadModel: if settings and model do not fit together.
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
        try:
            colour_table(settings.colours)
        except ValueError as error:
            raise ConfigError(f"predict.colours: {error}") from error
        if settings.dtype == "float16" and device.type == "cpu":
            raise ConfigError("predict.dtype: float16 is for GPUs; on a CPU take bfloat16 or float32")
        if settings.dtype != "float32" and isinstance(model, OnnxDPT):
            raise ConfigError("predict.dtype: an ONNX file has the --precision that it was exported in")
        try:
            if settings.attention:
                check_layers(model, settings.attention)
        except ValueError as error:
            raise ConfigError(f"predict.attention: {error}") from error
        exported = isinstance(model, OnnxDPT)
        fast = (
            None if exported else dpt.FastDPT(model, device, getattr(torch, settings.dtype), settings.exact)
        )
        self.model = fast or model.to(device)
        # Attention is read from layers in float32.
        self.attending = model.to(device).eval() if settings.attention else None

    def __call__(self, images: Sequence[Image]) -> list[Prediction]:
        """Predictions of `images` with the same network input size, each of the size of its image."""
        settings, size = self.settings, (self.settings.side, self.settings.rule)
        if not self.segments:
            return list(predict_batch(self.model, images, *size))
        inference = settings.inference
        return list(predict_classes(self.model, images, inference.scales, inference.flip, *size))

    def load(self, source: Input, image: Image) -> _Loaded:
        """The `image` of a `source` with what can be done for it before its batch is complete."""
        if self.segments:
            return _Loaded(source, image, None)
        return _Loaded(source, image, prepare(self.model, image, self.settings.side, self.settings.rule))

    def launch(self, batch: Sequence[Any]) -> Launched:
        """As `__call__`, of what `load` returned; predictions of depth on a GPU are only begun."""
        prepared = [one.prepared for one in batch if one.prepared is not None]
        if prepared:
            return launch(self.model, prepared, [one.image.shape[:2] for one in batch])
        return Launched([torch.from_numpy(one) for one in self([one.image for one in batch])], None)

    def encode(self, form: outputs.Form, image: Image, prediction: Prediction) -> bytes:
        """The file `form` of the `prediction` of an `image`."""
        if self.segments:
            return outputs.encode_classes(form, prediction, image)
        return outputs.encode(form, prediction, self.config, self.settings.colours)

    def describe(self, prediction: Prediction) -> str:
        """A short summary of a `prediction`: its classes, or its range if that has a unit."""
        if self.segments:
            return outputs.classes_in_words(prediction, self.config.class_names)
        low, high = prediction.min(), prediction.max()
        return f"{low:.3g} to {high:.3g} {self.config.unit}" if self.config.metric else ""

    def input_size(self, image: Image) -> tuple[int, int]:
        """(height, width) of the network's input for an `image`."""
        return input_size(self.model, image, self.settings.side, self.settings.rule)

    def write(self, folder: Folder, name: str, image: Image, prediction: Prediction) -> list[str]:
        """Write all outputs of an `image` with this `prediction` to a `folder`; `name` is their stem.

        Returns:
            their relative paths.
        """
        settings = self.settings
        contents = [self.encode(form, image, prediction) for form in settings.write]
        if settings.ply is not None:
            contents.append(outputs.encode_points(prediction, image, self.config, settings.ply))
        if self.attending is not None:
            figure = attention_figure(
                self.attending, image, settings.attention, settings.references, settings.side, settings.rule
            )
            contents.append(outputs.described(encode_png(figure, level=None), "attention maps"))
        names = _image_outputs(name, settings)
        for path, content in zip(names, contents, strict=True):
            outputs.write_file(folder, path, content)
        return names


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The decoded `image` of a `source`, and for models of depth what the network sees of it."""

    source: Input
    image: Image
    prepared: Tensor | None


_Task = Outcome | Callable[[], Outcome]


def _end(task: _Task) -> Outcome:
    return task if isinstance(task, Outcome) else task()


def _load(predictor: Predictor, source: Input) -> _Loaded | Outcome | Input:
    """An image as the network needs it, why it cannot be read, or a video as it is."""
    if source.is_video:
        return source
    try:
        return predictor.load(source, read_image(source))
    except BadImage as error:
        return Outcome(source, problem=str(error))


def _tasks(
    predictor: Predictor, sources: Sequence[Input], folder: Folder, pool: ThreadPoolExecutor
) -> Iterator[_Task]:
    """Predict the `sources` in this thread; what each task has left to do is to write the files of one.

    On a GPU one batch is computed while the next one is started.
    """
    settings = predictor.settings
    loaded = in_order(pool, partial(_load, predictor), sources, settings.batch_size + THREADS)

    def size(item: _Loaded | Outcome | Input) -> tuple[int, int] | None:
        return predictor.input_size(item.image) if isinstance(item, _Loaded) else None

    for item, prediction in Batched(predictor.launch, size, settings.batch_size).of(loaded):
        if isinstance(item, _Loaded):
            assert prediction is not None
            yield partial(_write_image, predictor, folder, item, prediction)
        else:
            yield item if isinstance(item, Outcome) else _predict_video(predictor, item, folder)


def _write_image(predictor: Predictor, folder: Folder, loaded: _Loaded, prediction: Prediction) -> Outcome:
    source = loaded.source
    try:
        require_finite(prediction, source.where)
    except BadPrediction as error:
        return Outcome(source, problem=str(error))
    written = tuple(predictor.write(folder, source.name, loaded.image, prediction))
    notes = (predictor.describe(prediction), _first_of_several(source))
    return Outcome(source, written, content=", ".join(note for note in notes if note))


def require_finite(prediction: Prediction, where: str) -> None:
    """Check the `prediction` of the image at `where`.

    Raises:
        BadPrediction: if it is not finite everywhere.
    """
    classes = prediction.dtype == np.uint8
    bad = prediction == UNLABELLED if classes else ~np.isfinite(prediction)
    if bad.any():
        share = f"{np.count_nonzero(bad)} of {bad.size} pixels"
        raise BadPrediction(
            f"{where}: the model predicts no finite number for {share}; "
            "are its weights damaged, or is --dtype too small for it?"
        )


def _first_of_several(source: Input) -> str:
    """What is said of an animation or a file with several pages, of which the first picture is predicted."""
    if source.is_standard_input or source.remote:
        return ""
    try:
        with PIL.Image.open(source.path) as picture:
            count = getattr(picture, "n_frames", 1)
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError):
        return ""
    return f"the first of its {count} pictures" if count > 1 else ""


def _predict_video(predictor: Predictor, source: Input, folder: Folder) -> Outcome:
    """Colour a video: of a damaged one all frames that can be decoded; the outcome says what is missing."""
    name = source.name + VIDEO
    paint = _painter(predictor)
    number, problems = 0, list[str]()
    try:
        with folder.writing(name) as path, writing_video(path) as write_frame:
            stream = _readable(source, problems)
            while frames := list(islice(stream, predictor.settings.batch_size)):
                predictions = predictor([frame.image for frame in frames])
                for frame, prediction in zip(frames, predictions, strict=True):
                    require_finite(prediction, f"{source.where}, frame {number}")
                    write_frame(dataclasses.replace(frame, image=paint(frame.image, prediction)))
                    if predictor.settings.frames:
                        predictor.write(folder, f"{source.name}/{number:06}", frame.image, prediction)
                    number += 1
            if not number:
                raise BadVideo(problems[0])
    except (BadVideo, BadPrediction) as error:
        return Outcome(source, problem=str(error))
    written = (name, f"{source.name}/") if predictor.settings.frames else (name,)
    return Outcome(source, written, "".join(problems) or None, f"{number} frames")


def _readable(source: Input, problems: list[str]) -> Iterator[Frame]:
    """The frames of a video; why there are no more is added to `problems`."""
    with local_copy(source.path) if source.remote else nullcontext(source.path) as path:
        try:
            yield from read_frames(path)
        except BadVideo as error:
            problems.append(str(error).replace(str(path), source.where))


def _painter(predictor: Predictor) -> Callable[[Image, Prediction], Image]:
    """Colours the frames of one video, in order."""
    limits: tuple[float, float] | None = None

    def paint(image: Image, prediction: Prediction) -> Image:
        nonlocal limits
        if predictor.segments:
            return overlay(image, prediction)
        inverse_depth = inverse_depth_of(prediction, predictor.config)
        now = display_range(inverse_depth)
        low, high = (_MOMENTUM * a + (1 - _MOMENTUM) * b for a, b in zip(limits or now, now, strict=True))
        limits = (low, high) if limits else now
        return colourise(inverse_depth, predictor.settings.colours, limits)

    return paint


def read_image(source: Input) -> Image:
    """Read the image of a `source` with its EXIF orientation applied: (H, W, 3) uint8 RGB.

    Raises:
        BadImage: naming the file.
    """
    try:
        return image_of(source.read_bytes(), source.where)
    except OSError as error:
        if source.remote:
            raise
        raise BadImage(f"{source.where} cannot be read: {error.strerror}") from error


def image_of(data: bytes, where: str) -> Image:
    """As `read_image`, of a file's `data`; `where` names it in errors."""
    try:
        return decode_image(data)
    except Unreadable as error:
        raise BadImage(f"{where} is {error}") from error
    except BadSample as error:
        raise BadImage(f"{where}: {error}") from error
