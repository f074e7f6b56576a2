r"""Squared per-example weight gradients of one layer, from what went in and what came back.

For a layer with weight W the gradient of example b is ``G_b = sum_p g_bp a_bp^T`` over positions p
(pixels, tokens): g the gradient at the output, a the patch of the input that the position saw.
Squares come before any sum over the batch, so G is needed per example, or only its squared norm per
filter f: ``|G_f|^2 = g_f^T (A A^T) g_f``, which is cheaper where positions are few.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# Bytes of one unfolded input or gradient at a time; bounds the memory beside the activations.
_CHUNK_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Factors:
    """Per-example gradients as products: ``gradient[b] = left[b] @ right[b]`` in each group.

    Attributes:
        left: Output gradients, ``(batch, groups, filters, positions)``.
        right: Patches of the input, ``(batch, groups, positions, weights of a filter)``.
    """

    left: Tensor
    right: Tensor

    def gradient(self) -> Tensor:
        """The gradients, ``(batch, n_filters, n_weights)``."""
        return (self.left @ self.right).flatten(1, 2)

    def squares(self) -> Tensor:
        """Squared norm of each filter's gradient, ``(batch, n_filters)``."""
        filters, positions = self.left.shape[-2:]
        weights = self.right.shape[-1]
        few_positions = 2 * positions * (weights + filters) < filters * weights
        return self.squares_by_positions() if few_positions else self.squares_by_weights()

    def squares_by_positions(self) -> Tensor:
        """The squares without the gradients, from products of patches."""
        gram = self.right @ self.right.transpose(-1, -2)  # (batch, groups, positions, positions)
        return ((self.left @ gram) * self.left).sum(dim=-1).clamp_min(0).flatten(1)

    def squares_by_weights(self) -> Tensor:
        """The squares of the gradients."""
        return self.gradient().square().sum(dim=2)


@dataclass(frozen=True, eq=False)
class Scales:
    """Per-example gradients of scales, one weight per filter: ``(batch, n_filters)``."""

    values: Tensor

    def gradient(self) -> Tensor:
        """The gradients, ``(batch, n_filters, 1)``."""
        return self.values.unsqueeze(2)

    def squares(self) -> Tensor:
        """Squared gradient of each scale, ``(batch, n_filters)``."""
        return self.values.square()


Kernel = Callable[[Tensor, Tensor, Tensor, Mapping[str, Any]], Factors | Scales]


@dataclass(frozen=True, eq=False)
class Call:
    """One use of a weight in the forward pass.

    Attributes:
        kernel: Knows the gradient of this kind of layer.
        input: What went in; batch first.
        options: The operation's other arguments, by name.
        version: The input's version at that time, to notice changes in place.
    """

    kernel: Kernel
    input: Tensor
    options: Mapping[str, Any]
    version: int

    def squares(self, weight: Tensor, output_gradient: Tensor) -> Tensor:
        """Mean square of each filter's gradient, ``(batch, n_filters)`` float64."""
        rows = [part.squares() for part in self._parts(weight, output_gradient)]
        n_weights = weight.numel() // weight.shape[0]
        return torch.cat(rows).double() / n_weights

    def gradient(self, weight: Tensor, output_gradient: Tensor) -> Tensor:
        """Per-example gradients, ``(batch, n_filters, n_weights)``."""
        return torch.cat([part.gradient() for part in self._parts(weight, output_gradient)])

    def _parts(self, weight: Tensor, output_gradient: Tensor) -> Iterator[Factors | Scales]:
        """The batch in chunks, each unfolded only when its turn comes."""
        positions = output_gradient[0].numel() // weight.shape[0]
        patch = weight.numel() // weight.shape[0] * self.options.get("groups", 1)
        largest = max(positions * patch, weight.numel()) * output_gradient.element_size()
        step = max(1, _CHUNK_BYTES // largest)
        for start in range(0, len(output_gradient), step):
            part = slice(start, start + step)
            yield self.kernel(self.input[part], weight, output_gradient[part], self.options)


def convolution(a: Tensor, weight: Tensor, g: Tensor, options: Mapping[str, Any]) -> Factors:
    """Gradients of a two-dimensional convolution's weight, grouped and depthwise included."""
    stride, dilation, groups = options["stride"], options["dilation"], options["groups"]
    size = tuple(weight.shape[2:])
    a, padding = _padded(a, size, dilation, options["padding"])
    if size == (1, 1) and padding == (0, 0):
        patches = a[:, :, :: stride[0], :: stride[1]].flatten(2)  # (batch, c_in, positions)
    else:
        patches = F.unfold(a, size, dilation=dilation, padding=padding, stride=stride)
    batch, positions = len(a), patches.shape[-1]
    return Factors(
        left=g.reshape(batch, groups, -1, positions),
        right=patches.view(batch, groups, -1, positions).transpose(2, 3),
    )


def linear(a: Tensor, weight: Tensor, g: Tensor, options: Mapping[str, Any]) -> Factors:
    """Gradients of a linear layer's weight over any number of tokens."""
    batch = len(g)
    return Factors(
        left=g.reshape(batch, 1, -1, weight.shape[0]).transpose(2, 3),
        right=a.reshape(batch, 1, -1, weight.shape[1]),
    )


def batch_norm(a: Tensor, weight: Tensor, g: Tensor, options: Mapping[str, Any]) -> Scales:
    """Gradients of batch normalisation's scales, with running statistics."""
    normalised = F.batch_norm(a, options["running_mean"], options["running_var"], eps=options["eps"])
    return Scales((g * normalised).flatten(2).sum(dim=2) if g.dim() > 2 else g * normalised)


def layer_norm(a: Tensor, weight: Tensor, g: Tensor, options: Mapping[str, Any]) -> Scales:
    """Gradients of layer normalisation's scales over the last dimension."""
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
