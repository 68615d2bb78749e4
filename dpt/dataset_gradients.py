"""Gradients of every dataset's loss from one forward and one backward pass.

An image belongs to one dataset, so all datasets' gradients together need no more arithmetic than their sum: a
layer's weight gradient is a sum over images, and taking it over the images of one dataset at a time costs the
same products. What a pass for each dataset costs beyond that is small batches, which a GPU finishes before
the next can be launched.

`DatasetGradients` watches the functions that a model calls. Where a batch meets a weight in a linear layer or
a convolution, that function's backward pass takes the weight's gradient apart by dataset. Everywhere else
(gains, biases, embeddings, tables of positions) the parameter is given to every image as a copy of its
dataset's own, so that autograd itself keeps them apart. What is computed from parameters alone, such as a
standardised weight or a resampled table of positions, counts as a parameter until a batch meets it, and its
gradients are then carried on to the parameters.

Layers that `torch.utils.checkpoint` computes again in the backward pass are watched then as well, since they
must save the tensors that they saved before; gradients come from the first time's functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from dpt.sketch import Sketch

_LONG = 256
"""From so many tokens an image on, one product for every image costs less than a call for every dataset."""


class NotSeparable(Exception):
    """The model uses a parameter in a way that there is no rule for, or couples the batch's images."""


