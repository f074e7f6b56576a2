"""``t2v catalog merge``: other catalogs joined into one."""

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from t2v_hub.cli import options as opt
from t2v_hub.cli.candidate import counted as candidates_in_words
from t2v_hub.cli.output import Output, reflowed, session
from t2v_hub.cli.results import counted, folder_of
from t2v_hub.errors import CatalogFileError, SettingsError

if TYPE_CHECKING:
    from t2v_hub.catalog import Catalog, MergeReport

PreferName = Literal["other", "here"]
_EXAMPLES = """[bold]Examples[/bold]

$ t2v catalog merge ./from-node-1 ./from-node-2

$ t2v catalog merge /shared/catalog --catalog ./mine --prefer here --dry-run"""
_MAX_NAMED = 10


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("merge", help=reflowed(merge.__doc__), epilog=_EXAMPLES)(merge)


def merge(
    other: Annotated[
        list[Path],
        typer.Argument(metavar="OTHER", help="Folders of the catalogs to take over; they are only read."),
    ],
    catalog: opt.CatalogFolder = None,
    prefer: Annotated[
        PreferName | None,
        typer.Option(
            "--prefer",
            show_default=False,
            help="Whose word counts where catalogs contradict each other: that of the other one, a later "
            "one's over an earlier one's, or that of the one here. Default: other.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", show_default=False, help="Only say what would change. Default: change it."),
    ] = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Join other catalogs into this one: candidates, their embeddings, and results.

    What only one side knows is kept; where both know something else, --prefer decides, and the contradiction
    is named. Of two revisions of a checkpoint one stays, with what was known of either. What was read from
    cards on a Hub stays that, and a measurement of the same task counts more. What cannot be read is named
    and left out, and the exit code is then 1. Merging again changes nothing more.
    """
    with session(as_json=as_json, quiet=quiet) as output:
        from t2v_hub.catalog import Catalog, merge_catalogs

        place = Catalog(catalog)
        others, unreadable = [], []
        for folder in other:
            try:
                others.append(Catalog.load(folder))
            except CatalogFileError as error:
                unreadable.append(str(error))
        if not others:
            raise CatalogFileError(" ".join(unreadable))
        _check(place, others)
        report = merge_catalogs(place, others, prefer=prefer or "other", dry_run=dry_run)
        report = replace(report, left_out=(*unreadable, *report.left_out))
        place.reload()
        values = {
            "catalog": folder_of(place),
            "others": [folder_of(one) for one in others],
            **asdict(report),
            "n_candidates": len(place),
        }
        output.result(values, *_text(place, report))
        _name(output, report)
        if report.left_out:
            raise typer.Exit(1)


def _check(place: "Catalog", others: "list[Catalog]") -> None:
    counts = Counter(one.path.resolve() for one in others)
    if place.path.resolve() in counts:
        raise SettingsError(f"{folder_of(place)} cannot be merged into itself; leave it out.")
    twice = [str(path) for path, n in counts.items() if n > 1]
    if twice:
        raise SettingsError(f"{twice[0]} is given twice; leave one out.")


def _text(place: "Catalog", report: "MergeReport") -> list[str]:
    would = "Would merge" if report.dry_run else "Merged"
    n_conflicts = len(report.conflicts)
    return [
        f"{would} into {folder_of(place)}: {candidates_in_words(report.n_added)} added, "
        f"{report.n_changed:,} changed, {report.n_same:,} the same; {report.n_embeddings:,} new embeddings",
        f"{counted(report.n_results_added)} added, {report.n_results_changed:,} changed, "
        f"{report.n_results_same:,} the same",
        f"{n_conflicts:,} contradiction{'' if n_conflicts == 1 else 's'}, {len(report.left_out):,} left out",
    ]


def _name(output: Output, report: "MergeReport") -> None:
    """Name contradictions and what was left out."""
    for item in report.conflicts[:_MAX_NAMED]:
        whose = "the other one's" if item.kept == "other" else "the one here"
        output.warn(f"{item.about}: {item.what} {item.here} here, {item.there} there; {whose} stays.")
    if len(report.conflicts) > _MAX_NAMED:
        output.warn(f"and {len(report.conflicts) - _MAX_NAMED:,} more contradictions; --json names them all.")
    for reason in report.left_out[:_MAX_NAMED]:
        output.fail(f"left out: {reason}")
    if len(report.left_out) > _MAX_NAMED:
        output.fail(f"and {len(report.left_out) - _MAX_NAMED:,} more were left out; --json names them all.")
