"""Catalogs that lie elsewhere than in a folder that one knows: opened by plug-ins, as ``NAME:LOCATION``."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

from t2v_hub.errors import CatalogError, CatalogFileError
from t2v_hub.plugins import guarded, plugin_at, plugins

if TYPE_CHECKING:
    from t2v_hub.catalog.catalog import Catalog

Opener = Callable[[str], "Catalog"]
"""What an entry point of the group ``t2v_hub.catalogs`` is.

It takes LOCATION, whatever the plug-in understands by it, and gives a `Catalog`: one that it keeps in a
folder of its own and brings up to date with whatever it stands for (`Catalog.extend`, `Catalog.remove`).
"""


def plugged_catalog(location: object) -> "Catalog | None":
    """The catalog at ``NAME:LOCATION``; None of what is a path, or spelled otherwise.

    Raises:
        CatalogFileError: No plug-in has that name.
        CatalogError: The plug-in fails, or gives something else.
    """
    found = plugin_at(location, _openers, error=CatalogFileError)
    return None if found is None else opened(cast(Opener, found[0]), found[1], name=str(location))


def opened(opener: Opener, location: str, *, name: str) -> "Catalog":
    """What a plug-in opens.

    Args:
        opener: The plug-in's function.
        location: LOCATION.
        name: ``NAME:LOCATION``.

    Raises:
        CatalogError: It fails, or gives something else.
    """
    from t2v_hub.catalog.catalog import Catalog

    with guarded(f"The plug-in for {name!r} cannot open it", CatalogError):
        catalog: object = opener(location)
    if not isinstance(catalog, Catalog):
        raise CatalogError(
            f"The plug-in for {name!r} must give a Catalog, not a {type(catalog).__name__}. The fault is the "
            f"plug-in's; tell who made it."
        )
    return catalog


def unusable(_: str, value: object) -> str | None:
    """What is wrong with what is to open catalogs, in words; None where nothing is."""
    return None if callable(value) else f"it must be a function of a location, not {type(value).__name__}"


def _openers() -> Mapping[str, object]:
    return plugins("t2v_hub.catalogs", refusal=unusable)
