import json

import pytest
import torch

import dpt
from dpt.config import ModelConfig
from dpt.layers.backbones import Tap
from dpt.layers.fusion import ResidualConvUnit
from dpt.layers.late_compiler import shapes_only
from dpt.layers.reassemble import Readout
from dpt.zoo import MODELS
from tests.support.models import SHALLOW_HYBRID


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return dpt.create_model("dpt_tiny").eval()


def on_meta(name, **overrides):
    with torch.device("meta"):
        return dpt.create_model(name, **overrides)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("name", "published", "dropped"), [
    # parameters of the released model without classifier and unused unit; ours also drops the final norm
    ("dpt_base", 109_697_921, 2 * 768),
    ("dpt_large", 341_850_305, 2 * 1024),
    ("dpt_hybrid", 121_197_825, 2 * 768),
    ("midas_v21", 104_182_785, 0),
])  # fmt: skip
def test_parameter_counts_are_exact(name, published, dropped):
    assert count(on_meta(name)) == published - dropped


@pytest.mark.parametrize(
    ("name", "millions", "classifier"),
    [("midas_v21", 105, 0), ("dpt_base", 112, 769_000), ("dpt_hybrid", 123, 769_000), ("dpt_large", 343, 0)],
)
def test_parameter_counts_are_those_of_table_9(name, millions, classifier):
    # The paper counted a unit of the deepest fusion block that is never used, the unused final norm and, for
    # two of the four, the ImageNet classifier.
    unused_unit = 2 * (9 * 256 * 256 + 256)
    assert (count(on_meta(name)) + unused_unit + classifier) / 1e6 == pytest.approx(millions, rel=0.01)


def test_readouts_other_than_project_have_no_parameters():
    counts = {kind: count(on_meta("dpt_base", readout=kind)) for kind in ("ignore", "add", "project")}
    assert counts["ignore"] == counts["add"]
    assert counts["project"] - counts["ignore"] == 4 * (2 * 768 * 768 + 768)


@pytest.mark.parametrize("name", dpt.list_models())
def test_configs_survive_json(name):
    config = MODELS[name].config
    again = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (160, 32)])
def test_output_has_the_size_of_the_input(tiny, size):
    with torch.no_grad():
        output = tiny(torch.randn(2, 3, *size))
    assert (output.shape, output.dtype) == ((2, *size), torch.float32)
    assert (output >= 0).all()


def test_unknown_names_are_refused_with_what_exists():
    with pytest.raises(ValueError, match=r"'dpt_huge'.*dpt_base, .*dpt_large"):
        dpt.create_model("dpt_huge")
    with pytest.raises(ValueError, match=r"'depth'.*backbone.*readout"):
        dpt.create_model("dpt_tiny", depth=3)
    with pytest.raises(ValueError, match=r"readout.*'mean'.*ignore, add, project"):
        dpt.create_model("dpt_tiny", readout="mean")
    with pytest.raises(ValueError, match=r"'R0'.*\[1, 2, 3, 4\]"):
        dpt.create_model("dpt_tiny", taps=("R0", 2, 3, 4))
    with pytest.raises(ValueError, match="network order"):
        dpt.create_model("dpt_tiny", taps=(2, 1, 3, 4))
    with pytest.raises(ValueError, match="no model 'vit_of_theseus'"):
        dpt.create_model("dpt_base", backbone="vit_of_theseus")


