"""Options that several commands share: their spelling, their help and their defaults in words.

Each is None where it is not given, so that the library's own default holds; a test keeps the defaults
that the help names equal to the library's.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

_DATA = "Data"
_MEASURING = "Measuring"
_SECOND_STAGE = "Second stage (loads candidates; the task must be images)"
_SPACE = "What the embedding means (all embeddings to be compared need the same)"

EstimatorName = Literal["monte_carlo", "exact", "empirical", "variational"]
SmallClassesName = Literal["error", "keep", "drop"]
SamplingName = Literal["natural", "balanced"]
DtypeName = Literal["float32", "float64", "bfloat16"]
FeaturesName = Literal["last", "layers"]
HeadName = Literal["l2", "cv", "entropy", "adam"]
SCORES = (
    "combined",
    "logme",
    "leep",
    "nce",
    "h_score",
    "transrate",
    "knn_accuracy",
    "ridge_accuracy",
    "ridge_loss",
    "logistic_loss",
)
"""Those of t2v_hub itself; a plug-in may bring more."""


def _option(*names: str, help: str, panel: str | None = None, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


AsJson = Annotated[
    bool, _option("--json", help="Print one JSON object on stdout; messages go to stderr. Default: text.")
]
Quiet = Annotated[
    bool, _option("--quiet", "-q", help="No messages and no progress bars on stderr. Default: both.")
]
LogJson = Annotated[
    bool,
    _option(
        "--log-json",
        help="Messages on stderr as one JSON object a line, for collectors of logs: start, each item, each "
        "failure, end; also by T2V_LOG=json. Default: text.",
    ),
]


def check_catalog_folder(path: Path | None) -> Path | None:
    """The path, where it is not the address of a catalog that a plug-in opens."""
    if path is not None:
        from t2v_hub.plugins import address, plugin_names

        parts = address(str(path))
        if parts is not None and parts[0] in plugin_names("t2v_hub.catalogs"):
            raise typer.BadParameter(
                f"{str(path)!r} is what the plug-in {parts[0]!r} opens, which is only read. Name a folder."
            )
    return path


CatalogFolder = Annotated[
    Path | None,
    _option(
        "--catalog",
        metavar="DIR",
        callback=check_catalog_folder,
        help="Folder of the catalog. Default: ~/.cache/t2v_hub/catalog.",
    ),
]
CatalogPlace = Annotated[
    str | None,
    _option(
        "--catalog",
        metavar="DIR",
        help="Folder of the catalog, or NAME:LOCATION for one that a plug-in opens. Default: "
        "~/.cache/t2v_hub/catalog.",
    ),
]
"""Of a catalog that is only read."""


def check_picture(path: Path | None) -> Path | None:
    """The path, where its ending names a kind of picture."""
    if path is not None and path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise typer.BadParameter(f"{str(path)!r} must end in .png, .pdf or .svg.")
    return path


def check_tolerance(value: float | None) -> float | None:
    """The tolerance, where it is a share that a measurement can reach and miss."""
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"{value:g} must lie between 0 and 1, such as 0.1.")
    return value


Picture = Annotated[
    Path | None,
    _option(
        "--png",
        metavar="FILE",
        callback=check_picture,
        help="Also save a picture (.png, .pdf or .svg). Default: none.",
    ),
]

Refine = Annotated[
    int | None,
    _option(
        "--refine",
        metavar="K",
        min=1,
        panel=_SECOND_STAGE,
        help="Load this many candidates and put them first, by what their features say of the images. One "
        "that fails is named, and the next takes its place. Default: none.",
    ),
]
Budget = Annotated[
    float | None,
    _option(
        "--budget",
        metavar="SECONDS",
        min=0,
        panel=_SECOND_STAGE,
        help="Load candidates until this time is used, one in any case; with --refine at most that many. "
        "Default: no limit of time.",
    ),
]
ScoreOption = Annotated[
    str | None,
    _option(
        "--score",
        metavar="NAME",
        panel=_SECOND_STAGE,
        help=f"By what loaded candidates are ordered: {', '.join(SCORES)}, or a score of a plug-in. combined "
        "is the mean of ridge_loss, logme and logistic_loss, and of recorded results. leep and nce need a "
        "head of the checkpoint's own. Default: combined.",
    ),
]
MaxImages = Annotated[
    int | None,
    _option(
        "--max-images",
        metavar="N",
        min=2,
        panel=_SECOND_STAGE,
        help="Images on which they are scored; two per class where that is more. Default: 600.",
    ),
]

FeaturesOption = Annotated[
    FeaturesName | None,
    _option(
        "--features",
        panel=_SECOND_STAGE,
        help="By which features: the last ones, which a checkpoint's head sees, or those of all layers. "
        "Default: last.",
    ),
]

Split = Annotated[
    str | None,
    _option(
        "--split", metavar="NAME", panel=_DATA, help="Split to measure. Default: train, or the only one."
    ),
]
ImageColumn = Annotated[
    str | None,
    _option(
        "--image-column",
        metavar="NAME",
        panel=_DATA,
        help="Column of the images. Default: found by its type.",
    ),
]
LabelColumn = Annotated[
    str | None,
    _option(
        "--label-column",
        metavar="NAME",
        panel=_DATA,
        help="Column of the labels. Default: found by its type or name.",
    ),
]
Config = Annotated[
    str | None,
    _option(
        "--config",
        metavar="NAME",
        panel=_DATA,
        help="Configuration of a Hub data set. Default: the only one.",
    ),
]
DataRevision = Annotated[
    str | None,
    _option(
        "--data-revision",
        metavar="REVISION",
        panel=_DATA,
        help="Branch, tag or commit of a Hub data set. Default: the newest.",
    ),
]
Name = Annotated[
    str | None,
    _option(
        "--name",
        metavar="NAME",
        panel=_DATA,
        help="What to call the task. Default: the Hub id, or the path's end.",
    ),
]
SmallClasses = Annotated[
    SmallClassesName | None,
    _option(
        "--small-classes",
        panel=_DATA,
        help="What to do about classes with a single image. Default: error, which names them.",
    ),
]
MaxSamples = Annotated[
    int | None,
    _option(
        "--max-samples",
        metavar="N",
        min=2,
        panel=_MEASURING,
        help="Images to measure at most, drawn over the whole set; more give a smaller error. Default: 1000.",
    ),
]
Seed = Annotated[
    int | None,
    _option("--seed", metavar="N", min=0, panel=_MEASURING, help="What all randomness hangs on. Default: 0."),
]
Estimator = Annotated[
    EstimatorName | None,
    _option(
        "--estimator",
        panel=_MEASURING,
        help="monte_carlo draws labels from the model; exact sums over all classes (slow where there are "
        "many); empirical takes the data's labels; variational is the paper's robust estimate, much slower "
        "and without a standard error. Each of the last two makes a space of its own. Default: monte_carlo.",
    ),
]
NLabels = Annotated[
    int | None,
    _option(
        "--n-labels",
        metavar="N",
        min=1,
        panel=_MEASURING,
        help="Labels drawn per image (monte_carlo). Default: 1.",
    ),
]
Tolerance = Annotated[
    float | None,
    _option(
        "--tolerance",
        metavar="X",
        panel=_MEASURING,
        callback=check_tolerance,
        help="Relative standard error that is small enough, such as 0.1: measuring ends after the first 256, "
        "512, … images that reach it. Default: none, all of --max-samples are measured.",
    ),
]
BatchSize = Annotated[
    int | None,
    _option(
        "--batch-size",
        metavar="N",
        min=1,
        panel=_MEASURING,
        help="Images per pass on a GPU, up to 32. Default: 32.",
    ),
]
Dtype = Annotated[
    DtypeName | None,
    _option("--dtype", panel=_MEASURING, help="Type of the passes; bfloat16 is autocast. Default: float32."),
]
Device = Annotated[
    str | None,
    _option(
        "--device", panel=_MEASURING, help="Where to measure: cpu, cuda, mps. Default: the best there is."
    ),
]
NoCache = Annotated[
    bool,
    _option(
        "--no-cache",
        panel=_MEASURING,
        help="Neither read nor keep finished blocks of images. Default: kept, so that the command can go on.",
    ),
]

Probe = Annotated[
    str | None,
    _option(
        "--probe",
        metavar="PROBE",
        panel=_SPACE,
        help="Probe network: a Hub repository (org/name or org/name@revision), a timm name, a folder with "
        "config.json and model.safetensors, a .safetensors file with a .json beside it, or NAME:LOCATION for "
        "one that a plug-in loads. Default: timm/resnet18.a1_in1k.",
    ),
]
ImageSize = Annotated[
    int | None,
    _option(
        "--image-size",
        metavar="N",
        min=1,
        panel=_SPACE,
        help="Side of the probe's input in pixels. Default: its own.",
    ),
]
Filters = Annotated[
    list[str] | None,
    _option(
        "--filters",
        metavar="PATTERN",
        panel=_SPACE,
        help="Layers to measure: a pattern such as 'layer4.*' (may be repeated), or one number in (0, 1] "
        "for the last part of the depth. Default: all.",
    ),
]
Normalisation = Annotated[
    bool,
    _option(
        "--normalisation",
        panel=_SPACE,
        help="Count scales of normalisation layers as filters. Default: no.",
    ),
]
Sampling = Annotated[
    SamplingName | None,
    _option(
        "--sampling",
        panel=_SPACE,
        help="natural draws images as the data has them, balanced every class alike. Default: natural.",
    ),
]
Head = Annotated[
    HeadName | None,
    _option("--head", panel=_SPACE, help="How the linear head is fitted. Default: l2."),
]
HeadStrength = Annotated[
    float | None,
    _option(
        "--head-strength",
        metavar="X",
        panel=_SPACE,
        help="Strength of the head's penalty (l2, entropy). Default: 10.",
    ),
]
