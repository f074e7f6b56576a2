r"""Squared per-example weight gradients of one layer, from what went in and what came back.

For a layer with weight W the gradient of example b is ``G_b = sum_p g_bp a_bp^T`` over positions p
(pixels, tokens): g the gradient at the output, a the patch of the input that the position saw.
Squares come before any sum over the batch, so G is needed per example, or only its squared norm per
filter f: ``|G_f|^2 = g_f^T (A A^T) g_f``, which is cheaper where positions are few. There are three ways:

- ``gradients``: G itself, ``filters x weights x positions`` products.
- ``positions``: the Gram matrix ``A A^T`` of the patches, ``positions² x weights`` products.
- ``shifts``: the same matrix as a sum of shifted windows of the Gram matrix of the padded map, which has
  the area of the kernel times fewer products (convolutions only).

Which one is taken follows from the sizes of one example alone, so a batch of any size, and any part of
it, is computed alike. Gram matrices do not hang on g: further backward passes of the same batch find them.

In passes of bfloat16, G itself is rounded to it, which no norm notices; Gram matrices, in whose products
large terms may cancel, and all sums are float32.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

Way = Literal["gradients", "positions", "shifts"]
WAYS: tuple[Way, ...] = get_args(Way)
"""How squares may be taken."""

# Bytes of one unfolded input or Gram matrix at a time; bounds the memory beside the activations.
_CHUNK_BYTES = 64 << 20

# What moving one number costs, in products of a matrix product; measured on CPUs, where it decides.
_UNFOLDED, _SHIFTED = 64, 32

# What an operation costs in two smaller products instead of one; measured with 196 tokens.
_TWO_PRODUCTS = 1.25

# Convolutions in groups go several examples at a time up to this many positions and weights of a filter.
# Measured: above, one after the other is faster, since it stays in the cache.
_SMALL_MAP, _SMALL_FILTER = 1024, 256

Grams = dict[int, Tensor]
"""Gram matrices by the first example of their part."""


@dataclass(frozen=True, eq=False)
class Factors:
    """Per-example gradients as products: ``gradient[b] = left[b] @ right[b]``.

    Attributes:
        left: Output gradients, ``(batch, filters, positions)``.
        right: What the positions saw, ``(batch, positions, weights of a filter)``.
    """

    left: Tensor
    right: Tensor

    def gradient(self) -> Tensor:
        """The gradients, ``(batch, n_filters, n_weights)``."""
        return _wide(self.left @ self.right)

    def squares(self, way: Way | None = None, *, grams: Grams | None = None) -> Tensor:
        """Squared norm of each filter's gradient, ``(batch, n_filters)``.

        Args:
            way: None for the one with the fewest operations.
            grams: Where Gram matrices are found, and left for other ``left`` if no larger than ``right``.
        """
        filters, positions = self.left.shape[-2:]
        weights = self.right.shape[-1]
        if way is None:
            few_positions = _TWO_PRODUCTS * positions * (weights + filters) < filters * weights
            way = "positions" if few_positions else "gradients"
        largest = filters * weights if way == "gradients" else positions * positions
        rows = []
        for part in _chunks(len(self.left), largest * self.left.element_size()):
            left, right = self.left[part], self.right[part]
            if way == "gradients":
                rows.append(_squares(left @ right))
            else:
                gram = _kept(grams, part, right.numel(), partial(_gram, right))
                tokens = _wide(left).transpose(1, 2)  # as in memory: (batch, positions, filters)
                rows.append(((gram @ tokens) * tokens).sum(dim=1).clamp_min(0))
        return torch.cat(rows)


@dataclass(frozen=True, eq=False)
class Patches:
    """Per-example gradients of a two-dimensional convolution's weight.

    Attributes:
        input: What the convolution read, ``(batch, channels, height, width)``.
        output_gradient: ``(batch, filters, height, width)``.
        weight: The convolution's; only its shape matters.
        stride: By rows and columns, as the others.
        padding: Zeros on both sides.
        dilation: Of the kernel.
        groups: Into which channels and filters fall.
    """

    input: Tensor
    output_gradient: Tensor
    weight: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    def way(self) -> Way:
        """The way with the fewest operations."""
        filters, weights = self.weight.shape[0], self.weight[0].numel()
        positions = self.output_gradient.shape[2:].numel()
        area = self.weight.shape[2:].numel()
        padded = (self.input.shape[2] + 2 * self.padding[0]) * (self.input.shape[3] + 2 * self.padding[1])
        last = filters * positions**2
        unfolding = _UNFOLDED * self.groups * positions * weights if area > 1 else 0
        costs: dict[Way, int] = {
            "gradients": filters * weights * positions,
            "positions": self.groups * positions**2 * weights + last + unfolding,
            "shifts": self.groups * (padded**2 * weights // area + _SHIFTED * area * positions**2) + last,
        }
        if self.input.device.type != "cpu":  # where gradients come from unfolded patches
            costs["gradients"] += unfolding
        return min(costs, key=costs.__getitem__)

    def gradient(self) -> Tensor:
        """The gradients, ``(batch, n_filters, n_weights)``."""
        return _wide(torch.cat(list(self._gradients())))

    def squares(self, way: Way | None = None, *, grams: Grams | None = None) -> Tensor:
        """Squared norm of each filter's gradient, ``(batch, n_filters)``.

        Args:
            way: None for the one with the fewest operations.
            grams: Where Gram matrices are found, and left for other gradients if no larger than the input.
        """
        way = way or self.way()
        if way == "gradients":
            return torch.cat([_squares(rows) for rows in self._gradients()])
        positions = self.output_gradient.shape[2:].numel()
        largest, make = self._by_positions() if way == "positions" else self._by_shifts()
        rows = []
        for part in _chunks(len(self.input), largest * self.input.element_size()):
            left = self.output_gradient[part].reshape(-1, self.groups, self._filters_of_group, positions)
            gram = _kept(grams, part, self.input[part].numel(), partial(make, part))
            rows.append(_norms(_wide(left), gram).flatten(1))
        return torch.cat(rows)

    @property
    def _filters_of_group(self) -> int:
        return self.weight.shape[0] // self.groups

    def _gradients(self) -> Iterator[Tensor]:
        """The gradients in parts of the batch."""
        batch, filters = len(self.input), self.weight.shape[0]
        positions, weights = self.output_gradient.shape[2:].numel(), self.weight[0].numel()
        if self.input.device.type != "cpu" or self._sees_single_pixels():
            largest = max(filters * weights, self.groups * positions * weights)
            for part in _chunks(batch, largest * self.input.element_size()):
                left = self.output_gradient[part].reshape(-1, self.groups, self._filters_of_group, positions)
                yield (left @ self._unfolded(part).transpose(2, 3)).flatten(1, 2)
            return
        # One example after the other is as fast as the whole batch, and faster than unfolded patches.
        # Groups do not mix, so the groups of several examples can be those of one.
        together = self.groups > 1 and positions <= _SMALL_MAP and weights <= _SMALL_FILTER
        step = batch if together else 1
        for start in range(0, batch, step):
            g, a = self.output_gradient[start : start + step], self.input[start : start + step]
            _, gradient, _ = torch.ops.aten.convolution_backward(
                g.reshape(1, -1, *g.shape[2:]), a.reshape(1, -1, *a.shape[2:]),
                self.weight.repeat(len(a), 1, 1, 1), None,
                self.stride, self.padding, self.dilation, False, (0, 0), self.groups * len(a),
                (False, True, False),
            )  # fmt: skip
            yield gradient.reshape(len(a), filters, -1)

    def _sees_single_pixels(self) -> bool:
        return tuple(self.weight.shape[2:]) == (1, 1) and self.padding == (0, 0)

    def _unfolded(self, part: slice) -> Tensor:
        """Patches by groups, ``(batch, groups, weights of a filter, positions)``."""
        a = self.input[part]
        if self._sees_single_pixels():
            patches = a[:, :, :: self.stride[0], :: self.stride[1]].flatten(2)
        else:
            patches = F.unfold(a, tuple(self.weight.shape[2:]), self.dilation, self.padding, self.stride)
        return patches.view(len(a), self.groups, -1, patches.shape[-1])

    def _by_positions(self) -> tuple[int, Callable[[slice], Tensor]]:
        """Numbers that one example takes at most, and what makes its Gram matrices."""
        positions = self.output_gradient.shape[2:].numel()

        def grams(part: slice) -> Tensor:
            patches = _wide(self._unfolded(part))
            return patches.transpose(2, 3) @ patches

        return self.groups * positions * max(positions, self.weight[0].numel()), grams

    def _by_shifts(self) -> tuple[int, Callable[[slice], Tensor]]:
        """As `_by_positions`."""
        rows, columns = self.padding
        height, width = self.output_gradient.shape[2:]
        above, beside = self.input.shape[2] + 2 * rows, self.input.shape[3] + 2 * columns

        def grams(part: slice) -> Tensor:
            a = F.pad(_wide(self.input[part]), (columns, columns, rows, rows))
            a = a.reshape(len(a), self.groups, -1, above * beside)
            whole = (a.transpose(2, 3) @ a).view(len(a), self.groups, above, beside, above, beside)
            gram = whole.new_zeros(len(a), self.groups, height, width, height, width)
            for y in range(0, self.weight.shape[2] * self.dilation[0], self.dilation[0]):
                down = slice(y, y + (height - 1) * self.stride[0] + 1, self.stride[0])
                for x in range(0, self.weight.shape[3] * self.dilation[1], self.dilation[1]):
                    along = slice(x, x + (width - 1) * self.stride[1] + 1, self.stride[1])
                    gram += whole[:, :, down, along, down, along]
            return gram.view(len(a), self.groups, height * width, -1)

        return self.groups * (above * beside) ** 2, grams


@dataclass(frozen=True, eq=False)
class Scales:
    """Per-example gradients of scales, one weight per filter: ``(batch, n_filters)``."""

    values: Tensor

    def gradient(self) -> Tensor:
        """The gradients, ``(batch, n_filters, 1)``."""
        return self.values.unsqueeze(2)

    def squares(self, way: Way | None = None, *, grams: Grams | None = None) -> Tensor:
        """Squared gradient of each scale, ``(batch, n_filters)``; there is one way."""
        return self.values.square()


Kernel = Callable[[Tensor, Tensor, Tensor, Mapping[str, Any]], Factors | Patches | Scales]


@dataclass(frozen=True, eq=False)
class Call:
    """One use of a weight in the forward pass.

    Attributes:
        kernel: Knows the gradient of this kind of layer.
        input: What went in; batch first.
        options: The operation's other arguments, by name.
        version: The input's version at that time, to notice changes in place.
        grams: Kept for further backward passes.
    """

    kernel: Kernel
    input: Tensor
    options: Mapping[str, Any]
    version: int
    grams: Grams = field(default_factory=dict)

    def squares(
        self, weight: Tensor, output_gradient: Tensor, way: Way | None = None, *, keep: bool = False
    ) -> Tensor:
        """Mean square of each filter's gradient, ``(batch, n_filters)`` float64.

        Args:
            weight: Of the layer.
            output_gradient: At the output of this use.
            way: None for the one with the fewest operations.
            keep: Whether another call with another gradient follows.
        """
        kernel = self._kernel_of(weight, output_gradient)
        rows = kernel.squares(way, grams=self.grams if keep or self.grams else None)
        return rows.double() / (weight.numel() // weight.shape[0])

    def gradient(self, weight: Tensor, output_gradient: Tensor) -> Tensor:
        """Per-example gradients, ``(batch, n_filters, n_weights)``."""
        return self._kernel_of(weight, output_gradient).gradient()

    def _kernel_of(self, weight: Tensor, output_gradient: Tensor) -> Factors | Patches | Scales:
        dtype = output_gradient.dtype  # under autocast not always the input's
        return self.kernel(self.input.to(dtype), weight.to(dtype), output_gradient, self.options)


def convolution(a: Tensor, weight: Tensor, g: Tensor, options: Mapping[str, Any]) -> Patches:
    """Gradients of a two-dimensional convolution's weight, grouped and depthwise included."""
    stride, dilation, groups = options["stride"], options["dilation"], options["groups"]
    a, padding = _padded(a, tuple(weight.shape[2:]), dilation, options["padding"])
    return Patches(a, g, weight, stride, padding, dilation, groups)


