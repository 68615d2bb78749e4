"""Optical flow between the views of stereo pairs, left to right and right to left.

Two methods: OpenCV's DIS (T. Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016) on a
CPU core, and torchvision's RAFT (Z. Teed and J. Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical
Flow", ECCV 2020) on a GPU. How well they do on a real pair: `benchmarks/stereo.py`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets_prep.errors import NotFound, UserError

Flow = NDArray[np.float32]
"""(H, W, 2) float32: pixels that a point moves to the right and down from one picture to the other."""

FlowMethod = Callable[[NDArray[np.uint8], NDArray[np.uint8]], tuple[Flow, Flow]]
"""(H, W, 3) uint8 RGB left and right → flow left to right, flow right to left."""

# RAFT's features have an eighth of the resolution, and its correlation pyramid halves them three times.
_RAFT_STRIDE = 8
_RAFT_MIN_SIDE = 128


def dis_flow(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> tuple[Flow, Flow]:
    """DIS flow `left` → `right` and back, with the medium preset refined to full resolution.

    The preset stops at half resolution. The finest level brings clearly more pixels within 2 px of the truth,
    at several times the time.
    """
    grey = [cv2.cvtColor(view, cv2.COLOR_RGB2GRAY) for view in (left, right)]
    return _dis(grey[0], grey[1]), _dis(grey[1], grey[0])


def _dis(first: NDArray[Any], second: NDArray[Any]) -> Flow:
    # A new object each time: it keeps the last flow as its initial value.
    method: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    method.setFinestScale(0)
    return np.asarray(method.calc(first, second, None), np.float32)


class RaftFlow:
    """torchvision's large RAFT.

    Args:
        weights: file of its state dict (`.safetensors`, or `.pth` as torchvision publishes it); None for
            torchvision's published weights, which are downloaded and cached.
        updates: recurrent refinements; torchvision states its accuracy for 12 and 32.
        device: PyTorch device.

    Raises:
        NotFound: if the file does not exist.
        UserError: if it holds other weights.
    """

    def __init__(self, weights: str | None, updates: int, device: str) -> None:
        from torchvision.models.optical_flow import Raft_Large_Weights, raft_large

        if weights is None:
            self._model = raft_large(weights=Raft_Large_Weights.DEFAULT, progress=False)
        else:
            self._model = raft_large(weights=None)
            _load(self._model, Path(weights))
        self._model.eval().to(device)
        self._updates, self._device = updates, device

    def __call__(self, left: NDArray[np.uint8], right: NDArray[np.uint8]) -> tuple[Flow, Flow]:
        """Flow `left` → `right` and back, as one batch of two."""
        import torch

        height, width = left.shape[:2]
        pair = torch.from_numpy(np.stack([left, right])).to(self._device).permute(0, 3, 1, 2)
        pair = _padded(pair.float() / 127.5 - 1)
        with torch.inference_mode():
            flow = self._model(pair, pair.flip(0), num_flow_updates=self._updates)[-1]
        there, back = flow[..., :height, :width].permute(0, 2, 3, 1).float().cpu().numpy()
        return there, back


def _padded(pair: Any) -> Any:
    """(2, 3, H, W) padded to sizes that RAFT accepts, the border repeated to the right and below."""
    from torch.nn.functional import pad

    height, width = (max(_RAFT_MIN_SIDE, -(-side // _RAFT_STRIDE) * _RAFT_STRIDE) for side in pair.shape[2:])
    return pad(pair, (0, width - pair.shape[3], 0, height - pair.shape[2]), mode="replicate")


def _load(model: Any, path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    if not path.is_file():
        raise NotFound(f"no such file of RAFT weights: {path}")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except Exception as error:  # each damage has its own, from EOFError to pickle.UnpicklingError
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{path} holds no weights of torchvision's raft_large: {reason}") from error
