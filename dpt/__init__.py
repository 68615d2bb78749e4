"""Vision transformers for dense prediction: models, weights, losses and metrics in PyTorch."""

from dpt.model import DPT, ModelConfig, create_model, list_models, parameter_groups
from dpt.weights.files import load_model, load_weights, save_hugging_face, save_model

__all__ = [
    "DPT",
    "ModelConfig",
    "create_model",
    "list_models",
    "load_model",
    "load_weights",
    "parameter_groups",
    "save_hugging_face",
    "save_model",
]
