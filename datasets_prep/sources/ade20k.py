"""ADE20K, SceneParse150: photos with a class for every pixel; segmentation.

Where: http://sceneparsing.csail.mit.edu, `ADEChallengeData2016.zip` (B. Zhou et al., "Scene Parsing through
ADE20K Dataset", CVPR 2017). Licence: annotations BSD-3; photos for non-commercial research.

Layout: `images/{training,validation}/ADE_{train,val}_<8 digits>.jpg`, `annotations/…` with the same names and
`.png`, in a folder `ADEChallengeData2016`; any folders above are accepted. 20,210 photos for training, 2,000
for validation, of many sizes. (The full ADE20K, whose masks are RGB and whose folders are named by scene, is
another product.)

Values: 8-bit grey PNG; 1 to 150 are the classes, which become 0 to 149. 0 is "other": it is ignored, and
becomes 255.

Splits: the two official ones; `val` keeps its native bytes, because mean IoU is measured at the masks' native
size.
"""

import re

import numpy as np

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import decode_grey_png
from datasets_prep.sources.base import IGNORED_LABEL, RawLabels
from datasets_prep.sources.paired import PairedSource
from datasets_prep.sources.reading import read_image
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder

CLASSES = 150
_SPLITS = {"training": "train", "validation": "val"}


class ADE20K(PairedSource):
    """SceneParse150 as published; see the module's docstring."""

    name = "ade20k"
    target_kind = "labels"
    layout = (
        "images/{training,validation}/ADE_{train,val}_<8 digits>.jpg\n"
        "annotations/{training,validation}/ADE_{train,val}_<8 digits>.png"
    )
    evaluation_splits = frozenset({"val"})
    pattern = re.compile(
        r"(?:.*/)?(?:(?P<photos>images)|annotations)/(?P<split>training|validation)/"
        r"(?(photos)(?P<image>ADE_\w+_\d{8})\.jpg|(?P<label>ADE_\w+_\d{8})\.png)"
    )
    scope = ("split",)
    missing = (("label", "no mask annotations/…/{name}.png"), ("image", "no photo images/…/{name}.jpg"))

    def sample(self, scope: str, name: str, files: dict[str, str]) -> Sample:
        """See `PairedSource.sample`: ids do without the split, which names contain."""
        return Sample(name, files, group=name, split=_SPLITS[scope])

    def read(self, root: Folder, sample: Sample) -> RawLabels:
        """Read `sample` of `root`: a photo and its classes, counted from 0."""
        stored = decode_grey_png(root.read_bytes(sample.files["label"]), "label")
        if stored.max() > CLASSES:
            raise BadSample(f"label {stored.max()} is none of SceneParse150's, 0 to {CLASSES}")
        labels = np.where(stored == 0, IGNORED_LABEL, stored.astype(np.int32) - 1).astype(np.uint8)
        return RawLabels(read_image(root, sample), labels)
