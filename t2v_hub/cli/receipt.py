"""What `t2v embed` says of the embeddings that it wrote."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2v_hub.cli.flags import in_flags
from t2v_hub.cli.measuring import summary
from t2v_hub.cli.output import Output, facts, number, share
from t2v_hub.errors import T2VError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from t2v_hub.embedding import TaskEmbedding


@dataclass(frozen=True)
class Written:
    """An embedding that was written.

    Attributes:
        embedding: The embedding.
        image_column: Column that the images came from, where the data has columns.
        path: Where it was written.
        seconds: How long measuring took.
    """

    embedding: "TaskEmbedding"
    image_column: str | None
    path: Path
    seconds: float


def report(output: Output, done: list[Written], failures: dict[str, T2VError]) -> None:
    """Print what was written, and name what failed."""
    values = {
        "embeddings": [
            {
                **summary(item.embedding),
                "image_column": item.image_column,
                "seconds": round(item.seconds, 3),
                "file": str(item.path),
            }
            for item in done
        ],
        "failures": [
            {"data": source, "type": type(error).__name__, "message": in_flags(str(error))}
            for source, error in failures.items()
        ],
    }
    text: list[Any] = []
    if len(done) == 1 and not failures:
        text.append(_single(done[0]))
    elif done:
        text.append(_table(done))
    output.result(values, *text)
    if failures:
        total = len(done) + len(failures)
        output.fail(f"{len(failures)} of {total} data sets could not be embedded: {', '.join(failures)}.")


def _single(item: Written) -> "RenderableType":
    task, how, space = item.embedding.task, item.embedding.measurement, item.embedding.space
    several = ", several per image" if task.multi_label else ""
    skipped = f", {how.n_skipped:,} left out as unreadable" if how.n_skipped else ""
    where = ", ".join(part for part in (task.config, task.split) if part)
    rows = [
        ("task", task.id + (f" ({where})" if where else "")),
        ("columns", _columns(item)),
        ("images", f"{how.n_samples:,} of {task.n_samples:,} measured{skipped}"),
        ("classes", f"{task.n_classes:,}{several}"),
        ("probe", f"{space.probe}, {space.n_filters:,} filters"),
        ("space", space.id),
        ("norm", f"{number(item.embedding.norm, 4)} nats²"),
        ("standard error", f"{share(how.standard_error)} (median filter {share(how.median_standard_error)})"),
        ("seconds", f"{item.seconds:.1f}"),
        ("written to", str(item.path)),
    ]
    return facts([(name, value) for name, value in rows if value])


def _columns(item: Written) -> str | None:
    label = item.embedding.task.label_column
    if item.image_column is None or label is None:
        return None
    return f"images from {item.image_column}, labels from {label}"


def _table(done: list[Written]) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    space = done[0].embedding.space
    table = Table(
        box=None, pad_edge=False, header_style="bold", title=f"probe {space.probe}, space {space.id}"
    )
    table.title_justify = "left"
    table.title_style = "dim"
    words = ("task", "split", "labels from", "written to")
    for name in (*words[:3], "images", "classes", "norm", "std. error", "seconds", "written to"):
        right = name not in words
        table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=right)
    for item in done:
        embedding = item.embedding
        table.add_row(
            Text(embedding.task.id),
            Text(embedding.task.split or "–"),
            Text(embedding.task.label_column or "–"),
            f"{embedding.measurement.n_samples:,}",
            f"{embedding.task.n_classes:,}",
            number(embedding.norm, 4),
            share(embedding.standard_error),
            f"{item.seconds:.1f}",
            Text(str(item.path)),
        )
    return table
