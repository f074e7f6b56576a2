"""`Stages`: what the stages of a timm or transformers network give, as one vector per image and stage."""

import contextlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Self

from torch import Tensor, nn

from t2v_hub.errors import ProbeOutputError

_FOREIGN = (TypeError, AttributeError, AssertionError, ValueError, LookupError, NotImplementedError)


class Stages:
    """Means of what the stages of a network give in a forward pass; inside ``with`` only.

    A stage is what the network's own library lists as one: for timm an entry of ``forward_intermediates``
    (stages of a convolutional network, often its stem too, blocks of a transformer); for transformers an
    entry of ``hidden_states`` (stem or embedded patches, then each stage or block). Maps are averaged over
    their places, sequences over their tokens; timm leaves the class token out, transformers does not.

    No pass is added: the network's own one is listened to.

    Args:
        module: The network, from `load_network`.
        name: What errors call it.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        self._module = module
        self._name = name
        self._means: list[Tensor] = []
        self._hooks = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Begin to listen.

        Raises:
            ProbeOutputError: The network cannot show its stages.
        """
        if hasattr(self._module, "forward_intermediates"):
            self._listen_to_timm()
        elif _takes_hidden_states(self._module):
            self._listen_to_transformers()
        else:
            raise self._unusable(
                f"a {type(self._module).__name__} has neither forward_intermediates nor hidden_states"
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def means(self) -> list[Tensor]:
        """Of the last pass, ``(batch, c)`` in float32 for each stage, in the network's order.

        Raises:
            ProbeOutputError: It showed none.
        """
        if not self._means:
            raise self._unusable("its forward pass shows none")
        found, self._means = self._means, []
        return found

    def _listen_to_timm(self) -> None:
        network: Any = self._module

        def features(inputs: Tensor, *_: object, **__: object) -> Tensor:
            # Further arguments are masks and the like, which forward passes on as None.
            try:
                final, maps = network.forward_intermediates(inputs, output_fmt="NCHW")
            except _FOREIGN as error:
                raise self._unusable(f"timm's forward_intermediates fails ({error})") from error
            self._means = self._averaged(maps, inputs)
            result: Tensor = final
            return result

        attributes = vars(self._module)
        assert "forward_features" not in attributes
        attributes["forward_features"] = features  # which timm's forward calls, and its head follows
        self._hooks.callback(attributes.pop, "forward_features")

    def _listen_to_transformers(self) -> None:
        def ask(_: nn.Module, inputs: Any, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
            return inputs, {**options, "output_hidden_states": True}

        def note(_: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
            # Windowed transformers show their maps as sequences, and as maps under the other name.
            maps = getattr(output, "reshaped_hidden_states", None) or getattr(output, "hidden_states", None)
            self._means = self._averaged(maps or (), inputs[0])

        for handle in (
            self._module.register_forward_pre_hook(ask, with_kwargs=True),
            self._module.register_forward_hook(note),
        ):
            self._hooks.callback(handle.remove)

    def _averaged(self, maps: Sequence[object], inputs: Tensor) -> list[Tensor]:
        means, n = [], len(inputs)
        for place, values in enumerate(maps, start=1):
            if not isinstance(values, Tensor) or values.dim() not in (2, 3, 4) or len(values) != n:
                what = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
                raise self._unusable(
                    f"stage {place} gives {what} for {n} images, not a map (n, c, h, w) or tokens (n, t, c)"
                )
            means.append(_mean(values.float(), inputs))
        return means

    def _unusable(self, reason: str) -> ProbeOutputError:
        return ProbeOutputError(
            f"The stages of {self._name!r} cannot be read: {reason}. Rank by its last features, "
            f"features='last', or upgrade timm or transformers, whichever it is of."
        )


def _mean(values: Tensor, inputs: Tensor) -> Tensor:
    """Over places or tokens; a few of transformers' maps are (n, h, w, c), which their proportions tell."""
    if values.dim() < 4:
        return values.mean(dim=1) if values.dim() == 3 else values

    def off(axis: int) -> int:
        return abs(values.shape[axis] * inputs.shape[3] - values.shape[axis + 1] * inputs.shape[2])

    return values.mean(dim=(1, 2) if off(1) < off(2) else (2, 3))


def _takes_hidden_states(module: nn.Module) -> bool:
    parameters = inspect.signature(module.forward).parameters.values()
    return any(one.name == "output_hidden_states" or one.kind is one.VAR_KEYWORD for one in parameters)
