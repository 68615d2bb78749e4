"""Cuts are where pictures jump, not where they move; clips lie inside shots."""

import numpy as np

from datasets_prep.stereo.shot_cuts import clips_of_shot, find_cuts


def panorama(seed: int, width: int = 600) -> np.ndarray:
    """A wide random landscape of soft blobs."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (9, width // 8)).astype(np.float32)
    return np.kron(coarse, np.ones((8, 8), np.float32)).astype(np.uint8)


def pan(seed: int, frames: int, speed: int) -> list[np.ndarray]:
    picture = panorama(seed)
    return [picture[:, speed * t : speed * t + 128] for t in range(frames)]


def numbered(frames: list[np.ndarray], first: int = 0) -> list[tuple[int, np.ndarray]]:
    return list(enumerate(frames, first))


def test_cuts_between_different_pictures_are_found():
    frames = pan(1, 30, 1) + pan(2, 20, 0) + pan(3, 25, 2)
    assert find_cuts(numbered(frames), 0.1) == [0, 30, 50, 75]


def test_numbers_need_not_start_at_zero():
    assert find_cuts(numbered(pan(1, 10, 0) + pan(2, 10, 0), first=100), 0.1) == [100, 110, 120]


def test_steady_fast_motion_is_no_cut():
    """Each frame differs much from the last, but no more than the last did: only its start is a jump."""
    frames = pan(4, 40, 8)
    change = np.abs(frames[1].astype(int) - frames[0]).mean() / 256
    assert change > 0.1
    assert [cut for cut in find_cuts(numbered(frames), 0.1) if cut > 1] == [40]


def test_the_threshold_decides():
    dark, light = (np.full((20, 30), value, np.uint8) for value in (100, 140))
    frames = numbered([dark] * 5 + [light] * 5)
    assert find_cuts(frames, 0.15) == [0, 5, 10]
    assert find_cuts(frames, 0.16) == [0, 10]


def test_no_frames_have_no_shots():
    assert find_cuts([], 0.1) == []


def test_a_clip_of_four_a_second():
    assert list(clips_of_shot(100, 126, 24, 4)) == [[102, 108, 114, 120]]


def test_a_shot_that_is_too_short_has_no_clip():
    assert list(clips_of_shot(100, 125, 24, 4)) == []


def test_a_long_shot_has_a_clip_every_four_seconds():
    clips = list(clips_of_shot(0, 240, 24, 1))
    assert clips == [[2], [98], [194]]


def test_other_rates():
    [clip] = clips_of_shot(0, 40, 30, 4)
    assert (len(clip), clip[0]) == (4, 2)
    assert clip[-1] < 2 + 30
    [every] = clips_of_shot(0, 28, 24, 60)
    assert every == list(range(2, 26))
