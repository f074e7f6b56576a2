"""The demo: one quick run looked at from all sides, and the figures that it prints."""

import dataclasses
import json
import math
import os
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
import yaml
from factories import make_catalog, make_embedding
from huggingface_hub.utils import are_progress_bars_disabled

from t2v_hub import AutoSelector, Candidate, Catalog, ModelSelector, ProbeNetwork
from t2v_hub.demo import report as figures
from t2v_hub.demo import run, sharing, words
from t2v_hub.demo.digits import TARGETS, Digits, DigitTask, expert_tasks
from t2v_hub.demo.folder import DemoFolder
from t2v_hub.demo.sharing import model_card, share
from t2v_hub.demo.story import _LIBRARIES, FULL
from t2v_hub.errors import ProbeNotFoundError, SettingsError, StorageError
from t2v_hub.testing import LoopbackHub


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A quick run: its report, what it told and its folder."""
    out, told = tmp_path_factory.mktemp("demo").resolve() / "out", []
    state = torch.random.get_rng_state()
    here = Path.cwd()
    os.chdir(out.parent)  # as most will run it
    try:
        report = run(Path("out"), quick=True, echo=told.append)
    finally:
        os.chdir(here)
    return report, told, out, torch.equal(state, torch.random.get_rng_state())


def test_everything_that_is_promised_lies_in_the_folder(quick):
    """A demo that leaves its results elsewhere, or half of them, shows nothing."""
    report, _, out, _ = quick
    catalog = Catalog.load(out / "catalog")

    assert len(catalog) == len(report.experts) == 4
    assert {candidate.library for candidate in catalog} == {"timm", "transformers"}
    assert len({candidate.parameters for candidate in catalog}) == 1, "networks of one size"
    assert all(candidate.licence and candidate.upstream_accuracy for candidate in catalog)
    for picture in ("distances.png", "ranking.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    stored = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(report.to_dict()))
    assert stored["schema"] == "t2v-demo/1"
    assert set(report.files) == {"catalog", "distances", "ranking", "report"}


def test_story_shows_the_ranking_beside_what_came_of_it(quick):
    """Whoever runs it wants to see the ranking, whether it was right, and what to do next."""
    report, told, out, _ = quick
    text = "\n".join(told)

    assert str(report.trials[0].ranking) in text
    assert report.trials[0].ranking.explain(0) in text
    for trial in report.trials:
        assert set(trial.accuracies) == set(trial.ranking.ranked)
        assert f"for {trial.name}" in text
    for policy in (figures.RANDOM, figures.UPSTREAM, figures.CONSTANT):
        assert policy in text
    assert "under a minute on two cores. Checkpoints, catalog, pictures" in " ".join(text.split())
    assert f" go to\n{out}\n" in text
    assert f"  distances  {out / 'distances.png'} (the symmetric distance between all tasks; rankings" in text
    assert "rankings use the relative one)" in text
    assert all(trial.ranking.distance == "relative" for trial in report.trials)
    assert "t2v catalog add" in text
    assert "t2v rank" in text


def test_experts_are_shared_and_found_as_on_the_hub(quick):
    """What a ranking is made from there is what the cards hold; it must lead to the same choice."""
    report, told, out, _ = quick
    ours, theirs = Catalog.load(out / "catalog"), Catalog.load(out / "hub-catalog")

    assert report.hub.failure is None
    assert (report.hub.n_published, report.hub.n_found, report.hub.n_requests) == (4, 4, 1)
    assert report.hub.same_order
    assert 0 < report.hub.largest_difference < 1e-3, "float16 is not exact, and no catalog was read twice"
    assert report.to_dict()["hub"]["n_found"] == 4
    assert report.hub.loaded == f"t2v-demo/{Path(report.trials[0].ranking.ranked[0]).name}"
    for expert in report.experts:
        here, there = ours[expert.location], theirs[f"t2v-demo/{expert.name}"]
        for fact in ("library", "licence", "source", "upstream_accuracy"):
            assert getattr(there, fact) == getattr(here, fact), fact
        assert there.embeddings[0].task.n_classes == here.embeddings[0].task.n_classes
        assert there.embeddings[0].task.class_names == ()  # in the card; a catalog needs none, however long
    [kept] = (out / "hub-cache").glob("models--*")
    assert kept.name == f"models--{report.hub.loaded.replace('/', '--')}"
    assert not list(Path(huggingface_hub.constants.HF_HUB_CACHE).glob("models--t2v-demo--*"))
    text = " ".join(" ".join(told).split())
    assert "(48 requests); one request found all of them. Ranked by their cards" in text
    assert f"{report.hub.loaded}, was loaded from there" in text


def test_the_cards_of_experts_say_what_they_are(quick):
    """An uploaded toy without a licence, or with an accuracy that nobody measured, would mislead."""
    report, _, out, _ = quick
    expert = report.experts[0]

    card = model_card(expert, Catalog.load(out / "catalog")[expert.location].embeddings[0])

    _, values, text = card.split("---\n")
    values = yaml.safe_load(values)
    assert (values["license"], values["library_name"]) == ("apache-2.0", expert.library)
    assert values["pipeline_tag"] == "image-classification"
    [result] = values["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": expert.accuracy}]
    assert f"It is right on {expert.accuracy:.1%} of held-out images" in " ".join(text.split())
    assert "digit 0, digit 1" in text


def no_port(monkeypatch):
    def refuse(hub):
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(LoopbackHub, "start", refuse)


def offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def no_cards(monkeypatch):
    monkeypatch.setattr(sharing, "push_embedding", lambda *arguments, **options: None)


@pytest.mark.parametrize(
    ("happen", "reason"),
    [
        (no_port, "no port of this machine can be listened on (Cannot assign requested address)"),
        (offline, "HF_HUB_OFFLINE forbids to ask the Hub"),
        (no_cards, "There is no candidate in"),
    ],
)
def test_a_machine_without_a_hub_of_its_own_is_no_failure(quick, tmp_path, monkeypatch, happen, reason):
    """Sandboxes forbid to listen, clusters set HF_HUB_OFFLINE; the rest of the demo needs neither."""
    report, _, out, _ = quick
    catalog, ranking = Catalog.load(out / "catalog"), report.trials[0].ranking
    sources = [catalog[expert.location].embeddings[0] for expert in report.experts]
    bars = are_progress_bars_disabled()
    verbosity = huggingface_hub.utils.logging.get_verbosity()
    happen(monkeypatch)

    found = share(report.experts, sources, sources[:1], [ranking], None, DemoFolder(tmp_path / "out"))

    assert reason in found.failure
    assert f"on a Hub cannot be shown here: {found.failure.rstrip('.')}" in words.shared(found)
    assert (found.n_found, found.same_order, found.loaded) == (0, None, None)
    assert are_progress_bars_disabled() == bars
    assert huggingface_hub.utils.logging.get_verbosity() == verbosity


def test_a_ranking_from_cards_that_differs_is_said_to(quick):
    """The story must not praise what it did not see."""
    found = dataclasses.replace(
        quick[0].hub, n_found=3, same_order=False, n_requests=2, largest_difference=0.2
    )

    text = words.shared(found)

    assert "2 requests found 3 of them" in text
    assert "for every target: not the same order, distances differ by at most 0.2" in text


def test_experts_are_ordinary_checkpoints_with_named_classes(quick):
    """They are to be loaded like any other, so nothing of the demo may be needed for it."""
    report, _, _, _ = quick
    from transformers import AutoModelForImageClassification

    for expert in report.experts:
        assert ProbeNetwork.load(expert.location).preprocessing.size == (32, 32)
    found = next(expert for expert in report.experts if expert.library == "transformers")
    model = AutoModelForImageClassification.from_pretrained(found.location)
    assert model.config.id2label[0].startswith("digit")


def test_checkpoints_load_from_any_folder(quick, tmp_path, monkeypatch):
    """A catalog is opened from notebooks that lie elsewhere; paths from here would lead nowhere."""
    _, _, out, _ = quick
    monkeypatch.chdir(tmp_path)

    selector = AutoSelector.from_task(
        Digits(0).dataset(TARGETS[2], "train"), catalog=out / "catalog", max_samples=20, cache=False
    )
    ranking = selector.rank()

    assert ranking[0].load() is not None
    assert all(Path(id).is_absolute() for id in ranking.ranked)
    assert f"checkpoints in {out / 'experts'}" in str(ranking)


def test_the_full_demo_says_how_long_it_takes(tmp_path):
    """Minutes without a word look like a fault."""
    assert "3 to 5 minutes on two cores" in " ".join(words.promise(tmp_path, quick=False).split())


def test_global_randomness_is_left_as_it_was(quick):
    """The demo may run inside somebody's session."""
    assert quick[3]


