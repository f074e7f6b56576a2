"""``t2v cache``: what is kept on this machine, and less of it."""

import datetime
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from t2v_hub.cli import options as opt
from t2v_hub.cli.output import Output, reflowed, session
from t2v_hub.errors import SettingsError

if TYPE_CHECKING:
    from rich.table import Table

    from t2v_hub.housekeeping import KindSize, PruneReport

CacheKindName = Literal["embeddings", "blocks", "features"]
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?", re.IGNORECASE | re.ASCII)
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])", re.IGNORECASE | re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_WHAT = {
    "embeddings": "measured before",
    "blocks": "of measurements that are not finished",
    "features": "of candidates, for the second stage",
    "catalog": "never pruned",
    "enrich": "finished work of t2v enrich; never pruned",
    "other": "not ours, or links; never pruned",
}
_NOUNS = {"embeddings": "embedding", "blocks": "unfinished measurement", "features": "feature file"}
_MAX_NAMED = 5


def _check_kinds(values: list[str] | None) -> list[str] | None:
    """The kinds, where there are such."""
    for value in values or ():
        if value not in get_args(CacheKindName):
            known = ", ".join(get_args(CacheKindName))
            raise typer.BadParameter(f"{value!r} is none of {known}.")
    return values


app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="See and limit what is kept on this machine, in ~/.cache/t2v_hub or T2V_HOME.\n\n"
    "What can be pruned is measured again when it is needed. The catalog and the finished work of enrichment "
    "stay.",
    epilog="[bold]Example[/bold]\n\n$ t2v cache size\n\n$ t2v cache prune --older-than 30d",
)


def size_(as_json: opt.AsJson = False, quiet: opt.Quiet = False) -> None:
    """Show how much is kept, of what kind, and when it was used last.

    The last use of an embedding or of features is when they were read or written; blocks are those of a
    measurement that was interrupted, or is under way.
    """
    with session(as_json=as_json, quiet=quiet) as output:
        from t2v_hub.housekeeping import kept_items, sizes
        from t2v_hub.storage import home

        found = sizes(kept_items())
        total = sum(kind.n_bytes for kind in found)
        output.result(
            {"folder": str(home()), "n_bytes": total, "kinds": [_values(kind) for kind in found]},
            f"{size_in_words(total)} in {home()}",
            "",
            _table(found),
        )


def prune(
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than",
            metavar="AGE",
            show_default=False,
            help="Delete what was not used for so long: 30d, 12h, 90m, 2w. Default: no limit of age.",
        ),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(
            "--max-size",
            metavar="SIZE",
            show_default=False,
            help="Delete what was used longest ago until the rest is no larger: 10GB, 500MB, 2GiB. Default: "
            "no limit of size.",
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="embeddings|blocks|features",
            callback=_check_kinds,
            show_default=False,
            help="Only of this kind. May be repeated. Default: all three.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", show_default=False, help="Only say what would be deleted. Default: delete it."
        ),
    ] = False,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes",
            "-y",
            show_default=False,
            help="Do not ask. Default: ask, and do nothing where nobody can answer.",
        ),
    ] = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Delete what was kept on this machine and not used for long.

    What was used within the last hour stays, since another process may be at it; so do the catalog, the
    finished work of enrichment, and all files that are not ours. No link is followed.
    """
    with session(as_json=as_json, quiet=quiet) as output:
        from t2v_hub import housekeeping
        from t2v_hub.storage import home

        if older_than is None and max_size is None:
            raise SettingsError("Nothing says what to delete: give --older-than, --max-size, or both.")
        limits: dict[str, Any] = {
            "kinds": tuple(dict.fromkeys(kind or get_args(CacheKindName))),
            "older_than_s": None if older_than is None else seconds(older_than),
            "max_bytes": None if max_size is None else n_bytes(max_size),
        }
        planned = housekeeping.prune(dry_run=True, **limits)
        if not dry_run and planned.removed and not yes:
            _ask(planned)
        report = planned if dry_run or not planned.removed else housekeeping.prune(**limits)
        output.result(
            {
                "folder": str(home()),
                "dry_run": dry_run,
                "n_removed": len(report.removed),
                "n_bytes_removed": report.n_bytes,
                "n_left": report.n_left,
                "n_bytes_left": report.n_bytes_left,
                "removed": [
                    {
                        "kind": item.kind,
                        "path": str(item.path),
                        "n_bytes": item.n_bytes,
                        "used_at": _time(item.used_at),
                    }
                    for item in report.removed
                ],
                "in_use": [str(item.path) for item in report.in_use],
                "failed": [{"path": str(item.path), "reason": reason} for item, reason in report.failed],
            },
            f"{'Would delete' if dry_run else 'Deleted'} {_counted(report)}; "
            f"{size_in_words(report.n_bytes_left)} of {', '.join(limits['kinds'])} "
            f"{'would be' if dry_run else 'are'} left in {home()}",
        )
        _note(output, report)
        if report.failed:
            raise typer.Exit(1)


def seconds(text: str) -> float:
    """Seconds of an age such as ``30d``.

    Raises:
        SettingsError: It is none.
    """
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise SettingsError(
            f"--older-than {text!r} is no age; wanted a number and s, m, h, d or w, as in 30d."
        )
    return float(found[1]) * _SECONDS[found[2].lower()]


def n_bytes(text: str) -> int:
    """Bytes of a size such as ``10GB`` (of 1000) or ``10GiB`` (of 1024).

    Raises:
        SettingsError: It is none.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise SettingsError(
            f"--max-size {text!r} is no size; wanted a number of bytes, or 500MB, 10GB, 2GiB."
        )
    unit = (found[2] or "").lower()
    base = 1024 if unit.endswith("i") else 1000
    return int(float(found[1]) * base ** _POWERS[unit.removesuffix("i")])


