"""What lies under ``T2V_HOME``: how large it is, and what of it can be deleted.

::

    embeddings/<key>.safetensors           embeddings: what was measured before
    embeddings/<key>.blocks/block-*        blocks: of measurements that are not finished
    features/<key>.safetensors             features: of candidates, for the second stage
    catalog/, enrich/, anything else       kept: never deleted here

All that can be deleted is measured again when it is needed. A file's time is that of its last use: what is
read again is touched. No link is followed, so nothing outside the folder is counted or deleted.
"""

import contextlib
import errno
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from t2v_hub.errors import SettingsError, StorageError
from t2v_hub.storage import home

CacheKind = Literal["embeddings", "blocks", "features"]
"""What can be deleted."""

Kind = Literal["embeddings", "blocks", "features", "catalog", "enrich", "other"]

IN_USE_S = 3600.0
"""Seconds since its last use in which a file may still be in use; a block of images takes minutes."""

_FILE = re.compile(r"[0-9a-f]{32}\.safetensors")
_HALF_WRITTEN = re.compile(r"\.[0-9a-f]{32}\.safetensors\..*\.tmp")
_BLOCKS = re.compile(r"[0-9a-f]{32}\.blocks")
_BLOCK = re.compile(r"block-\d+\.safetensors|\.block-.*\.tmp")
_FOLDERS: dict[str, CacheKind] = {"embeddings": "embeddings", "features": "features"}


@dataclass(frozen=True)
class KeptItem:
    """A file, or the blocks of one measurement, under ``T2V_HOME``.

    Attributes:
        kind: What it is.
        path: Where it is.
        n_bytes: Its size.
        used_at: When it was used last, in seconds since 1970.
    """

    kind: Kind
    path: Path
    n_bytes: int
    used_at: float


@dataclass(frozen=True)
class KindSize:
    """All items of one kind.

    Attributes:
        kind: Which.
        n_items: How many.
        n_bytes: Their size.
        oldest: When the one that was used longest ago was used last, in seconds since 1970.
        newest: When the one that was used last was.
        can_be_pruned: Whether `prune` may delete them.
    """

    kind: Kind
    n_items: int
    n_bytes: int
    oldest: float | None
    newest: float | None
    can_be_pruned: bool


@dataclass(frozen=True)
class PruneReport:
    """What was deleted, or would be.

    Attributes:
        removed: Deleted items, in that order; in a dry run, those that would be.
        in_use: Items that would have gone, but were used within the last hour.
        failed: Items that could not be deleted, and why.
        n_left: Items of the chosen kinds that are left.
        n_bytes_left: Their size.
        dry_run: Whether nothing was deleted.
    """

    removed: tuple[KeptItem, ...]
    in_use: tuple[KeptItem, ...]
    failed: tuple[tuple[KeptItem, str], ...]
    n_left: int
    n_bytes_left: int
    dry_run: bool

    @property
    def n_bytes(self) -> int:
        """Size of what was deleted."""
        return sum(item.n_bytes for item in self.removed)


def kept_items(folder: Path | str | None = None) -> tuple[KeptItem, ...]:
    """All that is kept; files that vanish meanwhile are left out.

    Args:
        folder: Where; ``T2V_HOME`` by default.

    Raises:
        StorageError: The folder cannot be read.
    """
    root = home() if folder is None else Path(folder).expanduser()
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise StorageError(f"Cannot read {str(root)!r}: {error.strerror or error}.") from error
    found: list[KeptItem] = []
    for entry in entries:
        name = entry.name
        if not _is_folder(entry):
            found += _item("other", entry)
        elif name in _FOLDERS:
            found += _cache(Path(entry.path), _FOLDERS[name])
        else:
            kind: Kind = "catalog" if name == "catalog" else "enrich" if name == "enrich" else "other"
            found += _below(Path(entry.path), kind)
    return tuple(found)


def sizes(items: Sequence[KeptItem]) -> tuple[KindSize, ...]:
    """How much there is of each kind; those that can be deleted first, and also where there is none."""
    rows = []
    for kind in get_args(Kind):
        own = [item for item in items if item.kind == kind]
        prunable = kind in get_args(CacheKind)
        if not own and not prunable:
            continue
        times = [item.used_at for item in own]
        n_bytes = sum(item.n_bytes for item in own)
        rows.append(
            KindSize(kind, len(own), n_bytes, min(times, default=None), max(times, default=None), prunable)
        )
    return tuple(rows)


