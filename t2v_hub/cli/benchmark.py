"""``t2v benchmark``: does choosing by distance help on your own pool?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from t2v_hub.cli import options as opt
from t2v_hub.cli.measuring import given
from t2v_hub.cli.output import reflowed, session

if TYPE_CHECKING:
    from rich.text import Text

_EXAMPLES = """[bold]Examples[/bold]

$ t2v benchmark

$ t2v benchmark --results runs.csv --n 200 --markdown > benchmark.md"""

OriginName = Literal["run", "card"]
GroupName = Literal["task", "owner"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("benchmark", help=reflowed(benchmark.__doc__), epilog=_EXAMPLES)(benchmark)


def benchmark(
    catalog: opt.CatalogPlace = None,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results",
            metavar="FILE",
            show_default=False,
            help="A table of results, .csv or .parquet, with columns task, checkpoint, error (a share) and, "
            "where known, n, seed, n_test. Default: what was recorded in the catalog.",
        ),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n",
            metavar="N",
            min=1,
            show_default=False,
            help="Only results with so many training images. Default: a table for each number.",
        ),
    ] = None,
    origin: Annotated[
        OriginName | None,
        typer.Option(
            "--origin",
            show_default=False,
            help="run is what was recorded, card what checkpoints' cards claim. Default: run.",
        ),
    ] = None,
    group_by: Annotated[
        GroupName | None,
        typer.Option(
            "--group-by",
            show_default=False,
            help="What counts as one piece of evidence. owner, the part of a task's id before the slash, is "
            "for tasks of one owner that are alike: no row then learns from one about the other. "
            "Default: task.",
        ),
    ] = None,
    no_model2vec: Annotated[
        bool,
        typer.Option(
            "--no-model2vec",
            show_default=False,
            help="Leave out learned distances, which take the most time. Default: they are learned anew for "
            "each task from the others.",
        ),
    ] = False,
    markdown: Annotated[
        bool,
        typer.Option("--markdown", show_default=False, help="Print tables in Markdown. Default: text."),
    ] = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Judge ways to choose a checkpoint on results that you have: does looking at the data help?

    Rows that read nothing of the task (the best constant checkpoint, the mean over your other tasks,
    parameter count, upstream accuracy, downloads) stand beside rankings by distance. Record how checkpoints
    did on tasks with `t2v catalog record`, on two splits or more, the same ones for every checkpoint: then
    noise is told from merit. A checkpoint is left out for a task that it was trained on.
    """
    with session(as_json=as_json, quiet=quiet) as output:
        from rich.text import Text

        from t2v_hub.catalog import Catalog
        from t2v_hub.errors import SettingsError
        from t2v_hub.judging import benchmark as judged

        if markdown and as_json:
            raise SettingsError("--markdown and --json are two forms of one answer; give one of them.")
        place = Catalog() if catalog is None else Catalog.load(catalog)
        if not no_model2vec:
            output.note("learning distances anew for each task; --no-model2vec leaves that out")
        found = judged(
            place, results=results, n=n, model2vec=not no_model2vec, **given(origin=origin, group_by=group_by)
        )
        text = [] if as_json else [Text(found.to_markdown()) if markdown else _styled(str(found))]
        output.result(found.to_dict(), *text)


def _styled(table: str) -> "Text":
    """The tables, their headings bold where there is a terminal."""
    from rich.text import Text

    text = Text(table)
    text.highlight_regex(r"(?m)^row .*$", "bold")
    text.highlight_regex(r"(?m)^(It helps|It harms|Cannot be said):", "bold")
    text.highlight_regex(r"(?m)^- .*$", "dim")
    return text
