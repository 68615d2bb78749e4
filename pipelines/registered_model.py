"""The model as the registry serves it: encoded images in, inverse depth out.

MLflow stores this file as it is ("models from code") beside safetensors weights, so that loading a registered
model unpickles nothing. It needs only the `dpt` package, which travels with it.
"""

from __future__ import annotations

import io
from typing import Any

import cv2
import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel

import dpt
from dpt.predict import predict_inverse_depth


class RegisteredDPT(PythonModel):
    """Monocular inverse depth of encoded images."""

    def load_context(self, context: Any) -> None:
        """Load the weights that were logged with the model."""
        self._model = dpt.load_model(context.artifacts["model"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Predict each image at its own size.

        Args:
            context: not used.
            model_input: one column, `image`: the bytes of a JPEG or PNG file.
            params: not used.

        Returns:
            One column, `inverse_depth`: the bytes of a .npy file, (H, W) float32, larger is nearer, up to an
            unknown scale and shift.

        Raises:
            ValueError: if bytes are no image.
        """
        return pd.DataFrame(
            {"inverse_depth": [self._predict_one(bytes(data)) for data in model_input["image"]]}
        )

    def _predict_one(self, data: bytes) -> bytes:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if decoded is None:
            raise ValueError("image: the bytes are no readable image file")
        buffer = io.BytesIO()
        np.save(buffer, predict_inverse_depth(self._model, decoded[..., ::-1]), allow_pickle=False)
        return buffer.getvalue()


mlflow.models.set_model(RegisteredDPT())
