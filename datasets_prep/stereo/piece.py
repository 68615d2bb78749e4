"""One piece of a stereo video: frames, views, flow, disparity, check, files, record."""

import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import BadSample
from datasets_prep.formats.disparity_png import encode_disparity, encode_uncertainty
from datasets_prep.formats.pictures import decode_grey_png, encode_jpeg
from datasets_prep.formats.video import Video
from datasets_prep.settings import StereoSettings
from datasets_prep.sources.stereo_tree import ENDINGS, FOLDERS
from datasets_prep.stereo.disparity import Disparity, disparity_of, put_sky_far, reject, shrink
from datasets_prep.stereo.flow import FlowMethod, dis_flow
from datasets_prep.stereo.plan import BadVideoFolder, Piece
from datasets_prep.stereo.views import Views, crop_widescreen, split_views
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.retries import CannotWrite
from datasets_prep.storage.sealed import sealed

_MIN_SIDE = 64  # smaller views are refused: DIS has no pyramid level for them


@dataclass(frozen=True, slots=True)
class PieceWork:
    """The tasks of a job.

    Attributes:
        videos: URI of the folder of videos.
        out: URI of the tree.
        sky: URI of the folder of sky masks, or None.
        settings: settings with the dataset's defaults.
    """

    videos: str
    out: str
    sky: str | None
    settings: StereoSettings

    def whole(self, row: dict[str, Any]) -> dict[str, Any]:
        """Decode the piece in `row`, compute DIS flow, write."""
        cv2.setNumThreads(1)
        row = self.decode(row)
        return self.write({**row, **measure(row["left"], row["right"], dis_flow, self.settings)})

    def decode(self, row: dict[str, Any]) -> dict[str, Any]:
        """The `row` with the views `left` and `right` of its piece, (N, H, W, 3) uint8.

        `problem` is why there are fewer views than names, `failure` an error of storage; both may be empty.
        """
        piece: Piece = pickle.loads(row["piece"])
        pairs: list[Views] = []
        problem, failure = "", ""
        try:
            pairs.extend(read_views(Folder(self.videos), piece))
        except BadSample as error:
            problem = str(error)
        except OSError as error:
            failure = f"{piece.video.path}: {error}"
        left, right = (
            np.stack([pair[side] for pair in pairs]) if pairs else np.zeros((0, 1, 1, 3), np.uint8)
            for side in (0, 1)
        )
        return {**row, "left": left, "right": right, "problem": problem, "failure": failure}

    def write(self, row: dict[str, Any]) -> dict[str, str]:
        """Write the accepted frames in `row`, then the record of the piece.

        Returns the `record`, a `failure` that may pass, or a `mistake` that only the user can mend.
        """
        result = {"record": "", "failure": str(row["failure"]), "mistake": ""}
        try:
            return result if row["failure"] else {**result, "record": self._write(row)}
        except CannotWrite as error:
            return {**result, "mistake": str(error)}
        except (OSError, BadVideoFolder) as error:
            return {**result, "failure": f"{row['name']}: {error}"}

    def _write(self, row: dict[str, Any]) -> str:
        piece: Piece = pickle.loads(row["piece"])
        reasons = json.loads(row["reasons"])
        reasons += [row["problem"]] * (len(piece.names) - len(reasons))
        tree = Folder(self.out)
        for index, (name, reason) in enumerate(zip(piece.names, reasons, strict=True)):
            if reason is None:
                disparity = Disparity(row["values"][index], row["uncertainty"][index])
                if row["masked"][index]:
                    disparity = self._with_sky(disparity, name)
                write_frame(tree, name, row["left"][index], disparity, self.settings.jpeg_quality)
        record = dict(zip(piece.names, reasons, strict=True))
        tree.write_text(row["name"], sealed(record))
        return json.dumps(record)

    def _with_sky(self, disparity: Disparity, name: str) -> Disparity:
        assert self.sky is not None
        data = Folder(self.sky).read_bytes(f"{name}.png")
        try:
            mask = decode_grey_png(data, "sky mask") > 0
        except BadSample as error:
            raise BadVideoFolder(f"{self.sky}/{name}.png: {error}") from error
        return put_sky_far(disparity, mask, self.settings.rules.uncertainty)


def read_views(folder: Folder, piece: Piece) -> Iterator[Views]:
    """Left and right view of each frame of `piece` in `folder`; the central 2.35:1 of films in 1080p.

    Raises BadSample where the video cannot be decoded further, or views are too small.
    """
    with Video(folder, piece.video.path) as video:
        for frame in video.frames(piece.numbers):
            left, right = split_views(frame, piece.video.packing, piece.video.swapped)
            if piece.video.is_film:
                left, right = crop_widescreen(left), crop_widescreen(right)
            if min(left.shape[:2]) < _MIN_SIDE:
                height, width = left.shape[:2]
                raise BadSample(f"views too small: {width}x{height}, at least {_MIN_SIDE} px a side needed")
            yield left, right


def measure(
    left: NDArray[np.uint8], right: NDArray[np.uint8], flow: FlowMethod, settings: StereoSettings
) -> dict[str, Any]:
    """Disparity of the left views.

    Args:
        left: views of the left eye, (N, H, W, 3) uint8 RGB.
        right: views of the right eye, likewise.
        flow: method of optical flow.
        settings: factor of the size, and rejection rules.

    Returns:
        `values` and `uncertainty`, (N, h, w) float32, shrunk by the settings' factor; `reasons`, JSON: for
        each frame the reason why it was rejected, or null.
    """
    assert settings.shrink is not None
    count, height, width = left.shape[:3]
    shape = (count, height // settings.shrink, width // settings.shrink)
    values, uncertainty = (np.zeros(shape, np.float32) for _ in range(2))
    reasons: list[str | None] = []
    for index in range(count):
        there, back = flow(left[index], right[index])
        full = disparity_of(there, back)
        try:
            reject(there, back, full, settings.rules)
            reasons.append(None)
        except BadSample as error:
            reasons.append(str(error))
        small = shrink(full, settings.shrink)
        values[index], uncertainty[index] = small.values, small.uncertainty
    return {"values": values, "uncertainty": uncertainty, "reasons": json.dumps(reasons)}


def write_frame(tree: Folder, name: str, left: NDArray[np.uint8], disparity: Disparity, quality: int) -> None:
    """Write the three files of the frame `name` (without ending) to `tree`, each whole or not at all.

    They are the view `left` (H, W, 3) uint8 RGB, as JPEG of this `quality`, its `disparity` and uncertainty.
    """
    contents = {
        "image": encode_jpeg(left, quality),
        "depth": encode_disparity(disparity.values),
        "uncertainty": encode_uncertainty(disparity.uncertainty),
    }
    for role, data in contents.items():
        with tree.writing(f"{FOLDERS[role]}/{name}.{ENDINGS[role]}") as path:
            path.write_bytes(data)
