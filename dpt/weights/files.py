"""Weights on disk: model folders of `save_model`, and published checkpoints.

Nothing is unpickled: `torch.load` is only called with ``weights_only=True``.
"""

import math
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from dpt.class_names import class_names
from dpt.config import ModelConfig
from dpt.layers.late_compiler import shapes_only
from dpt.layers.networks import check_size
from dpt.model import DPT
from dpt.weights.folder import CONFIG, WEIGHTS, config_text, read_config, read_safetensors, write_folder
from dpt.weights.hugging_face import HUGGING_FACE_WEIGHTS, hugging_face_settings
from dpt.weights.key_maps import KEY_MAPS, UNSUPPORTED
from dpt.zoo import resolve_config

PUBLISHED: dict[str, dict[str, Any]] = {
    r"dpt_hybrid[-_]kitti": {"model": "dpt_hybrid_kitti"},
    r"dpt_hybrid[-_]nyu": {"model": "dpt_hybrid_nyu"},
    r"depth_anything_v2_metric_hypersim": {"version": "_v2", "max_depth": 20.0},
    r"depth_anything_v2_metric_vkitti": {"version": "_v2", "max_depth": 80.0},
    r"depth_anything_v2": {"version": "_v2"},
    r"depth_anything": {"version": ""},
}
"""What cannot be inferred from the tensors of a published file, by its name; the first match counts."""


_SHOWN = 3
"""Of the keys that are missing, unexpected or misshapen; the others are counted."""


def save_model(model: DPT, folder: Path | str) -> None:
    """Write `model` to `folder`, which is created, as ``weights.safetensors`` and ``config.json``."""
    write_folder(model.state_dict(), config_text(model.config.to_dict()), Path(folder), WEIGHTS)


def load_model(folder: Path | str) -> DPT:
    """Read a `folder` written by `save_model`; the model is in evaluation mode on the CPU.

    Raises FileNotFoundError if one of the two files is missing; ValueError if weights and config do not fit
    together, naming the keys that differ.
    """
    folder = Path(folder)
    model = _uninitialised(ModelConfig.from_dict(read_config(folder)))
    load_exactly(model, read_tensors(folder / WEIGHTS), str(folder))
    return model.eval()


def load_weights(source: Path | str, model: str | None = None, **overrides: Any) -> DPT:
    """Read weights of any known family and build the model that they belong to.

    Supported are folders and files of `save_model`; the authors' checkpoints of DPT (both sets of names) and
    MiDaS v2.1, v3 and, with BEiT, v3.1; Hugging Face folders of DPT (ViT, hybrid, BEiT) and Depth Anything;
    Depth Anything V1 and V2 of its authors. The model is recognised by its keys, and where they are ambiguous
    (metric scale and shift, version of Depth Anything) by the published file name. A hybrid that is not in
    our layout has the authors' weight standardisation (`dpt.layers.same_padding`), unless `overrides` or a
    folder of `save_hugging_face` say otherwise.

    Args:
        source: a folder or file, an ``https://`` address of a file, or ``hf-hub:owner/name``; the last two
            are downloaded to the caches of PyTorch and Hugging Face.
        model: name in the table of models, needed if the file has been renamed.
        **overrides: fields of `ModelConfig`.

    Returns:
        The model, in evaluation mode on the CPU.

    Raises:
        FileNotFoundError: if `source` does not exist.
        OSError: if it cannot be downloaded, with the reason.
        ValueError: if weights differ from their digest, or keys or shapes are not exactly those of a known
            model, naming those that differ.
    """
    path = _local(source)
    if path.name == WEIGHTS and model is None:
        path = path.parent
    if path.is_dir() and (path / WEIGHTS).exists():
        return load_model(path)
    settings: dict[str, Any] = {}
    if path.is_dir():
        try:
            settings = hugging_face_settings(read_config(path))
        except (LookupError, TypeError, AttributeError) as error:  # a value missing, or of another type
            raise ValueError(f"{path / CONFIG} is not as transformers writes it: {error!r:.200}") from error
        path = path / HUGGING_FACE_WEIGHTS
        model = model or settings.pop("model", None)
    tensors = read_tensors(path)
    return from_tensors(tensors, path.name, model, **settings | overrides)


