"""Exported programs take other sizes than the one they were traced at, and give the same numbers."""

import json

import onnx
import onnxruntime
import pytest
import torch

import dpt
from dpt.weights.onnx import export_program, save_onnx
from tests.support.models import SHALLOW_HYBRID

SIZES = [(1, 64, 160), (3, 192, 64), (1, 64, 64)]


MODELS = {
    "vit": {},
    "hybrid": SHALLOW_HYBRID,
    "released hybrid": {**SHALLOW_HYBRID, "weight_standardisation": "released"},
    "dinov2": {"position_interpolation": "bicubic"},
    "cnn": {"backbone": "resnet18", "fusion": "midas", "head_align_corners": False},
}


def build(kind):
    torch.manual_seed(0)
    return dpt.create_model("dpt_tiny", **MODELS[kind]).eval()


@pytest.mark.parametrize("kind", ["vit", pytest.param("hybrid", marks=pytest.mark.slow), "cnn"])
def test_programs_take_any_size(kind):
    model = build(kind)
    program = export_program(model).module()
    for batch, height, width in SIZES:
        images = torch.randn(batch, 3, height, width)
        with torch.no_grad():
            torch.testing.assert_close(program(images), model(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "kind",
    ["vit", *(pytest.param(kind, marks=pytest.mark.slow) for kind in MODELS if kind != "vit")],
)
def test_onnx_files_take_any_size(kind, tmp_path):
    model = build(kind)
    save_onnx(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for batch, height, width in SIZES:
        images = torch.randn(batch, 3, height, width)
        (prediction,) = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            expected = model(images)
        torch.testing.assert_close(torch.from_numpy(prediction), expected, rtol=1e-4, atol=1e-5)
    said = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert (said["quantity"], said["unit"]) == ("inverse_depth", "relative")
    assert dpt.ModelConfig.from_dict(json.loads(said["config"])) == model.config


@pytest.mark.parametrize(
    "kind",
    ["vit", "hybrid", *(pytest.param(kind, marks=pytest.mark.slow) for kind in [*MODELS][2:])],
)
def test_the_forward_pass_compiles_to_one_graph(kind):
    torch.compiler.reset()
    model = build(kind)
    images = torch.randn(1, 3, 64, 96)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), model(images))