def test_a_second_run_in_the_same_folder_finds_the_same(quick):
    """It must overwrite what is there, and depend on its seed only."""
    first, _, out, _ = quick

    second = run(out, quick=True, echo=lambda text: None)

    assert [trial.accuracies for trial in second.trials] == [trial.accuracies for trial in first.trials]
    assert [trial.ranking.to_dict() for trial in second.trials] == [
        trial.ranking.to_dict() for trial in first.trials
    ]


def test_a_folder_of_somebody_else_is_refused(tmp_path):
    """The demo deletes what an earlier run left; in another folder that would be someone's work."""
    (tmp_path / "experts").mkdir()

    with pytest.raises(
        SettingsError, match=r"is not empty, and no demo made it.*Name an empty or a new folder"
    ):
        DemoFolder(tmp_path)
    assert (tmp_path / "experts").is_dir()


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    """The system's own message does not say what to do."""
    (tmp_path / "out").write_text("")

    with pytest.raises(StorageError, match="Cannot write .*out.*choose another place"):
        run(tmp_path / "out", echo=lambda text: None)


@pytest.mark.parametrize("seed", [-1, 1.5, True])
def test_an_unusable_seed_is_named(tmp_path, seed):
    """Generators refuse such seeds in words that name no argument of ours."""
    with pytest.raises(SettingsError, match="seed must be a whole number >= 0, not"):
        run(tmp_path, seed=seed, echo=lambda text: None)


