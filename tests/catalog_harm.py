"""What befalls a catalog's folder: damaged files, full disks, kills, and others that write at once."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from t2v_hub import storage
from t2v_hub.catalog import Catalog
from t2v_hub.errors import CatalogFileError

DAMAGES: tuple[Callable[[bytes], bytes], ...] = (
    lambda raw: raw[:-20],
    lambda raw: b"",
    lambda raw: b"PAR1" * 30,
)
"""Ways to make a file unreadable."""

_BEGIN = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from factories import make_embedding
from t2v_hub.catalog import Candidate, Catalog
catalog = Catalog(sys.argv[1])
"""
_DIE = """
step, count, real = int(sys.argv[3]), 0, os.fsync
def fsync(handle):
    global count
    count += 1
    if count == step:
        os.kill(os.getpid(), signal.SIGKILL)
    real(handle)
os.fsync = fsync
"""


def files_in(catalog: Catalog) -> set[str]:
    """Names of the embeddings' files."""
    return {path.name for path in (catalog.path / "embeddings").glob("*")}


def all_at_once(path: Path, change: str) -> list[int]:
    """How two processes ended that did this to the ``catalog`` at once, one as ``prefix`` "a", one as "b"."""
    code = f"{_BEGIN}prefix = sys.argv[3]\n{change}"
    command = [sys.executable, "-c", code, str(path), str(Path(__file__).parent)]
    workers = [subprocess.Popen([*command, prefix]) for prefix in "ab"]
    return [worker.wait(timeout=120) for worker in workers]


def killed(path: Path, step: int, change: str) -> int:
    """How a process ended that did this to the ``catalog``; it is killed when it writes for the n-th time."""
    command = [sys.executable, "-c", _BEGIN + _DIE + change, str(path), str(Path(__file__).parent), str(step)]
    return subprocess.run(command, check=False).returncode


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Have the n-th writing fail for want of space."""
    real, calls = os.fsync, 0

    def fsync(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == step:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(storage.os, "fsync", fsync)


def survivors(path: Path, is_changed: Callable[[], bool]) -> float:
    """Share of flipped bits after which the file is read as something else, instead of being refused."""
    raw = path.read_bytes()
    places = range(0, len(raw), 11)
    survived = 0
    for place in places:
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 4]) + raw[place + 1 :])
        try:
            survived += is_changed()
        except CatalogFileError:
            continue
    return survived / len(places)
