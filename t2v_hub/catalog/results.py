"""`Result`: a test error that a checkpoint reached on a task; and the file of a catalog's results."""

import json
import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from t2v_hub.catalog.candidate import is_digest
from t2v_hub.embedding import canonical_json
from t2v_hub.errors import CatalogFileError, SettingsError
from t2v_hub.storage import write_atomically

ResultOrigin = Literal["run", "card"]
Key = tuple[str, str, int | None, int | None, str, str | None]
"""What a result is of: task, checkpoint, n, seed, origin and endpoint."""

_FORMAT = "t2v-results/1"
_METADATA = b"t2v_results"
_SCHEMA = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("checkpoint", pa.string(), nullable=False),
        pa.field("error", pa.float64(), nullable=False),
        pa.field("n", pa.int64()),
        pa.field("seed", pa.int64()),
        pa.field("n_test", pa.int64()),
        pa.field("embedding", pa.string()),
        pa.field("origin", pa.string(), nullable=False),
        pa.field("endpoint", pa.string()),
    ]
)
_DAMAGE = (pa.ArrowException, KeyError, TypeError, ValueError, AttributeError, RecursionError)
_TEXTS = ("task", "checkpoint")
_LEAST = {"n": 1, "seed": 0, "n_test": 1}
_LONGEST = 4096  # characters of an id; a local checkpoint's is a path
# Far above any pool; a file that claims more is not read into memory.
_MAX_ROWS = 10_000_000
_MAX_BYTES = 1 << 30
_BATCH_ROWS = 4096
_TEXT_COLUMNS = [item.name for item in _SCHEMA if item.type == pa.string()]


@dataclass(frozen=True)
class Result:
    """A test error that a checkpoint reached on a task.

    Attributes:
        task: Id of the task: of the data set on the Hub, or what its embedding calls it.
        checkpoint: Id of the candidate; it need not be in the catalog.
        error: Share of test images that it got wrong, in [0, 1].
        n: Training images that it was reached with; None where that is not known.
        seed: Which split or repetition: one seed stands for the same split of a task for every checkpoint.
        n_test: Test images behind it.
        embedding: `TaskEmbedding.digest` of the task, where a catalog keeps it.
        origin: ``run`` was measured by the user, ``card`` is what a stranger's card claims.
        endpoint: Address of the Hub that the card is on.

    Raises:
        SettingsError: A value cannot be one: an error in per cent, an empty id, a negative count.
    """

    task: str
    checkpoint: str
    error: float
    n: int | None = None
    seed: int | None = None
    n_test: int | None = None
    embedding: str | None = None
    origin: ResultOrigin = "run"
    endpoint: str | None = None

    def __post_init__(self) -> None:
        for name in _TEXTS:
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST:
                raise self._unusable(name, f"an id of 1 to {_LONGEST:,} characters")
            if not value.isprintable():  # no control characters, no lone surrogates
                raise self._unusable(name, "an id of printable characters")
        error: object = self.error
        is_number = isinstance(error, numbers.Real) and not isinstance(error, bool)
        if not is_number or not 0 <= self.error <= 1:
            raise self._unusable("error", "a share in [0, 1], 0.239 rather than 23.9")
        object.__setattr__(self, "error", float(self.error))
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is None:
                continue
            whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
            if not whole or not least <= value < 1 << 63:
                raise self._unusable(name, f"a whole number >= {least} (or None)")
            object.__setattr__(self, name, int(value))
        if self.embedding is not None and not is_digest(self.embedding):
            raise self._unusable("embedding", "the digest of a TaskEmbedding (or None)")
        if self.origin not in get_args(ResultOrigin):
            raise self._unusable("origin", " or ".join(map(repr, get_args(ResultOrigin))))
        if self.endpoint is not None and not isinstance(self.endpoint, str):
            raise self._unusable("endpoint", "an address as text (or None)")

    def _unusable(self, name: str, wanted: str) -> SettingsError:
        value = repr(getattr(self, name))
        shown = value if len(value) <= 100 else f"{value[:100]}…"
        return SettingsError(f"A result's {name} must be {wanted}, not {shown}.")

    @property
    def key(self) -> Key:
        """What it is of; of two results with the same, the newer one stays."""
        return self.task, self.checkpoint, self.n, self.seed, self.origin, self.endpoint


