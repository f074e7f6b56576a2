"""Safetensors files, whoever wrote them, read whole or refused with a reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from t2v_hub.errors import EmbeddingFileError, StorageError


def read_tensors(
    path: Path, *, most_bytes: int, absent: str, broken: Callable[[Path, str], EmbeddingFileError]
) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """Metadata and tensors of a file.

    Args:
        path: The file.
        most_bytes: A file that is larger is not read into memory.
        absent: What to say where there is none.
        broken: Makes the error for one that cannot be used, of the path and the reason.

    Raises:
        EmbeddingFileError: There is none, or it cannot be used.
        StorageError: It cannot be opened.
    """
    try:
        if path.stat().st_size > most_bytes:
            raise broken(path, f"it is larger than {_size(most_bytes)}")
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise EmbeddingFileError(absent) from error
    except SafetensorError as error:
        raise broken(path, f"it is no whole safetensors file ({error})") from error
    except (TypeError, AttributeError) as error:  # a tensor of a type that numpy does not have
        raise broken(path, f"it holds tensors of another type ({error})") from error
    except OSError as error:
        raise StorageError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from error


def _size(n_bytes: int) -> str:
    return f"{n_bytes >> 30} GiB" if n_bytes >= 1 << 30 else f"{n_bytes >> 20} MiB"
