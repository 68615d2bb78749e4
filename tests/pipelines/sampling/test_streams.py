import numpy as np

from pipelines.sampling.streams import augmentation_draws, random_stream, stage_seed


def test_augmentation_is_uniform_and_the_same_from_any_start():
    draws = augmentation_draws(7, np.arange(100_000), 3)
    assert draws.min() >= 0
    assert draws.max() < 1
    np.testing.assert_allclose(draws.mean(axis=0), 0.5, atol=0.005)
    np.testing.assert_allclose(np.corrcoef(draws.T), np.eye(3), atol=0.02)
    np.testing.assert_array_equal(augmentation_draws(7, np.arange(500, 600), 3), draws[500:600])
    assert not np.array_equal(augmentation_draws(8, np.arange(10), 3), draws[:10])


def test_streams_differ_by_seed_purpose_and_position():
    drawn = {
        random_stream(*key).integers(2**60)
        for key in [(1, 1, 0), (2, 1, 0), (1, 2, 0), (1, 1, 1), (1, 1, 0, 1), (1, 1, 1, 1)]
    }
    assert len(drawn) == 6
    assert random_stream(1, 1, 5).integers(2**60) == random_stream(1, 1, 5).integers(2**60)


def test_stages_have_seeds_of_their_own():
    assert stage_seed(5, 0) == 5
    assert len({stage_seed(seed, stage) for seed in range(10) for stage in range(10)}) == 100
