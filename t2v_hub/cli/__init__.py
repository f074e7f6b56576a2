"""The command ``t2v``: embed a data set, rank checkpoints, compare tasks, keep a catalog, write cards."""

from typing import Annotated

import typer

from t2v_hub import __version__
from t2v_hub.cli import (
    benchmark,
    cache,
    card,
    catalog,
    compare,
    demo,
    diversity,
    embed,
    enrich,
    merge,
    pull,
    push,
    rank,
    record,
    results,
    sync,
)
from t2v_hub.cli.output import reflowed
from t2v_hub.cli.program import program, renamed

_EXAMPLES = """[bold]From a folder of images to a checkpoint[/bold]

$ t2v catalog add ./pets-resnet --data ./pets

$ t2v rank ./my-photos --top-k 5

[dim]Finished blocks of images are kept in ~/.cache/t2v_hub (or T2V_HOME), and an interrupted command goes \
on from them; `t2v cache` limits what is kept. Exit codes: 0 done, 1 an error that is named, 2 wrong usage, \
130 interrupted.[/dim]"""

app = typer.Typer(
    name="t2v",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
embed.register(app)
rank.register(app)
compare.register(app)
diversity.register(app)
benchmark.register(app)
app.add_typer(catalog.app, name="catalog")
sync.register(catalog.app)
record.register(catalog.app)
results.register(catalog.app)
merge.register(catalog.app)
push.register(app)
pull.register(app)
app.add_typer(card.app, name="card")
enrich.register(app)
app.add_typer(cache.app, name="cache")
demo.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"t2v_hub {__version__}")
        raise typer.Exit


def _t2v(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Which checkpoint should I fine-tune on my data?

    t2v measures a labelled image data set once (Task2Vec: the Fisher information of a fixed probe network)
    and ranks checkpoints by how near the data that they were trained on lies. No checkpoint is trained, or
    even downloaded, for that.
    """


app.callback(help=reflowed(_t2v.__doc__))(_t2v)


def main() -> None:
    """Run the command on the arguments of this process: ``t2v``, or ``hf t2v`` where ``hf`` started it."""
    if program() == "t2v":
        app()
    else:
        renamed(typer.main.get_command(app))(prog_name=program())


__all__ = ["app", "main"]
