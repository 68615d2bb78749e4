"""A model made for inference: folded weights in one precision, CUDA graphs of sizes that repeat, chunks.

Everything that predicts uses it: `dpt predict`, `evaluate`, `report`, the registered model, Table 9.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from dpt.folding import fold
from dpt.layers.backbones import ViTBackbone
from dpt.layers.heads import DepthHead
from dpt.model import DPT

MOST_ELEMENTS = 2**31 - 1
"""Of a tensor on a GPU, where kernels such as `upsample_bilinear2d_nhwc` count in 32 bits."""

GRAPHS = 4
"""CUDA graphs that are kept, each of one shape; all have their tensors in memory."""

_REMEMBERED = 64
"""Shapes whose last use is known."""

Network = Callable[[Tensor], Tensor]


class FastDPT(DPT):
    """The function of a `DPT`, for inference only.

    Batch norms, LayerScale and weight standardisation are folded (`dpt.folding`), and weights are of one
    precision, except the depth head's last convolution, which is at least float32: bfloat16 has 128 levels
    per factor of two, visible steps in depth maps. The layout is channels-last, which convolutions prefer on
    CPUs too. On GPUs shapes that repeat run as CUDA graphs, and float32 is multiplied with TF32, whose
    factors have 10 bits, unless `exact`.

    Args:
        model: in any mode, on any device; copied.
        device: to predict on.
        dtype: of the weights and of the arithmetic.
        exact: no TF32.
    """

    @torch.inference_mode(False)
    @torch.no_grad()
    def __init__(
        self,
        model: DPT,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        exact: bool = False,
    ) -> None:
        least_float32 = torch.promote_types(dtype, torch.float32)
        copied = copy.deepcopy(model).eval().requires_grad_(False).to(least_float32)
        self.__dict__.update(copied.__dict__)
        fold(self)
        self.to(device, dtype).to(memory_format=torch.channels_last)
        on_gpu = torch.device(device).type == "cuda"
        if isinstance(self.head, DepthHead):
            self.head.conv3.to(least_float32)
        self.exact = exact
        # The threads of a server share the memory of graphs.
        self._alone: AbstractContextManager[Any] = Lock() if on_gpu else nullcontext()
        self._pool = torch.cuda.graph_pool_handle() if on_gpu else None
        self._run: Network = Graphs(self._record, self.eager) if on_gpu else self.eager

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """As `DPT.forward`, of `images` in any floating point precision; tensors are of inference mode."""
        images = images.to(next(self.parameters()).dtype)
        parts = images.chunk(math.ceil(len(images) / self.most_images(*images.shape[-2:])))
        with self._alone, tf32(not self.exact):
            outputs = [self._run(part) for part in parts]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def eager(self, images: Tensor) -> Tensor:
        """Predict `images` of the model's precision kernel by kernel, whatever their number."""
        output = super().forward(images)
        assert isinstance(output, Tensor)
        return output

    def most_images(self, height: int, width: int) -> int:
        """How many images of `height` × `width` pixels go through the network at once; at least 1.

        The largest tensors have the images' size, and as channels half of the decoder's, 32, or the classes.
        """
        classes = self.config.classes if self.config.task == "segmentation" else 0
        channels = max(self.config.features // 2, 32, classes)
        return max(1, MOST_ELEMENTS // (channels * height * width))

    def train(self, mode: bool = True) -> FastDPT:
        """Stays in evaluation mode; RuntimeError if the `mode` is True."""
        if mode:
            raise RuntimeError("FastDPT is for inference only: train the DPT that it was made of")
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """RuntimeError: these weights fit no config, so they must not be saved."""
        raise RuntimeError("FastDPT has folded weights, which no model reads: save the DPT it was made of")

    def _record(self, images: Tensor) -> Network:
        patch = self.backbone.patch_size
        grid = (images.shape[-2] // patch, images.shape[-1] // patch)

        def positions() -> object:
            return self.backbone.positions(*grid) if isinstance(self.backbone, ViTBackbone) else None

        return recorded(self.eager, images, positions, self._pool)


class Graphs:
    """Replays a function for shapes that repeat, by recordings of the most recent ones.

    A shape is recorded when it comes for the second time. If all `GRAPHS` are taken, it replaces the one that
    was used least recently, but only if that was before its own last use: of five sizes in turn, four keep
    their graph, instead of each replacing the one that comes next.

    Args:
        record: makes a recording for an argument; RuntimeError if that is not possible.
        eager: the function itself.
    """

    def __init__(self, record: Callable[[Tensor], Network], eager: Network) -> None:
        self.record, self.eager = record, eager
        self._recent: OrderedDict[torch.Size, Network | None] = OrderedDict()

    def __call__(self, images: Tensor) -> Tensor:
        """Call the function with `images`; the result is the caller's."""
        shape = images.shape
        call = self._recent.get(shape)
        if call is None and shape in self._recent and self._has_room(shape):
            call = self._recorded(images)
        self._recent[shape] = call
        self._recent.move_to_end(shape)
        if len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)
        return (call or self.eager)(images)

    def _has_room(self, shape: torch.Size) -> bool:
        """Whether `shape` may be recorded; makes room for it."""
        kept = [other for other, call in self._recent.items() if call]
        if len(kept) < GRAPHS:
            return True
        order = list(self._recent)
        if order.index(kept[0]) > order.index(shape):
            return False
        self._recent[kept[0]] = None
        return True

    def _recorded(self, images: Tensor) -> Network:
        try:
            return self.record(images)
        except RuntimeError as error:  # among others, memory
            what = f"no CUDA graph of {tuple(images.shape)}, which costs speed"
            warnings.warn(f"{what}: {str(error).splitlines()[0]}", stacklevel=2)
            return self.eager


def recorded(
    call: Network, images: Tensor, held: Callable[[], object] = lambda: None, pool: Any = None
) -> Network:
    """A CUDA graph of a `call` with tensors like `images`; its function copies argument and result.

    It is recorded on a stream of its own after a warm-up there, as CUDA requires. `held` is called in
    between: what it returns lives as long as the graph, which has addresses of tensors and does not keep
    them. Graphs may share the memory of a `pool`, since none runs beside another.
    """
    argument = images.clone()
    stream = torch.cuda.Stream(images.device)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call(argument)
    torch.cuda.current_stream().wait_stream(stream)
    kept = held()
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on with copies and allocations.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        result = call(argument)

    def replay(images: Tensor, kept: object = kept) -> Tensor:
        argument.copy_(images)
        graph.replay()
        return result.clone()

    return replay


@contextmanager
def tf32(enabled: bool) -> Iterator[None]:
    """Context in which float32 products and convolutions on GPUs round factors to 10 bits, if `enabled`."""
    backends: Any = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = enabled
    try:
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value
