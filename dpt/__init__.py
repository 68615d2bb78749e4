"""Vision transformers for dense prediction: models, weights, losses and metrics in PyTorch."""

from dpt.layers.late_compiler import import_timm

import_timm()

# ruff: noqa: E402
from dpt.config import ModelConfig
from dpt.inference import FastDPT
from dpt.model import DPT, parameter_groups
from dpt.weights.files import load_model, load_weights, save_model
from dpt.weights.hugging_face import save_hugging_face
from dpt.zoo import create_model, list_models

__all__ = ["DPT", "FastDPT", "ModelConfig", "create_model", "list_models", "load_model", "load_weights"]
__all__ += ["parameter_groups", "save_hugging_face", "save_model"]
