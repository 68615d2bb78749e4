"""Weights: model folders, published checkpoints, Hugging Face, ONNX."""

from dpt.weights.files import load_model, load_weights, save_model
from dpt.weights.hugging_face import save_hugging_face

__all__ = ["load_model", "load_weights", "save_hugging_face", "save_model"]
