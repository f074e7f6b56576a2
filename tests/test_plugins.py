"""Plug-ins of other packages, really installed: scores, probes and catalogs, and broken ones."""

import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from checkpoints import save_checkpoint
from cli_data import t2v, t2v_json
from plugin_site import install, install_example, write_table
from safetensors.torch import save_file
from torch import nn

from t2v_hub import AutoSelector, Catalog, ProbeNetwork, Space, Task2Vec
from t2v_hub import plugins as room
from t2v_hub.catalog import Candidate
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import (
    CatalogError,
    CatalogFileError,
    CheckpointError,
    EmbeddingMismatchError,
    EmptyCatalogError,
    LabelError,
    MissingDependencyError,
    PlugInWarning,
    ProbeError,
    ProbeNotFoundError,
    ProbeOutputError,
    ScoreError,
    SettingsError,
    WeightsError,
)
from t2v_hub.features.store import Features
from t2v_hub.plugins import address, guarded, plugin, plugin_names, plugins
from t2v_hub.scores import BUILT_IN_SCORES, SCORES, score
from t2v_hub.selector.combined import COMBINED
from t2v_hub.selector.second_stage import Limits, second_stage
from t2v_hub.testing import TINY, TinyNetwork, tiny_task

LABELS = np.arange(30) % 3
FEATURES = np.random.default_rng(0).normal(size=(30, 4)) + LABELS[:, None]

SCORE = """
from t2v_hub.scores import Score

def function(x, y):
    {body}

{name} = Score({name!r}, function, "features", "linear", "nowhere")
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages, which this process sees."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    room._of_group.cache_clear()
    yield folder
    room._of_group.cache_clear()
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(folder)):
            del sys.modules[name]


def install_score(site, name="mine", body="return float(x.mean())", package="lab"):
    module = f"{package.replace('-', '_')}_{name}"
    source = SCORE.format(name=name, body=body)
    install(site, package, {"t2v_hub.scores": {name: f"{module}:{name}"}}, {module: source})


# What is installed


def test_a_plug_in_is_loaded_when_it_is_asked_for(site):
    """Importing a stranger's package may take seconds, or print, or fail."""
    modules = {"one_module": "value = 1", "other_module": "raise RuntimeError('not to be imported')"}
    install(site, "lab", {"t2v_hub.probes": {"one": "one_module:value", "other": "other_module"}}, modules)

    found = plugins("t2v_hub.probes")["one"]

    assert found == 1
    assert "other_module" not in sys.modules
    assert plugin_names("t2v_hub.probes") == ("one", "other")
    assert plugin("t2v_hub.probes", "one") == 1
    assert plugin("t2v_hub.probes", "none") is None
    with pytest.raises(RuntimeError, match="not to be imported"):
        plugin("t2v_hub.probes", "other")


def test_threads_wait_for_each_other(site):
    """While one imports a plug-in, others must not find that there is none."""
    source = "value = sum(i * i for i in range(300_000))"
    install(site, "lab", {"t2v_hub.probes": {"slow": "slow_module:value"}}, {"slow_module": source})
    found = plugins("t2v_hub.probes")
    barrier = threading.Barrier(8)

    def ask(_):
        barrier.wait()
        return found.get("slow")

    with ThreadPoolExecutor(8) as pool:
        values = set(pool.map(ask, range(8)))

    assert values == {sum(i * i for i in range(300_000))}


