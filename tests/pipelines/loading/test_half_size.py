import pytest
import torch

import dpt
from pipelines.config import ConfigError, TrainConfig
from pipelines.config_files import load_experiment, with_changes
from pipelines.loading.half_size import at_half_size
from pipelines.train import check_fits
from pipelines.training.optimizer import create_optimizer
from pipelines.training.ranks import Ranks
from pipelines.training.step import TrainingStep
from tests.support.models import batch_of

NAN = float("nan")


def test_pixels_and_valid_ground_truth_are_averaged():
    images = torch.tensor([[[10, 20], [30, 43]], [[0, 0], [255, 255]]], dtype=torch.uint8)
    images = images.reshape(2, 2, 2, 1).expand(-1, -1, -1, 3)
    target = torch.tensor([[[0.25, 0.5], [NAN, 0.75]], [[NAN, 1.0], [NAN, NAN]]], dtype=torch.float16)
    halved = at_half_size(batch_of(images, target, [0, 1]))
    assert halved.images.flatten(1).tolist() == [[26] * 3, [128] * 3]  # of 25.75 and 127.5
    assert halved.target[0].item() == 0.5
    assert halved.target[1].isnan()
    assert (halved.target.dtype, halved.target.shape) == (torch.float16, (2, 1, 1))


def test_classes_are_not_mixed():
    labels = torch.tensor([[[3, 7, 9, 9], [7, 7, 9, 9]]], dtype=torch.uint8)
    images = torch.zeros(1, 2, 4, 3, dtype=torch.uint8)
    assert at_half_size(batch_of(images, labels, [0])).target.tolist() == [[[3, 9]]]


def test_the_first_steps_see_half_the_size():
    settings = {"steps": 5, "half_size_share": 0.5, "crop": 64, "precision": "float32"}
    config = TrainConfig.model_validate({**settings, "optimizer": {"objective": "average"}})
    model, sides = dpt.create_model("dpt_tiny", pretrained=False).train(), []
    model.register_forward_pre_hook(lambda _, inputs: sides.append(inputs[0].shape[-1]))
    step = TrainingStep(model, model, create_optimizer(model, config), None, config, ["a"], Ranks())
    images = torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8)
    for number in range(1, 6):
        step(batch_of(images, torch.rand(2, 64, 64).half(), [0, 0]), number)
    assert sides == [32, 32, 64, 64, 64]


def test_crops_that_a_network_cannot_take_at_half_size_are_refused():
    config = with_changes(
        load_experiment("demo").train, {"model.overrides.backbone": "vit_small_patch32_224"}
    )
    said = r"half of crop \(64, 96\) is not divisible by 32, the patch size of dpt_hybrid_small"
    with pytest.raises(ConfigError, match=said):
        check_fits(config, [])


def test_rectangles_of_another_picture_are_not_halved():
    with pytest.raises(ValueError, match="half_size_share: CutMix"):
        TrainConfig.model_validate({"half_size_share": 0.5, "perturb": {"datasets": ["diml"]}})
