"""The model as the registry serves it: encoded images in; depth, inverse depth or classes out.

MLflow stores this file unchanged ("models from code") beside safetensors weights, so that loading a
registered model unpickles nothing. It needs only the `dpt` package, which is stored with it.
"""

from __future__ import annotations

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

        The `model_input` has one column, `image`: the bytes of a JPEG or PNG file.

        Returns:
            One column of the bytes of .npy files, named by the model's quantity: `depth`, (H, W) float32
            metres; `inverse_depth`, (H, W) float32, larger is nearer, in 1/metres or up to an unknown scale
            and shift (the model's description says which); `classes`, (H, W) uint8 indices into the config's
            `class_names`.

        Raises:
            ValueError: naming the row, if bytes are not an image, or the prediction is not finite.
        """
        found = [self._predict_one(bytes(data), row) for row, data in enumerate(model_input["image"])]
        return pd.DataFrame({self._model.config.quantity: found})

    def _predict_one(self, data: bytes, row: int) -> bytes:
        try:
            image, _ = decode_photo(data)
        except ValueError as error:
            raise ValueError(f"image of row {row}: {error}") from error
        if self._model.config.task == "segmentation":
            (prediction,) = predict_classes(self._model, [image])
        else:
            prediction = predict_inverse_depth(self._model, image)
        classes = prediction.dtype == np.uint8
        if not (np.all(prediction != UNLABELLED) if classes else np.isfinite(prediction).all()):
            raise ValueError(f"image of row {row}: the model predicts no finite number")
        buffer = io.BytesIO()
        np.save(buffer, prediction, allow_pickle=False)
        return buffer.getvalue()


mlflow.models.set_model(RegisteredDPT())
