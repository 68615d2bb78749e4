"""A model that labels pictures: pictures → rows of a shard, in batches of one network input size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor

import dpt
from datasets_prep.errors import BadSample
from datasets_prep.formats.photos import read_photo
from datasets_prep.formats.pictures import decode_plain
from datasets_prep.ingest.normalize import encode_resized, nearest_indices, resized_shape, target_columns
from datasets_prep.ingest.run import collecting_notes
from datasets_prep.ingest.shard_file import ShardWriter
from datasets_prep.plan.shards import ShardPlan
from datasets_prep.sources.base import RawSample, TargetKind
from datasets_prep.sources.samples import Sample
from dpt.config import ModelConfig
from dpt.predict.depth import Launched, input_size, inverse_depth_of, launch, normalised
from dpt.predict.transforms import resize_image
from pipelines.config import LabelConfig
from pipelines.labelling.agreement import Map, agreeing
from pipelines.labelling.reading import Content, Fetch, fetching
from pipelines.prediction.ahead import in_order, threads
from pipelines.prediction.batches import Batched
from pipelines.prediction.decoding import Unreadable, decode_image

SPLIT = "train"

_FLAT = 1e-5
"""Range of a prediction, as a share of its maximum, that may be rounding: a hundred epsilons of float32."""


def target_kind(model: ModelConfig) -> TargetKind:
    """Kind of ground truth that the predictions of a `model` are: a metric model's keep their unit."""
    return "metric" if model.metric else "affine"


