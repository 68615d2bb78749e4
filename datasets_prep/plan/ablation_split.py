"""The split of the paper's ablations (section 4.3): three curated sets, about 1,000 validation images in all.

The paper names the sets (ReDWeb, HRWSI, BlendedMVS) and two numbers, about 41,000 images and about 1,000 of
them for validation, but not which images. Here each set contributes a third of the thousand, so that its
column in Tables 6 to 8 is as certain as the others': 333 images, or a tenth of a set smaller than 3,330.

The official splits of HRWSI and BlendedMVS are ignored: all their images are pooled. Whole groups are held
out (a project of BlendedMVS), in an order that depends on their names alone, so that every user holds out the
same images for any seed of the shards.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from datasets_prep.errors import WrongLayout
from datasets_prep.sources.samples import Sample, Samples

DATASETS = ("redweb", "hrwsi", "blendedmvs")
VALIDATION_IMAGES = 333
"""Images that each of the three holds out."""

_LARGEST_SHARE = 0.1


def ablation_split(dataset: str, samples: Samples | Sequence[Sample]) -> list[Sample]:
    """All `samples` of `dataset`, each in `train` or `val`; their official splits are ignored.

    Raises WrongLayout if the dataset is not one of the three.
    """
    if dataset not in DATASETS:
        raise WrongLayout(f"split_rule: the ablation split is of {', '.join(DATASETS)}; {dataset} has none")
    if not samples:
        return []
    sizes = Counter(sample.group for sample in samples)
    target = min(VALIDATION_IMAGES, max(1, round(len(samples) * _LARGEST_SHARE)))
    held_out = _held_out(sizes, target)
    return [replace(sample, split="val" if sample.group in held_out else "train") for sample in samples]


def _held_out(sizes: Counter[str], target: int) -> set[str]:
    """Groups of at most `target` images in all, taken greedily in hash order; the first at any size.

    With sizes a 300, b 50, c 20 in this order and a target of 333: a, then not b (350), then c (320).
    """
    order = sorted(sizes, key=_rank)
    held_out, images = {order[0]}, sizes[order[0]]
    for group in order[1:]:
        if images + sizes[group] <= target:
            held_out.add(group)
            images += sizes[group]
    return held_out


def _rank(group: str) -> bytes:
    return hashlib.blake2b(f"ablation:{group}".encode(), digest_size=16).digest()
