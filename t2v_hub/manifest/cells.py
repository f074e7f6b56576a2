"""The cells of a table on disk, parquet or CSV, whoever wrote it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from t2v_hub.catalog.results import check_texts
from t2v_hub.errors import ManifestError, StorageError

_PARQUET = (".parquet", ".pq")
# Far above any manifest; what claims more is not read into memory.
_MAX_BYTES = 1 << 28
_MAX_ROWS = 1_000_000
_MAX_COLUMNS = 256


def cells_of(path: Path, *, columns: Sequence[str], needed: str) -> Iterator[Mapping[str, object]]:
    """The rows of a table by column; an empty cell is None, or a text without a character.

    Args:
        path: The table.
        columns: Names that its columns may have.
        needed: The one that must be there.

    Raises:
        ManifestError: It is no such table.
        StorageError: It cannot be opened.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise unusable(path, f"it is larger than {_MAX_BYTES >> 20} MiB")
        rows = _parquet if path.suffix.lower() in _PARQUET else _csv
        yield from rows(path, columns, needed)
    except FileNotFoundError as error:
        raise ManifestError(f"There is no manifest {str(path)!r}. Check the path.") from error
    except IsADirectoryError as error:
        raise ManifestError(f"{str(path)!r} is a folder; a manifest is a CSV or parquet file.") from error
    except ManifestError:
        raise
    except OSError as error:
        raise StorageError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from error
    except (pa.ArrowException, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise unusable(path, f"it is no whole CSV or parquet file ({reason})") from error


def unusable(path: Path, reason: str) -> ManifestError:
    """The error of a table that is no manifest."""
    return ManifestError(
        f"{str(path)!r} is no manifest that can be used: {reason}. Wanted a row per task, with a column data "
        f"(a folder, a parquet file or the id of a data set on the Hub) and others such as name and split."
    )


def _parquet(path: Path, columns: Sequence[str], needed: str) -> Iterator[Mapping[str, object]]:
    with path.open("rb") as file:
        schema = pq.read_schema(file)
    _check_columns(path, schema.names, columns, needed)
    for item in schema:
        kind = item.type.value_type if pa.types.is_dictionary(item.type) else item.type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            raise unusable(path, f"its column {item.name} holds {item.type}, not text")
    texts = [item.name for item in schema if pa.types.is_string(item.type)]
    # Read as dictionaries, a text that a small file repeats a million times is in memory once.
    with pq.ParquetFile(str(path), read_dictionary=texts) as file:
        claims = file.metadata
        n_bytes = sum(claims.row_group(group).total_byte_size for group in range(claims.num_row_groups))
        if n_bytes > _MAX_BYTES or claims.num_rows > _MAX_ROWS:
            raise unusable(path, f"it claims {claims.num_rows:,} rows of {n_bytes:,} bytes")
        for batch in file.iter_batches(batch_size=1024):
            check_texts(batch)
            yield from batch.to_pylist()


def _csv(path: Path, columns: Sequence[str], needed: str) -> Iterator[Mapping[str, object]]:
    with path.open("rb") as file:
        head = file.readline(1 << 16)
    if not head.strip():
        raise unusable(path, "it is empty")
    sign = max(",;\t", key=lambda sign: head.count(sign.encode()))
    odd: list[str] = []

    def note(row: Any) -> str:
        where = f"row {row.number - 1}" if row.number else "a row"
        n, wanted = row.actual_columns, row.expected_columns
        odd.append(f"{where} has {n} cells and the header {wanted}: {row.text[:100]!r}")
        return "error"

    try:
        table = pa_csv.read_csv(
            path,
            # The header is read as a row, so that every cell is text as it stands: "007" is no number.
            read_options=pa_csv.ReadOptions(autogenerate_column_names=True, use_threads=False),
            parse_options=pa_csv.ParseOptions(
                delimiter=sign, newlines_in_values=True, invalid_row_handler=note
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types={f"f{place}": pa.string() for place in range(_MAX_COLUMNS)}
            ),
        )
    except pa.ArrowException as error:
        if odd:
            raise unusable(path, odd[0]) from error
        raise
    if table.num_rows > _MAX_ROWS or table.num_columns > _MAX_COLUMNS:
        raise unusable(path, f"it has {table.num_rows:,} rows of {table.num_columns:,} cells")
    values = [column.to_pylist() for column in table.columns]
    names = [str(column[0]).strip() for column in values]
    _check_columns(path, names, columns, needed)
    for row in zip(*(column[1:] for column in values), strict=True):
        if any(str(cell).strip() for cell in row):
            yield dict(zip(names, row, strict=True))


def _check_columns(path: Path, have: Sequence[str], columns: Sequence[str], needed: str) -> None:
    known = ", ".join(columns)
    if twice := sorted({name for name in have if have.count(name) > 1}):
        raise unusable(path, f"its column {twice[0][:80]!r} is there twice")
    if unknown := [name for name in have if name not in columns]:
        said = ", ".join(repr(name[:80]) for name in unknown[:5])
        what = f"column {said} means" if len(unknown) == 1 else f"columns {said} mean"
        raise unusable(path, f"the {what} nothing here; known are: {known}")
    if needed not in have:
        said = ", ".join(name[:80] for name in have) or "none"
        raise unusable(path, f"it has no column {needed}; its columns are: {said}; known are: {known}")
