"""Data sets by where they lie: an image folder, Parquet files, a saved data set, the Hub."""

import contextlib
import hashlib
import lzma
import re
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from t2v_hub.errors import DataError, DataNotFoundError, SettingsError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
HUB_ONLY = "revision=, config= and streaming= mean something only for the id of a data set on the Hub."
_OFFLINE = (
    "Without a connection, give a local path, or set HF_HUB_OFFLINE=1 to use what was downloaded before."
)


@dataclass(frozen=True, eq=False)
class Located:
    """A data set and where it came from.

    Attributes:
        data: A `datasets` object.
        id: Repository, or the path's last part.
        revision: Commit or digest of the content; None leaves it to the fingerprint.
        config: Configuration of the repository.
        split: Expression such as ``train[:10%]`` that was applied already.
    """

    data: Any
    id: str
    revision: str | None = None
    config: str | None = None
    split: str | None = None


def locate(
    location: str | Path,
    *,
    config: str | None,
    revision: str | None,
    split: str | None,
    progress: bool,
    streaming: bool = False,
) -> Located:
    """The data set at a path or, where a string names none, on the Hub.

    ``split`` is passed on only where it is more than a name, such as ``train[:10%]``.

    Raises:
        DataNotFoundError: Nothing is there, or the Hub is out of reach.
        DataError: What is there cannot be read.
    """
    path = Path(location).expanduser()
    expression = split if split is not None and ("[" in split or "+" in split) else None
    with _bars(progress):
        if path.exists():
            if config is not None or revision is not None or streaming:
                raise SettingsError(f"{str(path)!r} is a path; {HUB_ONLY}")
            return _from_path(path, expression)
        if isinstance(location, Path) or not _HUB_ID.fullmatch(location) or location.endswith(".parquet"):
            raise DataNotFoundError(
                f"There is no file or folder {str(location)!r}. Check the path; data sets on the Hub are "
                "named like 'owner/name'."
            )
        return _from_hub(location, config, revision, expression, streaming=streaming)


def reading_failures() -> tuple[type[BaseException], ...]:
    """What `datasets` and the layers below it raise when data cannot be read or fetched.

    They check little of what strangers uploaded: a damaged archive or card may end in nearly anything. So
    these are for calls of `datasets` alone, and nothing of ours may run among them.
    """
    import pyarrow as pa
    import yaml
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    # The HTTP library's own base error; which library that is changed from version to version.
    http = tuple(cast("type[BaseException]", base) for base in HfHubHTTPError.__bases__)
    return (
        *http,
        DatasetsError,
        pa.ArrowException,
        yaml.YAMLError,  # of the card
        zipfile.BadZipFile,
        tarfile.TarError,
        lzma.LZMAError,
        zlib.error,
        struct.error,
        EOFError,
        OSError,
        ImportError,  # a package that the format needs
        ValueError,
        RuntimeError,  # NotImplementedError among them
        ArithmeticError,
        LookupError,
        TypeError,
        AttributeError,
        AssertionError,
    )


def _from_path(path: Path, split: str | None) -> Located:
    import datasets

    id = path.resolve().name
    if path.is_file():
        if path.suffix != ".parquet":
            raise DataError(
                f"{str(path)!r} is no Parquet file; wanted a folder with one sub-folder of images per class, "
                "a .parquet file, or a folder of them. Load other formats with datasets.load_dataset and "
                "pass the result."
            )
        data = _read(path, "parquet", split, data_files=str(path))
        return Located(data, path.stem, _digest([path]), split=split)
    if any((path / name).exists() for name in ("state.json", "dataset_dict.json")):
        try:
            return Located(datasets.load_from_disk(str(path)), id)
        except reading_failures() as error:
            raise _unreadable(path, error) from error
    tables = sorted(path.rglob("*.parquet")) if _holds_tables(path) else []
    if tables:
        data = _read(path, "parquet", split, data_dir=str(path))
        return Located(data, id, _digest(tables, path), split=split)
    return Located(_read(path, "imagefolder", split, data_dir=str(path)), id, split=split)


def _read(path: Path, builder: str, split: str | None, **options: str) -> Any:
    import datasets

    try:
        return datasets.load_dataset(builder, split=split, **options)
    except FileNotFoundError as error:
        raise DataNotFoundError(
            f"The folder {str(path)!r} holds no images; wanted one sub-folder of images per class, "
            f"or Parquet files. ({_line(error)})"
        ) from error
    except reading_failures() as error:
        raise _unreadable(path, error) from error


def _holds_tables(path: Path) -> bool:
    found = [*path.glob("*.parquet"), *path.glob("*/*.parquet")]
    return any(table.name != "metadata.parquet" for table in found)  # that one belongs to an image folder


def _digest(files: list[Path], folder: Path | None = None) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        if folder is None:
            return f"sha256:{content[:16]}"
        digest.update(f"{path.relative_to(folder).as_posix()}\n{content}\n".encode())
    return f"sha256:{digest.hexdigest()[:16]}"


def _from_hub(
    id: str, config: str | None, revision: str | None, split: str | None, *, streaming: bool
) -> Located:
    import datasets

    sha = _commit(id, revision)
    try:
        data = datasets.load_dataset(
            id, name=config, revision=sha or revision, split=split, streaming=streaming
        )
    except reading_failures() as error:
        if sha is None:
            raise DataNotFoundError(
                f"The data set {id!r} was not downloaded before, and HF_HUB_OFFLINE forbids to fetch it now "
                f"({_line(error)}). Unset HF_HUB_OFFLINE, or give a local path."
            ) from error
        raise DataError(
            f"The data set {id!r} on the Hub cannot be loaded: {_line(error)}. "
            "Set config= or split= where it has several, or load it with datasets.load_dataset and "
            "pass the result."
        ) from error
    return Located(data, id, sha, config, split)


def _commit(id: str, revision: str | None) -> str | None:
    """Commit that ``revision`` of a Hub data set is; None in offline mode."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return HfApi().dataset_info(id, revision=revision).sha
    except OfflineModeIsEnabled:
        return None
    except GatedRepoError as error:
        raise DataNotFoundError(
            f"The data set {id!r} is gated. Accept its terms on its page on the Hub, then log in with "
            "'hf auth login' or set HF_TOKEN."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise DataNotFoundError(
            f"{id!r} is neither a path here nor a data set on the Hub that you may read. Check the spelling; "
            "for a private one log in with 'hf auth login' or set HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise DataNotFoundError(
            f"The data set {id!r} has no revision {revision!r}. Check the branch, tag or commit."
        ) from error
    except reading_failures() as error:
        raise DataNotFoundError(
            f"{id!r} is no path here, and the Hub cannot be reached to look for a data set of that name "
            f"({_line(error)}). {_OFFLINE}"
        ) from error


def _unreadable(path: Path, error: BaseException) -> DataError:
    return DataError(
        f"{str(path)!r} cannot be read as a data set: {_line(error)}. Check that the files are whole."
    )


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split())[:300] or type(error).__name__).rstrip(".")


@contextlib.contextmanager
def _bars(progress: bool) -> Iterator[None]:
    """Silence the bars of `datasets` while it reads, unless ours would show."""
    from datasets import utils as bars

    if (progress and sys.stderr.isatty()) or bars.are_progress_bars_disabled():
        yield
        return
    bars.disable_progress_bars()
    try:
        yield
    finally:
        bars.enable_progress_bars()
