"""``t2v catalog results``: errors that checkpoints reached on tasks, listed or removed."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from t2v_hub.cli import options as opt
from t2v_hub.cli.candidate import found
from t2v_hub.cli.output import reflowed, session
from t2v_hub.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from t2v_hub.catalog import Catalog, Result

OriginName = Literal["run", "card", "all"]
_EXAMPLES = """[bold]Examples[/bold]

$ t2v catalog results --task pets

$ t2v catalog results --checkpoint org/birds-vit --remove"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("results", help=reflowed(results.__doc__), epilog=_EXAMPLES)(results)


def results(
    catalog: opt.CatalogFolder = None,
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="ID", show_default=False, help="Only of this task. Default: all."),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint", metavar="ID", show_default=False, help="Only of this checkpoint. Default: all."
        ),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n",
            metavar="N",
            min=1,
            show_default=False,
            help="Only those with so many training images. Default: all.",
        ),
    ] = None,
    origin: Annotated[
        OriginName | None,
        typer.Option(
            "--origin",
            show_default=False,
            help="run: what was recorded here; card: what cards on the Hub claim; or all. Default: run.",
        ),
    ] = None,
    remove: Annotated[
        bool,
        typer.Option(
            "--remove",
            show_default=False,
            help="Remove them; --task, --checkpoint or --n must say which. Default: they stay.",
        ),
    ] = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """List the errors that checkpoints reached on tasks.

    They come from `t2v catalog record`; what the cards of checkpoints claim, `t2v catalog sync` brings.
    """
    with session(as_json=as_json, quiet=quiet) as output:
        from t2v_hub.catalog import Catalog

        place = Catalog.load(catalog)
        if remove and all(value is None for value in (task, checkpoint, n)):
            raise SettingsError("--remove needs --task, --checkpoint or --n, to say which results.")
        name = None if checkpoint is None else checkpoint_id(place, checkpoint)
        chosen = None if origin == "all" else (origin or "run")
        shown = place.results(task=task, checkpoint=name, n=n, origin=chosen)
        if remove:
            place.remove_results(shown)
        tasks, checkpoints = {item.task for item in shown}, {item.checkpoint for item in shown}
        values = {
            "catalog": folder_of(place),
            "n_tasks": len(tasks),
            "n_checkpoints": len(checkpoints),
            "removed": remove,
            "results": [asdict(item) for item in shown],
        }
        text: list[Any] = [
            f"{'Removed ' if remove else ''}{counted(len(shown))} {'from' if remove else 'in'} "
            f"{folder_of(place)}: {len(tasks):,} task{plural(len(tasks))}, "
            f"{len(checkpoints):,} checkpoint{plural(len(checkpoints))}"
        ]
        if shown and not as_json and not remove:
            text += ["", _table(shown)]
        output.result(values, *text)
        if origin is None and not remove and (claims := len(place.results(origin="card"))):
            output.note(f"Cards claim {claims:,} more; --origin card lists them.")
        if not shown and not remove:
            output.note("Record one with `t2v catalog record TASK CHECKPOINT ERROR`, or many with --table.")


def checkpoint_id(catalog: "Catalog", text: str) -> str:
    """Id of the checkpoint as the catalog has it, the whole path of a folder, or a repository."""
    try:
        id = found(catalog, text)
        if id in catalog:
            return id
        path = Path(text).expanduser()
        return str(path.resolve()) if path.is_dir() else text.removeprefix("hf-hub:")
    except (OSError, RuntimeError):  # too long for a path, or in the home of nobody
        return text


def _table(results: "Sequence[Result]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    words = ("task", "checkpoint", "task embedding", "from")
    for name in ("task", "checkpoint", "error", "n", "seed", "test images", "task embedding", "from"):
        table.add_column(name, justify="left" if name in words else "right", overflow="fold")
    for item in results:
        table.add_row(
            Text(item.task),
            Text(item.checkpoint),
            f"{item.error:.4f}",
            "–" if item.n is None else f"{item.n:,}",
            "–" if item.seed is None else str(item.seed),
            "–" if item.n_test is None else f"{item.n_test:,}",
            "–" if item.embedding is None else item.embedding.removeprefix("sha256:")[:8],
            "here" if item.origin == "run" else f"card on {item.endpoint or 'the Hub'}",
        )
    return table


def counted(n: int) -> str:
    """So many results, in words."""
    return f"{n:,} result{plural(n)}"


def plural(n: int) -> str:
    """The ending of so many."""
    return "" if n == 1 else "s"


def folder_of(catalog: "Catalog") -> str:
    """Where the catalog is."""
    return str(catalog.path.resolve())
