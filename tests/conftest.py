"""Fixtures that all tests share."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from t2v_hub.testing import LoopbackHub

if TYPE_CHECKING:
    from digits_pool import DigitsHub, DigitsPool

ROOT = Path(__file__).parent.parent
# Before torch is imported, and for the processes that tests start: networks are tiny here, and threads that
# wait for each other make a busy machine ten times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before huggingface_hub is imported: the loopback Hub takes large files over HTTP only.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
# Before huggingface_hub is imported: nobody listens there, so what asks the Hub fails at once.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"


@pytest.fixture(scope="session")
def kit() -> Path:
    """Folder of real weights and images; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("T2V_KIT", ROOT.parent / "shared" / "kit"))
    if not (folder / "data" / "tasks.json").exists():
        pytest.skip(f"needs the kit of real weights and images; none at {folder} (set T2V_KIT)")
    return folder


@pytest.fixture
def loopback_hub() -> Iterator[LoopbackHub]:
    """A Hub on this machine that is running and empty."""
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny probe; to be read only, as are the two below."""
    from cli_data import save_probe

    return save_probe(tmp_path_factory.mktemp("probe") / "probe")


@pytest.fixture(scope="session")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 24 tiny images of three classes."""
    from cli_data import save_images

    return save_images(tmp_path_factory.mktemp("images") / "pets")


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory, pets: Path, probe: Path) -> Path:
    """An embedding file of the pets."""
    from cli_data import SIZE, t2v_json

    path = tmp_path_factory.mktemp("embedded") / "pets.safetensors"
    # It is made before `_own_home` is there, so nothing is to be kept at home.
    t2v_json("embed", pets, "-o", path, "--probe", probe, *SIZE, "--no-cache")
    return path


@pytest.fixture(scope="session")
def digits_pool(tmp_path_factory: pytest.TempPathFactory) -> "DigitsPool":
    """Six real experts on digits and a catalog of them; to be read only."""
    from digits_pool import make_pool

    return make_pool(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def digits_hub(digits_pool: "DigitsPool", tmp_path_factory: pytest.TempPathFactory) -> "Iterator[DigitsHub]":
    """The same on a running Hub; not to be changed."""
    from digits_pool import publish

    with LoopbackHub() as hub:
        yield publish(digits_pool, hub, tmp_path_factory.mktemp("digits-hub"))


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read from or written to the user's own cache."""
    monkeypatch.setenv("T2V_HOME", str(tmp_path_factory.mktemp("t2v-home")))


@pytest.fixture(autouse=True)
def _own_data_sets(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor to that of `datasets`."""
    folder = tmp_path_factory.mktemp("data-sets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder))  # read when it is first imported
    if "datasets" in sys.modules:
        monkeypatch.setattr(sys.modules["datasets"].config, "HF_DATASETS_CACHE", folder)


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to anywhere but this machine fails the test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else address
        if self.family != socket.AF_UNIX and host not in ("127.0.0.1", "::1", "localhost"):
            pytest.fail(f"the test tried to reach {host!r}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)
