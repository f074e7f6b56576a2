"""``t2v card``: look after the embeddings in cards, on disk and on the Hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from t2v_hub.cli import options as opt
from t2v_hub.cli import repository as hub
from t2v_hub.cli.checking import CheckedCard, checked, unreadable
from t2v_hub.cli.measuring import absent
from t2v_hub.cli.output import Output, reflowed, session
from t2v_hub.errors import CardError, HubError, SettingsError, StorageError

if TYPE_CHECKING:
    from t2v_hub.hub import Connection, PushResult

_CHECK = """[bold]Examples[/bold]

$ t2v card check README.md

$ t2v card check me/pets-resnet me/birds-vit --json"""
_REMOVE = """[bold]Examples[/bold]

$ t2v card remove README.md --dataset org/pets

$ t2v card remove me/pets-resnet --space s0123456789abcde --dry-run --diff"""
_CARD = "A README.md on disk, a folder that has one, or a repository on the Hub (org/name)."

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Look after the embeddings in cards, on disk and on the Hub.\n\n"
    "A README.md on disk needs no network; a folder or file here goes before a repository of that name.",
    epilog="[bold]Example[/bold]\n\n$ t2v card check README.md",
)


def check(
    cards: Annotated[list[str], typer.Argument(metavar="FILE_OR_REPO", help=f"{_CARD} One or more.")],
    repo_type: Annotated[
        hub.RepoTypeName | None,
        typer.Option(
            "--repo-type",
            rich_help_panel="Hub",
            show_default=False,
            help="What kind of repository the cards are of. Default: model on the Hub; not asked of a file.",
        ),
    ] = None,
    revision: hub.Revision = None,
    endpoint: hub.Endpoint = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Check our part of cards: each entry, the tags, the size, and whether the owner wants it.

    An entry is OK when a reader on another machine can use it: spec, space, lengths, digest, values. The exit
    code is 1 where something is wrong; large entries, and an owner who wants none, are not wrong.
    """
    with session(as_json=as_json, quiet=quiet) as output:
        found = [_checked(output, text, repo_type, revision, endpoint) for text in cards]
        lines = (line for card in found for line in card.lines)
        output.result({"cards": [card.to_dict() for card in found]}, *lines)
        wrong = [card.name for card in found if card.n_wrong]
        if wrong and len(found) > 1:
            output.fail(f"{len(wrong)} of {len(found)} cards are not in order: {', '.join(wrong)}.")
        if wrong:
            raise typer.Exit(1)


def remove(
    card: Annotated[str, typer.Argument(metavar="FILE_OR_REPO", help=_CARD)],
    space: Annotated[
        str | None,
        typer.Option(
            "--space", metavar="ID", show_default=False, help="Only embeddings of this space. Default: all."
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            metavar="ID",
            show_default=False,
            help="Only embeddings of this data set, as the card calls it. Default: all.",
        ),
    ] = None,
    dry_run: hub.DryRun = False,
    diff: hub.Diff = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    repo_type: hub.RepoType = None,
    create_pr: hub.CreatePr = None,
    revision: hub.Branch = None,
    endpoint: hub.Endpoint = None,
) -> None:
    """Take embeddings out of a card, and the tags that only they needed; all else stays, to the byte.

    A file is changed in place, a repository by a commit, or by a pull request where you may not write.
    """
    hub.check_diff(diff=diff, dry_run=dry_run)
    with session(as_json=as_json, quiet=quiet) as output:
        path = _local(card)
        if path is not None:
            _check_local_options(card, create_pr=create_pr, revision=revision)
            result = _removed_here(path, space, dataset, dry_run=dry_run)
            _report(output, result, {"file": str(path)}, str(path), None, dry_run=dry_run, diff=diff)
            return
        from t2v_hub.hub import remove_embeddings

        kind: hub.RepoTypeName = repo_type or "model"
        id = hub.repository_id(card, kind)
        connection = hub.connected(output, endpoint)
        result = remove_embeddings(
            id,
            space=space,
            dataset=dataset,
            create_pr=create_pr,
            dry_run=dry_run,
            repo_type=kind,
            revision=revision,
            connection=connection,
        )
        values = hub.values(result, connection, kind)
        address = result.pull_request or hub.commit_address(result, connection, kind)
        _report(output, result, values, result.repo_id, address, dry_run=dry_run, diff=diff)


def _local(text: str) -> Path | None:
    """The README on disk that is meant; None where it is a repository.

    Raises:
        CardError: It can only be a path, and no README is there.
    """
    path = hub.readme_at(text)
    if path is None and (absent(text) or text.lower().endswith(".md") or Path(text).expanduser().exists()):
        raise CardError(f"There is no README.md at {text!r}. Check the path; a repository is named org/name.")
    return path


def _checked(
    output: Output,
    text: str,
    repo_type: hub.RepoTypeName | None,
    revision: str | None,
    endpoint: str | None,
) -> CheckedCard:
    try:
        path = _local(text)
        if path is not None:
            return checked(text, _content(path), repo_type=repo_type)
        kind: hub.RepoTypeName = repo_type or "model"
        content = _on_hub(hub.connected(output, endpoint), hub.repository_id(text, kind), kind, revision)
        return checked(text, content, repo_type=kind)
    except (CardError, HubError, StorageError) as error:
        return unreadable(text, error)


def _on_hub(connection: "Connection", id: str, kind: hub.RepoTypeName, revision: str | None) -> bytes:
    from t2v_hub.hub.changes import read_card

    return read_card(connection, id, repo_type=kind, revision=revision).content


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from error


def _check_local_options(card: str, *, create_pr: bool | None, revision: str | None) -> None:
    for name, value in (("--create-pr", create_pr), ("--revision", revision)):
        if value is not None:
            raise SettingsError(f"{card!r} is a file here, and {name} is for repositories. Leave it out.")


def _removed_here(path: Path, space: str | None, dataset: str | None, *, dry_run: bool) -> "PushResult":
    """Change a README on disk."""
    from t2v_hub.card import Readme
    from t2v_hub.hub import PushResult
    from t2v_hub.hub.cards import without_entries
    from t2v_hub.storage import write_atomically

    before = _content(path)
    content = without_entries(Readme.parse(before), space=space, dataset=dataset)
    if content != before and not dry_run:
        write_atomically(path.resolve(), content)  # a link stays a link
    return PushResult(str(path), None, None, content != before, content, before)


def _report(
    output: Output,
    result: "PushResult",
    values: dict[str, object],
    where: str,
    address: str | None,
    *,
    dry_run: bool,
    diff: bool,
) -> None:
    from t2v_hub.card import Readme

    n_left = len(Readme.parse(result.content).items)
    n = len(Readme.parse(result.before).items) - n_left
    values = {"changed": result.changed, **values, "n_removed": n, "n_left": n_left}
    unchanged = f"{where} has no such embedding; there is nothing to remove"
    if dry_run:
        hub.rehearsed(output, result, values, diff=diff, unchanged=f"{unchanged}.")
        return
    done = f"Removed {n:,} embedding{'' if n == 1 else 's'} from {where}, which has {n_left:,} now"
    if result.pull_request:
        done = f"A pull request for {where} removes {n:,} embedding{'' if n == 1 else 's'}"
    elif not n:
        done = f"Removed tags of embeddings that are no longer there from {where}"
    text = done if result.changed else unchanged
    output.result({**values, "dry_run": False}, *hub.lines(text, address))


for _name, _command, _examples in (("check", check, _CHECK), ("remove", remove, _REMOVE)):
    app.command(_name, help=reflowed(_command.__doc__), epilog=_examples)(_command)
