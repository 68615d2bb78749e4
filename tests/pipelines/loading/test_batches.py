import hashlib
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import torch

from datasets_prep.manifest import open_datasets
from pipelines.config import Executor, PerturbSection
from pipelines.loading.batches import Batch, LoaderSettings, evaluation_batches, training_batches
from pipelines.loading.crops import RelativeDepthCrops
from pipelines.loading.perturbation import Perturbation
from pipelines.loading.same_size import SameSizeBatches
from pipelines.sampling.mixture import DEALT_STEPS
from pipelines.sampling.plan import Stage
from tests.support.shards import write_sealed


@pytest.fixture
def settings(shards_folder: Path) -> LoaderSettings:
    where = {"uris": [d.folder.uri for d in open_datasets([str(shards_folder)])], "split": "train"}
    stages = [Stage(steps=12, shares=[1, 1], sampling="stratified"), Stage(steps=8)]
    sharing = {"seed": 3, "batch_size": 8, "start": 0, "rank": 0, "world_size": 1}
    return LoaderSettings(**where, stages=stages, crops=RelativeDepthCrops((32, 32), flip=True), **sharing)


def digest(batches: list[Batch]) -> str:
    """Of every pixel, target and name, sample by sample."""
    state = hashlib.sha256()
    for batch in batches:
        for i, sample_id in enumerate(batch.sample_ids):
            state.update(sample_id.encode())
            for tensor in (batch.images, batch.target, batch.scale, batch.box):
                state.update(tensor[i].numpy().tobytes())
    return state.hexdigest()


def global_batches(
    settings: LoaderSettings, world_size: int, processes: int = 0, executor: Executor = "local"
) -> list[Batch]:
    """What all ranks together are given, each step's slices one after the other."""
    ranks = [
        list(training_batches(replace(settings, rank=rank, world_size=world_size), processes, executor))
        for rank in range(world_size)
    ]
    return [batch for step in zip(*ranks, strict=True) for batch in step]


@pytest.fixture
def whole(settings: LoaderSettings) -> list[Batch]:
    """The run as one rank without loading processes is given it."""
    batches = global_batches(settings, world_size=1)
    assert len(batches) == settings.steps
    return batches


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_the_batches_do_not_depend_on_ranks(settings, whole, world_size):
    assert digest(global_batches(settings, world_size)) == digest(whole)


@pytest.mark.heavy
def test_the_batches_do_not_depend_on_processes(settings, whole):
    # Blocks so short that their memory is used again.
    short = replace(settings, block_samples=8)
    assert digest(global_batches(short, world_size=1, processes=2)) == digest(whole)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_batches_do_not_depend_on_the_executor(settings, whole, world_size, monkeypatch, ray_session):
    # Blocks and datasets so short that there are several.
    monkeypatch.setattr("pipelines.loading.on_ray.DATASET_TASKS", 4)
    short = replace(settings, block_samples=8)
    assert digest(global_batches(short, world_size, 2, "ray")) == digest(whole)


@pytest.mark.parametrize("start", [1, 7, 11, 12, 13, 19])
def test_a_restart_goes_on_exactly_where_it_stopped(settings, whole, start):
    rest = global_batches(replace(settings, start=start), world_size=1)
    assert digest(rest) == digest(whole[start:])


def test_a_restart_on_ray_goes_on_exactly_where_it_stopped(settings, whole, ray_session):
    rest = global_batches(replace(settings, start=13), world_size=2, executor="ray")
    assert digest(rest) == digest(whole[13:])


@pytest.fixture
def perturbed(settings: LoaderSettings) -> LoaderSettings:
    """The second dataset, tartanair, is pseudo-labelled."""
    return replace(settings, perturb=Perturbation(PerturbSection(), (1,)), block_samples=8)


@pytest.mark.heavy
def test_perturbed_batches_do_not_depend_on_ranks_processes_and_restarts(perturbed):
    whole = global_batches(perturbed, 1)
    assert any(batch.box.any() for batch in whole)
    for world_size in (2, 4):
        assert digest(global_batches(perturbed, world_size)) == digest(whole)
    assert digest(global_batches(perturbed, 1, processes=2)) == digest(whole)
    for start in (7, 13):
        assert digest(global_batches(replace(perturbed, start=start), 2)) == digest(whole[start:])


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_perturbed_batches_do_not_depend_on_the_executor(perturbed, world_size, ray_session):
    assert digest(global_batches(perturbed, world_size, 2, "ray")) == digest(global_batches(perturbed, 1))


def test_perturbing_a_dataset_changes_its_images_alone(perturbed, whole):
    mixed = []
    for plain, found in zip(whole, global_batches(perturbed, 1), strict=True):
        assert found.sample_ids == plain.sample_ids
        for i, (top, left, bottom, right) in enumerate(found.box.tolist()):
            own = torch.ones(32, 32, dtype=torch.bool)
            own[top:bottom, left:right] = False
            assert torch.equal(found.target[i][own].isnan(), plain.target[i][own].isnan())
            same = found.target[i][own] == plain.target[i][own]
            assert (same | plain.target[i][own].isnan()).all()
            if found.dataset[i] == 0:
                assert own.all()
                assert torch.equal(found.images[i], plain.images[i])
            else:
                mixed.append(not own.all())
    assert 0.3 < np.mean(mixed) < 0.7