BROKEN = {
    "absent": ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
    "old": ("from t2v_hub.scores import gone", "ImportError: cannot import name 'gone'"),
    "no Python": ("def broken(:", "SyntaxError: "),
    "a script": ("import sys; sys.exit('usage: lab FILE')", "SystemExit: usage: lab FILE"),
    "any": ("1 / 0", "ZeroDivisionError: division by zero"),
    "another name": ("valeu = 1", "AttributeError: module 'broken_module' has no attribute 'value'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plug_in_is_a_warning(site, case):
    """What one package breaks is no reason for the rest not to work; and it is said once."""
    source, why = BROKEN[case]
    entries = {"broken": "broken_module:value", "good": "good_module:value"}
    modules = {"broken_module": source, "good_module": "value = 1"}
    install(site, "some-lab", {"t2v_hub.probes": entries}, modules)

    with pytest.warns(PlugInWarning) as caught:
        names = list(plugins("t2v_hub.probes"))

    assert names == ["good"]
    (message,) = (str(one.message) for one in caught)
    assert message.startswith(
        "The plug-in 'broken' of some-lab (group t2v_hub.probes, broken_module:value) is left out: " + why
    )
    assert message.endswith(". Upgrade or uninstall that package.")
    assert dict(plugins("t2v_hub.probes")) == {"good": 1}
    assert "broken" not in plugins("t2v_hub.probes")


def test_an_interrupt_is_not_a_broken_plug_in(site):
    """Who presses Ctrl-C while a slow package is imported wants to stop."""
    modules = {"slow_module": "raise KeyboardInterrupt"}
    install(site, "lab", {"t2v_hub.probes": {"slow": "slow_module:value"}}, modules)

    with pytest.raises(KeyboardInterrupt):
        plugins("t2v_hub.probes")["slow"]


def test_an_entry_that_names_nothing_is_a_warning(site):
    write_table(site, "lab", "[t2v_hub.probes]\nodd = ???\n")

    with pytest.warns(PlugInWarning, match="'odd' of lab .* is left out: "):
        assert not plugins("t2v_hub.probes")


@pytest.mark.parametrize("broken", [False, True])
def test_of_two_of_one_name_the_first_that_works_stays(site, broken):
    """In the order of the packages' names: what happens must not hang on the order of folders."""
    first = "raise ValueError('too old')" if broken else "value = 'first'"
    install(site, "b-lab", {"t2v_hub.probes": {"same": "b_module:value"}}, {"b_module": "value = 'second'"})
    install(site, "a-lab", {"t2v_hub.probes": {"same": "a_module:value"}}, {"a_module": first})

    with pytest.warns(PlugInWarning) as caught:
        found = dict(plugins("t2v_hub.probes"))

    (message,) = (str(one.message) for one in caught)
    assert found == {"same": "second" if broken else "first"}
    assert ("of a-lab" in message and "too old" in message) is broken
    assert ("of b-lab" in message and "another package has one of this name" in message) is not broken


def test_a_name_that_cannot_be_typed_is_a_warning(site):
    """Of one letter it would be a drive."""
    entries = {"c": "good_module:value", "a b": "good_module:value", "ok": "good_module:value"}
    install(site, "lab", {"t2v_hub.catalogs": entries}, {"good_module": "value = 1"})

    with pytest.warns(PlugInWarning, match="its name must be two or more letters, digits, '_', '.' and '-'"):
        names = list(plugins("t2v_hub.catalogs"))

    assert names == ["ok"]


def test_what_is_not_installed_is_said_to_who_asks(site):
    """A package may offer what needs another one; that is nothing to warn everybody of."""
    source = (
        "from t2v_hub.errors import MissingDependencyError\nraise MissingDependencyError('pip install x')"
    )
    install(site, "lab", {"t2v_hub.scores": {"needy": "needy_module:value"}}, {"needy_module": source})

    assert list(SCORES) == list(BUILT_IN_SCORES)
    with pytest.raises(MissingDependencyError, match="pip install x"):
        score("needy", LABELS, features=FEATURES)


@pytest.mark.parametrize("table", ["[t2v_hub.probes]\nthis is no line\n", "good = outside:everything\n[x"])
def test_a_package_with_a_broken_table_spoils_no_other(site, table):
    """importlib.metadata then reads nobody's entry points."""
    write_table(site, "a-broken-lab", table)
    install(site, "lab", {"t2v_hub.probes": {"good": "good_module:value"}}, {"good_module": "value = 1"})

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = dict(plugins("t2v_hub.probes"))

    assert found == {"good": 1}
    if "no line" in table:
        (message,) = (str(one.message) for one in caught)
        assert message.startswith(
            "The entry points of package 'a-broken-lab' cannot be read, so its plug-ins"
        )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("openclip:ViT-B-32", ("openclip", "ViT-B-32")),
        ("lab:/weights/a:b", ("lab", "/weights/a:b")),
        ("lab://host/x", ("lab", "//host/x")),
        (r"C:\networks\mine", None),
        ("C:/networks/mine", None),
        ("./lab:x", None),
        ("org/lab:x", None),
        ("lab:", None),
        (":x", None),
        ("resnet18.a1_in1k", None),
        (Path("lab:x"), None),
        (None, None),
        ("lab:" + "x" * 5000, ("lab", "x" * 5000)),
        ("lab:\0", ("lab", "\0")),
    ],
)
def test_an_address(text, expected):
    assert address(text) == expected


