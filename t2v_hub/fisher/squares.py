"""Per-example squared gradients of a network's filters, for any network that torch can run."""

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from t2v_hub.errors import SlowPathWarning
from t2v_hub.fisher.kernels import Call, Kernel, Way, batch_norm, convolution, layer_norm, linear
from t2v_hub.fisher.layers import FilterLayer

# A layer agrees with autograd when no filter is off by more than this part of itself plus this part
# of the layer's mean: far above float32 rounding, far below any mistake.
_AGREEMENT = 1e-2


class SquaredGradients:
    """Squared derivatives of a network's features, per example and per filter.

    `forward` runs a batch and keeps its graph; `backward` then takes one direction per example in
    feature space and returns, for each example and filter, the mean over the filter's weights of the
    squared derivative along that direction. Examples of a batch never mix: squares are taken before
    any sum. What the network computes is watched at the level of operations, so weights that are
    used twice, or outside their module, are counted rightly.

    Weights whose operation has no kernel here, and layers whose kernel disagrees with autograd on
    the first two examples (say, because the batch is not their first dimension), are measured one
    example at a time, and a `SlowPathWarning` names them.

    Use inside `frozen`, which makes the network's parameters constants.

    Args:
        module: The network in evaluation mode.
        features: Maps a batch of inputs to ``(batch, n_features)`` through ``module``.
        layers: The weights to measure.
        way: How squares are taken in all layers; None for the fewest operations in each.
        autocast: Type of the passes where torch deems it safe; squares are float32 and sums float64
            all the same. None for the network's own type.
    """

    def __init__(
        self,
        module: nn.Module,
        features: Callable[[Tensor], Tensor],
        layers: Sequence[FilterLayer],
        *,
        way: Way | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.module = module
        self.features = features
        self.layers = tuple(layers)
        self.way = way
        self.autocast = autocast
        self.slow: tuple[FilterLayer, ...] = ()
        self._n_checked = 0
        self._copies_inputs = False
        self._inputs: Tensor | None = None
        self._outputs: Tensor | None = None
        self._tape: _Tape | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Features of a batch, ``(batch, n_features)``, detached; the graph is kept for `backward`."""
        # One example cannot show whether examples mix, but may be all that memory holds.
        if self._n_checked < min(len(inputs), 2):
            autocast, self.autocast = self.autocast, None  # whose rounding would hide what is compared
            try:
                self._check(inputs[:2])
            finally:
                self.autocast = autocast
        return self._run(inputs)

    def backward(self, directions: Tensor, *, keep: bool = False) -> Tensor:
        """Mean squared derivative per example and filter, ``(batch, n_filters)`` float64.

        Args:
            directions: ``(batch, n_features)``; row b holds the derivative of example b's log
                probability by its features.
            keep: Whether another `backward` of the same batch follows.
        """
        assert self._tape is not None
        assert self._outputs is not None
        assert self._inputs is not None
        by_weight = self._tape.squares(self._outputs, directions, keep=keep)
        # The slow ones, and any that this batch did not pass as the first examples did.
        others = [layer for layer in self.layers if id(layer.weight) not in by_weight]
        if others:
            alone = (
                (x[None], direction[None]) for x, direction in zip(self._inputs, directions, strict=True)
            )
            for layer, rows in zip(others, self._by_autograd(alone, others), strict=True):
                by_weight[id(layer.weight)] = rows
        if not keep:
            self.release()
        return torch.cat([by_weight[id(layer.weight)] for layer in self.layers], dim=1)

    def release(self) -> None:
        """Let go of the graph, as after a pass that came to nothing."""
        self._tape = self._outputs = self._inputs = None

    def _run(self, inputs: Tensor) -> Tensor:
        self.release()  # also the graph of a pass that failed for lack of memory
        slow = {id(layer.weight) for layer in self.slow}
        fast = [layer for layer in self.layers if id(layer.weight) not in slow]
        while True:
            tape = _Tape(fast, len(inputs), way=self.way, copies_inputs=self._copies_inputs)
            with torch.enable_grad(), casting(inputs.device, self.autocast), tape:
                outputs = self.features(inputs)
            if self._copies_inputs or not tape.changed_in_place():
                break
            self._copies_inputs = True  # the network overwrites what a layer has read: keep copies
        self._inputs, self._outputs, self._tape = inputs, outputs, tape
        return outputs.detach()

    def _check(self, inputs: Tensor) -> None:
        """Compare every kernel with autograd on the first examples; what disagrees becomes slow."""
        outputs = self._run(inputs)
        assert self._tape is not None
        assert self._outputs is not None
        generator = torch.Generator().manual_seed(0)
        directions = torch.randn(outputs.shape, generator=generator).to(outputs)
        fast = self._tape.squares(self._outputs, directions, keep=False)
        # In one batch, so that rounding does not switch other units on or off than in the fast pass.
        rows = torch.eye(len(inputs), device=outputs.device, dtype=outputs.dtype)
        truth = self._by_autograd(((inputs, row[:, None] * directions) for row in rows), self.layers)
        disagreeing = []
        mixing = self._mixes(inputs, outputs)
        for layer, expected in zip(self.layers, truth, strict=True):
            actual = fast.get(id(layer.weight))
            if not expected.isfinite().all():
                continue  # nothing to compare with; what the pass itself gives is judged by the caller
            bound = _AGREEMENT * (expected + expected.mean(dim=1, keepdim=True))
            if mixing or actual is None or not bool(((actual - expected).abs() <= bound).all()):
                disagreeing.append(layer)
        known, self.slow = self.slow, tuple(disagreeing)
        alike = len(inputs) > 1 and torch.equal(inputs[0], inputs[1])
        if not alike and all(bool(expected.isfinite().all()) for expected in truth):
            self._n_checked = len(inputs)  # else the next pass is looked at, too: these images show little
        if len(self.slow) > len(known):
            names = ", ".join(layer.name for layer in self.slow[:5])
            more = f" and {len(self.slow) - 5} more" if len(self.slow) > 5 else ""
            warnings.warn(
                f"No fast way to measure {len(self.slow)} of {len(self.layers)} layers ({names}{more}): "
                f"they are measured one image at a time, which is right but slow. Leave them out with "
                f"filters=[...] if they do not matter.",
                SlowPathWarning,
                stacklevel=4,
            )

    def _mixes(self, inputs: Tensor, outputs: Tensor) -> bool:
        """Whether an example's features hang on the others in its batch."""
        with torch.no_grad():
            alone = torch.cat([self.features(x[None]) for x in inputs])
        return not bool((alone - outputs).norm() <= _AGREEMENT * outputs.norm())

    def _by_autograd(
        self, passes: Iterable[tuple[Tensor, Tensor]], layers: Sequence[FilterLayer]
    ) -> list[Tensor]:
        """Squares by autograd alone, one ``(n_passes, n_filters of the layer)`` tensor per layer.

        Args:
            passes: Inputs and the direction in which their features are differentiated.
            layers: The weights to differentiate by.
        """
        weights = [layer.weight for layer in layers]
        rows: list[list[Tensor]] = [[] for _ in layers]
        for weight in weights:
            weight.requires_grad_(True)
        try:
            for inputs, direction in passes:
                with torch.enable_grad(), self._allowing_changes():
                    with casting(inputs.device, self.autocast):
                        outputs = self.features(inputs)
                    gradients: Sequence[Tensor | None] = [None] * len(weights)
                    if outputs.requires_grad:
                        direction = direction.to(outputs)
                        gradients = torch.autograd.grad(outputs, weights, direction, allow_unused=True)
                for row, layer, gradient in zip(rows, layers, gradients, strict=True):
                    row.append(
                        layer.squares(torch.zeros_like(layer.weight) if gradient is None else gradient)
                    )
        finally:
            for weight in weights:
                weight.requires_grad_(False)
        return [torch.stack(row) for row in rows]

    def _allowing_changes(self) -> contextlib.AbstractContextManager[object]:
        """Lets autograd differentiate networks that overwrite what a layer has read."""
        if self._copies_inputs:
            return torch.autograd.graph.allow_mutation_on_saved_tensors()
        return contextlib.nullcontext()


def casting(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[object]:
    """Autocast to a type on a device; nothing for None."""
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Evaluation mode and constant parameters inside; everything as it was, byte for byte, after."""
    training = {child: child.training for child in module.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in module.parameters()}
    buffers = {buffer: buffer.clone() for buffer in module.buffers()}
    places = [(child._buffers, dict(child._buffers)) for child in training]
    try:
        for child in training:
            child.training = False
        for parameter in wanted:
            parameter.requires_grad_(False)
        with torch.inference_mode(False):  # which would forbid gradients
            yield
    finally:
        for held, before in places:  # a forward pass may put another tensor in a buffer's place
            held.clear()
            held.update(before)
        for child, flag in training.items():
            child.training = flag
        for parameter, flag in wanted.items():
            parameter.requires_grad_(flag)
        with torch.no_grad():
            for buffer, saved in buffers.items():
                if not torch.equal(buffer, saved):  # a forward pass that counts, say
                    buffer.copy_(saved)


class _Tape(TorchFunctionMode):
    """Watches a forward pass: which weight was used where, on what input."""

    def __init__(
        self, layers: Sequence[FilterLayer], batch: int, *, way: Way | None, copies_inputs: bool
    ) -> None:
        super().__init__()
        self.layers = {id(layer.weight): layer for layer in layers}
        self.batch = batch
        self.way = way
        self.copies_inputs = copies_inputs
        self.calls: dict[int, list[Call]] = {}
        self.unsupported: set[int] = set()
        self._results: dict[int, Tensor] = {}
        self._sums: dict[int, tuple[int, Tensor]] = {}
        self._keep = False

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        operation = _OPERATIONS.get(func)
        if operation is not None and self.copies_inputs:  # for us, and for autograd, which keeps it too
            if args:
                args = (args[0].clone(), *args[1:])
            else:
                kwargs = {**kwargs, "input": kwargs["input"].clone()}
        output = func(*args, **kwargs)
        if operation is None:
            return output
        kernel, names = operation
        options = dict(zip(names, args, strict=False)) | kwargs
        weight = options.pop("weight", None)
        key = id(weight)
        if key not in self.layers:
            return output
        a = options.pop("input").detach()
        options = _complete(func, options)
        if options is None or not _batch_first(a, output, self.batch, func):
            self.unsupported.add(key)
            return output
        call = Call(kernel, a, options, a._version)
        self.calls.setdefault(key, []).append(call)
        if not output.requires_grad:
            # The graph starts here: nothing before the first wanted layer needs a gradient. The clone
            # is no leaf, so that the network may go on changing it in place.
            output = output.detach().requires_grad_().clone()
        output.register_hook(lambda gradient: self._gradient_came(key, call, gradient))
        return output

    def changed_in_place(self) -> bool:
        """Whether the network overwrote what a layer had read."""
        return any(call.input._version != call.version for calls in self.calls.values() for call in calls)

    def squares(self, outputs: Tensor, directions: Tensor, *, keep: bool) -> dict[int, Tensor]:
        """Squares per weight, ``(batch, n_filters)`` float64, of the weights that have a kernel."""
        self._results, self._sums, self._keep = {}, {}, keep
        if outputs.requires_grad:
            torch.autograd.backward(outputs, directions.to(outputs), retain_graph=keep)
        results = self._results
        for key, (_, total) in self._sums.items():  # a use whose output the features do not depend on
            results[key] = total.square().mean(dim=2).double()
        self._results, self._sums = {}, {}
        return {key: value for key, value in results.items() if key not in self.unsupported}

    def _gradient_came(self, key: int, call: Call, gradient: Tensor) -> None:
        weight = self.layers[key].weight.detach()
        gradient = gradient.detach()
        uses = len(self.calls[key])
        if call.kernel is linear:  # windows of one image follow one another: batch them apart
            gradient = gradient.reshape(self.batch, -1, gradient.shape[-1])
            a = call.input.reshape(self.batch, -1, call.input.shape[-1])
            call = Call(call.kernel, a, call.options, call.version, call.grams)
        with torch.no_grad():
            if uses == 1:
                self._results[key] = call.squares(weight, gradient, self.way, keep=self._keep)
                return
            # A weight that is used twice: its gradients are summed before they are squared.
            total = call.gradient(weight, gradient)
            seen, before = self._sums.pop(key, (0, torch.zeros((), device=total.device)))
            total = total + before
            if seen + 1 == uses:
                self._results[key] = total.square().mean(dim=2).double()
            else:
                self._sums[key] = (seen + 1, total)


def _batch_first(a: Tensor, output: Tensor, batch: int, func: Callable[..., Tensor]) -> bool:
    """Whether the examples can be told apart along the first dimension."""
    if func is F.linear:
        return a.dim() >= 2 and a.shape[0] % batch == 0 and output.shape[0] == a.shape[0]
    return a.shape[0] == batch and output.shape[0] == batch and a.dim() == output.dim()


def _complete(func: Callable[..., Tensor], options: dict[str, Any]) -> dict[str, Any] | None:
    """The operation's options with defaults and in one spelling; None where no kernel covers them."""
    if func is torch.conv2d:
        spelled = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | options
        for name in ("stride", "padding", "dilation"):
            value = spelled[name]
            if not isinstance(value, str):
                value = (value,) if isinstance(value, int) else tuple(value)
                spelled[name] = value * 2 if len(value) == 1 else value
        return spelled
    if func is F.batch_norm:
        spelled = {"training": False, "eps": 1e-5} | options
        return None if spelled["training"] or spelled.get("running_mean") is None else spelled
    if func is F.layer_norm:
        spelled = {"eps": 1e-5} | options
        return spelled if len(spelled["normalized_shape"]) == 1 else None
    return options


_OPERATIONS: dict[Callable[..., Tensor], tuple[Kernel, tuple[str, ...]]] = {
    torch.conv2d: (
        convolution,
        ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    ),
    F.linear: (linear, ("input", "weight", "bias")),
    F.batch_norm: (batch_norm, tuple(inspect.signature(F.batch_norm).parameters)),
    F.layer_norm: (layer_norm, tuple(inspect.signature(F.layer_norm).parameters)),
}
