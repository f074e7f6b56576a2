"""``t2v push``: an embedding into the card of a repository."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from t2v_hub.cli import options as opt
from t2v_hub.cli import repository as hub
from t2v_hub.cli.output import Output, reflowed, session

if TYPE_CHECKING:
    from t2v_hub.embedding import TaskEmbedding
    from t2v_hub.hub import PushResult

_EXAMPLES = """[bold]Examples[/bold]

$ t2v push me/pets-resnet pets.safetensors --dry-run --diff

$ t2v push me/pets-resnet pets.safetensors

$ t2v push me/pets pets.safetensors --repo-type dataset"""

RoleName = Literal["finetune", "pretrain", "self"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("push", help=reflowed(push.__doc__), epilog=_EXAMPLES)(push)


def push(
    repo: Annotated[str, typer.Argument(metavar="REPO", help="The repository on the Hub, org/name.")],
    embedding: Annotated[
        Path, typer.Argument(metavar="EMBEDDING_FILE", help="An embedding file of `t2v embed`.")
    ],
    role: Annotated[
        RoleName | None,
        typer.Option(
            "--role",
            show_default=False,
            help="What the measured data set is to the repository: its checkpoint was fine-tuned on it, or "
            "pretrained on it, or the repository is that data set itself. Default: finetune; self where "
            "--repo-type is dataset.",
        ),
    ] = None,
    publish_names: Annotated[
        bool,
        typer.Option(
            "--publish-names",
            show_default=False,
            help="Also write the names of classes, and the name and fingerprint of data that is not on the "
            "Hub. Default: those stay here, and such data is called local.",
        ),
    ] = False,
    dry_run: hub.DryRun = False,
    diff: hub.Diff = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    repo_type: Annotated[
        hub.RepoTypeName | None,
        typer.Option(
            "--repo-type",
            rich_help_panel="Hub",
            show_default=False,
            help="What kind of repository it is. Default: dataset where --role is self, else model.",
        ),
    ] = None,
    create_pr: hub.CreatePr = None,
    revision: hub.Branch = None,
    message: Annotated[
        str | None,
        typer.Option(
            "--message",
            "-m",
            metavar="TEXT",
            rich_help_panel="Hub",
            show_default=False,
            help="Subject of the commit, or title of the pull request. Default: one that names the data set.",
        ),
    ] = None,
    endpoint: hub.Endpoint = None,
) -> None:
    """Write an embedding into the card of a checkpoint or data set on the Hub.

    It goes into the metadata of README.md, with two tags by which it is found; everything else there stays
    as it is, to the byte. An earlier embedding of the same data in the same space is replaced. Where you may
    not write, a pull request is opened. The token is that of `hf auth login` or of HF_TOKEN.
    """
    hub.check_diff(diff=diff, dry_run=dry_run)
    with session(as_json=as_json, quiet=quiet) as output:
        from t2v_hub.embedding import TaskEmbedding
        from t2v_hub.hub import push_embedding

        as_what: RoleName = role or ("self" if repo_type == "dataset" else "finetune")
        kind: hub.RepoTypeName = repo_type or ("dataset" if as_what == "self" else "model")
        id = hub.repository_id(repo, kind)
        measured = TaskEmbedding.load(embedding)
        connection = hub.connected(output, endpoint)
        result = push_embedding(
            id,
            measured,
            role=as_what,
            create_pr=create_pr,
            publish_names=publish_names,
            dry_run=dry_run,
            repo_type=kind,
            revision=revision,
            commit_message=message,
            connection=connection,
        )
        called = _name_in_card(measured, id, as_what, publish_names=publish_names)
        values = {
            **hub.values(result, connection, kind),
            "data_set": called,
            "role": as_what,
            "space": measured.space.id,
        }
        if dry_run:
            unchanged = f"The embedding is there already, in the card of {result.repo_id}; nothing to change."
            hub.rehearsed(output, result, values, diff=diff, unchanged=unchanged)
        else:
            address = result.pull_request or hub.commit_address(result, connection, kind)
            output.result(
                {**values, "dry_run": False},
                *hub.lines(_said(result, id if as_what == "self" else measured.task.id), address),
            )
        if result.changed:
            _note_names(output, measured, id, called, publish_names=publish_names)


def _said(result: "PushResult", task: str) -> str:
    if not result.changed:
        where = "a pull request for" if result.pull_request else "the card of"
        return f"The embedding is there already, in {where} {result.repo_id}; nothing to change"
    if result.pull_request:
        return f"The embedding of {task} waits in a pull request for {result.repo_id}"
    return f"Wrote the embedding of {task} to the card of {result.repo_id}, commit {result.commit}"


def _name_in_card(embedding: "TaskEmbedding", id: str, role: RoleName, *, publish_names: bool) -> str:
    """What the card calls the data set."""
    from t2v_hub.card import entry_values

    if role == "self":
        return id
    data = entry_values(embedding, role=role, publish_names=publish_names)["dataset"]
    assert isinstance(data, dict)
    return str(data["id"])


def _note_names(
    output: Output, embedding: "TaskEmbedding", id: str, called: str, *, publish_names: bool
) -> None:
    """Say what was left out of the card, and where a file may be meant for another one."""
    from t2v_hub.card import LOCAL

    task = embedding.task
    if called == LOCAL and not publish_names:
        n = len(task.class_names)
        classes = f" and the names of its {n:,} classes" if n else ""
        output.note(
            f"The card calls the data set {LOCAL!r}: its name, {task.id!r},{classes} stayed here. To publish "
            f"them, add --publish-names."
        )
    elif called == id and re.fullmatch(r"[\w.-]+/[\w.-]+", task.id) and task.id.casefold() != id.casefold():
        output.warn(f"The file is the embedding of {task.id!r}; the card of {id!r} calls it its own.")
