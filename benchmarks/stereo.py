"""Accuracy of DIS disparity on a real pair, as the stereo job uses it and with its plain preset.

    python benchmarks/stereo.py FOLDER

FOLDER holds a Middlebury pair as scikit-image packs it: `*_left.png`, `*_right.png` and `*_disp.npz`, the
true disparity of the left view in pixels, inf where unknown. Shares are of the pixels with known truth: those
within 2 px of it among the consistent ones (forward and backward flow agree better than 2 px), those among
all, and how many are consistent. The time is that of both directions on one core, as a ratio to the plain
preset's.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.pictures import decode_rgb
from datasets_prep.stereo.disparity import disparity_of
from datasets_prep.stereo.flow import Flow, FlowMethod, dis_flow

MAX_ERROR = 2.0
REPEATS = 5


@dataclass(frozen=True)
class Pair:
    """Left and right view, (H, W, 3) uint8, and the left one's disparity, (H, W) float32 pixels."""

    left: NDArray[np.uint8]
    right: NDArray[np.uint8]
    truth: NDArray[np.float32]


@dataclass(frozen=True)
class Shares:
    """Of the pixels with known truth: right among the consistent, right among all, consistent."""

    consistent: float
    all: float
    coverage: float


def read_pair(folder: Path) -> Pair:
    """The pair in a folder."""
    left, right = (decode_rgb(next(folder.glob(f"*_{side}.png")).read_bytes()) for side in ("left", "right"))
    with np.load(next(folder.glob("*_disp.npz"))) as archive:
        return Pair(left, right, archive[archive.files[0]])


def shares_of(pair: Pair, method: FlowMethod) -> Shares:
    """The accuracy of a method."""
    disparity = disparity_of(*method(pair.left, pair.right))
    known = np.isfinite(pair.truth) & (pair.truth > 0)
    right = (np.abs(disparity.values - pair.truth) < MAX_ERROR)[known]
    consistent = (disparity.uncertainty < MAX_ERROR)[known]
    return Shares(float(right[consistent].mean()), float(right.mean()), float(consistent.mean()))


def plain_dis(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> tuple[Flow, Flow]:
    """DIS with its unchanged medium preset."""
    grey = [cv2.cvtColor(view, cv2.COLOR_RGB2GRAY) for view in (left, right)]
    methods: list[Any] = [cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM) for _ in grey]
    return methods[0].calc(grey[0], grey[1], None), methods[1].calc(grey[1], grey[0], None)


def seconds_of(work: Callable[[], object]) -> float:
    """The shortest of a few runs."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def main(folder: str) -> None:
    cv2.setNumThreads(1)
    pair = read_pair(Path(folder))
    height, width = pair.truth.shape
    print(f"{folder}: {width}x{height}, disparity {pair.truth.min():.1f} px and more")
    methods: dict[str, FlowMethod] = {"medium preset": plain_dis, "dpt stereo": dis_flow}
    plain = seconds_of(lambda: plain_dis(pair.left, pair.right))
    for name, method in methods.items():
        shares = shares_of(pair, method)
        ratio = seconds_of(lambda method=method: method(pair.left, pair.right)) / plain  # type: ignore[misc]
        print(
            f"{name:>14}: within {MAX_ERROR:g} px of the truth {shares.consistent:.1%} of the consistent, "
            f"{shares.all:.1%} of all pixels; coverage {shares.coverage:.1%}; {ratio:.1f} x the preset's time"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
