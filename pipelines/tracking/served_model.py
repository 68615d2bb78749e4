"""The model as the registry serves it: encoded images in; depth, inverse depth or classes out, row by row.

MLflow stores this file unchanged ("models from code") beside safetensors weights, so that loading a
registered model unpickles nothing. It needs only the `dpt` package, which is stored with it.
"""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow.pyfunc import PythonModel

import dpt
from dpt.predict.bit_depth import decode_photo
from dpt.predict.classes import predict_classes
from dpt.predict.colours import UNLABELLED
from dpt.predict.depth import predict_inverse_depth


class RegisteredDPT(PythonModel):
    """Predicts depth or inverse depth of encoded images, or classes of their pixels, as its model does."""

    def load_context(self, context: Any) -> None:
        """Load the model; MLflow's `context` has the folder it was logged with as the artifact `model`."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = dpt.FastDPT(dpt.load_model(context.artifacts["model"]), device)

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Predict each image at its own size; `context` and `params` are not used.

        The `model_input` has one column, `image`: the bytes of a JPEG or PNG file, or these in base64.

        Returns:
            One row for each of the input, with its index. A column of the bytes of .npy files is named by the
            model's quantity: `depth`, (H, W) float32; `inverse_depth`, (H, W) float32, larger is nearer;
            `classes`, (H, W) uint8 indices into the config's `class_names`. `unit` is that of its values:
            `m`, `1/m`, `relative` (up to an unknown scale and shift) or `class`. `error` says why a row has
            no prediction, and is None otherwise.
        """
        rows = [self._predict_or_say(data, row) for row, data in enumerate(model_input["image"])]
        config = self._model.config
        columns = [config.quantity, "error"]
        found = pd.DataFrame(rows, index=model_input.index, columns=columns, dtype=object)
        found.insert(1, "unit", config.unit)
        return found

    def _predict_or_say(self, data: bytes | str, row: int) -> tuple[bytes | None, str | None]:
        """The prediction of a row, or the reason why there is none: it must not cost the others theirs."""
        try:
            return self._predict_one(_file_of(data)), None
        except ValueError as error:
            return None, f"image of row {row}: {error}"

    def _predict_one(self, data: bytes) -> bytes:
        image, _ = decode_photo(data)
        if self._model.config.task == "segmentation":
            (prediction,) = predict_classes(self._model, [image])
        else:
            prediction = predict_inverse_depth(self._model, image)
        classes = prediction.dtype == np.uint8
        if not (np.all(prediction != UNLABELLED) if classes else np.isfinite(prediction).all()):
            raise ValueError("the model predicts no finite number")
        buffer = io.BytesIO()
        np.save(buffer, prediction, allow_pickle=False)
        return buffer.getvalue()


def _file_of(data: object) -> bytes:
    """The bytes of an image file that were sent as such, in base64, or as a `data:` URL.

    Raises:
        ValueError: if they were not.
    """
    if isinstance(data, str):
        try:
            return base64.b64decode("".join(data.rpartition(",")[2].split()), validate=True)
        except binascii.Error as error:
            raise ValueError(f"not base64: {error}") from error
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ValueError(f"expected bytes or base64, got {type(data).__name__}")
    return bytes(data)


mlflow.models.set_model(RegisteredDPT())
