"""DPT: backbone → Reassemble → Fusion → head.

Ranftl, Bochkovskiy, Koltun: Vision Transformers for Dense Prediction, ICCV 2021.
"""

import dataclasses
from typing import Any, TypeGuard

from torch import Tensor, nn

from dpt.config import ModelConfig
from dpt.layers.backbones import Backbone, ViTBackbone, create_backbone
from dpt.layers.fusion import FusionDecoder
from dpt.layers.heads import DepthHead, SegmentationHead
from dpt.layers.reassemble import Reassemble
from dpt.layers.upsampling import Upsampling


class DPT(nn.Module):
    """A dense prediction transformer (section 3), or a convolutional baseline with the same decoder.

    Args:
        config: what to build; kept as the attribute `config`, with the channels of convolutional taps.
        pretrained: fetch the backbone's ImageNet weights through timm.

    Attributes:
        mean: mean of RGB in [0, 1], for normalisation.
        std: standard deviation of RGB in [0, 1], for normalisation.
        returns_features: whether a depth model in training mode returns its backbone's last features too.

    Raises:
        ValueError: naming the setting, if backbone, taps and readout do not fit together.
    """

    returns_features = False

    def __init__(self, config: ModelConfig, pretrained: bool = False):
        super().__init__()
        self.backbone: Backbone = create_backbone(
            config.backbone,
            config.taps,
            pretrained=pretrained,
            interpolation=config.position_interpolation,
            final_norm=config.final_norm,
            standardisation=config.weight_standardisation,
            arguments=config.backbone_arguments,
        )
        convolutional = [isinstance(tap, str) for tap in config.taps]
        if config.readout != "ignore" and not (self.backbone.readout_tokens or all(convolutional)):
            raise ValueError(f"readout: {config.backbone} has no readout token, so it must be 'ignore'")
        choices = zip(self.backbone.channels, config.channels, convolutional, strict=True)
        channels = tuple(own if is_map else chosen for own, chosen, is_map in choices)
        self.config = dataclasses.replace(config, channels=channels)
        self.mean, self.std = config.mean, config.std
        tapped, tokens = self.backbone.channels, self.backbone.readout_tokens
        self.reassemble = Reassemble(tapped, convolutional, channels, config.features, config.readout, tokens)
        self.fusion = FusionDecoder(config.features, config.batch_norm, config.fusion)
        self.head: nn.Module
        self.auxiliary: nn.Module | None = None
        if config.task == "depth":
            align, limit = config.head_align_corners, config.max_depth
            self.head = DepthHead(config.features, config.head_channels, align, limit)
        else:
            self.head = SegmentationHead(config.features, config.classes)
            if config.auxiliary:
                self.auxiliary = SegmentationHead(config.features, config.classes)

    @property
    def size_divisor(self) -> int:
        """Heights and widths of images must be multiples of this: 32 for patches of 16 pixels."""
        patch = self.backbone.patch_size
        return 32 if 32 % patch == 0 else patch

    def set_checkpointing(self, enable: bool = True) -> None:
        """`enable` recomputing the backbone's layers in the backward pass: less memory, a third more time."""
        self.backbone.set_checkpointing(enable)

    def repeated_layers(self) -> list[nn.Module]:
        """The backbone's layers that are built alike, or the backbone itself where there are none."""
        # timm has the blocks of a ViT in a Sequential, as the unlike parts of other networks.
        lists = [m for m in self.backbone.modules() if isinstance(m, nn.ModuleList) or _are_alike(m)]
        layers: list[nn.Module] = [layer for each in lists for layer in each]
        inner = {id(module) for layer in layers for module in layer.modules() if module is not layer}
        return [layer for layer in layers if id(layer) not in inner] or [self.backbone]

    def compile_regions(self, **options: Any) -> None:
        """Compile the backbone's layers, a hybrid's stages and the decoder's parts, in place, each by itself.

        Layers that are alike share one program then, which takes their weights as inputs, so that the first
        step comes sooner than of a model compiled as a whole. `options` are those of `torch.compile`.
        """
        stages = self.backbone.embedding_stages if isinstance(self.backbone, ViTBackbone) else []
        for region in [*self.repeated_layers(), *stages, self.reassemble, self.fusion, self.head]:
            region.compile(**options)

    def set_upsampling(self, as_given: bool) -> None:
        """Whether the decoder's upsampling keeps the precision that it is given (`Upsampling.as_given`)."""
        for module in self.modules():
            if isinstance(module, Upsampling):
                module.as_given = as_given

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Predict.

        Args:
            images: (B, 3, H, W) float32, normalised by `mean` and `std`; H and W are multiples of
                `size_divisor`.

        Returns:
            Depth models: (B, H, W) float32, non-negative inverse depth (large is near) up to scale and
            shift; metric inverse depth (1/m) or depth (m) if the config says so; with `returns_features` in
            training mode also the features (B, C, h, w) of the last tap. Segmentation models: logits
            (B, classes, H, W) and, in training mode, those of the auxiliary head if there is one.

        Raises:
            ValueError: if the size does not fit the patches.
        """
        size = (images.shape[-2], images.shape[-1])
        if size[0] % self.backbone.patch_size or size[1] % self.backbone.patch_size:
            height, width = size
            raise ValueError(f"images of {height} by {width} are not multiples of {self.size_divisor} pixels")
        taps = self.backbone(images)
        features, penultimate = self.fusion(self.reassemble(taps))
        output = self.head(features, size)
        if self.config.task == "depth":
            depth = self._metric(output)
            return (depth, taps[-1].features) if self.training and self.returns_features else depth
        if self.training and self.auxiliary is not None:
            return output, self.auxiliary(penultimate, size)
        return output

    def _metric(self, prediction: Tensor) -> Tensor:
        config = self.config
        if (config.scale, config.shift) != (1.0, 0.0):
            prediction = config.scale * prediction + config.shift
        return 1 / prediction.clamp(min=1e-8) if config.invert else prediction


def _are_alike(module: nn.Module) -> TypeGuard[nn.Sequential]:
    """Whether `module` is a sequence of layers of one class, with parameters of the same shapes."""
    built = [(type(layer), *(p.shape for p in layer.parameters())) for layer in module.children()]
    return isinstance(module, nn.Sequential) and len(built) > 1 and len(set(built)) == 1 < len(built[0])


def parameter_groups(model: DPT, backbone_lr: float = 1e-5, decoder_lr: float = 1e-4) -> list[dict[str, Any]]:
    """Parameter groups of `model` for the optimiser, with the paper's two learning rates (section 4.1).

    `backbone_lr` is that of the backbone, `decoder_lr` of all other parameters.
    """
    backbone = list(model.backbone.parameters())
    known = {id(parameter) for parameter in backbone}
    decoder = [parameter for parameter in model.parameters() if id(parameter) not in known]
    return [
        {"name": "backbone", "params": backbone, "lr": backbone_lr},
        {"name": "decoder", "params": decoder, "lr": decoder_lr},
    ]
