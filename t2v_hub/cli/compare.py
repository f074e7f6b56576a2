"""``t2v compare``: distances between embedding files."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from t2v_hub.cli import options as opt
from t2v_hub.cli.output import Output, number, reflowed, session

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.table import Table

    from t2v_hub.embedding import TaskEmbedding

_EXAMPLES = """[bold]Examples[/bold]

$ t2v compare birds.safetensors leaves.safetensors flowers.safetensors

$ t2v compare embeddings/*.safetensors --png distances.png"""
_MAX_ERRORS = 24  # tasks up to which standard errors are worked out: each pair takes 30 distances

AnyDistance = Literal[
    "symmetric",
    "asymmetric",
    "relative",
    "kl",
    "asymmetric_kl",
    "jsd",
    "entropy",
    "correlation",
    "normalized_cosine",
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare", help=reflowed(compare.__doc__), epilog=_EXAMPLES)(compare)


def compare(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Two or more embedding files of one space."),
    ],
    distance: Annotated[
        AnyDistance | None,
        typer.Option("--distance", show_default=False, help="Which distance. Default: symmetric."),
    ] = None,
    png: opt.Picture = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Compare tasks: the matrix of distances between embeddings.

    A row's task is the source, a column's the target; smaller is nearer. The standard error says how far a
    distance moves with another sample of both data sets (other images, head and drawn labels), so two
    distances that differ by less than about two of them cannot be told apart.
    """
    if len(files) < 2:
        raise typer.BadParameter("give at least two embedding files.", param_hint="'FILE'")
    with session(as_json=as_json, quiet=quiet) as output:
        from t2v_hub.distance import pairwise
        from t2v_hub.embedding import TaskEmbedding

        name = distance or "symmetric"
        embeddings = [TaskEmbedding.load(file) for file in files]
        matrix = pairwise(embeddings, name=name)
        errors = _standard_errors(embeddings, name) if len(files) <= _MAX_ERRORS else None
        names = _names(embeddings, files)
        values = {
            "distance": name,
            "space": embeddings[0].space.id,
            "probe": embeddings[0].space.probe,
            "names": names,
            "files": [str(file) for file in files],
            "matrix": matrix.tolist(),
            "standard_errors": None if errors is None else errors.tolist(),
            "picture": None if png is None else str(png),
        }
        if png is not None:
            from t2v_hub.plot import plot_distances

            plot_distances(matrix, png, names=names, name=name)
        text = [] if as_json else _text(output, embeddings[0], name, names, matrix, errors)
        if png is not None and not as_json:
            text.append(f"Picture written to {png}")
        output.result(values, *text)


def _standard_errors(embeddings: Sequence["TaskEmbedding"], name: AnyDistance) -> "NDArray[np.float64]":
    """Of each distance, ``(n, n)``; 0 on the diagonal, NaN where it is not known."""
    import numpy as np

    from t2v_hub.distance import distance_standard_error

    n = len(embeddings)
    errors = np.zeros((n, n))
    mirrored = name in ("symmetric", "kl", "jsd", "entropy", "correlation")
    with np.errstate(invalid="ignore"):  # a divergence may be infinite
        for i in range(n):
            for j in range(n):
                if i != j and not (mirrored and j < i):
                    errors[i, j] = distance_standard_error(embeddings[i], embeddings[j], name=name)
                    if mirrored:
                        errors[j, i] = errors[i, j]
    return errors


def _names(embeddings: Sequence["TaskEmbedding"], files: Sequence[Path]) -> list[str]:
    """The tasks' ids; beside them the split or the file where ids are equal."""
    names = [embedding.task.id for embedding in embeddings]
    for extra in ([embedding.task.split for embedding in embeddings], [file.name for file in files]):
        counts = Counter(names)
        told_apart = [
            f"{name} ({more})" if counts[name] > 1 and more else name
            for name, more in zip(names, extra, strict=True)
        ]
        if len(set(told_apart)) > len(counts):
            names = told_apart
    return names


def _text(
    output: Output,
    first: "TaskEmbedding",
    name: AnyDistance,
    names: Sequence[str],
    matrix: "NDArray[np.float64]",
    errors: "NDArray[np.float64] | None",
) -> "list[Table | str]":
    """The matrix as a table, with standard errors where they fit beside the distances."""
    n = len(names)
    heading = f"{name} distance, row to column; probe {first.space.probe}, space {first.space.id}"
    if errors is not None and not (errors > 0).any():
        errors = None
    if errors is not None:
        whole = _table(names, matrix, errors, range(n))
        if output.fits(whole):
            return [f"{heading}\n± is the standard error", "", whole]
        heading += "\nstandard errors do not fit the window; --json has them"
    text: list[Table | str] = [heading]
    start = 0
    while start < n:  # as many columns as fit, one table below the other
        stop = n
        while stop > start + 1 and not output.fits(_table(names, matrix, None, range(start, stop))):
            stop -= 1
        text += ["", _table(names, matrix, None, range(start, stop))]
        start = stop
    return text


def _table(
    names: Sequence[str],
    matrix: "NDArray[np.float64]",
    errors: "NDArray[np.float64] | None",
    columns: range,
) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", justify="right", style="dim")
    table.add_column("task", overflow="fold")
    for place in columns:
        table.add_column(str(place + 1), justify="right", no_wrap=True)
    for row, task in enumerate(names):
        cells = [
            "·" if row == column and matrix[row, column] == 0 else _cell(matrix, errors, row, column)
            for column in columns
        ]
        table.add_row(str(row + 1), Text(task), *cells)
    return table


def _cell(matrix: "NDArray[np.float64]", errors: "NDArray[np.float64] | None", row: int, column: int) -> str:
    value = float(matrix[row, column])
    text = f"{value:.3f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else number(value)
    if errors is None or row == column:
        return text
    error = float(errors[row, column])
    return f"{text} ± {error:.3f}" if 5e-4 <= error < 1e4 else f"{text} ± {number(error, 1)}"
