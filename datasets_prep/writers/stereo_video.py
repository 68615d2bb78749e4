"""Rendered stereo videos with exact disparity, and the tree made of them; for 3D Movies and WSVD.

A shot pans over one wide rendered pair, which moves both views alike: its frames differ, and their disparity
is the pair's.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.disparity_png import encode_disparity, encode_uncertainty
from datasets_prep.formats.pictures import encode_jpeg
from datasets_prep.render.cameras import random_camera
from datasets_prep.render.raycast import cast
from datasets_prep.render.shading import shade
from datasets_prep.render.worlds import random_location
from datasets_prep.sources.stereo_tree import ENDINGS, FOLDERS
from datasets_prep.writers.base import visible_from_right
from datasets_prep.writers.traps import grey_jpeg, half, write_traps

FRAMES_A_SECOND = 24
FRAMES_A_SHOT = 28
"""A second, and what clips leave out at the start of a shot."""

_PAN = 2  # pixels a frame
# Disparity of the nearest things, as a share of the width: enough that small videos pass the rules.
_NEAR_DISPARITY = 0.08
# Share of that disparity by which the views are shifted: what is behind the screen has less than 0.
_SCREEN_PLANE = 0.25
_TREE = {role: f"{folder}/{{id}}.{ENDINGS[role]}" for role, folder in FOLDERS.items()}
"""Role of a frame's file in the tree → its path, see `write_sample`."""


@dataclass(frozen=True, slots=True)
class StereoFrame:
    """One rendered pair.

    Attributes:
        left, right: (H, W, 3) uint8.
        disparity: (H, W) float32 pixels, left x minus right x of the same point.
        visible: (H, W) bool, False where the right view does not show the point.
    """

    left: NDArray[np.uint8]
    right: NDArray[np.uint8]
    disparity: NDArray[np.float32]
    visible: NDArray[np.bool_]


def render_shot(seed: int, frames: int, height: int, width: int, kinds: Sequence[str]) -> list[StereoFrame]:
    """Render a shot of `frames` frames; `height` and `width` are of one view in pixels.

    `seed` and `kinds` are as in `render.scenes.render_scene`.
    """
    pan = _PAN * (frames - 1)
    shift = round(_NEAR_DISPARITY * _SCREEN_PLANE * width)
    left, right, disparity = _render_pair(seed, height, width, pan + shift, kinds)
    # Points at infinity have disparity 0, so both views would show them at the same column: on the screen. A
    # left view cut `shift` pixels farther right gives them -shift, behind it, and 0 to what is nearer.
    left, disparity = left[:, shift:], disparity[:, shift:] - np.float32(shift)
    visible = visible_from_right(disparity)
    shot = []
    for start in range(0, pan + 1, _PAN):
        window = np.s_[:, start : start + width]
        inside = np.arange(width) - disparity[window] >= 0
        inside &= np.arange(width) - disparity[window] <= width - 1
        shot.append(StereoFrame(left[window], right[window], disparity[window], visible[window] & inside))
    return shot


def flat_shot(seed: int, frames: int, height: int, width: int, kinds: Sequence[str]) -> list[StereoFrame]:
    """A shot without depth, of equal views, as in titles and badly converted films; see `render_shot`."""
    return [
        replace(frame, right=frame.left, disparity=np.zeros_like(frame.disparity))
        for frame in render_shot(seed, frames, height, width, kinds)
    ]


