"""`plugins`: what other packages add to t2v_hub, by entry points."""

import warnings
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from t2v_hub.errors import PlugInWarning

if TYPE_CHECKING:
    from collections.abc import Mapping

Group = Literal["t2v_hub.probes", "t2v_hub.catalogs", "t2v_hub.scores", "t2v_hub.executors"]


def plugins(group: Group) -> "Mapping[str, object]":
    """What installed packages declare in a group of entry points, loaded, by name.

    One that cannot be loaded is left out with a `PlugInWarning`, once in a process: what one package breaks
    is no reason for the rest not to work. Of two of one name the first stays, in the order of the packages'
    names.

    Args:
        group: Which group.
    """
    return _loaded(group)


@cache
def _loaded(group: Group) -> "Mapping[str, object]":
    found: dict[str, object] = {}
    for entry in sorted(entry_points(group=group), key=lambda entry: (_package(entry), entry.name)):
        if entry.name in found:
            _warn(entry, group, "another package has one of this name")
            continue
        try:
            found[entry.name] = entry.load()
        except Exception as error:  # noqa: BLE001  # a stranger's code may raise anything when it is imported
            _warn(entry, group, f"{type(error).__name__}: {error}")
    return MappingProxyType(found)


def _package(entry: EntryPoint) -> str:
    return "" if entry.dist is None else entry.dist.name


def _warn(entry: EntryPoint, group: str, why: str) -> None:
    warnings.warn(
        f"The plug-in {entry.name!r} of {_package(entry) or 'an unknown package'} (group {group}, "
        f"{entry.value}) is left out: {why}. Upgrade or uninstall that package.",
        PlugInWarning,
        stacklevel=4,
    )
