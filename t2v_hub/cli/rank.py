"""``t2v rank``: a catalog's candidates for a task, best first."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from t2v_hub.cli import options as opt
from t2v_hub.cli import repository as hub
from t2v_hub.cli.conditions import conditions, known_values
from t2v_hub.cli.measuring import given
from t2v_hub.cli.output import reflowed, session
from t2v_hub.errors import SettingsError

if TYPE_CHECKING:
    from rich.text import Text

_EXAMPLES = """[bold]Examples[/bold]

$ t2v rank photos.safetensors --top-k 5 --explain 1

$ t2v rank ./photos --where licence=apache-2.0,mit --where 'parameters<=30M'

$ t2v rank ./photos --refine 3

$ t2v rank ./photos --catalog ./shared-catalog --json"""

RankingDistance = Literal["relative", "asymmetric", "symmetric"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("rank", help=reflowed(rank.__doc__), epilog=_EXAMPLES)(rank)


def rank(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="An embedding file of `t2v embed`, or labelled images (anything that `t2v embed` takes), "
            "which are measured first.",
        ),
    ],
    catalog: opt.CatalogPlace = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k", "-k", metavar="N", min=1, show_default=False, help="How many to show. Default: all."
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            metavar="CONDITION",
            show_default=False,
            help="Only candidates with this: field=value, field=one,another, 'field<=number' or "
            "'field>=number' (30M is a number) of id, revision, library, source, licence, parameters, "
            "downloads, likes, upstream_accuracy, gated. May be repeated; all must hold, and a fact that is "
            "not known never does. Default: all candidates.",
        ),
    ] = None,
    distance: Annotated[
        RankingDistance | None,
        typer.Option(
            "--distance",
            show_default=False,
            help="relative compares how information is divided among the filters, and favours checkpoints "
            "that were trained on complex tasks; asymmetric, the paper's, also how much there is, which puts "
            "sources of many classes too far; symmetric favours none. Default: relative.",
        ),
    ] = None,
    model2vec: Annotated[
        Path | None,
        typer.Option(
            "--model2vec",
            metavar="FILE",
            show_default=False,
            help="Rank by distances that were learned from measured errors, from the file that "
            "Model2Vec.save wrote. Default: none.",
        ),
    ] = None,
    refine: opt.Refine = None,
    budget: opt.Budget = None,
    score: opt.ScoreOption = None,
    max_images: opt.MaxImages = None,
    features: opt.FeaturesOption = None,
    explain: Annotated[
        int | None,
        typer.Option(
            "--explain",
            metavar="N",
            min=1,
            show_default=False,
            help="Also say why the candidate on place N stands there. Default: none.",
        ),
    ] = None,
    png: opt.Picture = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    split: opt.Split = None,
    image_column: opt.ImageColumn = None,
    label_column: opt.LabelColumn = None,
    config: opt.Config = None,
    data_revision: opt.DataRevision = None,
    name: opt.Name = None,
    small_classes: opt.SmallClasses = None,
    probe: Annotated[
        str | None,
        typer.Option(
            "--probe",
            metavar="PROBE",
            rich_help_panel="Measuring",
            show_default=False,
            help="Where the weights of the catalog's probe lie, where they are not found by name. Default: "
            "the probe of the space in which most candidates have an embedding.",
        ),
    ] = None,
    max_samples: opt.MaxSamples = None,
    seed: opt.Seed = None,
    batch_size: opt.BatchSize = None,
    dtype: opt.Dtype = None,
    device: opt.Device = None,
    no_cache: opt.NoCache = False,
    endpoint: hub.Endpoint = None,
) -> None:
    """Rank checkpoints for a task, the nearest first.

    Without --catalog, candidates are the checkpoints on the Hub whose cards hold an embedding, and those that
    were added on this machine; what was read from the Hub before is used where it cannot be reached.
    Each candidate is placed by the distance from the data that it was trained on to the task.
    Candidates whose distances cannot be told apart are marked (≈), and candidates without an embedding come
    last, by what is known of them. A task given as images is measured in the catalog's own space; one given
    as an embedding file is ranked at once, without torch. Distances say what is worth trying first, not how
    accurate it will be.

    Equal distances are ordered by prior: errors on other tasks that you recorded, then size (bound it with
    --where 'parameters<=30M'), then upstream accuracy.

    With --refine or --budget some candidates are loaded, the nearest and those of the highest prior by turns,
    and come first, ordered by what their features say of the images: an error is predicted for each, ties are
    marked by differences image by image, and a line says whether the ranking adds anything to the prior.
    """
    with session(as_json=as_json, quiet=quiet, kept=not no_cache) as output:
        from t2v_hub.catalog import Catalog
        from t2v_hub.cli.target import target
        from t2v_hub.selector import Loading, ModelSelector
        from t2v_hub.selector.second_stage import check_score

        if score is not None:
            check_score(score)  # measuring takes minutes
        wanted = conditions(where or ())
        candidates = Catalog() if catalog is None else Catalog.load(catalog)
        data_options = given(
            split=split,
            image_column=image_column,
            label_column=label_column,
            config=config,
            revision=data_revision,
            name=name,
            small_classes=small_classes,
        )
        settings = given(
            probe=probe,
            max_samples=max_samples,
            seed=seed,
            batch_size=batch_size,
            dtype=dtype,
            device=device,
            no_cache=no_cache,
        )
        from_hub = catalog is None
        stage = given(refine=refine, score=score, max_images=max_images, features=features)
        if budget is not None:
            stage["budget_s"] = budget  # 0 is a time, too
        if (score or max_images or features) and not refine and budget is None:
            name = "--score" if score else "--max-images" if max_images else "--features"
            raise SettingsError(f"{name} goes with --refine or --budget; without these nothing is loaded.")
        fit = None
        if model2vec is not None:
            if distance is not None:
                raise SettingsError(f"--model2vec is a distance of its own; leave --distance {distance} out.")
            from t2v_hub.model2vec import Model2Vec

            fit = Model2Vec.load(model2vec)
        found = target(
            output,
            candidates,
            task,
            data_options,
            settings,
            fit=fit,
            from_hub=from_hub,
            with_images=bool(refine) or budget is not None,
            endpoint=endpoint,
        )
        loading = Loading(
            cache=False if no_cache else None,
            endpoint=endpoint,
            progress=output.progress,
            **given(device=device, batch_size=batch_size),
        )
        selector = ModelSelector(
            candidates,
            task=found.embedding,
            images=found.images,
            origin=found.origin,
            loading=loading,
            **given(distance=fit or distance),
        )
        ranking = selector.rank(top_k=top_k, where=wanted or None, **stage)
        text: list[Text | str]
        text, values = [_styled(str(ranking))], dict(ranking.to_dict())
        if wanted and len(candidates) and ranking.n_filtered == len(candidates):
            output.warn(f"No candidate meets {' and '.join(where or ())}. {known_values(candidates, wanted)}")
        if explain is not None:
            if not len(ranking):
                raise SettingsError(f"--explain {explain}: no candidate is left to explain.")
            if explain > len(ranking):
                raise SettingsError(
                    f"--explain {explain}: there are {len(ranking)} ranked candidates to explain; give 1 to "
                    f"{len(ranking)}, or a larger --top-k."
                )
            words = ranking.explain(explain - 1)
            text.append(f"\n{words}")
            values["explanation"] = {"rank": explain, "text": words}
        if png is not None:
            from t2v_hub.plot import plot_ranking

            plot_ranking(ranking, png)
            text.append(f"\nPicture written to {png}")
            values["picture"] = str(png)
        output.result(values, *text)


def _styled(table: str) -> "Text":
    """The ranking's own table, its labels dim and its heading bold where there is a terminal."""
    from rich.text import Text

    text = Text(table)
    text.highlight_regex(r"(?m)^(Task|Probe|Distance|Candidates) ", "dim")
    text.highlight_regex(r"(?m)^rank  .*$", "bold")
    return text
