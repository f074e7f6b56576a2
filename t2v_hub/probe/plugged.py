"""Networks that neither timm nor transformers know: loaded by plug-ins, as ``NAME:LOCATION``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from t2v_hub.errors import ProbeError, ProbeNotFoundError
from t2v_hub.plugins import guarded, plugin_at, plugins

if TYPE_CHECKING:
    from t2v_hub.probe.network import ProbeNetwork

Loader = Callable[[str], "ProbeNetwork | nn.Module"]
"""What an entry point of the group ``t2v_hub.probes`` is.

It takes LOCATION, whatever the plug-in understands by it, and gives a `ProbeNetwork`, or a network that
maps a batch of images of 224 pixels, normalised as ImageNet's, to logits. The same weights each time, for
the digest of its tensors says which probe it is. LOCATION may come from an embedding of somebody else: it
must not lead to code of theirs being run, nor to a pickle being read.
"""

_TAKEN = frozenset({"hf-hub", "hf_hub"})


@dataclass(frozen=True)
class PluggedNetwork:
    """Where a plug-in finds a network.

    Attributes:
        name: ``NAME:LOCATION``.
        location: LOCATION.
        load: The plug-in's function.
    """

    name: str
    location: str
    load: Loader

    def network(self) -> "ProbeNetwork | nn.Module":
        """What the plug-in loads; the state of torch's random numbers is as before.

        Raises:
            ProbeError: It fails, or gives something else.
        """
        from t2v_hub.probe.network import ProbeNetwork

        with (
            guarded(f"The plug-in for {self.name!r} cannot load it", ProbeError),
            torch.random.fork_rng(devices=[]),
        ):
            network: object = self.load(self.location)
        if isinstance(network, nn.Module) or type(network) is ProbeNetwork:
            return network
        raise ProbeError(
            f"The plug-in for {self.name!r} must give a ProbeNetwork (of no subclass) or an nn.Module, not a "
            f"{type(network).__name__}. The fault is the plug-in's; tell who made it."
        )


def plugged_network(location: object) -> PluggedNetwork | None:
    """Where ``NAME:LOCATION`` is; None of what is a path, or spelled otherwise, such as ``hf-hub:org/name``.

    Raises:
        ProbeNotFoundError: No plug-in has that name.
    """
    if isinstance(location, str) and location.startswith(tuple(f"{name}:" for name in _TAKEN)):
        return None
    found = plugin_at(location, _loaders, error=ProbeNotFoundError)
    if found is None:
        return None
    return PluggedNetwork(str(location), found[1], cast(Loader, found[0]))


def unusable(_: str, value: object) -> str | None:
    """What is wrong with what is to load networks, in words; None where nothing is."""
    return None if callable(value) else f"it must be a function of a location, not {type(value).__name__}"


def _loaders() -> Mapping[str, object]:
    return plugins("t2v_hub.probes", taken=_TAKEN, refusal=unusable)
