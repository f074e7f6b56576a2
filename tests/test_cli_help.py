"""The command's face: help that teaches, a quick start, one place for each kind of output."""

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import typer
from cli_data import t2v, t2v_json

from t2v_hub import __version__
from t2v_hub.card import Role
from t2v_hub.catalog import Library
from t2v_hub.catalog.merging import Prefer
from t2v_hub.cli import app, cache, catalog, compare, merge, options, push, repository
from t2v_hub.cli.conditions import conditions
from t2v_hub.data.labels import SmallClasses
from t2v_hub.distance import DistanceName
from t2v_hub.errors import SettingsError
from t2v_hub.head import HeadRecipe
from t2v_hub.housekeeping import CacheKind
from t2v_hub.hub import RepoType
from t2v_hub.probe import DEFAULT_PROBE
from t2v_hub.selector import AutoSelector
from t2v_hub.settings import EstimatorName
from t2v_hub.task2vec import Dtype, Task2Vec


def commands(group: Any = None, path: str = "t2v") -> Iterator[tuple[str, Any]]:
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        yield f"{path} {name}", command
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")


COMMANDS = dict(commands())


def test_the_commands():
    """Scripts are written against these names."""
    assert set(COMMANDS) == {
        "t2v embed",
        "t2v rank",
        "t2v benchmark",
        "t2v compare",
        "t2v diversity",
        "t2v demo",
        "t2v enrich",
        "t2v catalog",
        "t2v catalog add",
        "t2v catalog list",
        "t2v catalog show",
        "t2v catalog remove",
        "t2v catalog sync",
        "t2v catalog record",
        "t2v catalog results",
        "t2v catalog merge",
        "t2v cache",
        "t2v cache size",
        "t2v cache prune",
        "t2v push",
        "t2v pull",
        "t2v card",
        "t2v card check",
        "t2v card remove",
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_and_ends_with_an_example(name):
    """Whoever reads --help wants to know what it is for and what to type."""
    result = t2v(*name.split()[1:], "--help")

    assert result.exit_code == 0
    assert len(re.split(r"\n\n+", COMMANDS[name].help, maxsplit=1)) == 2
    assert f"$ {name} " in result.stdout.split("╯")[-1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does_and_its_default(name):
    """An option without its default must be looked up in the code."""
    options_ = [item for item in COMMANDS[name].params if item.param_type_name == "option"]

    silent = [item.name for item in options_ if item.name != "help" and "Default: " not in (item.help or "")]

    assert silent == []


def test_the_defaults_in_the_help_are_the_librarys():
    """The help is written by hand, because the options leave the library's defaults in force."""
    of_task2vec = inspect.signature(Task2Vec).parameters
    embed = {item.name: item.help or "" for item in COMMANDS["t2v embed"].params}
    rank = {item.name: item.help or "" for item in COMMANDS["t2v rank"].params}

    for name in ("max_samples", "seed", "estimator", "n_labels", "batch_size", "dtype", "sampling"):
        assert embed[name].endswith(f"Default: {of_task2vec[name].default}."), name
    assert embed["head"].endswith(f"Default: {HeadRecipe().kind}.")
    assert embed["head_strength"].endswith(f"Default: {HeadRecipe().strength:g}.")
    assert embed["probe"].endswith(f"Default: {DEFAULT_PROBE}.")
    default = inspect.signature(AutoSelector.from_task).parameters["distance"].default
    assert rank["distance"].endswith(f"Default: {default}.")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (options.EstimatorName, EstimatorName),
        (options.SmallClassesName, SmallClasses),
        (options.DtypeName, Dtype),
        (options.HeadName, inspect.signature(HeadRecipe).parameters["kind"].annotation),
        (options.SamplingName, inspect.signature(Task2Vec).parameters["sampling"].annotation),
        (compare.AnyDistance, DistanceName),
        (catalog.LibraryName, Library),
        (cache.CacheKindName, CacheKind),
        (merge.PreferName, Prefer),
        (push.RoleName, Role),
        (repository.RepoTypeName, RepoType),
    ],
)
def test_the_choices_are_the_librarys(ours, theirs):
    """They are written twice so that --help imports neither numpy nor torch."""
    assert get_args(ours) == get_args(theirs)


