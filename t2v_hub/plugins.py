"""`plugins`: what other packages add to t2v_hub, by entry points.

==========================  =======================================================================
group                       what an entry point is
==========================  =======================================================================
``t2v_hub.scores``          a `t2v_hub.scores.Score` of the entry point's name
``t2v_hub.probes``          ``(location: str) -> ProbeNetwork | nn.Module``; for ``NAME:LOCATION``
``t2v_hub.catalogs``        ``(location: str) -> Catalog``; for ``NAME:LOCATION``
``t2v_hub.executors``       returns a `t2v_hub.executors.Executor` when called without arguments
==========================  =======================================================================

`t2v_hub.testing` has contract tests for the first three. Nothing is looked up, and no other package imported,
before somebody asks for a name.
"""

import contextlib
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, distributions, entry_points
from pathlib import Path
from typing import Literal

from t2v_hub.errors import MissingDependencyError, PlugInWarning, T2VError

Group = Literal["t2v_hub.probes", "t2v_hub.catalogs", "t2v_hub.scores", "t2v_hub.executors"]
Refusal = Callable[[str, object], str | None]
"""Why what an entry point names cannot be used under that name, in words; None where it can."""

# No colon, for it ends there in NAME:LOCATION; and of two letters at least, for C:\ is a drive.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]+")
_ADDRESS = re.compile(rf"({_NAME.pattern}):(.+)", re.DOTALL)


def plugins(
    group: Group, *, taken: frozenset[str] = frozenset(), refusal: Refusal | None = None
) -> Mapping[str, object]:
    """What installed packages declare in a group of entry points, by name.

    Each is loaded when it is first asked for, all of them when the names are listed. One that cannot be used
    is left out with a `PlugInWarning`, once in a process: what one package breaks is no reason for the rest
    not to work. Broken is what raises any exception when it is imported, `SystemExit` too; only an interrupt
    passes. Of two of one name the first that works stays: ours, then in the order of the packages' names. One
    that raises `MissingDependencyError` is left out of the list without a word, and raises it to who asks for
    it.

    Args:
        group: Which group.
        taken: Names that are ours; what is declared under them is not even loaded.
        refusal: What is wrong with one that was loaded.
    """
    return _of_group(group, taken, refusal)


def plugin_names(group: Group) -> tuple[str, ...]:
    """The names in a group of entry points, sorted; nothing is loaded."""
    return tuple(sorted({entry.name for entry in _declared(group)}))


def plugin(group: Group, name: str) -> object:
    """The one of that name, for which a user asked; None where no installed package has one.

    Args:
        group: Which group.
        name: Its name.

    Raises:
        Exception: Whatever it raises when it is loaded: who asks for one by its name must know why not.
    """
    found = sorted((entry for entry in _declared(group) if entry.name == name), key=_order)
    for entry in found[1:]:
        _warn(entry, "another package has one of this name")
    return found[0].load() if found else None


