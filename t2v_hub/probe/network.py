"""`ProbeNetwork`: a frozen backbone with its features, filters and preprocessing."""

import contextlib
import copy
import fnmatch
import functools
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from t2v_hub.embedding import Layer
from t2v_hub.errors import HeadNotFoundError, ProbeError, ProbeOutputError, SettingsError, WeightsError
from t2v_hub.fisher.layers import FilterLayer, filter_layers
from t2v_hub.fisher.squares import frozen
from t2v_hub.probe.files import find_model
from t2v_hub.probe.loading import OUTPUT, check_finite, load_network
from t2v_hub.probe.plugged import plugged_network
from t2v_hub.probe.preprocessing import Preprocessing

DEFAULT_PROBE = "timm/resnet18.a1_in1k"
"""The probe that is used when none is named; a Hub repository."""

Filters = float | Sequence[str] | None


class ProbeNetwork:
    """A frozen backbone, measured by what its filters have to say about a task.

    Make one with `load`. The network itself is never changed: it runs in evaluation mode with
    constant parameters, and is handed back as it was.

    Attributes:
        module: The network.
        name: How it was called.
        head: Name of the layer whose input are the features; ``"output"``: its output is.
        preprocessing: How images become its input.
        layers: Its measured weights.
        digest: SHA-256 of its tensors without the head, sorted by name, as float32.
        n_features: Length of the feature vector.
        revision: Commit, where it came from the Hub.
    """

    def __init__(
        self,
        module: nn.Module,
        name: str,
        *,
        head: str,
        preprocessing: Preprocessing,
        filters: Filters = None,
        normalisation: bool = False,
        revision: str | None = None,
        owned: bool = False,
    ) -> None:
        self.module = module
        self.name = name
        self.head = head
        self.preprocessing = preprocessing
        self.revision = revision
        self.owned = owned
        self._narrowing = filters, normalisation
        with frozen(module):
            example = self._example()
            with torch.no_grad():
                try:
                    self.n_features = int(self.features(example).shape[1])
                except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
                    if isinstance(error, ProbeError):
                        raise
                    raise ProbeError(
                        f"{name!r} cannot process an image of {tuple(example.shape[1:])}: {error}. Check "
                        f"image_size and preprocessing; some networks take one size only."
                    ) from error
            layers = filter_layers(
                module, self.features, example, exclude=self._head_tensors(), normalisation=normalisation
            )
        self.layers = _narrowed(layers, filters, name)
        for layer in self.layers:
            if not bool(layer.weight.detach().any()):
                raise WeightsError(
                    f"All weights of layer {layer.name!r} in {name!r} are zero, so it has no prior. Leave "
                    f"it out with filters=[...], or take trained weights."
                )
        self.digest = self.digest_now()

    @classmethod
    @torch.inference_mode(False)
    def load(
        cls,
        x: "str | Path | nn.Module | ProbeNetwork",
        *,
        revision: str | None = None,
        head: str | None = None,
        filters: Filters = None,
        normalisation: bool = False,
        image_size: int | None = None,
        preprocessing: Preprocessing | None = None,
        trust_remote_code: bool = False,
    ) -> Self:
        """A probe from a name, a file, a folder or a network in memory.

        Args:
            x: A timm name, a Hub repository (``org/name``, ``hf-hub:org/name``) of timm or of
                transformers, a folder, a ``.safetensors`` file with a ``.json`` beside it, an
                ``nn.Module`` that maps a batch of images to logits, or ``NAME:LOCATION`` for what the
                plug-in NAME loads (an entry point of the group ``t2v_hub.probes``).
            revision: Branch, tag or commit of a Hub repository.
            head: Name of the module that makes the logits, or ``"output"`` where the network returns
                features. Found by itself where it is the last linear layer.
            filters: Which layers to measure: names or patterns (``"layer4.*"``), or a number in
                (0, 1] for the last part of the depth; None for all.
            normalisation: Whether scales of normalisation layers count as filters.
            image_size: Side of the square input in pixels; None for the model's own.
            preprocessing: The images' recipe; None for the model's own, and for an ``nn.Module`` 224
                pixels with ImageNet's mean and standard deviation.
            trust_remote_code: Whether code in a repository may run.

        Raises:
            ProbeNotFoundError: There is no such network.
            HeadNotFoundError: The head is neither named rightly nor found.
            WeightsError: Weights that do not fit, or are not finite.
            ProbeError: The network cannot be used as a probe; the message says why.
        """
        plugged = plugged_network(x)
        if plugged is not None:
            if revision is not None:
                raise SettingsError(
                    f"revision={revision!r} is of a Hub repository, and {x!r} is what a plug-in loads. Leave "
                    f"it out; where the plug-in knows revisions, one is part of the location."
                )
            x = plugged.network()
            if isinstance(x, ProbeNetwork):
                check_finite(x.module, plugged.name)
                x = copy.copy(x)
                x.name, x.owned = plugged.name, True
        if isinstance(x, ProbeNetwork):
            given = {"filters": filters, "image_size": image_size, "preprocessing": preprocessing}
            if any(value is not None for value in given.values()) or normalisation or head:
                recipe = preprocessing or x.preprocessing
                own_filters, own_normalisation = x._narrowing
                return cls(
                    x.module,
                    x.name,
                    head=head or x.head,
                    preprocessing=recipe.resized(image_size) if image_size else recipe,
                    filters=own_filters if filters is None else filters,
                    normalisation=normalisation or own_normalisation,
                    revision=x.revision,
                    owned=x.owned,
                )
            return x  # type: ignore[return-value]
        found_head: str | None = None
        if isinstance(x, nn.Module):
            module, name, commit = x, type(x).__name__ if plugged is None else plugged.name, None
            if any(parameter.is_inference() for parameter in module.parameters()):
                module = copy.deepcopy(module)  # made in inference mode, where nothing can be differentiated
            recipe = preprocessing or Preprocessing()
            check_finite(module, name)
        else:
            files = find_model(x, revision=revision)
            loaded = load_network(files, trust_remote_code=trust_remote_code)
            module, name, commit = loaded.module, files.name, files.revision
            recipe, found_head = preprocessing or loaded.preprocessing, loaded.head
        if image_size is not None:
            recipe = recipe.resized(image_size)
        head = head or found_head or find_head(module, name, recipe)
        if head != OUTPUT and head not in dict(module.named_modules()):
            names = [key for key, child in module.named_modules() if isinstance(child, nn.Linear)]
            raise HeadNotFoundError(
                f"{name!r} has no module {head!r}. Its linear layers: {', '.join(names[-5:]) or 'none'}."
            )
        return cls(
            module,
            name,
            head=head,
            preprocessing=recipe,
            filters=filters,
            normalisation=normalisation,
            revision=commit,
            owned=plugged is not None or not isinstance(x, nn.Module),
        )

    @property
    def filters(self) -> tuple[Layer, ...]:
        """The measured layers by name, in the order of the vector."""
        return tuple(Layer(layer.name, layer.n_filters) for layer in self.layers)

    @functools.cached_property
    def prior(self) -> Tensor:
        """Mean squared weight of each layer, ``(n_layers,)`` float64; the prior's variance."""
        return torch.stack([layer.weight.detach().double().square().mean().cpu() for layer in self.layers])

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return next(self.module.parameters()).device

    def features(self, inputs: Tensor) -> Tensor:
        """Penultimate features of a batch of normalised images, ``(batch, n_features)``.

        Raises:
            ProbeOutputError: The network does not return one vector per image.
        """
        if self.head == OUTPUT:
            features = _vector(self.module(inputs))
        else:
            seen: list[Tensor] = []
            head = self.module.get_submodule(self.head)
            with _watching(head, seen):
                self.module(inputs)
            if not seen:
                raise HeadNotFoundError(
                    f"The forward pass of {self.name!r} never runs {self.head!r}; name another head."
                )
            features = seen[0]
        if features.dim() > 2 and features.shape[2:].numel() == 1:
            features = features.flatten(1)
        if features.dim() != 2 or len(features) != len(inputs):
            raise ProbeOutputError(
                f"{self.name!r} gives features of shape {tuple(features.shape)} for {len(inputs)} images; "
                f"wanted one vector per image. Name the head whose input they are with head='...'."
            )
        return features

    def placed(self, device: torch.device, dtype: torch.dtype) -> "ProbeNetwork":
        """This probe on a device in a type; a copy, so that the network itself stays where it is."""
        parameter = next(self.module.parameters())
        if parameter.device == device and parameter.dtype == dtype:
            return self
        other = copy.copy(self)
        other.module = copy.deepcopy(self.module).to(device=device, dtype=dtype)
        ours = [id(parameter) for parameter in self.module.parameters()]
        theirs = dict(zip(ours, other.module.parameters(), strict=True))
        other.layers = tuple(replace(layer, weight=theirs[id(layer.weight)]) for layer in self.layers)
        return other

    def __repr__(self) -> str:
        n_filters = sum(layer.n_filters for layer in self.layers)
        return f"ProbeNetwork({self.name!r}, {n_filters} filters in {len(self.layers)} layers)"

    def _example(self) -> Tensor:
        shape = (1, self.preprocessing.n_channels, *self.preprocessing.size)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return noise.to(_parameter(self.module, self.name))

    def _head_tensors(self) -> list[Tensor]:
        named = dict(self.module.named_modules())
        tensors = [] if self.head == OUTPUT else list(named[self.head].parameters())
        # VGG's two wide hidden layers belong to its head, as in the paper (2,944 filters for VGG-13).
        for name, child in named.items():
            if name.rpartition(".")[2] == "pre_logits" and type(child).__name__ == "ConvMlp":
                tensors += child.parameters()
        return tensors

    def digest_now(self) -> str:
        """`digest` of the tensors as they are now: a network in memory may have been trained since."""
        digest = hashlib.sha256()
        prefix = None if self.head == OUTPUT else f"{self.head}."
        for key, tensor in sorted(self.module.state_dict().items()):
            if (prefix and key.startswith(prefix)) or key.rpartition(".")[2] == "num_batches_tracked":
                continue
            values = tensor.detach().cpu().contiguous()
            if values.is_floating_point():
                values = values.float()
            digest.update(f"{key}{tuple(values.shape)}".encode())
            digest.update(values.numpy().tobytes())
        return f"sha256:{digest.hexdigest()}"