def test_what_exists_is_a_path(tmp_path, monkeypatch):
    """A folder that was named with a colon before there were plug-ins."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab:x").mkdir()

    assert address("lab:x") is None
    assert address("lab:y") == ("lab", "y")


def test_only_interrupts_and_our_errors_pass():
    """Whoever catches T2VError catches what a plug-in does."""
    message = "^No: KeyError: 1. The fault is the plug-in's; tell who made it.$"
    with pytest.raises(ScoreError, match=message), guarded("No", ScoreError):
        raise KeyError(1)
    with pytest.raises(ScoreError, match="SystemExit: 3"), guarded("No", ScoreError):
        sys.exit(3)
    with pytest.raises(LabelError), guarded("No", ScoreError):
        raise LabelError("mine")
    with pytest.raises(KeyboardInterrupt), guarded("No", ScoreError):
        raise KeyboardInterrupt


# Scores


def test_a_score_of_a_plug_in_is_one_of_the_scores(site):
    install_score(site)

    value = score("mine", LABELS, features=FEATURES)

    assert value == pytest.approx(FEATURES.mean())
    assert list(SCORES) == [*BUILT_IN_SCORES, "mine"]
    assert len(SCORES) == len(BUILT_IN_SCORES) + 1
    assert SCORES["mine"].reference == "nowhere"
    assert repr(SCORES).endswith("logistic_loss, mine>")
    with pytest.raises(TypeError):
        SCORES["other"] = SCORES["mine"]  # type: ignore[index]


def test_it_gets_checked_copies(site):
    """What it does to them harms nobody, and what every score refuses it need not refuse itself."""
    body = "assert x.dtype == 'f8' and y.dtype == 'i8' and set(y) == {0, 1, 2}; x *= 0; y *= 0; return 1"
    install_score(site, body=body)
    features, labels = FEATURES.astype(np.float32), np.array(["c", "a", "b"] * 10)
    before = features.copy(), labels.copy()

    value = score("mine", labels, features=features)

    assert (type(value), value) == (float, 1.0)
    np.testing.assert_array_equal(features, before[0])
    np.testing.assert_array_equal(labels, before[1])
    with pytest.raises(ProbeOutputError, match="1 of 120 features are not finite"):
        score("mine", LABELS, features=np.where(FEATURES.max() == FEATURES, np.nan, FEATURES))
    with pytest.raises(LabelError, match="two classes or more"):
        score("mine", 0 * LABELS, features=FEATURES)
    with pytest.raises(SettingsError, match="needs features, and none were given"):
        score("mine", LABELS)


UNUSABLE = {
    "function": ("value = max", "it must be a t2v_hub.scores.Score, not builtin_function_or_method"),
    "other name": ("value = Score('his', max, 'features', 'linear', '')", "the score calls itself 'his'"),
    "no function": (
        "value = Score('mine', 3, 'features', 'linear', '')",
        "its function must be one, not int",
    ),
    "needs": (
        "value = Score('mine', max, 'images', 'linear', '')",
        "its needs must be one of features, predictions, not 'images'",
    ),
    "cost": (
        "value = Score('mine', max, 'features', 'free', '')",
        "its cost must be one of linear, pairwise, spectral, iterative, not 'free'",
    ),
    "direction": (
        "value = Score('mine', max, 'features', 'linear', '', 'up')",
        "its larger_is_better must be one of True, False, not 'up'",
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_what_is_no_score_is_a_warning(site, case):
    """Named, with what is wrong about it; and asked for by name there is none."""
    source, why = UNUSABLE[case]
    modules = {"wrong_module": f"from t2v_hub.scores import Score\n{source}"}
    install(site, "lab", {"t2v_hub.scores": {"mine": "wrong_module:value"}}, modules)

    with (
        pytest.warns(PlugInWarning, match=f"The plug-in 'mine' of lab .* is left out: {why}. Upgrade"),
        pytest.raises(SettingsError, match="There is no score 'mine'; choose one of logme, "),
    ):
        score("mine", LABELS, features=FEATURES)


@pytest.mark.parametrize("name", ["logme", COMBINED])
def test_a_built_in_score_cannot_be_replaced(site, name):
    """Rankings of two machines would differ under one name. It is not even imported."""
    install(site, "lab", {"t2v_hub.scores": {name: "shadow_module:value"}}, {"shadow_module": "1 / 0"})

    with pytest.warns(PlugInWarning, match=f"'{name}' of lab .* t2v_hub has one of this name itself"):
        names = list(SCORES)

    assert names == list(BUILT_IN_SCORES)
    assert score("logme", LABELS, features=FEATURES) == BUILT_IN_SCORES["logme"].function(FEATURES, LABELS)
    assert "shadow_module" not in sys.modules


FAILURES = {
    "error": (
        "return 1 / 0",
        "The score 'mine' cannot be worked out: ZeroDivisionError: division by zero. The",
    ),
    "exit": ("raise SystemExit(2)", "cannot be worked out: SystemExit: 2. The fault is the plug-in's"),
    "nan": (
        "return float('nan')",
        "The score 'mine' must be a finite number, and came out as nan. The fault",
    ),
    "infinite": ("return float('-inf')", "a finite number, and came out as -inf"),
    "huge": ("return 10 ** 400", "a finite number, and came out as 1000"),
    "text": ("return 'good'", "a finite number, and came out as a str"),
    "array": ("return x[0]", "a finite number, and came out as a ndarray"),
    "truth": ("return True", "a finite number, and came out as True"),
    "nothing": ("return None", "a finite number, and came out as a NoneType"),
    "ours": ("from t2v_hub.errors import LabelError; raise LabelError('few')", "few"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_score_that_fails_costs_one_candidate(site, case):
    """It is named with the reason, the next takes its place, and the ranking goes on."""
    body, why = FAILURES[case]
    install_score(site, body=f"if x.max() > 90:\n        {body}\n    return float(x.max())")
    found = {id: Features(np.float32(FEATURES + plus)) for id, plus in zip("abc", (0, 99, 1), strict=True)}

    loaded, done = second_stage(
        list(found),
        [],
        read=found.__getitem__,
        labels=LABELS,
        limits=Limits.checked(2, None, "mine", 600),
        progress=False,
    )

    assert [one.id for one in loaded] == ["c", "a"]
    assert list(done.failed) == ["b"]
    assert why in done.failed["b"]


def test_smaller_may_be_better(site):
    """In the direction that the score names."""
    source = "from t2v_hub.scores import Score\ndef f(x, y): return x.max()\n"
    source += "v = Score('mine', f, 'features', 'linear', '', False)"
    install(site, "lab", {"t2v_hub.scores": {"mine": "down_module:v"}}, {"down_module": source})
    found = {id: Features(np.float32(FEATURES + plus)) for id, plus in zip("ab", (1, 0), strict=True)}

    loaded, _ = second_stage(
        list(found), [], read=found.__getitem__, labels=LABELS, limits=Limits.checked(2, None, "mine", 600)
    )

    assert [one.id for one in loaded] == ["b", "a"]


def test_a_score_that_is_not_there_is_named(site):
    """With those that are, a plug-in's too."""
    install_score(site)

    with pytest.raises(SettingsError, match="There is no score 'his'. Choose one of: combined, .*, mine"):
        Limits.checked(1, None, "his", 600)


