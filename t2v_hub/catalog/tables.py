"""`load_results`: results from tables that users have, CSV or parquet."""

import contextlib
import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from t2v_hub.catalog.results import Key, Result, check_texts
from t2v_hub.errors import ResultsError, SettingsError, StorageError

_TEXTS = ("task", "checkpoint")
_SHARES = ("error", "accuracy")
_COUNTS = ("n", "seed", "n_test")
_COLUMNS = (*_TEXTS, *_SHARES, *_COUNTS, "origin")
_PARQUET = (".parquet", ".pq")
_MAX_BYTES = 1 << 28  # of a file, and of a parquet file's columns; a larger one is not read into memory
_NOTHING = ("", "nan", "none", "null", "<na>")  # what pandas and others write for what is not known
_EXAMPLE = "task,checkpoint,error,n,seed,n_test"


@dataclass(frozen=True)
class ResultTable:
    """What a table of results holds.

    Attributes:
        results: One per row, in the order of the rows.
        unused: Names of columns that mean nothing here.
    """

    results: tuple[Result, ...]
    unused: tuple[str, ...] = ()


def load_results(path: Path | str) -> ResultTable:
    """The results in a table: a parquet file (``.parquet``), or else text with commas, semicolons or tabs.

    Its columns are ``task``, ``checkpoint`` and either ``error`` or ``accuracy`` (which becomes
    ``1 - accuracy``), shares from 0 to 1; and, where known, ``n``, ``seed``, ``n_test`` and ``origin``, as in
    `Result`. Empty cells are not known.

    Raises:
        ResultsError: It is no such table; the message names row and column. Rows count from 1.
        StorageError: The file cannot be opened.
    """
    path = Path(path).expanduser()
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise _broken(path, f"it is larger than {_MAX_BYTES >> 20} MiB")
        rows = _parquet_rows(path) if path.suffix.lower() in _PARQUET else _text_rows(path)
        names = [str(name) for name in next(rows)]
        _check_columns(path, names)
        columns = {name: place for place, name in enumerate(names) if name in _COLUMNS}
        found: dict[Key, tuple[int, Result]] = {}
        for number, row in enumerate(rows, 1):
            result = _result(path, number, {name: row[place] for name, place in columns.items()})
            if result.key in found:
                raise _broken(
                    path,
                    f"rows {found[result.key][0]} and {number} are both of the task {result.task!r}, the "
                    f"checkpoint {result.checkpoint!r}, n={result.n} and seed={result.seed}; number "
                    f"repetitions in a column seed",
                )
            found[result.key] = number, result
    except ResultsError:
        raise
    except FileNotFoundError as error:
        raise ResultsError(f"There is no table of results {str(path)!r}. Check the path.") from error
    except OSError as error:
        raise StorageError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from error
    except (pa.ArrowException, csv.Error, ValueError) as error:
        raise _broken(path, f"it is no whole CSV or parquet file ({error})") from error
    if not found:
        raise _broken(path, "it has no row")
    unused = tuple(name for name in names if name not in _COLUMNS)
    return ResultTable(tuple(result for _, result in found.values()), unused)


def _text_rows(path: Path) -> Iterator[list[object]]:
    """The header, then the rows, as texts; blank lines are no rows."""
    with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets begin with a mark
        header = file.readline()
        file.seek(0)
        sign = max(",;\t", key=header.count)
        rows = csv.reader(file, delimiter=sign, strict=True)
        names = [name.strip() for name in next(rows, [])]
        yield list(names)
        number = 0
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            number += 1
            if len(row) != len(names):
                shown = repr(sign.join(row))[:100]
                raise _broken(path, f"row {number} has {len(row)} cells and the header {len(names)}: {shown}")
            yield [cell.strip() for cell in row]


