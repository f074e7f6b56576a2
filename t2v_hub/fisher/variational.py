r"""The robust (variational) estimate: how much noise each filter's weights bear.

Filter f gets Gaussian noise of one variance, :math:`\Lambda_f = \sigma_f^2`, and the variances minimise

.. math:: E_{w \sim N(\hat w, \Lambda)}[\text{cross-entropy}] + \beta L_z, \qquad
    L_z = 2\, KL\bigl(N(\hat w, \Lambda)\,\|\,N(0, \lambda^2 I)\bigr)

by SGVB with local reparametrisation: noise is drawn for a layer's outputs instead of its weights, with
the mean and the variance that the weights' noise gives each output, ``σ_f²`` times the squared norm
of the patch that it sees. Exact for a linear layer that sees an image once. Outputs of one filter at
several positions (convolutions, tokens, weights that are used twice) share the weights' noise in truth
and get independent noise here. To second order the optimum is ``1/σ_f² = F_f/(2β) + 1/λ²``, where
F_f holds, instead of the square of the sum over positions, the sum over positions of the squares.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from t2v_hub.errors import ProbeError, ProbeOutputError, SettingsError
from t2v_hub.fisher.layers import FilterLayer
from t2v_hub.fisher.noise import OutputNoise, PatchSquares, WatchedLayers

Array = NDArray[np.float64]

_AVERAGED = 0.5  # last part of the steps whose variances are averaged: steps of Adam never settle
_INITIAL = 0.05  # of a filter's variance, where the reference implementation starts


@dataclass(frozen=True)
class VariationalRecipe:
    """How the variational loss is minimised; part of the `Space`.

    Steps of Adam at a fixed rate stop on the way when they start far off: 313 steps of 0.01 change no
    variance by more than a factor of 23. So the start is the loss's optimum to second order, unless
    ``start`` says otherwise. Nor do they settle, so the result is the mean of the variances over the
    later half.

    Attributes:
        epochs: Passes; with ``draws`` and ``batch_size`` the reference implementation's.
        draws: Images drawn with replacement in each pass, every class alike. Each is seen twice, with
            opposite noise, which cancels most of the gradient's own.
        batch_size: Images per step.
        learning_rate: Of the log-variances; the paper's.
        head_learning_rate: Of the linear head; 0 leaves it as its own recipe fitted it. The reference
            implementation fits it further, at 5e-4; but what penalty the head's recipe has does not act
            then, and within 100 steps of that rate a mean confidence of 0.43 became 0.90 (MobileNetV2
            0.35 on ``trashnet/materials``, 100 images of 64 pixels).
        start: ``closed_form``: the optimum to second order; ``variance``: 0.05 times the variance of the
            filter's weights, the reference implementation's.
        prior: ``fixed``: the prior's variance is the layer's mean squared weight. ``fitted``: it is at its
            optimum, the mean of ``w² + σ²``, in each step; where the data say next to nothing about a layer
            there is none, and both grow with every step. Distances use the fixed one in either.
    """

    epochs: int = 2
    draws: int = 10_000
    batch_size: int = 64
    learning_rate: float = 1e-2
    head_learning_rate: float = 0.0
    start: Literal["closed_form", "variance"] = "closed_form"
    prior: Literal["fixed", "fitted"] = "fixed"

    def __post_init__(self) -> None:
        for name in ("epochs", "draws", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SettingsError(f"The variational {name} must be a whole number >= 1, not {value!r}.")
        for name, least in (("learning_rate", "> 0"), ("head_learning_rate", ">= 0")):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not (number and (value > 0 or (value == 0 and least == ">= 0"))):
                raise SettingsError(f"The variational {name} must be a finite number {least}, not {value!r}.")
        if self.start not in ("closed_form", "variance"):
            raise SettingsError(
                f"The variational start must be 'closed_form' or 'variance', not {self.start!r}."
            )
        if self.prior not in ("fixed", "fitted"):
            raise SettingsError(f"The variational prior must be 'fixed' or 'fitted', not {self.prior!r}.")

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain values; equal recipes give equal ones."""
        rates = {name: float(getattr(self, name)) for name in ("learning_rate", "head_learning_rate")}
        return asdict(self) | rates

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The recipe that `to_dict` wrote; other keys are ignored."""
        return cls(**{key: value for key, value in values.items() if key in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Images:
    """The images that are drawn, and what is known of them.

    Attributes:
        inputs: Maps places, ``(batch,)``, to the probe's inputs.
        labels: ``(n,)`` codes, or ``(n, n_classes)`` zeros and ones (multi-label).
        drawn: Labels drawn from the model as `draw_labels` gives them, for the start.
        chances: ``(n,)``, of each image to be drawn; they sum to 1.
    """

    inputs: Callable[[NDArray[np.int64]], Tensor]
    labels: NDArray[Any]
    drawn: NDArray[np.int64]
    chances: Array


@dataclass(frozen=True)
class Optimum:
    """Where the minimisation ended.

    Attributes:
        precision: ``1/σ_f²``, ``(n_filters,)``.
        head_weight: ``(n_classes, n_features)``.
        head_bias: ``(n_classes,)``.
    """

    precision: Array
    head_weight: Array
    head_bias: Array


class VariationalLoss:
    """Minimises the variational loss of one task; use inside `frozen`.

    Args:
        features: Maps a batch of inputs to ``(batch, n_features)``.
        layers: The weights that bear noise.
        recipe: How it is minimised.
        beta: Weight of the prior, > 0.
        seed: What draws and noise hang on; the global random state is neither used nor changed.
        pass_size: Images per forward and backward pass; a step may take several.
    """

    def __init__(
        self,
        features: Callable[[Tensor], Tensor],
        layers: Sequence[FilterLayer],
        *,
        recipe: VariationalRecipe,
        beta: float,
        seed: int,
        pass_size: int,
    ) -> None:
        self.features = features
        self.layers = tuple(layers)
        self.recipe = recipe
        self.beta = beta
        self.pass_size = min(pass_size, recipe.batch_size)
        weights = [layer.weight.detach() for layer in self.layers]
        self._priors = [weight.double().square().mean().to(weight.dtype) for weight in weights]
        seeds = np.random.SeedSequence([seed, 0x5B6B])
        self._draws = np.random.Generator(np.random.PCG64(seeds))
        self._noise = torch.Generator(device=weights[0].device)
        self._noise.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> 1))

    @property
    def n_steps(self) -> int:
        """Steps of the optimiser."""
        return self.recipe.epochs * -(-self.recipe.draws // self.recipe.batch_size)

    def check(self, example: Tensor) -> None:
        """Return when every layer's noise can be drawn at its output.

        Raises:
            ProbeError: The network uses a weight otherwise than in a 2-d convolution or a linear layer.
        """
        watch = WatchedLayers(self.layers)
        with torch.no_grad(), watch:
            self.features(example)
        places = [i for i in range(len(self.layers)) if i not in watch.used or i in watch.elsewhere]
        if places:
            names = ", ".join(self.layers[place].name for place in places[:5])
            more = f" and {len(places) - 5} more" if len(places) > 5 else ""
            raise ProbeError(
                f"The variational estimate knows 2-d convolutions and linear layers only; {len(places)} of "
                f"{len(self.layers)} layers are used in another way ({names}{more}). Leave them out with "
                f"filters=[...], or choose another estimator."
            )

    def minimise(
        self, head_weight: Array, head_bias: Array, images: Images, *, on_step: Callable[[], None]
    ) -> Optimum:
        """The variances at which the loss is smallest, as precisions.

        Args:
            head_weight: The head to start from, ``(n_classes, n_features)``.
            head_bias: ``(n_classes,)``.
            images: What is drawn.
            on_step: Called after each step.

        Raises:
            ProbeOutputError: A gradient is not finite.
        """
        reference = self.layers[0].weight
        head = [torch.from_numpy(part.copy()).to(reference) for part in (head_weight, head_bias)]
        started = (
            self._at_closed_form(head, images) if self.recipe.start == "closed_form" else self._at_variance()
        )
        logs = [variance.log().detach().requires_grad_() for variance in started]
        groups: list[dict[str, Any]] = [{"params": logs, "lr": self.recipe.learning_rate}]
        if self.recipe.head_learning_rate:
            head = [part.requires_grad_() for part in head]
            groups.append({"params": head, "lr": self.recipe.head_learning_rate})
        optimiser = torch.optim.Adam(groups)
        totals, counted = [torch.zeros_like(log, dtype=torch.float64) for log in logs], 0
        for step, places in enumerate(self._batches(images.chances)):
            optimiser.zero_grad()
            self._add_gradient(logs, head, images, places)
            for layer, log, prior in zip(self.layers, logs, self._current_priors(logs), strict=True):
                assert log.grad is not None
                # The gradient over β and the filter's number of weights: of order 1 for any β, so that
                # Adam's epsilon is small beside it.
                log.grad = log.grad / (self.beta * layer.n_weights) + (log.detach().exp() / prior - 1)
                if not bool(log.grad.isfinite().all()):
                    raise ProbeOutputError(
                        f"The variational loss has NaN or infinite gradients in layer {layer.name!r}. Check "
                        f"the probe's weights and preprocessing, or measure with dtype='float64'."
                    )
            optimiser.step()
            if step >= int(self.n_steps * (1 - _AVERAGED)):
                counted += 1
                for total, log in zip(totals, logs, strict=True):
                    total += log.detach().double().exp()
            on_step()
        precision = torch.cat([counted / total for total in totals])
        weight, bias = (part.detach().double().cpu().numpy() for part in head)
        return Optimum(precision.cpu().numpy(), weight, bias)

    def _batches(self, chances: Array) -> Iterator[NDArray[np.int64]]:
        size = self.recipe.batch_size
        for _ in range(self.recipe.epochs):
            drawn = self._draws.choice(len(chances), size=self.recipe.draws, p=chances)
            for start in range(0, len(drawn), size):
                yield drawn[start : start + size]

    def _add_gradient(
        self, logs: list[Tensor], head: list[Tensor], images: Images, places: NDArray[np.int64]
    ) -> None:
        """Adds the gradient of the mean cross-entropy of one batch under noise."""
        for start in range(0, len(places), self.pass_size):
            part = places[start : start + self.pass_size]
            inputs, state = images.inputs(part), self._noise.get_state()
            for sign in (1.0, -1.0):
                self._noise.set_state(state)
                noise = OutputNoise(self.layers, [(log / 2).exp() for log in logs], self._noise, sign)
                with torch.enable_grad(), torch.autograd.graph.allow_mutation_on_saved_tensors():
                    with noise:
                        outputs = self.features(inputs)
                    loss = _cross_entropy(outputs, head, images.labels[part]) / (2 * len(places))
                    loss.sum().backward()

    def _current_priors(self, logs: list[Tensor]) -> list[Tensor]:
        if self.recipe.prior == "fixed":
            return self._priors
        # All filters of a layer have as many weights, so the mean over filters is that over weights.
        return [prior + log.detach().exp().mean() for prior, log in zip(self._priors, logs, strict=True)]

    def _at_variance(self) -> list[Tensor]:
        variances = []
        for layer, prior in zip(self.layers, self._priors, strict=True):
            filters = layer.weight.detach().reshape(layer.n_filters, -1)
            # A filter of equal weights, or of one, has no variance.
            variances.append(_INITIAL * filters.var(dim=1, unbiased=False).clamp_min(1e-3 * float(prior)))
        return variances

    def _at_closed_form(self, head: list[Tensor], images: Images) -> list[Tensor]:
        """``1/(F/(2β) + 1/λ²)``, with labels drawn from the model and squares summed over positions."""
        squares = PatchSquares(self.layers)
        share = torch.from_numpy(np.sqrt(images.chances)).to(head[0])  # squared again with the gradient
        n_labels = images.drawn.shape[1]
        for start in range(0, len(images.chances), self.pass_size):
            part = np.arange(start, min(start + self.pass_size, len(images.chances)))
            with torch.enable_grad(), torch.autograd.graph.allow_mutation_on_saved_tensors():
                with squares:
                    outputs = self.features(images.inputs(part))
                for column in range(n_labels):
                    losses = _cross_entropy(outputs, head, images.drawn[part, column])
                    total = (losses * share[part]).sum()
                    direction = torch.autograd.grad(total, outputs, retain_graph=True)[0]
                    torch.autograd.backward(outputs, direction, retain_graph=column + 1 < n_labels)
        return [
            1 / (total.to(prior) / (layer.n_weights * n_labels) / (2 * self.beta) + 1 / prior)
            for layer, total, prior in zip(self.layers, squares.totals, self._priors, strict=True)
        ]


def _cross_entropy(outputs: Tensor, head: list[Tensor], labels: NDArray[Any]) -> Tensor:
    """Of each image, ``(batch,)``; multi-label: summed over the classes."""
    logits = outputs @ head[0].T + head[1]
    targets = torch.from_numpy(np.ascontiguousarray(labels)).to(logits.device)
    if labels.ndim == 2:
        losses = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
        return losses.sum(dim=1)
    return F.cross_entropy(logits, targets.long(), reduction="none")
