from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import dpt
from dpt import dataset_gradients
from dpt.ema import MovingAverage
from dpt.predict.transforms import normalise
from dpt.sketch import LENGTH
from pipelines.config import ConfigError, TrainConfig
from pipelines.config_files import with_changes
from pipelines.loading.batches import Batch
from pipelines.tasks.relative_depth import RelativeDepth
from pipelines.training.checkpoint import TrainingState, restore, take_snapshot, write_file
from pipelines.training.gradients import step_seed
from pipelines.training.optimizer import create_optimizer as build_optimizer
from pipelines.training.parallel import shard_model, synchronise_norms
from pipelines.training.ranks import Ranks
from pipelines.training.step import TrainingStep
from tests.support.losses import reference_trimmed
from tests.support.models import batch_of
from tests.support.two_ranks import run_in_two_ranks
from tests.support.waiting import BlockingCopies, Waits

AB = ("a", "b")
"""Names of two datasets."""


def config(model: str = "dpt_tiny", objective: str = "average", **optimizer: object) -> TrainConfig:
    rates = {"objective": objective, "backbone_lr": 1e-3, "decoder_lr": 1e-3, **optimizer}
    network, data = {"name": model, "pretrained": False}, {"batch_size": 4, "crop": 64}
    return TrainConfig(model=network, optimizer=rates, **data, precision="float32")


def batch(chosen: slice = slice(0, 4), mixed: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 255, (4, 64, 64, 3), dtype=torch.uint8, generator=generator)
    found = batch_of(images, torch.rand(4, 64, 64, generator=generator).half(), [0, 1, 1, 0], chosen)
    boxes = torch.tensor([[0, 0, 0, 0], [8, 4, 40, 60], [0, 0, 0, 0], [0, 30, 64, 64]])
    return replace(found, box=boxes[chosen]) if mixed else found


def model_for(settings: TrainConfig) -> dpt.DPT:
    torch.manual_seed(0)
    return dpt.create_model(settings.model.name, image_size=64, **settings.model.overrides).train()


def one_step(settings: TrainConfig, data: Batch | None = None) -> tuple[dpt.DPT, float]:
    model = model_for(settings)
    optimizer = build_optimizer(model, settings)
    step = TrainingStep(model, model, optimizer, None, settings, AB, Ranks())
    return model, step(data or batch(), 1).loss.item()


