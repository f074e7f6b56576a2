"""`Manifest`: a table of tasks to be embedded, one a row; `load_manifest` reads and checks it."""

import hashlib
import math
import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from t2v_hub.embedding import canonical_json
from t2v_hub.errors import DataNotFoundError, ManifestError
from t2v_hub.manifest.cells import cells_of, unusable
from t2v_hub.manifest.shard import Shard

OPTIONS = ("split", "config", "revision", "image_column", "label_column", "small_classes")
"""Columns that are options of `t2v_hub.data.load`."""

COLUMNS = ("data", "name", *OPTIONS, "max_samples")
SUFFIX = ".safetensors"
_SMALL_CLASSES = ("error", "keep", "drop")
_LONGEST = 4096  # characters of a cell; a local data set's is a path
_LONGEST_STEM = 150  # bytes; file systems take 255, and temporary names are longer
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_LOCAL_STARTS = ("./", "../", "/", "~")


@dataclass(frozen=True)
class ManifestRow:
    """A task to be embedded.

    Attributes:
        number: Its row in the table, from 1, the header and blank lines not counted.
        data: Folder, Parquet file, saved data set, or id of a data set on the Hub.
        task: What its embedding calls it.
        file_name: Of its embedding; no other row has the same.
        options: Of `t2v_hub.data.load`.
        max_samples: Images to measure at most; None for what holds for all rows.
    """

    number: int
    data: str
    task: str
    file_name: str
    options: Mapping[str, str] = field(default_factory=dict, hash=False)
    max_samples: int | None = None

    @property
    def digest(self) -> str:
        """Hash of which data the row means; not of how many images are measured, nor of its number."""
        values = {"data": self.data, "task": self.task, "options": dict(self.options)}
        return f"sha256:{hashlib.sha256(canonical_json(values)).hexdigest()}"


@dataclass(frozen=True)
class Manifest:
    """A table of tasks.

    Attributes:
        path: The table; paths in it are relative to its folder.
        rows: Its rows.
    """

    path: Path
    rows: tuple[ManifestRow, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, shard: Shard) -> tuple[ManifestRow, ...]:
        """The rows of one shard, in their order; see `Shard.places`."""
        return tuple(self.rows[place] for place in shard.places(row.file_name for row in self.rows))

    def location(self, row: ManifestRow) -> str:
        """Where the data of a row lies: an absolute path, or the id of a data set on the Hub.

        Raises:
            DataNotFoundError: It can only be meant as a path, and nothing is there.
        """
        folder = self.path.absolute().parent
        try:
            path = folder / Path(row.data).expanduser()
            if path.exists():
                return str(path)
            in_present_folder = Path(row.data).exists()
        except (OSError, RuntimeError) as error:  # too long for a path, or in the home of nobody
            raise DataNotFoundError(
                f"{row.data[:80]!r} cannot be looked for: {error}. Check the path in the manifest."
            ) from error
        if row.data.startswith(_LOCAL_STARTS) or row.data.endswith(".parquet") or in_present_folder:
            hint = " The present folder has one of that name." if in_present_folder else ""
            raise DataNotFoundError(
                f"No such file or folder: {str(path)!r}. Check the path; paths in a manifest are relative to "
                f"its own folder, {str(folder)!r}.{hint}"
            )
        return row.data