def _parameter(module: nn.Module, name: str) -> nn.Parameter:
    """The first parameter; what it measures lies where that lies."""
    parameter = next(module.parameters(), None)
    if parameter is None:
        raise ProbeError(f"{name!r} has no parameters; there is nothing to measure.")
    return parameter


def _narrowed(layers: tuple[FilterLayer, ...], filters: Filters, name: str) -> tuple[FilterLayer, ...]:
    if filters is None:
        return layers
    if isinstance(filters, int | float):
        if not 0 < filters <= 1:
            raise SettingsError(f"filters={filters!r} must lie in (0, 1]: the last part of the depth.")
        return layers[-math.ceil(filters * len(layers)) :]
    patterns = [filters] if isinstance(filters, str) else list(filters)
    if not patterns:
        raise SettingsError(f"filters={filters!r} names no layer; pass None to measure all of {name!r}.")
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(layer.name, pattern) for layer in layers):
            some = ", ".join(layer.name for layer in layers[:4])
            raise SettingsError(
                f"filters: no layer of {name!r} is called {pattern!r}. Its {len(layers)} layers begin {some}."
            )
    return tuple(
        layer for layer in layers if any(fnmatch.fnmatchcase(layer.name, pattern) for pattern in patterns)
    )


@contextlib.contextmanager
def _watching(head: nn.Module, seen: list[Tensor]) -> Iterator[None]:
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield
    finally:
        handle.remove()


