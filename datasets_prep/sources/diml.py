"""DIML / CVL RGB-D: indoor Kinect and outdoor stereo photos with metric depth.

Where: https://dimlrgbd.github.io (Y. Kim et al., "Deep Monocular Depth Estimation via Integration of Global
and Local Predictions", TIP 2018; J. Cho et al., 2021). Licence: research only, non-commercial, by form.

Two products, in which the same data have different file names; both may lie in one folder:

* The sample set, `{indoor,outdoor}/{train,test}/{HR,LR}/…`, with an official split. Indoor 1,609 / 503 photos
  of 1344×756, in `<scene>/color/<stem>_c.png` and `<scene>/depth_filled/<stem>_depth_filled.png`. Outdoor
  1,505 / 500 of 1920×1080, in `outleft/<name>.png` and `depthmap/<name>.png`. `LR` holds the same photos
  smaller, and is used for those that have no `HR`.
* The full set, without split. Indoor, about 220,000 photos, `<scene>/<date>/<batch>/col/<stem>_c.png` and
  `up_png/<stem>_<something>.png`; the last part differs between folders. Outdoor
  `<date and camera>/<batch>/left/<stem>_left.png`, `depth/<stem>_depth.png` and `conf/<stem>_conf.png`.

MIX 6 uses the indoor part only: `diml`. The outdoor part is `diml_outdoor`.

Values: 16-bit PNG, planar depth in millimetres. Invalid pixels: 0; outdoors also where the confidence, as a
share of its largest value, is below 0.6. Sky is not marked. Groups: the scene (indoors), the batch or
folder (outdoors).

Known defects: indoor maps were filled, with artefacts at edges; outdoor maps come from stereo matching.
"""

import posixpath
import re
from collections.abc import Collection
from itertools import chain

import numpy as np

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import decode_grey_png
from datasets_prep.sources.base import Listing, RawSample, Rejection, Source
from datasets_prep.sources.reading import read_png_depth
from datasets_prep.sources.samples import Sample, Samples
from datasets_prep.storage.folder import Folder

MILLIMETRES = 1000.0
MIN_CONFIDENCE = 0.6

_SAMPLE_SET = r"(?:.*/)?(?P<split>train|test)/(?P<resolution>HR|LR)/"
_INDOOR_SAMPLE = re.compile(
    _SAMPLE_SET + r"(?P<group>[^/]+)/"
    r"(?:color/(?P<image>[^/]+)_c\.png|depth_filled/(?P<depth>[^/]+)_depth_filled\.png)"
)
_INDOOR_FULL = re.compile(
    r"(?:.*/)?(?P<folder>(?P<group>[^/]+)/[^/]+/[^/]+)/"
    r"(?:col/(?P<image>[^/]+)_c\.png|up_png/(?P<depth>[^/]+)\.png)"
)
_OUTDOOR_SAMPLE = re.compile(
    _SAMPLE_SET + r"(?P<group>(?:[^/]+/)*)(?:outleft/(?P<image>[^/]+)\.png|depthmap/(?P<depth>[^/]+)\.png)"
)
_OUTDOOR_FULL = re.compile(
    r"(?:.*/)?(?P<group>[^/]+/[^/]+)/"
    r"(?:left/(?P<image>[^/]+)_left\.png|depth/(?P<depth>[^/]+)_depth\.png|conf/(?P<conf>[^/]+)_conf\.png)"
)

_Key = tuple[str, str, str, str]  # split (or nothing), group, folder of a batch, stem


