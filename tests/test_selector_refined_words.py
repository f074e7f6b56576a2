"""A refined ranking in words and as plain values."""

import dataclasses
import json

import pytest
from factories import make_space

from t2v_hub.catalog import Candidate
from t2v_hub.embedding import TaskInfo
from t2v_hub.selector import AgainstPrior, RankedCandidate, Ranking, Refinement
from t2v_hub.selector.outcomes import Difference


def item(rank, id, *, error=None, score=None, group=None, tied=(), distance=0.1, folder="org/"):
    return RankedCandidate(
        candidate=Candidate(f"{folder}{id}"),
        distance=distance,
        standard_error=0.01,
        prior=None,
        interval=(distance - 0.0196, distance + 0.0196) if distance is not None else None,
        tie_group=group or rank,
        reason="nearest source task 'x'",
        rank=rank,
        source_task="x",
        tied=tuple(f"{folder}{name}" for name in tied or (id,)),
        score=score,
        predicted_error=error,
        predicted_interval=None if error is None else (error - 0.02, error + 0.03),
        predicted_from=None if error is None else "images",
    )


SURE = Difference(0.031, 0.012)
DONE = Refinement(
    score="ridge_accuracy",
    n_loaded=2,
    n_images=600,
    seconds=12.34,
    failed={"org/broken": "Cannot load it"},
    against_prior=AgainstPrior("org/two", SURE),
)
RANKING = Ranking(
    items=(
        item(1, "one", error=0.08, score=0.92, distance=None),
        item(2, "two", error=0.111, score=0.889),
        item(3, "broken"),
        item(4, "four"),
    ),
    task=TaskInfo("beans", n_samples=1034, n_classes=3),
    space=make_space(),
    distance="asymmetric",
    alpha=0.15,
    n_considered=4,
    refinement=DONE,
)
TIED = (
    item(1, "one", error=0.08, score=-1.5, group=1, tied=("one", "two"), distance=None),
    item(2, "two", error=0.111, group=1, tied=("one", "two"), distance=None),
)


def changed(**changes):
    return dataclasses.replace(RANKING, refinement=dataclasses.replace(DONE, **changes))


def against(value, error, id="org/two"):
    return {"against_prior": AgainstPrior(id, None if value is None else Difference(value, error))}


def test_a_refined_ranking_prints_what_was_loaded_and_what_failed():
    """Pinned whole."""
    expected = f"""\
Task        beans (1,034 images, 3 classes)
Probe       timm/resnet18.a1_in1k, space {make_space().id}
Distance    asymmetric (alpha 0.15), smaller is better
Candidates  4 in the catalog
Loaded      2 in 12.3 s, scored by ridge_accuracy on 600 images of the task; 1 failed
org/one makes 3.1 ± 1.2 points fewer errors than org/two, which the prior alone would have taken.

rank  checkpoint  predicted error ± 95 %  distance ± s.e.  tie  nearest source task  parameters  upstream
   1  org/one     8.0 ± 2.5 %             –                     x                             –         –
   2  org/two     11.1 ± 2.5 %            0.100 ± 0.010         x                             –         –
   3  org/broken  –                       0.100 ± 0.010         x                             –         –
   4  org/four    –                       0.100 ± 0.010         x                             –         –

Could not be loaded, and keep their place by distance (1):
  org/broken: Cannot load it"""

    assert str(RANKING) == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (against(-0.031, 0.012), "org/one makes 3.1 ± 1.2 points more errors than org/two, which"),
        (
            against(0.004, 0.012),
            "org/one cannot be told apart from org/two, which the prior alone would have taken (0.4 ± 1.2 "
            "points fewer errors): for this pool the task adds nothing that shows.",
        ),
        (against(0.0, 0.0), "org/one cannot be told apart from org/two"),
        (against(0.5, None), "(50.0 points fewer errors)"),
        (
            against(0.0, 0.0, id="org/one"),
            "The prior alone would have taken org/one as well: the task changes nothing at the top.",
        ),
        (
            against(None, None, id="org/four"),
            "Whether org/one is better than org/four, which the prior alone would have taken, is not known: "
            "that was not loaded (refine=2 loads it).",
        ),
        (against(None, None, id="org/broken"), "is not known: that could not be loaded."),
        ({"against_prior": None}, "No candidate has a prior (parameters, upstream accuracy, downloads) that"),
        ({"gave_up": True}, "Ten candidates in a row could not be loaded, so no more were tried."),
        ({"failed": {f"org/{i}": "no" for i in range(8)}}, "  org/4: no\n  … and 3 more (Ranking.failed)"),
    ],
)
def test_the_verdict_is_what_the_images_say(change, words):
    """Good or bad: a ranking that adds nothing to the prior says so."""
    assert words in str(changed(**change))


