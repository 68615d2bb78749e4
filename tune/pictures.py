"""The same few validation images in every trial: image, ground truth and what the variant predicts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

import dpt
from datasets_prep.manifest import open_datasets
from dpt.predict.depth import colourise, predict_inverse_depth
from pipelines.loading.batches import evaluation_batches
from pipelines.tracking.runs import Run
from tune import records


def log_pictures(run: Run, model: dpt.DPT, data: Sequence[str], split: str, count: int) -> None:
    """Log the pictures of the first images of every dataset's split.

    Args:
        count: images of each dataset.
    """
    for dataset in open_datasets(list(data)):
        batches = evaluation_batches(dataset, split, 0, rank=0, world_size=1, batch_size=1)
        for number, batch in enumerate(itertools.islice(batches, count)):
            image = batch.images[0].numpy()
            pictures: dict[str, NDArray[np.uint8]] = {
                records.IMAGE: image,
                records.TRUTH: colourise(batch.target[0].float().numpy()),
                records.PREDICTION: colourise(predict_inverse_depth(model, image)),
            }
            for what, picture in pictures.items():
                run.log_picture(picture, records.picture_path(dataset.name, number, what))
