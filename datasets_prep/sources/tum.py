"""TUM RGB-D: indoor Kinect sequences with metric depth; zero-shot evaluation.

Where: https://cvg.cit.tum.de/data/datasets/rgbd-dataset (J. Sturm et al., "A Benchmark for the Evaluation of
RGB-D SLAM Systems", IROS 2012). Licence: CC BY 4.0.

Two layouts, which may lie in one folder; any folders above are accepted:

* The chosen frames. The papers evaluate on 1,815 frames of the sequences with moving people
  (freiburg2_desk_with_person, freiburg3_sitting_*, freiburg3_walking_*), chosen by Z. Li et al., "Learning
  the Depths of Moving People by Watching Frozen People", CVPR 2019, in `tum_hdf5.tgz` of
  https://github.com/google/mannequinchallenge: one file `<name>.h5` per frame, with `/gt/img_1` (H, W, 3),
  floats in [0, 1], and `/gt/gt_depth` (H, W) in metres. Images are stored as PNG.
* Whole sequences: `rgbd_dataset_<sequence>/rgb/<time>.png` and `…/depth/<time>.png`, times in seconds since
  1970. 640×480. Every frame of the sequences that lie in the folder is given.

In the second, colour and depth are not taken at the same moment: each image gets the nearest depth map within
20 milliseconds, each map goes to one image at most, nearest pairs first, as the authors' script does. Images
without one are left out.

Values: planar depth in metres, or in 16-bit PNG metres times 5,000. Invalid pixels: 0. Sky does not occur.
Evaluation ignores depth beyond 10 m.

Splits: all frames are `test`, which keeps its native bytes. A sequence, or a folder of chosen frames, is a
group.
"""

import bisect
import re

import numpy as np

from datasets_prep.errors import BadSample
from datasets_prep.formats.hdf5 import decode_hdf5_array
from datasets_prep.formats.pictures import encode_png
from datasets_prep.sources.base import Listing, RawSample, Rejection, Source
from datasets_prep.sources.reading import of_positive_depth, read_png_depth
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder

UNITS_OF_METRE = 5000.0
MAX_SECONDS_APART = 0.02

_FILE = re.compile(
    r"(?:.*/)?(?P<sequence>rgbd_dataset_[^/]+)/(?:rgb/(?P<image>\d+\.\d+)|depth/(?P<depth>\d+\.\d+))\.png"
)
_CHOSEN = re.compile(r"(?:(?:.*/)?(?P<folder>[^/]*tum_hdf5[^/]*)/)(?P<name>[^/]+)\.(?:h5|hdf5)")


class TUM(Source):
    """TUM RGB-D, chosen frames and sequences as published; see the module's docstring."""

    name = "tum"
    target_kind = "metric"
    layout = (
        "rgbd_dataset_<sequence>/rgb/<time>.png, rgbd_dataset_<sequence>/depth/<time>.png\ntum_hdf5/<name>.h5"
    )
    evaluation_splits = frozenset({"test"})

    def list(self, root: Folder) -> Listing:
        """Pair images and depth maps below `root` by time in each sequence; chosen frames come as pairs."""
        sequences: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
        listing = Listing()
        for path in root.files():
            if match := _FILE.fullmatch(path):
                images, depths = sequences.setdefault(match["sequence"], ({}, {}))
                (images if match["image"] else depths)[match["image"] or match["depth"]] = path
            elif match := _CHOSEN.fullmatch(path):
                files = {"image": path, "depth": path}
                sample_id = f"{match['folder']}/{match['name']}"
                listing.samples.append(Sample(sample_id, files, group=match["folder"], split="test"))
        for sequence, (images, depths) in sorted(sequences.items()):
            partners = _nearest_in_time(list(images), list(depths))
            for time in sorted(images, key=float):
                if time in partners:
                    files = {"image": images[time], "depth": depths[partners[time]]}
                    listing.samples.append(Sample(f"{sequence}/{time}", files, group=sequence, split="test"))
                else:
                    reason = f"no depth map within {1000 * MAX_SECONDS_APART:.0f} ms"
                    listing.rejected.append(Rejection(images[time], reason))
        return listing

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read `sample` of `root`: an image and its depth in metres."""
        if sample.files["image"] == sample.files["depth"]:
            return _read_chosen(root.read_bytes(sample.files["depth"]))
        return read_png_depth(root, sample, "TUM RGB-D stores depth", UNITS_OF_METRE)


def _read_chosen(data: bytes) -> RawSample:
    """A frame of the HDF5 package."""
    depth = decode_hdf5_array(data, "depth", "gt/gt_depth", 2)
    if depth.dtype.kind != "f":
        raise BadSample(f"depth HDF5: /gt/gt_depth has type {depth.dtype}, expected metres")
    colour = decode_hdf5_array(data, "image", "gt/img_1", 3)
    if colour.shape[2] != 3:
        raise BadSample(f"image HDF5: /gt/img_1 has shape {colour.shape}, expected three channels")
    if colour.dtype != np.uint8:
        colour = np.round(np.clip(np.nan_to_num(colour), 0, 1) * 255).astype(np.uint8)
    return of_positive_depth(encode_png(colour), depth.astype(np.float32))


def _nearest_in_time(images: list[str], depths: list[str]) -> dict[str, str]:
    """Image time → depth time; nearest pairs first, no time twice.

    Pairs are taken greedily by distance, as the authors' script does, not image by image: with images at
    1.000 and 1.015 and one map at 1.016, the map belongs to the second image, and the first gets none.
    """
    ordered = sorted(depths, key=float)
    seconds = [float(time) for time in ordered]
    candidates = []
    for image in images:
        now = float(image)
        first = bisect.bisect_left(seconds, now - MAX_SECONDS_APART)
        last = bisect.bisect_right(seconds, now + MAX_SECONDS_APART)
        candidates += [(abs(seconds[i] - now), image, ordered[i]) for i in range(first, last)]
    partners: dict[str, str] = {}
    taken: set[str] = set()
    for _, image, depth in sorted(candidates):
        if image not in partners and depth not in taken:
            partners[image] = depth
            taken.add(depth)
    return partners
