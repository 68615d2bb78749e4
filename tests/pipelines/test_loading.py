import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets_prep.manifest import open_datasets
from pipelines.loading import (
    Batch,
    LoaderSettings,
    ShardReader,
    crop_and_flip,
    decode_row,
    evaluation_batches,
    steps_per_block,
    training_batches,
)


@pytest.fixture
def settings(shards_folder: Path) -> LoaderSettings:
    return LoaderSettings(
        uris=[d.folder.uri for d in open_datasets([str(shards_folder)])],
        split="train",
        weights=None,
        seed=3,
        batch_size=8,
        crop=32,
        flip=True,
        steps=20,
        start=0,
        rank=0,
        world_size=1,
    )


def digest(batches: list[Batch]) -> str:
    """Of every pixel, target and name, sample by sample."""
    state = hashlib.sha256()
    for batch in batches:
        for i, sample_id in enumerate(batch.sample_ids):
            state.update(sample_id.encode())
            state.update(batch.images[i].numpy().tobytes())
            state.update(batch.inverse_depth[i].numpy().tobytes())
            state.update(batch.scale[i].numpy().tobytes())
    return state.hexdigest()


def global_batches(settings: LoaderSettings, world_size: int, processes: int) -> list[Batch]:
    """What all ranks together are given, each step's slices one after the other."""
    ranks = [
        list(training_batches(replace(settings, rank=rank, world_size=world_size), processes))
        for rank in range(world_size)
    ]
    return [batch for step in zip(*ranks, strict=True) for batch in step]


def test_the_batches_do_not_depend_on_ranks_or_processes(settings: LoaderSettings) -> None:
    one = global_batches(settings, world_size=1, processes=0)
    assert len(one) == settings.steps
    expected = digest(one)
    assert digest(global_batches(settings, world_size=2, processes=0)) == expected
    assert digest(global_batches(settings, world_size=4, processes=0)) == expected
    assert digest(global_batches(settings, world_size=1, processes=2)) == expected


@pytest.mark.parametrize("start", [1, 7, 8, 19])
def test_a_restart_goes_on_exactly_where_it_stopped(settings: LoaderSettings, start: int) -> None:
    whole = global_batches(settings, world_size=1, processes=0)
    rest = global_batches(replace(settings, start=start), world_size=1, processes=0)
    assert digest(rest) == digest(whole[start:])


def test_nothing_is_left_to_do_after_the_last_step(settings: LoaderSettings) -> None:
    assert list(training_batches(replace(settings, start=settings.steps), 0)) == []


def test_every_row_is_drawn_once_a_pass(settings: LoaderSettings) -> None:
    only = replace(settings, weights=[1.0, 0.0], batch_size=15, steps=3)
    for batch in training_batches(only, 0):
        assert len(set(batch.sample_ids)) == 15


def test_a_batch_has_the_declared_shapes_and_kinds(settings: LoaderSettings) -> None:
    batch = next(training_batches(settings, 0))
    assert (batch.images.shape, batch.images.dtype) == ((8, 32, 32, 3), torch.uint8)
    assert (batch.inverse_depth.shape, batch.inverse_depth.dtype) == ((8, 32, 32), torch.float16)
    metric = batch.dataset == 1
    assert metric.any()
    assert not metric.all()
    np.testing.assert_array_equal(batch.scale.isnan().numpy(), ~metric.numpy())


def test_a_block_is_some_steps_whatever_the_batch(settings: LoaderSettings) -> None:
    assert steps_per_block(settings) == 8
    assert steps_per_block(replace(settings, batch_size=256)) == 1
    assert steps_per_block(replace(settings, world_size=4)) == 32


@pytest.mark.parametrize("draws", [(0.0, 0.0, 0.9), (0.999, 0.999, 0.9), (0.5, 0.25, 0.1)])
def test_crops_stay_inside_and_move_image_and_target_alike(draws: tuple[float, float, float]) -> None:
    rows, columns = np.mgrid[:20, :30]
    image = np.stack([rows, columns, rows + columns], axis=-1).astype(np.uint8)
    target = (rows * 30 + columns).astype(np.float16)
    cropped, cropped_target = crop_and_flip(image, target, 16, np.asarray(draws), flip=True)
    assert cropped.shape == (16, 16, 3)
    expected = cropped[..., 0].astype(int) * 30 + cropped[..., 1]
    np.testing.assert_array_equal(cropped_target, expected.astype(np.float16))
    mirrored = cropped[0, 0, 1] > cropped[0, -1, 1]
    assert mirrored == (draws[2] < 0.5)


def test_without_flip_nothing_is_mirrored() -> None:
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    same, _ = crop_and_flip(image, np.zeros((4, 4), np.float16), 4, np.zeros(3), flip=False)
    np.testing.assert_array_equal(same, image)


def test_what_is_too_small_is_padded_as_invalid() -> None:
    image = np.full((10, 40, 3), 7, np.uint8)
    padded, target = crop_and_flip(image, np.ones((10, 40), np.float16), 32, np.full(3, 0.9), flip=False)
    assert padded.shape == (32, 32, 3)
    assert np.isnan(target[10:]).all()
    assert (target[:10] == 1).all()


def test_evaluation_sees_each_image_once_whatever_the_number_of_workers(shards_folder: Path) -> None:
    for dataset in open_datasets([str(shards_folder)]):
        expected = sorted(one_by_one(dataset, 1))
        assert len(set(expected)) == dataset.manifest.samples["val"]
        for world_size in (2, 3, 7):
            assert sorted(one_by_one(dataset, world_size)) == expected


def one_by_one(dataset: object, world_size: int) -> list[str]:
    return [
        sample_id
        for rank in range(world_size)
        for batch in evaluation_batches(dataset, "val", 0, rank, world_size, batch_size=3)  # type: ignore[arg-type]
        for sample_id in batch.sample_ids
    ]


def test_a_damaged_row_is_named(shards_folder: Path) -> None:
    reader = ShardReader(open_datasets([str(shards_folder)]), "train")
    row = reader.read_group(0, 0)[0]
    with pytest.raises(ValueError, match=f"sample {row['sample_id']}: .*JPEG|sample {row['sample_id']}"):
        decode_row({**row, "image": row["image"][:50]})
    reader.close()
