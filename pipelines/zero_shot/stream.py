"""Zero-shot evaluation on Ray Data: tasks read and decode, a pool of actors runs the network and the metrics.

Units of consecutive samples are a function of the listing and the batch size, and so are the batches of
images of one size within a unit: results do not depend on which workers compute them, or how many. The output
is one row per sample, in any order.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from datasets_prep.storage.folder import Folder
from dpt.predict.depth import normalised, to_device, to_inverse_depth
from pipelines.cluster.actors import saying_which_actors_died
from pipelines.cluster.session import connect, cpus_per_worker, require_room, wants_gpu
from pipelines.config import ZeroShotConfig
from pipelines.loading.same_size import SameSizeBatches
from pipelines.tracking.model_reference import temporary_folder
from pipelines.zero_shot.pictures import depth_strip, order_strip, preview
from pipelines.zero_shot.protocol import METRICS, InputSize, Measured, measure_depth, measure_order, prepare
from pipelines.zero_shot.sets import FoundSet

UNIT_BATCHES = 4
"""Batches per unit. More give fuller batches where sizes differ (DIW); fewer spread over more workers."""

READING_CPUS = 0.5
"""CPUs of a reading task, taken from a worker's last core: on a CPU the network takes nearly all time, and
actors that held every core would leave none to read."""

_SAMPLE = {"dataset": pa.string(), "position": pa.int64()}
_SAMPLE |= dict.fromkeys(("sample_id", "problem", "failure"), pa.string())
RESULT_SCHEMA = pa.schema(
    _SAMPLE
    | {"finite": pa.bool_(), "pixels": pa.int64(), "scale": pa.float64(), "shift": pa.float64()}
    | dict.fromkeys(METRICS, pa.float64())
    | {"picture": pa.binary()}
)
"""One row per sample: `problem`, why it could not be read; `failure`, how storage failed; `finite`, whether
all of the prediction was; `pixels`, number compared; `picture`, a PNG where pictures were requested."""

_IMAGE_SCHEMA = pa.schema(
    _SAMPLE
    | {"pixels": pa.large_binary()}
    | dict.fromkeys(("input_height", "input_width", "height", "width"), pa.int32())
    | {"depth": pa.large_binary(), "cap": pa.float64(), "points": pa.list_(pa.int32())}
    | {"a_is_farther": pa.bool_(), "preview": pa.binary()}
)


@dataclass(frozen=True, slots=True)
class Work:
    """Samples of the set `entry`, which has these only, at `positions` of the whole set.

    `size` is that of the network's input.
    """

    entry: FoundSet
    positions: Sequence[int]
    size: InputSize

    def units(self, length: int) -> Iterator[Work]:
        """Parts of `length` consecutive samples; the last may be shorter."""
        for start in range(0, len(self.positions), length):
            part = slice(start, start + length)
            entry = replace(self.entry, samples=self.entry.samples[part], rejected=())
            yield Work(entry, self.positions[part], self.size)


def evaluate_stream(
    settings: ZeroShotConfig, model: dpt.DPT, work: Sequence[Work], pictures: bool = False
) -> Iterator[pa.Table]:
    """Evaluate the samples `work` on Ray; without any, Ray is not started.

    The `model`, on any device, predicts depth or inverse depth; `settings` has workers, device, batch size
    and precision. With `pictures`, each sample is drawn, see `pipelines.zero_shot.pictures`.

    Yields:
        tables of `RESULT_SCHEMA`.
    """
    length = UNIT_BATCHES * settings.batch_size
    units = [{"unit": pickle.dumps(unit)} for part in work for unit in part.units(length)]
    if not units:
        return
    connect()
    use_gpu = wants_gpu(settings.device)
    threads = cpus_per_worker(settings.workers)
    require_room(settings.workers, threads, use_gpu)
    with temporary_folder(model) as folder:
        # The model travels through Ray, because the driver's disk is not the workers'.
        shipped = ray.put({path.name: path.read_bytes() for path in folder.iterdir()})
    reading = partial(_read_unit, pictures=pictures)
    stream = (
        ray.data.from_items(units, override_num_blocks=len(units))
        .map_batches(reading, batch_size=1, batch_format="pyarrow", num_cpus=READING_CPUS)
        .map_batches(
            _Evaluator,
            batch_size=None,
            batch_format="pyarrow",
            fn_constructor_args=(shipped, settings, threads, "cuda" if use_gpu else "cpu"),
            compute=ray.data.ActorPoolStrategy(size=settings.workers),
            num_cpus=1 if use_gpu else threads - READING_CPUS,
            num_gpus=1 if use_gpu else 0,
        )
    )
    with saying_which_actors_died():
        yield from stream.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


# ---- reading, in tasks


def _read_unit(table: pa.Table, pictures: bool) -> Iterator[pa.Table]:
    """Read, decode and resize the samples of a unit, one row of `_IMAGE_SCHEMA` per sample."""
    cv2.setNumThreads(1)
    for pickled in table.column("unit").to_pylist():
        work: Work = pickle.loads(pickled)
        folder = Folder(work.entry.raw)
        source = SOURCES[work.entry.source].opened(folder, {})
        for position, sample in zip(work.positions, work.entry.samples, strict=True):
            row = {"dataset": work.entry.name, "position": position, "sample_id": sample.sample_id}
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
    description = work.entry.description
    ready = prepare(raw, work.size, description.border)
    sizes = (*ready.pixels.shape[:2], *ready.image.shape[:2])
    return {
        "pixels": ready.pixels.tobytes(),
        **dict(zip(("input_height", "input_width", "height", "width"), sizes, strict=True)),
        "depth": None if ready.depth is None else ready.depth.tobytes(),
        "cap": description.cap,
        "points": ready.points,
        "a_is_farther": ready.a_is_farther,
        "preview": preview(ready.image) if pictures else None,
    }


# ---- network and metrics, in actors


class _Evaluator:
    """The model on its device: a table of `_IMAGE_SCHEMA` → a table of `RESULT_SCHEMA`."""

    def __init__(self, shipped: ray.ObjectRef, settings: ZeroShotConfig, threads: int, device: str) -> None:
        torch.set_num_threads(threads)
        with tempfile.TemporaryDirectory(prefix="dpt-model-") as folder:
            for name, content in ray.get(shipped).items():
                (Path(folder) / name).write_bytes(content)
            model = dpt.load_model(Path(folder))
        self._model = dpt.FastDPT(model, device, getattr(torch, settings.precision), settings.exact)
        self._batch_size = settings.batch_size

    def __call__(self, table: pa.Table) -> pa.Table:
        large = ("pixels", "depth")  # as buffers, which are not copied
        rows = table.drop_columns(list(large)).to_pylist()
        for name in large:
            for row, value in zip(rows, table.column(name), strict=True):
                row[name] = value.as_buffer()
        results = [_result(row) for row in rows if row["pixels"] is None]
        images = [row for row in rows if row["pixels"] is not None]
        batches = SameSizeBatches[dict[str, Any]](self._batch_size)
        for batch in batches.of(images, lambda row: (row["input_height"], row["input_width"])):
            results += self._evaluate(batch)
        return pa.Table.from_pylist(results, RESULT_SCHEMA)

    @torch.inference_mode()
    def _evaluate(self, rows: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        model = self._model
        pixels = [_array(row, "pixels", row["input_height"], row["input_width"], 3) for row in rows]
        inputs = to_device(model, [normalised(image, model.config) for image in pixels])
        predictions = to_inverse_depth(model(inputs), model.config)
        return [_measured(row, prediction) for row, prediction in zip(rows, predictions, strict=True)]


def _measured(row: Mapping[str, Any], prediction: torch.Tensor) -> dict[str, Any]:
    """The result of one image, with a picture if the row has a preview."""
    if not bool(prediction.isfinite().all()):
        return _result(row) | {"finite": False}
    size, small = (row["height"], row["width"]), row["preview"]
    strip: NDArray[np.uint8] | None = None
    if row["depth"] is None:
        points = tuple(row["points"])
        measured = measure_order(prediction, points, row["a_is_farther"], size)
        if small is not None:
            strip = order_strip(small, points, size, prediction)
    else:
        depth = _array(row, "depth", *size)
        measured = measure_depth(prediction, depth, row["cap"])
        if small is not None:
            strip = depth_strip(small, depth, prediction, measured, row["cap"])
    return _result(row, measured) | {"finite": True, "picture": None if strip is None else encode_png(strip)}


def _array(row: Mapping[str, Any], name: str, *shape: int) -> NDArray[np.float32]:
    return np.frombuffer(row[name], np.float32).reshape(shape)


def _result(row: Mapping[str, Any], measured: Measured | None = None) -> dict[str, Any]:
    result = {name: row[name] for name in _SAMPLE}
    if measured is not None:
        result |= {"pixels": measured.pixels, "scale": measured.scale, "shift": measured.shift}
        result |= measured.metrics
    return result