def linear(a: Tensor, weight: Tensor, g: Tensor, options: Mapping[str, Any]) -> Factors:
    """Gradients of a linear layer's weight over any number of tokens."""
    batch = len(g)
    return Factors(
        left=g.reshape(batch, -1, weight.shape[0]).transpose(1, 2),
        right=a.reshape(batch, -1, weight.shape[1]),
    )


def batch_norm(a: Tensor, weight: Tensor, g: Tensor, options: Mapping[str, Any]) -> Scales:
    """Gradients of batch normalisation's scales, with running statistics."""
    a, g = _wide(a), _wide(g)
    normalised = F.batch_norm(a, options["running_mean"], options["running_var"], eps=options["eps"])
    return Scales((g * normalised).flatten(2).sum(dim=2) if g.dim() > 2 else g * normalised)


def layer_norm(a: Tensor, weight: Tensor, g: Tensor, options: Mapping[str, Any]) -> Scales:
    """Gradients of layer normalisation's scales over the last dimension."""
    a, g = _wide(a), _wide(g)
    normalised = F.layer_norm(a, options["normalized_shape"], eps=options["eps"])
    return Scales((g * normalised).flatten(1, -2).sum(dim=1) if g.dim() > 2 else g * normalised)


def _padded(
    a: Tensor, size: tuple[int, ...], dilation: tuple[int, int], padding: str | tuple[int, int]
) -> tuple[Tensor, tuple[int, int]]:
    """The input padded where symmetric padding cannot say it, and what is left to pad."""
    if padding == "valid":
        return a, (0, 0)
    if isinstance(padding, str):  # "same", which torch allows with stride 1 only
        height, width = (d * (k - 1) for d, k in zip(dilation, size, strict=True))
        return F.pad(a, (width // 2, width - width // 2, height // 2, height - height // 2)), (0, 0)
    return a, padding


def _squares(gradients: Tensor) -> Tensor:
    """Squared norms along the last dimension, without a copy of squares."""
    wide = torch.float32 if gradients.dtype == torch.bfloat16 else None
    norms: Tensor = torch.linalg.vector_norm(gradients, dim=-1, dtype=wide)
    return norms.square()


def _wide(values: Tensor) -> Tensor:
    """As float32 where they are bfloat16."""
    return values.float() if values.dtype == torch.bfloat16 else values


def _norms(left: Tensor, gram: Tensor) -> Tensor:
    """``l^T K l`` for each row l of ``left``; rounding may take it below zero."""
    return ((left @ gram) * left).sum(dim=-1).clamp_min(0)


def _gram(right: Tensor) -> Tensor:
    right = _wide(right)
    return right @ right.transpose(1, 2)


def _kept(grams: Grams | None, part: slice, room: int, make: Callable[[], Tensor]) -> Tensor:
    """The Gram matrices of a part, made where they are not at hand, kept where they fit into ``room``."""
    gram = None if grams is None else grams.get(part.start)
    if gram is None:
        gram = make()
        if grams is not None and gram.numel() <= room:
            grams[part.start] = gram
    return gram


def _chunks(batch: int, largest: int) -> Iterator[slice]:
    """Parts of a batch whose examples need ``largest`` bytes each."""
    step = max(1, _CHUNK_BYTES // largest)
    for start in range(0, batch, step):
        yield slice(start, start + step)
