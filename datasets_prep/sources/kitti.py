"""KITTI: driving scenes with accumulated laser depth; fine-tuning and zero-shot evaluation.

Where: https://www.cvlibs.net/datasets/kitti (A. Geiger et al., IJRR 2013), the raw drives, and the improved
ground truth `data_depth_annotated.zip` (J. Uhrig et al., "Sparsity Invariant CNNs", 3DV 2017). Licence:
CC BY-NC-SA 3.0.

Layout: `<date>/<drive>/image_0{2,3}/data/<10 digits>.png` (raw; `.jpg` in some copies) and
`{train,val}/<drive>/proj_depth/groundtruth/image_0{2,3}/<10 digits>.png`; `<drive>` is `<date>_drive_<4
digits>_sync`. Any folders above are accepted. About 1242×375, the size differs a little between days.

Values: 16-bit PNG, planar depth in metres times 256. Invalid pixels: 0, four fifths of the map, including
the whole upper third. Sky is not marked.

Splits: lists (`.txt` with `test` or `train` in the name) in both common forms, that of the Eigen split
(`<date>/<drive> <number> l`, where `l` is image_02) and that of BTS (image and depth paths and focal length,
`None` where there is no depth). Frames that no list names have the split of the folder that their depth lies
in. The split `test` keeps its native bytes.

`kitti` gives every frame that has depth; with the Eigen test list its `test` has 652 frames (45 of the 697
have no improved depth), and for the Eigen split give its training list as well (23,158 in BTS's form): other
frames of the test drives lie in the official folder `train`. `kitti_161` gives the frames that are both in
the Eigen test list and in the official `val` folder: 161, the zero-shot set of the MiDaS and DPT papers. A
drive is a group.
"""

import re

from datasets_prep.sources.base import Listing, RawSample, Rejection, Source, lists_named_by_split
from datasets_prep.sources.reading import read_png_depth
from datasets_prep.sources.samples import Sample, Samples
from datasets_prep.storage.folder import Folder

UNITS_OF_METRE = 256.0

_DRIVE = r"(?P<drive>\d{4}_\d\d_\d\d_drive_\d{4}_sync)"
_IMAGE = re.compile(
    rf"(?:.*/)?\d{{4}}_\d\d_\d\d/{_DRIVE}/(?P<camera>image_0[23])/data/(?P<number>\d{{10}})\.(?:png|jpg)"
)
_DEPTH = re.compile(
    rf"(?:(?:.*/)?(?P<split>train|val)/|.*/|){_DRIVE}/proj_depth/groundtruth/"
    r"(?P<camera>image_0[23])/(?P<number>\d{10})\.png"
)
_EIGEN_FOLDER = re.compile(rf"\d{{4}}_\d\d_\d\d/{_DRIVE}")
_CAMERA_OF_SIDE = {"l": "image_02", "r": "image_03"}

_Frame = tuple[str, str, int]  # drive, camera, number


class KITTI(Source):
    """KITTI with improved ground truth, all frames; see the module's docstring."""

    name = "kitti"
    target_kind = "metric"
    layout = (
        "<date>/<drive>/image_0{2,3}/data/<10 digits>.png\n"
        "{train,val}/<drive>/proj_depth/groundtruth/image_0{2,3}/<10 digits>.png"
    )
    evaluation_splits = frozenset({"test"})
    lists_start_with_slash = True
    list_pattern = lists_named_by_split("txt")

    def list(self, root: Folder) -> Listing:
        """Pair frames and depth below `root` by drive, camera and number.

        Raw frames without depth are not rejections: the first and last of every drive have none, and most
        users keep the depth of some drives only.
        """
        listing = Listing()
        images: dict[_Frame, str] = {}
        depths: dict[_Frame, tuple[str, str | None]] = {}
        for path in root.files():
            if match := _IMAGE.fullmatch(path):
                images.setdefault(_frame(match), path)
            elif match := _DEPTH.fullmatch(path):
                depths.setdefault(_frame(match), (path, match["split"]))
        for frame, (path, split) in sorted(depths.items()):
            drive, camera, number = frame
            if frame not in images:
                reason = f"no image {drive[:10]}/{drive}/{camera}/data/{number:010d}.png"
                listing.rejected.append(Rejection(path, reason))
                continue
            sample_id, files = f"{drive}/{camera}/{number:010d}", {"image": images[frame], "depth": path}
            listing.samples.append(Sample(sample_id, files, group=drive, split=split))
        return listing

    def listed(self, columns: tuple[str, ...]) -> str | None:
        """The frame that the `columns` of a line in either form name."""
        if (match := _EIGEN_FOLDER.fullmatch(columns[0])) and len(columns) == 3:
            camera, number = _CAMERA_OF_SIDE.get(columns[2]), columns[1]
            return f"{match['drive']}/{camera}/{number:0>10}" if camera else None
        if match := _IMAGE.fullmatch(columns[0]):
            return f"{match['drive']}/{match['camera']}/{match['number']}"
        return None

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read `sample` of `root`: a frame and its depth in metres."""
        return read_png_depth(root, sample, "KITTI stores depth", UNITS_OF_METRE)


class KITTI161(KITTI):
    """The zero-shot evaluation set of the MiDaS and DPT papers; see the module's docstring."""

    name = "kitti_161"
    layout = f"{KITTI.layout}\nand a list of the Eigen test files, with `test` in its name"
    only_listed = True

    def list(self, root: Folder) -> Listing:
        """The frames of the official folder `val` below `root`, from which the list chooses."""
        listing = super().list(root)
        listing.samples = Samples(sample for sample in listing.samples if sample.split == "val")
        return listing


def _frame(match: re.Match[str]) -> _Frame:
    return match["drive"], match["camera"], int(match["number"])