def from_tensors(
    tensors: Mapping[str, Tensor], file_name: str, model: str | None = None, **overrides: Any
) -> DPT:
    """As `load_weights`, for `tensors` that were read from a file named `file_name`."""
    unsupported = (f for f, marker in UNSUPPORTED.items() if any(re.match(marker, key) for key in tensors))
    if (other := next(unsupported, None)) is not None:
        raise ValueError(f"{file_name} is of {other}, which is not read; docs/python.md lists what is")
    family = next((name for name, key_map in KEY_MAPS.items() if key_map.matches(tensors)), None)
    if family is None:
        raise ValueError(f"{file_name} is not a known checkpoint; its first keys are {sorted(tensors)[:5]}")
    if family != "ours" and any(".backbone." in key for key in tensors):
        # Weights of a hybrid in anybody's layout are the authors' or were trained from these.
        overrides = {"weight_standardisation": "released"} | overrides
    if model is None:
        model, recognised = _recognise(tensors, family, file_name)
        overrides = recognised | overrides
    built = _uninitialised(resolve_config(model, **overrides))
    renamed = KEY_MAPS[family].read(tensors, built.config, built.state_dict())
    load_exactly(built, renamed, file_name)
    return built.eval()


def load_exactly(model: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Assign `tensors` to `model` in its own precision; names and shapes must agree without exception.

    Raises ValueError if they do not, naming `origin` and missing, unexpected and misshapen keys; the
    model is then unchanged.
    """
    expected = model.state_dict()
    common = sorted(expected.keys() & tensors.keys())
    shapes = {key: (list(tensors[key].shape), list(expected[key].shape)) for key in common}
    problems = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - expected.keys()),
        "misshapen": [f"{key} is {a}, should be {b}" for key, (a, b) in shapes.items() if a != b],
    }
    found = [f"{kind}: {_first(keys)}" for kind, keys in problems.items() if keys]
    if found:
        raise ValueError(f"{origin} does not fit the model: {'; '.join(found)}")
    own = {key: tensor.to(expected[key].dtype) for key, tensor in tensors.items()}
    model.load_state_dict(own, assign=True)


def _first(keys: Sequence[str]) -> str:
    """The first of `keys`, and how many more there are."""
    more = f" and {len(keys) - _SHOWN} more" * (len(keys) > _SHOWN)
    return ", ".join(keys[:_SHOWN]) + more


_OF_A_DAMAGED_PICKLE = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, AttributeError, AssertionError),
    *(UnicodeError, OverflowError),
)
"""PyTorch's reader runs the program that a pickle is, and fails wherever damage has changed it."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of the ``.safetensors`` file or PyTorch checkpoint `path`, without wrappers.

    Checkpoints of whole training runs have them under ``model`` or ``state_dict``; those of distributed runs
    begin every key with ``module.``. Raises ValueError if the file is damaged, differs from its digest or
    does not map names to tensors.
    """
    tensors: Any
    try:
        if path.suffix == ".safetensors":
            tensors = read_safetensors(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, *_OF_A_DAMAGED_PICKLE) as error:
        reason = str(error).partition("\n")[0]
        if path.suffix != ".safetensors":  # PyTorch's advice is to read it without any check
            reason = "it is damaged, or holds more than tensors"
        if path.stat().st_size == 0:
            reason = "it is empty"
        raise ValueError(f"{path} is not a readable checkpoint: {reason}") from error
    if not isinstance(tensors, Mapping):
        raise ValueError(f"{path} is not a mapping from names to tensors")
    for wrapper in ("model", "state_dict"):
        if isinstance(tensors.get(wrapper), Mapping):
            tensors = tensors[wrapper]
    if not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ValueError(f"{path} is not a mapping from names to tensors")
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    return dict(tensors)


def _uninitialised(config: ModelConfig) -> DPT:
    """A model to load weights into, where possible without the seconds that random initialisation takes.

    Raises ValueError if it would be too large.
    """
    with shapes_only():
        model = DPT(config)
    check_size(model)
    if all(name in model.state_dict() for name, _ in model.named_buffers()):
        return model
    return DPT(config)


def _local(source: Path | str) -> Path:
    text = str(source)
    if text.startswith("https://"):
        path = Path(torch.hub.get_dir()) / "checkpoints" / text.rsplit("/", 1)[1]
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(text, str(path))
        return path
    if text.startswith("hf-hub:"):
        return _from_hub(text.removeprefix("hf-hub:"))
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"no weights at {path}")
    return path


def _from_hub(name: str) -> Path:
    """The folder of the model `name` of Hugging Face's hub in the local cache.

    Raises FileNotFoundError if the hub has no such model for this user; ConnectionError if it cannot be
    reached and the cache has no copy.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        patterns = [CONFIG, HUGGING_FACE_WEIGHTS, WEIGHTS]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except LocalEntryNotFoundError as error:
        raise ConnectionError(
            "Hugging Face cannot be reached, or HF_HUB_OFFLINE is set, and the cache has no copy; "
            "download it elsewhere (hf download) and give its folder, or set HF_HOME"
        ) from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(f"Hugging Face has no model {name}, or not for this user") from error


def _recognise(tensors: Mapping[str, Tensor], family: str, file_name: str) -> tuple[str, dict[str, Any]]:
    """Name of the model in the table, and the settings that differ from it."""
    published = next((dict(hint) for name, hint in PUBLISHED.items() if re.match(name, file_name)), {})
    if family == "ours":
        raise ValueError(f"{file_name} has no config: keep it beside its {CONFIG}, or name the model")
    if family == "midas":
        return "midas_v21", {}
    if family in ("hugging-face-depth-anything", "hugging-face-beit"):
        raise ValueError(f"{file_name} needs the {CONFIG} that it is published with: give their folder")
    token = next((tensor for key, tensor in tensors.items() if key.endswith("cls_token")), None)
    if token is None or token.ndim == 0:
        raise ValueError(f"{file_name}: a checkpoint of {family} has a cls_token, this one has none")
    if family == "authors-beit":
        rows = len(tensors["pretrained.model.blocks.0.attn.relative_position_bias_table"])
        size = {768: "base", 1024: "large"}.get(token.shape[-1], token.shape[-1])
        # a grid of side s has (2s - 1)² distances, and three rows for the class token
        return f"dpt_beit_{size}_{16 * (math.isqrt(rows - 3) + 1) // 2}", {}
    if family == "depth-anything":
        if "version" not in published:
            raise ValueError(f"{file_name}: versions 1 and 2 of Depth Anything look the same; name the model")
        size = {384: "small", 768: "base", 1024: "large"}.get(token.shape[-1], token.shape[-1])
        return f"depth_anything{published.pop('version')}_{size}", published
    hybrid = any("backbone" in key for key in tensors)
    distilled = any(key.endswith("dist_token") for key in tensors)
    name = "dpt_hybrid" if hybrid else "dpt_large" if token.shape[-1] == 1024 else "dpt_base"
    name = "dpt_deit_base_distilled" if distilled else published.get("model", name)
    return name, _settings_of(tensors)


def _settings_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Settings of a DPT that follow from its tensors."""
    settings: dict[str, Any] = {}
    if not any(re.search(r"readout_|act_postprocess4\.0\.project", key) for key in tensors):
        settings["readout"] = "ignore"
    tables = (t for key, t in tensors.items() if key.endswith(("pos_embed", "position_embeddings")))
    side = math.isqrt(positions.shape[1]) if (positions := next(tables, None)) is not None else 24
    if side != 24:
        settings["backbone_arguments"] = {"img_size": 16 * side}
    heads = (key for key in tensors if re.match(r"(scratch\.output_conv|head\.head)\.1\.weight", key))
    if (head := next(heads, None)) is not None:
        classes = len(tensors[head.replace(".1.", ".4.")])
        settings |= {
            "task": "segmentation",
            "classes": classes,
            # Published models with 150 classes are those of ADE20K.
            "class_names": class_names("ade20k") if classes == 150 else (),
            "auxiliary": any(key.startswith("aux") for key in tensors),
            "batch_norm": True,
            "image_size": 480,
        }
    return settings
