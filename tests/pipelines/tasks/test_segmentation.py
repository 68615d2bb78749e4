from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

import dpt
from datasets_prep.manifest import NotADataset, PreparedDataset, open_datasets
from dpt.class_names import class_names
from dpt.predict.transforms import normalise
from pipelines.config import ConfigError, TrainConfig
from pipelines.loading.batches import Batch, training_batches
from pipelines.tasks.registry import task_of
from pipelines.training.checkpoint import TrainingState, restore, take_snapshot, write_file
from pipelines.training.loop import loader_settings
from pipelines.training.optimizer import create_optimizer, set_learning_rates
from pipelines.training.parallel import synchronise_norms
from pipelines.training.ranks import Ranks
from pipelines.training.step import TrainingStep
from tests.support.labelled_sets import config, prepare, tiny
from tests.support.models import batch_of
from tests.support.two_ranks import run_in_two_ranks


@pytest.fixture(scope="module")
def ade20k(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return prepare("ade20k", tmp_path_factory.mktemp("ade20k"))


def labelled_batch(chosen: slice = slice(0, 4)) -> Batch:
    """Four crops, of which one has a single labelled row and one has none."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 255, (4, 64, 64, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 150, (4, 64, 64), generator=generator).to(torch.uint8)
    labels[1, 1:] = 255
    labels[2] = 255
    batch = batch_of(images, labels, [0] * 4, chosen)
    batch.scale[:] = float("nan")
    return batch


def one_step(settings: TrainConfig, batch: Batch) -> tuple[dpt.DPT, float]:
    model = in_precision_of(settings, tiny(dropout=0.0).train())
    step = TrainingStep(model, model, create_optimizer(model, settings), None, settings, ["a"], Ranks())
    result = step(batch, 1)
    assert not result.skipped
    return model, result.loss.item()


def in_precision_of(settings: TrainConfig, model: dpt.DPT) -> dpt.DPT:
    return model.double() if settings.precision == "float64" else model


def gradients(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_a_step_follows_the_mean_over_all_labelled_pixels():
    found, loss = one_step(config(), labelled_batch())
    model, batch = tiny(dropout=0.0).train(), labelled_batch()
    logits, auxiliary = model(normalise(batch.images, model.mean, model.std))
    labels = batch.target.long()
    expected = F.cross_entropy(logits, labels, ignore_index=255)
    expected = expected + 0.2 * F.cross_entropy(auxiliary, labels, ignore_index=255)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert (gradients(found) - gradients(model)).norm() < 1e-4 * gradients(model).norm()


def test_a_batch_without_labels_changes_no_weight():
    batch = labelled_batch()
    batch.target[:] = 255
    model, loss = one_step(config(segmentation={"weight_decay": 0.0}), batch)
    assert loss == 0.0
    assert gradients(model).abs().max() == 0.0


def rank_of_two(rank: int) -> Any:
    # In float32, rounding that differs puts units on either side of a ReLU.
    settings = config(precision="float64")
    model = in_precision_of(settings, tiny(dropout=0.0).train())
    synchronise_norms(model)
    parallel = DistributedDataParallel(model)
    optimizer = create_optimizer(model, settings)
    step = TrainingStep(model, parallel, optimizer, None, settings, ["a"], Ranks(rank, 2))
    result = step(labelled_batch(slice(0, 1) if rank == 0 else slice(1, 4)), 1)
    return result.loss, gradients(model), dict(model.named_buffers())


@pytest.mark.heavy
def test_two_ranks_learn_what_one_learns(tmp_path):
    found = run_in_two_ranks(rank_of_two, tmp_path)
    whole, loss = one_step(config(precision="float64"), labelled_batch())
    assert (found[0][0] + found[1][0]).item() / 2 == pytest.approx(loss, rel=1e-6)
    for _, gradient, buffers in found:
        assert (gradient - gradients(whole)).norm() < 1e-6 * gradients(whole).norm()
        for name, buffer in whole.named_buffers():
            torch.testing.assert_close(buffers[name], buffer, rtol=1e-6, atol=1e-7)


def test_batches_are_the_same_for_one_rank_and_for_two(ade20k):
    settings = config(steps=6)

    def batches(start: int, rank: int, world_size: int) -> list[Batch]:
        found = loader_settings(settings, [ade20k], start, Ranks(rank, world_size))
        return list(training_batches(found, 0))

    whole, shares = batches(0, 0, 1), [batches(0, rank, 2) for rank in range(2)]
    assert len(whole) == 6
    for step, batch in enumerate(whole):
        assert (batch.target.dtype, batch.target.shape) == (torch.uint8, (4, 64, 64))
        assert torch.equal(batch.target, torch.cat([share[step].target for share in shares]))
        assert torch.equal(batch.images, torch.cat([share[step].images for share in shares]))
        assert batch.sample_ids == [name for share in shares for name in share[step].sample_ids]
    for batch, again in zip(whole[4:], batches(4, 0, 1), strict=True):
        assert torch.equal(batch.target, again.target)
        assert torch.equal(batch.images, again.images)
    classes = {int(label) for batch in whole for label in batch.target.unique()}
    assert classes <= {2, 12, 9, 4, 16, 255}
    assert len(classes) > 3


@pytest.mark.heavy
def test_a_resumed_run_is_the_same_to_the_last_bit(ade20k, tmp_path):
    settings = config(steps=6)
    batches = list(training_batches(loader_settings(settings, [ade20k], 0, Ranks()), 0))

    def go_on(model: dpt.DPT, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
        step = TrainingStep(model, model, optimizer, None, settings, ["a"], Ranks())
        for number in range(first, last + 1):
            set_learning_rates(optimizer, settings, number - 1)
            assert not step(batches[number - 1], number).skipped

    model = tiny().train()
    optimizer = create_optimizer(model, settings)
    go_on(model, optimizer, 1, 3)
    snapshot = take_snapshot(model, optimizer, None, model.config.to_dict(), TrainingState(3))
    for name in snapshot.tensors:
        write_file(snapshot, name, tmp_path / name)
    go_on(model, optimizer, 4, 6)

    resumed = tiny().train()
    again = create_optimizer(resumed, settings)
    restore(tmp_path, resumed, again, None)
    go_on(resumed, again, 4, 6)
    for (name, tensor), other in zip(model.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name
    assert [group["lr"] for group in again.param_groups] == [0.02 * (1 - 5 / 6) ** 0.9] * 2


@pytest.mark.heavy
def test_it_learns(ade20k):
    settings = config(steps=60)
    model = tiny()
    task = task_of(settings)
    before = task.evaluate_share(model, ade20k, "val", 0, 1).result()
    model.train()
    optimizer = create_optimizer(model, settings)
    step = TrainingStep(model, model, optimizer, None, settings, ["a"], Ranks())
    losses = []
    batches = training_batches(loader_settings(settings, [ade20k], 0, Ranks()), 0)
    for number, batch in enumerate(batches, start=1):
        set_learning_rates(optimizer, settings, number - 1)
        losses.append(step(batch, number).loss.item())
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:3])
    after = task.evaluate_share(model, ade20k, "val", 0, 1).result()
    assert after["pix_acc"] > before["pix_acc"]
    assert after["miou"] > before["miou"]
    assert model.training


def test_the_start_has_the_datasets_classes_and_depends_on_the_seed_alone(ade20k):
    depth = dpt.create_model("dpt_tiny", image_size=96)
    starts = [task_of(config(seed=seed)).prepare_model(depth, [ade20k], print) for seed in (1, 1, 2)]
    for start in starts:
        assert (start.config.task, start.config.image_size) == ("segmentation", 64)
        assert start.config.class_names == class_names("ade20k")
        assert torch.equal(start.backbone.vit.pos_embed, depth.backbone.vit.pos_embed)
    heads = [start.head.conv2.weight for start in starts]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize(("changes", "message"), [
    ({"optimizer": {}}, "optimizer.objective: task=segmentation has one loss"),
    ({"crop": (64, 96)}, "crop: .* must be square"),
])  # fmt: skip
def test_settings_that_do_not_fit(ade20k, changes, message):
    with pytest.raises(ConfigError, match=message):
        task_of(config(**changes)).check(dpt.create_model("dpt_tiny"), [ade20k])


def test_data_and_models_that_do_not_fit(ade20k, shards_folder, tmp_path):
    task = task_of(config())
    task.check(dpt.create_model("dpt_tiny"), [ade20k])
    with torch.device("meta"):
        midas = dpt.create_model("midas_v21")
    with pytest.raises(ConfigError, match="decoder 'midas' cannot be made to segment"):
        task.check(midas, [ade20k])
    depth = open_datasets([str(shards_folder)])
    with pytest.raises(NotADataset, match=r"redweb has .* as ground truth, labels are needed"):
        task.check(dpt.create_model("dpt_tiny"), [ade20k, depth[0]])
    other = prepare("pascal_context_59", tmp_path, scenes=4)
    with pytest.raises(NotADataset, match="ade20k and pascal_context_59 have different classes"):
        task.check(dpt.create_model("dpt_tiny"), [ade20k, other])


def test_pictures_show_image_labels_prediction_and_overlay(ade20k):
    picture = task_of(config()).sample_predictions(tiny().eval(), [ade20k], "val", 2)
    assert picture.dtype == np.uint8
    assert picture.shape[0] > 2 * 192
    assert picture.shape[1] > 4 * 140
