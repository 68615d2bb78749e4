from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipelines.prediction.video import BadVideo, read_frames, writing_video


def write(path: Path, pictures: list[np.ndarray], times: list[int], time_base: Fraction) -> None:
    with writing_video(path) as write_frame:
        for picture, time in zip(pictures, times, strict=True):
            write_frame(picture, time, time_base)


def flat(level: int, height: int = 32, width: int = 48) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def test_frames_come_back_in_order_at_their_times(tmp_path):
    levels, times = [40, 120, 200, 90], [0, 3, 4, 9]
    write(tmp_path / "a.mp4", [flat(level) for level in levels], times, Fraction(1, 30))
    frames = list(read_frames(tmp_path / "a.mp4"))
    assert [frame.time * frame.time_base for frame in frames] == [Fraction(time, 30) for time in times]
    for frame, level in zip(frames, levels, strict=True):
        assert frame.image.shape == (32, 48, 3)
        assert np.abs(frame.image.astype(int) - level).max() < 12


def test_odd_sizes_are_padded(tmp_path):
    write(tmp_path / "a.mp4", [flat(100, 33, 47)], [0], Fraction(1, 25))
    (frame,) = read_frames(tmp_path / "a.mp4")
    assert frame.image.shape == (34, 48, 3)
    assert np.abs(frame.image.astype(int) - 100).max() < 12


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(BadVideo, match=r"text\.mp4 is not a readable video: .*, after 0 frames"):
        list(read_frames(tmp_path / "text.mp4"))
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(BadVideo, match=r"empty\.mp4 is not a readable video"):
        list(read_frames(tmp_path / "empty.mp4"))
