"""`dpt serve`: a page on this machine's loopback that takes a picture and shows what a model makes of it.

It answers this machine's user only: it listens on 127.0.0.1, answers no other host name (a foreign site may
make its own name resolve to this address), and takes uploads of a type that a foreign page may not send.
"""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import dpt
from datasets_prep.errors import UserError
from pipelines.config import PredictConfig
from pipelines.predict import BadPrediction, Predictor, image_of, require_finite
from pipelines.prediction import outputs
from pipelines.prediction.attention_figure import attention_figure

LOOPBACK = "127.0.0.1"
UPLOAD = "application/octet-stream"
MOST_BYTES = 32 * 2**20
"""Of an upload; photos of phones have 3 to 15 MiB."""
MOST_SIDE = 1024
"""Longer side in pixels of what is predicted and shown; larger pictures are reduced to it."""

_FIELD_OF_VIEW = 60.0
_SECONDS = 30
_PAGE = Path(__file__).with_name("serve.html")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Views:
    """What the page shows of a picture.

    Args:
        model: predicts depth, inverse depth or classes.
        settings: how to predict, except for what to write; attention is that of the last tapped layer, and
            the field of view 60 degrees, unless they are set.

    Raises:
        ConfigError, BadModel: if settings and model do not fit together.
    """

    def __init__(self, model: dpt.DPT, settings: PredictConfig) -> None:
        last = tuple(tap for tap in model.config.taps[-1:] if isinstance(tap, int))
        self._predictor = _predictor(model, settings, settings.attention or last)
        self._one_at_a_time = Lock()

    def of(self, data: bytes) -> dict[str, Any]:
        """The views of the picture in the file `data`: texts, and pictures and points as data URLs.

        Raises:
            BadImage, BadPrediction: if it cannot be read or predicted.
        """
        image = _reduced(image_of(data, "the picture"))
        predictor = self._predictor
        with self._one_at_a_time:
            [prediction] = predictor([image])
            require_finite(prediction, "the picture")
            attending, layers = predictor.attending, predictor.settings.attention
            references = predictor.settings.references
            figure = None if attending is None else attention_figure(attending, image, layers, references)
        views: dict[str, Any] = {
            "text": predictor.describe(prediction) or predictor.config.meaning,
            "prediction": _url("image/png", predictor.encode("colour", image, prediction)),
            "values": _url(UPLOAD, predictor.encode("npy", image, prediction)),
        }
        if figure is not None:
            views["attention"] = _url("image/png", cv2.imencode(".png", figure[..., ::-1])[1].tobytes())
        if not predictor.segments:
            angle = predictor.settings.ply or _FIELD_OF_VIEW
            views["points"] = _url(UPLOAD, outputs.encode_points(prediction, image, predictor.config, angle))
        return views


def _predictor(model: dpt.DPT, settings: PredictConfig, layers: tuple[int, ...]) -> Predictor:
    """Also attention of `layers`, unless the model has none and none was asked for."""
    try:
        return Predictor(settings.model_copy(update={"attention": layers}), model)
    except UserError:
        if settings.attention or not layers:
            raise
        return Predictor(settings, model)


def _reduced(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An (H, W, 3) uint8 `image` of at most `MOST_SIDE` pixels."""
    scale = MOST_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    size = [max(1, math.floor(scale * side)) for side in image.shape[1::-1]]
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


class _Handler(BaseHTTPRequestHandler):
    """Answers `GET /` with the page, and `POST /predict` with the views of the picture in its body."""

    timeout = _SECONDS
    views: Views
    page: bytes
    say: Callable[[str], None]

    def do_GET(self) -> None:
        if self._is_for_us() and self.path == "/":
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", self.page)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is only / here")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not self._is_for_us() or self.path != "/predict":
            self._refuse(HTTPStatus.NOT_FOUND, "there is only /predict here")
        elif self.headers.get("Content-Type") != UPLOAD:
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send a picture's bytes as {UPLOAD}")
        elif not length.isdecimal():
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "say how long the picture is")
        elif int(length) > MOST_BYTES:
            limit = f"a picture may have {MOST_BYTES // 2**20} MiB"
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, limit)
        else:
            self._predict(self.rfile.read(int(length)))

    def _predict(self, data: bytes) -> None:
        try:
            views = self.views.of(data)
        except (UserError, BadPrediction) as error:
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
            return
        self._answer(HTTPStatus.OK, "application/json", json.dumps(views).encode())

    def _is_for_us(self) -> bool:
        host = self.headers.get("Host", "").rpartition(":")[0]
        return host in (LOOPBACK, "localhost")

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self.close_connection = True  # the rest of the body is not read
        self._answer(status, "application/json", json.dumps({"problem": reason}).encode())

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say a line, as `BaseHTTPRequestHandler` writes to the error stream: `format` with `arguments`."""
        type(self).say(format % arguments)


def server(
    model: dpt.DPT, name: str, settings: PredictConfig, port: int, say: Callable[[str], None]
) -> ThreadingHTTPServer:
    """A server of the page, not yet running.

    Args:
        model: see `Views`.
        name: of the model, for the page.
        settings: see `Views`.
        port: on the loopback; 0 for any free one.
        say: takes a line for each request.

    Raises:
        ConfigError, BadModel: see `Views`.
        UserError: if the port is taken.
    """
    page = _PAGE.read_text("utf-8").replace("{model}", html.escape(name)).encode()
    own = {"views": Views(model, settings), "page": page, "say": staticmethod(say)}
    handler = type("Handler", (_Handler,), own)
    try:
        return ThreadingHTTPServer((LOOPBACK, port), handler)
    except OSError as error:
        raise UserError(f"--port {port}: {error.strerror}; choose another") from error