# Probes

PROBES = """
import torch
from t2v_hub import ProbeNetwork
from t2v_hub.testing import TINY, TinyNetwork

def tiny(location):
    torch.rand(7)
    return ProbeNetwork.load(TinyNetwork(seed=int(location)), preprocessing=TINY)

def plain(location):
    network = TinyNetwork(seed=int(location))
    if location == "7":
        network.conv1.weight.data[0] = float("nan")
    return network

def broken(location):
    probe = tiny("0")
    probe.module.conv2.weight.data[0] = float("inf")
    return probe

class Own(ProbeNetwork):
    pass

def own(location):
    probe = tiny(location)
    probe.__class__ = Own
    return probe

def text(location):
    return location
"""


@pytest.fixture
def probes(site):
    names = ("tiny", "plain", "broken", "own", "text")
    install(
        site, "lab", {"t2v_hub.probes": {n: f"probes_module:{n}" for n in names}}, {"probes_module": PROBES}
    )


def test_a_probe_of_a_plug_in_measures(probes):
    """As the network itself does; `Space` knows it by name and by its tensors, and finds it again."""
    options = {"max_samples": 24, "cache": False, "progress": False, "device": "cpu"}
    state = torch.get_rng_state()
    network = ProbeNetwork.load("tiny:3")
    assert torch.equal(torch.get_rng_state(), state)

    embedding = Task2Vec("tiny:3", **options).embed(tiny_task())

    itself = ProbeNetwork.load(TinyNetwork(seed=3), preprocessing=TINY)
    expected = Task2Vec(itself, **options).embed(tiny_task())
    assert (network.name, network.digest, network.owned) == ("tiny:3", itself.digest, True)
    assert embedding.space.probe == "tiny:3"
    assert embedding.space == expected.space
    np.testing.assert_array_equal(embedding.fisher, expected.fisher)
    again = Task2Vec.for_space(embedding.space, **options).embed(tiny_task())
    np.testing.assert_array_equal(again.fisher, embedding.fisher)
    other = Space.from_dict({**embedding.space.to_dict(), "probe": "tiny:4"})
    with pytest.raises(EmbeddingMismatchError, match="different spaces"):
        Task2Vec.for_space(other, **options)


