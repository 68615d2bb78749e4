"""Weights: folders of ours, published checkpoints, Hugging Face, ONNX."""

from dpt.weights.files import load_model, load_weights, save_hugging_face, save_model

__all__ = ["load_model", "load_weights", "save_hugging_face", "save_model"]