def load_manifest(path: Path | str, *, defaults: Mapping[str, str] | None = None) -> Manifest:
    """The manifest in a table: a parquet file (``.parquet``), or else CSV with commas, semicolons or tabs.

    Its columns are ``data``, and where wanted ``name`` (what to call the task, and its file), ``split``,
    ``config``, ``revision``, ``image_column``, ``label_column``, ``small_classes`` and ``max_samples``.
    Without a name a task is called by what may be a Hub id (``org/name``, also where it is a path), or else
    by its path's end; and its file by that, the configuration and the split.

    Args:
        path: The table.
        defaults: Of the columns that are options of `t2v_hub.data.load`, for rows whose cell is empty.

    Raises:
        ManifestError: It is no such table, has no row, or two rows would be written to one file; the message
            names the rows, which count from 1.
        StorageError: The file cannot be opened.
    """
    path = Path(path).expanduser()
    rows: list[ManifestRow] = []
    taken: dict[str, ManifestRow] = {}
    for number, cells in enumerate(cells_of(path, columns=COLUMNS, needed="data"), 1):
        row = _row(path, number, cells, defaults or {})
        # Folders are shared with systems that do not tell a from A, or é from e and an accent.
        key = unicodedata.normalize("NFKC", row.file_name).casefold()
        if key in taken:
            raise unusable(
                path,
                f"rows {taken[key].number} ({taken[key].data[:80]!r}) and {number} ({row.data[:80]!r}) would "
                f"both be written to {row.file_name!r}; tell them apart in a column name",
            )
        taken[key] = row
        rows.append(row)
    if not rows:
        raise unusable(path, "it has no row")
    return Manifest(path, tuple(rows))


def _row(path: Path, number: int, cells: Mapping[str, object], defaults: Mapping[str, str]) -> ManifestRow:
    texts = {name: _text(path, number, name, cells.get(name)) for name in ("data", "name", *OPTIONS)}
    data, name = texts["data"], texts["name"]
    if data is None:
        raise _bad_cell(path, number, "data", "a folder, a parquet file or the id of a data set", None)
    given = {key: texts[key] or defaults.get(key) for key in OPTIONS}
    options = {key: value for key, value in given.items() if value is not None}
    if options.get("small_classes", "error") not in _SMALL_CLASSES:
        wanted = " or ".join(map(repr, _SMALL_CLASSES))
        raise _bad_cell(path, number, "small_classes", wanted, options["small_classes"])
    task = name or _called(path, data)
    if not task:
        raise _bad_cell(path, number, "name", f"what to call the data {data!r}", None)
    parts = [] if name else [options[key] for key in ("config", "split") if key in options]
    return ManifestRow(
        number=number,
        data=data,
        task=task,
        file_name=_stem("-".join([task, *parts])) + SUFFIX,
        options=options,
        max_samples=_count(path, number, cells.get("max_samples")),
    )


def _called(manifest: Path, data: str) -> str:
    """What a task without a name is called: what may be a Hub id, or else a path's end.

    By the text alone: which shard a row is in hangs on it, and not every machine sees every folder.
    """
    if _HUB_ID.fullmatch(data) and not data.endswith(".parquet"):
        return data
    return Path(os.path.normpath(manifest.absolute().parent / data)).name.removesuffix(".parquet")


def _stem(name: str) -> str:
    """A file's name that cannot lead out of its folder, nor be hidden in it."""
    text = unicodedata.normalize("NFC", name).replace("/", "--")
    stem = re.sub(r"[^\w.-]+", "-", text).strip("-.") or "task"
    if len(stem.encode()) > _LONGEST_STEM:
        stem = f"{stem[: _LONGEST_STEM // 5]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return stem


def _text(path: Path, number: int, column: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str):
        raise _bad_cell(path, number, column, "text", value)
    if len(value) > _LONGEST:
        raise _bad_cell(path, number, column, f"text of at most {_LONGEST:,} characters", value)
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise _bad_cell(path, number, column, "text without control characters", value)
    return value.strip()


def _count(path: Path, number: int, value: object) -> int | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):  # what pandas has for nothing
        return None
    if isinstance(value, str):
        if not value.strip():
            return None
        is_whole = re.fullmatch(r"\d{1,12}(\.0*)?", value.strip(), re.ASCII) is not None
    else:
        is_whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    count = int(float(value)) if is_whole and isinstance(value, str | int | float) else 0
    if count < 2:
        raise _bad_cell(path, number, "max_samples", "a whole number >= 2 or nothing", value)
    return count


def _bad_cell(path: Path, number: int, column: str, wanted: str, value: object) -> ManifestError:
    shown = "nothing" if value is None else repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:80]}…"
    return ManifestError(f"{str(path)!r}, row {number}, column {column}: wanted {wanted}, got {shown}.")