def test_settings_go_with_a_probe_of_a_plug_in(probes):
    narrow = ProbeNetwork.load("tiny:3", filters=["conv*"], image_size=8)
    plain = ProbeNetwork.load("plain:3", preprocessing=TINY)

    assert ([layer.name for layer in narrow.filters], narrow.preprocessing.size) == (
        ["conv1", "conv2"],
        (8, 8),
    )
    assert narrow.name == "tiny:3"
    assert (plain.name, plain.owned, plain.digest) == ("plain:3", True, ProbeNetwork.load("tiny:3").digest)
    assert ProbeNetwork.load("plain:3").preprocessing.size == (224, 224)


@pytest.mark.parametrize(
    ("location", "error", "message"),
    [
        (
            "tiny:three",
            ProbeError,
            "The plug-in for 'tiny:three' cannot load it: ValueError: invalid literal",
        ),
        (
            "text:x",
            ProbeError,
            "'text:x' must give a ProbeNetwork .of no subclass. or an nn.Module, not a str",
        ),
        ("own:3", ProbeError, "'own:3' must give a ProbeNetwork .of no subclass. or an nn.Module, not a Own"),
        ("plain:7", WeightsError, "27 of 162 values of 'conv1.weight' in 'plain:7' are NaN or infinite"),
        ("broken:x", WeightsError, "values of 'conv2.weight' in 'broken:x' are NaN or infinite"),
        (
            "openclip:ViT-B-32",
            ProbeNotFoundError,
            "'openclip:ViT-B-32' is no path on this machine, and no plug-in 'openclip' is installed that "
            "could open 'ViT-B-32'. Installed: broken, own, plain, text, tiny. Check the spelling, or",
        ),
        (
            "hf-hub:org/name",
            ProbeNotFoundError,
            "'org/name' is not on this machine and the Hub did not answer",
        ),
        ("https://example.org/x", ProbeNotFoundError, "no folder on this machine and no name of a Hub"),
        ("./tiny:3", ProbeNotFoundError, "There is no network at './tiny:3'"),
    ],
)
def test_what_no_plug_in_loads_is_named(probes, location, error, message):
    """Ids with a colon that were there before plug-ins mean what they meant."""
    with pytest.raises(error, match=message):
        ProbeNetwork.load(location)


