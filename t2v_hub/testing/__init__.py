"""For tests of plug-ins, of the demo and of t2v_hub: tiny networks and tasks, and a Hub on this machine.

Names load when they are first asked for: a test that needs only the Hub does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from t2v_hub.testing.loopback.faults import Faults
    from t2v_hub.testing.loopback.objects import Commit, PullRequest
    from t2v_hub.testing.loopback.server import LoopbackHub
    from t2v_hub.testing.loopback.wire import Request
    from t2v_hub.testing.tiny import TINY, TinyNetwork, tiny_probe, tiny_task

_HOMES = {
    "TINY": "tiny",
    "Commit": "loopback.objects",
    "Faults": "loopback.faults",
    "LoopbackHub": "loopback.server",
    "PullRequest": "loopback.objects",
    "Request": "loopback.wire",
    "TinyNetwork": "tiny",
    "tiny_probe": "tiny",
    "tiny_task": "tiny",
}

__all__ = [
    "TINY",
    "Commit",
    "Faults",
    "LoopbackHub",
    "PullRequest",
    "Request",
    "TinyNetwork",
    "tiny_probe",
    "tiny_task",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value = getattr(import_module(f"t2v_hub.testing.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 't2v_hub.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
