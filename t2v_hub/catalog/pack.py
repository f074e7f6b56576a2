"""`Pack`: embeddings that were read from cards, many in one file, their vectors memory-mapped.

::

    cards/<key>.npy       distinct vectors, float16, one per row
    cards/<key>.parquet   one row per embedding: which vector, its scale and power, its record
    cards/<key>.*-terms   what distances by that name take from the vectors alone, made when first needed

A pack's first two files never change. They are written before the index that names them and deleted after the
index that no longer does.
"""

import contextlib
import functools
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from t2v_hub.card import CardEntry
from t2v_hub.catalog.matrix import Matrix
from t2v_hub.embedding import HalfVector, Measurement, Space, TaskEmbedding, TaskInfo, canonical_json
from t2v_hub.embedding.half import POWERS
from t2v_hub.errors import EmbeddingError, EmbeddingFileError
from t2v_hub.storage import touch, write_atomically

T = TypeVar("T", np.float64, np.int64)

_FORMAT = "t2v-pack/1"
_METADATA = b"t2v_pack"
_KEY = re.compile("[0-9a-f]{32}")
_SCHEMA = pa.schema(
    [
        pa.field("digest", pa.string(), nullable=False),
        pa.field("vector", pa.int64(), nullable=False),
        pa.field("scale", pa.float64(), nullable=False),
        pa.field("power", pa.int64(), nullable=False),
        pa.field("prior", pa.binary(), nullable=False),
        pa.field("record", pa.string(), nullable=False),
    ]
)
_DAMAGE = (pa.ArrowException, OSError, KeyError, TypeError, ValueError, RecursionError)


@dataclass(frozen=True, eq=False)
class Pack:
    """Embeddings of one space from cards.

    Attributes:
        space: Their space.
        values: ``(n_vectors, n_filters)`` float16.
        table: A row per embedding.
        path: The table's file.
    """

    space: Space
    values: NDArray[np.float16]
    table: pa.Table
    path: Path

    def __len__(self) -> int:
        return len(self.digests)

    @functools.cached_property
    def digests(self) -> tuple[str, ...]:
        """`TaskEmbedding.digest` of each."""
        return tuple(self.table["digest"].to_pylist())

    @functools.cached_property
    def places(self) -> dict[str, int]:
        """The row of each digest."""
        return {digest: row for row, digest in enumerate(self.digests)}

    def entry(self, digest: str) -> tuple[TaskEmbedding, HalfVector]:
        """The embedding of that digest, and its vector as the card had it.

        Raises:
            EmbeddingFileError: It is not there, or damaged.
        """
        try:
            row = self.table.slice(self.places[digest], 1).to_pylist()[0]
            half = HalfVector(np.array(self.values[row["vector"]]), row["scale"], row["power"])
            record = json.loads(row["record"])
            embedding = TaskEmbedding(
                half.decode().astype(np.float32),
                np.frombuffer(row["prior"], "<f4").astype(np.float32),
                self.space,
                TaskInfo.from_dict(record["task"]),
                Measurement.from_dict(record["measurement"]),
            )
        except (*_DAMAGE, EmbeddingError) as error:
            raise EmbeddingFileError(
                f"The embedding {digest[:19]}… from a card cannot be read ({error}). Read the cards again: "
                f"`t2v catalog sync --again`."
            ) from error
        if embedding.digest != digest:
            raise EmbeddingFileError(
                f"The embedding {digest[:19]}… from a card was changed on this disk. Read the cards again: "
                f"`t2v catalog sync --again`."
            )
        return embedding, half

    def matrix(self) -> Matrix:
        """Its vectors, a row per embedding."""
        return Matrix(
            digests=self.digests,
            values=self.values,
            scale=_numbers(self.table, "scale", np.float64),
            power=_numbers(self.table, "power", np.int64),
            damaged={},
            rows=_numbers(self.table, "vector", np.int64),
            beside=self.path,
        )