def in_order(results: Iterable[Result]) -> tuple[Result, ...]:
    """By task, checkpoint, n, seed, origin and endpoint; what is not known comes first."""

    def place(result: Result) -> tuple[str | float, ...]:
        return tuple((-math.inf if i in (2, 3) else "") if v is None else v for i, v in enumerate(result.key))

    return tuple(sorted(results, key=place))


def read_results(path: Path) -> dict[Key, Result]:
    """The results in a file, by their keys; none where there is no file.

    Raises:
        CatalogFileError: It cannot be read: damaged, of a newer version, or no file of results.
    """
    found: dict[Key, Result] = {}
    texts: dict[str, str] = {}  # equal ones are kept once: a small file can spell out a great many
    try:
        # Read as dictionaries, a text that a small file repeats a million times is in memory once.
        with pq.ParquetFile(
            str(path), page_checksum_verification=True, read_dictionary=_TEXT_COLUMNS
        ) as file:
            metadata = json.loads((file.schema_arrow.metadata or {}).get(_METADATA, b"null"))
            if not isinstance(metadata, Mapping) or metadata.get("format") != _FORMAT:
                format_ = metadata.get("format") if isinstance(metadata, Mapping) else None
                raise CatalogFileError(
                    f"{str(path)!r} has the format {format_!r}, not {_FORMAT!r}: it holds no results, or a "
                    f"newer t2v_hub wrote it. Check the file, or upgrade: pip install -U t2v-hub"
                )
            _check_size(file.metadata)
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=_SCHEMA.names):
                check_texts(batch)
                for row in batch.to_pylist():
                    values = [texts.setdefault(v, v) if isinstance(v, str) else v for v in row.values()]
                    result = Result(*values)  # type: ignore[arg-type]  # checked by it
                    found[result.key] = result
    except FileNotFoundError:
        return {}
    except CatalogFileError:
        raise
    except (*_DAMAGE, OSError) as error:
        raise CatalogFileError(
            f"The results {str(path)!r} cannot be read: {error}. Restore the file from a copy, or delete it "
            f"and record them again (the candidates beside it are still there)."
        ) from error
    return found


def write_results(path: Path, results: Iterable[Result]) -> None:
    """Write results to a file, whole or not at all; equal ones to equal bytes.

    Raises:
        StorageError: The disk is full, read-only or closed to us; ``path`` is as it was.
    """
    names = [item.name for item in fields(Result)]
    rows = [{name: getattr(result, name) for name in names} for result in in_order(results)]
    table = pa.Table.from_pylist(
        rows, schema=_SCHEMA.with_metadata({_METADATA: canonical_json({"format": _FORMAT})})
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    write_atomically(path, sink.getvalue().to_pybytes())


def _check_size(claims: pq.FileMetaData) -> None:
    """Return when a file of this size can be read; raises ValueError otherwise."""
    n_bytes = sum(claims.row_group(group).total_byte_size for group in range(claims.num_row_groups))
    if claims.num_rows > _MAX_ROWS or n_bytes > _MAX_BYTES:
        raise ValueError(
            f"it claims {claims.num_rows:,} rows of {n_bytes:,} bytes; at most {_MAX_ROWS:,} of "
            f"{_MAX_BYTES:,} are read"
        )


def check_texts(batch: pa.RecordBatch) -> None:
    """Return when no text is endless, before each row gets a copy; raises ValueError otherwise."""
    import pyarrow.compute as pc  # takes a while; only those who have results need it

    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        values = column.dictionary if isinstance(column, pa.DictionaryArray) else column
        is_text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
        if is_text and (pc.max(pc.binary_length(values)).as_py() or 0) > 4 * _LONGEST:  # bytes of UTF-8
            raise ValueError(f"a text of its column {name} is longer than {_LONGEST:,} characters")
