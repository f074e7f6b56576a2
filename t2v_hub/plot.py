"""Pictures of distances and of rankings; drawn without any screen and without global state."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from t2v_hub.distance import DistanceName, pairwise
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import SettingsError
from t2v_hub.selector import Ranking
from t2v_hub.selector.comparison import Z95
from t2v_hub.selector.words import common_folder, first_of_ties
from t2v_hub.storage import write_atomically

_MAX_NUMBERS = 16  # tasks up to which each cell shows its distance
_MAX_NAME = 40  # letters of a name
_MAX_BARS = 40
_FORMATS = ("png", "pdf", "svg")
_ALONE = "#4c566a"  # a candidate that is tied with no other


def plot_distances(
    distances: Sequence[TaskEmbedding] | NDArray[np.float64],
    path: Path | str | None = None,
    *,
    names: Sequence[str] | None = None,
    name: DistanceName | None = None,
) -> Figure:
    """Matrix of distances between tasks, near ones side by side (average linkage).

    Args:
        distances: Embeddings of one space, or a matrix ``(n, n)`` whose entry ``[i, j]`` is the
            distance from task ``i`` to task ``j``.
        path: Where to save the picture: ``.png``, ``.pdf`` or ``.svg``.
        names: Of the tasks; by default the ids of the embeddings' tasks.
        name: Which distance: to work out for embeddings (``symmetric`` by default), or to write
            above a matrix and beside its colours.

    Raises:
        EmbeddingMismatchError: Not all embeddings are of one space.
        SettingsError: The matrix is not square or not finite, or names do not fit it.
        StorageError: The picture cannot be written.
    """
    _check_format(path)
    if isinstance(distances, np.ndarray):
        matrix = np.asarray(distances, np.float64)
        if names is None:
            names = [str(number + 1) for number in range(len(matrix))]
    else:
        name = name or "symmetric"
        matrix = pairwise(distances, name=name)
        if names is None:
            names = [embedding.task.id for embedding in distances]
    _check(matrix, names)
    order = _clustered(matrix)
    matrix = matrix[np.ix_(order, order)]
    labels = [_short(names[index]) for index in order]

    n = len(matrix)
    cell = 0.55 if n <= _MAX_NUMBERS else max(0.12, 9.0 / n)
    margin = 0.8 + 0.075 * max(map(len, labels))
    side, width, height = n * cell, n * cell + margin + 1.0, n * cell + margin + 0.5
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
    apart = ~np.eye(n, dtype=bool)
    # From 0, so that a colour means a size; the diagonal says nothing, and an asymmetric one is below 0.
    drawn = matrix[apart] if n > 1 else np.ones(1)
    limits = (min(0.0, float(drawn.min())), max(1e-9, float(drawn.max())))
    colours = colormaps["viridis_r"].with_extremes(bad="#eeeeee")
    image = axes.imshow(np.where(apart, matrix, np.nan), cmap=colours, vmin=limits[0], vmax=limits[1])
    font = float(np.clip(cell * 60, 4, 9))
    turn = 45 if n <= _MAX_NUMBERS else 90
    axes.set_xticks(range(n), labels, fontsize=font)
    for label in axes.get_xticklabels():
        label.set(rotation=turn, ha="right", va="center" if turn == 90 else "top", rotation_mode="anchor")
    axes.set_yticks(range(n), labels, fontsize=font)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if not np.allclose(matrix, matrix.T):
        axes.set_xlabel("to (target)", fontsize=9)
        axes.set_ylabel("from (source)", fontsize=9)
    heading = f"{name or ''} distance".strip()
    axes.set_title(heading.capitalize(), fontsize=10, loc="left")
    bar = figure.colorbar(image, cax=axes.inset_axes((1 + 0.15 / side, 0, 0.15 / side, 1)))
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=2)
    bar.set_label(heading, fontsize=9)
    if n <= _MAX_NUMBERS:
        _write_numbers(axes, matrix, limits)
    _save(figure, path)
    return figure


def plot_ranking(ranking: Ranking, path: Path | str | None = None) -> Figure:
    """Distances of a ranking's candidates with 95 % intervals; each tie group has its colour.

    Where all names begin with one folder or organisation, the title says it once. Candidates without a
    distance are left out, and so are those after the first 40.

    Args:
        ranking: The ranking.
        path: Where to save the picture: ``.png``, ``.pdf`` or ``.svg``.

    Raises:
        SettingsError: No candidate has a distance.
        StorageError: The picture cannot be written.
    """
    _check_format(path)
    items = [item for item in ranking if item.distance is not None and np.isfinite(item.distance)]
    if not items:
        raise SettingsError(
            f"There is no distance to draw: none of the {len(ranking)} ranked candidates has an embedding in "
            f"space {ranking.space.id}."
        )
    left_out = len(ranking) - len(items[:_MAX_BARS])
    items = items[:_MAX_BARS]
    folder = common_folder(item.candidate.id for item in items)
    labels = [f"{item.rank}  {_short(item.candidate.id.removeprefix(folder))}" for item in items]
    palette = colormaps["Dark2"].colors  # type: ignore[attr-defined]  # a listed colour map
    tied = sorted({item.tie_group for item in items if len(item.tied) > 1})
    colour_of = {group: palette[number % len(palette)] for number, group in enumerate(tied)}

    width = 4.6 + 0.075 * max(map(len, labels))
    figure = Figure(figsize=(width, 0.28 * len(items) + 0.18 * min(8, len(tied)) + 1.5), layout="constrained")
    axes = figure.add_subplot()
    drawn: set[int] = set()
    for place, item in enumerate(items):
        assert item.distance is not None
        colour = colour_of.get(item.tie_group, _ALONE)
        label = None
        if item.tie_group in colour_of and item.tie_group not in drawn:
            drawn.add(item.tie_group)
            label = f"≈{first_of_ties(item)}: cannot be told apart from number {first_of_ties(item)}"
        axes.errorbar(
            item.distance,
            place,
            xerr=None if item.standard_error is None else Z95 * item.standard_error,
            fmt="o",
            color=colour,
            markersize=5,
            capsize=2.5,
            linewidth=1.3,
            label=label,
        )
    axes.set_yticks(range(len(items)), labels, fontsize=8)
    axes.set_ylim(len(items) - 0.5, -0.5)
    axes.margins(x=0.06)
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    more = f"; {left_out} more not shown" if left_out else ""
    axes.set_xlabel(f"{ranking.distance} distance, with 95 % interval{more}", fontsize=9)
    first = "best" if ranking.n_loaded else "nearest"
    title = f"Candidates for {_short(ranking.task.id)}; {first} on top"
    cut = f"\nnames without {_short(folder)}" if folder else ""
    axes.set_title(title + cut, fontsize=10, loc="left")
    if 0 < len(drawn) <= 8:
        figure.legend(loc="outside lower left", fontsize=8, frameon=False)
    _save(figure, path)
    return figure


def _check(matrix: NDArray[np.float64], names: Sequence[str]) -> None:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) == 0:
        raise SettingsError(f"A matrix of distances must be square, (n, n) with n >= 1; got {matrix.shape}.")
    if len(names) != len(matrix):
        raise SettingsError(f"{len(names)} names for {len(matrix)} tasks; give one name per task.")
    if not np.isfinite(matrix).all():
        bad = int((~np.isfinite(matrix)).sum())
        raise SettingsError(
            f"{bad} of the distances are infinite or NaN, which no colour shows; choose another distance, "
            f"such as 'symmetric'."
        )


def _clustered(matrix: NDArray[np.float64]) -> NDArray[np.int64]:
    """Order of the rows such that near tasks stand side by side."""
    n = len(matrix)
    if n < 3:
        return np.arange(n)
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    mean = (matrix + matrix.T) / 2  # an asymmetric distance may be negative; linkage wants >= 0
    mean = mean - min(0.0, float(mean.min()))
    np.fill_diagonal(mean, 0.0)
    condensed = squareform(mean, checks=False)
    order: NDArray[np.int64] = leaves_list(optimal_leaf_ordering(linkage(condensed, "average"), condensed))
    return order


def _write_numbers(axes: Axes, matrix: NDArray[np.float64], limits: tuple[float, float]) -> None:
    low, high = limits
    digits = 2 if high >= 0.1 else 3
    for row in range(len(matrix)):
        for column in range(len(matrix)):
            value = matrix[row, column]
            dark = high > low and (value - low) / (high - low) > 0.5 and row != column
            axes.text(
                column,
                row,
                f"{value:.{digits}f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "#222222",
            )


def _short(name: str) -> str:
    """The name with its middle left out where it is long: both ends tell names apart."""
    if len(name) <= _MAX_NAME:
        return name
    half = (_MAX_NAME - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def _check_format(path: Path | str | None) -> None:
    if path is not None and Path(path).suffix.lower().lstrip(".") not in _FORMATS:
        known = ", ".join(f".{ending}" for ending in _FORMATS)
        raise SettingsError(f"Cannot tell what kind of picture {str(path)!r} is to be; end it in {known}.")


def _save(figure: Figure, path: Path | str | None) -> None:
    if path is not None:
        kind = Path(path).suffix.lower().lstrip(".")
        write_atomically(path, lambda file: figure.savefig(file, format=kind, dpi=150, bbox_inches="tight"))
