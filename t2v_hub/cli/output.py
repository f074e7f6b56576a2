"""`Output`: results on stdout, everything else on stderr, and what an error turns into."""

import contextlib
import inspect
import json
import math
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

import typer

from t2v_hub.cli.flags import in_flags
from t2v_hub.cli.program import as_started
from t2v_hub.errors import SettingsError, T2VError, T2VWarning
from t2v_hub.storage import home

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from t2v_hub.cli.log import JsonLog

WRONG_USAGE = 2
INTERRUPTED = 130
# What the command line itself makes of: an end with a code, wrong usage, nobody who reads on.
_NO_DEFECT = (typer.Exit, typer.Abort, *typer.BadParameter.__mro__[1:3], BrokenPipeError)
_PIPE_WIDTH = 10_000  # a pipe has no width: nothing is cut or wrapped for it


class Output:
    """Where one command prints.

    Args:
        as_json: Print one JSON object instead of text; messages go to stderr in either case.
        quiet: Leave out messages and progress bars; results, warnings and errors stay.
        log: Where messages go in place of stderr, as events.
    """

    def __init__(self, *, as_json: bool, quiet: bool, log: "JsonLog | None" = None) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.log = log
        self._stdout, self._stderr = sys.stdout, sys.stderr

    @property
    def progress(self) -> bool:
        """Whether progress bars are wanted (they show on a terminal only)."""
        return not self.quiet and self.log is None

    def result(self, values: Mapping[str, object], *text: "RenderableType") -> None:
        """Print the command's result: the values as JSON, or the text.

        Words are wrapped to the window; what is aligned already, a `rich.text.Text`, is not.
        """
        from rich.text import Text

        if self.as_json:
            json.dump(plain(values), self._stdout, indent=2, allow_nan=False, ensure_ascii=False)
            self._stdout.write("\n")
            self._stdout.flush()
            return
        console = _console(self._stdout)
        for part in text:
            console.print(part, soft_wrap=isinstance(part, Text), markup=False, highlight=False)

    def raw(self, content: bytes) -> None:
        """Print bytes on stdout, just as they are."""
        self._stdout.flush()
        self._stdout.buffer.write(content)
        self._stdout.buffer.flush()

    def say(self, message: str) -> None:
        """A line of a longer report: on stdout, but on stderr where stdout is for JSON."""
        if self.as_json:
            self.note(message)
        else:
            _console(self._stdout).print(message, soft_wrap=True, markup=False, highlight=False)

    def note(self, message: str) -> None:
        """A message on the way, on stderr."""
        if not self.quiet:
            self._message("", message, "dim")

    def warn(self, message: str) -> None:
        """A warning in one line, on stderr."""
        self._message("warning: ", " ".join(message.split()), "yellow")

    def error(self, error: T2VError) -> None:
        """What went wrong: on stderr, and on stdout where that is for JSON."""
        message = as_started(in_flags(str(error)))
        if self.log is not None:
            self.log.event("error", type=type(error).__name__, message=message)
        else:
            self.fail(message)
        if self.as_json:
            self.result({"error": {"type": type(error).__name__, "message": message}})

    def fail(self, message: str) -> None:
        """An error in words, on stderr."""
        self._message("error: ", message, "bold red")

    def fits(self, renderable: "RenderableType") -> bool:
        """Whether a table can be printed without folding its cells."""
        from rich.console import Console

        wide = Console(width=_PIPE_WIDTH)
        return wide.measure(renderable).maximum <= _console(self._stdout).width

    def _message(self, label: str, message: str, style: str) -> None:
        from rich.text import Text

        message = as_started(message)
        if self.log is not None:
            self.log.event(label.removesuffix(": ") or "note", message=message)
            return
        text = Text.assemble((label, style), message) if label else Text(message, style=style)
        with _beside_bars(self._stderr):
            # One line, unless a person would see it broken in the middle of a word.
            _console(self._stderr).print(text, soft_wrap=not self._stderr.isatty())


@contextlib.contextmanager
def session(
    *, as_json: bool, quiet: bool, kept: bool | None = None, log: "JsonLog | None" = None
) -> Iterator[Output]:
    """An `Output` for the body of a command; errors and interrupts of the body become exit codes.

    Whatever other libraries print goes to stderr, and their warnings are not shown.

    Args:
        as_json: See `Output`.
        quiet: See `Output`.
        kept: Whether finished blocks of an interrupted measurement are kept; None where nothing is measured.
        log: See `Output`; what other libraries print becomes events, too.
    """
    output = Output(as_json=as_json, quiet=quiet, log=log)

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        ours = issubclass(category, T2VWarning)
        output.warn(in_flags(str(message)) if ours else f"{category.__name__}: {message}")

    printed = None if log is None else log.prints()
    aside = contextlib.nullcontext() if printed is None else contextlib.redirect_stderr(printed)
    with warnings.catch_warnings(), aside, contextlib.redirect_stdout(sys.stderr):
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        warnings.simplefilter("always", T2VWarning)
        warnings.showwarning = show
        try:
            yield output
        except T2VError as error:
            output.error(error)
            raise typer.Exit(WRONG_USAGE if isinstance(error, SettingsError) else 1) from error
        except KeyboardInterrupt as error:
            output._message("interrupted: ", _after_an_interrupt(kept), "yellow")
            raise typer.Exit(INTERRUPTED) from error
        except Exception as error:
            if log is None or isinstance(error, _NO_DEFECT):
                raise
            # A defect, of ours or another's: who collects lines finds it as a line, traceback and all.
            told = "".join(traceback.format_exception(error))
            log.event("error", type=type(error).__name__, message=str(error), traceback=told)
            raise typer.Exit(1) from error
        finally:
            if printed is not None:
                printed.close()


def reflowed(text: str | None) -> str:
    """The paragraphs of a docstring, each on one line, so that the help wraps them to the window."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text or "").split("\n\n"))


def facts(rows: Sequence[tuple[str, str]]) -> "RenderableType":
    """A table of names and values."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    return table


def number(value: float | None, digits: int = 3) -> str:
    """A number to so many digits; a dash where it is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{digits}g}"


def share(value: float | None) -> str:
    """A share in per cent; a dash where it is not known."""
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.2g} %"


def _console(file: TextIO) -> "Console":
    from rich.console import Console

    width = None if file.isatty() or os.environ.get("COLUMNS") else _PIPE_WIDTH
    return Console(file=file, width=width, highlight=False)


def _after_an_interrupt(kept: bool | None) -> str:
    if kept is None:
        return "the command did not finish."
    if not kept:
        return "no blocks of images are kept (--no-cache), so the same command starts anew."
    return (
        f"blocks of images that were finished are kept in {home() / 'embeddings'}, and the same command "
        f"goes on from them."
    )


@contextlib.contextmanager
def _beside_bars(file: TextIO) -> Iterator[None]:
    """Progress bars step aside while the body prints."""
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    if tqdm is None or not file.isatty():
        yield
        return
    with tqdm.external_write_mode(file=file):
        yield


def plain(value: object) -> object:
    """The value without what JSON cannot say: numbers that are not finite are null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
