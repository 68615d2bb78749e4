"""`dpt export`, and `dpt predict` with what it writes."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import dpt
from datasets_prep.errors import UserError
from pipelines.export import export, file_name
from pipelines.tracking.model_reference import BadModel, load_model, load_predictor
from tests.support.commands import dpt as run_dpt
from tests.support.commands import said


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    made = tmp_path_factory.mktemp("models")
    dpt.save_model(dpt.create_model("dpt_small", scale=0.5, shift=0.2, invert=True), made / "m")
    dpt.save_model(dpt.create_model("dpt_small", task="segmentation", classes=3), made / "s")
    return made


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["m", pytest.param("s", marks=pytest.mark.slow)])
def test_an_onnx_file_predicts_what_its_model_does(name, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    printed = said("export", folder / name, "--to", "onnx")
    assert f"→ {name}.onnx: float32, predicts " in printed
    rng = np.random.default_rng(0)
    for size in ((90, 130), (120, 50)):
        image = cv2.resize(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8), size[::-1])
        cv2.imwrite(f"{size[0]}.png", image)
    options = ("--batch-size", 2, "--write", "npy")
    for model, out in ((folder / name, "theirs"), (f"{name}.onnx", "ours")):
        said("predict", "90.png", "120.png", "--model", model, "--out", out, *options)
    for stem in ("90", "120"):
        ours, theirs = (np.load(f"{out}/{stem}.npy") for out in ("ours", "theirs"))
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    for more, message in (
        (["--attention", "1"], "predict.attention: an ONNX file has no layers to look into"),
        (["--dtype", "bfloat16"], "predict.dtype: an ONNX file has the --precision"),
    ):
        capsys.readouterr()
        assert run_dpt("predict", "90.png", "--model", f"{name}.onnx", "--out", "x", *more) == 1
        assert capsys.readouterr().err.startswith(f"dpt: {message}")
    with pytest.raises(BadModel, match="an ONNX file is for dpt predict"):
        load_model(f"{name}.onnx")


def test_what_is_no_exported_file_is_refused(tmp_path):
    import onnx

    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(BadModel, match=r"text\.onnx: not a readable ONNX file"):
        load_predictor(str(tmp_path / "text.onnx"))
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Abs", ["x"], ["y"])], "g", [value], [value])
    graph.output[0].name = "y"
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "other.onnx")
    with pytest.raises(BadModel, match=r"other\.onnx was not written by dpt export"):
        load_predictor(str(tmp_path / "other.onnx"))
    with pytest.raises(BadModel, match="an ONNX file is for dpt predict"):
        load_model(str(tmp_path / "other.onnx"))


def test_requests_that_cannot_be_met_leave_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, message in (
        (("onxx", Path("m.onxx")), "--to: there is no 'onxx'; choose from onnx, pt2"),
        (
            ("onnx", Path("m.onnx"), "int8"),
            "--precision: there is no 'int8'; choose from float32, float16, bfloat16",
        ),
        (("onnx", Path("m.pt2")), r"--out: a file of --to onnx ends in \.onnx, not m\.pt2"),
    ):
        with pytest.raises(UserError, match=message):
            export(str(folder / "m"), *arguments)

    def fails(model, path, precision):
        path.write_text("half")
        raise ValueError("differs")

    monkeypatch.setattr("pipelines.export.write", fails)
    with pytest.raises(UserError, match="m: differs"):
        export(str(folder / "m"), "pt2", Path("a/m.pt2"))
    assert [*tmp_path.rglob("*.pt2*")] == []
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"needs onnxscript: pip install 'dpt-on-ray\[export\]'"):
        export(str(folder / "m"), "onnx", Path("m.onnx"))
    Path("m.onnx").write_text("precious")
    with pytest.raises(UserError, match=r"m\.onnx exists"):
        export(str(folder / "m"), "onnx", Path("m.onnx"))
    assert Path("m.onnx").read_text() == "precious"


@pytest.mark.parametrize(("reference", "name"), [
    ("models:/dpt@champion", "dpt"), ("models:/dpt/3", "dpt"), ("models:/m-12ab", "m-12ab"),
    ("hf-hub:Intel/dpt-large", "dpt-large"), ("runs/first/step_00000300/", "step_00000300"),
    ("https://x.org/dpt_large-midas.pt", "dpt_large-midas"),
])  # fmt: skip
def test_a_file_is_named_like_its_model(reference, name):
    assert file_name(reference, "onnx") == f"{name}.onnx"