@dataclass(frozen=True, slots=True)
class _View:
    """What the network sees of an image: mirrored or not, at a multiple of its usual input size."""

    mirrored: bool = False
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A picture to predict: its `content`, `image` (H, W, 3) uint8 RGB, and a network input for each view."""

    sample: Sample
    content: Content
    image: NDArray[np.uint8]
    prepared: list[Tensor]


@dataclass(frozen=True, slots=True)
class _Rejected:
    """A picture that cannot be used, and the reason."""

    sample: Sample
    reason: str


@dataclass(frozen=True, slots=True)
class _Launched:
    """Predictions of a batch, one for each view."""

    views: list[Launched]

    @property
    def ready(self) -> bool:
        """Whether `arrays` returns at once."""
        return all(view.ready for view in self.views)

    def arrays(self) -> list[tuple[Map, ...]]:
        """For each image the predictions of all views."""
        return list(zip(*(view.arrays() for view in self.views), strict=True))


class Labeller:
    """A `model` on a `device` that labels pictures of the dataset named `dataset`, by `settings`."""

    def __init__(self, model: dpt.DPT, device: str, settings: LabelConfig, dataset: str) -> None:
        self.settings, self.dataset = settings, dataset
        self.model = dpt.FastDPT(model, device, getattr(torch, settings.dtype), settings.exact)
        self._views = [_View()]
        if settings.mirror:
            self._views.append(_View(mirrored=True))
        if settings.second_scale is not None:
            self._views.append(_View(scale=settings.second_scale))

    def add_rows(self, shard: ShardWriter, plan: ShardPlan) -> None:
        """Label the pictures of the shard `plan`: rows in its order, and those that are left out."""
        positions = {sample.sample_id: position for position, sample in enumerate(plan.samples)}
        results: dict[int, dict[str, Any] | _Rejected] = {}
        with collecting_notes() as notes:
            for sample, result in self.label(plan.samples):
                results[positions[sample.sample_id]] = result
        shard.notes.update(notes)
        for _, result in sorted(results.items()):
            if isinstance(result, _Rejected):
                name = result.sample.sample_id
                shard.quarantine.append({"sample_id": name, "source_path": name, "reason": result.reason})
            else:
                shard.add(result)

    def label(self, samples: Sequence[Sample]) -> Iterator[tuple[Sample, dict[str, Any] | _Rejected]]:
        """Each of `samples` with its row of `schema.LABELLED_SCHEMA`, or why it is left out; in any order.

        Raises OSError when storage fails.
        """
        settings = self.settings
        cv2.setNumThreads(1)
        with threads(settings.threads) as pool:
            ahead = settings.batch_size + settings.threads
            items = in_order(pool, self._load, fetching(samples, settings.image_column), ahead)
            batched = Batched(self._launch, self._size, settings.batch_size).of(items)
            yield from in_order(pool, self._end, batched, ahead)

    def _load(self, fetched: tuple[Sample, Fetch]) -> _Loaded | _Rejected:
        sample, fetch = fetched
        try:
            content = fetch()
            image = decode_image(content) if isinstance(content, bytes) else content
        except Unreadable as error:
            return _Rejected(sample, f"image is {error}")
        except BadSample as error:
            return _Rejected(sample, str(error))
        prepared: list[Tensor] = []
        for view in self._views:
            # Resizing commutes with mirroring, and costs more of a large photo than all else.
            prepared.append(prepared[0].flip(-1) if view.mirrored else self._prepared(image, view.scale))
        return _Loaded(sample, content, image, prepared)

    def _prepared(self, image: NDArray[np.uint8], scale: float) -> Tensor:
        divisor = self.model.size_divisor
        height, width = (max(1, round(side * scale / divisor)) * divisor for side in self._input_size(image))
        return normalised(resize_image(image, height, width), self.model.config)

    def _input_size(self, image: NDArray[np.uint8]) -> tuple[int, int]:
        return input_size(self.model, image, self.settings.network_side, self.settings.network_rule)

    def _size(self, item: _Loaded | _Rejected) -> tuple[int, int] | None:
        return self._input_size(item.image) if isinstance(item, _Loaded) else None

    def _launch(self, batch: Sequence[Any]) -> _Launched:
        """Start to predict all views of a batch of `_Loaded` at the pixels that are stored."""
        sizes = [one.image.shape[:2] for one in batch]
        views = []
        for number, view in enumerate(self._views):
            pixels = []
            for size in sizes:
                rows, columns = nearest_indices(size, self._stored_shape(size))
                # A pixel of the image is at the other side of the mirrored one.
                pixels.append((rows, size[1] - 1 - columns if view.mirrored else columns))
            prepared = [one.prepared[number] for one in batch]
            views.append(launch(self.model, prepared, sizes, pixels))
        return _Launched(views)

    def _stored_shape(self, size: tuple[int, ...]) -> tuple[int, int]:
        return resized_shape(size[0], size[1], self.settings.side, self.settings.resize)

    def _end(
        self, predicted: tuple[_Loaded | _Rejected, tuple[Map, ...] | None]
    ) -> tuple[Sample, dict[str, Any] | _Rejected]:
        item, maps = predicted
        if isinstance(item, _Rejected):
            return item.sample, item
        assert maps is not None
        try:
            return item.sample, self._row(item, maps)
        except BadSample as error:
            return item.sample, _Rejected(item.sample, str(error))

    def _row(self, item: _Loaded, maps: tuple[Map, ...]) -> dict[str, Any]:
        content = item.content if isinstance(item.content, bytes) else item.content.tobytes()
        shape = self._stored_shape(item.image.shape)
        return {
            **label_columns(maps, self.model.config, self.settings),
            "image": self._stored_image(item, shape),
            "sample_id": item.sample.sample_id,
            "dataset": self.dataset,
            "split": SPLIT,
            "source_path": item.sample.sample_id,
            "source_digest": hashlib.sha256(content).hexdigest(),
        }

    def _stored_image(self, item: _Loaded, shape: tuple[int, int]) -> bytes:
        """The image as JPEG; its own bytes if they are one of the right size and orientation."""
        data = b""
        if (
            isinstance(item.content, bytes)
            and item.image.shape[:2] == shape
            and simplejpeg.is_jpeg(item.content)
        ):
            content, orientation = read_photo(item.content)
            data = decode_plain(content)[0] if orientation == 1 else b""
        return encode_resized(data, item.image, shape, self.settings.jpeg_quality)


def label_columns(maps: Sequence[Map], model: ModelConfig, settings: LabelConfig) -> dict[str, Any]:
    """The columns of a row that come from predictions, with `agreement`.

    Args:
        maps: (H, W) predictions of the `model` as stored: of the image, then of its other views.
        model: its config.
        settings: tolerance, sky, and what is left out.

    Raises:
        BadSample: if a prediction is not finite, too few pixels agree, or the map is flat.
    """
    for one in maps:
        if bad := one.size - np.count_nonzero(np.isfinite(one)):
            raise BadSample(f"the model predicts no finite number for {bad} of {one.size} pixels")
    first, *others = (inverse_depth_of(one, model) for one in maps)
    valid = np.isfinite(first)  # not where the model predicts a depth of 0
    agreement = None
    if others:
        valid &= agreeing(np.where(valid, first, 0), others, model.metric, settings.tolerance)
        agreement = float(valid.mean())
        if agreement < settings.min_agreement:
            least = f"at least {settings.min_agreement:.1%} needed"
            raise BadSample(f"the views agree at {agreement:.1%} of the pixels, {least}")
    nearest = float(first[valid].max(initial=0))
    if valid.any() and nearest - float(first[valid].min()) <= _FLAT * nearest:
        raise BadSample(f"the prediction is flat: {nearest:g} everywhere")
    # The far end stays in the map as the model's own 0, from which its other values count.
    sky = valid & (first <= settings.sky * nearest)
    raw = RawSample(b"", np.where(sky, 0, first).astype(np.float32), "inverse_depth", valid)
    columns = target_columns(raw, target_kind(model), first.shape, settings)
    return columns | {"sky_share": float(sky.mean()), "agreement": agreement}
