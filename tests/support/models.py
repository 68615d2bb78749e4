"""Small networks of unusual kinds, and what they are fed with."""

from collections.abc import Sequence

import torch

from pipelines.loading.batches import Batch

SHALLOW_HYBRID = {
    "backbone": "vit_base_r50_s16_384",
    "backbone_arguments": {"img_size": 64, "embed_dim": 64, "depth": 2, "num_heads": 2},
    "taps": ("R0", "R1", 1, 2),
    "channels": (256, 512, 64, 64),
}
"""Overrides that make of `dpt_tiny` a hybrid of two transformer layers."""


def batch_of(
    images: torch.Tensor, target: torch.Tensor, dataset: Sequence[int], chosen: slice = slice(None)
) -> Batch:
    """Crops called a, b, c … of datasets by number, or the chosen ones of them."""
    return Batch(
        images=images[chosen],
        target=target[chosen],
        scale=torch.ones(len(images))[chosen],
        dataset=torch.tensor(dataset)[chosen],
        box=torch.zeros(len(images), 4, dtype=torch.int64)[chosen],
        sample_ids=list("abcdefgh"[: len(images)])[chosen],
    )
