"""Classes for the pixels of a rendered scene, for the segmentation sets: sky, and bands of depth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datasets_prep.render.scenes import Scene

BANDS_METRES = (3.0, 8.0, 20.0)


def label_map(scene: Scene, classes: tuple[int, int, int, int, int], unlabelled: int) -> NDArray[np.uint8]:
    """(H, W) uint8.

    Args:
        classes: of the sky, then of the bands of depth from near to far.
        unlabelled: what a corner of the picture gets, as annotators leave things out.
    """
    labels = np.array(classes[1:], np.uint8)[np.digitize(scene.depth, BANDS_METRES)]
    labels[scene.sky] = classes[0]
    height, width = labels.shape
    labels[-height // 8 :, : width // 8] = unlabelled
    return labels
