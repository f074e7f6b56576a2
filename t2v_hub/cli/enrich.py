"""``t2v enrich``: embeddings of what other people's checkpoints were trained on, in bulk."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from t2v_hub.cli import options as opt
from t2v_hub.cli.log import JsonLog, log_for
from t2v_hub.cli.measuring import check_probe, given, task2vec
from t2v_hub.cli.output import reflowed, session

if TYPE_CHECKING:
    from t2v_hub.enrich.report import CardOutcome, DataSetOutcome

_EXAMPLES = """[bold]Examples[/bold]

$ t2v enrich --filter image-classification --limit 500 --dry-run

$ t2v enrich --filter image-classification --catalog-only

$ t2v enrich --filter my-org --create-pr"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("enrich", help=reflowed(enrich.__doc__), epilog=_EXAMPLES)(enrich)


def enrich(
    tags: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="TAG",
            show_default=False,
            help="Only checkpoints with this tag of the Hub. May be repeated; all must be there. Default: "
            "image-classification.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            metavar="N",
            min=1,
            show_default=False,
            help="Checkpoints at most, the most downloaded first. Default: 500.",
        ),
    ] = None,
    create_pr: Annotated[
        bool,
        typer.Option(
            "--create-pr",
            show_default=False,
            help="Open a pull request where you may not write, at most one for a data set and card. Default: "
            "such cards are left alone.",
        ),
    ] = False,
    catalog_only: Annotated[
        bool,
        typer.Option(
            "--catalog-only",
            show_default=False,
            help="Fill the catalog and leave all cards alone. Default: both are written.",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            show_default=False,
            help="Only say what would be embedded and written. Default: do it.",
        ),
    ] = False,
    catalog: opt.CatalogFolder = None,
    max_scan: Annotated[
        int | None,
        typer.Option(
            "--max-scan",
            metavar="N",
            min=2,
            rich_help_panel="Measuring",
            show_default=False,
            help="Images of a data set that are streamed at most. Default: 10000.",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            metavar="DIR",
            show_default=False,
            help="Where finished work is kept, so that the same command can go on. Default: "
            "~/.cache/t2v_hub/enrich.",
        ),
    ] = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    log_json: opt.LogJson = False,
    max_samples: opt.MaxSamples = None,
    seed: opt.Seed = None,
    batch_size: opt.BatchSize = None,
    dtype: opt.Dtype = None,
    device: opt.Device = None,
    no_cache: opt.NoCache = False,
    probe: opt.Probe = None,
) -> None:
    """Embed what checkpoints on the Hub were trained on; write that into a catalog and into their cards.

    Checkpoints are grouped by the data set that their cards, or those of their base models, name. Of each
    data set a bounded sample is streamed once and embedded once, the largest group first. What fails is named
    at the end and never ends the run; an interrupted run goes on where it stopped. A card that says
    `task2vec: false` is left alone, and so is a public one that would tell of private data.
    HF_ENDPOINT names another Hub.
    """
    log = log_for("enrich", wanted=log_json)
    with session(as_json=as_json, quiet=quiet, kept=not no_cache, log=log) as output:
        from t2v_hub.catalog import Catalog
        from t2v_hub.enrich import enrich as run
        from t2v_hub.errors import SettingsError

        if create_pr and catalog_only:
            raise SettingsError("--create-pr and --catalog-only exclude each other: leave one of them out.")
        check_probe(probe)
        embedder = task2vec(
            output,
            probe,
            no_cache=no_cache,
            **given(max_samples=max_samples, seed=seed, batch_size=batch_size, dtype=dtype, device=device),
        )
        filters, place = tags or ["image-classification"], Catalog(catalog)
        if log is not None:
            log.event(
                "start",
                filters=filters,
                limit=limit,
                catalog=str(place.path),
                probe=embedder.probe.name,
                space=embedder.space().id,
                dry_run=dry_run,
            )
        report = run(
            embedder,
            filters=filters,
            catalog=place,
            create_pr=create_pr,
            catalog_only=catalog_only,
            dry_run=dry_run,
            progress=output.progress,
            tell=None if log is None else partial(_log, log),
            **given(limit=limit, max_scan=max_scan, folder=folder),
        )
        output.result(report.to_dict(), str(report))
        if log is not None:
            log.event(
                "end",
                exit_code=0,
                seconds=round(report.seconds, 3),
                n_data_sets=len(report.data_sets),
                n_cards=len(report.cards),
                n_failed=report.n_failed,
            )


def _log(log: JsonLog, outcome: "DataSetOutcome | CardOutcome") -> None:
    """Note what became of a data set or a card."""
    from t2v_hub.enrich.report import DataSetOutcome

    log.event("data_set" if isinstance(outcome, DataSetOutcome) else "card", **asdict(outcome))