def test_a_revision_is_of_a_repository(probes):
    with pytest.raises(
        SettingsError, match="revision='v2' is of a Hub repository, and 'tiny:3' is what a plug"
    ):
        ProbeNetwork.load("tiny:3", revision="v2")


def test_a_probe_that_is_no_function_is_a_warning(site):
    install(site, "lab", {"t2v_hub.probes": {"lab": "value_module:value"}}, {"value_module": "value = 3"})

    with (
        pytest.warns(PlugInWarning, match="'lab' of lab .* it must be a function of a location, not int"),
        pytest.raises(ProbeNotFoundError, match="Installed: none. Check"),
    ):
        ProbeNetwork.load("lab:x")


def test_the_names_of_repositories_cannot_be_taken(site):
    """A package that answered for hf-hub: would see every repository that is asked for."""
    install(site, "lab", {"t2v_hub.probes": {"hf-hub": "hub_module:v"}}, {"hub_module": "1 / 0"})

    with pytest.raises(ProbeNotFoundError, match="'org/name' is not on this machine"):
        ProbeNetwork.load("hf-hub:org/name")
    with (
        pytest.warns(PlugInWarning, match="'hf-hub' of lab .* t2v_hub has one of this name itself"),
        pytest.raises(ProbeNotFoundError, match="Installed: none"),
    ):
        ProbeNetwork.load("nobody:x")


# Catalogs

CATALOGS = """
from pathlib import Path
from t2v_hub import Catalog

def folder(location):
    return Catalog.load(Path(location))

def text(location):
    return location

def broken(location):
    return [][0]
"""


@pytest.fixture
def catalogs(site):
    entries = {name: f"catalogs_module:{name}" for name in ("folder", "text", "broken")}
    install(site, "lab", {"t2v_hub.catalogs": entries}, {"catalogs_module": CATALOGS})


def test_a_catalog_of_a_plug_in_ranks(catalogs, tmp_path, embedded):
    """Where a catalog is named, by its address."""
    task = TaskEmbedding.load(embedded)
    Catalog(tmp_path / "c").add(Candidate("org/a"), embedding=task)

    opened = Catalog.load(f"folder:{tmp_path / 'c'}")
    ranking = AutoSelector.from_task(task, catalog=f"folder:{tmp_path / 'c'}").rank()

    assert [candidate.id for candidate in opened] == ["org/a"]
    assert ranking.ranked == ("org/a",)
    assert opened.path == tmp_path / "c"


def test_an_empty_catalog_of_a_plug_in_is_its_own(catalogs, tmp_path, embedded):
    """An empty catalog is false; a folder of its address's name must not take its place."""
    Catalog(tmp_path / "c").record("owner/task", "org/a", 0.5)

    with pytest.raises(EmptyCatalogError, match=str(tmp_path / "c")):
        AutoSelector.from_task(TaskEmbedding.load(embedded), catalog=f"folder:{tmp_path / 'c'}")


@pytest.mark.parametrize(
    ("location", "error", "message"),
    [
        ("folder:/nothing/here", CatalogFileError, "There is no catalog in '/nothing/here'"),
        ("broken:x", CatalogError, "The plug-in for 'broken:x' cannot open it: IndexError: list index"),
        ("text:x", CatalogError, "The plug-in for 'text:x' must give a Catalog, not a str. The fault is the"),
        (
            "lab:x",
            CatalogFileError,
            "no plug-in 'lab' is installed that could open 'x'. Installed: broken, folder, text",
        ),
        (r"C:\catalog", CatalogFileError, "There is no catalog in "),
    ],
)
def test_what_no_plug_in_opens_is_named(catalogs, location, error, message):
    with pytest.raises(error, match=message):
        Catalog.load(location)


