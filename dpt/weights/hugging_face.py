"""Folders of Hugging Face's transformers: config and export.

What their config has no key for (metric scale and shift, input size, normalisation, …) is kept in it under
`KEPT`, and read back; transformers ignores it.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dpt.config import ModelConfig
from dpt.layers.backbones import ViTBackbone
from dpt.model import DPT
from dpt.weights.folder import write_folder
from dpt.weights.key_maps import KEY_MAPS

HUGGING_FACE_WEIGHTS = "model.safetensors"
PREPROCESSOR = "preprocessor_config.json"
KEPT = "dpt_on_ray"
BEIT = {(1024, 512): "dpt_beit_large_512", (1024, 384): "dpt_beit_large_384", (768, 384): "dpt_beit_base_384"}
"""Width of a BEiT and side of its training images in pixels → model in the table."""

_THEIRS = {"task", "classes", "class_names", "auxiliary", "batch_norm", "readout"}
"""Settings that their config and the tensors have; they may have been trained further for other classes."""


def save_hugging_face(model: DPT, folder: Path | str) -> None:
    """Write `model` to `folder` for DPTForDepthEstimation or DPTForSemanticSegmentation of `transformers`.

    Raises ValueError if that implementation cannot represent the model.
    """
    config = model.config
    refusal = f"transformers has no DPT with the backbone {config.backbone} or these settings"
    plain = (config.fusion, config.final_norm, config.position_interpolation) == ("dpt", False, "bilinear")
    plain &= (config.max_depth, config.head_align_corners, config.head_channels) == (None, True, 32)
    if not plain or not isinstance(model.backbone, ViTBackbone) or model.backbone.readout_tokens != 1:
        raise ValueError(refusal)
    tensors = KEY_MAPS["hugging-face"].write(model.state_dict(), config)
    if not all(re.match(r"(dpt|neck|head|auxiliary_head)\.", key) for key in tensors):
        raise ValueError(refusal)
    # Two parts that no forward pass of theirs uses, but that their loader expects.
    width = tensors["dpt.embeddings.cls_token"].shape[-1]
    tensors["dpt.layernorm.weight"], tensors["dpt.layernorm.bias"] = torch.ones(width), torch.zeros(width)
    deepest = "neck.fusion_stage.layers.0.residual_layer"
    tensors |= {
        key.replace(f"{deepest}2", f"{deepest}1"): torch.zeros_like(tensor)
        for key, tensor in tensors.items()
        if key.startswith(f"{deepest}2")
    }
    # Without a digest: transformers would copy it into the configs that it writes.
    text = json.dumps(_hugging_face_config(model), indent=2) + "\n"
    write_folder(tensors, text, Path(folder), HUGGING_FACE_WEIGHTS)
    (Path(folder) / PREPROCESSOR).write_text(json.dumps(_preprocessor(model), indent=2) + "\n")


def hugging_face_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `ModelConfig` in Hugging Face's `config` that do not follow from the tensors.

    ``model`` is its name in the table, where that does not follow either. Raises ValueError if it is not the
    config of a DPT or of Depth Anything.
    """
    kind, backbone = config.get("model_type"), config.get("backbone_config") or {}
    if kind == "depth_anything" and backbone.get("model_type") == "dinov2":
        return _depth_anything_settings(config, backbone)
    if kind == "dpt" and backbone.get("model_type") == "beit":
        return _beit_settings(config, backbone)
    if kind != "dpt":
        raise ValueError(f"this folder has a model of type {kind!r}, not of type 'dpt' or 'depth_anything'")
    settings: dict[str, Any] = {"readout": config.get("readout_type", "project")}
    if "use_batch_norm_in_fusion_residual" in config:
        settings["batch_norm"] = bool(config["use_batch_norm_in_fusion_residual"])
    layers = [index + 1 for index in config.get("backbone_out_indices") or ()]
    if layers:
        settings["taps"] = ("R0", "R1", *layers[2:]) if config.get("is_hybrid") else tuple(layers)
    names = _hugging_face_names(config)
    kept = config.get(KEPT, {}).get("config", {})
    settings |= {key: value for key, value in kept.items() if key not in _THEIRS}
    return settings | ({"class_names": names} if names else {})