def couples_images(model: nn.Module) -> bool:
    """Whether an image's output depends on the batch's other images: `model` normalises over the batch."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    return any(isinstance(module, norms) and module.training for module in model.modules())


class DatasetGradients(TorchFunctionMode):
    """Context of one forward pass, of which `of_sums` then takes the gradients, or `sketch_sums` a sketch.

    Args:
        images: number of images of each of D datasets in the batch, their sum n. The batch is sorted by
            dataset and requires a gradient.
        device: of model and batch.
        sketch: of D vectors, for `sketch_sums`.

    Raises:
        NotSeparable: naming the first function that cannot be taken apart. Only at the end of the pass, since
            a sharded model cannot leave one halfway.
    """

    def __init__(self, images: Sequence[int], device: torch.device, sketch: Sketch | None = None) -> None:
        super().__init__()
        self._images, self._device, self._sketch = list(images), device, sketch
        self._members: dict[tuple[int, torch.dtype], Tensor] = {}
        self.anchor = torch.zeros((), device=device, requires_grad=True)
        """An input of every layer, so that a backward pass to it runs through all of them."""
        self._derived: dict[int, Tensor] = {}
        """Parameters, and tensors that follow from them alone, by `id`."""
        self._met: list[tuple[Tensor, list[Tensor]]] = []
        """Of these, what met the batch, and its gradients (D, ...), which the backward pass fills in."""
        self._refusal: NotSeparable | None = None
        self._numbers: dict[int, int] = {}
        """Numbers of parameters, by `id`, in the order of their use, which is the same on all ranks."""
        self._again = False
        """Whether layers are being computed again."""
        self._checkpoint: Any = torch.utils.checkpoint.checkpoint

    def of_sums(self, losses: Tensor) -> dict[nn.Parameter, Tensor]:
        """Gradients (D, *shape) of the sums of each dataset's `losses`, (n,), for all parameters that matter.

        Of a weight used in bfloat16 it is bfloat16, the precision in which its layer computes it.
        """
        torch.autograd.grad(losses.sum(), self.anchor, allow_unused=True)
        met = [(tensor, rows) for tensor, found in self._met for rows in found]
        direct = ((tensor, rows) for tensor, rows in met if isinstance(tensor, nn.Parameter))
        derived = [(tensor, rows) for tensor, rows in met if not isinstance(tensor, nn.Parameter)]
        result: dict[nn.Parameter, Tensor] = {}
        for parameter, rows in (*direct, *self._carried_on(derived)):
            result[parameter] = result[parameter] + rows if parameter in result else rows
        return result

    def sketch_sums(self, losses: Tensor) -> None:
        """Add what `of_sums` would return of `losses` to the sketch, as it is found; nothing is kept."""
        assert self._sketch is not None
        for parameter, rows in self.of_sums(losses).items():  # of what follows from parameters
            self._sketch.add(self._number(parameter), rows)

    def _number(self, parameter: nn.Parameter) -> int:
        return self._numbers.setdefault(id(parameter), len(self._numbers))

    def _carried_on(self, found: Sequence[tuple[Tensor, Tensor]]) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Gradients (D, ...) of what follows from parameters → those of the parameters."""
        if not found:
            return
        tensors, rows = [tensor for tensor, _ in found], [rows.to(tensor.dtype) for tensor, rows in found]
        sources = [tensor for tensor in self._derived.values() if isinstance(tensor, nn.Parameter)]
        carried = torch.autograd.grad(tensors, sources, rows, allow_unused=True, is_grads_batched=True)
        yield from ((source, rows) for source, rows in zip(sources, carried, strict=True) if rows is not None)

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """See `TorchFunctionMode`."""
        kwargs = kwargs or {}
        tensors = list(_tensors((args, kwargs)))
        if not any(map(self.is_derived, tensors)):
            return function(*args, **kwargs)
        if all(self.is_derived(tensor) or not tensor.requires_grad for tensor in tensors):
            with _keeping():
                result = function(*args, **kwargs)
            self._derived |= {id(t): t for t in _tensors(result) if t.requires_grad}
            return result
        try:
            return _RULES.get(function.__name__, _refuse)(self, function, *args, **kwargs)
        except NotSeparable as refusal:
            self._refusal = self._refusal or refusal
            return function(*args, **kwargs)

    def __enter__(self) -> DatasetGradients:
        """See `TorchFunctionMode`."""
        contexts = {"context_fn": lambda: (nullcontext(), self._anew())}
        torch.utils.checkpoint.checkpoint = partial(self._checkpoint, **contexts)
        super().__enter__()
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        """See `TorchFunctionMode`; raises `NotSeparable` as well."""
        super().__exit__(kind, error, traceback)
        torch.utils.checkpoint.checkpoint = self._checkpoint
        if self._refusal is not None and error is None:
            raise self._refusal

    @contextmanager
    def _anew(self) -> Iterator[None]:
        """Context of layers that are computed again, whose functions are not those that find gradients."""
        derived, self._again = dict(self._derived), True
        super().__enter__()
        try:
            yield
        finally:
            super().__exit__(None, None, None)
            self._derived, self._again = derived, False

    def is_derived(self, tensor: Tensor) -> bool:
        """Whether `tensor` is a parameter that is trained, or follows from such parameters alone."""
        if isinstance(tensor, nn.Parameter) and tensor.requires_grad:
            self._derived[id(tensor)] = tensor
        return id(tensor) in self._derived

    def meets(self, tensor: Tensor | None) -> list[Tensor]:
        """A list that the backward pass fills with gradients (D, ...) of `tensor`, which meets the batch."""
        rows: list[Tensor] = []
        if tensor is not None and not self._again:
            if self._sketch is not None and isinstance(tensor, nn.Parameter):
                rows = _IntoSketch(self._sketch, self._number(tensor))
            self._met.append((tensor, rows))
        return rows

    def parts(self, batch: Tensor) -> int:
        """Rows of a `batch` that each image has: 1, or its number of windows."""
        parts, rest = divmod(len(batch), max(sum(self._images), 1))
        if rest:
            raise NotSeparable(f"a batch {list(batch.shape)} of {sum(self._images)} images")
        return parts

    def by_dataset(self, rows: Tensor) -> Tensor:
        """Sum `rows`, (n, ...) or several for each image, over the images of each dataset → (D, ...)."""
        return (self.members(self.parts(rows), rows.dtype).T @ rows.flatten(1)).view(-1, *rows.shape[1:])

    def members(self, parts: int, dtype: torch.dtype) -> Tensor:
        """Which row is of which dataset, 1 or 0, of `dtype`: (n · `parts`, D)."""
        if (parts, dtype) not in self._members:
            counts = torch.tensor(self._images) * parts
            rows = torch.eye(len(counts), dtype=dtype).repeat_interleave(counts, 0)
            self._members[parts, dtype] = rows.to(self._device, non_blocking=True)
        return self._members[parts, dtype]

    def slices(self, batch: Tensor) -> Sequence[Tensor]:
        """The parts of a `batch`, (n, ...), that belong to each dataset."""
        return batch.split(self._images)

    def cast(self, *tensors: Tensor | None) -> list[Any]:
        """`tensors` in the precision that autocast has layers compute in."""
        if not torch.is_autocast_enabled(self._device.type):
            return list(tensors)
        dtype = torch.get_autocast_dtype(self._device.type)
        return [None if tensor is None else tensor.to(dtype) for tensor in tensors]


def _keeping() -> AbstractContextManager[Any]:
    """Context in which what the backward pass needs is kept, even by layers that are computed again.

    Of what follows from parameters alone, since `torch.func` cannot compute layers again; it is little.
    """
    return saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)