def write_pack(folder: Path, space: Space, entries: Sequence[CardEntry]) -> str:
    """Key of a new pack of these embeddings, which are of that space; equal ones are kept once.

    Raises:
        StorageError: The disk is full, read-only or closed to us.
    """
    vectors: dict[bytes, int] = {}
    values: list[NDArray[np.float16]] = []
    rows: list[dict[str, object]] = []
    named = hashlib.sha256()  # equal keys mean equal bytes, whatever order the cards came in
    for digest, entry in sorted({entry.embedding.digest: entry for entry in entries}.items()):
        embedding, half = entry.embedding, entry.half
        content = hashlib.sha256(half.values.tobytes()).digest()
        named.update(f"{digest}{content.hex()}{half.scale!r}{half.power}".encode())
        if content not in vectors:
            vectors[content] = len(values)
            values.append(half.values)
        record = {"task": embedding.task.to_dict(), "measurement": embedding.measurement.to_dict()}
        rows.append(
            {
                "digest": digest,
                "vector": vectors[content],
                "scale": half.scale,
                "power": half.power,
                "prior": embedding.prior.astype("<f4").tobytes(),
                "record": canonical_json(record).decode(),
            }
        )
    key = named.hexdigest()[:32]
    metadata = {_METADATA: canonical_json({"format": _FORMAT, "space": space.to_dict()})}
    table = pa.Table.from_pylist(rows, schema=_SCHEMA.with_metadata(metadata))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)

    def write_values(file: BinaryIO) -> None:
        header = {"descr": "<f2", "fortran_order": False, "shape": (len(values), space.n_filters)}
        np.lib.format.write_array_header_1_0(file, header)
        for row in values:
            file.write(row.astype("<f2").tobytes())

    write_atomically(folder / f"{key}.npy", write_values)
    write_atomically(folder / f"{key}.parquet", sink.getvalue().to_pybytes())
    return key


def copy_pack(source: Path, folder: Path, key: str) -> None:
    """Take a pack into another folder, unless it is there and can be read.

    Raises:
        EmbeddingFileError: It is missing or damaged.
        StorageError: The disk is full, read-only or closed to us.
    """
    with contextlib.suppress(EmbeddingFileError):
        found = open_pack(folder, key).path
        for suffix in (".npy", ".parquet"):  # nobody may have named it for long
            touch(found.with_suffix(suffix))
        return
    path = open_pack(source, key).path
    for suffix in (".npy", ".parquet"):
        try:
            original = path.with_suffix(suffix).open("rb")
        except OSError as error:
            raise EmbeddingFileError(f"{str(path)!r} cannot be read any more ({error}).") from error
        with original:
            write_atomically(folder / f"{key}{suffix}", functools.partial(shutil.copyfileobj, original))


def open_pack(folder: Path, key: str) -> Pack:
    """The pack of that key.

    Raises:
        EmbeddingFileError: It is missing or damaged.
    """
    path = folder / f"{key}.parquet"
    try:
        if not _KEY.fullmatch(key):  # as part of a path it could lead anywhere
            raise ValueError("its name is none of a pack")
        states = [file.stat() for file in (path, path.with_suffix(".npy"))]
        return _read_pack(path, tuple((state.st_mtime_ns, state.st_size) for state in states))
    except _DAMAGE as error:
        raise EmbeddingFileError(
            f"{str(path)!r}, embeddings that were read from cards, cannot be read ({error}). Read the cards "
            f"again: `t2v catalog sync --again`."
        ) from error


def delete_packs(folder: Path, *, keep: set[str], older_than_s: float) -> None:
    """Delete the packs of other keys, and what killed writers left half written, where they are that old."""
    for path in _files(folder):
        if path.name.startswith(".") or path.stem not in keep:
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > older_than_s:
                    path.unlink()


def _files(folder: Path) -> Iterator[Path]:
    for pattern in ("*.npy", "*.parquet", "*-terms", ".*.tmp"):
        yield from folder.glob(pattern)


@functools.lru_cache(maxsize=64)
def _read_pack(path: Path, states: tuple[tuple[int, int], ...]) -> Pack:
    """The pack in files of these times and sizes: when they change, it is another one."""
    with pq.ParquetFile(str(path), page_checksum_verification=True) as file:
        table = file.read()
    metadata = json.loads((table.schema.metadata or {})[_METADATA])
    if metadata["format"] != _FORMAT:
        raise ValueError(f"its format is {metadata['format']!r}, not {_FORMAT!r}")
    space = Space.from_dict(metadata["space"])
    values = np.load(path.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
    rows = _numbers(table, "vector", np.int64)
    if values.dtype != np.float16 or values.ndim != 2 or values.shape[1] != space.n_filters:
        raise ValueError("its vectors have another shape than its space")
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(values):
        raise ValueError("it names vectors that it does not hold")
    if not np.isin(_numbers(table, "power", np.int64), POWERS).all():
        raise ValueError("it holds powers that do not exist")
    return Pack(space, values, table, path)


def _numbers(table: pa.Table, name: str, dtype: type[T]) -> NDArray[T]:
    """A column as an array, not by way of pyarrow's own conversion, which imports pandas (0.3 s)."""
    return np.array(table[name].to_pylist(), dtype)