def _render_pair(
    seed: int, height: int, width: int, margin: int, kinds: Sequence[str]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
    """Left and right view of a scene, `margin` pixels wider than a frame, and the disparity of the left one.

    The stereo equation, disparity = focal · baseline / depth, is solved for the baseline that gives the
    nearest things `_NEAR_DISPARITY`: in a room eyes a few centimetres apart, over a landscape metres.
    """
    rng = np.random.default_rng(seed)
    location = random_location(rng, kinds)
    camera = random_camera(location, rng)
    camera = replace(camera, focal=camera.focal * width / (width + margin))
    depth, owner = cast(location.world, camera, height, width + margin)
    inverse = (1 / depth).astype(np.float32)
    near = np.float32(np.quantile(inverse, 0.98))
    disparity = inverse * (np.float32(_NEAR_DISPARITY * width) / near)
    baseline = _NEAR_DISPARITY * width / near / camera.intrinsics(height, width + margin)[0, 0]
    position = np.asarray(camera.position) + float(baseline) * camera.rotation[0]
    second = replace(camera, position=(float(position[0]), float(position[1]), float(position[2])))
    left = shade(location.world, camera, depth, owner, np.random.default_rng(seed))
    right = shade(location.world, second, *cast(location.world, second, height, width + margin), rng)
    return left, right, disparity.astype(np.float32)


# ---- files


def side_by_side(frame: StereoFrame) -> NDArray[np.uint8]:
    """Both views of `frame` at full width, (H, 2 W, 3) uint8."""
    return np.hstack([frame.left, frame.right])


def half_side_by_side(frame: StereoFrame) -> NDArray[np.uint8]:
    """Both views of `frame` at half width, (H, W, 3) uint8."""
    height, width = frame.left.shape[:2]
    views, size = (frame.left, frame.right), (width // 2, height)
    squeezed = [cv2.resize(view, size, interpolation=cv2.INTER_AREA) for view in views]
    return np.asarray(np.hstack(squeezed), np.uint8)


def encode_video(
    frames: Sequence[NDArray[np.uint8]], container: str = "matroska", chapters: Sequence[tuple[int, int]] = ()
) -> bytes:
    """Encode frames as MPEG-4 video, half a second between key frames.

    Deterministic: one thread, and no time stamps of the muxer. Odd sizes lose their last row or column, as
    the codec needs even ones.

    Args:
        frames: (H, W, 3) uint8 RGB each.
        container: FFmpeg's name of the container, `matroska` or `mp4`.
        chapters: half-open ranges of frame numbers to mark as chapters.
    """
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    stream = io.BytesIO()
    with av.open(stream, "w", format=container, options={"fflags": "+bitexact"}) as output:
        video = output.add_stream("mpeg4", rate=FRAMES_A_SECOND)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.thread_count = 1
        video.codec_context.gop_size = FRAMES_A_SECOND // 2
        video.codec_context.bit_rate = 40 * height * width
        video.codec_context.qmin, video.codec_context.qmax = 1, 3
        if chapters:
            common = {"time_base": Fraction(1, FRAMES_A_SECOND), "metadata": {}}
            ranges = enumerate(chapters, 1)
            marks: list[Any] = [
                {"id": n, "start": start, "end": stop, **common} for n, (start, stop) in ranges
            ]
            output.set_chapters(marks)
        for frame in frames:
            picture = np.ascontiguousarray(frame[:height, :width])
            output.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(video.encode())
    return stream.getvalue()


def tree_files(frame: StereoFrame, shrink: int) -> dict[str, bytes]:
    """Path → content of the files of `frame` in the tree, for `write_sample`.

    `shrink` is the width of the image over that of its disparity.
    """
    height, width = (side // shrink for side in frame.disparity.shape)
    # The middle of each block: an average across a depth edge is no depth that is there.
    rows, columns = (np.arange(side) * shrink + shrink // 2 for side in (height, width))
    disparity = frame.disparity[np.ix_(rows, columns)] / np.float32(shrink)
    uncertainty = np.where(frame.visible[np.ix_(rows, columns)], 0, np.inf).astype(np.float32)
    return {
        _TREE["image"]: encode_jpeg(frame.left[: height * shrink, : width * shrink]),
        _TREE["depth"]: encode_disparity(disparity),
        _TREE["uncertainty"]: encode_uncertainty(uncertainty),
    }


def write_tree_traps(root: Path, frame: StereoFrame, clip: str) -> dict[str, str]:
    """Write frames with defects to the folder `clip` (`<video>/<clip>`) of the tree at `root`.

    They are made of the good `frame`. Returns sample id → defect.
    """
    image, depth, uncertainty = (tree_files(frame, 1)[path] for path in _TREE.values())
    nowhere = encode_uncertainty(np.full(frame.disparity.shape, 99, np.float32))
    contents = {
        "missing partner": (image, depth, None),
        "truncated image": (half(image), depth, uncertainty),
        "truncated depth": (image, half(depth), uncertainty),
        "empty depth": (image, depth, nowhere),
        "grey image": (grey_jpeg(frame.left), depth, uncertainty),
    }
    return write_traps(root, clip + "/out{number:08d}", list(_TREE.values()), contents, start=1)


@dataclass(frozen=True, slots=True)
class StereoWriter:
    """Writes stereo videos and their tree; the counterpart of `base.Writer`, with the same methods.

    Attributes:
        write_video: writes all files of one scene; called with root, index, seed, frames of all shots.
        traps: adds samples with defects; called with root and one frame. Returns sample id → defect.
        kinds: kinds of world, keys of `render.worlds.KINDS`.
        shots: shots of each video; the second has no depth.
        lists: as in `base.Writer`.
    """

    write_video: Callable[[Path, int, int, list[StereoFrame]], None]
    traps: Callable[[Path, StereoFrame], dict[str, str]]
    kinds: tuple[str, ...]
    shots: int
    lists: Callable[[Path, Sequence[int]], None] | None = None

    def write_scene(self, root: Path, index: int, seed: int, height: int, width: int) -> None:
        """As `base.Writer.write_scene`."""
        frames: list[StereoFrame] = []
        for shot in range(self.shots):
            render = flat_shot if shot == 1 else render_shot
            frames += render(seed + shot, FRAMES_A_SHOT, height, width, self.kinds)
        self.write_video(root, index, seed, frames)

    def write_traps(self, root: Path, seed: int, height: int, width: int) -> dict[str, str]:
        """As `base.Writer.write_traps`."""
        return self.traps(root, render_shot(seed, 1, height, width, self.kinds)[0])