def _parquet_rows(path: Path) -> Iterator[list[object]]:
    """The header, then the rows."""
    texts = [item.name for item in pq.read_schema(str(path)) if pa.types.is_string(item.type)]
    # Read as dictionaries, a text that a small file repeats a million times is in memory once.
    with pq.ParquetFile(str(path), read_dictionary=texts) as file:
        claims = file.metadata
        n_bytes = sum(claims.row_group(group).total_byte_size for group in range(claims.num_row_groups))
        if n_bytes > _MAX_BYTES:
            raise _broken(path, f"it claims {claims.num_rows:,} rows of {n_bytes:,} bytes")
        names = list(file.schema_arrow.names)
        yield list(names)
        for batch in file.iter_batches(batch_size=1024, columns=[name for name in names if name in _COLUMNS]):
            check_texts(batch)
            values = batch.to_pydict()
            for row in range(batch.num_rows):
                yield [values[name][row] if name in values else None for name in names]


def _check_columns(path: Path, have: Sequence[str]) -> None:
    said = ", ".join(have[:20])[:500] or "none"
    if twice := sorted({name for name in have if name in _COLUMNS and have.count(name) > 1}):
        raise _broken(path, f"its column {', '.join(twice)} is there twice")
    if missing := [name for name in _TEXTS if name not in have]:
        raise _broken(path, f"it has no column {' and no column '.join(missing)}; its columns are: {said}")
    if not any(name in have for name in _SHARES):
        raise _broken(path, f"it has no column error, and no column accuracy; its columns are: {said}")
    if all(name in have for name in _SHARES):
        raise _broken(path, "it has both a column error and a column accuracy; leave one out")


def _result(path: Path, number: int, row: Mapping[str, object]) -> Result:
    """The result in a row."""
    for name in _TEXTS:
        if not isinstance(row[name], str) or not str(row[name]).strip():
            raise _bad_cell(path, number, name, "an id", row[name])
    if "error" in row:
        error = _share(path, number, "error", row["error"])
    else:
        # Rounded, or an accuracy of 0.9 were an error of 0.09999999999999998.
        error = round(1 - _share(path, number, "accuracy", row["accuracy"]), 12)
    counts = {name: _count(path, number, name, row[name]) for name in _COUNTS if name in row}
    origin = row.get("origin") or "run"
    try:
        return Result(str(row["task"]), str(row["checkpoint"]), error, **counts, origin=origin)  # type: ignore[arg-type]  # it is checked there
    except SettingsError as wrong:
        raise ResultsError(f"{str(path)!r}, row {number}: {wrong}") from wrong


def _share(path: Path, number: int, column: str, value: object) -> float:
    share = _number(value)
    if share is not None and 0 <= share <= 1:
        return float(share)
    percent = _number(value.strip().removesuffix("%")) if isinstance(value, str) else share
    hint = ""
    if percent is not None and 0 <= percent <= 100:
        hint = f" Divide per cents by 100: {percent / 100:.6g}."
    raise _bad_cell(path, number, column, "a share from 0 to 1", value, hint)


def _count(path: Path, number: int, column: str, value: object) -> int | None:
    if value is None or str(value).strip().casefold() in _NOTHING:
        return None
    count = _number(value)
    if count is None or not float(count).is_integer():
        raise _bad_cell(path, number, column, "a whole number or nothing", value)
    return int(count)


def _number(value: object) -> int | float | None:
    """A finite number; None for what is none. Whole ones are exact: a seed may have 19 digits."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    for kind in (int, float) if isinstance(value, str) else (type(value),):
        with contextlib.suppress(ValueError, OverflowError):
            found = kind(value)
            return found if math.isfinite(found) else None
    return None


def _bad_cell(
    path: Path, number: int, column: str, wanted: str, value: object, hint: str = ""
) -> ResultsError:
    shown = "nothing" if value is None or value == "" else repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:80]}…"
    return ResultsError(f"{str(path)!r}, row {number}, column {column}: wanted {wanted}, got {shown}.{hint}")


def _broken(path: Path, reason: str) -> ResultsError:
    return ResultsError(
        f"{str(path)!r} is no table of results: {reason}. Wanted columns such as {_EXAMPLE} (n, seed and "
        f"n_test may be left out; accuracy may stand for error)."
    )
