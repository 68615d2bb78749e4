"""KITTI: driving scenes with accumulated laser depth; fine-tuning and zero-shot evaluation.

Where: https://www.cvlibs.net/datasets/kitti (A. Geiger et al., IJRR 2013), the raw drives, and the improved
ground truth `data_depth_annotated.zip` (J. Uhrig et al., "Sparsity Invariant CNNs", 3DV 2017). Licence:
CC BY-NC-SA 3.0.

Layout: `<date>/<drive>/image_0{2,3}/data/<10 digits>.png` (raw; `.jpg` in some copies) and
`{train,val}/<drive>/proj_depth/groundtruth/image_0{2,3}/<10 digits>.png`; `<drive>` is `<date>_drive_<4
digits>_sync`. Any folders above are accepted. About 1242×375, the size differs a little between days.

Values: 16-bit PNG, planar depth in metres times 256. Invalid pixels: 0, four fifths of the map, among them
the whole upper third. Sky is not marked.

Splits: list files that lie anywhere in the folder decide first. Frames of a list with `test` in its name are
`test`, those of one with `train` are `train`; both common forms are read, that of the Eigen split
(`<date>/<drive> <number> l`, where `l` is image_02) and that with image and depth paths. Other frames have
the split of the folder that their depth lies in.

`kitti` gives every frame that has depth; with the Eigen test list its `test` has 652 frames (45 of the 697
have no improved depth). `kitti_161` gives the frames that are both in the Eigen test list and in the official
`val` folder: 161, the zero-shot set of the MiDaS and DPT papers. A drive is a group.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

import numpy as np

from datasets_prep import formats
from datasets_prep.sources.source import BadSample, Listing, RawSample, Rejection, Sample, Source
from datasets_prep.storage import Folder

UNITS_OF_METRE = 256.0

_DRIVE = r"(?P<drive>\d{4}_\d\d_\d\d_drive_\d{4}_sync)"
_IMAGE = re.compile(
    rf"(?:.*/)?\d{{4}}_\d\d_\d\d/{_DRIVE}/(?P<camera>image_0[23])/data/(?P<number>\d{{10}})\.(?:png|jpg)"
)
_DEPTH = re.compile(
    rf"(?:(?:.*/)?(?P<split>train|val)/|.*/|){_DRIVE}/proj_depth/groundtruth/"
    r"(?P<camera>image_0[23])/(?P<number>\d{10})\.png"
)
_EIGEN_LINE = re.compile(rf"\d{{4}}_\d\d_\d\d/{_DRIVE} (?P<number>\d{{1,10}}) (?P<side>[lr])")
_CAMERA_OF_SIDE = {"l": "image_02", "r": "image_03"}

_Frame = tuple[str, str, int]
"""Drive, camera, number."""


class KITTI(Source):
    """KITTI with improved ground truth, all frames; see the module's docstring."""

    name = "kitti"
    target_kind = "metric"
    layout = (
        "<date>/<drive>/image_0{2,3}/data/<10 digits>.png\n"
        "{train,val}/<drive>/proj_depth/groundtruth/image_0{2,3}/<10 digits>.png"
    )

    def list(self, root: Folder) -> Listing:
        """Pair frames and depth by drive, camera and number.

        Raw frames without depth are not mentioned: the first and last of every drive have none, and most
        users keep only some of the drives' depth.
        """
        listing, paths = Listing(), root.files()
        images: dict[_Frame, str] = {}
        depths: dict[_Frame, tuple[str, str | None]] = {}
        for path in paths:
            if match := _IMAGE.fullmatch(path):
                images.setdefault(_frame(match), path)
            elif match := _DEPTH.fullmatch(path):
                depths.setdefault(_frame(match), (path, match["split"]))
        listed = _read_split_lists(root, paths) if depths else {}
        for frame, (path, folder_split) in sorted(depths.items()):
            drive, camera, number = frame
            sample_id = f"{drive}/{camera}/{number:010d}"
            if frame not in images:
                reason = f"no image {drive[:10]}/{drive}/{camera}/data/{number:010d}.png"
                listing.rejected.append(Rejection(path, reason))
                continue
            files = {"image": images[frame], "depth": path}
            split = self._split(listed.get(frame), folder_split)
            if split != "":
                listing.samples.append(Sample(sample_id, files, group=drive, split=split))
        return listing

    def _split(self, listed: str | None, folder: str | None) -> str | None:
        """The split of a frame, or "" for one that is not in this set."""
        return listed or folder

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read a frame and its depth in metres."""
        stored = formats.decode_grey_png(root.read_bytes(sample.files["depth"]), "depth")
        if stored.dtype != np.uint16:
            raise BadSample("depth PNG has 8 bits, KITTI stores depth in 16")
        image = root.read_bytes(sample.files["image"])
        formats.image_size(image)
        depth = stored.astype(np.float32) / np.float32(UNITS_OF_METRE)
        return RawSample(image, depth, "depth", valid=stored > 0)


class KITTI161(KITTI):
    """The zero-shot evaluation set of the MiDaS and DPT papers; see the module's docstring."""

    name = "kitti_161"
    layout = f"{KITTI.layout}\nand a list of the Eigen test files, with `test` in its name"

    def _split(self, listed: str | None, folder: str | None) -> str | None:
        return "test" if listed == "test" and folder == "val" else ""


def _frame(match: re.Match[str]) -> _Frame:
    return match["drive"], match["camera"], int(match["number"])


def _read_split_lists(root: Folder, paths: Iterable[str]) -> dict[_Frame, str]:
    """Frame → split, from the list files among `paths`."""
    splits: dict[_Frame, str] = {}
    for path in paths:
        name = posixpath.basename(path).lower()
        split = next((split for split in ("train", "test") if split in name), None)
        if split is None or not name.endswith(".txt"):
            continue
        for line in root.read_text(path).splitlines():
            # Only the names are compared with what was found; nothing is opened by a list's word.
            if match := _EIGEN_LINE.fullmatch(line.strip()):
                splits[match["drive"], _CAMERA_OF_SIDE[match["side"]], int(match["number"])] = split
            elif (words := line.split()) and (match := _IMAGE.fullmatch(words[0].lstrip("/"))):
                splits[_frame(match)] = split
    return splits
