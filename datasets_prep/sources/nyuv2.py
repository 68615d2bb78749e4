"""NYU Depth v2 as PNG: indoor Kinect photos with metric depth; fine-tuning and zero-shot evaluation.

Where: https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html (N. Silberman et al., "Indoor Segmentation and
Support Inference from RGBD Images", ECCV 2012), in the form of synchronised image files that BTS and its
followers distribute. Licence: none stated; research use.

Layout: `<scene>/rgb_<5 digits>.jpg` and `<scene>/sync_depth_<5 digits>.png`; below `official_splits/test` for
the 654 test photos, below `sync` for the training photos. Any folders above are accepted. 640×480.

Values: 16-bit PNG, planar depth in millimetres. Invalid pixels: 0. Sky does not occur. Photos have a white
border of about 40 rows and columns without depth; evaluation usually crops to rows 45 to 470 and
columns 41 to 600 (D. Eigen et al., 2014).

Splits: lists as BTS has them (`.txt` with `test` or `train` in the name, `<image> <depth> <focal length>` per
line; those for training begin with a slash): 24,231 photos for training, 654 for testing. Photos that no list
names have the split of the folder `test` or `train` that they lie in. A scene is a group. The split `test`
keeps its native bytes.

The authors' labelled MATLAB file is a separate dataset: `nyuv2_labelled`.
"""

import posixpath
import re

from datasets_prep.sources.base import RawSample, lists_named_by_split
from datasets_prep.sources.paired import PairedSource
from datasets_prep.sources.reading import read_png_depth
from datasets_prep.sources.samples import Sample
from datasets_prep.storage.folder import Folder

MILLIMETRES = 1000.0


class NYUv2(PairedSource):
    """NYU Depth v2, synchronised image files; see the module's docstring."""

    name = "nyuv2"
    target_kind = "metric"
    layout = "<scene>/rgb_<5 digits>.jpg\n<scene>/sync_depth_<5 digits>.png"
    evaluation_splits = frozenset({"test"})
    lists_start_with_slash = True
    pattern = re.compile(
        r"(?P<folder>(?:.*/)?(?P<scene>[^/]+))/"
        r"(?:rgb_(?P<image>\d{5})\.jpg|sync_depth_(?P<depth>\d{5})\.png)"
    )
    scope = ("folder",)
    missing = (("depth", "no depth sync_depth_{name}.png"), ("image", "no image rgb_{name}.jpg"))
    list_pattern = lists_named_by_split("txt")

    def sample(self, scope: str, name: str, files: dict[str, str]) -> Sample:
        """See `PairedSource.sample`: a scene is a group, wherever its folder lies."""
        above = scope.split("/")[:-1]
        split = next((part for part in above if part in ("train", "test")), None)
        return Sample(f"{scope}/{name}", files, group=posixpath.basename(scope), split=split)

    def listed(self, columns: tuple[str, ...]) -> str | None:
        """Scene and number of the photo in `columns`."""
        match = self.pattern.fullmatch(columns[0])
        return f"{match['scene']}/{match['image']}" if match and match["image"] else None

    def list_key(self, sample: Sample) -> str:
        """Scene and number of `sample`, without the folders above, as in lists."""
        return "/".join(sample.sample_id.split("/")[-2:])

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read `sample` of `root`: a photo and its depth in metres."""
        return read_png_depth(root, sample, "NYUv2 stores millimetres", MILLIMETRES)
