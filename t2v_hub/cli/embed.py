"""``t2v embed``: data sets to embedding files."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t2v_hub.cli import options as opt
from t2v_hub.cli.measuring import given, space_settings, summary, task2vec
from t2v_hub.cli.output import Output, facts, number, reflowed, session, share
from t2v_hub.errors import T2VError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from t2v_hub.embedding import TaskEmbedding

_EXAMPLES = """[bold]Examples[/bold]

$ t2v embed ./photos -o photos.safetensors

$ t2v embed AI-Lab-Makerere/beans --split train --max-samples 500

$ t2v embed ./birds ./leaves flowers.parquet -o embeddings/ --probe ./my-probe"""
_SUFFIX = ".safetensors"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("embed", help=reflowed(embed.__doc__), epilog=_EXAMPLES)(embed)


def embed(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA",
            help="Labelled images: a folder with one sub-folder per class, a Parquet file or a folder of "
            "them, a saved data set, or the id of a data set on the Hub.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE|DIR",
            show_default=False,
            help="Where to write: a .safetensors file for one DATA, else a folder. Default: a file named for "
            "the task in the present folder.",
        ),
    ] = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    split: opt.Split = None,
    image_column: opt.ImageColumn = None,
    label_column: opt.LabelColumn = None,
    config: opt.Config = None,
    data_revision: opt.DataRevision = None,
    name: opt.Name = None,
    small_classes: opt.SmallClasses = None,
    max_samples: opt.MaxSamples = None,
    seed: opt.Seed = None,
    estimator: opt.Estimator = None,
    n_labels: opt.NLabels = None,
    batch_size: opt.BatchSize = None,
    dtype: opt.Dtype = None,
    device: opt.Device = None,
    no_cache: opt.NoCache = False,
    probe: opt.Probe = None,
    image_size: opt.ImageSize = None,
    filters: opt.Filters = None,
    normalisation: opt.Normalisation = False,
    sampling: opt.Sampling = None,
    head: opt.Head = None,
    head_strength: opt.HeadStrength = None,
) -> None:
    """Measure labelled images: data sets in, embedding files out.

    A linear head is fitted on the probe's features, and the Fisher information of each of the probe's filters
    says how much the task hangs on it. The result is one small file with its standard error, to be ranked
    against, compared, or kept. Interrupt it whenever you like: the same command goes on where it stopped.
    Several data sets are measured one after the other; one that fails is named at the end.
    """
    _check(data, out, name)
    with session(as_json=as_json, quiet=quiet, kept=not no_cache) as output:
        embedder = task2vec(
            output,
            probe,
            no_cache=no_cache,
            **given(
                max_samples=max_samples,
                seed=seed,
                estimator=estimator,
                n_labels=n_labels,
                batch_size=batch_size,
                dtype=dtype,
                device=device,
            ),
            **space_settings(
                image_size=image_size,
                filters=filters,
                normalisation=normalisation,
                sampling=sampling,
                head=head,
                head_strength=head_strength,
            ),
        )
        data_options = given(
            split=split,
            image_column=image_column,
            label_column=label_column,
            config=config,
            revision=data_revision,
            name=name,
            small_classes=small_classes,
        )
        done: list[tuple[TaskEmbedding, Path, float]] = []
        failures: dict[str, T2VError] = {}
        for place, source in enumerate(data, start=1):
            of = f" ({place} of {len(data)})" if len(data) > 1 else ""
            output.note(f"embedding {source}{of}")
            start = time.perf_counter()
            try:
                embedding = embedder.embed(source, **data_options)
                path = _file(out, embedding, split, taken={file for _, file, _ in done})
                embedding.save(path)
            except T2VError as error:
                if len(data) == 1:
                    raise
                failures[source] = error
                output.fail(f"{source}: {error}")
                continue
            done.append((embedding, path, time.perf_counter() - start))
        _report(output, done, failures)
        if failures:
            raise typer.Exit(1)


def _check(data: list[str], out: Path | None, name: str | None) -> None:
    hint = "'--out' / '-o'"
    if len(data) > 1:
        if name is not None:
            raise typer.BadParameter("one name cannot be that of several DATA.", param_hint="'--name'")
        if out is not None and (out.suffix == _SUFFIX or out.is_file()):
            raise typer.BadParameter(
                f"{str(out)!r} is a file; for several DATA give a folder.", param_hint=hint
            )
        twice = sorted({source for source in data if data.count(source) > 1})
        if twice:
            raise typer.BadParameter(f"{twice[0]!r} is given twice.", param_hint="'DATA'")
    elif out is not None and out.suffix != _SUFFIX and not out.is_dir():
        raise typer.BadParameter(
            f"{str(out)!r} must end in {_SUFFIX}, or be a folder that exists.", param_hint=hint
        )


def _file(out: Path | None, embedding: "TaskEmbedding", split: str | None, *, taken: set[Path]) -> Path:
    """Where an embedding goes: never two of one run into one file."""
    if out is not None and out.suffix == _SUFFIX and not out.is_dir():
        return out
    folder = Path() if out is None else out
    name = embedding.task.id.replace("/", "--") + (f"-{split}" if split else "")
    name = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "task"
    path, count = folder / f"{name}{_SUFFIX}", 1
    while path in taken:
        count += 1
        path = folder / f"{name}-{count}{_SUFFIX}"
    return path


def _report(
    output: Output, done: list[tuple["TaskEmbedding", Path, float]], failures: dict[str, T2VError]
) -> None:
    values = {
        "embeddings": [
            {**summary(embedding), "seconds": round(seconds, 3), "file": str(path)}
            for embedding, path, seconds in done
        ],
        "failures": [
            {"data": source, "type": type(error).__name__, "message": str(error)}
            for source, error in failures.items()
        ],
    }
    text: list[Any] = []
    if len(done) == 1 and not failures:
        text.append(_single(*done[0]))
    elif done:
        text.append(_table(done))
    output.result(values, *text)
    if failures:
        total = len(done) + len(failures)
        output.fail(f"{len(failures)} of {total} data sets could not be embedded: {', '.join(failures)}.")


def _single(embedding: "TaskEmbedding", path: Path, seconds: float) -> "RenderableType":
    task, how, space = embedding.task, embedding.measurement, embedding.space
    where = ", ".join(part for part in (task.config, task.split) if part)
    several = ", several per image" if task.multi_label else ""
    skipped = f", {how.n_skipped:,} left out as unreadable" if how.n_skipped else ""
    return facts(
        [
            ("task", task.id + (f" ({where})" if where else "")),
            ("images", f"{how.n_samples:,} of {task.n_samples:,} measured{skipped}"),
            ("classes", f"{task.n_classes:,}{several}"),
            ("probe", f"{space.probe}, {space.n_filters:,} filters"),
            ("space", space.id),
            ("norm", f"{number(embedding.norm, 4)} nats²"),
            (
                "standard error",
                f"{share(how.standard_error)} (median filter {share(how.median_standard_error)})",
            ),
            ("seconds", f"{seconds:.1f}"),
            ("written to", str(path)),
        ]
    )


def _table(done: list[tuple["TaskEmbedding", Path, float]]) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    space = done[0][0].space
    table = Table(
        box=None, pad_edge=False, header_style="bold", title=f"probe {space.probe}, space {space.id}"
    )
    table.title_justify = "left"
    table.title_style = "dim"
    for name in ("task", "images", "classes", "norm", "std. error", "seconds", "written to"):
        right = name not in ("task", "written to")
        table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=right)
    for embedding, path, seconds in done:
        table.add_row(
            Text(embedding.task.id),
            f"{embedding.measurement.n_samples:,}",
            f"{embedding.task.n_classes:,}",
            number(embedding.norm, 4),
            share(embedding.standard_error),
            f"{seconds:.1f}",
            Text(str(path)),
        )
    return table
