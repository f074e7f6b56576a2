"""`Ranking`: a sequence, a table, words, plain values, and a network to fine-tune."""

import builtins
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from factories import make_embedding, make_space

from t2v_hub.catalog import Candidate
from t2v_hub.embedding import TaskInfo
from t2v_hub.errors import MissingDependencyError, SettingsError
from t2v_hub.selector import RankedCandidate, Ranking

SPACE = make_space()


def ranked(rank, distance, error, group, tied, **facts):
    """A ranked candidate with a distance."""
    known = {key: facts.pop(key) for key in ("gap", "gap_error", "complexity") if key in facts}
    candidate = Candidate(f"org/model-{rank}", embeddings=[make_embedding(seed=rank)], **facts)
    return RankedCandidate(
        candidate=candidate,
        distance=distance,
        standard_error=error,
        prior=candidate.upstream_accuracy,
        interval=None if error is None else (distance - 1.96 * error, distance + 1.96 * error),
        tie_group=group,
        reason=f"nearest source task 'task{rank}'",
        rank=rank,
        source_task=f"task{rank}",
        tied=tuple(f"org/model-{place}" for place in tied),
        **known,
    )


ITEMS = (
    ranked(
        1,
        0.1234,
        0.004,
        1,
        (1, 2),
        gap=0.001,
        gap_error=0.003,
        complexity=0.05,
        parameters=11_689_512,
        library="timm",
    ),
    ranked(
        2, 0.1244, 0.0041, 1, (1, 2), gap=0.0756, gap_error=0.005, upstream_accuracy=0.715, downloads=12_345
    ),
    ranked(3, 0.2, None, 2, (3,), gap=0.0, parameters=999),
    ranked(4, 0.2, 0.0031, 3, (4, 5), gap=0.0, gap_error=0.0, parameters=2_500_000_000),
    ranked(5, 0.2, 0.0031, 3, (4, 5)),
    RankedCandidate(
        Candidate("org/none"),
        None,
        None,
        None,
        None,
        4,
        "it has no embedding in this space",
        6,
        tied=("org/none",),
    ),
)
RANKING = Ranking(
    items=ITEMS,
    task=TaskInfo("beans", n_samples=1034, n_classes=3, split="train", revision="sha:1"),
    space=SPACE,
    distance="asymmetric",
    alpha=0.15,
    n_considered=9,
    n_filtered=3,
    n_without_embedding=1,
    n_measured=1000,
)


def test_a_ranking_is_an_immutable_sequence():
    """It can be passed wherever a list is read."""
    assert isinstance(RANKING, Sequence)
    assert len(RANKING) == 6
    assert RANKING[0] is ITEMS[0]
    assert RANKING[-1] is ITEMS[5]
    assert list(RANKING) == list(ITEMS)
    assert ITEMS[2] in RANKING
    assert list(reversed(RANKING)) == list(reversed(ITEMS))
    with pytest.raises(IndexError):
        RANKING[6]
    with pytest.raises(dataclasses.FrozenInstanceError):
        RANKING.items = ()


def test_a_slice_is_a_ranking_with_the_ranks_it_had():
    """What stood third is still the third."""
    part = RANKING[2:4]

    assert isinstance(part, Ranking)
    assert [item.rank for item in part] == [3, 4]
    assert part.task == RANKING.task
    assert "\n   3  org/model-3" in str(part)
    assert RANKING[:] == RANKING


def test_names_come_sorted_and_best_first():
    """A search space wants them in a fixed order, a queue the best first."""
    ranking = RANKING[::-1]

    assert ranking.ranked == (
        "org/none",
        "org/model-5",
        "org/model-4",
        "org/model-3",
        "org/model-2",
        "org/model-1",
    )
    assert ranking.choices == RANKING.choices == tuple(sorted(ranking.ranked))


def test_weights_are_reciprocal_places_shared_within_groups():
    """1, 1/2, 1/3 …: averaged where the order is not known."""
    raw = [3 / 4, 3 / 4, 1 / 3, 9 / 40, 9 / 40, 1 / 6]

    assert RANKING.weights == pytest.approx([weight / sum(raw) for weight in raw])
    assert math.fsum(RANKING.weights) == pytest.approx(1)
    assert RANKING[3:5].weights == (0.5, 0.5)
    assert RANKING[:0].weights == ()


