"""Exported ONNX files, run by onnxruntime in place of the model that they were made of."""

import json
import re
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dpt.config import ModelConfig
from dpt.layers.backbones import Backbone
from dpt.model import DPT

CHECKSUM = {"checksum": "0" * 8}
"""Metadata that a file is written with, so that `write_checksum` finds its place."""

_PLACE = re.compile(rb"checksum..([0-9a-f]{8})", re.DOTALL)  # between them, two bytes say type and length


def write_checksum(path: Path) -> None:
    """Put the CRC-32 of the file at `path`, with zeros in its place, into its metadata."""
    data = path.read_bytes()
    place = _PLACE.search(data)
    assert place is not None
    with path.open("r+b") as file:
        file.seek(place.start(1))
        file.write(b"%08x" % zlib.crc32(data))


def _is_intact(data: bytes) -> bool:
    place = _PLACE.search(data)
    if place is None:
        return False
    before = zlib.crc32(b"0" * 8, zlib.crc32(memoryview(data)[: place.start(1)]))
    return place[1] == b"%08x" % zlib.crc32(memoryview(data)[place.end(1) :], before)


class OnnxDPT(DPT):
    """The model in an ONNX file of `dpt.weights.export.export`, for inference on a CPU or, with CUDA, a GPU.

    It computes in the precision that it was exported in, where its input is. Needs the package
    ``onnxruntime`` (for GPUs ``onnxruntime-gpu``).

    Args:
        path: of the file.

    Raises:
        ImportError: if the package is missing.
        ValueError: if the file is not a readable ONNX file, not one of ours, or damaged.
    """

    def __init__(self, path: Path | str):
        nn.Module.__init__(self)
        self.path, self._sessions = str(path), dict[str, Any]()
        said = self._session("cpu").get_modelmeta().custom_metadata_map
        if not {"config", "size_divisor"} <= said.keys():
            raise ValueError(f"{path} was not written by dpt export: its metadata has no config")
        if not _is_intact(Path(path).read_bytes()):
            raise ValueError(f"{path} is damaged: it differs from its checksum; export it again")
        self.config = ModelConfig.from_dict(json.loads(said["config"]))
        self.mean, self.std, self._divisor = self.config.mean, self.config.std, int(said["size_divisor"])
        self.nothing = nn.Parameter(torch.zeros(0))  # says which device and precision the input shall have

    @property
    def backbone(self) -> Backbone:  # type: ignore[override]
        """ValueError: there is none."""
        raise ValueError("an ONNX file has no layers to look into: give the model it was exported from")

    @property
    def size_divisor(self) -> int:
        """As of `DPT`."""
        return self._divisor

    def forward(self, images: Tensor) -> Tensor:
        """As `DPT.forward` in evaluation mode."""
        given = {"images": images.float().cpu().numpy()}
        (prediction,) = self._session(images.device.type).run(None, given)
        return torch.from_numpy(prediction).to(images.device)

    def _session(self, device: str) -> Any:
        """The session of onnxruntime on a `device`, which warns where it cannot use a GPU."""
        import onnxruntime

        if device not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            providers = ["CUDAExecutionProvider"] if device == "cuda" else []
            providers.append("CPUExecutionProvider")
            try:
                session = onnxruntime.InferenceSession(self.path, options, providers)
            except Exception as error:  # of a class that onnxruntime does not export
                raise ValueError(f"not a readable ONNX file: {str(error).splitlines()[0]}") from error
            self._sessions[device] = session
        return self._sessions[device]
