"""Disparity of a stereo pair from optical flow: consistency check, rejection rules, and the sky.

The method of the authors of MiDaS for 3D films (R. Ranftl et al., "Towards Robust Monocular Depth
Estimation", supplement, and the thresholds of https://github.com/lasinger/3DVideos2Stereo), with one
difference: a pixel that the flow carries out of the other view cannot be checked, and counts as uncertain.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import BadSample
from datasets_prep.settings import RejectionRules
from datasets_prep.stereo.flow import Flow

UNKNOWN = np.float32(np.inf)
"""Uncertainty of a pixel whose partner lies outside the other view."""


@dataclass(frozen=True, slots=True)
class Disparity:
    """Disparity of the left view.

    Attributes:
        values: (H, W) float32 pixels, larger is nearer; may be negative, behind the plane of the screen.
        uncertainty: (H, W) float32 pixels, disagreement of forward and backward flow, inf where unknown.
    """

    values: NDArray[np.float32]
    uncertainty: NDArray[np.float32]


def disparity_of(there: Flow, back: Flow) -> Disparity:
    """Disparity -u and its uncertainty |u + u'(x + u)|, with u' the interpolated horizontal flow back.

    `there` and `back` are the flow from left to right and from right to left, (H, W, 2) float32 pixels. If
    both are right, going there and back ends where it began: a point at x = 100 with u = -6 lies at 94 in the
    right view, where u' must be +6. A u' of +5 gives an uncertainty of 1 pixel.
    """
    u = there[..., 0]
    height, width = u.shape
    rows, columns = np.indices((height, width), dtype=np.float32)
    partner = columns + u
    # A pair is rectified, so a point stays in its row, as in the authors' check.
    flow_back, border = np.ascontiguousarray(back[..., 0]), cv2.BORDER_REPLICATE
    u_back = cv2.remap(flow_back, partner, rows, cv2.INTER_LINEAR, borderMode=border)
    inside = (partner >= 0) & (partner <= width - 1)
    return Disparity(-u, np.where(inside, np.abs(u + u_back), UNKNOWN).astype(np.float32))


def reject(there: Flow, back: Flow, disparity: Disparity, rules: RejectionRules) -> None:
    """Refuse a pair that is not rectified, has no depth, or whose two flows disagree, by the thresholds.

    These are `rules`; `disparity` was made of the flows `there` and `back` by `disparity_of`. Raises
    BadSample with the rule and the measured value.
    """
    for what, flow in (("left to right", there), ("right to left", back)):
        share = float((np.abs(flow[..., 1]) > rules.vertical).mean())
        if share >= rules.vertical_share:
            raise BadSample(
                f"not rectified: vertical flow {what} is over {rules.vertical:g} px "
                f"on {share:.0%} of the pixels, less than {rules.vertical_share:.0%} needed"
            )
        extent = float(np.ptp(flow[..., 0]))
        if not extent > rules.horizontal_range:
            raise BadSample(
                f"no depth: horizontal flow {what} has a range of {extent:.1f} px, "
                f"more than {rules.horizontal_range:g} px needed"
            )
    share = float((disparity.uncertainty < rules.uncertainty).mean())
    if not share > rules.consistent_share:
        raise BadSample(
            f"inconsistent: forward and backward flow agree within {rules.uncertainty:g} px "
            f"on {share:.0%} of the pixels, more than {rules.consistent_share:.0%} needed"
        )


def shrink(disparity: Disparity, factor: int) -> Disparity:
    """Average `disparity` over blocks of `factor` × `factor` pixels; incomplete blocks are dropped.

    A disparity of 6 pixels is one of 3 in a map of half the size, so values are divided by `factor` too.
    """
    if factor == 1:
        return disparity
    height, width = (side // factor * factor for side in disparity.values.shape)
    blocks = (height // factor, factor, width // factor, factor)
    values, uncertainty = (
        (part[:height, :width].reshape(blocks).mean(axis=(1, 3)) / factor).astype(np.float32)
        for part in (disparity.values, disparity.uncertainty)
    )
    return Disparity(values, uncertainty)


def put_sky_far(disparity: Disparity, sky: NDArray[np.bool_], max_uncertainty: float) -> Disparity:
    """Give the sky the smallest certain disparity of the rest of the image (MiDaS, supplement).

    `disparity` is of the left view, `sky` (h, w) bool of any size, resized to the nearest pixel. A certain
    pixel has an uncertainty below `max_uncertainty`.
    """
    height, width = disparity.values.shape
    resized = cv2.resize(sky.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT) > 0
    known = ~resized & (disparity.uncertainty < max_uncertainty)
    if not known.any():
        return disparity
    far = disparity.values[known].min()
    values, uncertainty = (
        np.where(resized, far, disparity.values),
        np.where(resized, 0, disparity.uncertainty),
    )
    return Disparity(values.astype(np.float32), uncertainty.astype(np.float32))