def _vector(output: Any) -> Tensor:
    """The features among a network's outputs."""
    if isinstance(output, Tensor):
        tensor = output
    elif getattr(output, "pooler_output", None) is not None:
        tensor = output.pooler_output
    elif getattr(output, "last_hidden_state", None) is not None:
        tensor = output.last_hidden_state
        tensor = tensor.mean(dim=1) if tensor.dim() == 3 else tensor  # tokens
    elif getattr(output, "logits", None) is not None:
        tensor = output.logits
    elif isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        tensor = output[0]
    else:
        raise ProbeOutputError(f"The network returns a {type(output).__name__}, not a tensor of features.")
    return tensor.mean(dim=(2, 3)) if tensor.dim() == 4 else tensor  # a map of features


def find_head(module: nn.Module, name: str, preprocessing: Preprocessing) -> str:
    """Name of the linear layer whose output is the network's output.

    Raises:
        HeadNotFoundError: There is none.
    """
    shape = (2, preprocessing.n_channels, *preprocessing.size)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(_parameter(module, name))
    with frozen(module), torch.no_grad(), _LinearCalls() as calls:
        try:
            output = module(noise)
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            raise ProbeError(
                f"{name!r} cannot process images of {shape[1:]}: {error}. Check image_size and preprocessing."
            ) from error
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    owners: dict[int, str] = {
        id(child.weight): key for key, child in module.named_modules() if isinstance(child, nn.Linear)
    }
    if isinstance(logits, Tensor):
        for weight, result in reversed(calls.seen):
            if id(weight) in owners and _same(result, logits):
                return owners[id(weight)]
    raise HeadNotFoundError(
        f"No linear layer of {name!r} makes its output, so its classification head cannot be told. Name "
        f"it with head='...' (linear layers: {', '.join(list(owners.values())[-5:]) or 'none'}), or pass "
        f"head='output' if the network returns features."
    )


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same values, NaN included: a poor network has a head, too."""
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


class _LinearCalls(TorchFunctionMode):
    """Notes the weight and the result of every linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[object, Tensor]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        output = func(*args, **(kwargs or {}))
        if func is F.linear:
            self.seen.append(((kwargs or {}).get("weight", args[1] if len(args) > 1 else None), output))
        return output