def size_in_words(n: float) -> str:
    """A size as people say it, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def _ask(planned: "PruneReport") -> None:
    """Return when the user says yes."""
    if not sys.stdin.isatty():
        raise SettingsError(
            f"Nobody is here to be asked whether {_counted(planned)} may go. Give --yes to delete, or "
            f"--dry-run to see what."
        )
    if not typer.confirm(f"Delete {_counted(planned)}?", err=True):
        raise typer.Exit(1)


def _note(output: Output, report: "PruneReport") -> None:
    if report.in_use:
        total = sum(item.n_bytes for item in report.in_use)
        output.note(
            f"{len(report.in_use):,} more ({size_in_words(total)}) were used within the last hour and stay."
        )
    for item, reason in report.failed[:_MAX_NAMED]:
        output.fail(f"{item.path} could not be deleted: {reason}")
    if len(report.failed) > _MAX_NAMED:
        output.fail(f"and {len(report.failed) - _MAX_NAMED:,} more could not; --json names them all.")


def _counted(report: "PruneReport") -> str:
    counts = {kind: sum(item.kind == kind for item in report.removed) for kind in get_args(CacheKindName)}
    parts = [f"{n:,} {_NOUNS[kind]}{'' if n == 1 else 's'}" for kind, n in counts.items() if n]
    return f"{' and '.join(parts)} ({size_in_words(report.n_bytes)})" if parts else "nothing"


def _values(kind: "KindSize") -> dict[str, object]:
    return {
        "kind": kind.kind,
        "n_items": kind.n_items,
        "n_bytes": kind.n_bytes,
        "oldest": _time(kind.oldest),
        "newest": _time(kind.newest),
        "can_be_pruned": kind.can_be_pruned,
    }


def _time(value: float | None) -> str | None:
    if value is None:
        return None
    try:
        return datetime.datetime.fromtimestamp(value, datetime.UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):  # a file's time may be anything
        return None


def _table(found: "tuple[KindSize, ...]") -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("kind", "number", "size", "used longest ago", "used last", ""):
        table.add_column(name, justify="right" if name in ("number", "size") else "left")
    for kind in found:
        times = [
            (_time(value) or "–").replace("T", " ").removesuffix("+00:00")
            for value in (kind.oldest, kind.newest)
        ]
        table.add_row(kind.kind, f"{kind.n_items:,}", size_in_words(kind.n_bytes), *times, _WHAT[kind.kind])
    return table


for _name, _command, _examples in (
    ("size", size_, "t2v cache size"),
    (
        "prune",
        prune,
        "t2v cache prune --older-than 30d --max-size 10GB\n\n$ t2v cache prune --kind blocks "
        "--older-than 1w --dry-run",
    ),
):
    app.command(_name, help=reflowed(_command.__doc__), epilog=f"[bold]Examples[/bold]\n\n$ {_examples}")(
        _command
    )
