"""BlendedMVS: photos blended with renderings of reconstructed scenes, with exact depth of the meshes.

Where: https://github.com/YoYo000/BlendedMVS (Y. Yao et al., "BlendedMVS: A Large-scale Dataset for
Generalized Multi-view Stereo Networks", CVPR 2020). Licence: CC BY 4.0.

Layout: `<project>/blended_images/<8 digits>.jpg`, `<project>/rendered_depth_maps/<8 digits>.pfm`, and
`<project>/cams/` (not needed here); a project is named by 24 hexadecimal digits. High-resolution archives
nest the project's folder in itself; any folders above it are accepted. `<8 digits>_masked.jpg` is the same
photo with the background blackened, and not used. 768×576 (27.5 GB) or 2048×1536. 113 projects, about 17,000
photos; with the extensions + and ++ 502 projects and 110,000.

Values: planar depth in the unit of each project's reconstruction, so up to scale. PFM, float32, bottom-up.

Invalid pixels: 0 is "no surface": sky, holes of the mesh and background alike, so sky cannot be told. NaN and
infinity occur and are treated the same.

Splits: where the authors' list files `BlendedMVS_training.txt` and `validation_list.txt` (Windows line ends)
lie anywhere in the folder, projects named there get that split; else there is none. A project is a group:
its photos overlap.

Known defects, stated by the authors: some depth maps, and some images, are entirely empty.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

import numpy as np

from datasets_prep import formats
from datasets_prep.sources.source import (
    BadSample,
    Listing,
    RawSample,
    Rejection,
    Sample,
    Source,
    WrongLayout,
    files_by_sample,
)
from datasets_prep.storage import Folder

_FILE = re.compile(
    r"(?:.*/)?(?P<project>[0-9a-f]{24})/"
    r"(?:blended_images/(?P<image>\d{8})\.jpg|rendered_depth_maps/(?P<depth>\d{8})\.pfm)"
)
_PROJECT = re.compile(r"[0-9a-f]{24}")
_SPLIT_OF_LIST = {"BlendedMVS_training.txt": "train", "validation_list.txt": "val"}


class BlendedMVS(Source):
    """BlendedMVS, + and ++ as published; see the module's docstring."""

    name = "blendedmvs"
    target_kind = "up-to-scale"
    layout = "<project>/blended_images/<8 digits>.jpg\n<project>/rendered_depth_maps/<8 digits>.pfm"

    def list(self, root: Folder) -> Listing:
        """Pair photos and depth maps by project and number."""
        listing, paths = Listing(), root.files()
        groups = files_by_sample(paths, _FILE, "project", listing)
        splits = _read_split_lists(root, paths) if groups else {}
        for (project, number), files in sorted(groups.items()):
            if "depth" not in files:
                reason = f"no depth map rendered_depth_maps/{number}.pfm"
                listing.rejected.append(Rejection(files["image"], reason))
            elif "image" not in files:
                reason = f"no image blended_images/{number}.jpg"
                listing.rejected.append(Rejection(files["depth"], reason))
            else:
                sample = Sample(f"{project}/{number}", files, group=project, split=splits.get(project))
                listing.samples.append(sample)
        return listing

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read a photo and its depth, 0 where there is no surface."""
        depth = formats.decode_pfm(root.read_bytes(sample.files["depth"]), "depth")
        valid = np.isfinite(depth) & (depth > 0)
        if not valid.any():
            raise BadSample("depth map is empty: no pixel shows a surface")
        depth[~valid] = 0
        image = root.read_bytes(sample.files["image"])
        formats.image_size(image)
        return RawSample(image, depth, "depth", valid)


def _read_split_lists(root: Folder, paths: Iterable[str]) -> dict[str, str]:
    """Project → split, from the list files among `paths`."""
    splits: dict[str, str] = {}
    for path in paths:
        split = _SPLIT_OF_LIST.get(posixpath.basename(path))
        if split is None:
            continue
        for number, line in enumerate(root.read_text(path).splitlines(), start=1):
            project = line.strip()
            if project and not _PROJECT.fullmatch(project):
                raise WrongLayout(f"{path} line {number}: {project[:40]!r} is no project of BlendedMVS")
            if project:
                splits[project] = split
    return splits
