"""Files that are whole or absent, and where they lie."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from t2v_hub.errors import StorageError

__all__ = ["home", "locked", "storage_error", "write_atomically"]

_CAUSES = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only; choose another place (T2V_HOME for caches)",
    errno.EACCES: "you may not write there; choose another place (T2V_HOME for caches)",
    errno.EPERM: "you may not write there; choose another place (T2V_HOME for caches)",
    errno.EISDIR: "a folder of that name exists; choose another name",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another place",
    errno.EEXIST: "a part of the path is a file, not a folder; choose another place",
}


def home() -> Path:
    """Folder of everything that t2v_hub keeps: ``T2V_HOME``, else ``~/.cache/t2v_hub``."""
    return Path(os.environ.get("T2V_HOME") or Path.home() / ".cache" / "t2v_hub").expanduser()


def write_atomically(path: Path | str, content: bytes | Callable[[BinaryIO], object]) -> Path:
    """Path of a file that now holds ``content``, whole; a crash leaves the old file or none.

    The bytes go to a temporary file beside ``path``, are forced to the disk and renamed over it.

    Args:
        path: Where to write; missing folders above it are made.
        content: The bytes, or a function that writes them to an open binary file.

    Raises:
        StorageError: The disk is full, read-only or closed to us; ``path`` is as it was before.
    """
    path = Path(path)
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=temporary_prefix(path.name), suffix=".tmp"
        )
        with os.fdopen(handle, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(_mode_of_a_new_file(path))
        Path(temporary).replace(path)
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
    return path


def temporary_prefix(name: str) -> str:
    """How the names of temporary files begin in which a file of this name is written, up to a dot."""
    return f".{name[:64]}."


def touch(path: Path) -> None:
    """Note that a kept file was used now, for `t2v_hub.housekeeping`; where that is forbidden, do nothing."""
    with contextlib.suppress(OSError):
        os.utime(path)


@contextlib.contextmanager
def locked(
    path: Path, *, seconds: float, busy: str, waiting: Callable[[], object] | None = None
) -> Iterator[None]:
    """No other process is in the body of the same lock meanwhile.

    Args:
        path: The lock's file; folders above it are made.
        seconds: How long to wait for another process.
        busy: What to say when that was not enough, and what to do then.
        waiting: Called once, after two seconds of waiting.

    Raises:
        StorageError: Another process kept the lock, or the disk is full, read-only or closed to us.
    """
    first = seconds if waiting is None else min(2.0, seconds)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=first)
        except Timeout:
            if waiting is None or seconds <= first:
                raise
            waiting()
            lock.acquire(timeout=seconds - first)
    except Timeout as error:
        raise StorageError(busy) from error
    except OSError as error:
        raise storage_error(path.parent, error) from error
    try:
        yield
    finally:
        lock.release()


def storage_error(path: Path | str, error: OSError) -> StorageError:
    """The error to raise when ``path`` could not be written: what failed, where, what to do."""
    cause = _CAUSES.get(error.errno or 0, f"{error.strerror or error}; choose another place")
    named = StorageError(f"Cannot write {str(path)!r}: {cause}. Nothing of it was left half written.")
    named.errno = error.errno
    return named


def _mode_of_a_new_file(path: Path) -> int:
    # mkstemp makes files private; a file that others could read before stays readable to them.
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _sync_folder(folder: Path) -> None:
    # The rename itself lives in the folder. Some file systems do not let a folder be opened.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
