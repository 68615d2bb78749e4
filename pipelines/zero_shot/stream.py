"""Zero-shot evaluation on Ray Data: reading and decoding in tasks, networks and metrics in a pool of actors.

Units of consecutive samples are a function of the listing and the batch size, and so are the batches that
images of one size form within a unit: who computes them, and how many do, changes nothing. What comes back is
one row a sample, in any order.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch
from numpy.typing import NDArray

import dpt
from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import encode_png
from datasets_prep.sources import SOURCES
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder
from dpt.predict.depth import to_inverse_depth
from dpt.predict.transforms import normalise
from pipelines.loading.batches import SameSizeBatches
from pipelines.loading.shard_reader import binary_views
from pipelines.zero_shot.pictures import depth_strip, order_strip, preview
from pipelines.zero_shot.protocol import METRICS, InputSize, Measured, measure_depth, measure_order, prepare

UNIT_BATCHES = 4
"""Batches of a unit. More are fuller where sizes differ (DIW); fewer spread over more workers."""

READING_CPUS = 0.5
"""What a reading task takes of a worker's last core: on a CPU the network is what takes time, and an actor
that held every core would leave none to read."""

RESULT_SCHEMA = pa.schema(
    [
        pa.field("dataset", pa.string()),
        pa.field("position", pa.int64()),
        pa.field("sample_id", pa.string()),
        pa.field("problem", pa.string()),
        pa.field("failure", pa.string()),
        pa.field("finite", pa.bool_()),
        pa.field("pixels", pa.int64()),
        pa.field("scale", pa.float64()),
        pa.field("shift", pa.float64()),
        *(pa.field(name, pa.float64()) for name in METRICS),
        pa.field("picture", pa.binary()),
    ]
)
"""One row a sample: `problem`, why it could not be read; `failure`, how storage failed; `finite`, whether all
of the prediction was; `pixels`, how many counted; `picture`, a PNG where pictures were asked for."""

_IMAGE_SCHEMA = pa.schema(
    [
        pa.field("dataset", pa.string()),
        pa.field("position", pa.int64()),
        pa.field("sample_id", pa.string()),
        pa.field("problem", pa.string()),
        pa.field("failure", pa.string()),
        pa.field("pixels", pa.large_binary()),
        pa.field("input_height", pa.int32()),
        pa.field("input_width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("depth", pa.large_binary()),
        pa.field("points", pa.list_(pa.int32())),
        pa.field("a_is_farther", pa.bool_()),
        pa.field("preview", pa.binary()),
    ]
)


@dataclass(frozen=True, slots=True)
class Work:
    """Samples of one set, with all that decides what happens to them.

    Attributes:
        dataset: the set's name.
        source: who reads it.
        raw: its folder.
        samples: position in the set and sample.
        cap: metres; None where the ground truth is the order of points.
        border: see `zero_shot_image.prepare`.
        size: of the network's input.
    """

    dataset: str
    source: str
    raw: str
    samples: Sequence[tuple[int, Sample]]
    cap: float | None
    border: int
    size: InputSize


@dataclass(frozen=True, slots=True)
class Workers:
    """Who evaluates.

    Attributes:
        count: actors.
        threads: of each on a CPU.
        use_gpu: whether each has a GPU.
        batch_size: images that go through the network at once.
        dtype: of the network.
    """

    count: int
    threads: int
    use_gpu: bool
    batch_size: int
    dtype: torch.dtype


def evaluate_stream(
    work: Sequence[Work], model: Mapping[str, bytes], workers: Workers, pictures: bool = False
) -> Iterator[pa.Table]:
    """Evaluate samples; Ray must be running.

    Args:
        model: the files of `dpt.save_model`.
        pictures: draw each, see `zero_shot_picture`.

    Yields:
        tables of `RESULT_SCHEMA`.
    """
    length = UNIT_BATCHES * workers.batch_size
    units = [
        {"unit": pickle.dumps(replace(part, samples=part.samples[start : start + length]))}
        for part in work
        for start in range(0, len(part.samples), length)
    ]
    caps = {part.dataset: part.cap for part in work}
    # The model travels through Ray, for the driver's disk is not the workers'.
    kwargs = {"model": ray.put(dict(model)), "caps": caps, "workers": workers}
    stream = (
        ray.data.from_items(units, override_num_blocks=len(units))
        .map_batches(
            partial(read_unit, pictures=pictures),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=READING_CPUS,
        )
        .map_batches(
            Evaluator,
            batch_size=None,
            batch_format="pyarrow",
            fn_constructor_kwargs=kwargs,
            compute=ray.data.ActorPoolStrategy(size=workers.count),
            num_cpus=1 if workers.use_gpu else workers.threads - READING_CPUS,
            num_gpus=1 if workers.use_gpu else 0,
        )
    )
    yield from stream.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


# ---- reading, in tasks


def read_unit(table: pa.Table, pictures: bool) -> Iterator[pa.Table]:
    """Read, decode and resize the samples of a unit, one row a sample."""
    cv2.setNumThreads(1)
    for pickled in table.column("unit").to_pylist():
        work: Work = pickle.loads(pickled)
        folder = Folder(work.raw)
        source = SOURCES[work.source].opened(folder, {})
        for position, sample in work.samples:
            row = {"dataset": work.dataset, "position": position, "sample_id": sample.sample_id}
            try:
                row |= _image_columns(work, source.read(folder, sample), pictures)
            except BadSample as error:
                row["problem"] = str(error)
            except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
                row["problem"] = f"{type(error).__name__}: {error}"
            except OSError as error:  # storage gone; an exception would hide its message
                row["failure"] = str(error)
            yield pa.Table.from_pylist([row], _IMAGE_SCHEMA)


def _image_columns(work: Work, raw: Any, pictures: bool) -> dict[str, Any]:
    ready = prepare(raw, work.size, work.border)
    return {
        "pixels": ready.pixels.tobytes(),
        "input_height": ready.pixels.shape[0],
        "input_width": ready.pixels.shape[1],
        "height": ready.image.shape[0],
        "width": ready.image.shape[1],
        "depth": None if ready.depth is None else ready.depth.tobytes(),
        "points": ready.points,
        "a_is_farther": ready.a_is_farther,
        "preview": preview(ready.image) if pictures else None,
    }


# ---- networks and metrics, in actors


class Evaluator:
    """A network on its device; a table of read images in, a table of results out."""

    def __init__(self, model: ray.ObjectRef, caps: Mapping[str, float | None], workers: Workers) -> None:
        torch.set_num_threads(workers.threads)
        with tempfile.TemporaryDirectory(prefix="dpt-model-") as folder:
            for name, content in ray.get(model).items():
                (Path(folder) / name).write_bytes(content)
            self._model = dpt.load_model(Path(folder)).eval()
        self._model.to("cuda" if workers.use_gpu else "cpu", workers.dtype)
        self._caps, self._batch_size = caps, workers.batch_size

    def __call__(self, table: pa.Table) -> pa.Table:
        """Evaluate the images of a table of `read_unit`."""
        rows = _rows(table)
        results = [_result(row) for row in rows if row["pixels"] is None]
        images = [row for row in rows if row["pixels"] is not None]
        batches = SameSizeBatches[dict[str, Any]](self._batch_size)
        for batch in batches.of(images, lambda row: (row["input_height"], row["input_width"])):
            results += self._evaluate(batch)
        return pa.Table.from_pylist(results, RESULT_SCHEMA)

    @torch.inference_mode()
    def _evaluate(self, rows: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        model = self._model
        pixels = np.stack([_array(row, "pixels", row["input_height"], row["input_width"], 3) for row in rows])
        parameter = next(model.parameters())
        inputs = normalise(torch.from_numpy(pixels).to(parameter.device), model.mean, model.std)
        predictions = to_inverse_depth(model(inputs.to(parameter.dtype)), model.config)
        return [self._row(row, prediction) for row, prediction in zip(rows, predictions, strict=True)]

    def _row(self, row: dict[str, Any], prediction: torch.Tensor) -> dict[str, Any]:
        if not bool(prediction.isfinite().all()):
            return _result(row) | {"finite": False}
        size = (row["height"], row["width"])
        strip: NDArray[np.uint8] | None = None
        if row["depth"] is None:
            points = tuple(row["points"])
            measured = measure_order(prediction, points, row["a_is_farther"], size)
            if row["preview"] is not None:
                strip = order_strip(row["preview"], points, size, prediction)
        else:
            cap = self._caps[row["dataset"]]
            assert cap is not None  # every set with depth has one
            depth = _array(row, "depth", *size)
            measured = measure_depth(prediction, depth, cap)
            if row["preview"] is not None:
                strip = depth_strip(row["preview"], depth, prediction, measured, cap)
        return _result(row, measured, strip) | {"finite": True}


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table; large values as views, which are not copied."""
    large = ("pixels", "depth")
    plain = table.drop_columns(list(large)).to_pylist()
    for name in large:
        views = chain.from_iterable(map(binary_views, table.column(name).chunks))
        for row, view in zip(plain, views, strict=True):
            row[name] = view
    return plain


def _array(row: Mapping[str, Any], name: str, *shape: int) -> NDArray[np.float32]:
    return np.frombuffer(row[name], np.float32).reshape(shape)


def _result(
    row: Mapping[str, Any], measured: Measured | None = None, strip: NDArray[np.uint8] | None = None
) -> dict[str, Any]:
    result = {name: row[name] for name in ("dataset", "position", "sample_id", "problem", "failure")}
    if measured is not None:
        result |= {"pixels": measured.pixels, "scale": measured.scale, "shift": measured.shift}
        result |= measured.metrics
    if strip is not None:
        result["picture"] = encode_png(strip)
    return result
