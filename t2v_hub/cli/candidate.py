"""A candidate on the command line: what its files say of it, and how it is shown."""

import math
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from t2v_hub.cli.measuring import absent
from t2v_hub.cli.output import Output, facts, number, share
from t2v_hub.errors import CheckpointError, ProbeNotFoundError, SettingsError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from t2v_hub.catalog import Candidate, Catalog, Library
    from t2v_hub.embedding import TaskEmbedding
    from t2v_hub.probe.files import ModelFiles

REPOSITORY = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
# What networks store beside their parameters: statistics of batch normalisation, and tables of positions.
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_TABLES = ("I64", "I32", "BOOL")


def identified(
    checkpoint: str, output: Output, *, library: "Library | None", parameters: int | None
) -> "tuple[str, Library | None, int | None]":
    """Id, library and number of parameters of a checkpoint; of a folder, read off its files.

    The id of a folder is its whole path, so that it loads from anywhere. A repository is not looked up.

    Raises:
        ProbeError: The folder is none of a network.
        CheckpointError: Its weights are no whole safetensors files; or there is no such folder, and the
            name is neither that of a repository nor one of timm's.
        SettingsError: The folder is of another library.
    """
    path = Path(checkpoint).expanduser()
    if path.exists():
        from t2v_hub.probe.files import find_model

        files = find_model(path)
        if library is not None and library != files.library:
            raise SettingsError(f"{checkpoint!r} is a {files.library} checkpoint, not one of {library}.")
        count = parameters if parameters is not None else n_parameters(files)
        return str(path.resolve()), files.library, count
    name = checkpoint.removeprefix("hf-hub:")
    wanted = "a folder with config.json and model.safetensors, a repository (org/name), or a name of timm's"
    if absent(name):
        raise CheckpointError(f"No such file or folder: {name!r}. Check the path; wanted {wanted}.")
    if not REPOSITORY.fullmatch(name):
        raise CheckpointError(f"{name!r} is no folder here and no name of a repository. Wanted {wanted}.")
    if "/" not in name:
        _check_timm_name(name, wanted)
        if library == "transformers":
            raise SettingsError(f"{name!r} is a timm checkpoint, not one of transformers.")
        return name, "timm", parameters
    output.note(f"{name} is no folder here; taken as a repository on the Hub, which is not looked up")
    return name, library, parameters


def _check_timm_name(name: str, wanted: str) -> None:
    from t2v_hub.probe.files import timm_repository  # only that room may know timm

    try:
        timm_repository(name)
    except ProbeNotFoundError as error:
        raise CheckpointError(
            f"{name!r} is no folder here and no network that timm has weights for. Wanted {wanted}."
        ) from error


def n_parameters(files: "ModelFiles") -> int:
    """How many parameters the safetensors files hold, by their headers; buffers beside them do not count.

    Raises:
        CheckpointError: A file is missing or no whole safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    weights = [files.weights]
    if not files.weights.exists():
        weights = sorted(files.folder.glob("model-*.safetensors"))
    total = 0
    for path in weights:
        try:
            with safe_open(path, framework="numpy") as file:
                for key in file.keys():  # noqa: SIM118
                    tensor = file.get_slice(key)
                    if not key.endswith(_STATISTICS) and tensor.get_dtype() not in _TABLES:
                        total += math.prod(tensor.get_shape())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{str(path)!r} is no whole safetensors file ({error}). Save the checkpoint again, or give "
                f"--parameters."
            ) from error
    return total


def found(catalog: "Catalog", id: str) -> str:
    """The id as the catalog has it: a folder may be given by any path to it."""
    if id not in catalog:
        for other in (str(Path(id).expanduser().resolve()), id.removeprefix("hf-hub:")):
            if other in catalog:
                return other
    return id


def counted(n: int) -> str:
    """So many candidates, in words."""
    return f"{n:,} candidate{'' if n == 1 else 's'}"


def values(candidate: "Candidate") -> dict[str, object]:
    """The candidate's facts as plain values, and of its embeddings what the catalog's index knows."""
    from t2v_hub.catalog.candidate import records_of

    plain = {item.name: getattr(candidate, item.name) for item in fields(candidate)}
    plain["embeddings"] = [
        {"task": record.task, "space": record.space, "digest": record.digest}
        for record in records_of(candidate.embeddings)
    ]
    return plain


def facts_table(candidate: "Candidate", *, known: bool = False) -> "RenderableType":
    """The facts of a candidate, all of them or only what is known."""
    from t2v_hub.catalog.candidate import records_of

    rows = [
        ("library", candidate.library),
        ("revision", candidate.revision),
        ("trained on", candidate.source),
        ("parameters", _whole(candidate.parameters)),
        ("licence", candidate.licence),
        ("upstream accuracy", _accuracy(candidate.upstream_accuracy)),
        ("downloads", _whole(candidate.downloads)),
        ("likes", _whole(candidate.likes)),
        ("gated", None if candidate.gated is None else "yes" if candidate.gated else "no"),
        ("embeddings", ", ".join(f"{r.task} (space {r.space})" for r in records_of(candidate.embeddings))),
    ]
    return facts([(name, value or "–") for name, value in rows if value or not known])


def list_table(catalog: "Catalog") -> "Table":
    """A row per candidate."""
    from rich.text import Text

    from t2v_hub.catalog.candidate import records_of

    table = _table(
        "candidate", "library", "trained on", "parameters>", "licence", "upstream accuracy>", "embeddings>"
    )
    for item in catalog:
        table.add_row(
            Text(item.id),
            item.library or "–",
            Text(item.source or "–"),
            _whole(item.parameters) or "–",
            Text(item.licence or "–"),
            _accuracy(item.upstream_accuracy) or "–",
            str(len(records_of(item.embeddings))),
        )
    return table


def embeddings_table(embeddings: "Sequence[TaskEmbedding]") -> "Table":
    """A row per embedding."""
    from rich.text import Text

    table = _table("task", "images>", "classes>", "norm>", "std. error>", "probe", "space")
    for item in embeddings:
        table.add_row(
            Text(item.task.id),
            f"{item.measurement.n_samples:,}",
            f"{item.task.n_classes:,}",
            number(item.norm, 4),
            share(item.standard_error),
            Text(item.space.probe),
            item.space.id,
        )
    return table


def _table(*columns: str) -> "Table":
    """A plain table; columns that end in ``>`` are set to the right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        right = name.endswith(">")
        table.add_column(name.rstrip(">"), justify="right" if right else "left", overflow="fold")
    return table


def _accuracy(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _whole(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"
