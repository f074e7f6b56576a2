"""Files that are whole or absent, whatever the disk does."""

import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from factories import make_embedding

from t2v_hub import storage
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import StorageError


def everything_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_home_is_where_the_variable_says(monkeypatch, tmp_path):
    """Clusters keep caches away from the home folder."""
    monkeypatch.setenv("T2V_HOME", str(tmp_path))
    assert storage.home() == tmp_path

    monkeypatch.setenv("T2V_HOME", "")
    assert storage.home() == Path.home() / ".cache" / "t2v_hub"


def test_bytes_and_writers_are_written_whole_into_new_folders(tmp_path):
    """A writer spares a copy of a large array."""
    one = storage.write_atomically(tmp_path / "a" / "b" / "one", b"12")
    two = storage.write_atomically(tmp_path / "a" / "two", lambda file: file.write(b"34"))

    assert (one.read_bytes(), two.read_bytes()) == (b"12", b"34")
    assert everything_in(tmp_path / "a") == ["b", "two"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EDQUOT, "quota is used up"),
        (errno.EROFS, "read-only; choose another place"),
        (errno.EACCES, "you may not write there"),
        (errno.EIO, "Input/output error"),
    ],
)
@pytest.mark.parametrize("step", ["fsync", "replace", "mkstemp"])
def test_a_disk_that_fails_leaves_the_old_file_and_nothing_else(monkeypatch, tmp_path, code, words, step):
    """A disk may be full at the first byte, at the last, or when the name changes."""
    path = storage.write_atomically(tmp_path / "file", b"old")

    def fail(*arguments, **options):
        raise OSError(code, os.strerror(code))

    owner = {"fsync": storage.os, "replace": storage.Path, "mkstemp": storage.tempfile}[step]
    monkeypatch.setattr(owner, step, fail)
    with pytest.raises(StorageError, match=rf"Cannot write '.*file': .*{words}.*half written") as caught:
        storage.write_atomically(path, b"new and longer")

    assert caught.value.errno == code
    assert path.read_bytes() == b"old"
    assert everything_in(tmp_path) == ["file"]


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    """Also an error that is none of the disk's."""

    def write(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        storage.write_atomically(tmp_path / "file", write)

    assert everything_in(tmp_path) == []


SMALL_LIMIT = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from t2v_hub.errors import StorageError
from t2v_hub.storage import write_atomically
try:
    write_atomically(sys.argv[1], b"x" * 100_000)
except StorageError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limits there")
def test_a_real_failure_of_the_system_in_mid_file_leaves_the_old_file(tmp_path):
    """A limit on file sizes makes write() itself fail after 4 kB, as a full disk does."""
    path = storage.write_atomically(tmp_path / "file", b"old")

    result = subprocess.run(
        [sys.executable, "-c", SMALL_LIMIT, str(path)], capture_output=True, text=True, check=True
    )

    assert "Cannot write" in result.stdout
    assert path.read_bytes() == b"old"
    assert everything_in(tmp_path) == ["file"]


FULL_DISK = """
import os, sys
from t2v_hub.errors import StorageError
from t2v_hub.storage import write_atomically
path = write_atomically(os.path.join(sys.argv[1], "file"), b"old")
try:
    write_atomically(path, b"x" * 1_000_000)
except StorageError as error:
    print(error)
print(path.read_bytes(), os.listdir(sys.argv[1]))
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare to mount a small disk with")
def test_a_disk_that_is_really_full_is_named(tmp_path):
    """The errno that the kernel gives is the one we know; the disk is a private mount of 64 kB."""
    mount = 'mount -t tmpfs -o size=64k small "$1" || exit 77; exec "$2" -c "$3" "$1"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    result = subprocess.run(
        [*command, str(tmp_path), sys.executable, FULL_DISK], capture_output=True, text=True
    )
    if result.returncode == 77 or result.stderr.startswith("unshare"):
        pytest.skip(f"this machine does not let us mount: {result.stderr.strip()}")

    assert "the disk is full; free some space" in result.stdout
    assert "b'old' ['file']" in result.stdout


def test_an_embedding_that_did_not_fit_leaves_the_old_one(monkeypatch, tmp_path):
    """The file that a user overwrites is often their only one."""
    old = make_embedding(seed=1)
    path = old.save(tmp_path / "e.safetensors")

    def fail(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "fsync", fail)
        with pytest.raises(StorageError, match="the disk is full"):
            make_embedding(seed=2).save(path)

    assert TaskEmbedding.load(path) == old
    assert everything_in(tmp_path) == ["e.safetensors"]


def test_a_folder_or_a_file_in_the_way_is_named(tmp_path):
    """Two slips on a command line that the system reports cryptically."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="a folder of that name exists"):
        storage.write_atomically(tmp_path / "folder", b"")
    with pytest.raises(StorageError, match="a part of the path is a file, not a folder"):
        storage.write_atomically(tmp_path / "file" / "below", b"")


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
def test_files_can_be_read_by_those_who_could_before(tmp_path):
    """Temporary files are private; a shared catalog's must not become so."""
    mask = os.umask(0o022)
    try:
        new = storage.write_atomically(tmp_path / "new", b"")
        old = storage.write_atomically(tmp_path / "old", b"")
        old.chmod(0o640)
        storage.write_atomically(old, b"again")
    finally:
        os.umask(mask)

    assert stat.S_IMODE(new.stat().st_mode) == 0o644
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
