"""Export with dynamic batch, height and width: torch.export programs and ONNX files."""

import json
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from dpt.model import DPT

LARGEST = 4096
"""Upper bound, in pixels, of heights and widths that an exported program takes."""


def export_program(model: DPT) -> ExportedProgram:
    """Trace the forward pass of `model`, which is put in evaluation mode.

    The program takes (B, 3, H, W) float32 for any B and all H, W that are multiples of `model.size_divisor`,
    from twice that number up to `LARGEST`.
    """
    model.eval()
    divisor, device = model.size_divisor, next(model.parameters()).device
    # All sizes differ from each other and from 1, so that the exporter specialises to none of them.
    images = torch.zeros(2, 3, 3 * divisor, 4 * divisor, device=device)
    largest = LARGEST // divisor
    height, width = (divisor * Dim(name, min=2, max=largest) for name in ("rows", "columns"))
    shapes: dict[str, Any] = {"images": {0: Dim("batch", min=1, max=1024), 2: height, 3: width}}
    with torch.no_grad():
        return torch.export.export(model, (images,), dynamic_shapes=shapes)


def save_onnx(model: DPT, path: Path | str) -> None:
    """Write `model` to the ONNX file `path`, for the sizes of `export_program`.

    Input ``images``, output ``prediction``. The file's metadata say what goes in and comes out: ``predicts``,
    ``quantity`` and ``unit`` (see `ModelConfig`), and the whole config as JSON under ``config``. Needs the
    packages ``onnx`` and ``onnxscript``. Raises RuntimeError if the exporter returns nothing.
    """
    names: Any = {"input_names": ["images"], "output_names": ["prediction"]}
    program = torch.onnx.export(export_program(model), **names, dynamo=True, verbose=False)
    if program is None:
        raise RuntimeError("the ONNX exporter returned nothing")
    config = model.config
    program.model.metadata_props.update(
        {
            "predicts": config.meaning,
            "quantity": config.quantity,
            "unit": config.unit,
            "config": json.dumps(config.to_dict()),
        }
    )
    program.save(str(path))
