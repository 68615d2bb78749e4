"""Export with dynamic batch, height and width: ONNX files and torch.export programs, checked once written."""

import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from dpt.layers.heads import DepthHead
from dpt.model import DPT
from dpt.weights.onnx import CHECKSUM, OnnxDPT, write_checksum

LARGEST = 4096
"""Upper bound, in pixels, of heights and widths that an exported program takes."""

PRECISIONS = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""Precision of weights and arithmetic → largest mean error of an export, relative to its mean prediction."""

PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pt2": ()}
"""Format → packages that its export needs."""


class _InPrecision(nn.Module):
    """A copy of `model` in the precision `dtype`, from float32 images to float32 predictions."""

    def __init__(self, model: DPT, dtype: torch.dtype):
        super().__init__()
        self.model, self.dtype = copy.deepcopy(model).to(dtype), dtype
        if isinstance(self.model.head, DepthHead):
            self.model.head.conv3.float()  # bfloat16 has 128 levels per factor of two

    def forward(self, images: Tensor) -> Tensor:
        prediction: Tensor = self.model(images.to(self.dtype))
        return prediction.float()


def export_program(model: DPT, precision: str = "float32") -> ExportedProgram:
    """Trace the forward pass of `model`, which is put in evaluation mode, in a `precision` of `PRECISIONS`.

    The program takes (B, 3, H, W) float32 for any B and all H, W that are multiples of `model.size_divisor`,
    from twice that number up to `LARGEST`; its predictions are float32.
    """
    model.eval()
    divisor, device = model.size_divisor, next(model.parameters()).device
    # All sizes differ from each other and from 1, so that the exporter specialises to none of them.
    images = torch.zeros(2, 3, 3 * divisor, 4 * divisor, device=device)
    largest = LARGEST // divisor
    height, width = (divisor * Dim(name, min=2, max=largest) for name in ("rows", "columns"))
    shapes: dict[str, Any] = {"images": {0: Dim("batch", min=1, max=1024), 2: height, 3: width}}
    with torch.no_grad():
        return torch.export.export(
            _InPrecision(model, getattr(torch, precision)), (images,), dynamic_shapes=shapes
        )


def export(model: DPT, path: Path, precision: str = "float32") -> float:
    """Write `model` to the file `path`, by its suffix ONNX or a program of torch.export, and check it.

    Input ``images`` and output ``prediction`` are those of `export_program`. The file says how to use it: see
    `metadata_of`; a program has it as the extra file ``metadata.json``. It needs the format's `PACKAGES`.

    Returns:
        The mean difference between what the file and `model` predict for noise of two sizes that the exporter
        has not seen, relative to the mean prediction.

    Raises:
        ValueError: if that difference is too large for the `precision`, a key of `PRECISIONS`, or the format
            does not have the precision.
    """
    if path.suffix == ".onnx":
        if precision == "bfloat16":
            raise ValueError("precision: onnxruntime has no convolutions in bfloat16; take float16, or pt2")
        _save_onnx(model, path, precision)
        exported: Callable[[Tensor], Tensor] = OnnxDPT(path)
    else:
        extra = {"metadata.json": json.dumps(metadata_of(model, precision))}
        buffer = io.BytesIO()  # PyTorch itself ends the process on a full disk
        torch.export.save(export_program(model, precision), buffer, extra_files=extra)
        path.write_bytes(buffer.getbuffer())
        exported = torch.export.load(path).module()
    error = _difference(exported, model)
    if not error <= PRECISIONS[precision]:  # nor if it is not a number
        raise ValueError(
            f"precision: in {precision} predictions differ from PyTorch's by {error:.2g} of their mean, "
            f"more than {PRECISIONS[precision]:g}"
        )
    return error


def metadata_of(model: DPT, precision: str) -> dict[str, str]:
    """What a program needs to know to use an export of `model` in a `precision`; values are text or JSON.

    ``predicts``, ``quantity``, ``unit``, ``mean``, ``std``, ``image_size``, ``resize_rule`` and
    ``output_resize`` are those of `ModelConfig`, which is whole under ``config``; ``size_divisor`` is that of
    `DPT`; ``colours`` says the order of channels and the range that mean and std belong to.
    """
    config = model.config
    plain = config.to_dict()
    settings = ("mean", "std", "image_size", "resize_rule", "output_resize")
    found = {name: plain[name] for name in settings} | {"size_divisor": model.size_divisor, "config": plain}
    said = {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}
    meaning = {"predicts": config.meaning, "quantity": config.quantity, "unit": config.unit}
    return meaning | said | {"colours": "RGB in [0, 1]", "precision": precision}


def _save_onnx(model: DPT, path: Path, precision: str) -> None:
    names: Any = {"input_names": ["images"], "output_names": ["prediction"]}
    program = torch.onnx.export(export_program(model, precision), **names, dynamo=True, verbose=False)
    if program is None:
        raise RuntimeError("the ONNX exporter returned nothing")
    program.model.metadata_props.update(metadata_of(model, precision) | CHECKSUM)
    program.save(str(path))
    write_checksum(path)


@torch.no_grad()
def _difference(exported: Callable[[Tensor], Tensor], model: DPT) -> float:
    generator, divisor = torch.Generator().manual_seed(0), model.size_divisor
    device, errors = next(model.parameters()).device, []
    for batch, rows, columns in ((1, 5, 2), (3, 2, 6)):
        images = torch.randn(batch, 3, rows * divisor, columns * divisor, generator=generator).to(device)
        expected = model(images)
        error = (exported(images) - expected).abs().mean() / expected.abs().mean().clamp(min=1e-12)
        errors.append(float(error))
    return float(torch.tensor(errors).amax())  # NaN if one is