def _depth_anything_settings(config: Mapping[str, Any], backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Of Depth Anything: version 1 taps the last four layers, version 2 every quarter of them."""
    taps, width = _layers_tapped(backbone), backbone.get("hidden_size")
    size = {384: "small", 768: "base", 1024: "large"}.get(width) if isinstance(width, int) else None
    if size is None:
        raise ValueError(f"Depth Anything with {width} channels is not known; there are 384, 768 and 1024")
    version = "" if taps[3] - taps[0] == 3 else "_v2"
    metric = config.get("depth_estimation_type") == "metric"
    return {
        "model": f"depth_anything{version}_{size}",
        "taps": taps,
        "channels": tuple(config["neck_hidden_sizes"]),
        "features": config["fusion_hidden_size"],
        "max_depth": float(config["max_depth"]) if metric else None,
    }


def _beit_settings(config: Mapping[str, Any], backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Of a DPT with the backbone BEiT: its published names say width and size of the training images."""
    sides = {"image_size": backbone.get("image_size", 224)}
    width, layers = backbone.get("hidden_size", 768), backbone.get("num_hidden_layers", 12)
    model = BEIT.get((width, sides["image_size"]))
    sizes = {"embed_dim": width, "depth": layers, "num_heads": backbone.get("num_attention_heads", 12)}
    arguments = {} if model else {"img_size": sides["image_size"], **sizes}
    return {
        "model": model or "dpt_beit_base_384",
        "taps": _layers_tapped(backbone),
        "channels": tuple(config["neck_hidden_sizes"]),
        "features": config["fusion_hidden_size"],
        "readout": config.get("readout_type", "project"),
        "backbone_arguments": arguments,
        **sides,
    }


def _layers_tapped(backbone: Mapping[str, Any]) -> tuple[int, ...]:
    """Layers, counted from 1, in the config of a backbone: ``stage3`` is the third."""
    names = backbone.get("out_features") or [f"stage{index}" for index in backbone.get("out_indices") or ()]
    if len(names) != 4 or not all(re.fullmatch(r"stage\d{1,3}", str(name)) for name in names):
        raise ValueError(f"backbone_config: out_features are {names}, expected four such as 'stage3'")
    return tuple(int(str(name).removeprefix("stage")) for name in names)


def ignored_by_transformers(config: ModelConfig) -> list[str]:
    """What `transformers` does differently with an exported model of `config`, a sentence each."""
    found = ["transformers resizes every image to a square, here images keep their aspect ratio"]
    if config.metric:
        inverse = f"{config.scale:g} · d + {config.shift:g}"
        value = f"1 / ({inverse})" if config.invert else inverse
        found.append(f"transformers gives d where this model predicts {config.meaning}: {value}")
    if config.weight_standardisation == "released":
        found.append(
            "transformers standardises a hybrid's weights as timm does today: outputs differ by 3e-4"
        )
    return found


def _hugging_face_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Class names of a segmentation model; empty for depth, or if the classes only have numbers."""
    if "DPTForSemanticSegmentation" not in (config.get("architectures") or ()):
        return ()
    labels = config.get("id2label") or {}
    names = tuple(str(labels[key]) for key in sorted(labels, key=int))
    return () if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else names


def _preprocessor(model: DPT) -> dict[str, Any]:
    """Config of their image processor, with which their pipelines work: images as squares.

    Their DPT takes no others, since its decoder infers the grid from the number of tokens; and a hybrid only
    those of the size of its table of positions.
    """
    vit: Any = model.backbone.vit
    hybrid = isinstance(model.config.taps[0], str)
    side = 16 * vit.patch_embed.grid_size[0] if hybrid else max(1, round(model.config.side / 32)) * 32
    return {
        "image_processor_type": "DPTImageProcessor",
        "do_resize": True,
        "size": {"height": side, "width": side},
        "keep_aspect_ratio": False,
        "ensure_multiple_of": 1,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(model.mean),
        "image_std": list(model.std),
        "do_pad": False,
    }


def _hugging_face_config(model: DPT) -> dict[str, Any]:
    config = model.config
    vit: Any = model.backbone.vit
    layers = [tap - 1 if isinstance(tap, int) else stage for stage, tap in enumerate(config.taps)]
    segmentation = config.task == "segmentation"
    hybrid = isinstance(config.taps[0], str)
    plain = {
        "model_type": "dpt",
        "architectures": ["DPTForSemanticSegmentation" if segmentation else "DPTForDepthEstimation"],
        "hidden_size": vit.embed_dim,
        "num_hidden_layers": len(vit.blocks),
        "num_attention_heads": vit.blocks[0].attn.num_heads,
        "intermediate_size": vit.blocks[0].mlp.fc1.out_features,
        "layer_norm_eps": vit.blocks[0].norm1.eps,
        "image_size": 16 * vit.patch_embed.grid_size[0],
        "patch_size": 16,
        "is_hybrid": hybrid,
        "backbone_out_indices": layers,
        "readout_type": config.readout,
        "neck_hidden_sizes": list(config.channels),
        "fusion_hidden_size": config.features,
        "use_batch_norm_in_fusion_residual": config.batch_norm,
        "use_bias_in_fusion_residual": not config.batch_norm,
    }
    if hybrid:
        plain["backbone_config"] = {
            "model_type": "bit",
            "global_padding": "same",
            "layer_type": "bottleneck",
            "depths": [3, 4, 9],
            "out_features": ["stage1", "stage2", "stage3"],
            "embedding_dynamic_padding": True,
        }
    plain[KEPT] = {"predicts": config.meaning, "config": config.to_dict()}
    if segmentation:
        plain["use_auxiliary_head"] = config.auxiliary
        names = config.class_names or [f"LABEL_{index}" for index in range(config.classes)]
        plain["id2label"] = {str(index): name for index, name in enumerate(names)}
        plain["label2id"] = {label: int(index) for index, label in plain["id2label"].items()}
    return plain