@pytest.mark.parametrize("readout", ["ignore", "add", "project"])
def test_every_parameter_has_a_gradient(readout):
    torch.manual_seed(0)
    model = dpt.create_model("dpt_tiny", readout=readout)
    model(torch.randn(2, 3, 64, 96)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_parameter_groups_split_backbone_and_decoder():
    model = dpt.create_model("dpt_tiny")
    backbone, decoder = dpt.parameter_groups(model, backbone_lr=1e-3, decoder_lr=1e-2)
    assert (backbone["name"], backbone["lr"]) == ("backbone", 1e-3)
    assert (decoder["name"], decoder["lr"]) == ("decoder", 1e-2)
    ids = [id(p) for group in (backbone, decoder) for p in group["params"]]
    assert len(ids) == len(set(ids)) == len(list(model.parameters()))
    assert any(p is model.backbone.vit.cls_token for p in backbone["params"])
    assert any(p is model.head.conv3.weight for p in decoder["params"])


def test_a_fresh_model_is_not_cut_off_by_its_last_relu():
    torch.manual_seed(0)
    for name in ("dpt_tiny", "dpt_small", "dpt_hybrid_small"):
        output = dpt.create_model(name)(torch.randn(2, 3, 64, 64))
        assert (output > 0).float().mean() > 0.9


def test_sizes_that_do_not_fit_the_patches_are_refused(tiny):
    with pytest.raises(ValueError, match="40 by 64 are not multiples of 32"):
        tiny(torch.randn(1, 3, 40, 64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_the_output_in_float32_and_close(tiny, dtype):
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = tiny(images)
        with torch.autocast("cpu", dtype):
            output = tiny(images)
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, expected, rtol=0.02, atol=0)
    # the last layer is in float32: bfloat16 would leave a few dozen levels
    assert len(output.unique()) > 2000


def test_channels_last_changes_nothing(tiny):
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = tiny(images)
        again = tiny.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    tiny.to(memory_format=torch.contiguous_format)
    torch.testing.assert_close(again, expected, rtol=1e-5, atol=1e-6)


def test_metric_models_scale_shift_and_invert():
    torch.manual_seed(0)
    relative = dpt.create_model("dpt_tiny").eval()
    images = torch.randn(1, 3, 64, 64)
    settings = {"scale": 0.1, "shift": 0.02}
    with torch.no_grad():
        for invert in (False, True):
            metric = dpt.create_model("dpt_tiny", **settings, invert=invert).eval()
            metric.load_state_dict(relative.state_dict())
            inverse = 0.1 * relative(images) + 0.02
            torch.testing.assert_close(metric(images), 1 / inverse if invert else inverse)
        bounded = dpt.create_model("dpt_tiny", max_depth=20.0).eval()
        bounded.load_state_dict(relative.state_dict())
        torch.testing.assert_close(bounded(images), 20 * torch.sigmoid(relative(images)))


def test_released_metric_models_have_the_released_numbers():
    kitti, nyu = (MODELS[f"dpt_hybrid_{name}"].config for name in ("kitti", "nyu"))
    assert (kitti.scale, kitti.shift, kitti.invert) == (0.00006016, 0.00579, True)
    assert (nyu.scale, nyu.shift, nyu.invert) == (0.000305, 0.1378, True)


def test_segmentation_gives_auxiliary_logits_while_training():
    torch.manual_seed(0)
    model = dpt.create_model("dpt_tiny", task="segmentation", classes=7, auxiliary=True, batch_norm=True)
    images = torch.randn(2, 3, 64, 96)
    logits, auxiliary = model.train()(images)
    assert logits.shape == auxiliary.shape == (2, 7, 64, 96)
    (logits.square().mean() + auxiliary.square().mean()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(norms) == 2 * 7 + 2  # two in each of seven residual units, one in each head
    assert model.eval()(images).shape == (2, 7, 64, 96)


def test_segmentation_models_have_the_published_number_of_parameters():
    # published models hold an unused unit in the deepest block, the final norm and the ImageNet classifier
    unit = 2 * (9 * 256 * 256 + 2 * 256)
    for name, published, width in (
        ("dpt_hybrid_ade20k", 124_076_884, 768),
        ("dpt_large_ade20k", 344_985_364, 1024),
    ):
        assert count(on_meta(name)) == published - unit - 2 * width - 1000 * (width + 1)


def test_readout_project_is_the_papers_equation():
    torch.manual_seed(0)
    readout = Readout("project", 6, 1)
    features, prefix = torch.randn(2, 6, 3, 4), torch.randn(2, 2, 6)
    tokens = features.flatten(2).transpose(1, 2)
    together = torch.cat([tokens, prefix[:, :1].expand_as(tokens)], dim=-1)
    expected = torch.nn.functional.gelu(readout.project(together)).transpose(1, 2).unflatten(2, (3, 4))
    torch.testing.assert_close(readout(Tap(features, prefix)), expected)


def test_readout_add_takes_the_mean_of_class_and_distillation_token():
    features, prefix = torch.randn(2, 6, 3, 4), torch.randn(2, 2, 6)
    for tokens, expected in ((1, prefix[:, 0]), (2, prefix.mean(dim=1))):
        added = Readout("add", 6, tokens)(Tap(features, prefix))
        torch.testing.assert_close(added, features + expected[:, :, None, None])
    torch.testing.assert_close(Readout("ignore", 6, 1)(Tap(features, prefix)), features)


def test_midas_units_add_the_activated_input():
    torch.manual_seed(0)
    unit, plain = ResidualConvUnit(4, relu_skip=True), ResidualConvUnit(4)
    plain.load_state_dict(unit.state_dict())
    x = torch.randn(1, 4, 5, 6)
    residual = unit.conv2(unit.conv1(x.relu()).relu())
    torch.testing.assert_close(unit(x), residual + x.relu())
    torch.testing.assert_close(plain(x), residual + x)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "settings"),
    [("dpt_tiny", {}), ("dpt_tiny", SHALLOW_HYBRID), ("dpt_small", {})],
    ids=["transformer", "hybrid", "ResNet"],
)
def test_a_model_compiled_by_regions_predicts_and_learns_the_same(name, settings):
    torch.compiler.reset()
    torch.manual_seed(0)
    model = dpt.create_model(name, **settings).double().eval()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    parameters = list(model.parameters())

    def run():
        output = model(images)
        return output.detach(), torch.autograd.grad(output.square().mean(), parameters, allow_unused=True)

    expected, gradients = run()
    traced = []

    def backend(graph, inputs):
        traced.append(graph)
        return graph

    model.compile_regions(backend=backend)
    found, same = run()
    torch.testing.assert_close(found, expected)
    for gradient, other in zip(gradients, same, strict=True):
        torch.testing.assert_close(gradient, other)
    stages = 3 if settings else 0  # of the hybrid's ResNet, all different
    assert len(traced) == 4 + stages, "one for all layers, and the three parts of the decoder"


@pytest.mark.heavy
def test_the_layers_that_are_built_alike_are_those_of_the_transformer():
    for name, overrides, count in (
        ("dpt_large", {}, 24), ("dpt_hybrid", {}, 12), ("dpt_beit_base_384", {}, 12), ("dpt_resnet50", {}, 1),
        ("dpt_tiny", {"backbone": "vit_small_patch16_dinov3"}, 12),
    ):  # fmt: skip
        with shapes_only():
            model = dpt.create_model(name, **overrides)
        layers = model.repeated_layers()
        assert len(layers) == count
        if count > 1:
            assert {type(layer).__name__ for layer in layers} <= {"Block", "EvaBlock"}


def test_the_head_has_the_channels_that_the_config_says():
    model = dpt.create_model("dpt_tiny", head_channels=5)
    assert (model.head.conv2.out_channels, model.head.conv3.in_channels) == (5, 5)
    assert dpt.create_model("dpt_tiny").head.conv2.out_channels == 32
    with pytest.raises(ValueError, match="head_channels: 0, expected from 1"):
        dpt.create_model("dpt_tiny", head_channels=0)
