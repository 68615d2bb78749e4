"""The model as the registry serves it: encoded images in, inverse depth or classes out.

MLflow stores this file unchanged ("models from code") beside safetensors weights, so that loading a
registered model unpickles nothing. It needs only the `dpt` package, which is stored with it.
"""

from __future__ import annotations

import io
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel

import dpt
from dpt.predict.bit_depth import decode_photo
from dpt.predict.classes import predict_classes
from dpt.predict.depth import predict_inverse_depth


class RegisteredDPT(PythonModel):
    """Predicts inverse depth of encoded images, or with a segmentation model the classes of their pixels."""

    def load_context(self, context: Any) -> None:
        """Load the model; MLflow's `context` has the folder it was logged with as the artifact `model`."""
        self._model = dpt.load_model(context.artifacts["model"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Predict each image at its own size; `context` and `params` are not used.

        The `model_input` has one column, `image`: the bytes of a JPEG or PNG file.

        Returns:
            One column of the bytes of .npy files: `inverse_depth`, (H, W) float32, larger is nearer, up to an
            unknown scale and shift; of a segmentation model `classes`, (H, W) uint8 indices into
            the config's `class_names`.

        Raises:
            ValueError: if bytes are not an image.
        """
        column = "classes" if self._model.config.task == "segmentation" else "inverse_depth"
        return pd.DataFrame({column: [self._predict_one(bytes(data)) for data in model_input["image"]]})

    def _predict_one(self, data: bytes) -> bytes:
        image, _ = decode_photo(data)
        if self._model.config.task == "segmentation":
            (prediction,) = predict_classes(self._model, [image])
        else:
            prediction = predict_inverse_depth(self._model, image)
        buffer = io.BytesIO()
        np.save(buffer, prediction, allow_pickle=False)
        return buffer.getvalue()


mlflow.models.set_model(RegisteredDPT())