def test_the_version():
    """A report of a bug begins with it."""
    result = t2v("--version")

    assert (result.exit_code, result.stdout) == (0, f"t2v_hub {__version__}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_takes_a_token(name):
    """A shell keeps what is typed, and every user of the machine sees it in the list of processes."""
    names = {opt for item in COMMANDS[name].params for opt in item.opts}

    assert not any("token" in opt or "password" in opt for opt in names)


def test_help_imports_nothing_heavy():
    """Help that takes seconds is not asked for twice."""
    code = """
import sys
import t2v_hub.cli
try:
    t2v_hub.cli.app(["embed", "--help"])
except SystemExit:
    pass
heavy = ("torch", "numpy", "transformers", "timm", "datasets", "pyarrow", "matplotlib", "sklearn",
         "huggingface_hub")
print([name for name in heavy if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed"], "Missing argument"),
        (["embed", "a", "-o", "a.txt"], "must end in"),
        (["embed", "a", "b", "-o", "a.safetensors"], "give a folder"),
        (["embed", "a", "b", "--name", "c"], "one name cannot be that of several"),
        (["embed", "a", "a"], "is given twice"),
        (["embed", "a", "--max-samples", "1"], "Invalid value"),
        (["embed", "a", "--estimator", "guess"], "Invalid value"),
        (["embed", "a", "--tolerance", "1.5"], "must lie between 0 and 1"),
        (["embed", "a", "--head-strength", "-1"], "--head-strength must be a finite number > 0"),
        (["rank", "a", "--top-k", "0"], "Invalid value"),
        (["rank", "a", "--png", "a.bmp"], "must end in .png"),
        (["compare", "a.safetensors"], "at least two"),
        (["push", "org/a", "a.safetensors", "--role", "test"], "Invalid value"),
        (["push", "org/a", "a.safetensors", "--diff"], "goes with --dry-run"),
        (["push", "org/a", "a.safetensors", "--token", "hf_x"], "No such option"),
        (["pull", "org/a", "-o", "a.txt"], "must end in .safetensors, or be a folder"),
        (["pull", "org/a", "--space", "resnet"], "is no id of a space: wanted s and 15 hexadecimal"),
        (["card", "remove", "README.md", "--diff"], "goes with --dry-run"),
        (["catalog", "sync", "--space", "s1"], "is no id of a space"),
        (["catalog", "add", "org/a", "--upstream-accuracy", "76.1"], "Invalid value"),
        (["fly"], "No such command"),
    ],
)
def test_wrong_usage_is_exit_code_2_before_any_work(arguments, message):
    """A script can tell a typing error from a failure."""
    result = t2v(*arguments)

    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        ([], {}),
        (["licence=apache-2.0"], {"licence": "apache-2.0"}),
        (["license = mit"], {"licence": "mit"}),
        (["licence=mit,apache-2.0", "library=timm"], {"licence": ["mit", "apache-2.0"], "library": "timm"}),
        (["parameters<=30M"], {"parameters": (None, 30_000_000)}),
        (["parameters<=30_000_000", "parameters>=1.5k"], {"parameters": (1500, 30_000_000)}),
        (["parameters<=25.6M"], {"parameters": (None, 25_600_000)}),
        (["upstream_accuracy>=0.7"], {"upstream_accuracy": (0.7, None)}),
        (["likes=5,6"], {"likes": [5, 6]}),
        (["gated=False"], {"gated": False}),
        (["id=org/a=b"], {"id": "org/a=b"}),
    ],
)
def test_conditions_as_they_are_written(texts, wanted):
    """What a shell can say without Python."""
    assert conditions(texts) == wanted


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["licence"], "is no condition; wanted field=value"),
        (["parameters<30M"], "is no condition"),
        (["licence!=mit"], "is no condition"),
        (["parameters<=many"], "'many' is no number; wanted a number such as"),
        (["gated=perhaps"], "wanted true or false"),
        (["licence=mit", "licence=apache-2.0"], "names licence twice; for one of several values write"),
        (["likes<=3", "likes<=4"], "bounds likes twice in one direction"),
        (["likes=3", "likes<=4"], "or beside a value"),
        (["likes<=4", "likes=3"], "names likes twice"),
    ],
)
def test_conditions_that_are_none(texts, message):
    """A filter that is misread would hide candidates."""
    with pytest.raises(SettingsError, match=message):
        conditions(texts)


class Report:
    def to_dict(self) -> dict[str, object]:
        return {"regret": float("nan")}


def test_the_demo_is_handed_its_options(monkeypatch):
    """`t2v demo` is a door, the demo lies behind it."""
    seen = {}

    def run(out, *, hub, quick, seed, echo):
        seen.update(out=str(out), hub=hub, quick=quick, seed=seed)
        echo("training")
        return Report()

    monkeypatch.setitem(sys.modules, "t2v_hub.demo", SimpleNamespace(run=run))

    assert t2v("demo", "--quick", "--seed", "3", "-o", "there").stdout == "training\n"
    assert seen == {"out": "there", "hub": False, "quick": True, "seed": 3}
    assert t2v_json("demo", "--hub") == {"regret": None}
    assert seen == {"out": "t2v_demo", "hub": True, "quick": False, "seed": 0}
