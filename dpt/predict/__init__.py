"""Inference: from images of any size to inverse depth or classes, and to pictures."""

from dpt.predict.classes import predict_classes
from dpt.predict.depth import predict_inverse_depth

__all__ = ["predict_classes", "predict_inverse_depth"]
