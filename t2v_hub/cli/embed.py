"""``t2v embed``: data sets to embedding files."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t2v_hub.cli import options as opt
from t2v_hub.cli.destination import SUFFIX, check_parent, check_replaceable, file_for
from t2v_hub.cli.flags import in_flags
from t2v_hub.cli.many import check_many, embed_many
from t2v_hub.cli.measuring import check_probe, given, images, space_settings, task2vec
from t2v_hub.cli.output import Output, reflowed, session
from t2v_hub.cli.receipt import Written, report
from t2v_hub.errors import T2VError

if TYPE_CHECKING:
    from t2v_hub.data.task import ImageTask

_EXAMPLES = """[bold]Examples[/bold]

$ t2v embed ./photos -o photos.safetensors

$ t2v embed AI-Lab-Makerere/beans --split train --max-samples 500

$ t2v embed ./birds ./leaves flowers.parquet -o embeddings/ --probe ./my-probe

$ t2v embed --many tasks.csv --shard 0/4 -o embeddings/"""
_MANY = "Many tasks (a job array, or processes that share a folder)"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("embed", help=reflowed(embed.__doc__), epilog=_EXAMPLES)(embed)


def embed(
    context: typer.Context,
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA",
            show_default=False,
            help="Labelled images: a folder with one sub-folder per class, a Parquet file or a folder of "
            "them, a saved data set, or the id of a data set on the Hub.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE|DIR",
            show_default=False,
            help="Where to write: a .safetensors file for one DATA, else a folder. Default: a file named for "
            "the task in the present folder; --many must be told.",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            show_default=False,
            help="Replace whatever a file to be written holds; with --many, embed rows that are done, too. "
            "Default: replace only an earlier embedding of the same task in the same space.",
        ),
    ] = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    many: Annotated[
        Path | None,
        typer.Option(
            "--many",
            metavar="TABLE",
            rich_help_panel=_MANY,
            show_default=False,
            help="Instead of DATA, a CSV or parquet table with a row per task: a column data, relative to "
            "the table's folder or a Hub id, and where wanted name, split, config, revision, image_column, "
            "label_column, small_classes, max_samples; an empty cell is as the option says. Default: none.",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            rich_help_panel=_MANY,
            show_default=False,
            help="Only this part of the rows, counted from 0: 0/4 to 3/4, one for each of four processes "
            "that share the folder. Default: 0/1, all rows.",
        ),
    ] = None,
    status: Annotated[
        bool,
        typer.Option(
            "--status",
            rich_help_panel=_MANY,
            show_default=False,
            help="Only say how many rows of the table are done, failed or missing in the folder. Default: "
            "embed.",
        ),
    ] = False,
    log_json: opt.LogJson = False,
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
    tolerance: opt.Tolerance = None,
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
    against, compared, or kept. Interrupt it whenever you like: the same command goes on from the blocks of
    images that were finished. Several data sets are measured one after the other; one that fails is named at
    the end.

    With --many, rows that are done are skipped, so the same command goes on where a killed one stopped; what
    fails is noted in DIR/failures-I-of-N.csv and tried again by the next run. The exit code is 1 where a row
    failed.
    """
    data_options = given(
        split=split,
        image_column=image_column,
        label_column=label_column,
        config=config,
        revision=data_revision,
        small_classes=small_classes,
    )

    def settings() -> dict[str, Any]:
        return {
            **given(
                max_samples=max_samples,
                seed=seed,
                estimator=estimator,
                n_labels=n_labels,
                tolerance=tolerance,
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
        }

    if many is not None:
        check_many(data, out, name=name, log_json=log_json, status=status)
        assert out is not None
        embed_many(
            many,
            out,
            shard=shard,
            status=status,
            overwrite=overwrite,
            probe=probe,
            no_cache=no_cache,
            defaults=data_options,
            settings=settings,
            as_json=as_json,
            quiet=quiet,
            log_json=log_json,
        )
        return
    if shard is not None or status or log_json:
        flag = "--shard" if shard is not None else "--status" if status else "--log-json"
        raise typer.BadParameter("goes with --many.", param_hint=f"'{flag}'")
    if not data:
        context.fail("Missing argument 'DATA...'.")
    _check(data, out, name)
    with session(as_json=as_json, quiet=quiet, kept=not no_cache) as output:
        check_parent(out)
        check_probe(probe)
        own_settings = settings()
        of_data = {**data_options, **given(name=name)}
        collected = _Collected(output, n_data=len(data))
        tasks: dict[str, ImageTask] = {}
        for source in data:
            with collected.failure_of(source):
                tasks[source] = images(output, source, seed=seed, **of_data)
        done = []
        if tasks:
            embedder = task2vec(output, probe, no_cache=no_cache, **own_settings)
            paths: dict[str, Path] = {}
            for source, task in tasks.items():
                with collected.failure_of(source):
                    path = file_for(task.info, out, split=split, taken=paths.values())
                    if not overwrite:
                        check_replaceable(path, task.info, embedder.space(multi_label=task.multi_label))
                    paths[source] = path
            for place, (source, path) in enumerate(paths.items(), start=1):
                output.note(f"embedding {source}" + (f" ({place} of {len(paths)})" if len(paths) > 1 else ""))
                start = time.perf_counter()
                with collected.failure_of(source):
                    embedding = embedder.embed(tasks[source])
                    embedding.save(path)
                    seconds = time.perf_counter() - start
                    done.append(Written(embedding, tasks[source].image_column, path, seconds))
        report(output, done, collected.failures)
        if collected.failures:
            raise typer.Exit(1)


class _Collected:
    """The failures of several data sets; that of a single one is not collected."""

    def __init__(self, output: Output, *, n_data: int) -> None:
        self.failures: dict[str, T2VError] = {}
        self._output = output
        self._alone = n_data == 1

    @contextlib.contextmanager
    def failure_of(self, source: str) -> Iterator[None]:
        """What fails in the body is named and kept."""
        try:
            yield
        except T2VError as error:
            if self._alone:
                raise
            self.failures[source] = error
            self._output.fail(f"{source}: {in_flags(str(error))}")


def _check(data: list[str], out: Path | None, name: str | None) -> None:
    hint = "'--out' / '-o'"
    if len(data) > 1:
        if name is not None:
            raise typer.BadParameter("one name cannot be that of several DATA.", param_hint="'--name'")
        if out is not None and (out.suffix == SUFFIX or out.is_file()):
            raise typer.BadParameter(
                f"{str(out)!r} is a file; for several DATA give a folder.", param_hint=hint
            )
        twice = sorted({source for source in data if data.count(source) > 1})
        if twice:
            raise typer.BadParameter(f"{twice[0]!r} is given twice.", param_hint="'DATA'")
    elif out is not None and out.suffix != SUFFIX and not out.is_dir():
        raise typer.BadParameter(
            f"{str(out)!r} must end in {SUFFIX}, or be a folder that exists.", param_hint=hint
        )
