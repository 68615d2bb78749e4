"""Names of tensors in published checkpoints: prefix tables from ours to theirs.

Every table is anchored at the beginning of a name and covers one model exactly; what a published file holds
beyond it (the ImageNet classifier, a unit of the deepest fusion block that no forward pass uses) is listed as
ignored. So a file either fits completely or is refused. The same tables serve for reading and for writing.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dpt.config import ModelConfig

PrefixTable = dict[str, str | tuple[str, ...]]
"""Our prefix -> theirs; several of theirs are concatenated along the first dimension to make ours."""


@dataclass(frozen=True)
class KeyMap:
    """How one family of files names its tensors.

    Attributes:
        marker: a pattern that matches some key of every such file and of no other.
        prefixes: makes the table for one model.
        ignored: pattern of keys that have no counterpart in our models and no effect on their output.
    """

    marker: str
    prefixes: Callable[[ModelConfig], PrefixTable]
    ignored: str = r"(?!)"

    def matches(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether a file with the keys of `tensors` belongs to this family."""
        return any(re.match(self.marker, key) for key in tensors)

    def read(
        self, tensors: Mapping[str, Tensor], config: ModelConfig, ours: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Rename to our names; keys that are neither known nor ignored keep theirs.

        Args:
            tensors: as read from the file.
            config: of the model that they are for.
            ours: state dict of that model, of which only the names matter.
        """
        prefixes = self.prefixes(config)
        rest = {key: tensor for key, tensor in tensors.items() if not re.match(self.ignored, key)}
        renamed: dict[str, Tensor] = {}
        for key in ours:
            theirs = _rename(key, prefixes)
            if all(name in rest for name in theirs):
                parts = [rest.pop(name) for name in theirs]
                renamed[key] = torch.cat(parts) if len(parts) > 1 else parts[0]
        return renamed | rest

    def write(self, ours: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
        """Inverse of `read`, except for the ignored keys: `ours` is the state dict of a model of `config`."""
        prefixes = self.prefixes(config)
        renamed: dict[str, Tensor] = {}
        for key, tensor in ours.items():
            theirs = _rename(key, prefixes)
            parts = tensor.chunk(len(theirs)) if len(theirs) > 1 else (tensor,)
            renamed.update(zip(theirs, parts, strict=True))
        return renamed


def _rename(key: str, prefixes: PrefixTable) -> tuple[str, ...]:
    """Their names of our tensor `key`, by the longest prefix; its own without any."""
    longest = max((prefix for prefix in prefixes if key.startswith(prefix)), key=len, default="")
    theirs = prefixes.get(longest, "")
    return tuple(name + key[len(longest) :] for name in ((theirs,) if isinstance(theirs, str) else theirs))


def _reassemble(readout: str, project: str, resample: str) -> PrefixTable:
    """The parts of the four Reassemble stages by pattern: {k} counts stages from 0, {n} from 1."""
    parts = {"readout.project": readout, "project": project, "resample": resample}
    return {
        f"reassemble.stages.{k}.{ours}.": theirs.format(k=k, n=k + 1)
        for k in range(4)
        for ours, theirs in parts.items()
    }


def _units(k: int, conv: str, norm: str) -> PrefixTable:
    """The two residual units of fusion block `k` by pattern: {u} counts units, {c} their layers, from 1."""
    return {
        f"fusion.blocks.{k}.{unit}.{layer}{c}.": theirs.format(u=u, c=c)
        for u, unit in enumerate(("skip", "refine"), start=1)
        for c in (1, 2)
        for layer, theirs in (("conv", conv), ("norm", norm))
    }


def _decoder(root: str) -> PrefixTable:
    """The decoder as the authors name it, below `root`."""
    table: PrefixTable = {}
    for k in range(4):
        block = f"{root}refinenet{k + 1}."
        table[f"reassemble.adapt.{k}."] = f"{root}layer{k + 1}_rn."
        table[f"fusion.blocks.{k}.project."] = f"{block}out_conv."
        table |= _units(k, f"{block}resConfUnit{{u}}.conv{{c}}.", f"{block}resConfUnit{{u}}.bn{{c}}.")
    return table


def _heads(config: ModelConfig, head: str, auxiliary: str) -> PrefixTable:
    """Heads as sequences of layers, numbered with their activations and upsampling."""
    if config.task == "depth":
        return {f"head.conv{n}.": f"{head}.{index}." for n, index in ((1, 0), (2, 2), (3, 4))}
    return {
        f"{ours}.{layer}.": f"{theirs}.{index}."
        for ours, theirs in (("head", head), ("auxiliary", auxiliary))
        for layer, index in (("conv1", 0), ("norm", 1), ("conv2", 4))
    }


def _authors_with(readout: str, project: str, resample: str) -> Callable[[ModelConfig], PrefixTable]:
    table: PrefixTable = {"backbone.vit.": "pretrained.model."}
    table |= _reassemble(readout, project, resample) | _decoder("scratch.")
    return lambda config: table | _heads(config, "scratch.output_conv", "auxlayer")


def _authors_beit(config: ModelConfig) -> PrefixTable:
    """MiDaS 3.1 with BEiT; names of timm 0.6."""
    vit = "backbone.beit.vit."
    table = {key.replace("backbone.vit.", vit): theirs for key, theirs in _authors(config).items()}
    for layer in range(int(config.taps[-1])):
        attention = f"pretrained.model.blocks.{layer}.attn."
        table[f"backbone.beit.tables.{layer}"] = f"{attention}relative_position_bias_table"
    return table


def _midas(config: ModelConfig) -> PrefixTable:
    table: PrefixTable = {
        "backbone.cnn.conv1.": "pretrained.layer1.0.",
        "backbone.cnn.bn1.": "pretrained.layer1.1.",
        "backbone.cnn.layer1.": "pretrained.layer1.4.",
        "backbone.cnn.layer": "pretrained.layer",
    }
    return table | _decoder("scratch.") | _heads(config, "scratch.output_conv", "")


def _depth_anything(config: ModelConfig) -> PrefixTable:
    table: PrefixTable = {
        "backbone.vit.": "pretrained.",
        "head.conv1.": "depth_head.scratch.output_conv1.",
        "head.conv2.": "depth_head.scratch.output_conv2.0.",
        "head.conv3.": "depth_head.scratch.output_conv2.2.",
    }
    head = "depth_head."
    stages = _reassemble(
        f"{head}readout_projects.{{k}}.0.", f"{head}projects.{{k}}.", f"{head}resize_layers.{{k}}."
    )
    return table | stages | _decoder("depth_head.scratch.")


def _hugging_face(config: ModelConfig) -> PrefixTable:
    vit, bit = "backbone.vit.", "dpt.embeddings.backbone.bit."
    table: PrefixTable = {
        f"{vit}cls_token": "dpt.embeddings.cls_token",
        f"{vit}pos_embed": "dpt.embeddings.position_embeddings",
        f"{vit}patch_embed.backbone.stem.conv.": f"{bit}embedder.convolution.",
        f"{vit}patch_embed.backbone.stem.norm.": f"{bit}embedder.norm.",
    }
    hybrid = isinstance(config.taps[0], str)
    patches = "projection" if hybrid else "patch_embeddings.projection"
    table[f"{vit}patch_embed.proj."] = f"dpt.embeddings.{patches}."
    for stage, blocks in enumerate((3, 4, 9) if hybrid else ()):
        for block in range(blocks):
            ours = f"{vit}patch_embed.backbone.stages.{stage}.blocks.{block}."
            table[ours] = f"{bit}encoder.stages.{stage}.layers.{block}."
    for layer in range(int(config.taps[-1])):
        ours, theirs = f"{vit}blocks.{layer}.", f"dpt.encoder.layer.{layer}."
        attention = f"{theirs}attention.attention."
        table[f"{ours}norm1."] = f"{theirs}layernorm_before."
        table[f"{ours}norm2."] = f"{theirs}layernorm_after."
        table[f"{ours}attn.qkv."] = (f"{attention}query.", f"{attention}key.", f"{attention}value.")
        table[f"{ours}attn.proj."] = f"{theirs}attention.output.dense."
        table[f"{ours}mlp.fc1."] = f"{theirs}intermediate.dense."
        table[f"{ours}mlp.fc2."] = f"{theirs}output.dense."
    return table | _neck() | _heads(config, "head.head", "auxiliary_head.head")


def _neck() -> PrefixTable:
    """Reassemble and Fusion in transformers, which has one decoder for DPT and Depth Anything."""
    stages = "neck.reassemble_stage."
    adapter = f"{stages}layers.{{k}}."
    table = _reassemble(f"{stages}readout_projects.{{k}}.0.", f"{adapter}projection.", f"{adapter}resize.")
    for k in range(4):
        # they count fusion blocks from the coarsest map
        fusion = f"neck.fusion_stage.layers.{3 - k}."
        unit = f"{fusion}residual_layer{{u}}."
        table[f"reassemble.adapt.{k}."] = f"neck.convs.{k}."
        table[f"fusion.blocks.{k}.project."] = f"{fusion}projection."
        table |= _units(k, f"{unit}convolution{{c}}.", f"{unit}batch_norm{{c}}.")
    return table


def _hugging_face_backbone(vit: str, config: ModelConfig, layer_parts: PrefixTable) -> PrefixTable:
    """A backbone that transformers has as a model of its own, below `vit` here, with the `_neck`."""
    embeddings = "backbone.embeddings."
    table: PrefixTable = {
        f"{vit}cls_token": f"{embeddings}cls_token",
        f"{vit}pos_embed": f"{embeddings}position_embeddings",
        f"{vit}patch_embed.proj.": f"{embeddings}patch_embeddings.projection.",
        f"{vit}norm.": "backbone.layernorm.",
    }
    for layer in range(int(config.taps[-1])):
        ours, theirs = f"{vit}blocks.{layer}.", f"backbone.encoder.layer.{layer}."
        attention = f"{theirs}attention.attention."
        table[ours] = theirs
        table[f"{ours}attn.qkv."] = tuple(f"{attention}{part}." for part in ("query", "key", "value"))
        table[f"{ours}attn.proj."] = f"{theirs}attention.output.dense."
        table |= {f"{ours}{part}": f"{theirs}{name}" for part, name in layer_parts.items()}
    return table | _neck()


def _hugging_face_depth_anything(config: ModelConfig) -> PrefixTable:
    parts: PrefixTable = {f"ls{n}.gamma": f"layer_scale{n}.lambda1" for n in (1, 2)}
    return _hugging_face_backbone("backbone.vit.", config, parts)


def _hugging_face_beit(config: ModelConfig) -> PrefixTable:
    attention = "attention.attention."
    parts: PrefixTable = {
        **{f"norm{n}.": f"layernorm_{where}." for n, where in ((1, "before"), (2, "after"))},
        **{f"gamma_{n}": f"lambda_{n}" for n in (1, 2)},
        **{f"attn.{part[0]}_bias": f"{attention}{part}.bias" for part in ("query", "value")},
        **{"mlp.fc1.": "intermediate.dense.", "mlp.fc2.": "output.dense."},
    }
    table = _hugging_face_backbone("backbone.beit.vit.", config, parts)
    for layer in range(int(config.taps[-1])):
        positions = f"{attention}relative_position_bias.relative_position_bias_table"
        table[f"backbone.beit.tables.{layer}"] = f"backbone.encoder.layer.{layer}.{positions}"
    return table | _heads(config, "head.head", "auxiliary_head.head")


_stage, _readout = "pretrained.act_postprocess{n}.", "pretrained.readout_oper{n}."
_authors = _authors_with(f"{_stage}0.project.0.", f"{_stage}3.", f"{_stage}4.")
_authors_scriptable = _authors_with(f"{_readout}0.project.0.", f"{_stage}0.", f"{_stage}1.")
_UNUSED_UNIT = r"scratch\.refinenet4\.resConfUnit1\."
_HUGGING_FACE_UNUSED = r"neck\.fusion_stage\.layers\.0\.residual_layer1\."
_AUTHORS_IGNORED = rf"pretrained\.model\.(norm|head|head_dist)\.|{_UNUSED_UNIT}"
_SWIN = r"pretrained\.model\.layers\.\d+\.blocks\.\d+\.attn\."
UNSUPPORTED = {
    "ZoeDepth on Depth Anything (its metric models of version 1)": r"core\.core\.depth_head\.",
    "ZoeDepth": r"core\.core\.|(conditional_log_binomial|seed_(bin|projector)|attractors)",
    "MiDaS 3.1 with Swin V2": rf"{_SWIN}(cpb_mlp|logit_scale)",
    "MiDaS 3.1 with Swin": rf"{_SWIN}relative_position_bias_table$",
    "MiDaS 3.1 with LeViT": r"pretrained\.model\.(blocks|stages)\..*\.attention_biases$",
    "MiDaS 3.1 with Next-ViT": r"pretrained\.model\.features\.\d+\.",
    "MiDaS v2.1 small": r"pretrained\.layer\d\..*\.conv_dw\.weight$",
    "Depth Anything V2 giant": r"pretrained\.blocks\..*\.mlp\.w12\.",
}
"""Published families that are not read -> pattern of some key of theirs and of no other's."""

KEY_MAPS: dict[str, KeyMap] = {
    "ours": KeyMap(r"fusion\.blocks\.0\.refine\.conv1\.weight$", lambda config: {}),
    "authors-beit": KeyMap(
        r"pretrained\.model\.blocks\.0\.gamma_1$",
        _authors_beit,
        rf"{_AUTHORS_IGNORED}|pretrained\.model\.(fc_norm\.|blocks\.\d+\.attn\.relative_position_index$)",
    ),
    "authors": KeyMap(r"pretrained\.act_postprocess4\.3\.weight$", _authors, _AUTHORS_IGNORED),
    "authors-scriptable": KeyMap(
        r"pretrained\.act_postprocess4\.0\.weight$", _authors_scriptable, _AUTHORS_IGNORED
    ),
    "midas": KeyMap(r"pretrained\.layer1\.0\.weight$", _midas, _UNUSED_UNIT),
    "depth-anything": KeyMap(
        r"depth_head\.scratch\.output_conv1\.weight$",
        _depth_anything,
        rf"pretrained\.mask_token$|depth_head\.{_UNUSED_UNIT}",
    ),
    "hugging-face-depth-anything": KeyMap(
        r"backbone\.encoder\.layer\.0\.layer_scale1\.lambda1$",
        _hugging_face_depth_anything,
        rf"backbone\.embeddings\.mask_token$|{_HUGGING_FACE_UNUSED}",
    ),
    "hugging-face-beit": KeyMap(
        r"backbone\.encoder\.layer\.0\.lambda_1$",
        _hugging_face_beit,
        rf"backbone\.(layernorm|pooler)\.|{_HUGGING_FACE_UNUSED}",
    ),
    "hugging-face": KeyMap(
        r"neck\.fusion_stage\.layers\.0\.projection\.weight$",
        _hugging_face,
        rf"dpt\.layernorm\.|dpt\.pooler\.|{_HUGGING_FACE_UNUSED}",
    ),
}