def test_a_folder_with_a_colon_is_a_folder(catalogs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Catalog("folder:x").add(Candidate("org/a"))

    assert [candidate.id for candidate in Catalog.load("folder:x")] == ["org/a"]
    assert list((tmp_path / "folder:x").iterdir())


# All three, from a package like that in examples/plugin


@pytest.fixture(scope="module")
def lab(tmp_path_factory, embedded):
    """The example installed, with a list of two checkpoints and the weights of a network."""
    folder = tmp_path_factory.mktemp("lab")
    install_example(folder / "site")
    shutil.copy(embedded, folder / "pets.safetensors")
    rows = ["id,parameters,embedding"]
    rows += [f"{save_checkpoint(folder / f'net{i}', seed=i)},1000,pets.safetensors" for i in range(2)]
    (folder / "list.csv").write_text("\n".join(rows))
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    save_file(network.state_dict(), folder / "weights.safetensors")
    path = os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return SimpleNamespace(folder=folder, environment={**os.environ, "PYTHONPATH": path})


SCRIPT = """
import json, sys
import t2v_hub, t2v_hub.scores
assert "t2v_hub_lab" not in sys.modules
from t2v_hub import AutoSelector, ProbeNetwork, Task2Vec
from t2v_hub.scores import SCORES

pets, out = sys.argv[1:]
settings = {"max_samples": 24, "progress": False, "device": "cpu"}
embedding = Task2Vec("lab:weights.safetensors", **settings).embed(pets)
again = Task2Vec.for_space(embedding.space, **settings)
selector = AutoSelector.from_task(pets, catalog="lab:list.csv", **settings)
ranking = selector.rank(refine=2, score="centroid_accuracy")
values = {"scores": list(SCORES), "probe": embedding.space.probe, "name": again.probe.name}
with open(out, "w") as file:
    json.dump({**values, "ranking": ranking.to_dict()}, file)

from t2v_hub.cli import main
arguments = "--catalog lab:list.csv --refine 2 --score centroid_accuracy --device cpu --json"
sys.argv = ["t2v", "rank", pets, *arguments.split()]
main()
"""


def test_an_installed_package_brings_all_three(lab, pets, tmp_path):
    """In a process of its own, as a user has it; from Python and from the command."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(pets), str(tmp_path / "found.json")],
        env={**lab.environment, "T2V_HOME": str(tmp_path)},
        cwd=lab.folder,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    found, ranked = json.loads((tmp_path / "found.json").read_text()), json.loads(done.stdout)
    assert found["scores"][-1] == "centroid_accuracy"
    assert found["probe"] == found["name"] == "lab:weights.safetensors"
    for ranking in (found["ranking"], ranked):
        assert ranking["refinement"]["score"] == "centroid_accuracy"
        assert ranking["refinement"]["n_loaded"] == 2
        scores = [item["score"] for item in ranking["candidates"]]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= value <= 1 for value in scores)


@pytest.fixture
def lab_here(lab, site, monkeypatch):
    """The example in this process."""
    monkeypatch.syspath_prepend(lab.folder / "site")
    monkeypatch.chdir(lab.folder)
    yield lab.folder
    sys.modules.pop("t2v_hub_lab", None)


def test_the_command_knows_addresses(lab_here, pets, tmp_path):
    """`embed` a probe's, and whatever reads a catalog, one of these."""
    out = tmp_path / "pets.safetensors"
    made = t2v_json("embed", pets, "-o", out, "--probe", "lab:weights.safetensors", "--max-samples", 24)
    listed = t2v_json("catalog", "list", "--catalog", "lab:list.csv")
    shown = t2v_json("catalog", "show", str(lab_here / "net1"), "--catalog", "lab:list.csv")

    assert TaskEmbedding.load(out).space.probe == "lab:weights.safetensors"
    assert "lab:weights.safetensors" in json.dumps(made)
    assert [one["id"] for one in listed["candidates"]] == [str(lab_here / f"net{i}") for i in range(2)]
    assert shown["candidate"]["parameters"] == 1000


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["rank", "{pets}", "--score", "his", "--refine", 1],
            2,
            "There is no score 'his'. Choose one of: comb",
        ),
        (["rank", "{pets}", "--catalog", "bal:list.csv"], 1, "no plug-in 'bal' is installed that could open"),
        (["benchmark", "--catalog", "bal:list.csv"], 1, "no plug-in 'bal' is installed that could open"),
        (["rank", "{pets}", "--catalog", "lab:none.csv"], 1, "cannot open it: FileNotFoundError"),
        (["embed", "{pets}", "--probe", "bal:weights.safetensors"], 1, "Installed: lab. Check the spelling"),
        (["embed", "{pets}", "--probe", "lab:none.safetensors"], 1, "cannot load it: FileNotFoundError"),
    ],
)
def test_the_command_names_what_is_wrong(lab_here, pets, arguments, code, message):
    result = t2v(*(str(pets) if text == "{pets}" else text for text in arguments))

    assert result.exit_code == code
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_what_a_plug_in_breaks_the_command_says_in_a_line(lab_here, site, pets):
    """And goes on."""
    install(site, "bad-lab", {"t2v_hub.scores": {"bad": "bad_module:v"}}, {"bad_module": "1 / 0"})

    result = t2v("rank", pets, "--score", "his", "--refine", 1)

    assert "warning: The plug-in 'bad' of bad-lab (group t2v_hub.scores" in result.stderr
    assert "combined, logme" in result.stderr
    assert "centroid_accuracy." in result.stderr


