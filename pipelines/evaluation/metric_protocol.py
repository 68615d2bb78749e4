"""How predictions in metres are compared with ground truth in Tables 2 and 3: regions, caps, metrics.

The protocol is that of Eigen et al. (2014) as the authors of BTS (Lee et al. 2019) evaluate it, whose figures
the paper prints beside its own. Predictions are clamped to the valid range; ground truth outside of it, or
outside of the dataset's region, is ignored. A dataset's figure is the mean over its images. The published
protocols of datasets are in `pipelines.evaluation.sets`.

The paper heads three columns of both tables "δ > 1.25", but what it prints is the share of pixels with
max(p/t, t/p) below 1.25ᵏ, of which larger is better; they are `delta1` to `delta3` here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from datasets_prep.errors import UserError
from dpt.metrics import metric_depth_metrics
from dpt.regions import MetricRegion, kb_window, region_window

LEAST_METRES = 1e-3

METRICS = {
    "delta1": "δ₁",
    "delta2": "δ₂",
    "delta3": "δ₃",
    "abs_rel": "AbsRel",
    "sq_rel": "SqRel",
    "rmse": "RMSE",
    "rmse_log": "RMSE log",
    "log10": "log10",
    "silog": "SILog",
}
"""Reported metric, key of `dpt.metrics.metric_depth_metrics` → display name."""


class ProtocolError(UserError):
    """Predictions or images that do not fit the protocol; the message names the image or the reason."""


@dataclass(frozen=True, slots=True)
class MetricProtocol:
    """Which pixels of a dataset are compared.

    Attributes:
        cap: maximum depth in metres.
        region: crop of the image: `garg`, `eigen`, or `all` of it.
        kb_crop: True where the network sees only KITTI's benchmark crop; only that is compared then.
    """

    cap: float
    region: MetricRegion = "all"
    kb_crop: bool = False


def protocol_metrics(
    prediction: Tensor, depth: Tensor, protocol: MetricProtocol, names: Sequence[str]
) -> dict[str, Tensor]:
    """Metrics of images of one size.

    Args:
        prediction: (B, H, W) metres; with `kb_crop`, values outside of that crop are ignored.
        depth: (B, H, W) metres, NaN where there is no ground truth.
        protocol: region and cap.
        names: B names of the images, for messages.

    Returns:
        As `metric_depth_metrics`: (B,) each.

    Raises:
        ProtocolError: naming the image, if a compared prediction is NaN; if images of this size have no such
            region.
    """
    height, width = depth.shape[1:]
    counted = torch.zeros_like(depth, dtype=torch.bool)
    try:
        rows, columns = region_window(protocol.region, height, width)
    except ValueError as error:
        raise ProtocolError(str(error)) from error
    counted[:, rows, columns] = True
    if protocol.kb_crop:
        seen = torch.zeros_like(counted)
        rows, columns = kb_window(height, width)
        seen[:, rows, columns] = True
        counted &= seen
    counted &= (depth > LEAST_METRES) & (depth < protocol.cap)
    bad = (prediction.isnan() & counted).flatten(1).any(dim=1)
    if bad.any():
        raise ProtocolError(f"the model predicts NaN in image {names[int(bad.int().argmax())]}")
    return metric_depth_metrics(prediction.clamp(LEAST_METRES, protocol.cap), depth, counted)