def prune(
    folder: Path | str | None = None,
    *,
    kinds: Sequence[CacheKind] = get_args(CacheKind),
    older_than_s: float | None = None,
    max_bytes: int | None = None,
    dry_run: bool = False,
) -> PruneReport:
    """Delete what was not used for long, or used longest ago until the rest is small enough.

    What was used within the last hour stays: another process may be at it. With both limits, what is beyond
    either goes.

    Args:
        folder: Where; ``T2V_HOME`` by default.
        kinds: Which kinds; the others are neither counted nor deleted.
        older_than_s: Delete what was not used for so many seconds.
        max_bytes: Delete until all that is left of these kinds has at most so many bytes.
        dry_run: Only say what would be deleted.

    Raises:
        SettingsError: No limit, or one that cannot be one; or no such kind.
        StorageError: The folder cannot be read.
    """
    _check(kinds, older_than_s, max_bytes)
    now = time.time()
    items = sorted(
        (item for item in kept_items(folder) if item.kind in kinds),
        key=lambda item: (item.used_at, str(item.path)),
    )
    n_bytes, n_left = sum(item.n_bytes for item in items), len(items)
    removed: list[KeptItem] = []
    in_use: list[KeptItem] = []
    failed: list[tuple[KeptItem, str]] = []
    for item in items:
        is_old = older_than_s is not None and now - item.used_at > older_than_s
        if not is_old and (max_bytes is None or n_bytes <= max_bytes):
            continue
        if now - item.used_at <= IN_USE_S or _used_at(item) > item.used_at:
            in_use.append(item)
            continue
        try:
            if not dry_run:
                _delete(item)
        except OSError as error:
            failed.append((item, error.strerror or str(error)))
            continue
        removed.append(item)
        n_bytes, n_left = n_bytes - item.n_bytes, n_left - 1
    return PruneReport(tuple(removed), tuple(in_use), tuple(failed), n_left, n_bytes, dry_run)


def _check(kinds: Sequence[CacheKind], older_than_s: float | None, max_bytes: int | None) -> None:
    known = get_args(CacheKind)
    if wrong := [kind for kind in kinds if kind not in known]:
        raise SettingsError(f"There is no kind {wrong[0]!r} to delete; choose {', '.join(known)}.")
    if older_than_s is None and max_bytes is None:
        raise SettingsError("Nothing says what to delete: give older_than_s, max_bytes, or both.")
    for name, value in (("older_than_s", older_than_s), ("max_bytes", max_bytes)):
        if value is not None and not 0 <= value < float("inf"):
            raise SettingsError(f"{name} must be a finite number >= 0, not {value!r}.")


def _cache(folder: Path, kind: CacheKind) -> Iterator[KeptItem]:
    """Items of a folder of the cache; what does not have our names is somebody's own."""
    for entry in _entries(folder):
        if _is_folder(entry):
            if kind == "embeddings" and _BLOCKS.fullmatch(entry.name):
                yield from _blocks(Path(entry.path))
            else:
                yield from _below(Path(entry.path), "other")
        elif _FILE.fullmatch(entry.name) or _HALF_WRITTEN.fullmatch(entry.name):
            yield from _item(kind, entry)
        else:
            yield from _item("other", entry)


def _blocks(folder: Path) -> Iterator[KeptItem]:
    """The blocks of one measurement as one item, as old as its newest; somebody's own files by themselves."""
    entries = _entries(folder)
    blocks = [entry for entry in entries if not _is_folder(entry) and _BLOCK.fullmatch(entry.name)]
    for entry in entries:
        if entry not in blocks:
            yield from _below(Path(entry.path), "other") if _is_folder(entry) else _item("other", entry)
    if entries and not blocks:
        return
    with contextlib.suppress(OSError):
        states = [folder.lstat()]
        for entry in blocks:
            with contextlib.suppress(OSError):
                states.append(entry.stat(follow_symlinks=False))
        n_bytes = sum(state.st_size for state in states[1:])
        yield KeptItem("blocks", folder, n_bytes, max(state.st_mtime for state in states))


def _below(folder: Path, kind: Kind) -> Iterator[KeptItem]:
    """Every file below a folder."""
    for entry in _entries(folder):
        if _is_folder(entry):
            yield from _below(Path(entry.path), kind)
        else:
            yield from _item(kind, entry)


def _item(kind: Kind, entry: "os.DirEntry[str]") -> Iterator[KeptItem]:
    with contextlib.suppress(OSError):  # it vanished
        state = entry.stat(follow_symlinks=False)
        is_file = stat.S_ISREG(state.st_mode)
        yield KeptItem(kind if is_file else "other", Path(entry.path), state.st_size, state.st_mtime)


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError:  # it vanished, or is closed to us
        return []


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _used_at(item: KeptItem) -> float:
    """When it was used last, now; -inf where it vanished."""
    if item.kind == "blocks":
        found = (now.used_at for now in _blocks(item.path) if now.kind == "blocks")
        return next(found, float("-inf"))
    try:
        return item.path.lstat().st_mtime
    except OSError:
        return float("-inf")


def _delete(item: KeptItem) -> None:
    """Delete a file, or the blocks in a folder and the folder; what vanished is gone."""
    if item.kind != "blocks":
        item.path.unlink(missing_ok=True)
        return
    if item.path.is_symlink():  # since we looked
        return
    for entry in _entries(item.path):
        if not _is_folder(entry) and _BLOCK.fullmatch(entry.name):
            Path(entry.path).unlink(missing_ok=True)
    try:
        item.path.rmdir()
    except OSError as error:  # somebody's own file stays, and so does a block that was written just now
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
            raise
