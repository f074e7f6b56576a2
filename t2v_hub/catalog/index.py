"""The catalog's table of candidates as a parquet file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from t2v_hub.catalog.candidate import Candidate, EmbeddingRecord, StoredEmbeddings, records_of
from t2v_hub.embedding import Space, canonical_json
from t2v_hub.errors import CatalogFileError
from t2v_hub.storage import write_atomically

_FORMAT = "t2v-catalog/1"
_METADATA = b"t2v_catalog"
_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("revision", pa.string()),
        pa.field("library", pa.string()),
        pa.field("source", pa.string()),
        pa.field("parameters", pa.int64()),
        pa.field("licence", pa.string()),
        pa.field("downloads", pa.int64()),
        pa.field("likes", pa.int64()),
        pa.field("gated", pa.bool_()),
        pa.field("upstream_accuracy", pa.float64()),
        pa.field("local", pa.bool_()),
        pa.field(
            "embeddings",
            pa.list_(
                pa.struct(
                    {
                        "digest": pa.string(),
                        "space": pa.string(),
                        "task": pa.string(),
                        "distance_standard_error": pa.float64(),
                        "pack": pa.string(),
                        "endpoint": pa.string(),
                        "config": pa.string(),
                        "split": pa.string(),
                    }
                )
            ),
            nullable=False,
        ),
    ]
)
_DAMAGE = (pa.ArrowException, KeyError, TypeError, ValueError, AttributeError, RecursionError)
_FACTS = tuple(item.name for item in fields(Candidate) if item.name != "embeddings")


@dataclass
class Index:
    """What a catalog holds.

    Attributes:
        candidates: By id.
        spaces: Of their embeddings, by id.
        local: Ids of the candidates that were added here; the others are there for their cards alone.
    """

    candidates: dict[str, Candidate] = field(default_factory=dict)
    spaces: dict[str, Space] = field(default_factory=dict)
    local: set[str] = field(default_factory=set)


def read_index(path: Path, embeddings: Path) -> Index:
    """The index in a file; an empty one where there is no file.

    Args:
        path: The file.
        embeddings: Folder of the embeddings that it names.

    Raises:
        CatalogFileError: It cannot be read: damaged, of a newer version, or no catalog.
    """
    try:
        with pq.ParquetFile(str(path), page_checksum_verification=True) as file:
            metadata = json.loads((file.schema_arrow.metadata or {}).get(_METADATA, b"null"))
            if not isinstance(metadata, Mapping) or metadata.get("format") != _FORMAT:
                found = metadata.get("format") if isinstance(metadata, Mapping) else None
                raise CatalogFileError(
                    f"{str(path)!r} has the format {found!r}, not {_FORMAT!r}: it is no catalog, or a newer "
                    f"t2v_hub wrote it. Check the path, or upgrade: pip install -U t2v-hub"
                )
            rows = file.read().to_pylist()
        spaces = {id: Space.from_dict(values) for id, values in metadata["spaces"].items()}
        if any(space.id != id for id, space in spaces.items()):
            raise ValueError("a space is not the one its id says")
        candidates = {row["id"]: _candidate(row, embeddings, spaces) for row in rows}
    except FileNotFoundError:
        return Index()
    except CatalogFileError:
        raise
    except (*_DAMAGE, OSError) as error:
        raise CatalogFileError(
            f"The catalog {str(path)!r} cannot be read: {error}. Restore the file from a copy, or delete it "
            f"and add the candidates again (the embeddings beside it are still there)."
        ) from error
    return Index(candidates, spaces, {row["id"] for row in rows if row.get("local") is not False})


def write_index(path: Path, index: Index) -> None:
    """Write the index to a file, whole or not at all.

    Raises:
        StorageError: The disk is full, read-only or closed to us; ``path`` is as it was.
    """
    rows = [
        {
            **{name: getattr(candidate, name) for name in _FACTS},
            "local": candidate.id in index.local,
            "embeddings": [record._asdict() for record in records_of(candidate.embeddings)],
        }
        for candidate in index.candidates.values()
    ]
    spaces = {id: space.to_dict() for id, space in sorted(index.spaces.items())}
    metadata = {_METADATA: canonical_json({"format": _FORMAT, "spaces": spaces})}
    table = pa.Table.from_pylist(rows, schema=_SCHEMA.with_metadata(metadata))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    write_atomically(path, sink.getvalue().to_pybytes())


def _candidate(row: Mapping[str, object], folder: Path, spaces: Mapping[str, Space]) -> Candidate:
    listed = row["embeddings"]
    if not isinstance(listed, list):
        raise TypeError("embeddings must be a list")
    records = [EmbeddingRecord(**item) for item in listed]
    for record in records:
        if record.space not in spaces:
            raise ValueError(
                f"candidate {row['id']!r} has an embedding of the unknown space {record.space!r}"
            )
        _ = record.file_name  # raises where the digest is none
    facts = {name: row[name] for name in _FACTS}
    return Candidate(**facts, embeddings=StoredEmbeddings(folder, records))  # type: ignore[arg-type]  # checked by it
