"""``t2v embed --many``: the tasks of a table, or of one shard of it, into a folder."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from t2v_hub.cli.destination import SUFFIX, check_parent
from t2v_hub.cli.flags import in_flags
from t2v_hub.cli.log import JsonLog, log_for
from t2v_hub.cli.measuring import check_probe, summary, task2vec
from t2v_hub.cli.output import Output, facts, session
from t2v_hub.errors import SettingsError

if TYPE_CHECKING:
    from t2v_hub.manifest import Manifest, ManifestReport, ManifestRow, ManifestStatus, RowOutcome

_MAX_NAMED = 20


def check_many(
    data: list[str] | None, out: Path | None, *, name: str | None, log_json: bool, status: bool
) -> None:
    """Return when the options can go with ``--many``; else it is wrong usage."""
    if data:
        raise typer.BadParameter(
            "brings its own data: leave DATA out, or write it into the table.", param_hint="'--many'"
        )
    if name is not None:
        raise typer.BadParameter(
            "one name cannot be that of several tasks; give the table a column name.", param_hint="'--name'"
        )
    if out is None:
        raise typer.BadParameter("--many needs the folder to write to.", param_hint="'--out' / '-o'")
    if out.suffix == SUFFIX or out.is_file():
        raise typer.BadParameter(
            f"{str(out)!r} is a file; for --many give a folder.", param_hint="'--out' / '-o'"
        )
    if status and log_json:
        raise typer.BadParameter("logs what is done, and --status does nothing.", param_hint="'--log-json'")


def embed_many(
    table: Path,
    out: Path,
    *,
    shard: str | None,
    status: bool,
    overwrite: bool,
    probe: str | None,
    no_cache: bool,
    defaults: Mapping[str, str],
    settings: Callable[[], Mapping[str, Any]],
    as_json: bool,
    quiet: bool,
    log_json: bool,
) -> None:
    """Embed the rows of a table; see `t2v_hub.manifest.embed_manifest`.

    Args:
        table: The manifest.
        out: Folder of the embeddings.
        shard: Which rows, as ``i/n``.
        status: Only say how much is done.
        overwrite: Whether done rows are embedded again.
        probe: The probe.
        no_cache: Whether blocks of images are kept nowhere.
        defaults: Options of data, for rows that do not say.
        settings: Those of `Task2Vec`.
        as_json: See `Output`.
        quiet: See `Output`.
        log_json: Whether messages are JSON lines.
    """
    log = None if status else log_for("embed", wanted=log_json, shard=shard or "0/1")
    with session(as_json=as_json, quiet=quiet, kept=not no_cache, log=log) as output, _terminated():
        from t2v_hub.manifest import Shard, load_manifest, manifest_status

        part = Shard() if shard is None else Shard.parse(shard)
        manifest = load_manifest(table, defaults=defaults)
        check_parent(out)
        if status:
            if shard is not None:
                raise SettingsError("--status is of all shards; leave --shard out.")
            found = manifest_status(manifest, out)
            output.result(*_standing(manifest, out, found))
            return
        check_probe(probe)
        embedder = task2vec(output, probe, no_cache=no_cache, **settings())
        from t2v_hub.manifest import embed_manifest

        told = _Told(output, log)
        if log is not None:
            log.event(
                "start",
                manifest=str(table),
                folder=str(out),
                n_rows=len(manifest),
                n_in_shard=len(manifest.part(part)),
                probe=embedder.probe.name,
                space=embedder.space().id,
            )
        report = embed_manifest(
            manifest,
            out,
            task2vec=embedder,
            shard=part,
            overwrite=overwrite,
            begin=told.begin,
            tell=told.outcome,
            words=_words,
        )
        code = 1 if report.failed else 0
        _report(output, log, manifest, out, report, told, code)
        if code:
            raise typer.Exit(code)


class _Told:
    """What is said of each row, and kept of it for ``--json``."""

    def __init__(self, output: Output, log: JsonLog | None) -> None:
        self.embedded: list[dict[str, object]] = []
        self.there: list[dict[str, object]] = []
        self.failed: list[dict[str, object]] = []
        self._output, self._log = output, log

    def begin(self, row: "ManifestRow", place: int, n: int) -> None:
        if self._log is not None:
            self._log.event("embedding", row=row.number, name=row.task, data=row.data)
        else:
            self._output.note(f"embedding {row.task}, row {row.number} ({place} of {n})")

    def outcome(self, outcome: "RowOutcome") -> None:
        row = outcome.row
        named = {"row": row.number, "name": row.task, "data": row.data}
        if outcome.error is not None:
            said = _words(" ".join(str(outcome.error).split()) or type(outcome.error).__name__)
            failure = {**named, "type": type(outcome.error).__name__, "message": said}
            self.failed.append(failure)
            if self._log is not None:
                self._log.event("failed", **failure)
            else:
                self._output.fail(f"row {row.number}, {row.task}: {said}")
            return
        embedding = outcome.embedding
        assert embedding is not None
        file = str(outcome.path)
        if outcome.state == "there":
            self.there.append({**named, "file": file, "digest": embedding.digest})
            if self._log is not None:
                self._log.event("there", **named, file=file)
            return
        values = summary(embedding)
        seconds = round(outcome.seconds, 3)
        more = {"image_column": outcome.image_column, "seconds": seconds, "file": file}
        self.embedded.append({**named, **values, **more})
        if self._log is not None:
            self._log.event(
                "done",
                **named,
                file=file,
                seconds=seconds,
                n_samples=embedding.measurement.n_samples,
                standard_error=embedding.standard_error,
                space=embedding.space.id,
                digest=embedding.digest,
            )


def _words(message: str) -> str:
    return in_flags(message).replace("overwrite=True", "--overwrite")


def _report(
    output: Output,
    log: JsonLog | None,
    manifest: "Manifest",
    out: Path,
    report: "ManifestReport",
    told: _Told,
    code: int,
) -> None:
    n_embedded, n_there, n_failed = len(report.embedded), len(report.there), len(report.failed)
    values = {
        "manifest": str(manifest.path),
        "folder": str(out),
        "shard": str(report.shard),
        "n_rows": report.n_rows,
        "n_in_shard": n_embedded + n_there + n_failed,
        "embeddings": told.embedded,
        "there": told.there,
        "failures": told.failed,
        "failures_file": str(report.failures) if n_failed else None,
        "n_files": report.n_files,
        "seconds": round(report.seconds, 3),
    }
    rows = [
        ("shard", f"{report.shard}, {values['n_in_shard']:,} of {report.n_rows:,} rows"),
        ("embedded", f"{n_embedded:,} now, {n_there:,} before"),
        ("failed", f"{n_failed:,}" + (f", named in {report.failures}" if n_failed else "")),
        ("all shards", f"{report.n_files:,} of {report.n_rows:,} rows have a file in {out}"),
    ]
    output.result(values, facts(rows))
    if log is not None:
        log.event(
            "end",
            exit_code=code,
            seconds=values["seconds"],
            n_embedded=n_embedded,
            n_there=n_there,
            n_failed=n_failed,
            n_files=report.n_files,
        )
    elif n_failed:
        total = values["n_in_shard"]
        names = ", ".join(f"{row.task} (row {row.number})" for row in report.failed[:_MAX_NAMED])
        more = f" and {n_failed - _MAX_NAMED:,} more" if n_failed > _MAX_NAMED else ""
        output.fail(
            f"{n_failed:,} of {total:,} rows could not be embedded: {names}{more}. The same command tries "
            f"them again; {report.failures} says why each failed."
        )


def _standing(manifest: "Manifest", out: Path, found: "ManifestStatus") -> tuple[dict[str, object], Any]:
    """How much is done, as values and in words."""
    from dataclasses import asdict

    values = {
        "manifest": str(manifest.path),
        "folder": str(out),
        "n_rows": found.n_rows,
        "n_done": len(found.done),
        "n_failed": len(found.failed),
        "n_missing": len(found.missing),
        "failures": [asdict(item) for item in found.failed],
        "missing": [{"row": row.number, "name": row.task, "data": row.data} for row in found.missing],
        "spaces": dict(found.spaces),
        "problems": list(found.problems),
    }
    rows = [
        ("done", f"{len(found.done):,} of {found.n_rows:,} rows in {out}"),
        ("failed", f"{len(found.failed):,}"),
        ("missing", f"{len(found.missing):,}"),
        ("spaces", ", ".join(f"{id} ({n:,})" for id, n in found.spaces.items()) or "–"),
        *((f"row {item.row}", f"{item.name}: {item.message}") for item in found.failed[:_MAX_NAMED]),
        *(("problem", _words(text)) for text in found.problems[:_MAX_NAMED]),
    ]
    return values, facts(rows)


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """A request to end, as batch systems send before they kill, is as an interrupt of the user's."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
