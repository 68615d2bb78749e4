"""NYU Depth v2, labelled: the authors' 1,449 photos in one MATLAB file; zero-shot evaluation on 654 of them.

Where: https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html (N. Silberman et al., "Indoor Segmentation and
Support Inference from RGBD Images", ECCV 2012): `nyu_depth_v2_labeled.mat`, 2.8 GB, and `splits.mat`.
Licence: none stated; research use.

Layout: both files in one folder; any folders above are accepted, and a word before `splits.mat`. The first is
MATLAB 7.3, which is HDF5: `images` (1449, 3, 640, 480) uint8 and `rawDepths` (1449, 640, 480) float32,
columns before rows. It is read in place, one photo at a time. Images are stored as PNG, which is lossless.

Values: planar depth in metres as the Kinect measured it (`rawDepths`; the file also has `depths` with holes
filled in, which is not used). Invalid pixels: 0. Sky does not occur. Evaluation ignores depth beyond 10
metres, and usually crops: rows 45 to 470 and columns 41 to 600, or 8 pixels on each side.

Splits: `splits.mat` numbers the photos from 1: 795 in `trainNdxs`, 654 in `testNdxs`. `test` keeps its native
resolution. Each photo is its own group: only the official split is meaningful.
"""

import posixpath
import re

import numpy as np

from datasets_prep.errors import BadSample, WrongLayout
from datasets_prep.formats.hdf5 import open_hdf5
from datasets_prep.formats.matlab import decode_matlab_array
from datasets_prep.formats.pictures import encode_png
from datasets_prep.sources.base import Listing, RawSample, Rejection, Source
from datasets_prep.sources.reading import of_positive_depth
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder

_PHOTOS = "nyu_depth_v2_labeled.mat"
_SPLITS = re.compile(r"(?:.*/)?(?:\w+_)?splits\.mat")
_MAX_SPLITS_BYTES = 2**20
_VARIABLES = {"trainNdxs": "train", "testNdxs": "test"}


class NYUv2Labelled(Source):
    """NYU Depth v2, labelled part, as published; see the module's docstring."""

    name = "nyuv2_labelled"
    reads_pieces = True
    target_kind = "metric"
    layout = f"{_PHOTOS}\nsplits.mat"
    evaluation_splits = frozenset({"test"})

    def list(self, root: Folder) -> Listing:
        """Number the photos in the files below `root`; only the header of the images is read."""
        listing = Listing()
        for path in root.files():
            if posixpath.basename(path) == _PHOTOS:
                self._add(listing, root, path)
        return listing

    def _add(self, listing: Listing, root: Folder, path: str) -> None:
        folder = posixpath.dirname(path)
        beside = [p for p in root.files() if _SPLITS.fullmatch(p) and posixpath.dirname(p) == folder]
        if not beside:
            raise WrongLayout(f"no splits.mat beside {path}; it says which photos are for testing")
        try:
            photos = open_hdf5(root, path).shape("images", 4)[0]
            data = root.read_bytes(beside[0], most=_MAX_SPLITS_BYTES)
            splits = {
                int(number): split
                for variable, split in _VARIABLES.items()
                for number in decode_matlab_array(data, "splits.mat", variable).ravel()
            }
        except BadSample as error:
            raise WrongLayout(f"{path}: {error}") from error
        for number in range(1, photos + 1):
            if number in splits:
                name, files = f"{number:04d}", {"image": path, "depth": path}
                listing.samples.append(Sample(name, files, group=name, split=splits[number]))
            else:
                listing.rejected.append(Rejection(path, f"photo {number} is in no split of {beside[0]}"))

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read `sample` of `root`: a photo and its raw depth in metres."""
        file, index = open_hdf5(root, sample.files["image"]), int(sample.sample_id) - 1
        stored = file.item("images", 4, index)
        depth = file.item("rawDepths", 3, index).T
        if stored.dtype != np.uint8 or stored.shape[0] != 3:
            raise BadSample(f"image is {stored.shape} {stored.dtype}, expected 3 channels of bytes")
        if depth.dtype.kind != "f":
            raise BadSample(f"depth has type {depth.dtype}, expected metres")
        image = np.ascontiguousarray(stored.transpose(2, 1, 0))
        metres = np.ascontiguousarray(depth, np.float32)
        root.note_read(image.tobytes())
        root.note_read(metres.tobytes())
        return of_positive_depth(encode_png(image), metres)
