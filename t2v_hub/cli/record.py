"""``t2v catalog record``: errors that checkpoints reached on tasks, kept beside the candidates."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from t2v_hub.cli import options as opt
from t2v_hub.cli.candidate import counted as candidates_in_words
from t2v_hub.cli.destination import SUFFIX
from t2v_hub.cli.measuring import absent
from t2v_hub.cli.output import Output, reflowed, session
from t2v_hub.cli.results import checkpoint_id, counted, folder_of, plural
from t2v_hub.errors import CheckpointError, SettingsError

if TYPE_CHECKING:
    from t2v_hub.catalog import Catalog, Result
    from t2v_hub.embedding import TaskEmbedding

_EXAMPLES = """[bold]Examples[/bold]

$ t2v catalog record pets.safetensors org/birds-vit 0.083 --n 200 --seed 0

$ t2v catalog record --table results.csv --embedding pets.safetensors --embedding leaves.safetensors"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("record", help=reflowed(record.__doc__), epilog=_EXAMPLES)(record)


def record(
    task: Annotated[
        str | None,
        typer.Argument(
            metavar="TASK",
            show_default=False,
            help="An embedding file of `t2v embed`, which is kept too, and lets distances be learned; or the "
            "task's id alone.",
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Argument(
            metavar="CHECKPOINT",
            show_default=False,
            help="A candidate, or one that may be added later: a folder, or a repository.",
        ),
    ] = None,
    error: Annotated[
        float | None,
        typer.Argument(
            metavar="ERROR",
            show_default=False,
            help="Share of test images that it got wrong, from 0 to 1.",
        ),
    ] = None,
    catalog: opt.CatalogFolder = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n",
            metavar="N",
            min=1,
            show_default=False,
            help="Training images that it was reached with. Default: not known.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="N",
            min=0,
            show_default=False,
            help="Which split or repetition; one seed stands for the same split of a task for every "
            "checkpoint. Default: not known.",
        ),
    ] = None,
    n_test: Annotated[
        int | None,
        typer.Option(
            "--n-test",
            metavar="N",
            min=1,
            show_default=False,
            help="Test images behind it. Default: not known.",
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--table",
            metavar="FILE",
            show_default=False,
            help="Instead of one result, all of a CSV or parquet file: columns task, checkpoint and error "
            "(or accuracy), and, where known, n, seed and n_test. Default: none.",
        ),
    ] = None,
    embedding: Annotated[
        list[Path] | None,
        typer.Option(
            "--embedding",
            metavar="FILE",
            show_default=False,
            help="With --table, the embedding file of a task in it. May be repeated. Default: none.",
        ),
    ] = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Keep the test error that a checkpoint reached on a task; the next one of the same replaces it.

    From such results distances can be learned, and it can be told whether rankings help on your own pool.
    A result is replaced by one of the same task, checkpoint, --n and --seed. Of a table, all rows are
    kept, or none.
    """
    with session(as_json=as_json, quiet=quiet) as output:
        from t2v_hub.catalog import Catalog, Result, load_results

        place = Catalog(catalog)
        if table is not None:
            if any(value is not None for value in (task, checkpoint, error, n, seed, n_test)):
                raise SettingsError("--table brings all of a result; of the others, give only --embedding.")
            read = load_results(table)
            if read.unused:
                output.note(f"columns that were not used: {', '.join(read.unused)}")
            ids = {id: checkpoint_id(place, id) for id in {item.checkpoint for item in read.results}}
            new = [replace(item, checkpoint=ids[item.checkpoint]) for item in read.results]
            new, embeddings = _with_embeddings(new, embedding or ())
        else:
            if task is None or checkpoint is None or error is None:
                raise SettingsError("Wanted TASK, CHECKPOINT and ERROR, or --table FILE.")
            if embedding:
                raise SettingsError("--embedding goes with --table; give the embedding file as TASK.")
            id, embeddings = _task(task)
            digest = embeddings[0].digest if embeddings else None
            name = _checkpoint(place, checkpoint)
            new = [Result(id, name, error, n=n, seed=seed, n_test=n_test, embedding=digest)]
        before = {result.key for result in place.results(origin=None)}
        place.record_many(new, embeddings=embeddings)
        n_replaced = sum(result.key in before for result in new)
        n_results = len(before | {result.key for result in new})
        output.result(
            {
                "catalog": folder_of(place),
                "n_recorded": len(new),
                "n_replaced": n_replaced,
                "n_results": n_results,
                "recorded": [asdict(result) for result in new],
            },
            f"Recorded {counted(len(new))} in {folder_of(place)} ({n_replaced:,} replaced), which has "
            f"{counted(n_results)} now",
        )
        _note(output, place, new)


def _task(text: str) -> "tuple[str, list[TaskEmbedding]]":
    """Id of the task, and its embedding where a file is given."""
    from t2v_hub.embedding import TaskEmbedding

    path = Path(text).expanduser()
    if path.is_file() or path.suffix == SUFFIX:
        embedding = TaskEmbedding.load(path)
        return embedding.task.id, [embedding]
    if absent(text):
        raise SettingsError(f"No such file: {text!r}. Wanted an embedding file, or the id of a task.")
    return text, []


def _checkpoint(catalog: "Catalog", text: str) -> str:
    """Id of the checkpoint: as the catalog has it, the whole path of a folder, or a repository."""
    id = checkpoint_id(catalog, text)
    if id not in catalog and absent(id):
        raise CheckpointError(
            f"No such file or folder: {text!r}. Wanted a folder, or a repository (org/name)."
        )
    return id


def _with_embeddings(
    results: "Sequence[Result]", files: Sequence[Path]
) -> "tuple[list[Result], list[TaskEmbedding]]":
    """The results of a table, with the digests of these embeddings where these are of their tasks."""
    from t2v_hub.embedding import TaskEmbedding

    given: dict[str, TaskEmbedding] = {}
    tasks = {result.task for result in results}
    for file in files:
        embedding = TaskEmbedding.load(file)
        id = embedding.task.id
        if id in given:
            raise SettingsError(f"Two of the --embedding files are of the task {id!r}; give one.")
        if id not in tasks:
            near = ", ".join(sorted(tasks)[:8])
            raise SettingsError(
                f"{str(file)!r} is the embedding of {id!r}, and the table has no result on that task. Its "
                f"tasks are: {near}{' and others' if len(tasks) > 8 else ''}."
            )
        given[id] = embedding
    named = [
        replace(result, embedding=given[result.task].digest) if result.task in given else result
        for result in results
    ]
    return named, list(given.values())


def _note(output: Output, catalog: "Catalog", new: "Sequence[Result]") -> None:
    """What is still lacking for distances to be learned from these."""
    bare = {result.task for result in new if result.embedding is None}
    if bare:
        output.note(
            f"{len(bare):,} task{plural(len(bare))} recorded without an embedding: distances are learned "
            f"only where one is known. `t2v embed` makes one."
        )
    unknown = {result.checkpoint for result in new if result.checkpoint not in catalog}
    if unknown:
        output.note(
            f"Not among the {candidates_in_words(len(catalog))} yet: {', '.join(sorted(unknown)[:5])}"
            f"{' and others' if len(unknown) > 5 else ''}; `t2v catalog add` adds one."
        )
