"""``t2v demo``: the whole way on scikit-learn's handwritten digits."""

from pathlib import Path
from typing import Annotated

import typer

from t2v_hub.cli import options as opt
from t2v_hub.cli.output import reflowed, session

_EXAMPLES = """[bold]Example[/bold]

$ t2v demo --quick --out ./t2v_demo"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo", help=reflowed(demo.__doc__), epilog=_EXAMPLES)(demo)


def demo(
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="DIR", show_default=False, help="Folder of the results. Default: t2v_demo."
        ),
    ] = Path("t2v_demo"),
    hub: Annotated[
        bool,
        typer.Option("--hub", show_default=False, help="Take the steps with the Hub. Default: without any."),
    ] = False,
    quick: Annotated[
        bool,
        typer.Option("--quick", show_default=False, help="Fewer tasks and seeds. Default: the full demo."),
    ] = False,
    seed: opt.Seed = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Show the whole way on real images: train, embed, rank, fine-tune, compare.

    Small experts are trained on different tasks of scikit-learn's handwritten digits, everything is embedded,
    the experts are ranked for new tasks, shared on a Hub of this machine and found there by their cards, and
    then all of them are fine-tuned on every target, to see what the ranking was worth. It prints that, good
    or bad. Takes about 3 to 5 minutes on two cores, needs no network, and writes checkpoints, catalogs, two
    pictures and a report into the folder.
    """
    with session(as_json=as_json, quiet=quiet) as output:
        from t2v_hub.demo import run

        report = run(out, hub=hub, quick=quick, seed=seed or 0, echo=output.note if quiet else output.say)
        output.result(report.to_dict())
