import io
import json
import sys
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import ClassVar
from unittest.mock import Mock
from urllib.error import URLError

import cv2
import numpy as np
import pytest
import torch
import transformers
import yaml
from huggingface_hub.errors import RepositoryNotFoundError

import dpt
from datasets_prep.errors import NotFound, UserError
from dpt.weights.key_maps import KEY_MAPS
from pipelines.convert import convert, push
from pipelines.tracking.model_reference import BadModel, load_model
from tests.support.commands import said
from tune import cli


@pytest.fixture(scope="module")
def model() -> dpt.DPT:
    torch.manual_seed(0)
    return dpt.create_model("dpt_tiny").eval()


@pytest.fixture
def checkpoint(model: dpt.DPT, tmp_path: Path) -> Path:
    """A file in the authors' layout."""
    tensors = KEY_MAPS["authors"].write(model.state_dict(), model.config)
    torch.save({"model": tensors}, tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


@pytest.mark.heavy
def test_another_program_reads_what_is_written_for_it(model, tmp_path):
    dpt.save_model(model, tmp_path / "ours")
    convert(str(tmp_path / "ours"), tmp_path / "theirs", "huggingface")
    theirs = transformers.DPTForDepthEstimation.from_pretrained(tmp_path / "theirs").eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(theirs(images).predicted_depth, model(images), rtol=1e-5, atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "theirs"]


def test_a_name_is_refused_for_a_folder_that_has_it(model, tmp_path, monkeypatch):
    dpt.save_model(model, tmp_path / "ours")
    monkeypatch.setattr("pipelines.tracking.model_reference._registered", lambda _: tmp_path / "ours")
    for source in (str(tmp_path / "ours"), "models:/dpt@champion"):
        with pytest.raises(UserError, match=f"--name dpt_tiny: the config.json of {source} names its model"):
            convert(source, tmp_path / "out", name="dpt_tiny")
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


def test_a_checkpoint_becomes_a_folder_of_ours(checkpoint, model, tmp_path):
    convert(str(checkpoint), tmp_path / "out", name="dpt_tiny")
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(dpt.load_model(tmp_path / "out")(images), model(images))


def test_a_checkpoint_that_fits_no_model_leaves_nothing(checkpoint, tmp_path):
    # of other sizes than the published ones, so the file alone does not tell the model
    with pytest.raises(BadModel, match=r"tiny\.pt does not fit the model"):
        convert(str(checkpoint), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(checkpoint, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("keep")
    with pytest.raises(UserError, match="out exists; give a folder that does not"):
        convert(str(checkpoint), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious.txt"]


def test_a_conversion_that_fails_leaves_nothing(model, tmp_path, monkeypatch):
    cnn = dpt.create_model("dpt_tiny", backbone="resnet18.a1_in1k")
    dpt.save_model(cnn, tmp_path / "small")
    with pytest.raises(BadModel, match="transformers has no DPT with the backbone resnet18"):
        convert(str(tmp_path / "small"), tmp_path / "out", "huggingface")
    with pytest.raises(UserError, match="no layout 'onnx' to write; there are: ours, huggingface"):
        convert(str(tmp_path / "small"), tmp_path / "out", "onnx")

    monkeypatch.setattr("dpt.weights.folder.save_file", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        convert(str(tmp_path / "small"), tmp_path / "out", "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


@pytest.mark.parametrize(("name", "content"), [
    ("text.pt", b"no checkpoint"),
    ("empty.pt", b""),
    ("text.safetensors", b"no checkpoint"),
    ("huge.safetensors", b"\xff" * 64),
])  # fmt: skip
def test_what_is_no_checkpoint_is_named(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    path = tmp_path / name
    with pytest.raises(BadModel, match=f"^{path} is not a readable checkpoint"):
        load_model(str(path))


def test_a_hub_that_cannot_be_reached_is_not_a_wrong_name(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BadModel, match=r"hf-hub:Intel/dpt-large: Hugging Face cannot be reached"):
        load_model("hf-hub:Intel/dpt-large")
    answer = Mock(side_effect=URLError("no route"))
    monkeypatch.setattr("torch.hub.download_url_to_file", answer)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(BadModel, match=r"https://x\.org/a\.pt: .*no route"):
        load_model("https://x.org/a.pt")


def test_a_name_that_the_hub_does_not_know_is_a_wrong_name(monkeypatch):
    unknown = RepositoryNotFoundError("404", response=Mock(headers={}))
    monkeypatch.setattr("huggingface_hub.snapshot_download", Mock(side_effect=unknown))
    with pytest.raises(NotFound, match="no model at hf-hub:Intel/dpt-larg: expected"):
        load_model("hf-hub:Intel/dpt-larg")


def test_metres_are_said_by_a_conversion(tmp_path, capfd):
    metric = dpt.create_model("dpt_tiny", scale=0.000305, shift=0.1378, invert=True)
    dpt.save_model(metric, tmp_path / "ours")
    printed = said("convert", tmp_path / "ours", tmp_path / "hf", "--to", "huggingface")
    assert "predicts depth in metres" in printed
    told = "transformers gives d where this model predicts depth in metres: 1 / (0.000305 · d + 0.1378)"
    assert told in printed + capfd.readouterr().err


def test_folders_that_hold_no_model_are_named(tmp_path):
    with pytest.raises(NotFound, match="no model at"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{no json")
    with pytest.raises(BadModel, match=r"config\.json is not valid JSON"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("form", ["colour", "npy", "png"])
def test_standard_input_to_standard_output(form, model, tmp_path, monkeypatch, capfdbinary):
    dpt.save_model(model, tmp_path / "model")
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    sent = io.BytesIO(cv2.imencode(".png", image)[1].tobytes())
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=sent))
    arguments = ["predict", "-", "--model", str(tmp_path / "model"), "--out", "-", "--side", "64"]
    cli.app(arguments + ([] if form == "colour" else ["--write", form]), standalone_mode=False)
    data = capfdbinary.readouterr().out
    if form == "npy":
        assert np.load(io.BytesIO(data)).shape == (40, 60)
    else:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert picture is not None
        assert picture.shape == ((40, 60, 3) if form == "colour" else (40, 60))


def test_convert_and_predict_from_the_command_line(model, tmp_path):
    dpt.save_model(model, tmp_path / "ours")
    assert "parameters" in said("convert", tmp_path / "ours", tmp_path / "hf", "--to", "huggingface")
    for folder in ("x", "y"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "in" / folder / "a.png"), np.zeros((32, 48, 3), np.uint8))
    options = ["--side", "64", "--dtype", "bfloat16", "--ply", "60", "--attention", "1,4"]
    options += ["--reference", "0.3,0.4", "--write", "png,colour", "--colours", "magma", "--batch-size", "2"]
    where = ("--model", tmp_path / "ours", "--out", tmp_path / "out")
    said("predict", tmp_path / "in" / "*" / "*.png", *where, *options)
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    suffixes = (".ply", ".png", "_attention.png", "_colour.png")
    assert found == [f"{folder}/a{suffix}" for folder in "xy" for suffix in suffixes]


class Hub(BaseHTTPRequestHandler):
    """As much of Hugging Face's Hub as an upload of small files needs."""

    received: ClassVar[dict[str, bytes]] = {}

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer: dict[str, object] = {"url": "http://127.0.0.1/me/tiny"}
        if self.headers.get("Authorization") != "Bearer hf_right":
            return self.answer({"error": "no such token"}, 401)
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            answer = {"files": [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in files]}
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.received[line["value"]["path"]] = b64decode(line["value"]["content"])
            answer = {"commitUrl": "http://127.0.0.1/me/tiny/commit/1", "commitOid": "1", "success": True}
        return self.answer(answer)

    def do_GET(self) -> None:
        self.answer({"id": "me/tiny", "siblings": [], "sha": "0" * 40})

    def answer(self, content: object, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.heavy
def test_a_converted_folder_goes_to_the_hub(hub, model, tmp_path, monkeypatch):
    dpt.save_model(model, tmp_path / "ours")
    arguments = ("convert", tmp_path / "ours", tmp_path / "hf", "--to", "huggingface", "--push", "me/tiny")
    assert f"→ http://127.0.0.1:{hub.server_port}/me/tiny" in said(*arguments)
    sent = {path.name: path.read_bytes() for path in (tmp_path / "hf").iterdir()}
    assert Hub.received == sent
    assert sorted(sent) == ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]
    card = sent["README.md"].decode()
    assert yaml.safe_load(card.split("---")[1])["pipeline_tag"] == "depth-estimation"
    assert "It predicts inverse depth up to an unknown scale and shift" in card

    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match=r"--push me/tiny: .*401"):
        push(tmp_path / "hf", "me/tiny")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="--push: Hugging Face cannot be reached"):
        push(tmp_path / "hf", "me/tiny")