def test_ties_of_loaded_candidates_are_said_to_be_of_errors():
    """Not of distances, which they may not even have."""
    ranking = dataclasses.replace(changed(score="leep", failed={}), items=TIED)

    text = str(ranking)

    assert "The first 2 cannot be told apart: on the same images, errors differ from the first one's" in text
    assert "distances differ" not in text
    assert "≈1: cannot be told apart from number 1" in text
    assert "   2  org/two     11.1 ± 2.5 %            –     –                ≈1 " in text
    assert "It cannot be told apart from org/two: on the same images" in ranking.explain(0)


def test_names_leave_out_the_folder_of_all():
    """Paths would fill the lines."""
    items = (item(1, "one", error=0.08, folder="/data/nets/"), item(2, "two", folder="/data/nets/"))
    done = dataclasses.replace(
        DONE, failed={"/data/nets/two": "no"}, against_prior=AgainstPrior("/data/nets/two", SURE)
    )

    text = str(dataclasses.replace(RANKING, items=items, refinement=done))

    assert "\none makes 3.1 ± 1.2 points fewer errors than two, which" in text
    assert "\n  two: no" in text


@pytest.mark.parametrize("part", [RANKING[1:], RANKING[:0]])
def test_a_slice_without_the_first_gives_no_verdict(part):
    """It would be about one that does not show."""
    assert "which the prior alone" not in str(part)


@pytest.mark.parametrize(
    ("i", "words"),
    [
        (
            0,
            "It was loaded: a linear classifier on its features misses 8.0 % of 600 images of the task, ",
        ),
        (0, "each left out in turn (95 % interval 6.0 to 11.0 %)."),
        (1, "Nearest source task: 'x', at asymmetric distance 0.100"),
        (1, "it decides which candidates are loaded beside the nearest"),
        (2, "It could not be loaded, so it stands by distance, after those that could: Cannot load it"),
        (3, "It was not loaded; those that were stand before it."),
    ],
)
def test_an_explanation_says_what_the_second_stage_found(i, words):
    """Of each kind of place."""
    assert words in RANKING.explain(i)


def test_a_score_of_another_name_is_explained():
    """Errors alone would not explain the order."""
    ranking = dataclasses.replace(changed(score="leep"), items=TIED)

    assert "Loaded candidates are ordered by leep; its own is -1.5." in ranking.explain(0)
    assert "It has no leep, which needs the predictions of a head of its own; so" in ranking.explain(1)
    assert "ordered by" not in RANKING.explain(0)


def test_plain_values_hold_all_of_it():
    """Fields joined the schema; none changed its meaning."""
    values = json.loads(json.dumps(RANKING.to_dict(), allow_nan=False))

    assert values["schema"] == "t2v-ranking/1"
    assert values["refinement"] == {
        "score": "ridge_accuracy",
        "features": "last",
        "n_loaded": 2,
        "n_images": 600,
        "seconds": 12.34,
        "failed": {"org/broken": "Cannot load it"},
        "gave_up": False,
        "against_prior": {"id": "org/two", "difference": 0.031, "standard_error": 0.012},
    }
    first, _, third, _ = values["candidates"]
    assert (first["score"], first["predicted_error"], first["predicted_interval"]) == (
        0.92,
        0.08,
        [0.06, 0.11],
    )
    assert (third["score"], third["predicted_error"], third["predicted_interval"]) == (None, None, None)
    assert values["candidates"][1]["interval"] == pytest.approx([0.0804, 0.1196])
    assert list(RANKING.to_pandas()["predicted_error"][:2]) == [0.08, 0.111]
    assert (RANKING.n_loaded, dict(RANKING.failed)) == (2, {"org/broken": "Cannot load it"})


def test_without_a_second_stage_there_is_nothing_of_it():
    """A ranking by distance alone is as it was."""
    plain = dataclasses.replace(RANKING, refinement=None, items=RANKING.items[2:])

    assert plain.to_dict()["refinement"] is None
    assert (plain.n_loaded, plain.failed) == (0, {})
    assert "oaded" not in str(plain) + plain.explain(0)
    assert "predicted" not in str(plain)


def test_the_combined_score_is_explained():
    """A number without a unit says nothing: its parts, and over what it is standardised."""
    ranking = changed(score="combined")

    words = ranking.explain(0)

    assert "the mean of ridge_loss, logme, logistic_loss, and a quarter of recorded results" in words
    assert "its own is +0.92." in words
    assert "+0.92" in str(ranking)
