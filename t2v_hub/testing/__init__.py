"""For tests of plug-ins, of the demo and of t2v_hub: contracts, tiny networks, a Hub on this machine.

Names load when they are first asked for: a test that needs only the Hub does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from t2v_hub.testing.catalog_contract import check_catalog
    from t2v_hub.testing.loopback.faults import Faults
    from t2v_hub.testing.loopback.objects import Commit, PullRequest
    from t2v_hub.testing.loopback.server import LoopbackHub
    from t2v_hub.testing.loopback.wire import Request
    from t2v_hub.testing.probe_contract import check_probe
    from t2v_hub.testing.score_contract import check_score
    from t2v_hub.testing.tiny import TINY, TinyNetwork, tiny_probe, tiny_task

_HOMES = {
    "TINY": "tiny",
    "Commit": "loopback.objects",
    "Faults": "loopback.faults",
    "LoopbackHub": "loopback.server",
    "PullRequest": "loopback.objects",
    "Request": "loopback.wire",
    "TinyNetwork": "tiny",
    "check_catalog": "catalog_contract",
    "check_probe": "probe_contract",
    "check_score": "score_contract",
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
    "check_catalog",
    "check_probe",
    "check_score",
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