def test_nothing_is_left_to_do_after_the_last_step(settings):
    finished = replace(settings, start=settings.steps)
    assert list(training_batches(finished, 0)) == []
    assert list(training_batches(finished, 1, "ray")) == []


def test_every_row_is_drawn_once_a_pass(settings):
    only = replace(settings, stages=[Stage(DEALT_STEPS, [1.0, 0.0])], batch_size=15)
    drawn = Counter(name for batch in training_batches(only, 0) for name in batch.sample_ids)
    assert list(drawn.values()) == 15 * [DEALT_STEPS]


def test_a_batch_has_the_declared_shapes_and_kinds(settings):
    batch = next(training_batches(settings, 0))
    assert (batch.images.shape, batch.images.dtype) == ((8, 32, 32, 3), torch.uint8)
    assert (batch.target.shape, batch.target.dtype) == ((8, 32, 32), torch.float16)
    metric = batch.dataset == 1
    assert metric.any()
    assert not metric.all()
    np.testing.assert_array_equal(batch.scale.isnan().numpy(), ~metric.numpy())


def test_slices_of_ranks_that_do_not_divide_the_batch_differ_by_one(settings):
    slices = [replace(settings, rank=rank, world_size=3).slice for rank in range(3)]
    assert slices == [(0, 2), (2, 5), (5, 8)]


def test_a_block_is_some_steps_whatever_the_batch(settings):
    assert replace(settings, block_samples=64).steps_per_block == 8
    assert replace(settings, block_samples=64, batch_size=1000).steps_per_block == 1
    assert replace(settings, block_samples=64, world_size=4).steps_per_block == 32


@pytest.mark.parametrize("free", [0, 1])
def test_training_that_leaves_too_few_cpus_is_fed_all_the_same(
    settings, whole, free, monkeypatch, ray_session
):
    monkeypatch.setattr("pipelines.loading.on_ray.START_SECONDS", 1)
    held = ray.util.placement_group([{"CPU": ray.cluster_resources()["CPU"] - free}])
    ray.get(held.ready())
    try:
        assert digest(global_batches(settings, 1, 2, "ray")) == digest(whole)
    finally:
        ray.util.remove_placement_group(held)


def test_a_loading_process_that_fails_names_the_sample(settings, tmp_path, shards_folder, ray_session):
    damaged = damaged_copy(shards_folder, tmp_path)
    broken = replace(settings, uris=[d.folder.uri for d in open_datasets([str(damaged)])])
    for executor in ("local", "ray"):
        with pytest.raises(Exception, match="sample rendered"):
            list(training_batches(broken, 0, executor))


def damaged_copy(shards: Path, to: Path) -> Path:
    """The same datasets, but the images of one have lost their ends."""
    shutil.copytree(shards, to, dirs_exist_ok=True)
    for path in to.glob("tartanair/*/train-*.parquet"):
        table = pq.read_table(path)
        cut = pa.array([image.as_py()[:100] for image in table["image"]], pa.binary())
        write_sealed(table.set_column(table.schema.get_field_index("image"), "image", cut), path)
    return to


def test_evaluation_sees_each_image_once_whatever_the_number_of_workers(shards_folder):
    for dataset in open_datasets([str(shards_folder)]):
        expected = sorted(one_by_one(dataset, 1))
        assert len(set(expected)) == dataset.manifest.samples["val"]
        for world_size in (2, 3, 7):
            assert sorted(one_by_one(dataset, world_size)) == expected


def one_by_one(dataset: object, world_size: int) -> list[str]:
    shares = [evaluation_batches(dataset, "val", 0, rank, world_size, 3) for rank in range(world_size)]
    return [sample_id for share in shares for batch in share for sample_id in batch.sample_ids]


def grouped(items: str, batches: SameSizeBatches[str]) -> list[str]:
    """Items that are letters; capitals are four times as large."""
    return ["".join(batch) for batch in batches.of(items, lambda item: (2, 2) if item.isupper() else (1, 1))]


def test_items_of_one_size_share_a_batch_and_the_rest_comes_last():
    assert grouped("aAbBcCd", SameSizeBatches(3)) == ["abc", "ABC", "d"]
    assert grouped("aAbcBd", SameSizeBatches(3)) == ["abc", "d", "AB"]  # in the order of first appearance


def test_batches_of_large_items_are_smaller():
    assert grouped("aAbBCc", SameSizeBatches(3, most_pixels=8)) == ["AB", "abc", "C"]
    assert grouped("ABc", SameSizeBatches(3, most_pixels=1)) == ["A", "B", "c"]


def test_when_too_many_items_wait_the_largest_batch_is_due():
    assert grouped("AabBc", SameSizeBatches(3, most_waiting=3)) == ["ab", "AB", "c"]