def gradients(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Up to rounding, which the trimming of single residuals enlarges in single entries."""
    assert (found - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize("pieces", [2, 3, 4, 9])
def test_micro_batches_give_the_gradient_of_the_whole(pieces):
    whole, loss = one_step(config())
    parts, same = one_step(config(accumulate=pieces))
    assert same == pytest.approx(loss, rel=1e-5)
    assert_same(gradients(parts), gradients(whole))


@pytest.mark.parametrize("pieces", [2, 3, 9])
def test_micro_batches_combine_the_same_objectives(pieces):
    whole, loss = one_step(config(objective="multi_objective"))
    parts, same = one_step(config(objective="multi_objective", accumulate=pieces))
    assert same == pytest.approx(loss, rel=1e-5)
    assert_same(gradients(parts), gradients(whole))


STUDENT = {"loss.trims": {"b": 0.1}, "loss.gradient_weights": {"b": 0.0}}


def student(**options: object) -> TrainConfig:
    """A dataset "b" of pseudo-labels, whose losses are those of Depth Anything V2."""
    return with_changes(config(**options), STUDENT)


@pytest.mark.parametrize("options", [
    {"accumulate": 3}, {"objective": "multi_objective"}, {"objective": "multi_objective", "accumulate": 3},
    {"objective": "multi_objective", "two_passes": True},
])  # fmt: skip
def test_a_students_losses_are_its_datasets_own_in_every_mode(options):
    settings, data = student(**options), batch(mixed=True)
    model, found = one_step(settings, data)
    with torch.no_grad():
        output = model_for(settings)(normalise(data.images, model.mean, model.std)).numpy()
    expected = []
    for image, (top, left, bottom, right) in enumerate(data.box.tolist()):
        inside = np.zeros((64, 64), bool)
        inside[top:bottom, left:right] = True
        trim, weight = (0.1, 0.0) if data.dataset[image] else (0.2, 0.5)
        target = data.target[image].double().numpy()
        parts = [part for part in (inside, ~inside) if part.any()]
        losses = [
            reference_trimmed(output[image].astype(float), target, part, trim, weight) for part in parts
        ]
        expected.append(np.dot([part.mean() for part in parts], losses))
    assert found == pytest.approx(np.mean(expected), rel=1e-4)
    if not settings.optimizer.two_passes:
        plain = {name: value for name, value in options.items() if name != "accumulate"}
        assert_same(gradients(model), gradients(one_step(student(**plain), data)[0]))


class SmallFeatures(torch.nn.Module):
    """In place of `FeatureAlignment`: the mean square of an image's features."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def forward(self, features: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        assert len(features) == len(images)
        return features.float().square().mean(dim=(1, 2, 3))


ALIGNED = {"feature_alignment.datasets": ["b"], "feature_alignment.weight": 3.0}


@pytest.mark.parametrize("options", [
    {}, {"accumulate": 3}, {"objective": "multi_objective"},
    {"objective": "multi_objective", "two_passes": True},
])  # fmt: skip
def test_features_of_chosen_datasets_are_aligned_in_every_mode(options, monkeypatch):
    monkeypatch.setattr("pipelines.training.gradients.FeatureAlignment", SmallFeatures)
    _, loss = one_step(config(**options))
    model, found = one_step(with_changes(config(**options), ALIGNED))
    with torch.no_grad():
        pixels = normalise(batch().images, model.mean, model.std)
        squares = model_for(config()).backbone(pixels)[-1].features.square().mean(dim=(1, 2, 3)).tolist()
    assert found == pytest.approx(loss + 3 * (squares[1] + squares[2]) / 4, rel=1e-5)
    if options == {"accumulate": 3}:
        assert_same(gradients(model), gradients(one_step(with_changes(config(), ALIGNED))[0]))


def test_an_encoder_without_weights_is_refused():
    settings = with_changes(config(), {**ALIGNED, "feature_alignment.encoder": "vit_hybrid_small"})
    with pytest.raises(
        ConfigError, match=r"^feature_alignment\.encoder: cannot fetch its weights: .*pretrained"
    ):
        one_step(settings)


def test_layers_computed_again_give_the_same_combination():
    whole, loss = one_step(config(objective="multi_objective"))
    settings = with_changes(config(objective="multi_objective"), {"activation_checkpointing": True})
    model = model_for(settings)
    model.set_checkpointing(True)
    runs = []
    model.backbone.vit.blocks[0].norm1.register_forward_hook(lambda *_: runs.append(1))
    step = TrainingStep(model, model, build_optimizer(model, settings), None, settings, AB, Ranks())
    assert step(batch(), 1).loss.item() == pytest.approx(loss, rel=1e-5)
    assert len(runs) == 2, "one pass, and the layer once more in the backward pass"
    assert_same(gradients(model), gradients(whole))


@pytest.mark.heavy
@pytest.mark.parametrize(("two_passes", "compiled"), [(False, False), (True, True)])
def test_what_is_compiled_is_not_watched(two_passes, compiled):
    torch.compiler.reset()
    settings = config(objective="multi_objective", two_passes=two_passes)
    settings = with_changes(settings, {"compile": "regions", "activation_checkpointing": True})
    model, traced = model_for(settings), []
    model.set_checkpointing(True)
    model.compile_regions(backend=lambda graph, inputs: traced.append(1) or graph)
    step = TrainingStep(model, model, build_optimizer(model, settings), None, settings, AB, Ranks())
    step(batch(), 1)
    whole, _ = one_step(config(objective="multi_objective", two_passes=two_passes))
    assert_same(gradients(model), gradients(whole))
    assert bool(traced) == compiled


def test_a_model_that_cannot_be_taken_apart_takes_a_pass_for_each_dataset(monkeypatch):
    whole, loss = one_step(config(objective="multi_objective"))
    monkeypatch.delitem(dataset_gradients._RULES, "conv2d")
    other, same = one_step(config(objective="multi_objective"))
    assert same == pytest.approx(loss, rel=1e-5)
    assert_same(gradients(other), gradients(whole))


def test_multi_objective_of_one_dataset_is_the_average():
    data = batch()
    data.dataset[:] = 1
    average, loss = one_step(config(), data)
    multi, same = one_step(config(objective="multi_objective"), data)
    assert same == pytest.approx(loss, rel=1e-5)
    assert_same(gradients(multi), gradients(average))


def test_multi_objective_of_two_datasets_is_shorter_than_the_average():
    average, _ = one_step(config())
    multi, _ = one_step(config(objective="multi_objective"))
    assert gradients(multi).norm() < gradients(average).norm()


def test_a_long_gradient_is_clipped():
    free, _ = one_step(config())
    assert gradients(free).norm() > 0.01
    clipped, _ = one_step(config(clip_norm=0.01))
    assert gradients(clipped).norm().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("objective", ["average", "multi_objective"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e9])
def test_a_step_with_a_loss_out_of_bounds_changes_nothing(objective, poison):
    settings = config("dpt_small", objective)
    model = model_for(settings)
    optimizer, average = build_optimizer(model, settings), MovingAverage(model, 0.5)
    step = TrainingStep(model, model, optimizer, average, settings, AB, Ranks())
    assert not step(batch(), 1).skipped
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moments = [state["exp_avg"].clone() for state in optimizer.state.values()]
    task = step._task
    assert isinstance(task, RelativeDepth)
    healthy = task.criterion

    def poisoned(prediction: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        # The sample whose target begins like that of "c".
        guilty = target[:, 0, 0] == batch().target[2, 0, 0].float()
        return torch.where(guilty, torch.tensor(poison), healthy(prediction, target, valid))

    task.criterion = poisoned
    result = step(batch(), 2)
    assert result.skipped
    assert result.offending == ["c"]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    for state, moment in zip(optimizer.state.values(), moments, strict=True):
        assert torch.equal(state["exp_avg"], moment)
    task.criterion = healthy
    assert not step(batch(), 3).skipped


@pytest.mark.heavy
@pytest.mark.parametrize("objective", ["average", "multi_objective"])
@pytest.mark.parametrize("kind", ["dpt_tiny", "dpt_small"])
def test_the_memory_format_changes_no_update(objective, kind, tmp_path):
    """Fused optimisers take parameters, gradients and moments as rows of numbers, whatever their strides."""
    found = []
    for channels_last in (False, True):
        settings = with_changes(config(kind, objective), {"channels_last": channels_last})
        settings = with_changes(settings, {"precision": "float64"})
        model = model_for(settings).double()
        if channels_last:
            model.to(memory_format=torch.channels_last)
        optimizer = build_optimizer(model, settings)
        step = TrainingStep(model, model, optimizer, None, settings, AB, Ranks())
        step(batch(), 1)
        snapshot = take_snapshot(model, optimizer, None, model.config.to_dict(), TrainingState(1))
        for name in snapshot.tensors:
            write_file(snapshot, name, tmp_path / name)
        restore(tmp_path, model, optimizer, None)
        step(batch(), 2)
        found.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("options", [
    {"objective": "average"}, {"objective": "average", "accumulate": 2, "clip_norm": 0.1},
    {"objective": "multi_objective"}, {"objective": "multi_objective", "two_passes": True},
])  # fmt: skip
def test_no_step_waits_for_the_device(options):
    settings = student(**options)
    model = model_for(settings)
    optimizer, average = build_optimizer(model, settings), MovingAverage(model, 0.5)
    step = TrainingStep(model, model, optimizer, average, settings, AB, Ranks())
    step(batch(), 1)
    with Waits() as waits, BlockingCopies() as copies:
        result = step(batch(mixed=True), 2)
    assert not waits.found, waits.found[0]
    assert not copies.found, copies.found[0]
    assert not result.skipped


def test_an_overflowing_gradient_is_skipped_too():
    settings = config()
    model = model_for(settings)
    step = TrainingStep(model, model, build_optimizer(model, settings), None, settings, AB, Ranks())
    next(model.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    result = step(batch(), 1)
    assert result.skipped
    assert result.offending == []


def test_random_numbers_of_a_step_depend_on_seed_step_and_rank_alone():
    settings = config()
    dropping = with_changes(settings, {"model.overrides.backbone_arguments": {"proj_drop_rate": 0.5}})
    _, first = one_step(dropping)
    torch.rand(17)
    _, again = one_step(dropping)
    assert first == again
    _, without = one_step(settings)
    assert first != without
    seeds = {step_seed(s, n, r) for s in (0, 1) for n in (1, 2) for r in (0, 1)}
    assert len(seeds) == 8


def counting_rank(rank: int, settings: TrainConfig) -> Any:
    """Bytes that a rank exchanges in its second step, and those of the model's parameters."""
    model = model_for(settings)
    step = TrainingStep(model, model, build_optimizer(model, settings), None, settings, AB, Ranks(rank, 2))
    step(batch(slice(rank, 4, 2)), 1)
    exchanged = []
    all_reduce = dist.all_reduce

    def counted(tensor: torch.Tensor, *options: Any, **named: Any) -> Any:
        exchanged.append(tensor.nbytes)
        return all_reduce(tensor, *options, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "all_reduce", counted)
        step(batch(slice(rank, 4, 2)), 2)
    return torch.tensor([sum(exchanged), sum(p.nbytes for p in model.parameters())])


@pytest.mark.heavy
def test_ranks_exchange_no_more_than_in_plain_averaging(tmp_path):
    for gram, gradients_each in (("sketch", 1), ("exact", 2)):
        settings = config(objective="multi_objective", gram=gram)
        (tmp_path / gram).mkdir()
        exchanged, of_model = run_in_two_ranks(counting_rank, tmp_path / gram, settings)[0].tolist()
        sketches = 2 * LENGTH * 8 if gram == "sketch" else 0
        assert exchanged == pytest.approx(gradients_each * of_model + sketches, abs=100)
    # Ten datasets, DPT-Large: 343 million parameters in float32.
    assert 10 * LENGTH * 8 < 0.1 * 343e6 * 4


def uneven_rank(rank: int, settings: TrainConfig) -> Any:
    model = model_for(settings)
    synchronise_norms(model)
    parallel = DistributedDataParallel(model)
    optimizer = build_optimizer(model, settings)
    step = TrainingStep(model, parallel, optimizer, None, settings, AB, Ranks(rank, 2))
    result = step(batch(slice(0, 3) if rank == 0 else slice(3, 4)), 1)
    return result.loss, gradients(model), dict(model.named_buffers())


@pytest.mark.parametrize("pieces", [1, 3])
def test_two_passes_give_the_combination_up_to_the_error_of_its_sketch(pieces):
    whole, loss = one_step(config(objective="multi_objective"))
    sketched, same = one_step(config(objective="multi_objective", two_passes=True, accumulate=pieces))
    assert same == pytest.approx(loss, rel=1e-5)
    assert_combined(gradients(sketched), gradients(whole))


def assert_combined(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Up to the error of a sketch; plain averaging is ten times as far from the combination."""
    averaged, _ = one_step(config())
    error = (found - expected).norm() / expected.norm()
    assert error < 0.02
    assert (gradients(averaged) - expected).norm() > 0.2 * expected.norm()


@pytest.mark.heavy
@pytest.mark.parametrize("options", [{}, {"two_passes": True}])
def test_ranks_exchange_one_gradient_and_sketches(tmp_path, options):
    settings = config(objective="multi_objective", **options)
    whole, loss = one_step(config(objective="multi_objective"))
    found = run_in_two_ranks(uneven_rank, tmp_path, settings)
    assert (found[0][0] + found[1][0]).item() / 2 == pytest.approx(loss, rel=1e-5)
    for _, gradient, _ in found:
        assert_combined(gradient, gradients(whole))


def sharded_rank(rank: int, settings: TrainConfig, share: int, separable: bool, mixed: bool = False) -> Any:
    """A step of a sharded model whose first rank has the batch's images from 0 to `share`."""
    model = model_for(settings)
    model.set_checkpointing(settings.activation_checkpointing)
    shard_model(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.training.gradients.FeatureAlignment", SmallFeatures)
        step = TrainingStep(
            model, model, build_optimizer(model, settings), None, settings, AB, Ranks(rank, 2)
        )
        if not separable:
            patch.delitem(dataset_gradients._RULES, "conv2d")
        result = step(batch(slice(*((0, share), (share, 4))[rank]), mixed), 1)
    whole = [parameter.grad.full_tensor().flatten() for parameter in model.parameters()]
    return result.loss, torch.cat(whole)


@pytest.mark.heavy
@pytest.mark.parametrize("share", [2, 3, 4])
@pytest.mark.parametrize(
    ("separable", "again"),
    [(True, False), (False, False), (True, True)],
    ids=["apart", "one by one", "again"],
)
def test_shards_are_those_of_the_whole_combination(tmp_path, share, separable, again):
    settings = config(objective="multi_objective", accumulate=2)
    settings = with_changes(settings, {"activation_checkpointing": again})
    found = run_in_two_ranks(sharded_rank, tmp_path, settings, share, separable)
    whole, loss = one_step(config(objective="multi_objective"))
    assert (found[0][0] + found[1][0]).item() / 2 == pytest.approx(loss, rel=1e-5)
    for _, gradient in found:
        if separable:
            assert_combined(gradient, gradients(whole))
        else:
            assert_same(gradient, gradients(whole))


@pytest.mark.heavy
def test_a_students_losses_are_its_datasets_own_in_shards_too(tmp_path, monkeypatch):
    settings = with_changes(student(objective="multi_objective"), ALIGNED)
    found = run_in_two_ranks(sharded_rank, tmp_path, settings, 4, True, True)  # nothing for the second rank
    monkeypatch.setattr("pipelines.training.gradients.FeatureAlignment", SmallFeatures)
    whole, loss = one_step(settings, batch(mixed=True))
    assert (found[0][0] + found[1][0]).item() / 2 == pytest.approx(loss, rel=1e-5)
    for _, gradient in found:
        assert (gradient - gradients(whole)).norm() < 0.02 * gradients(whole).norm()


# The last has all images of the second dataset on the first rank, and normalises over both.
@pytest.mark.heavy
@pytest.mark.parametrize(
    ("model", "objective"),
    [
        ("dpt_tiny", "average"),
        ("dpt_small", "average"),
        ("dpt_small", "multi_objective"),
        ("dpt_tiny", "multi_objective"),
    ],
)
def test_ranks_with_unequal_shares_give_the_gradient_of_the_whole_batch(tmp_path, model, objective):
    settings = config(model, objective, gram="exact")
    found = run_in_two_ranks(uneven_rank, tmp_path, settings)
    whole, loss = one_step(settings)
    assert (found[0][0] + found[1][0]).item() / 2 == pytest.approx(loss, rel=1e-5)
    for _, gradient, buffers in found:
        assert_same(gradient, gradients(whole))
        for name, buffer in whole.named_buffers():
            torch.testing.assert_close(buffers[name], buffer, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.heavy
def test_ranks_with_unequal_shares_normalise_as_often_with_micro_batches(tmp_path):
    settings = config("dpt_small", accumulate=3)
    first, second = run_in_two_ranks(uneven_rank, tmp_path, settings)
    assert torch.isfinite(first[1]).all()
    assert first[1].norm() > 0
    torch.testing.assert_close(second[1], first[1])
    assert {name for name, buffer in first[2].items() if not torch.equal(buffer, second[2][name])} == set()
