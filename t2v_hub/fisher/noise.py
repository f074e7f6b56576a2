"""What noise in a layer's weights does to its outputs, drawn there: local reparametrisation.

The output of filter f at a patch x has the mean that it has without noise and the variance
``σ_f² |x|²``. Noise is drawn independently for each output: outputs of one filter at several positions
share the noise of the weights in truth, and do not here.

References:
    Kingma et al., "Variational Dropout and the Local Reparameterization Trick", NeurIPS 2015.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from t2v_hub.fisher.layers import FilterLayer

_TINY = 1e-30  # squared norm of a patch that is zero throughout; its root must have a derivative


class WatchedLayers(TorchFunctionMode):
    """Watches a forward pass: which layer's weight was used where, on what input."""

    def __init__(self, layers: Sequence[FilterLayer]) -> None:
        super().__init__()
        self.places = {id(layer.weight): place for place, layer in enumerate(layers)}
        self.used: set[int] = set()
        self.elsewhere: set[int] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        names = _OPERATIONS.get(func)
        if names is None:
            if isinstance(output, Tensor) and getattr(func, "__name__", "") != "__get__":  # an attribute
                given = (self.places.get(id(value)) for value in (*args, *kwargs.values()))
                self.elsewhere.update(place for place in given if place is not None)
            return output
        options = dict(zip(names, args, strict=False)) | kwargs
        place = self.places.get(id(options["weight"]))
        if place is None:
            return output
        self.used.add(place)
        return self.changed(place, output, func is torch.conv2d, options)

    def changed(self, place: int, output: Tensor, convolves: bool, options: dict[str, Any]) -> Tensor:
        """What the network goes on with."""
        return output


class OutputNoise(WatchedLayers):
    """Adds to each layer's output the noise that its weights' noise makes there."""

    def __init__(
        self, layers: Sequence[FilterLayer], deviations: list[Tensor], generator: torch.Generator, sign: float
    ) -> None:
        super().__init__(layers)
        self.deviations = deviations
        self.generator = generator
        self.sign = sign

    def changed(self, place: int, output: Tensor, convolves: bool, options: dict[str, Any]) -> Tensor:
        """With noise."""
        norms = _squared_norms(convolves, options).clamp_min(_TINY).sqrt()
        deviation = self.deviations[place]
        noise = torch.randn(output.shape, generator=self.generator, device=output.device, dtype=output.dtype)
        spread = _by_filter(norms, options) * (deviation[:, None, None] if convolves else deviation)
        return output + self.sign * noise * spread


class PatchSquares(WatchedLayers):
    """Sums over images and positions what the output's squared gradient times the patch's norm is."""

    def __init__(self, layers: Sequence[FilterLayer]) -> None:
        super().__init__(layers)
        self.totals = [torch.zeros(layer.n_filters, device=layer.weight.device).double() for layer in layers]

    def changed(self, place: int, output: Tensor, convolves: bool, options: dict[str, Any]) -> Tensor:
        """The same, watched for its gradient."""
        with torch.no_grad():
            norms = _by_filter(_squared_norms(convolves, options), options)

        def came(gradient: Tensor) -> None:
            filters = (gradient.detach().square() * norms).movedim(-3 if convolves else -1, 0)
            self.totals[place] += filters.flatten(1).sum(dim=1).double()

        if not output.requires_grad:  # the graph starts here; the clone may be changed in place
            output = output.detach().requires_grad_().clone()
        output.register_hook(came)
        return output


def _squared_norms(convolves: bool, options: dict[str, Any]) -> Tensor:
    """Squared norm of the patch that each output sees: ``(batch, groups, height, width)`` or ``(..., 1)``."""
    squared: Tensor = options["input"].square()
    if not convolves:
        return squared.sum(dim=-1, keepdim=True)
    groups = options.get("groups", 1)
    summed = squared.unflatten(-3, (groups, -1)).sum(dim=-3)
    ones = summed.new_ones(groups, 1, *options["weight"].shape[2:])
    geometry = {name: options[name] for name in ("stride", "padding", "dilation") if name in options}
    return F.conv2d(summed, ones, groups=groups, **geometry)


def _by_filter(norms: Tensor, options: dict[str, Any]) -> Tensor:
    """Repeated for the filters of each group; one group's broadcast by themselves."""
    groups = options.get("groups", 1)
    if groups == 1:
        return norms
    return norms.repeat_interleave(len(options["weight"]) // groups, dim=-3)


_OPERATIONS: dict[Callable[..., Tensor], tuple[str, ...]] = {
    torch.conv2d: ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    F.linear: ("input", "weight", "bias"),
}