def test_importing_us_imports_no_plug_in(tmp_path):
    """Not even where one breaks: nothing is looked up, nothing warned of, before a name is asked for."""
    modules = {"bad_module": "raise RuntimeError('imported')"}
    groups = ("t2v_hub.scores", "t2v_hub.probes", "t2v_hub.catalogs", "t2v_hub.executors")
    install(tmp_path, "bad-lab", {group: {"bad": "bad_module:v"} for group in groups}, modules)
    code = """
import importlib.metadata as metadata, sys
def entry_points(**_):
    raise AssertionError("entry points were looked up")
metadata.entry_points = metadata.distributions = entry_points
import t2v_hub, t2v_hub.scores, t2v_hub.selector, t2v_hub.catalog
from t2v_hub.scores import SCORES, score
SCORES["logme"], "leep" in SCORES, score("nce", [0, 1], predictions=[[1.0, 0.0], [0.0, 1.0]])
t2v_hub.Catalog(sys.argv[1])
assert "bad_module" not in sys.modules and "torch" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "catalog")],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_a_candidate_is_not_a_plug_in(probes):
    """Probes are what a plug-in loads; a checkpoint to be fine-tuned is of timm or transformers."""
    from t2v_hub.probe import load_checkpoint

    with pytest.raises(CheckpointError, match="no folder, no Hub repository"):
        load_checkpoint("tiny:3")


def test_one_that_lacks_something_gives_way_to_one_that_works(site):
    """Of two of one name the first that works stays."""
    install_score(site, package="b-works")
    entries = {"t2v_hub.scores": {"mine": "lacking:MINE"}}
    lacking = "from t2v_hub.errors import MissingDependencyError\nraise MissingDependencyError('nothing')\n"
    install(site, "a-lacks", entries, {"lacking": lacking})

    found = plugins("t2v_hub.scores")

    assert found["mine"].name == "mine"
    assert "mine" in list(found)


def test_commands_that_write_take_no_address(lab_here, tmp_path, monkeypatch):
    """They would make a folder of that name, which then stands before the plug-in for good."""
    monkeypatch.chdir(tmp_path)

    done = t2v("catalog", "add", "org/a", "--catalog", "lab:list.csv")

    assert done.exit_code == 2
    assert "is what the plug-in 'lab' opens, which is only read. Name a folder" in " ".join(
        done.stderr.replace("│", " ").split()
    )
    assert not list(tmp_path.glob("lab*"))
