"""`dpt serve`: over HTTP, and in a browser where there is one."""

import base64
import io
import re
import time
from collections.abc import Iterator
from threading import Thread

import cv2
import numpy as np
import pytest
import requests

import dpt
import pipelines.serve
from datasets_prep.errors import UserError
from pipelines.config import PredictConfig
from pipelines.serve import LOOPBACK, UPLOAD, server
from tests.support.browser import browsing

BINARY = {"Content-Type": UPLOAD}


@pytest.fixture(scope="module")
def model() -> dpt.DPT:
    return dpt.create_model("dpt_tiny", image_size=64).eval()


@pytest.fixture
def address(model: dpt.DPT) -> Iterator[str]:
    lines: list[str] = []
    with server(model, "models:/<dpt>@champion", PredictConfig(), 0, lines.append) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://{LOOPBACK}:{running.server_port}"
        running.shutdown()


def picture(height: int, width: int) -> bytes:
    ramp = np.linspace(0, 255, height * width * 3).reshape(height, width, 3).astype(np.uint8)
    return cv2.imencode(".png", ramp)[1].tobytes()


def content(url: str) -> bytes:
    return base64.b64decode(url.partition(",")[2])


@pytest.mark.heavy
def test_a_picture_is_answered_with_its_depth_points_and_attention(address, model):
    answer = requests.post(f"{address}/predict", picture(48, 64), headers=BINARY)
    assert answer.status_code == 200
    views = answer.json()
    image = cv2.imdecode(np.frombuffer(picture(48, 64), np.uint8), cv2.IMREAD_COLOR)[..., ::-1].copy()
    expected = dpt.predict.predict_inverse_depth(model, image)
    values = np.load(io.BytesIO(content(views["values"])))
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-5)
    assert cv2.imdecode(np.frombuffer(content(views["prediction"]), np.uint8), 1).shape == (48, 64, 3)
    assert content(views["attention"]).startswith(b"\x89PNG")
    assert content(views["points"]).startswith(b"ply\nformat binary_little_endian")
    assert views["text"] == model.config.meaning


def test_the_page_names_its_model(address):
    assert "<p>Model: models:/&lt;dpt&gt;@champion</p>" in requests.get(f"{address}/").text


def test_a_large_picture_is_reduced(address, monkeypatch):
    monkeypatch.setattr(pipelines.serve, "MOST_SIDE", 32)
    views = requests.post(f"{address}/predict", picture(50, 100), headers=BINARY).json()
    assert np.load(io.BytesIO(content(views["values"]))).shape == (16, 32)


def test_what_is_no_picture_or_too_large_is_refused_in_one_line(address, monkeypatch):
    monkeypatch.setattr(pipelines.serve, "MOST_BYTES", 2**20)
    for body, headers, status, said in (
        (b"no picture", BINARY, 422, "the picture is not a readable image"),
        (bytes(2**20 + 1), BINARY, 413, "a picture may have 1 MiB"),
        (picture(4, 4), {"Content-Type": "text/plain"}, 415, "send a picture's bytes as"),
        (iter([b"a"]), BINARY, 411, "say how long"),
        (picture(4, 4), BINARY | {"Host": "evil.example:80"}, 404, "there is only"),
    ):
        answer = requests.post(f"{address}/predict", body, headers=headers)
        assert (answer.status_code, answer.json()["problem"].startswith(said)) == (status, True), answer.text
    assert requests.get(f"{address}/etc/passwd").status_code == 404
    assert requests.get(f"{address}/", headers={"Host": "evil.example"}).status_code == 404


def test_it_listens_on_loopback_alone_and_a_taken_port_is_one_line(model):
    with server(model, "models:/<dpt>@champion", PredictConfig(), 0, print) as running:
        assert running.server_address[0] == "127.0.0.1"
        with pytest.raises(UserError, match=rf"--port {running.server_port}: Address already in use; choose"):
            server(model, "models:/<dpt>@champion", PredictConfig(), running.server_port, print)


@pytest.mark.heavy
def test_a_model_without_transformer_shows_no_attention():
    views = pipelines.serve.Views(
        dpt.create_model("midas_v21", pretrained=False).eval(), PredictConfig(side=32)
    )
    assert set(views.of(picture(32, 32))) == {"text", "prediction", "values", "points"}


_CHOOSE = """
const bytes = Uint8Array.from(atob(%r), c => c.charCodeAt(0)), transfer = new DataTransfer();
transfer.items.add(new File([bytes], "photo.png"));
const input = document.getElementById("file");
input.files = transfer.files;
input.dispatchEvent(new Event("change"));
"""
_DRAWN = """
const shown = [...document.querySelectorAll("figure:not([hidden])")].map(f => f.id);
const canvas = document.querySelector("canvas"), pen = canvas.getContext("2d");
const pixels = pen.getImageData(0, 0, canvas.width, canvas.height).data;
const lit = pixels.filter((v, i) => i % 4 < 3 && v > 0).length;
const pictures = [...document.querySelectorAll("figure:not([hidden]) img")];
const loaded = pictures.every(i => i.complete && i.naturalWidth);
return [shown, lit, loaded, document.getElementById("said").textContent,
        document.documentElement.scrollWidth - innerWidth];
"""


@pytest.mark.heavy
def test_the_page_shows_all_views_in_a_browser(address, tmp_path):
    with browsing() as browser:
        for scheme in ("light", "dark"):
            for width in (390, 1280):
                browser.look(scheme, width)
                browser._post("url", {"url": f"{address}/"})
                browser.run(_CHOOSE % base64.b64encode(picture(48, 64)).decode())
                deadline = time.monotonic() + 60
                while not re.match(r"photo\.png: ", browser.run(_DRAWN)[3]) and time.monotonic() < deadline:
                    time.sleep(0.1)
                time.sleep(0.2)
                shown, lit, loaded, said, overflow = browser.run(_DRAWN)
                assert shown == ["picture", "prediction", "points", "attention"], said
                assert lit > 1000
                assert loaded
                assert overflow <= 0
                browser.screenshot(tmp_path / f"{scheme}-{width}.png")
        complaints = browser.complaints()
        # The browser asks for an icon, and this test reads pixels back.
        assert [line for line in complaints if not re.search("favicon|willReadFrequently", line)] == []
