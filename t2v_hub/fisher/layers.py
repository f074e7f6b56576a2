"""Which weights of a network have filters, and how many."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.overrides import TorchFunctionMode

from t2v_hub.errors import ProbeError

_NORMALISATIONS = (
    nn.modules.batchnorm._BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


@dataclass(frozen=True, eq=False)
class FilterLayer:
    """A weight whose output channels or rows are filters.

    Attributes:
        name: Name of the module that owns the weight (of the weight, where it is not ``weight``).
        weight: The parameter itself.
        filter_dim: Which of its dimensions counts the filters: 0, but 1 for transposed convolutions.
        groups: Of a transposed convolution: its dimension 1 counts the filters of one group.
    """

    name: str
    weight: nn.Parameter
    filter_dim: int = 0
    groups: int = 1

    @property
    def n_filters(self) -> int:
        """How many filters the weight has."""
        return int(self.weight.shape[self.filter_dim]) * self.groups

    @property
    def n_weights(self) -> int:
        """How many weights one filter has."""
        return self.weight.numel() // self.n_filters

    def squares(self, gradient: Tensor) -> Tensor:
        """Mean over each filter's weights of a gradient's squares, ``(n_filters,)`` float64."""
        squared: Tensor = gradient.double().square().unflatten(0, (self.groups, -1))
        by_filter = squared.movedim(1 + self.filter_dim, 1)  # (groups, filters of a group, ...)
        means: Tensor = by_filter.reshape(self.n_filters, -1).mean(dim=1)
        return means


def filter_layers(
    module: nn.Module,
    features: Callable[[Tensor], Tensor],
    example: Tensor,
    *,
    exclude: Collection[Tensor] = (),
    normalisation: bool = False,
) -> tuple[FilterLayer, ...]:
    """The weights with filters on which ``features`` depends, in the order of the module.

    Convolutions and linear layers, by their class or because the forward pass handed the parameter
    to a convolution or matrix product; a fused query-key-value weight is one layer of three times
    the width. Weights that the features do not depend on (a pooler nobody reads) are left out, and
    so are biases, tables of positions, class tokens and layer scales.

    Args:
        module: The network, as it is to be measured (evaluation mode).
        features: Maps a batch of inputs to ``(batch, n_features)``, through ``module``.
        example: One input, ``(1, ...)``.
        exclude: Parameters that are no filters, such as the head's.
        normalisation: Whether scales of normalisation layers count, each as a filter of one weight.

    Raises:
        ProbeError: A layer computes its weight from others (a parametrisation), or no layer is left.
    """
    excluded = {id(parameter) for parameter in exclude}
    chosen: dict[int, FilterLayer] = {}
    for name, child in module.named_modules():
        if isinstance(child, _ConvNd | nn.Linear) and "weight" not in child._parameters:
            if all(id(parameter) in excluded for parameter in child.parameters()):
                continue
            raise ProbeError(
                f"Layer {name!r} computes its weight from other tensors. Fold it first, for example "
                f"with torch.nn.utils.parametrize.remove_parametrizations, then load the probe."
            )
        if isinstance(child, _ConvTransposeNd):
            layer = FilterLayer(name, cast(nn.Parameter, child.weight), 1, child.groups)
        elif isinstance(child, _ConvNd | nn.Linear):
            layer = FilterLayer(name, cast(nn.Parameter, child.weight))
        elif isinstance(child, nn.MultiheadAttention) and child.in_proj_weight is not None:
            layer = FilterLayer(f"{name}.in_proj_weight", child.in_proj_weight)
        elif normalisation and isinstance(child, _NORMALISATIONS) and child.weight is not None:
            layer = FilterLayer(name, child.weight)
        else:
            continue
        # The weight of a module need not be a parameter of it.
        if isinstance(layer.weight, nn.Parameter) and id(layer.weight) not in excluded:
            chosen.setdefault(id(layer.weight), layer)

    with _UsedWeights() as used:
        leaves = [parameter for parameter in module.parameters() if parameter.is_floating_point()]
        wanted = [parameter.requires_grad for parameter in leaves]
        try:
            for parameter in leaves:
                parameter.requires_grad_(True)
            # Some networks overwrite what a layer has read.
            with torch.enable_grad(), torch.autograd.graph.allow_mutation_on_saved_tensors():
                total = features(example).double().square().sum()
                gradients = torch.autograd.grad(total, leaves, allow_unused=True)
        finally:
            for parameter, flag in zip(leaves, wanted, strict=True):
                parameter.requires_grad_(flag)
    reached = {id(leaf) for leaf, gradient in zip(leaves, gradients, strict=True) if gradient is not None}
    for name, parameter in module.named_parameters():
        if id(parameter) in used.weights and id(parameter) not in excluded:
            chosen.setdefault(id(parameter), FilterLayer(name.removesuffix(".weight"), parameter))

    order = {id(parameter): place for place, parameter in enumerate(module.parameters())}
    found = sorted(
        (layer for key, layer in chosen.items() if key in reached), key=lambda layer: order[id(layer.weight)]
    )
    if not found:
        raise ProbeError("The features depend on no convolution or linear layer; nothing can be measured.")
    return tuple(found)


class _UsedWeights(TorchFunctionMode):
    """Notes which parameters are handed to a convolution or a matrix product as its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: set[int] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if func in (torch.conv1d, torch.conv2d, torch.conv3d, nn.functional.linear):
            weight = kwargs.get("weight", args[1] if len(args) > 1 else None)
            if isinstance(weight, nn.Parameter):
                self.weights.add(id(weight))
        return func(*args, **kwargs)
