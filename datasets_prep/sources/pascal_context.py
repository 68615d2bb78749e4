"""Pascal Context: photos of Pascal VOC 2010 with a class for every pixel; segmentation.

Where: https://cs.stanford.edu/~roozbeh/pascal-context (R. Mottaghi et al., "The Role of Context for Object
Detection and Semantic Segmentation in the Wild", CVPR 2014), `trainval.tar.gz`, and the photos of
http://host.robots.ox.ac.uk/pascal/VOC/voc2010. Licence: none stated for the annotations; photos are from
Flickr, research use.

Layout: `JPEGImages/<id>.jpg`, and masks in one of two forms:

* `trainval/<id>.mat` as published: MATLAB, `LabelMap` with the 459 classes of the whole set.
* `SegmentationClassContext/<id>.png` as the tools of MMSegmentation convert them: grey PNG with 0 for
  background and 1 to 59 for the classes.

The third form, `trainval_merged.json`, can only be drawn by its authors' library: convert it to the second.
10,103 photos have masks, of many sizes.

Values: `pascal_context_59`, on which papers report, takes the 59 frequent classes as 0 to 58, in the order of
their names; everything else is background and ignored (255). `pascal_context_60` takes background as
class 0 and the others as 1 to 59.

Splits: `train.txt` (4,998) and `val.txt` (5,105) below a folder `SegmentationContext`, ids of photos. `val`
keeps its native bytes. Each photo is its own group.
"""

import re

import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import BadSample, WrongLayout
from datasets_prep.formats.matlab import decode_matlab_array
from datasets_prep.formats.pictures import decode_grey_png
from datasets_prep.sources.base import IGNORED_LABEL, Listing, RawLabels, Rejection, Source
from datasets_prep.sources.reading import read_image
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder

# fmt: off
_FREQUENT = (
    2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144,
    158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355,
    360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458,
)
# fmt: on
"""The 59 classes among the 459 of `LabelMap`."""

_WHOLE_SET = 459
_FILE = re.compile(
    r"(?:.*/)?(?:JPEGImages/(?P<image>\w+)\.jpg|trainval/(?P<mat>\w+)\.mat"
    r"|SegmentationClassContext/(?P<png>\w+)\.png)"
)
_JSON = re.compile(r"(?:.*/)?trainval_merged\.json")


class PascalContext60(Source):
    """Pascal Context with background as a class; see the module's docstring."""

    name = "pascal_context_60"
    ignores_background = False
    target_kind = "labels"
    layout = (
        "JPEGImages/<id>.jpg, trainval/<id>.mat\nJPEGImages/<id>.jpg, SegmentationClassContext/<id>.png\n"
        "ImageSets/SegmentationContext/{train,val}.txt"
    )
    evaluation_splits = frozenset({"val"})
    list_pattern = re.compile(r"(?:.*/)?SegmentationContext/(?:(?P<train>train)|(?P<val>val))\.txt")

    def list(self, root: Folder) -> Listing:
        """Pair photos and masks below `root` by id; photos of VOC without a mask are not mentioned."""
        samples: dict[str, dict[str, str]] = {}
        merged = None
        for path in root.files():
            if match := _FILE.fullmatch(path):
                role = str(match.lastgroup)
                samples.setdefault(match[role], {})[role] = path
            elif _JSON.fullmatch(path):
                merged = path
        listing = Listing()
        for name, files in sorted(samples.items()):
            mask = files.get("png") or files.get("mat")
            if mask is None:
                continue
            if "image" not in files:
                listing.rejected.append(Rejection(mask, f"no photo JPEGImages/{name}.jpg"))
            else:
                listing.samples.append(Sample(name, {"image": files["image"], "label": mask}, group=name))
        if merged and not listing.samples:
            raise WrongLayout(
                f"{merged} cannot be drawn without its authors' library; expected SegmentationClassContext/"
                "<id>.png (MMSegmentation's converter writes them) or trainval/<id>.mat"
            )
        return listing

    def read(self, root: Folder, sample: Sample) -> RawLabels:
        """Read `sample` of `root`: a photo and its classes."""
        path = sample.files["label"]
        data = root.read_bytes(path)
        classes = _classes_of_mat(data) if path.endswith(".mat") else _classes_of_png(data)
        if self.ignores_background:
            classes = np.where(classes == 0, IGNORED_LABEL, classes.astype(np.int16) - 1).astype(np.uint8)
        return RawLabels(read_image(root, sample), classes)


class PascalContext59(PascalContext60):
    """Pascal Context without background; see the module's docstring."""

    name = "pascal_context_59"
    ignores_background = True


def _classes_of_mat(data: bytes) -> NDArray[np.uint8]:
    """0 for background, 1 to 59 for the classes."""
    stored = decode_matlab_array(data, "label", "LabelMap")
    if stored.dtype.kind == "f" or stored.min() < 0 or stored.max() > _WHOLE_SET:
        raise BadSample(f"label map holds {stored.dtype} up to {stored.max()}, expected 0 to {_WHOLE_SET}")
    table = np.zeros(_WHOLE_SET + 1, np.uint8)
    table[list(_FREQUENT)] = np.arange(1, len(_FREQUENT) + 1)
    found: NDArray[np.uint8] = table[stored]
    return found


def _classes_of_png(data: bytes) -> NDArray[np.uint8]:
    stored = decode_grey_png(data, "label")
    if stored.max() > len(_FREQUENT):
        raise BadSample(f"label {stored.max()} is none of Pascal Context's, 0 to {len(_FREQUENT)}")
    return stored.astype(np.uint8)
