"""``t2v catalog sync``: what the cards on the Hub say, read into a catalog."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t2v_hub.cli import options as opt
from t2v_hub.cli import repository as hub
from t2v_hub.cli.candidate import counted
from t2v_hub.cli.output import Output, reflowed, session
from t2v_hub.errors import HubError

if TYPE_CHECKING:
    from t2v_hub.catalog import Catalog
    from t2v_hub.catalog.state import SyncReport

_EXAMPLES = """[bold]Examples[/bold]

$ t2v catalog sync

$ t2v catalog sync --filter image-classification --filter timm --catalog ./timm-catalog"""
_MAX_REASONS = 5


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sync", help=reflowed(sync.__doc__), epilog=_EXAMPLES)(sync)


def sync(
    catalog: opt.CatalogFolder = None,
    space: hub.SpaceId = None,
    tags: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="TAG",
            rich_help_panel="Hub",
            show_default=False,
            help="Only checkpoints with this tag of the Hub, such as image-classification. May be repeated; "
            "all must be there. Default: all checkpoints.",
        ),
    ] = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            rich_help_panel="Hub",
            show_default=False,
            help="Read all cards again. Default: only those that changed since the last time.",
        ),
    ] = False,
    endpoint: hub.Endpoint = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Bring the catalog up to date with the cards on the Hub: every checkpoint with an embedding.

    The listing brings the embeddings along, a thousand checkpoints a request, and no weights are downloaded;
    later, only cards that changed are read. What was added with `t2v catalog add` stays. Afterwards
    `t2v rank` needs no network.
    """
    with session(as_json=as_json, quiet=quiet) as output:
        from t2v_hub.catalog import Catalog

        place = Catalog(catalog)
        connection = hub.connected(output, endpoint)
        before = _last(place, connection.endpoint, space, tags or ())
        output.note(f"reading the cards on {connection.endpoint}")
        start = time.perf_counter()
        try:
            report = place.sync(space=space, filter=tags or (), again=again, connection=connection)
        except HubError:
            if before is not None:
                output.note(f"The catalog in {place.path} is as it was {before.age}, and can be used.")
            raise
        seconds = time.perf_counter() - start
        values = {
            "catalog": str(place.path),
            "endpoint": report.endpoint,
            "space": report.space,
            "filters": list(report.filters),
            "n_listed": report.n_listed,
            "n_read": report.n_read,
            "n_removed": report.n_removed,
            "n_requests": report.n_requests,
            "seconds": round(seconds, 3),
            "skipped": list(report.skipped),
            "synced_at": report.synced_at,
            "synced_before": None if before is None else before.synced_at,
            "n_candidates": len(place),
        }
        output.result(values, *_text(place, report, before, seconds))
        _name_skipped(output, report.skipped)
        if not report.n_listed:
            output.note(_nothing(report))


def _last(catalog: "Catalog", endpoint: str, space: str | None, tags: Sequence[str]) -> "SyncReport | None":
    """When the same was asked last."""
    from t2v_hub.catalog.state import question_of

    asked = question_of(endpoint, space, tags)
    for report in catalog.synced():
        if (report.endpoint, report.space, report.filters) == asked:
            return report
    return None


def _text(catalog: "Catalog", report: "SyncReport", before: "SyncReport | None", seconds: float) -> list[Any]:
    scope = [*([f"space {report.space}"] if report.space else []), *report.filters]
    asked = f" ({', '.join(scope)})" if scope else ""
    return [
        f"{report.n_listed:,} checkpoint{'' if report.n_listed == 1 else 's'} with an embedding on "
        f"{report.endpoint}{asked}: {report.n_read:,} read, {report.n_removed:,} removed, "
        f"{len(report.skipped):,} skipped",
        f"{report.n_requests:,} request{'' if report.n_requests == 1 else 's'} in {seconds:.1f} s; "
        f"last time: {'never' if before is None else before.age}",
        f"{catalog.path} has {counted(len(catalog))} now",
    ]


def _name_skipped(output: Output, skipped: Sequence[str]) -> None:
    for reason in skipped[:_MAX_REASONS]:
        output.warn(f"skipped {reason}")
    if len(skipped) > _MAX_REASONS:
        output.warn(f"and {len(skipped) - _MAX_REASONS:,} more were skipped; --json names them all.")


def _nothing(report: "SyncReport") -> str:
    if report.space or report.filters:
        return "No checkpoint there has an embedding and all that was asked for."
    return "No checkpoint there has an embedding yet; `t2v push` writes one into a card."
