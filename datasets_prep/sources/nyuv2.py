"""NYU Depth v2 as PNG: indoor Kinect photos with metric depth; fine-tuning and zero-shot evaluation.

Where: https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html (N. Silberman et al., "Indoor Segmentation and
Support Inference from RGBD Images", ECCV 2012), in the form of synchronised image files that BTS and its
followers distribute. Licence: none stated; research use.

Layout: `<scene>/rgb_<5 digits>.jpg` and `<scene>/sync_depth_<5 digits>.png`; below `official_splits/test` for
the 654 test photos, below `sync` for the training photos. Any folders above are accepted. 640×480.

Values: 16-bit PNG, planar depth in millimetres. Invalid pixels: 0. Sky does not occur. Photos have a white
border of about 40 rows and columns without depth behind it; evaluation usually crops to rows 45 to 470 and
columns 41 to 600 (D. Eigen et al., 2014).

Splits: lists as BTS has them (`.txt` with `test` or `train` in the name, `<image> <depth> <focal length>` a
line; those for training begin with a slash): 24,231 photos for training, 654 for testing. Photos that no list
names have the split of the folder `test` or `train` that they lie in. A scene is a group. The split `test`
keeps its native bytes.

The labelled MATLAB file of the authors is another product: `nyuv2_labelled`.
"""

from __future__ import annotations

import posixpath
import re

import numpy as np

from datasets_prep.errors import BadSample
from datasets_prep.formats import pictures as formats
from datasets_prep.sources.base import Listing, RawSample, Rejection, Source
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder

MILLIMETRES = 1000.0

_FILE = re.compile(r"(?:.*/)?(?P<scene>[^/]+)/(?:rgb_(?P<image>\d{5})\.jpg|sync_depth_(?P<depth>\d{5})\.png)")


class NYUv2(Source):
    """NYU Depth v2, synchronised image files; see the module's docstring."""

    name = "nyuv2"
    target_kind = "metric"
    layout = "<scene>/rgb_<5 digits>.jpg\n<scene>/sync_depth_<5 digits>.png"
    native_splits = frozenset({"test"})
    lists_start_with_slash = True

    def list(self, root: Folder) -> Listing:
        """Pair photos and depth by folder and number."""
        listing = Listing()
        groups: dict[tuple[str, str], dict[str, str]] = {}
        for path in root.files():
            if match := _FILE.fullmatch(path):
                role = str(match.lastgroup)
                groups.setdefault((posixpath.dirname(path), match[role]), {})[role] = path
        for (folder, number), files in sorted(groups.items()):
            if "depth" not in files:
                listing.rejected.append(Rejection(files["image"], f"no depth sync_depth_{number}.png"))
            elif "image" not in files:
                listing.rejected.append(Rejection(files["depth"], f"no image rgb_{number}.jpg"))
            else:
                scene = posixpath.basename(folder)
                split = _split_of_folder(folder)
                listing.samples.append(Sample(f"{folder}/{number}", files, group=scene, split=split))
        return listing

    def split_of_list(self, path: str) -> str | None:
        """Text files that say in their names what they are of."""
        name = posixpath.basename(path).lower()
        return next((s for s in ("train", "test") if s in name), None) if name.endswith(".txt") else None

    def listed(self, columns: tuple[str, ...]) -> str | None:
        """Scene and number of a photo."""
        match = _FILE.fullmatch(columns[0])
        return f"{match['scene']}/{match['image']}" if match and match["image"] else None

    def list_key(self, sample: Sample) -> str:
        """Lists name scene and number, whatever folders are above."""
        return "/".join(sample.sample_id.split("/")[-2:])

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read a photo and its depth in metres."""
        stored = formats.decode_grey_png(root.read_bytes(sample.files["depth"]), "depth")
        if stored.dtype != np.uint16:
            raise BadSample("depth PNG has 8 bits, NYUv2 stores millimetres in 16")
        image = root.read_bytes(sample.files["image"])
        formats.image_size(image)
        depth = stored.astype(np.float32) / np.float32(MILLIMETRES)
        return RawSample(image, depth, "depth", valid=stored > 0)


def _split_of_folder(folder: str) -> str | None:
    return next((part for part in folder.split("/")[:-1] if part in ("train", "test")), None)
