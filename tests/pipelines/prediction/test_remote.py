"""`dpt predict` on object stores: images, folders, patterns, videos, models."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import cv2
import numpy as np
import pytest
import torch

import dpt
from datasets_prep.errors import NotFound
from datasets_prep.storage.folder import Folder
from pipelines.config import PredictConfig
from pipelines.predict import predict, predict_one
from pipelines.prediction.inputs import Input, find_inputs
from pipelines.tracking.model_reference import load_model
from tests.support.videos import encoded


@pytest.fixture
def store() -> Iterator[Folder]:
    folder = Folder(f"memory://{uuid4().hex}")
    yield folder
    folder.fs.rm(folder.path, recursive=True)


def picture(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (32, 48, 3), dtype=np.uint8)
    return bytes(cv2.imencode(".png", pixels)[1])


def fill(store: Folder, *names: str) -> None:
    for seed, name in enumerate(names):
        store.fs.pipe_file(store.path_of(name), picture(seed))


def outputs_of(source: Input) -> list[str]:
    return [f"{source.name}.npy"]


def names(*arguments: str, out: str = "nowhere") -> list[str]:
    return [source.name for source in find_inputs(arguments, outputs_of, Path(out))]


def test_a_file_a_folder_and_a_pattern_are_named_as_local_ones(store):
    fill(store, "photos/a.jpg", "photos/x/b.png", "photos/x/.hidden.png", "photos/x/notes.txt")
    assert names(f"{store.uri}/photos/a.jpg") == ["a"]
    assert names(f"{store.uri}/photos") == names(f"{store.uri}/photos/") == ["a", "x/b"]
    assert names(f"{store.uri}/photos/**/*.png") == ["b"]
    assert names(f"{store.uri}/photos/*") == ["a", "x/b"]
    said: list[str] = []
    find_inputs([f"{store.uri}/photos"], outputs_of, Path("nowhere"), said.append)
    assert "1 hidden (.hidden.png), 1 neither image nor video (notes.txt)" in said[0]


def test_results_beside_the_images_are_not_taken(store):
    fill(store, "photos/a.jpg", "photos/out/a.png")
    assert names(f"{store.uri}/photos", out=f"{store.uri}/photos/out") == ["a"]


@pytest.mark.parametrize("missing", ["nothing.jpg", "nothing", "*.jpg"])
def test_what_is_not_there_is_named(store, missing):
    fill(store, "other.txt")
    with pytest.raises(NotFound, match=r"no (such image|image or video)") as refused:
        names(f"{store.uri}/{missing}")
    assert missing in str(refused.value)


def test_images_and_videos_are_predicted_from_a_store_into_one(store, tmp_path):
    fill(store, "photos/a.png", "photos/b.png")
    encoded(tmp_path / "clip.mp4", [np.zeros((32, 48, 3), np.uint8)] * 3)
    store.fs.pipe_file(store.path_of("photos/clip.mp4"), (tmp_path / "clip.mp4").read_bytes())
    store.fs.pipe_file(store.path_of("photos/broken.mp4"), b"no video")
    model, settings = dpt.create_model("dpt_tiny").eval(), PredictConfig(write=("npy",), device="cpu")
    found = {
        one.source.name: one for one in predict(settings, model, [f"{store.uri}/photos"], f"{store.uri}/out")
    }
    assert Folder(f"{store.uri}/out").children() == ["a.npy", "b.npy", "clip_colour.mp4"]
    assert found["clip"].content == "3 frames"
    assert "/photos/broken.mp4 is not" in str(found["broken"].problem)
    assert "dpt-input" not in str(found["broken"].problem)
    (tmp_path / "a.png").write_bytes(picture(0))
    local = predict_one(settings, model, [str(tmp_path / "a.png")])
    assert store.read_bytes("out/a.npy") == local


@pytest.mark.parametrize("place", ["runs/step_00000001", "model/weights.safetensors"])
def test_a_model_is_read_from_a_store(store, tmp_path, place):
    model = dpt.create_model("dpt_tiny").eval()
    dpt.save_model(model, tmp_path / "model")
    for path in (tmp_path / "model").iterdir():
        for folder in ("runs/step_00000001", "model"):
            store.fs.pipe_file(store.path_of(f"{folder}/{path.name}"), path.read_bytes())
    store.fs.pipe_file(store.path_of("runs/step_00000001/optimizer.safetensors"), b"not for inference")
    found = load_model(f"{store.uri}/{place}").state_dict()
    assert all(torch.equal(found[name], values) for name, values in model.state_dict().items())
    with pytest.raises(NotFound, match=f"no model at {store.uri}/nothing"):
        load_model(f"{store.uri}/nothing")