def test_a_ranking_prints_as_an_aligned_table():
    """What a person sees first; pinned whole."""
    expected = f"""\
Task        beans (train, 1,000 of 1,034 images, 3 classes)
Probe       timm/resnet18.a1_in1k, space {SPACE.id}
Distance    asymmetric (alpha 0.15), smaller is better
Candidates  9 in the catalog; 3 left out by where; 1 without an embedding in this space (last, by prior)
The first 2 cannot be told apart: distances differ from the first one's by less than 1.96 standard errors.

rank  checkpoint   distance ± s.e.  tie  nearest source task  parameters  upstream
   1  org/model-1  0.1234 ± 0.0040  ≈1   task1                    11.7 M         –
   2  org/model-2  0.1244 ± 0.0041  ≈1   task2                         –     0.715
   3  org/model-3  0.2000                task3                       999         –
   4  org/model-4  0.2000 ± 0.0031  ≈4   task4                     2.5 B         –
   5  org/model-5  0.2000 ± 0.0031  ≈4   task5                         –         –
   6  org/none     –                     –                             –         –
≈1: cannot be told apart from number 1, the group's first; neighbours in different groups may be tied too."""

    assert str(RANKING) == expected
    assert repr(RANKING) == "Ranking(task='beans', n_candidates=6, best='org/model-1')"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"items": ITEMS[3:5]}, "Candidates  9 in"),
        ({"items": ITEMS[4:5]}, "≈4: cannot be told apart from number 4, the group's first;"),
        ({"n_measured": 1034}, "beans (train, 1,034 images"),
        ({"n_measured": None}, "beans (train, 1,034 images"),
        (
            {"items": (dataclasses.replace(ITEMS[0], distance=-0.0173),)},
            "\nBelow 0 is no error: asymmetric takes off alpha times the source task's complexity.",
        ),
        ({"items": ()}, "No candidate is left to rank."),
        ({"n_tied_beyond": 4}, "4 more cannot be told apart from the last group"),
        (
            {"skipped": ("org/x: it is damaged",)},
            "Could not be read, and was left out (1):\n  org/x: it is",
        ),
        ({"skipped": ("org/x: it",) * 9}, "… and 4 more (Ranking.skipped)"),
        ({"distance": "symmetric"}, "Distance    symmetric, smaller is better"),
        ({"items": ITEMS[:1] * 40}, "… and 10 more; slice the ranking to print others."),
        ({"items": (dataclasses.replace(ITEMS[2], rank=1),)}, "standard errors were not measured"),
        (
            {"items": tuple(dataclasses.replace(item, rank=item.rank - 3) for item in ITEMS[3:5])},
            "The first 2 have one distance (the same source task) and are ordered by prior.",
        ),
    ],
)
def test_the_table_says_what_is_special(change, words):
    """Each in words, where it applies."""
    assert words in str(dataclasses.replace(RANKING, **change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "Below 0"),
        ({"distance": "kl", "items": (dataclasses.replace(ITEMS[0], distance=-1e-9),)}, "Below 0"),
        ({"items": ITEMS[2:3]}, "≈"),
        ({"items": ITEMS[5:]}, "≈"),
    ],
)
def test_nothing_is_explained_that_does_not_show(change, words):
    """A legend of what is not there is noise."""
    assert words not in str(dataclasses.replace(RANKING, **change))


def in_folder(folder):
    """The first two candidates, with ids in a folder."""
    return tuple(
        dataclasses.replace(
            item,
            candidate=dataclasses.replace(item.candidate, id=f"{folder}{name}"),
            tied=(f"{folder}high-chalk", f"{folder}high-ink"),
        )
        for item, name in zip(ITEMS[:2], ("high-chalk", "high-ink"), strict=True)
    )


