"""Rendered stereo videos with exact disparity, and the tree that comes of them; for 3D Movies and WSVD.

A shot pans over one wide rendered pair, which moves both views alike: its frames differ, and their disparity
is the pair's.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.disparity_png import encode_disparity, encode_uncertainty
from datasets_prep.formats.pictures import encode_jpeg
from datasets_prep.render.cameras import random_camera
from datasets_prep.render.raycast import cast
from datasets_prep.render.shading import shade
from datasets_prep.render.worlds import random_stage
from datasets_prep.sources.stereo_tree import ENDINGS, FOLDERS
from datasets_prep.writers.base import write_file

FRAMES_A_SECOND = 24
FRAMES_A_SHOT = 28
"""A second, and what clips leave out at the start of a shot."""

_PAN = 2
"""Pixels a frame."""

_NEAR_DISPARITY = 0.08
"""Disparity of the nearest things, as a share of the width: enough that small videos pass the rules."""

_SCREEN_PLANE = 0.25
"""Share of that disparity by which the views are shifted: what is behind the screen has less than 0."""


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
    """The frames of one shot; arguments as for `scenes.render_scene`."""
    pan = _PAN * (frames - 1)
    shift = round(_NEAR_DISPARITY * _SCREEN_PLANE * width)
    left, right, disparity = _render_pair(seed, height, width, pan + shift, kinds)
    # Cutting the left view farther right than the right one moves the screen's plane away from infinity.
    left, disparity = left[:, shift:], disparity[:, shift:] - np.float32(shift)
    visible = _visible(disparity)
    shot = []
    for start in range(0, pan + 1, _PAN):
        window = np.s_[:, start : start + width]
        inside = np.arange(width) - disparity[window] >= 0
        inside &= np.arange(width) - disparity[window] <= width - 1
        shot.append(
            StereoFrame(left[window], right[window], disparity[window], visible[window] & inside),
        )
    return shot


def flat_shot(seed: int, frames: int, height: int, width: int, kinds: Sequence[str]) -> list[StereoFrame]:
    """A shot without depth: both eyes see the same, as in titles and badly converted films."""
    return [
        replace(frame, right=frame.left, disparity=np.zeros_like(frame.disparity))
        for frame in render_shot(seed, frames, height, width, kinds)
    ]


def _render_pair(
    seed: int, height: int, width: int, margin: int, kinds: Sequence[str]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
    """Left and right view of a scene, `margin` wider than a frame, and the left one's disparity."""
    rng = np.random.default_rng(seed)
    stage = random_stage(rng, kinds)
    camera = random_camera(stage, rng)
    camera = replace(camera, focal=camera.focal * width / (width + margin))
    depth, owner = cast(stage.world, camera, height, width + margin)
    inverse = (1 / depth).astype(np.float32)
    near = np.float32(np.quantile(inverse, 0.98))
    disparity = inverse * (np.float32(_NEAR_DISPARITY * width) / near)
    baseline = _NEAR_DISPARITY * width / near / camera.intrinsics(height, width + margin)[0, 0]
    position = np.asarray(camera.position) + float(baseline) * camera.rotation[0]
    second = replace(camera, position=(float(position[0]), float(position[1]), float(position[2])))
    left = shade(stage.world, camera, depth, owner, np.random.default_rng(seed))
    right = shade(stage.world, second, *cast(stage.world, second, height, width + margin), rng)
    return left, right, disparity.astype(np.float32)


def _visible(disparity: NDArray[np.float32]) -> NDArray[np.bool_]:
    """False where something to the right in the left view lies to the left in the right view: it hides it."""
    seen_at = np.arange(disparity.shape[1]) - disparity
    leftmost = np.minimum.accumulate(seen_at[:, ::-1], axis=1)[:, ::-1]
    return seen_at <= leftmost + 0.5


# ---- files


def side_by_side(frame: StereoFrame) -> NDArray[np.uint8]:
    """Both views at full width, (H, 2 W, 3) uint8."""
    return np.hstack([frame.left, frame.right])


