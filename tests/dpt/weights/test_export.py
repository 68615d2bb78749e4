"""Exported programs take other sizes than the one they were traced at, and give the same numbers."""

import json

import onnx
import onnxruntime
import pytest
import torch

import dpt
from dpt.weights.export import export, export_program
from dpt.weights.onnx import OnnxDPT
from tests.support.models import SHALLOW_HYBRID

pytestmark = pytest.mark.heavy

SIZES = [(1, 64, 160), (3, 192, 64), (1, 64, 64)]


SHALLOW = {"taps": (1, 2, 3, 4)}
MODELS = {
    "vit": SHALLOW,
    "hybrid": SHALLOW_HYBRID,
    "released hybrid": {**SHALLOW_HYBRID, "weight_standardisation": "released"},
    "dinov2": SHALLOW | {"position_interpolation": "bicubic"},
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
    assert export(model, tmp_path / "model.onnx") < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for batch, height, width in SIZES:
        images = torch.randn(batch, 3, height, width)
        (prediction,) = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            expected = model(images)
        torch.testing.assert_close(torch.from_numpy(prediction), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(OnnxDPT(tmp_path / "model.onnx")(images), expected, rtol=1e-4, atol=1e-5)
    said = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert (said["quantity"], said["unit"]) == ("inverse_depth", "relative")
    assert (json.loads(said["mean"]), said["size_divisor"]) == (list(model.mean), str(model.size_divisor))
    assert (said["resize_rule"], said["image_size"], said["precision"]) == ("minimal", "64", "float32")
    assert dpt.ModelConfig.from_dict(json.loads(said["config"])) == model.config
    content = (tmp_path / "model.onnx").read_bytes()
    weight = content.index(model.state_dict()["head.conv1.weight"].numpy().tobytes()[:32])
    for place in (weight, content.index(b"inverse_depth")):
        (tmp_path / "model.onnx").write_bytes(
            content[:place] + bytes([content[place] ^ 2]) + content[place + 1 :]
        )
        with pytest.raises(ValueError, match=r"model\.onnx is damaged: it differs from its checksum"):
            OnnxDPT(tmp_path / "model.onnx")


@pytest.mark.parametrize(("precision", "bits"), [
    ("bfloat16", 8), pytest.param("float16", 11, marks=pytest.mark.slow),
])  # fmt: skip
def test_a_program_in_half_precision_says_so_and_is_near(precision, bits, tmp_path):
    model = build("vit")
    error = export(model, tmp_path / "model.pt2", precision)
    assert 0 < error < 8 * 2**-bits
    assert next(model.parameters()).dtype == torch.float32, "the model itself keeps its precision"
    said = {"metadata.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=said)
    assert json.loads(said["metadata.json"])["precision"] == precision
    assert {tensor.dtype for tensor in program.state_dict.values()} == {
        getattr(torch, precision), torch.float32  # the last layer of the head
    }  # fmt: skip
    with torch.no_grad():
        assert program.module()(torch.zeros(1, 3, 96, 64)).dtype == torch.float32


def test_an_export_that_predicts_something_else_is_refused(tmp_path, monkeypatch):
    model = build("cnn")
    with torch.no_grad():
        model.head.conv1.weight.mul_(1e6)  # beyond 65504
    with pytest.raises(ValueError, match="in float16 predictions differ from PyTorch's by nan"):
        export(model, tmp_path / "model.pt2", "float16")
    with pytest.raises(ValueError, match="no convolutions in bfloat16; take float16, or pt2"):
        export(model, tmp_path / "model.onnx", "bfloat16")


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
