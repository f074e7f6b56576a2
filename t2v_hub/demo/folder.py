"""The folder that the demo writes into, and nowhere else."""

import shutil
from pathlib import Path

from t2v_hub.errors import SettingsError
from t2v_hub.storage import storage_error, write_atomically

_MARK = ".t2v-demo"
_OURS = (
    "probe",
    "experts",
    "catalog",
    "hub-catalog",
    "hub-cache",
    "distances.png",
    "ranking.png",
    "report.json",
)


class DemoFolder:
    """A folder that is empty, or that an earlier demo wrote; what that left is removed, but for its cache.

    Args:
        path: The folder; made where it is absent, and kept as a whole path: what is written here is to
            be found from any other folder.

    Raises:
        SettingsError: It holds something else, which would be overwritten.
        StorageError: It cannot be written.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).expanduser().resolve()
        try:
            if self.path.is_dir() and any(self.path.iterdir()) and not (self.path / _MARK).exists():
                raise SettingsError(
                    f"{str(self.path)!r} is not empty, and no demo made it: its files could be overwritten. "
                    f"Name an empty or a new folder."
                )
            write_atomically(self.path / _MARK, b"Written by t2v demo, which overwrites this folder.\n")
            for name in _OURS:
                old = self.path / name
                if old.is_dir() and not old.is_symlink():
                    shutil.rmtree(old)
                else:
                    old.unlink(missing_ok=True)
        except OSError as error:
            if isinstance(error, SettingsError):
                raise
            raise storage_error(self.path, error) from error

    @property
    def probe(self) -> Path:
        """Folder of the probe's checkpoint."""
        return self.path / "probe"

    def expert(self, name: str) -> Path:
        """Folder of an expert's checkpoint."""
        return self.path / "experts" / name

    @property
    def catalog(self) -> Path:
        """The catalog."""
        return self.path / "catalog"

    @property
    def hub_catalog(self) -> Path:
        """The catalog of what was found on the Hub of this machine."""
        return self.path / "hub-catalog"

    @property
    def hub_cache(self) -> Path:
        """What was downloaded from there."""
        return self.path / "hub-cache"

    @property
    def cache(self) -> Path:
        """Finished embeddings; kept from run to run, since its keys say what was measured."""
        return self.path / "cache"

    @property
    def distances(self) -> Path:
        """Picture of the distances between all tasks."""
        return self.path / "distances.png"

    @property
    def ranking(self) -> Path:
        """Picture of the first ranking."""
        return self.path / "ranking.png"

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / "report.json"