def test_without_the_hub_nothing_is_trained_or_written(tmp_path, monkeypatch):
    """Minutes of training before the news that it was in vain, or a deleted result, would be rude."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    with pytest.raises(ProbeNotFoundError, match="is not on this machine and the Hub did not answer"):
        run(tmp_path / "out", hub=True, echo=lambda text: None)
    assert not (tmp_path / "out").exists()


def test_no_image_lies_in_two_pools():
    """A network that is judged on what it was trained on proves nothing."""
    pools = Digits(0).pools
    places = [place for pool in pools.values() for part in pool.values() for place in part.tolist()]

    assert len(places) == len(set(places))
    assert all(len({len(part) for part in pool.values()}) == 1 for pool in pools.values())


def test_a_data_set_holds_its_task_and_depends_on_the_seed_alone():
    """Names reach the checkpoints from here, and the same seed must give the same pixels."""
    task = TARGETS[2]
    first, again, other = (Digits(seed).dataset(task, "train") for seed in (3, 3, 4))

    assert first.features["label"].names == [f"digit {digit}" for digit in task.digits]
    assert first.info.dataset_name == task.name
    assert first["label"] == [code for code in range(5) for _ in range(10)]
    pixels = [[image.tobytes() for image in data["image"]] for data in (first, again, other)]
    assert pixels[0] == pixels[1]
    assert pixels[0] != pixels[2]


def test_formats_are_balanced_over_digits_and_renderings():
    """Otherwise a difference between the libraries would pass for one between source tasks."""
    tasks = expert_tasks(FULL.renderings)
    timm = [task for number, task in enumerate(tasks) if _LIBRARIES[number % len(_LIBRARIES)] == "timm"]

    assert {task.rendering for task in timm} == set(FULL.renderings)
    assert sorted(task.digits[0] for task in timm) == [0, 0, 5, 5]
    assert all(isinstance(task, DigitTask) for task in tasks)


EXPERTS = [
    figures.Expert(f"e{number}", f"e{number}", "timm", 100, accuracy)
    for number, accuracy in enumerate((0.5, 0.9, 0.9))
]


@pytest.fixture
def trial(tmp_path):
    """Makes the trial of a target whose nearest expert is ``e0``, with the accuracies by expert."""
    sources = [make_embedding(seed=number, task=f"s{number}") for number in range(3)]
    catalog = make_catalog(
        tmp_path / "catalog",
        [Candidate(f"e{number}", embeddings=(source,)) for number, source in enumerate(sources)],
    )
    ranking = ModelSelector(catalog, distance="symmetric").rank(sources[0])
    assert ranking.ranked[0] == "e0"

    def make(*accuracies):
        return figures.Trial("t", ranking, {f"e{i}": tuple(values) for i, values in enumerate(accuracies)})

    return make


def by_policy(found):
    return {one.policy: one for one in found}


def test_regrets_are_those_worked_out_by_hand(trial):
    """One seed: the best of each target is the largest, equals in own accuracy share the choice."""
    trials = [trial([0.7], [0.6], [0.2]), trial([0.3], [0.6], [0.6])]

    outcome = figures.sum_up(trials, EXPERTS, seed=0)

    means = {name: one.mean for name, one in by_policy(outcome.regrets).items()}
    assert means == pytest.approx(
        {
            figures.SELECTOR: (0 + 30) / 2,
            figures.RANDOM: (20 + 10) / 2,
            figures.UPSTREAM: (30 + 0) / 2,
            figures.CONSTANT: (10 + 0) / 2,
        }
    )
    assert not outcome.cross_fitted
    assert math.isnan(outcome.noise)


def test_the_best_expert_is_picked_on_other_seeds_than_it_is_judged_on(trial):
    """A best picked and judged on the same seeds wins by luck, and every choice looks worse than it is."""
    lucky = trial([0.5, 0.5], [0.9, 0.1], [0.1, 0.9])

    outcome = figures.sum_up([lucky], EXPERTS, seed=0)

    # On the first seed the other one's best (e2) has 0.1, on the second e1 has 0.1; the selector 0.5.
    assert by_policy(outcome.regrets)[figures.SELECTOR].mean == pytest.approx(-40)
    assert outcome.cross_fitted


@pytest.mark.parametrize(
    ("chosen", "others", "verdict", "said"),
    [
        ((0.9, 0.9), (0.5, 0.5), "better", "Here the selector beat a random choice"),
        ((0.3, 0.3), (0.5, 0.5), "worse", "Here the selector did worse than a random choice"),
        ((0.5, 0.5), (0.5, 0.5), "undecided", "Here the selector did not beat a random choice"),
        ((0.9, 0.3), (0.5, 0.6), "undecided", "Here the selector cannot be said to beat a random choice"),
    ],
)
def test_a_bad_outcome_is_said_as_plainly_as_a_good_one(trial, chosen, others, verdict, said):
    """A demo that can only praise convinces nobody."""
    trials = [trial([c, c], [o, o], [o, o]) for c, o in zip(chosen, others, strict=True)]

    outcome = figures.sum_up(trials, EXPERTS, seed=0)

    assert by_policy(outcome.comparisons)[figures.RANDOM].verdict == verdict
    assert said in words.verdict(outcome, len(trials), 2)


def test_agreement_is_one_where_nearer_is_better_and_unknown_where_all_are_equal(trial):
    """Spearman's correlation of constants is no number, and must not become one."""
    made = trial([0.9], [0.5], [0.5])
    order = {id: float(-place) for place, id in enumerate(made.ranking.ranked)}

    assert trial(*([order[f"e{number}"]] for number in range(3))).agreement == pytest.approx(1)
    assert math.isnan(trial([0.5], [0.5], [0.5]).agreement)


def test_hardly_anything_to_choose_from_is_said(trial):
    """Where the experts differ no more than the seeds do, no selector can show anything."""
    outcome = figures.sum_up([trial([0.5, 0.6], [0.6, 0.5], [0.5, 0.6])], EXPERTS, seed=0)

    assert "hardly anything to choose from" in words.spread(outcome)
