"""`JsonLog`: what a long command does, as one JSON object a line on stderr, for collectors of logs.

Each line has ``schema`` (``t2v-log/1``), ``time`` (UTC, ISO 8601), ``level`` (info, warning, error),
``event``, ``command``, ``host``, ``pid`` and ``shard`` (``i/n``, null where there is none). Then, by event:

=============  ==========================================================================================
start          manifest, folder, n_rows, n_in_shard, probe, space (embed); filters, limit, catalog, probe,
               space, dry_run (enrich)
embedding      row, name, data: a row is being embedded
done           row, name, data, file, seconds, n_samples, standard_error, space, digest
there          row, name, data, file: it had been embedded before
failed         row, name, data, type, message
data_set       id, n_checkpoints, state, reason (enrich)
card           id, data_set, state, url, reason (enrich)
note, warning  message
error          message, type where it is known, traceback of a defect: what ended the command
interrupted    message: the command was asked to stop
print          text: what another library printed
end            exit_code, seconds, and n_embedded, n_there, n_failed, n_files (embed); n_data_sets, n_cards,
               n_failed (enrich)
=============  ==========================================================================================

Later versions may add fields and events; numbers that are not known are null.
"""

import datetime
import io
import json
import os
import socket
import sys
from typing import TextIO

import typer

from t2v_hub.cli.output import plain

SCHEMA = "t2v-log/1"
VARIABLE = "T2V_LOG"
_LEVELS = {"warning": "warning", "interrupted": "warning", "failed": "error", "error": "error"}


class JsonLog:
    """Events of one command.

    Args:
        command: Which, such as ``embed``.
        shard: Which part of the work.
        file: Where to write; stderr, as it is now, by default.
    """

    def __init__(self, command: str, *, shard: str | None = None, file: TextIO | None = None) -> None:
        self.command = command
        self.shard = shard
        self._file = sys.stderr if file is None else file

    def event(self, event: str, **fields: object) -> None:
        """Write a line."""
        values: dict[str, object] = {
            "schema": SCHEMA,
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "level": "error" if fields.get("state") == "failed" else _LEVELS.get(event, "info"),
            "event": event,
            "command": self.command,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "shard": self.shard,
            **fields,
        }
        # ASCII, whatever the terminal's encoding; in one piece, as others may write to the same file.
        self._file.write(json.dumps(plain(values), allow_nan=False) + "\n")
        self._file.flush()

    def prints(self) -> TextIO:
        """A text file whose lines become events."""
        return _Prints(self)


class _Prints(io.StringIO):
    """Lines that other libraries print, as events."""

    def __init__(self, log: JsonLog) -> None:
        super().__init__()
        self._log = log
        self._begun = ""

    def write(self, text: str) -> int:
        """Take in some text; see `io.StringIO`."""
        *whole, self._begun = (self._begun + text).replace("\r", "\n").split("\n")
        for line in whole:
            if line.strip():
                self._log.event("print", text=line.rstrip())
        return len(text)

    def flush(self) -> None:
        """Nothing waits but a line that is not finished."""

    def close(self) -> None:
        """Take a line that was never finished as one."""
        self.write("\n")


def log_for(command: str, *, wanted: bool, shard: str | None = None) -> JsonLog | None:
    """The log where one is wanted, by ``--log-json`` or ``T2V_LOG=json``.

    Raises:
        typer.BadParameter: ``T2V_LOG`` says something else.
    """
    said = os.environ.get(VARIABLE, "").strip().casefold()
    if said not in ("", "json", "text"):
        raise typer.BadParameter(f"must be json, text or nothing, not {said!r}.", param_hint=VARIABLE)
    return JsonLog(command, shard=shard) if wanted or said == "json" else None
