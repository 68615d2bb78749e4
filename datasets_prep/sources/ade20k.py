"""ADE20K, SceneParse150: photos with a class for every pixel; segmentation.

Where: http://sceneparsing.csail.mit.edu, `ADEChallengeData2016.zip` (B. Zhou et al., "Scene Parsing through
ADE20K Dataset", CVPR 2017). Licence: annotations BSD-3; photos for non-commercial research.

Layout: `images/{training,validation}/ADE_{train,val}_<8 digits>.jpg`, `annotations/…` with the same names and
`.png`, in a folder `ADEChallengeData2016`; any folders above are accepted. 20,210 photos for training, 2,000
for validation, of many sizes. (The full ADE20K, whose masks are RGB and whose folders are named by scene, is
another product.)

Values: 8-bit grey PNG; 1 to 150 are the classes, stored here as 0 to 149. 0 is "other": it counts for
nothing, and is stored as 255.

Splits: the two official ones; `val` keeps its native bytes, for mean IoU is measured at the masks' own size.
"""

from __future__ import annotations

import re

import numpy as np

from datasets_prep.errors import BadSample
from datasets_prep.formats import pictures as formats
from datasets_prep.sources.base import IGNORED_LABEL, Listing, RawLabels, Rejection, Source
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder

CLASSES = 150

_FILE = re.compile(
    r"(?:.*/)?(?:images/(?P<image_split>training|validation)/(?P<image>ADE_\w+_\d{8})\.jpg"
    r"|annotations/(?P<label_split>training|validation)/(?P<label>ADE_\w+_\d{8})\.png)"
)
_SPLITS = {"training": "train", "validation": "val"}


class ADE20K(Source):
    """SceneParse150 as published; see the module's docstring."""

    name = "ade20k"
    target_kind = "labels"
    layout = (
        "images/{training,validation}/ADE_{train,val}_<8 digits>.jpg\n"
        "annotations/{training,validation}/ADE_{train,val}_<8 digits>.png"
    )
    native_splits = frozenset({"val"})

    def list(self, root: Folder) -> Listing:
        """Pair photos and masks by name."""
        groups: dict[tuple[str, str], dict[str, str]] = {}
        for path in root.files():
            if match := _FILE.fullmatch(path):
                role = "image" if match["image"] else "label"
                groups.setdefault((_SPLITS[match[f"{role}_split"]], match[role]), {})[role] = path
        listing = Listing()
        for (split, name), files in sorted(groups.items()):
            if "label" not in files:
                listing.rejected.append(Rejection(files["image"], f"no mask annotations/…/{name}.png"))
            elif "image" not in files:
                listing.rejected.append(Rejection(files["label"], f"no photo images/…/{name}.jpg"))
            else:
                listing.samples.append(Sample(name, files, group=name, split=split))
        return listing

    def read(self, root: Folder, sample: Sample) -> RawLabels:
        """Read a photo and its classes, counted from 0."""
        stored = formats.decode_grey_png(root.read_bytes(sample.files["label"]), "label")
        if stored.max() > CLASSES:
            raise BadSample(f"label {stored.max()} is none of SceneParse150's, 0 to {CLASSES}")
        image = root.read_bytes(sample.files["image"])
        formats.image_size(image)
        labels = np.where(stored == 0, IGNORED_LABEL, stored.astype(np.int32) - 1).astype(np.uint8)
        return RawLabels(image, labels)
