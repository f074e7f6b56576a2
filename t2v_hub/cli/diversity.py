"""``t2v diversity``: how far apart the tasks of a collection lie, and how alike they are."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from t2v_hub.cli import options as opt
from t2v_hub.cli.compare import AnyDistance
from t2v_hub.cli.output import Output, number, reflowed, session
from t2v_hub.errors import DataNotFoundError, EmbeddingFileError, StorageError

if TYPE_CHECKING:
    from rich.table import Table

    from t2v_hub.diagnostics import CrossDiversity, Diversity, Readiness
    from t2v_hub.embedding import TaskEmbedding

_EXAMPLES = """[bold]Examples[/bold]

$ t2v diversity episodes/

$ t2v diversity birds/*.safetensors --against leaves/*.safetensors"""


class _Against(TyperCommand):
    """Lets ``--against`` take all that follows it, up to the next option, as a shell's pattern needs."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # typer brings its own click, or not
        """The arguments that are left over, as in click."""
        spread: list[str] = []
        taking = False
        for place, word in enumerate(args):
            if word == "--":
                spread += args[place:]
                break
            if taking and not word.startswith("-"):
                if spread[-1] != "--against":
                    spread.append("--against")
                spread.append(word)
                continue
            taking = word == "--against"
            spread.append(word)
        return super().parse_args(ctx, spread)


@dataclass(frozen=True)
class Collection:
    """Embeddings that were given together.

    Attributes:
        paths: What was given.
        files: The files they came from.
        embeddings: They themselves.
        skipped: Files in folders that could not be read, and why.
    """

    paths: tuple[Path, ...]
    files: tuple[Path, ...]
    embeddings: tuple["TaskEmbedding", ...]
    skipped: tuple[str, ...]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("diversity", cls=_Against, help=reflowed(diversity.__doc__), epilog=_EXAMPLES)(diversity)


def diversity(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE|DIR", help="Embedding files of one space, or folders of them."),
    ],
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against",
            metavar="FILE|DIR",
            show_default=False,
            help="Another collection; takes all that follows. Default: none.",
        ),
    ] = None,
    distance: Annotated[
        AnyDistance | None,
        typer.Option("--distance", show_default=False, help="Which distance. Default: symmetric."),
    ] = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Tell how diverse tasks are: the mean distance between two of them.

    The interval holds the mean of the population that the tasks were drawn from 95 times in 100; it knows
    that pairs share tasks, and that tasks are few. Beside it, how alike the Fisher vectors are: cohesion, the
    mean cosine of two; dispersion, how far they lie from their mean, per filter; density, the mean of a
    Gaussian kernel as wide as the median distance from the mean.
    """
    with session(as_json=as_json, quiet=quiet) as output:
        from t2v_hub import diagnostics

        name = distance or "symmetric"
        given = [files, *([against] if against else [])]
        collections = [_collection(paths, output) for paths in given]
        # Of a single task there is no pair, but it may lie near to or far from others.
        alone = [against is not None and len(item.embeddings) < 2 for item in collections]
        apart = [
            None if single else diagnostics.diversity(item.embeddings, distance=name)
            for item, single in zip(collections, alone, strict=True)
        ]
        alike = [
            None if single else diagnostics.readiness(item.embeddings)
            for item, single in zip(collections, alone, strict=True)
        ]
        cross = None
        if len(collections) == 2:
            first, second = (item.embeddings for item in collections)
            cross = diagnostics.cross_diversity(first, second, distance=name)
        space = collections[0].embeddings[0].space
        values = {
            "distance": name,
            "space": space.id,
            "probe": space.probe,
            "collections": [
                {
                    "files": [str(file) for file in item.files],
                    "names": [embedding.task.id for embedding in item.embeddings],
                    "diversity": None if mean is None else asdict(mean),
                    "readiness": None if ready is None else asdict(ready),
                    "skipped": list(item.skipped),
                }
                for item, mean, ready in zip(collections, apart, alike, strict=True)
            ],
            "cross_diversity": None if cross is None else asdict(cross),
        }
        heading = f"{name} distance; probe {space.probe}, space {space.id}"
        if as_json:
            output.result(values)
        else:
            output.result(values, heading, *_legend(collections), "", _table(apart, alike, cross))


def _collection(paths: Sequence[Path], output: Output) -> Collection:
    """The embeddings of files, which must all be readable, and of folders, which may hold other files."""
    from t2v_hub.embedding import TaskEmbedding

    files: list[Path] = []
    embeddings: list[TaskEmbedding] = []
    skipped: list[str] = []
    for path in paths:
        if not path.is_dir():
            embeddings.append(TaskEmbedding.load(path))
            files.append(path)
            continue
        n_before = len(files)
        for file in sorted(path.glob("*.safetensors")):
            try:
                embeddings.append(TaskEmbedding.load(file))
            except (EmbeddingFileError, StorageError) as error:
                skipped.append(str(error))
                output.warn(f"left out: {error}")
            else:
                files.append(file)
        if len(files) == n_before:
            raise DataNotFoundError(
                f"There is no embedding in the folder {str(path)!r}, which should hold .safetensors files "
                f"that `t2v embed` wrote."
            )
    return Collection(tuple(paths), tuple(files), tuple(embeddings), tuple(skipped))


def _legend(collections: Sequence[Collection]) -> list[str]:
    lines = []
    for letter, item in zip("AB", collections, strict=False):
        of = f" ({item.paths[0]})" if len(item.paths) == 1 else ""
        label = f"{letter}: " if len(collections) > 1 else ""
        left_out = f", {len(item.skipped)} left out" if item.skipped else ""
        n = len(item.embeddings)
        lines.append(f"{label}{n} task{'s' if n > 1 else ''}{of}{left_out}")
    return lines


def _table(
    apart: Sequence["Diversity | None"],
    alike: Sequence["Readiness | None"],
    cross: "CrossDiversity | None",
) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for heading in ("value", "standard error", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    letters = ["A", "B"] if len(apart) > 1 else [""]
    for letter, mean in zip(letters, apart, strict=True):
        table.add_row(f"diversity {letter}".rstrip(), *_cells(mean))
    if cross is not None:
        table.add_row("cross-diversity", *_cells(cross))
    for quantity in ("cohesion", "dispersion", "density"):
        for letter, ready in zip(letters, alike, strict=True):
            value = None if ready is None else getattr(ready, quantity)
            table.add_row(f"{quantity} {letter}".rstrip(), number(value), "", "")
    return table


def _cells(mean: "Diversity | CrossDiversity | None") -> tuple[str, str, str]:
    if mean is None:
        return "–", "–", "–"
    if mean.standard_error is None or mean.interval is None:
        return f"{mean.value:.3f}", "–", "–"
    low, high = mean.interval
    return f"{mean.value:.3f}", f"{mean.standard_error:.3f}", f"{low:.3f} to {high:.3f}"
