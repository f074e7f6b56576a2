"""``t2v catalog``: the candidates that rankings choose from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from t2v_hub.cli import candidate as show_as
from t2v_hub.cli import options as opt
from t2v_hub.cli.conditions import amount
from t2v_hub.cli.measuring import (
    check_probe,
    given,
    images,
    note_other_space,
    space_settings,
    summary,
    task2vec,
    task2vec_beside,
    task2vec_of,
)
from t2v_hub.cli.output import reflowed, session
from t2v_hub.errors import EmbeddingFileError, SettingsError, StorageError

if TYPE_CHECKING:
    from t2v_hub.catalog import Catalog
    from t2v_hub.embedding import TaskEmbedding

LibraryName = Literal["transformers", "timm"]
_ADD = """[bold]Examples[/bold]

$ t2v catalog add ./pets-resnet --data ./pets

$ t2v catalog add org/birds-vit --embedding birds.safetensors --licence apache-2.0 --parameters 86M

$ t2v catalog add timm/resnet18.a1_in1k --upstream-accuracy 0.715"""
_FACT = "Facts"


def _fact(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, rich_help_panel=_FACT, show_default=False, help=help, **more)


def _example(*commands: str) -> str:
    return "\n\n".join(["[bold]Example[/bold]", *(f"$ {command}" for command in commands)])


app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Keep a catalog: checkpoints, what they were trained on, and what is known of them for free.\n\n"
    "A catalog is a folder; several processes may read and write it at once.",
    epilog=_example("t2v catalog add ./pets-resnet --data ./pets", "t2v catalog list"),
)


def add(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A folder with config.json and model.safetensors, or a Hub repository (org/name), which is "
            "noted down and not looked up.",
        ),
    ],
    catalog: opt.CatalogFolder = None,
    embedding: Annotated[
        list[Path] | None,
        typer.Option(
            "--embedding",
            metavar="FILE",
            show_default=False,
            help="Embedding file of data that it was trained on. May be repeated. Default: none.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DATA",
            show_default=False,
            help="Or the data itself, which is measured now: in the space of the catalog's other embeddings, "
            "or with their probe where an option changes the space. Default: none.",
        ),
    ] = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    source: Annotated[
        str | None,
        _fact(
            "--source", metavar="ID", help="Data set it was trained on. Default: the task of its embedding."
        ),
    ] = None,
    library: Annotated[
        LibraryName | None,
        _fact("--library", help="Library that loads it. Default: read off a folder's config.json."),
    ] = None,
    revision: Annotated[
        str | None,
        _fact("--revision", metavar="COMMIT", help="Commit of the repository. Default: not known."),
    ] = None,
    parameters: Annotated[
        str | None,
        _fact(
            "--parameters",
            metavar="N",
            help="How many numbers the network has; 86M is understood. Default: read off a folder's "
            "model.safetensors.",
        ),
    ] = None,
    licence: Annotated[
        str | None,
        _fact(
            "--licence",
            "--license",
            metavar="NAME",
            help="As the Hub spells it: apache-2.0. Default: not known.",
        ),
    ] = None,
    upstream_accuracy: Annotated[
        float | None,
        _fact(
            "--upstream-accuracy",
            metavar="X",
            min=0.0,
            max=1.0,
            help="Accuracy on its own data, such as ImageNet top-1, from 0 to 1. Default: not known.",
        ),
    ] = None,
    downloads: Annotated[
        int | None, _fact("--downloads", metavar="N", min=0, help="Downloads on the Hub. Default: not known.")
    ] = None,
    likes: Annotated[
        int | None, _fact("--likes", metavar="N", min=0, help="Likes on the Hub. Default: not known.")
    ] = None,
    gated: Annotated[
        bool | None,
        _fact("--gated/--not-gated", help="Whether access must be requested. Default: not known."),
    ] = None,
    split: opt.Split = None,
    image_column: opt.ImageColumn = None,
    label_column: opt.LabelColumn = None,
    config: opt.Config = None,
    data_revision: opt.DataRevision = None,
    name: opt.Name = None,
    small_classes: opt.SmallClasses = None,
    max_samples: opt.MaxSamples = None,
    seed: opt.Seed = None,
    dtype: opt.Dtype = None,
    device: opt.Device = None,
    no_cache: opt.NoCache = False,
    probe: opt.Probe = None,
    image_size: opt.ImageSize = None,
    filters: opt.Filters = None,
    head: opt.Head = None,
    head_strength: opt.HeadStrength = None,
) -> None:
    """Add a checkpoint to the catalog, or add to what is known of it.

    A checkpoint is ranked by the embedding of the data that it was trained on: give the embedding, or the
    data to measure. Of a local folder, library and size are read off its files; its weights are not loaded.
    For a checkpoint that is there already, facts that are given replace the old ones.
    """
    with session(as_json=as_json, quiet=quiet, kept=not no_cache) as output:
        from t2v_hub.catalog import Candidate, Catalog
        from t2v_hub.embedding import TaskEmbedding

        place = Catalog(catalog)
        data_options = given(
            split=split,
            image_column=image_column,
            label_column=label_column,
            config=config,
            revision=data_revision,
            name=name,
            small_classes=small_classes,
        )
        settings = given(max_samples=max_samples, seed=seed, dtype=dtype, device=device)
        own_space = space_settings(
            image_size=image_size,
            filters=filters,
            normalisation=False,
            sampling=None,
            head=head,
            head_strength=head_strength,
            within=next(iter(place.spaces()), None) if probe is None else None,
        )
        if data is None and (data_options or settings or own_space or probe):
            raise SettingsError("Options of data and measuring go with --data, and there is none.")
        count = None if parameters is None else int(amount("parameters", parameters))
        id, library, count = show_as.identified(checkpoint, output, library=library, parameters=count)
        embeddings = [TaskEmbedding.load(file) for file in embedding or ()]
        spaces = [item.space for item in embeddings]
        if data is not None:
            check_probe(probe)
            task = images(output, data, seed=seed, **data_options)
            if not place.spaces() or (own_space and probe is not None):
                embedder = task2vec(output, probe, no_cache=no_cache, **settings, **own_space)
            elif own_space:
                embedder = task2vec_beside(place, output, no_cache=no_cache, changes=own_space, **settings)
            else:
                embedder = task2vec_of(place, output, probe, no_cache=no_cache, **settings)
            spaces.append(embedder.space(multi_label=task.multi_label))
        for space in dict.fromkeys(spaces):
            note_other_space(output, place, id, space)
        if data is not None:
            embeddings.append(embedder.embed(task))
        candidate = Candidate(
            id,
            library=library,
            parameters=count,
            revision=revision,
            source=source or (embeddings[0].task.id if embeddings else None),
            embeddings=embeddings,
            licence=licence,
            downloads=downloads,
            likes=likes,
            gated=gated,
            upstream_accuracy=upstream_accuracy,
        )
        known = candidate.id in place
        place.add(candidate)
        stored = place[candidate.id]
        output.result(
            {"catalog": _path(place), "updated": known, "candidate": show_as.values(stored)},
            f"{'Updated' if known else 'Added'} {candidate.id} {'in' if known else 'to'} {_path(place)}, "
            f"which has {show_as.counted(len(place))} now",
            show_as.facts_table(stored, known=True),
        )
        if not stored.embeddings:
            output.note("It has no embedding, so it is ranked last; give --embedding or --data.")


def list_(catalog: opt.CatalogPlace = None, as_json: opt.AsJson = False, quiet: opt.Quiet = False) -> None:
    """List the candidates, and the spaces in which they have embeddings.

    Only candidates with an embedding in the space of a task can be placed by distance.
    """
    with session(as_json=as_json, quiet=quiet) as output:
        from t2v_hub.catalog import Catalog

        place = Catalog.load(catalog)
        spaces = [
            {"id": space.id, "probe": space.probe, "n_filters": space.n_filters, "n_candidates": count}
            for space, count in place.spaces().items()
        ]
        values = {
            "catalog": _path(place),
            "spaces": spaces,
            "candidates": [show_as.values(candidate) for candidate in place],
        }
        text: list[Any] = [f"{show_as.counted(len(place))} in {_path(place)}"]
        text += [
            f"space {space['id']}: {space['n_candidates']} with an embedding, probe {space['probe']}"
            for space in spaces
        ]
        if len(place):
            text += ["", show_as.list_table(place)]
        output.result(values, *text)
        if not len(place):
            output.note(
                "Add one with `t2v catalog add CHECKPOINT --data DATA`: a folder or a repository, and the "
                "images that it was trained on."
            )


def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="The candidate: a repository or a folder.")],
    catalog: opt.CatalogPlace = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Show all that is known of a candidate, and its embeddings.

    An embedding that cannot be read is named, and the rest is shown.
    """
    with session(as_json=as_json, quiet=quiet) as output:
        from t2v_hub.catalog import Catalog

        place = Catalog.load(catalog)
        candidate = place[show_as.found(place, id)]
        embeddings: list[TaskEmbedding] = []
        damaged: list[str] = []
        for index in range(len(candidate.embeddings)):
            try:
                embeddings.append(candidate.embeddings[index])
            except (EmbeddingFileError, StorageError) as error:
                damaged.append(str(error))
                output.warn(str(error))
        values = show_as.values(candidate) | {
            "embeddings": [summary(item) for item in embeddings],
            "damaged": damaged,
        }
        text: list[Any] = [f"{candidate.id} in {_path(place)}", show_as.facts_table(candidate)]
        if embeddings and not as_json:
            text += ["", show_as.embeddings_table(embeddings)]
        output.result({"catalog": _path(place), "candidate": values}, *text)


def remove(
    id: Annotated[str, typer.Argument(metavar="ID", help="The candidate: a repository or a folder.")],
    catalog: opt.CatalogFolder = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Remove a candidate from the catalog, with its embeddings; the checkpoint itself stays.

    Embeddings that another candidate has too are kept.
    """
    with session(as_json=as_json, quiet=quiet) as output:
        from t2v_hub.catalog import Catalog

        place = Catalog.load(catalog)
        id = show_as.found(place, id)
        place.remove(id)
        output.result(
            {"catalog": _path(place), "removed": id, "n_candidates": len(place)},
            f"Removed {id} from {_path(place)}, which has {show_as.counted(len(place))} now",
        )


def _path(catalog: "Catalog") -> str:
    return str(catalog.path.resolve())


for _name, _command, _examples in (
    ("add", add, _ADD),
    ("list", list_, _example("t2v catalog list --catalog ./shared-catalog")),
    ("show", show, _example("t2v catalog show org/birds-vit")),
    ("remove", remove, _example("t2v catalog remove org/birds-vit")),
):
    app.command(_name, help=reflowed(_command.__doc__), epilog=_examples)(_command)