def test_the_folder_of_local_checkpoints_is_said_once():
    """Absolute paths load from anywhere, and would fill the table."""
    ranking = dataclasses.replace(RANKING, items=in_folder("/data/experts/"))

    assert "checkpoints in /data/experts/\n" in str(ranking)
    assert "\n   1  high-chalk  " in str(ranking)
    assert "\n   1  /data/experts/high-chalk  " in str(ranking[:1])
    assert ranking.explain().startswith("/data/experts/high-chalk is number 1")
    assert "cannot be told apart from high-ink:" in ranking.explain()
    assert "The next one, high-ink, is" in ranking.explain()
    assert ranking.ranked[0] == "/data/experts/high-chalk"


@pytest.mark.parametrize("folder", ["org/", "/", ""])
def test_other_names_are_printed_whole(folder):
    """On the Hub the organisation is part of the name."""
    text = str(dataclasses.replace(RANKING, items=in_folder(folder)))

    assert f"\n   2  {folder}high-ink  " in text
    assert "checkpoints in" not in text


def test_large_and_infinite_distances_fit_the_table():
    """Divergences are sums over thousands of filters."""
    items = [
        dataclasses.replace(ITEMS[2], distance=value, standard_error=None) for value in (123456.7, math.inf)
    ]

    lines = str(dataclasses.replace(RANKING, items=tuple(items), distance="kl")).splitlines()

    assert "1.235e+05" in lines[-2]
    assert " inf " in lines[-1]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (0, "org/model-1 is number 1 of 6 for 'beans'."),
        (
            0,
            "Nearest source task: 'task1', at asymmetric distance 0.1234 (standard error 0.0040, 95 %",
        ),
        (
            0,
            "That is 0.1734 less 0.0500 for the complexity of the source task, alpha 0.15 times its",
        ),
        (0, "cannot be told apart from org/model-2: within the group, distances differ"),
        (0, "More images (max_samples) would shrink the error."),
        (
            0,
            "The next one, org/model-2, is 0.0010 ± 0.0030 further: other images of the same task could swap",
        ),
        (
            0,
            "Prior: 11.7 M parameters, upstream accuracy not known, downloads not known; it decides",
        ),
        (1, "The next one, org/model-3, is 0.0756 ± 0.0050 further: 15.1 standard errors, so other images"),
        (1, "Prior: size not known, upstream accuracy 0.715, 12,345 downloads;"),
        (2, "standard error not known (it was not measured)"),
        (2, "The next one, org/model-4, is exactly as far."),
        (3, "It has the same distance as org/model-5; among these the prior decides."),
        (5, "It has no place by distance: it has no embedding in this space."),
    ],
)
def test_an_explanation_says_why_and_what_would_change_it(place, words):
    """In sentences that can be pasted into a report."""
    assert words in RANKING.explain(place)


def test_explanations_of_special_places():
    """Cut rankings, several embeddings, many ties, an error that is not known."""
    many = dataclasses.replace(ITEMS[1], tied=tuple(f"org/model-{i}" for i in range(1, 12)))
    several = dataclasses.replace(
        ITEMS[1],
        candidate=dataclasses.replace(
            ITEMS[1].candidate, embeddings=[make_embedding(seed=i) for i in (1, 2)]
        ),
        gap_error=None,
    )

    assert "The next one (not shown) is 0.0756 ± 0.0050 further" in RANKING[:2].explain(1)
    assert "and 5 more" in dataclasses.replace(RANKING, items=(many,)).explain(0)
    text = dataclasses.replace(RANKING, items=(several,)).explain(0)
    assert "the nearest of its 2 embeddings" in text
    assert "is 0.076 further; how sure that is, is not known" in text


def test_an_explanation_is_of_the_best_unless_another_is_named():
    """Mostly the first one is asked about."""
    assert RANKING.explain() == RANKING.explain(0)


@pytest.mark.parametrize("i", [-1, 6, 1.0, True, "org/model-1"])
def test_a_place_outside_is_named_with_the_valid_range(i):
    """The command counts from 1, so that -1 or the length is rather a slip than a wish."""
    with pytest.raises(SettingsError, match=r"counts from 0: .* from 0 \(the best\) to 5, not "):
        RANKING.explain(i)


def test_an_empty_ranking_has_nothing_to_explain():
    """There is no valid range to name."""
    with pytest.raises(SettingsError, match="nothing to explain: no candidate is in this ranking"):
        RANKING[:0].explain()


