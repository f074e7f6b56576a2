"""Python's names of arguments in a message, as the options of the command."""

import re
import shlex

FLAGS = {
    "batch_size": "--batch-size",
    "budget_s": "--budget",
    "config": "--config",
    "create_pr": "--create-pr",
    "device": "--device",
    "dry_run": "--dry-run",
    "dtype": "--dtype",
    "endpoint": "--endpoint",
    "estimator": "--estimator",
    "features": "--features",
    "filter": "--filter",
    "filters": "--filters",
    "group_by": "--group-by",
    "image_column": "--image-column",
    "image_size": "--image-size",
    "label_column": "--label-column",
    "max_images": "--max-images",
    "max_samples": "--max-samples",
    "n_labels": "--n-labels",
    "normalisation": "--normalisation",
    "parameters": "--parameters",
    "probe": "--probe",
    "publish_names": "--publish-names",
    "refine": "--refine",
    "repo_type": "--repo-type",
    "revision": "--data-revision",
    "role": "--role",
    "sampling": "--sampling",
    "seed": "--seed",
    "small_classes": "--small-classes",
    "split": "--split",
    "tolerance": "--tolerance",
    "top_k": "--top-k",
    "where": "--where",
}
"""Options by the argument they stand for; not ``head``, which in messages is a layer, with us a recipe."""

PHRASES = {
    "Give the data set another name (name=), or leave names out.": (
        "Embed it again under another --name, or leave --publish-names out."
    ),
    ", or bind them with AutoSelector.from_task(data)": "",
    "The head's strength must": "--head-strength must",
    "Pass 'cpu', or None for what is at hand.": "Give cpu, or leave --device out.",
    "Pass the DatasetDict, or leave": "Give the folder of all splits, or leave",
    ", or load it with datasets.load_dataset and pass the result.": ".",
    "Load other formats with datasets.load_dataset and pass the result.": "Save it as one of these.",
}
"""What only makes sense in Python, and what a command may say instead."""

_NAME = "|".join(FLAGS)
_TWO_WORDS = "|".join(name for name in FLAGS if "_" in name)
_MARKS = "'\""
_QUOTED = r"'[^'\n]*'|\"[^\"\n]*\""
_FORM = re.compile(
    rf"""
    (?P<kept> \w+\([^()]*\) | (?<!\w)(?:{_QUOTED}) )                 # calls; names of the user's things
    | (?<![\w./-]) (?P<set>{_NAME}) = (?P<value>{_QUOTED}|\[[^\]]*\]|[\w.]*\w)?
    | (?<![\w./-]) (?P<alone>{_TWO_WORDS}) (?![\w./=-]*[\w/=])
    | (?<=\() (?P<inside>{_NAME}) (?=\))
    | ^ (?P<first>{_NAME}) (?=:|[ ]must\b)
    """,
    re.VERBOSE,
)


def in_flags(message: str) -> str:
    """The message with ``max_samples=9`` as ``--max-samples 9``, and so on; other words stay as they are."""
    for phrase, ours in PHRASES.items():
        message = message.replace(phrase, ours)
    return _FORM.sub(_flag, message)


def _flag(found: re.Match[str]) -> str:
    if found["kept"]:
        return found["kept"]
    flag = FLAGS[found["set"] or found["alone"] or found["inside"] or found["first"]]
    value = found["value"]
    if not value or value.startswith("["):
        return flag
    return f"{flag} {shlex.quote(value.strip(_MARKS))}"
