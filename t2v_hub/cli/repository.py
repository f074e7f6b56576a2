"""A repository on the Hub as the commands name it: its options, and what became of its card."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from t2v_hub.cli.candidate import REPOSITORY
from t2v_hub.cli.output import Output
from t2v_hub.errors import SettingsError

if TYPE_CHECKING:
    from rich.text import Text

    from t2v_hub.hub import Connection, PushResult

RepoTypeName = Literal["model", "dataset"]

_HUB = "Hub"
_SPACE = re.compile(r"s[0-9a-f]{15}")
_DATASETS = "datasets/"


def _option(*names: str, help: str, panel: str | None = _HUB, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


def check_space(text: str | None) -> str | None:
    """The id of a space, also where it was copied from a tag."""
    if text is None:
        return None
    id = text.strip().removeprefix("t2v-space:")
    if not _SPACE.fullmatch(id):
        raise typer.BadParameter(f"{text!r} is no id of a space: wanted s and 15 hexadecimal digits.")
    return id


RepoType = Annotated[
    RepoTypeName | None,
    _option("--repo-type", help="What kind of repository it is. Default: model."),
]
Endpoint = Annotated[
    str | None,
    _option(
        "--endpoint",
        metavar="URL",
        help="Address of another Hub. Default: HF_ENDPOINT, or https://huggingface.co.",
    ),
]
Revision = Annotated[
    str | None,
    _option("--revision", metavar="REVISION", help="Branch, tag or commit to read. Default: main."),
]
Branch = Annotated[
    str | None, _option("--revision", metavar="BRANCH", help="Branch to commit to. Default: main.")
]
CreatePr = Annotated[
    bool | None,
    _option(
        "--create-pr/--no-create-pr",
        help="Open a pull request, or never. Default: commit where you may, open a pull request elsewhere.",
    ),
]
DryRun = Annotated[
    bool,
    _option(
        "--dry-run",
        panel=None,
        help="Write nothing, and print README.md as it would be, byte for byte. Default: write it.",
    ),
]
Diff = Annotated[
    bool,
    _option(
        "--diff",
        panel=None,
        help="With --dry-run: print what would change instead. Default: all of README.md.",
    ),
]
SpaceId = Annotated[
    str | None,
    _option(
        "--space", metavar="ID", callback=check_space, help="Only embeddings of this space. Default: all."
    ),
]


def repository_id(text: str, repo_type: RepoTypeName | None) -> str:
    """The text, where it can be the id of a repository.

    Raises:
        SettingsError: It cannot; the message says what can.
    """
    if text.startswith(_DATASETS) and REPOSITORY.fullmatch(text.removeprefix(_DATASETS)):
        id = text.removeprefix(_DATASETS)
        raise SettingsError(f"{text!r}: write a data set as {id} --repo-type dataset.")
    if not REPOSITORY.fullmatch(text):
        kind = "data set" if repo_type == "dataset" else "model"
        raise SettingsError(f"{text!r} is no id of a {kind} on the Hub; wanted one such as org/name.")
    return text


def connected(output: Output, endpoint: str | None) -> "Connection":
    """A connection to the Hub that is meant; its token is that of ``HF_TOKEN`` or of ``hf auth login``."""
    from t2v_hub.hub import Connection

    return Connection(endpoint=endpoint, progress=output.progress)


def check_diff(*, diff: bool, dry_run: bool) -> None:
    """Return unless ``--diff`` stands alone, which somebody may take for a rehearsal."""
    if diff and not dry_run:
        raise typer.BadParameter("goes with --dry-run.", param_hint="'--diff'")


def commit_address(result: "PushResult", connection: "Connection", repo_type: str) -> str | None:
    """Where to see the commit, where there is one."""
    if result.commit is None:
        return None
    kind = "" if repo_type == "model" else _DATASETS
    return f"{connection.endpoint}/{kind}{result.repo_id}/commit/{result.commit}"


def lines(said: str, address: str | None) -> "list[str | Text]":
    """What is said and, on a line that is not broken, the address to look at."""
    from rich.text import Text

    return [said] if address is None else [said, Text(address)]


def values(result: "PushResult", connection: "Connection", repo_type: str) -> dict[str, object]:
    """What became of the card of a repository, as plain values."""
    return {
        "repository": result.repo_id,
        "repo_type": repo_type,
        "changed": result.changed,
        "commit": result.commit,
        "commit_url": commit_address(result, connection, repo_type),
        "pull_request": result.pull_request,
    }


def rehearsed(
    output: Output, result: "PushResult", facts: dict[str, object], *, diff: bool, unchanged: str
) -> None:
    """Print a card as it would be, and nothing else on stdout.

    Args:
        output: Where to print.
        result: What would become of the card.
        facts: What JSON says beside its content and the diff.
        diff: Print the difference instead.
        unchanged: What to say where there is none.
    """
    if output.as_json:
        try:
            content = result.content.decode()
        except UnicodeDecodeError:
            output.warn(
                "README.md is not UTF-8 throughout; what is not shows as � here. Without --json it is exact."
            )
            content = result.content.decode("utf-8", "replace")
        output.result({**facts, "dry_run": True, "content": content, "diff": result.diff})
    else:
        output.raw(result.diff.encode() if diff else result.content)
    output.note("Nothing was written (--dry-run)." if result.changed else unchanged)


def readme_at(text: str) -> Path | None:
    """The README that a text names on this machine, itself or by its folder; None where it names none."""
    path = Path(text).expanduser()
    if path.is_dir():
        path /= "README.md"
    return path if path.is_file() else None