class DIML(Source):
    """DIML indoor, sample and full set, as published; see the module's docstring."""

    name = "diml"
    target_kind = "metric"
    layout = (
        "<scene>/<date>/<batch>/col/<stem>_c.png, …/up_png/<stem>_<any>.png\n"
        "{train,test}/{HR,LR}/<scene>/color/<stem>_c.png, …/depth_filled/<stem>_depth_filled.png"
    )

    def list(self, root: Folder) -> Listing:
        """Pair photos and depth of both products below `root`."""
        paths = root.files()
        found = _Found()
        stems: dict[str, set[str]] = {}
        full = [match for path in paths if (match := _INDOOR_FULL.fullmatch(path))]
        for match in full:
            if match["image"]:
                stems.setdefault(match["folder"], set()).add(match["image"])
        for match in full:
            stem = match["image"] or _stem_of(match["depth"], stems.get(match["folder"], ()))
            found.add(("", match["group"], match["folder"], stem), str(match.lastgroup), match.string, "HR")
        for path in paths:
            if match := _INDOOR_SAMPLE.fullmatch(path):
                stem = match["image"] or match["depth"]
                key = (match["split"], match["group"], "", stem)
                found.add(key, str(match.lastgroup), path, match["resolution"])
        return found.listing({"image": "colour image", "depth": "depth map"})

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read `sample` of `root`: a photo and its depth in metres."""
        return read_png_depth(root, sample, "DIML stores millimetres", MILLIMETRES)


class DIMLOutdoor(DIML):
    """DIML outdoor, sample and full set, as published; see the module's docstring."""

    name = "diml_outdoor"
    layout = (
        "<date and camera>/<batch>/left/<stem>_left.png, …/depth/<stem>_depth.png, …/conf/<stem>_conf.png\n"
        "{train,test}/{HR,LR}/…/outleft/<name>.png, …/depthmap/<name>.png"
    )

    def list(self, root: Folder) -> Listing:
        """Pair photos, depth and confidence of both products below `root`."""
        full, small = _Found(), _Found()
        for path in root.files():
            if match := _OUTDOOR_FULL.fullmatch(path):
                stem = match["image"] or match["depth"] or match["conf"]
                full.add(("", match["group"], "", stem), str(match.lastgroup), path, "HR")
            elif match := _OUTDOOR_SAMPLE.fullmatch(path):
                group = match["group"].strip("/") or "outdoor"
                key = (match["split"], group, "", match["image"] or match["depth"])
                small.add(key, str(match.lastgroup), path, match["resolution"])
        listing = full.listing({"image": "left image", "depth": "depth map", "conf": "confidence"})
        more = small.listing({"image": "left image", "depth": "depth map"})
        return Listing(Samples(chain(listing.samples, more.samples)), listing.rejected + more.rejected)

    def read(self, root: Folder, sample: Sample) -> RawSample:
        """Read `sample` of `root`: a photo and metric depth, valid where the confidence suffices."""
        raw = super().read(root, sample)
        if "conf" in sample.files:
            confidence = decode_grey_png(root.read_bytes(sample.files["conf"]), "conf")
            if confidence.shape != raw.target.shape:
                raise BadSample(f"conf has shape {confidence.shape}, depth {raw.target.shape}")
            raw.valid &= confidence >= MIN_CONFIDENCE * np.iinfo(confidence.dtype).max
        return raw


class _Found:
    """Files by sample and resolution, of which the best complete set becomes a sample."""

    def __init__(self) -> None:
        self.groups: dict[_Key, dict[str, dict[str, str]]] = {}
        self.copies: list[Rejection] = []

    def add(self, key: _Key, role: str, path: str, resolution: str) -> None:
        files = self.groups.setdefault(key, {}).setdefault(resolution, {})
        if role in files:
            self.copies.append(Rejection(path, f"second copy of {files[role]}"))
        else:
            files[role] = path

    def listing(self, roles: dict[str, str]) -> Listing:
        """The samples that have every role, in high resolution if it is complete."""
        listing = Listing(rejected=self.copies)
        for (split, group, folder, stem), resolutions in sorted(self.groups.items()):
            files = max(resolutions.values(), key=lambda files: (len(files), files is resolutions.get("HR")))
            missing = [what for role, what in roles.items() if role not in files]
            if missing:
                path = next(iter(files.values()))
                listing.rejected.append(Rejection(path, f"{stem} has no {' and no '.join(missing)}"))
            else:
                sample_id = posixpath.join(split, folder or group, stem)
                listing.samples.append(Sample(sample_id, files, group=group, split=split or None))
        return listing


def _stem_of(depth: str, stems: Collection[str]) -> str:
    """The image's stem that a depth map `<stem>_<something>` belongs to; both parts may contain `_`."""
    parts = depth.split("_")
    candidates = ("_".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))
    return next((stem for stem in candidates if stem in stems), depth)