def is_name(text: object) -> bool:
    """Whether a plug-in can have this name."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def address(text: object) -> tuple[str, str] | None:
    """The two parts of ``NAME:LOCATION``; None of what is spelled otherwise, or is a path to something."""
    match = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # too long for a path, for one
        if Path(match[0]).expanduser().exists():
            return None
    return match[1], match[2]


def plugin_at(
    text: object, found: Callable[[], Mapping[str, object]], *, error: type[T2VError]
) -> tuple[object, str] | None:
    """The plug-in that ``NAME:LOCATION`` names, and the LOCATION; None where the text is no such address.

    Args:
        text: Anything; what exists as a path is no address, nor is ``https://…`` unless a plug-in has that
            name.
        found: Gives what `plugins` gave; called for an address only.
        error: What to raise where no plug-in has that name.
    """
    parts = address(text)
    if parts is None:
        return None
    name, location = parts
    known = found()
    if name in known:
        return known[name], location
    if location.startswith("//"):
        return None
    raise error(
        f"{text!r} is no path on this machine, and no plug-in {name!r} is installed that could open "
        f"{location!r}. Installed: {', '.join(known) or 'none'}. Check the spelling, or install the package "
        f"that brings it."
    )


@contextlib.contextmanager
def guarded(what: str, error: type[T2VError]) -> Iterator[None]:
    """Whatever a plug-in's code in the body raises becomes an error of ours, interrupts excepted.

    Args:
        what: What it could not do, as the message begins.
        error: Which error; those that are ours already stay as they are.
    """
    try:
        yield
    except T2VError:
        raise
    except (Exception, SystemExit) as cause:  # a stranger's code may raise anything
        raise error(f"{what}: {_in_words(cause)}. The fault is the plug-in's; tell who made it.") from cause


class _PlugIns(Mapping[str, object]):
    """Those of one group; see `plugins`."""

    def __init__(self, group: Group, taken: frozenset[str], refusal: Refusal | None) -> None:
        self._group, self._taken, self._refusal = group, taken, refusal
        self._declared: dict[str, list[EntryPoint]] = {}
        for entry in sorted(_declared(group), key=lambda entry: (entry.name, *_order(entry))):
            self._declared.setdefault(entry.name, []).append(entry)
        self._found: dict[str, object] = {}
        self._missing: dict[str, MissingDependencyError] = {}
        self._lock = threading.RLock()  # a module that is being imported may ask, too

    def __getitem__(self, name: str) -> object:
        with self._lock:
            for entry in self._declared.pop(name, ()):  # once: what is left out is not tried again
                self._take(entry)
            if name not in self._found and name in self._missing:
                raise self._missing[name]
            return self._found[name]

    def __iter__(self) -> Iterator[str]:
        for name in sorted({*self._declared, *self._found, *self._missing}):
            with contextlib.suppress(KeyError, MissingDependencyError):
                self[name]
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _take(self, entry: EntryPoint) -> None:
        if entry.name in self._found:
            _warn(entry, "another package has one of this name")
        elif entry.name in self._taken:
            _warn(entry, "t2v_hub has one of this name itself")
        elif not is_name(entry.name):
            _warn(entry, "its name must be two or more letters, digits, '_', '.' and '-'")
        else:
            try:
                value = entry.load()
                why = None if self._refusal is None else self._refusal(entry.name, value)
            except MissingDependencyError as error:
                self._missing.setdefault(entry.name, error)
            except (Exception, SystemExit) as error:  # noqa: BLE001  # a stranger's code may raise anything
                _warn(entry, _in_words(error))
            else:
                if why is None:
                    self._found[entry.name] = value
                else:
                    _warn(entry, why)


@cache
def _of_group(group: Group, taken: frozenset[str], refusal: Refusal | None) -> _PlugIns:
    return _PlugIns(group, taken, refusal)


def _declared(group: Group) -> Iterable[EntryPoint]:
    try:
        return tuple(entry_points(group=group))
    except (TypeError, ValueError, LookupError, OSError):  # a single package's broken table spoils them all
        return tuple(_declared_one_by_one(group))


def _declared_one_by_one(group: Group) -> Iterator[EntryPoint]:
    seen: set[str] = set()
    for package in distributions():
        name = str(package.name).lower().replace("_", "-")
        if name in seen:
            continue
        seen.add(name)
        try:
            yield from [entry for entry in package.entry_points if entry.group == group]
        except (TypeError, ValueError, LookupError, OSError) as error:
            warnings.warn(
                f"The entry points of package {package.name!r} cannot be read, so its plug-ins are left out: "
                f"{_in_words(error)}. Upgrade or uninstall that package.",
                PlugInWarning,
                stacklevel=2,
            )


def _package(entry: EntryPoint) -> str:
    return "" if entry.dist is None else entry.dist.name or ""


def _order(entry: EntryPoint) -> tuple[bool, str]:
    """Ours first, then by the packages' names."""
    return _package(entry) != "t2v-hub", _package(entry)


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(". ")


def _warn(entry: EntryPoint, why: str) -> None:
    warnings.warn(
        f"The plug-in {entry.name!r} of {_package(entry) or 'an unknown package'} (group {entry.group}, "
        f"{entry.value}) is left out: {why}. Upgrade or uninstall that package.",
        PlugInWarning,
        stacklevel=2,
    )