def test_plain_values_are_json_of_a_named_schema():
    """Other programs read them; NaN and infinity are no JSON."""
    broken = dataclasses.replace(
        ITEMS[0], distance=math.inf, standard_error=math.nan, interval=(-math.inf, math.inf)
    )
    ranking = dataclasses.replace(RANKING, items=(broken, *ITEMS[1:]), skipped=("org/x: damaged",))

    values = json.loads(json.dumps(ranking.to_dict(), allow_nan=False))

    assert values["schema"] == "t2v-ranking/1"
    assert values["task"] == {
        "id": "beans",
        "config": None,
        "split": "train",
        "revision": "sha:1",
        "n_samples": 1034,
        "n_measured": 1000,
        "n_classes": 3,
    }
    assert (values["space"], values["distance"], values["alpha"]) == (SPACE.id, "asymmetric", 0.15)
    assert (values["n_considered"], values["n_filtered"], values["n_without_embedding"]) == (9, 3, 1)
    assert values["skipped"] == ["org/x: damaged"]
    first, second, *_, last = values["candidates"]
    assert (first["distance"], first["standard_error"], first["interval"]) == (None, None, [None, None])
    assert second["id"] == "org/model-2"
    assert second["interval"] == pytest.approx([0.1244 - 1.96 * 0.0041, 0.1244 + 1.96 * 0.0041])
    assert second["weight"] == RANKING.weights[1]
    assert (second["source_task"], second["tie_group"], second["downloads"]) == ("task2", 1, 12345)
    assert (last["distance"], last["interval"], last["reason"]) == (
        None,
        None,
        "it has no embedding in this space",
    )


def test_pandas_gets_the_same_values():
    """One row per candidate, also where there is none."""
    frame = RANKING.to_pandas()

    assert list(frame["id"]) == list(RANKING.ranked)
    assert list(frame.columns) == list(RANKING.to_dict()["candidates"][0])
    assert frame["distance"].isna().sum() == 1
    assert list(RANKING[:0].to_pandas().columns) == list(frame.columns)


def test_missing_pandas_is_named_with_its_install_line(monkeypatch):
    """It is optional; a broken one must not be reported as missing."""
    real = builtins.__import__
    missing = ["pandas"]

    def fail(name, *arguments, **options):
        if name == "pandas":
            raise ModuleNotFoundError(f"No module named {missing[0]!r}", name=missing[0])
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(MissingDependencyError, match=r"needs pandas, .*: pip install 't2v-hub\[pandas\]'"):
        RANKING.to_pandas()
    missing[0] = "pytz"
    with pytest.raises(ModuleNotFoundError, match="pytz"):
        RANKING.to_pandas()


@pytest.fixture
def loaded(monkeypatch):
    """Records what the probe's door is asked for."""
    asked = []

    def load_checkpoint(location, **options):
        asked.append((location, options))
        return "network"

    def load(data):
        return SimpleNamespace(info=TaskInfo("x", n_samples=9, n_classes=2, class_names=data))

    monkeypatch.setitem(sys.modules, "t2v_hub.probe", SimpleNamespace(load_checkpoint=load_checkpoint))
    monkeypatch.setitem(sys.modules, "t2v_hub.data", SimpleNamespace(load=load))
    return asked


@pytest.mark.parametrize(
    ("data", "names", "n_classes"),
    [(None, None, None), (("cat", "dog"), ("cat", "dog"), None), ((), None, 2)],
)
def test_load_gives_a_head_for_the_classes_of_the_data(loaded, data, names, n_classes):
    """Named where the data names them, counted otherwise, as trained where there is no data."""
    item = dataclasses.replace(ITEMS[0], candidate=Candidate("org/a", revision="abc", library="timm"))

    assert item.load(data) == "network"
    options = {"library": "timm", "revision": "abc", "class_names": names, "n_classes": n_classes}
    assert loaded == [("org/a", {**options, "endpoint": None, "token": None, "cache_dir": None})]


def test_load_takes_another_revision(loaded):
    """A candidate's own is what its facts describe; a newer one may be wanted."""
    item = dataclasses.replace(ITEMS[0], candidate=Candidate("org/a", revision="abc"))

    item.load(revision="main")

    assert loaded[0][1]["revision"] == "main"
