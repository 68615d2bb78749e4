"""AbsRel and δ of relative depth on prepared datasets, after alignment (paper section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import dpt
from datasets_prep.inspect.contact_sheet import contact_sheet
from datasets_prep.manifest import PreparedDataset
from dpt.metrics import MetricSums, depth_metrics
from dpt.predict.colours import colourise
from dpt.predict.depth import evaluation_mode, predict_batch, to_inverse_depth
from pipelines.config import CapsSection
from pipelines.loading.batches import Batch, evaluation_batches

_BATCH_SIZE = 8


def evaluate_share(
    model: dpt.DPT,
    dataset: PreparedDataset,
    split: str,
    caps: CapsSection,
    rank: int,
    world_size: int,
    side: int | None = None,
    rule: str | None = None,
) -> MetricSums:
    """One worker's share of a dataset.

    Args:
        side, rule: of the network's input (`transforms.network_size`); None for the model's own.
    """
    sums = MetricSums()
    for batch in evaluation_batches(dataset, split, 0, rank, world_size, _BATCH_SIZE):
        prediction = torch.from_numpy(_predict(model, batch, side, rule))
        target = batch.target.float()
        sums.update(
            depth_metrics(prediction, target.nan_to_num(0.0), ~target.isnan(), normalised_caps(batch, caps))
        )
    return sums


def mean_over_datasets(results: dict[str, dict[str, float]], metric: str) -> float:
    """A metric's mean over datasets, as in the paper's Tables 6 to 8."""
    return float(np.mean([result[metric] for result in results.values()]))


def sample_predictions(
    model: dpt.DPT, datasets: Sequence[PreparedDataset], split: str, count: int
) -> NDArray[np.uint8]:
    """A contact sheet of the first validation images: image, ground truth, prediction."""
    rows: list[list[NDArray[Any]]] = []
    titles = []
    for dataset in datasets:
        batch = next(evaluation_batches(dataset, split, 0, 0, 1, batch_size=1))
        prediction = _predict(model, batch)[0]
        truth = batch.target[0].float().numpy()
        rows.append([batch.images[0].numpy(), colourise(truth), colourise(prediction)])
        titles.append(f"{dataset.name}: {batch.sample_ids[0]}  (image, ground truth, prediction)")
    return contact_sheet(rows[:count], titles[:count])


def _predict(
    model: dpt.DPT, batch: Batch, side: int | None = None, rule: str | None = None
) -> NDArray[np.float32]:
    """Inverse depth of a batch, also by models that predict depth: (B, H, W) float32 at the images' size."""
    with evaluation_mode(model):
        prediction = np.stack(predict_batch(model, list(batch.images.numpy()), side, rule))
    return to_inverse_depth(torch.from_numpy(prediction), model.config).numpy()


def normalised_caps(batch: Batch, caps: CapsSection) -> torch.Tensor:
    """The caps in the unit of stored depth, in which 1 is the nearest valid point: (B,) float64."""
    metric = caps.metres * batch.scale
    return torch.where(batch.scale.isnan(), torch.full_like(metric, caps.nearest), metric)