def half_side_by_side(frame: StereoFrame) -> NDArray[np.uint8]:
    """Both views at half width, (H, W, 3) uint8."""
    height, width = frame.left.shape[:2]
    squeezed = [
        cv2.resize(view, (width // 2, height), interpolation=cv2.INTER_AREA)
        for view in (frame.left, frame.right)
    ]
    return np.asarray(np.hstack(squeezed), np.uint8)


def encode_video(
    frames: Sequence[NDArray[np.uint8]],
    container: str = "matroska",
    chapters: Sequence[tuple[int, int]] = (),
) -> bytes:
    """Encode (H, W, 3) uint8 frames as MPEG-4 video, half a second between key frames.

    The same bytes each time: neither threads nor time stamps of the muxer have a say. Odd sizes lose their
    last row or column, as the codec needs even ones.

    Args:
        container: FFmpeg's name of it, `matroska` or `mp4`.
        chapters: ranges of frame numbers to mark.
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
        _mark_chapters(output, chapters)
        for packet in _packets(video, (frame[:height, :width] for frame in frames)):
            output.mux(packet)
    return stream.getvalue()


def _mark_chapters(output: av.container.OutputContainer, chapters: Sequence[tuple[int, int]]) -> None:
    if chapters:
        base = Fraction(1, FRAMES_A_SECOND)
        output.set_chapters(
            [
                {"id": number, "start": start, "end": stop, "time_base": base, "metadata": {}}
                for number, (start, stop) in enumerate(chapters, 1)
            ]
        )


def _packets(video: av.VideoStream, frames: Iterator[NDArray[np.uint8]]) -> Iterator[av.Packet]:
    for frame in frames:
        yield from video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"))
    yield from video.encode()


def tree_files(frame: StereoFrame, shrink: int) -> dict[str, bytes]:
    """The contents of a frame's files in the tree, by role, made of the exact disparity.

    Args:
        shrink: the image is so many times larger than the disparity.
    """
    height, width = (side // shrink for side in frame.disparity.shape)
    # The middle of each block: an average across a depth edge is no depth that is there.
    rows, columns = (np.arange(side) * shrink + shrink // 2 for side in (height, width))
    disparity = frame.disparity[np.ix_(rows, columns)] / np.float32(shrink)
    uncertainty = np.where(frame.visible[np.ix_(rows, columns)], 0, np.inf).astype(np.float32)
    return {
        "image": encode_jpeg(frame.left[: height * shrink, : width * shrink]),
        "depth": encode_disparity(disparity),
        "uncertainty": encode_uncertainty(uncertainty),
    }


def write_tree_files(root: Path, name: str, files: dict[str, bytes]) -> None:
    """Write a frame's files; `name` is its place in the tree, without ending."""
    for role, data in files.items():
        write_file(root / FOLDERS[role] / f"{name}.{ENDINGS[role]}", data)


def write_tree_traps(root: Path, folder: str, frame: StereoFrame, shrink: int) -> dict[str, str]:
    """Add frames with defects to the tree, in a folder `<video>/<clip>`; returns sample id → defect."""
    good = tree_files(frame, shrink)
    image, depth, uncertainty = good["image"], good["depth"], good["uncertainty"]
    nowhere = encode_uncertainty(np.full([side // shrink for side in frame.disparity.shape], 99, np.float32))
    grey_image = encode_jpeg(frame.left.mean(axis=2, keepdims=True).astype(np.uint8))
    files = {
        "missing partner": {"image": image, "depth": depth},
        "truncated image": {**good, "image": image[: len(image) // 2]},
        "truncated depth": {**good, "depth": depth[: len(depth) // 2]},
        "empty depth": {**good, "uncertainty": nowhere},
        "grey image": {**good, "image": grey_image, "uncertainty": uncertainty},
    }
    traps = {}
    for number, (what, contents) in enumerate(files.items(), 1):
        name = f"{folder}/out{number:08d}"
        write_tree_files(root, name, contents)
        traps[name] = what
    return traps