class _IntoSketch(list[Tensor]):
    """A list that stays empty: gradients (D, ...) of parameter `number` go into the `sketch`."""

    def __init__(self, sketch: Sketch, number: int) -> None:
        super().__init__()
        self._sketch, self._number = sketch, number

    def append(self, rows: Tensor) -> None:
        """Sketch `rows`."""
        self._sketch.add(self._number, rows)


class _Linear(Function):
    """A linear layer whose parameters' gradients are taken apart by dataset."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, anchor: Tensor,
        owner: DatasetGradients, rows: list[Tensor], bias_rows: list[Tensor],
    ) -> Tensor:  # fmt: skip
        """`x` (n, ..., C) with `weight` (K, C) and `bias` (K,) → (n, ..., K).

        Backward fills `rows` and `bias_rows`; `owner` has datasets and `anchor`, `ctx` is autograd's.
        """
        ctx.save_for_backward(x, weight)
        ctx.owner, ctx.rows, ctx.bias_rows, ctx.bias = owner, rows, bias_rows, bias is not None
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """The gradient of `x` from `grad`, that of the output; see `forward` for `ctx`."""
        x, weight = ctx.saved_tensors
        parts = ctx.owner.parts(x)
        of_image = [side.reshape(len(x) // parts, -1, side.shape[-1]) for side in (grad, x)]
        if of_image[0].shape[1] >= _LONG:
            ctx.rows.append(ctx.owner.by_dataset(torch.bmm(of_image[0].transpose(1, 2), of_image[1])))
        else:
            pairs = zip(*map(ctx.owner.slices, of_image), strict=True)
            ctx.rows.append(torch.stack([g.flatten(0, 1).T @ part.flatten(0, 1) for g, part in pairs]))
        if ctx.bias:
            ctx.bias_rows.append(ctx.owner.by_dataset(of_image[0].sum(1)))
        return grad @ weight, *[None] * 6


class _Convolution(Function):
    """A convolution, plain or transposed, whose parameters' gradients are taken apart by dataset."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, anchor: Tensor,
        owner: DatasetGradients, rows: list[Tensor], bias_rows: list[Tensor], *geometry: Any,
    ) -> Tensor:  # fmt: skip
        """`x` (n, C, H, W) → (n, K, H', W'); `geometry` as of `torch.convolution`; else as `_Linear`."""
        if owner.parts(x) != 1:
            raise NotSeparable("a convolution of windows")
        ctx.save_for_backward(x, weight)
        ctx.owner, ctx.rows, ctx.bias_rows, ctx.geometry = owner, rows, bias_rows, geometry
        ctx.bias = bias is not None
        return torch.convolution(x, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """The gradient of `x` from `grad`, that of the output; see `forward` for `ctx`."""
        x, weight = ctx.saved_tensors

        def backward(g: Tensor, part: Tensor, *which: bool) -> Any:
            return torch.ops.aten.convolution_backward(g, part, weight, None, *ctx.geometry, [*which, False])

        plain = ctx.geometry == ([1, 1], [0, 0], [1, 1], False, [0, 0], 1)
        if (
            plain and weight.shape[2:] == (1, 1) and x.shape[2] * x.shape[3] >= _LONG
        ):  # a linear layer of every pixel
            of_image = torch.bmm(grad.flatten(2), x.flatten(2).transpose(1, 2))
            ctx.rows.append(ctx.owner.by_dataset(of_image)[..., None, None])
        else:
            pairs = zip(ctx.owner.slices(grad), ctx.owner.slices(x), strict=True)
            ctx.rows.append(torch.stack([backward(g, part, False, True)[1] for g, part in pairs]))
        if ctx.bias:
            ctx.bias_rows.append(ctx.owner.by_dataset(grad.sum((2, 3))))
        return backward(grad, x, True, False)[0], *[None] * (6 + len(ctx.geometry))


class _OfImages(Function):
    """A copy of a parameter for every image, whose gradients are taken apart by dataset."""

    @staticmethod
    def forward(
        ctx: Any,
        tensor: Tensor,
        anchor: Tensor,
        owner: DatasetGradients,
        rows: list[Tensor],
        each: bool,
        count: int,
    ) -> Tensor:
        """`tensor` (...), or with `each` (`count`, ...), → (`count`, ...); the rest as of `_Linear`."""
        ctx.owner, ctx.rows, ctx.each = owner, rows, each
        return tensor.clone() if each else tensor.expand(count, *tensor.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Fills the rows from `grad`, that of the copies; see `forward` for `ctx`."""
        if ctx.each:
            members = ctx.owner.members(ctx.owner.parts(grad), grad.dtype)
            ctx.rows.append(torch.einsum("nd,n...->dn...", members, grad))
        else:
            ctx.rows.append(ctx.owner.by_dataset(grad))
        return (None,) * 6


# ---- rules: a function of a batch and of parameters → the same value, gradients apart


def _linear(
    owner: DatasetGradients, _: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    x, w, b = owner.cast(input, weight, bias)
    result: Tensor = _Linear.apply(x, w, b, owner.anchor, owner, owner.meets(weight), owner.meets(bias))
    return result


def _convolve(
    owner: DatasetGradients, x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool, *geometry: Any
) -> Tensor:
    stride, padding, dilation, output_padding, groups = geometry
    if isinstance(padding, str):
        raise NotSeparable(f"a convolution with padding={padding!r}")
    shape = (_pair(stride), _pair(padding), _pair(dilation), transposed, _pair(output_padding), groups)
    x, w, b = owner.cast(x, weight, bias)
    rows = owner.meets(weight), owner.meets(bias)
    result: Tensor = _Convolution.apply(x, w, b, owner.anchor, owner, *rows, *shape)
    return result


def _pair(value: int | Sequence[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _conv2d(
    owner: DatasetGradients, _: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    return _convolve(owner, input, weight, bias, False, stride, padding, dilation, 0, groups)


def _conv_transpose2d(
    owner: DatasetGradients, _: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    return _convolve(owner, input, weight, bias, True, stride, padding, dilation, output_padding, groups)


def _norm(
    owner: DatasetGradients, function: Any, input: Tensor, shape: Any,
    weight: Tensor | None = None, bias: Tensor | None = None, *rest: Any, **settings: Any,
) -> Tensor:  # fmt: skip
    result: Tensor = function(input, shape, None, None, *rest, **settings)
    own = (-1, *[1] * (input.ndim - 2)) if isinstance(shape, int) else (*shape,)  # of groups, or of a layer
    gain = None if weight is None else _own(owner, weight, result, own).to(result.dtype)
    if bias is None:
        return result if gain is None else result * gain
    offset = _own(owner, bias, result, own).to(result.dtype)
    return result + offset if gain is None else torch.addcmul(offset, result, gain)


def _own(
    owner: DatasetGradients, tensor: Tensor, batch: Tensor, shape: Sequence[int] | None = None
) -> Tensor:
    """Every image's own copy of a `tensor` seen as `shape`, which broadcasts against the `batch`."""
    shape = tensor.shape if shape is None else shape
    beside = len(shape) == batch.ndim  # else it broadcasts over the batch's leading dimensions
    each = beside and shape[0] == len(batch) != 1
    if len(shape) > batch.ndim or (beside and shape[0] != 1 and not each):
        raise NotSeparable(f"a parameter {list(shape)} beside a batch {list(batch.shape)}")
    owner.parts(batch)
    copies: Tensor = _OfImages.apply(tensor, owner.anchor, owner, owner.meets(tensor), each, len(batch))
    own = shape[1:] if beside else shape
    return copies.view(len(batch), *[1] * (batch.ndim - 1 - len(own)), *own)


def _broadcast(owner: DatasetGradients, function: Any, *args: Any, **kwargs: Any) -> Tensor:
    """Of functions that treat every image of a batch alike and alone."""
    batch = next(t for t in _tensors(args) if t.requires_grad and not owner.is_derived(t))

    def own(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(map(own, value))
        return _own(owner, value, batch) if isinstance(value, Tensor) and owner.is_derived(value) else value

    result: Tensor = function(*map(own, args), **{name: own(value) for name, value in kwargs.items()})
    return result


def _refuse(_: DatasetGradients, function: Any, *args: Any, **kwargs: Any) -> Tensor:
    raise NotSeparable(f"{function.__name__} of a batch and a parameter")


_ARITHMETIC = {
    f"{prefix}{name}" for name in ("add", "sub", "mul", "truediv") for prefix in ("__", "__r", "__i")
}

_RULES: dict[str, Callable[..., Tensor]] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "conv_transpose2d": _conv_transpose2d,
    "layer_norm": _norm,
    "group_norm": _norm,
    **dict.fromkeys((f"{name}__" for name in _ARITHMETIC), _broadcast),
    **dict.fromkeys(
        ("add", "sub", "mul", "div", "add_", "mul_", "cat", "scaled_dot_product_attention"), _broadcast
    ),
}


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested sequences and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
