"""``t2v pull``: the embeddings in the card of a repository, as files where they are wanted."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t2v_hub.cli import options as opt
from t2v_hub.cli import repository as hub
from t2v_hub.cli.destination import SUFFIX, check_parent, check_replaceable, file_for
from t2v_hub.cli.flags import in_flags
from t2v_hub.cli.measuring import summary
from t2v_hub.cli.output import reflowed, session, share
from t2v_hub.errors import StorageError, T2VError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from t2v_hub.card import CardEntry
    from t2v_hub.embedding import TaskEmbedding

_EXAMPLES = """[bold]Examples[/bold]

$ t2v pull org/birds-vit

$ t2v pull org/birds-vit -o birds.safetensors --space s0123456789abcde

$ t2v pull org/birds --repo-type dataset -o embeddings/"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("pull", help=reflowed(pull.__doc__), epilog=_EXAMPLES)(pull)


def pull(
    repo: Annotated[str, typer.Argument(metavar="REPO", help="The repository on the Hub, org/name.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE|DIR",
            show_default=False,
            help="Where to write the embeddings: a .safetensors file for a single one, else a folder that "
            "exists. Default: they are listed, and not written.",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            show_default=False,
            help="Replace whatever a file to be written holds. Default: leave every other file as it is, "
            "since what was measured here is more exact than what a card holds.",
        ),
    ] = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    repo_type: hub.RepoType = None,
    space: hub.SpaceId = None,
    revision: hub.Revision = None,
    endpoint: hub.Endpoint = None,
) -> None:
    """List the embeddings in the card of a repository, or write them to files.

    Cards are written by strangers: each embedding is checked against its digest and its space, and one that
    cannot be used is named and left out. Its values have the precision of float16, and it comes without what
    distances need for standard errors of their own.
    """
    if out is not None and out.suffix != SUFFIX and not out.is_dir():
        raise typer.BadParameter(
            f"{str(out)!r} must end in {SUFFIX}, or be a folder that exists.", param_hint="'--out' / '-o'"
        )
    with session(as_json=as_json, quiet=quiet) as output:
        from t2v_hub.hub import pull_embeddings

        check_parent(out)
        kind: hub.RepoTypeName = repo_type or "model"
        id = hub.repository_id(repo, kind)
        connection = hub.connected(output, endpoint)
        found = pull_embeddings(id, repo_type=kind, revision=revision, connection=connection)
        entries = [entry for entry in found.entries if space in (None, entry.embedding.space.id)]
        files: dict[int, Path] = {}
        failures: dict[str, T2VError] = {}
        if out is not None:
            files, failures = _written(entries, id, out, overwrite=overwrite)
        values = {
            "repository": id,
            "repo_type": kind,
            "opted_out": found.opted_out,
            "embeddings": [
                {
                    **summary(entry.embedding),
                    "role": entry.role,
                    "file": str(files[number]) if number in files else None,
                }
                for number, entry in enumerate(entries)
            ],
            "skipped": list(found.skipped),
            "failures": [
                {"file": path, "type": type(error).__name__, "message": in_flags(str(error))}
                for path, error in failures.items()
            ],
        }
        output.result(values, *_text(id, entries, files))
        if found.opted_out:
            output.note(f"The owner of {id} wants no embeddings in its card (task2vec: false).")
        elif not entries and found.entries:
            others = sorted({entry.embedding.space.id for entry in found.entries})
            output.warn(f"It has embeddings in other spaces than {space}: {', '.join(others)}.")
        for error in failures.values():
            output.fail(in_flags(str(error)))
        if out is not None and not entries:
            output.fail(f"There is nothing to write to {str(out)!r}.")
        if failures or (out is not None and not entries):
            raise typer.Exit(1)


def _written(
    entries: "Sequence[CardEntry]", repo: str, out: Path, *, overwrite: bool
) -> tuple[dict[int, Path], dict[str, T2VError]]:
    """Files of the embeddings by their number, and what could not be written, by its path."""
    alone = out.suffix == SUFFIX and not out.is_dir()
    if alone and len(entries) > 1:
        spaces = sorted({entry.embedding.space.id for entry in entries})
        hint = f", or one space with --space ({', '.join(spaces)})" if len(spaces) == len(entries) else ""
        raise StorageError(
            f"Cannot write {len(entries)} embeddings into the one file {str(out)!r}. Give a folder with -o"
            f"{hint}."
        )
    files: dict[int, Path] = {}
    failures: dict[str, T2VError] = {}
    taken: list[Path] = []
    for number, entry in enumerate(entries):
        path = _path(entry, repo, out, taken)
        taken.append(path)
        try:
            if overwrite or not _is_there(path, entry.embedding):
                entry.embedding.save(path)
        except T2VError as error:
            failures[str(path)] = error
        else:
            files[number] = path
    return files, failures


def _path(entry: "CardEntry", repo: str, out: Path, taken: Sequence[Path]) -> Path:
    """Where an embedding goes; one of a data set without a name is called for the repository."""
    from dataclasses import replace

    from t2v_hub.card import LOCAL

    task = entry.embedding.task
    if task.id == LOCAL:
        task = replace(task, id=f"{repo}-{LOCAL}")
    return file_for(task, out, split=task.split, taken=taken)


def _is_there(path: Path, embedding: "TaskEmbedding") -> bool:
    """Whether the file holds this very embedding.

    Raises:
        StorageError: It holds something else.
    """
    from t2v_hub.embedding import TaskEmbedding

    if not path.exists():
        return False
    check_replaceable(path, embedding.task, embedding.space)
    if TaskEmbedding.load(path) == embedding:
        return True
    raise StorageError(
        f"{str(path)!r} holds another measurement of {embedding.task.id!r}, perhaps a more exact one. Pass "
        f"another -o, or --overwrite to replace it."
    )


def _text(repo: str, entries: "Sequence[CardEntry]", files: dict[int, Path]) -> "list[RenderableType]":
    from rich.table import Table
    from rich.text import Text

    n = len(entries)
    text: list[Any] = [f"{n or 'No'} embedding{'' if n == 1 else 's'} in the card of {repo}"]
    if not entries:
        return text
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = ["task", "split", "role", "images>", "classes>", "std. error>", "space"]
    for name in [*columns, *(["written to"] if files else [])]:
        right = name.endswith(">")
        table.add_column(
            name.rstrip(">"), justify="right" if right else "left", overflow="fold", no_wrap=right
        )
    for number, entry in enumerate(entries):
        task, how = entry.embedding.task, entry.embedding.measurement
        table.add_row(
            Text(task.id),
            Text(task.split or "–"),
            entry.role,
            f"{how.n_samples:,}",
            f"{task.n_classes:,}",
            share(how.standard_error),
            entry.embedding.space.id,
            *([str(files.get(number, "–"))] if files else []),
        )
    return [*text, "", table]
