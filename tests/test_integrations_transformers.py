"""transformers' Trainer with a ranking inside: one checkpoint, a search among several, and the card."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import timm
import torch
from accelerate.state import GradientState
from checkpoints import broken
from datasets import ClassLabel, Dataset, Features, Image, Sequence
from PIL import Image as Pillow
from torch.utils.data import DataLoader
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    EvalPrediction,
    Trainer,
    TrainerState,
    TrainingArguments,
    pipeline,
)
from transformers.trainer_utils import BestRun

from t2v_hub import Candidate, Catalog, ModelSelector, Preprocessing, ProbeNetwork, TaskEmbedding
from t2v_hub.card import Readme
from t2v_hub.errors import (
    CardWarning,
    CheckpointError,
    ColumnError,
    ImageError,
    LabelError,
    MissingDependencyError,
    SettingsError,
    SkippedCheckpointsWarning,
)
from t2v_hub.probe import load_checkpoint
from t2v_hub_integrations.optuna import failures as optuna_failures
from t2v_hub_integrations.transformers import (
    ImageCollator,
    Task2VecCallback,
    accuracy,
    checkpoint_search,
    load_for_trainer,
)
from t2v_hub_integrations.transformers_best import _failures_of_ray, _is_of_objective

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
LIBRARIES = ("transformers", "timm")
QUICK = {"max_samples": 50, "standard_error": False, "progress": False}


@pytest.fixture(scope="module")
def ranking(digits_pool):
    return digits_pool.selector().rank()


@pytest.fixture(scope="module")
def of_each_library(ranking):
    """The best candidate of each library."""
    return {library: next(i for i in ranking if i.candidate.library == library) for library in LIBRARIES}


def arguments(folder, **more):
    return TrainingArguments(
        str(folder),
        **{
            "num_train_epochs": 1,
            "per_device_train_batch_size": 10,
            "learning_rate": 3e-3,
            "eval_strategy": "epoch",
            "save_strategy": "no",
            "remove_unused_columns": False,
            "report_to": "none",
            "use_cpu": True,
            "disable_tqdm": True,
            **more,
        },
    )


def trainer_of(found, pool, folder, **more):
    """Trains one checkpoint."""
    return Trainer(
        model=found.model,
        args=arguments(folder, **more),
        data_collator=ImageCollator.of(pool.train, preprocessing=found.preprocessing),
        compute_metrics=accuracy,
        train_dataset=pool.train,
        eval_dataset=pool.test.select(range(40)),
        processing_class=found.image_processor,
    )


def searcher(search, pool, folder, **more):
    """Searches among several."""
    return Trainer(
        args=arguments(folder, **more),
        model_init=search.model_init,
        data_collator=search.data_collator,
        compute_metrics=accuracy,
        train_dataset=pool.train,
        eval_dataset=pool.test.select(range(40)),
    )


def with_broken(pool, folder, *, n_broken=1, n_good=2):
    """A selector whose first candidates do not load."""
    catalog = Catalog(folder / "catalog")
    good = [item.candidate for item in pool.selector().rank()]
    for number in range(n_broken):
        place = folder / f"broken{number}"
        shutil.copytree(good[0].id, place)
        candidate = Candidate(str(broken(place)), library=good[0].library, source="near")
        catalog.add(candidate, embedding=pool.target)
    for candidate in good[:n_good]:
        catalog.add(candidate, embedding=pool.sources[candidate.source])
    return ModelSelector(catalog, task=pool.target)


# One checkpoint.


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_trained_checkpoint_is_saved_and_read_again_by_both(
    library, of_each_library, digits_pool, tmp_path
):
    """A timm network inside transformers is worth nothing if nobody can read what was saved."""
    found = load_for_trainer(of_each_library[library], digits_pool.train)
    trainer = trainer_of(found, digits_pool, tmp_path)
    trainer.train()
    trainer.save_model()
    batch = trainer.data_collator([digits_pool.test[i] for i in range(8)])["pixel_values"]
    wanted = found.model.eval()(batch).logits

    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    ours = load_checkpoint(tmp_path).eval()(batch)

    torch.testing.assert_close(again(batch).logits, wanted)
    torch.testing.assert_close(getattr(ours, "logits", ours), wanted)
    assert list(again.config.id2label.values()) == digits_pool.train.features["label"].names
    [best, *_] = pipeline("image-classification", model=str(tmp_path))(digits_pool.test[0]["image"])
    assert best["label"] in digits_pool.train.features["label"].names
    assert str(digits_pool.folder) not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("size", [(50, 40), (32, 32), (31, 90)])
@pytest.mark.parametrize("library", LIBRARIES)
def test_images_are_prepared_as_the_checkpoint_s_own_library_does(
    library, size, of_each_library, digits_pool
):
    """Another size or mean would cost accuracy in silence; each library's own code is the judge."""
    found = load_for_trainer(of_each_library[library], digits_pool.train)
    collator = ImageCollator.of(digits_pool.train, preprocessing=found.preprocessing)
    image = Pillow.effect_noise(size, 80).convert("RGB")

    got = collator([{"image": image, "label": 3}])["pixel_values"]

    if library == "timm":
        config = json.loads((Path(found.id) / "config.json").read_text())["pretrained_cfg"]
        transform = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=config))
        wanted = transform(image)[None]
    else:
        processor = AutoImageProcessor.from_pretrained(found.id, backend="pil")
        wanted = processor(images=image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
    by_pipeline = found.image_processor(images=image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(got, by_pipeline, atol=1e-5, rtol=0)


def test_a_checkpoint_without_an_image_processor_gets_one_of_its_recipe(
    of_each_library, digits_pool, tmp_path
):
    """Many checkpoints on the Hub have no preprocessor_config.json, and a pipeline needs one."""
    place = tmp_path / "plain"
    shutil.copytree(of_each_library["transformers"].candidate.id, place)
    (place / "preprocessor_config.json").unlink()
    catalog = Catalog(tmp_path / "catalog")
    catalog.add(Candidate(str(place), source="near"), embedding=digits_pool.target)
    found = load_for_trainer(ModelSelector(catalog, task=digits_pool.target).rank(), digits_pool.train)
    image = Pillow.new("RGB", (300, 200), (200, 30, 90))

    pixels = found.image_processor(images=image, return_tensors="pt")["pixel_values"]

    wanted = found.preprocessing.normalise(torch.from_numpy(found.preprocessing.prepare(image)[None]))
    assert found.preprocessing == Preprocessing()
    torch.testing.assert_close(pixels, wanted, atol=0.02, rtol=0)  # torchvision's backend rounds otherwise


def test_the_first_of_a_ranking_that_loads_is_taken(digits_pool, tmp_path):
    """One bad checkpoint is no reason to train nothing."""
    ranking = with_broken(digits_pool, tmp_path).rank()

    with pytest.warns(SkippedCheckpointsWarning, match="do not load and were passed over"):
        found = load_for_trainer(ranking, digits_pool.train)

    assert ranking.ranked.index(found.id) == 1
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        load_for_trainer(ranking[0], digits_pool.train)


# Batches.


def test_labels_become_places_among_the_outputs(digits_pool):
    """A class that does not occur has no output, so codes of the data set are not places."""
    rows = digits_pool.train.filter(lambda row: row["label"] != 1)
    collator = ImageCollator.of(rows, preprocessing=Preprocessing(size=(8, 8), resize=8))
    names = digits_pool.train.features["label"].names

    batch = collator([rows[i] for i in range(len(rows))])

    assert collator.class_names == (names[0], *names[2:])
    assert [collator.class_names[code] for code in batch["labels"].tolist()] == [
        names[i] for i in rows["label"]
    ]
    assert batch["pixel_values"].shape == (len(rows), 3, 8, 8)
    assert set(collator([{"image": rows[0]["image"]}])) == {"pixel_values"}  # to predict on
    with pytest.raises(LabelError, match="The label 1 in 'label' is none of the 4 classes"):
        collator([{"image": rows[0]["image"], "label": 1}])


def test_rows_that_cannot_be_used_are_told(digits_pool, tmp_path):
    """The defaults of TrainingArguments drop the images before anyone sees them."""
    collator = ImageCollator.of(digits_pool.train, preprocessing=Preprocessing(size=(8, 8), resize=8))
    several = Dataset.from_dict(
        {"image": [Pillow.new("L", (8, 8))] * 4, "label": [[0], [0, 1], [1], [0]]},
        features=Features({"image": Image(), "label": Sequence(ClassLabel(names=["a", "b"]))}),
    )

    with pytest.raises(
        ColumnError, match="columns \\['label'\\], and images were in 'image'. Pass remove_unused"
    ):
        collator([{"label": 1}])
    with pytest.raises(ImageError, match="An image of label 1 cannot be decoded"):
        collator([{"image": b"no image", "label": 1}])
    with pytest.raises(
        SettingsError, match="Wanted the datasets.Dataset that the Trainer trains on; got str"
    ):
        ImageCollator.of(str(tmp_path), preprocessing=Preprocessing())
    with pytest.raises(LabelError, match="may have several labels each; wanted one"):
        ImageCollator.of(several, preprocessing=Preprocessing())


def test_accuracy_is_the_share_of_right_answers():
    """Also of a model that returns more than logits."""
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 1.0], [1.0, 0.0]]).numpy()
    labels = torch.tensor([0, 1, 1, 0]).numpy()

    assert accuracy(EvalPrediction(logits, labels)) == {"accuracy": 0.75}
    assert accuracy(EvalPrediction((logits, logits), labels)) == {"accuracy": 0.75}


# A search.


@pytest.fixture(scope="module")
def searched(digits_pool, tmp_path_factory):
    """A search with Optuna, one checkpoint of which does not load, that saved every trial's weights."""
    folder = tmp_path_factory.mktemp("searched")
    search = checkpoint_search(
        with_broken(digits_pool, folder),
        digits_pool.train,
        top_k=3,
        n_trials=4,
        hp_space=lambda trial: {"learning_rate": 10 ** trial.suggest_float("log_rate", -3, -2)},
    )
    trainer = searcher(search, digits_pool, folder / "out", save_strategy="epoch")
    first, seen = trainer.model, []
    init = search.model_init

    def watched(trial):
        model = init(trial)
        seen.append((trial.params["checkpoint"], search.trials.rows.preprocessing))
        return model

    trainer.model_init = watched
    run = trainer.hyperparameter_search(**search.search_kwargs)
    trainer.model_init = init
    return search, trainer, run, first, seen


def test_a_search_goes_by_the_ranking_and_passes_over_what_does_not_load(searched):
    """The trial of a broken checkpoint is pruned, and both libraries train in one search."""
    search, _, run, first, seen = searched
    bad, good, other = search.candidates.ranked

    assert first.config.architectures is not None or first.config.model_type == "timm_wrapper"
    assert seen[0][0] == good, "of four trials two go by the ranking; the first was pruned"
    assert {id for id, _ in seen} <= {good, other}
    for id, recipe in seen:
        assert recipe == ProbeNetwork.load(id).preprocessing
    assert len(seen) == 4, "the trainer tried the broken one before the search, which spends no trial on it"
    assert list(search.failures) == [bad]
    assert "NaN or infinite" in search.failures[bad]
    assert run.hyperparameters["checkpoint"] in (good, other)


def test_the_best_model_is_what_the_best_trial_saved(searched, digits_pool):
    """The trainer keeps the last trial's model; that is not what a search is for."""
    search, trainer, run, *_ = searched

    with pytest.warns(SkippedCheckpointsWarning, match="1 of 3 candidates did not load, or failed"):
        best = search.best_model(trainer, run)

    assert not best.retrained
    assert best.checkpoint == run.hyperparameters["checkpoint"]
    assert trainer.model is best.model
    assert trainer.evaluate()["eval_accuracy"] == pytest.approx(run.objective)
    assert trainer.args.learning_rate == pytest.approx(10 ** run.hyperparameters["log_rate"])
    assert list(best.failures) == list(search.failures)
    classify = pipeline("image-classification", model=best.model, image_processor=best.image_processor)
    said = classify(digits_pool.test[0]["image"])
    assert {one["label"] for one in said} == set(digits_pool.train.features["label"].names)
    assert math.fsum(one["score"] for one in said) == pytest.approx(1)


def test_training_the_best_again_gives_the_same_model(searched):
    """Its seed, rate, batches and images are the trial's; so is what comes of it."""
    search, trainer, run, *_ = searched

    with pytest.warns(SkippedCheckpointsWarning):
        best = search.best_model(trainer, run, retrain=True)

    assert best.retrained
    assert trainer.evaluate()["eval_accuracy"] == pytest.approx(run.objective)


def test_what_an_earlier_search_left_behind_is_not_taken(digits_pool, ranking, tmp_path):
    """Runs are numbered from 0 in every search, and folders stay."""
    search = checkpoint_search(ranking, digits_pool.train, top_k=1, n_trials=1)
    trainer = searcher(search, digits_pool, tmp_path)
    run = trainer.hyperparameter_search(**search.search_kwargs)
    with pytest.raises(SettingsError, match="Trial 0 saved no weights under .* Pass retrain=True"):
        search.best_model(trainer, run, retrain=False)
    left = tmp_path / "run-0" / "checkpoint-5"
    shutil.copytree(ranking[1].candidate.id, left)
    trainer.state.save_to_json(str(left / "trainer_state.json"))
    os.utime(left / "trainer_state.json", (1, 1))

    best = search.best_model(trainer, run)

    assert best.retrained
    assert trainer.evaluate()["eval_accuracy"] == pytest.approx(run.objective)
    assert best.checkpoint == ranking.ranked[0]


def test_workers_of_an_earlier_trial_are_noticed(digits_pool, of_each_library, ranking):
    """They would go on preparing images for another checkpoint, and nothing would look wrong."""
    search = checkpoint_search(ranking, digits_pool.train, n_trials=2, top_k=2)
    search.model_init(None)
    loader = DataLoader(
        digits_pool.train.select(range(4)),
        batch_size=4,
        collate_fn=search.data_collator,
        num_workers=1,
        persistent_workers=True,
    )
    assert [batch["labels"].shape for batch in loader] == [(4,)]

    search.model_init(None)

    with pytest.raises(SettingsError, match="dataloader_persistent_workers=False"):
        list(loader)


def test_a_search_in_which_nothing_loads_ends(digits_pool, tmp_path):
    """Pruning every trial would take the whole budget to say nothing."""
    selector = with_broken(digits_pool, tmp_path, n_broken=2, n_good=0)
    search = checkpoint_search(selector, digits_pool.train, top_k=2)

    with pytest.raises(CheckpointError, match="None of the 2 candidates loads: .*NaN or infinite"):
        search.model_init(None)


def test_the_columns_that_are_named_are_those_of_the_network(digits_pool, ranking):
    """With two columns of classes the head must be that of the one that is trained on."""
    train = digits_pool.train.add_column("coarse", [label % 2 for label in digits_pool.train["label"]])
    train = train.cast_column("coarse", ClassLabel(names=["even", "odd"]))

    search = checkpoint_search(ranking, train, top_k=2, label_column="coarse")
    model = search.model_init(None)

    assert list(model.config.id2label.values()) == ["even", "odd"]
    assert set(search.data_collator([train[i] for i in range(50)])["labels"].tolist()) == {0, 1}


def test_a_stored_search_goes_on_with_another_ranking(digits_pool, ranking):
    """After a sync the ranking has lost one of the study's choices, and the study draws it all the same."""
    study = optuna.create_study()
    first = checkpoint_search(ranking, digits_pool.train, top_k=6, n_trials=2)
    study.sampler = first.search_kwargs["sampler"]
    first.model_init(study.ask())
    gone = ranking.ranked[0]
    second = checkpoint_search(ranking[1:3], digits_pool.train, top_k=2, n_trials=2)
    study.enqueue_trial({"checkpoint": gone})

    model = second.model_init(study.ask())

    assert second.trials.current == gone
    assert model.config.num_labels == 5
    assert second.trials.use(gone) is not None


def test_what_does_not_load_is_remembered_in_the_study(digits_pool, tmp_path):
    """Whoever goes on with it in another process need not find out again."""
    search = checkpoint_search(with_broken(digits_pool, tmp_path), digits_pool.train, top_k=3, n_trials=2)
    study = optuna.create_study()
    bad = search.candidates.ranked[0]
    study.enqueue_trial({"checkpoint": bad})

    with pytest.raises(optuna.TrialPruned, match="NaN or infinite"):
        search.model_init(study.ask())

    assert list(optuna_failures(study)) == list(search.failures) == [bad]


def test_several_processes_do_not_search_with_optuna(digits_pool, ranking, monkeypatch):
    """A pruned trial would end all but the first of them, with an error that names nothing."""
    search = checkpoint_search(ranking, digits_pool.train, top_k=2)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)

    with pytest.raises(SettingsError, match="Search in one process, and train the best model in several"):
        search.model_init(optuna.create_study().ask())


def test_on_ray_a_trial_that_failed_says_nothing_against_one_that_did_not(monkeypatch):
    """The winner may have run out of memory once; it still loads."""
    trials = [
        SimpleNamespace(config={"checkpoint": id}, status=status, last_result=result, error_file=None)
        for id, status, result in (
            ("a", "ERROR", {}), ("a", "TERMINATED", {"objective": 0.9}), ("b", "ERROR", None),
            ("c", "ERROR", {"objective": 0.1}), ("d", "TERMINATED", {"objective": 0.2}),
        )
    ]  # fmt: skip
    run = BestRun("0", 0.9, {"checkpoint": "a"}, SimpleNamespace(trials=trials))

    assert list(_failures_of_ray(run)) == ["b"]


@pytest.mark.parametrize(("accuracy", "expected"), [(0.75, True), (0.5, False)])
def test_on_ray_only_weights_that_the_objective_was_measured_on_are_taken(
    digits_pool, ranking, tmp_path, accuracy, expected
):
    """With other steps for saving than for evaluation, the last weights that were saved are older."""
    search = checkpoint_search(ranking, digits_pool.train, top_k=2)
    log = [{"eval_accuracy": 0.5, "step": 5}, {"loss": 1.0}, {"eval_accuracy": 0.75, "step": 10}]
    TrainerState(log_history=log).save_to_json(str(tmp_path / "trainer_state.json"))

    found = _is_of_objective(search, tmp_path, BestRun("0", accuracy, {}))

    assert found is expected


def test_slips_in_a_search_are_told(digits_pool, ranking, searched):
    """Before an hour of training, not after."""
    search, trainer, run, *_ = searched
    train = digits_pool.train

    with pytest.raises(SettingsError, match="backend must be 'optuna' or 'ray'; got 'wandb'"):
        checkpoint_search(ranking, train, top_k=2, backend="wandb")
    with pytest.raises(SettingsError, match="direction must be 'maximize' or 'minimize'; got 'up'"):
        checkpoint_search(ranking, train, top_k=2, direction="up")
    with pytest.raises(SettingsError, match="n_trials must be a whole number >= 1; got 0"):
        checkpoint_search(ranking, train, top_k=2, n_trials=0)
    fresh = checkpoint_search(ranking, train, top_k=2, hp_space=lambda _: {"checkpoint": "mine"})
    with pytest.raises(SettingsError, match="hp_space gives 'checkpoint', which the ranking gives already"):
        fresh.hp_space(None)
    with pytest.raises(SettingsError, match="No checkpoint was loaded yet"):
        fresh.data_collator([train[0]])
    with pytest.raises(SettingsError, match="best_model needs the one BestRun"):
        search.best_model(trainer, [run, run])


def test_the_objective_is_the_accuracy_or_the_loss_and_always_to_be_made_better(digits_pool, ranking):
    """Trainer's own default sums whatever metrics there are."""
    up, down = (
        checkpoint_search(ranking, digits_pool.train, top_k=2, direction=direction)
        for direction in ("maximize", "minimize")
    )
    good, bad = {"eval_accuracy": 0.9, "eval_loss": 0.3}, {"eval_accuracy": 0.5, "eval_loss": 0.7}

    for metrics in ({}, {"eval_accuracy": 1}):
        better, worse = ({k: m[k] for k in m if metrics or k == "eval_loss"} for m in (good, bad))
        assert up.compute_objective(better) > up.compute_objective(worse)
        assert down.compute_objective(better) < down.compute_objective(worse)
    own = checkpoint_search(ranking, digits_pool.train, top_k=2, compute_objective=lambda m: m["eval_f1"])
    assert own.compute_objective({"eval_f1": 0.25}) == 0.25


def test_an_absent_tool_is_named_and_a_broken_one_is_not_hidden(digits_pool, ranking, monkeypatch):
    """The line that installs it; but a fault inside it must be seen as what it is."""
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(
        MissingDependencyError, match="needs optuna, which is not installed: pip install 't2v-hub"
    ):
        checkpoint_search(ranking, digits_pool.train, top_k=2)
    code = (
        "import sys; sys.modules[sys.argv[1]] = None\n"
        "try:\n    import t2v_hub_integrations.transformers\n"
        "except ImportError as error:\n    print(type(error).__name__, error)"
    )
    paths = os.pathsep.join([str(ROOT), str(ROOT / "integrations")])

    absent, inside = (
        subprocess.run(
            [sys.executable, "-c", code, name],
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        for name in ("transformers", "huggingface_hub")
    )

    assert absent.startswith("MissingDependencyError This needs transformers, which is not installed")
    assert inside.startswith("ModuleNotFoundError")
    assert "huggingface_hub" in inside


# The card.


@pytest.fixture
def trained(of_each_library, digits_pool):
    """Makes a trainer of two steps, of the same fresh network each time."""

    def make(folder):
        torch.manual_seed(0)
        found = load_for_trainer(of_each_library["transformers"], digits_pool.train)
        return trainer_of(found, digits_pool, folder, max_steps=2, eval_strategy="no")

    return make


def test_the_callback_leaves_training_as_it_is(trained, digits_pool, tmp_path):
    """It draws random numbers and runs networks; a user must get the same weights to the bit."""
    plain, watched = trained(tmp_path / "plain"), trained(tmp_path / "watched")
    watched.add_callback(Task2VecCallback(watched, probe=digits_pool.probe, **QUICK))

    plain.train()
    watched.train()

    for (name, wanted), got in zip(
        plain.model.state_dict().items(), watched.model.state_dict().values(), strict=True
    ):
        assert torch.equal(wanted, got), name


def test_without_a_push_the_local_card_and_a_file_hold_the_embedding(trained, digits_pool, tmp_path):
    """The file is for `t2v push`; the card is what a push by hand would upload."""
    trainer = trained(tmp_path)
    trainer.create_model_card()
    before = (tmp_path / "README.md").read_bytes()
    callback = Task2VecCallback(trainer, probe=digits_pool.probe, **QUICK)
    trainer.add_callback(callback)
    trainer.train()
    trainer.create_model_card(tags=["vision"])
    trainer.create_model_card(tags=["vision"])

    card = Readme.parse((tmp_path / "README.md").read_bytes())

    assert Readme.parse(before).items == ()
    assert len(card.items) == 1
    assert {"vision", "generated_from_trainer", "task2vec"} <= set(card.tags)
    assert b"digit 1" not in card.content
    stored = TaskEmbedding.load(tmp_path / "_task2vec.safetensors")
    assert stored.norm == callback.embedding.norm
    trainer.remove_callback(callback)
    trainer.create_model_card()
    assert Readme.parse((tmp_path / "README.md").read_bytes()).items == ()


def test_an_embedding_that_fails_does_not_end_a_training(trained, digits_pool, tmp_path):
    """Hours of training are worth more than an entry in a card; one warning says what to run by hand."""
    trainer = trained(tmp_path)
    trainer.add_callback(Task2VecCallback(trainer, probe=tmp_path / "nowhere"))

    with pytest.warns(
        CardWarning, match="cannot be embedded.*ProbeNotFoundError.*t2v push REPOSITORY"
    ) as said:
        trainer.train()
        trainer.create_model_card()

    assert len([one for one in said if one.category is CardWarning]) == 1
    assert trainer.state.global_step == 2
    assert Readme.parse((tmp_path / "README.md").read_bytes()).items == ()


def test_a_card_that_cannot_be_written_does_not_end_a_training(trained, digits_pool, tmp_path):
    """A disk may be full, and a template may hold what our reader refuses."""
    trainer = trained(tmp_path)
    make = trainer.create_model_card
    trainer.create_model_card = lambda: (tmp_path / "README.md").write_text("---\ntask2vec: false\n---\n")
    trainer.add_callback(Task2VecCallback(trainer, embedding=digits_pool.target))
    trainer.create_model_card.__wrapped__()

    with pytest.warns(CardWarning, match="cannot be written into .*OptedOutError.*t2v push REPOSITORY"):
        trainer.create_model_card()

    assert make is not trainer.create_model_card
    assert (tmp_path / "README.md").read_text() == "---\ntask2vec: false\n---\n"


def test_a_search_measures_nothing_and_its_best_model_s_card_holds_the_embedding(
    digits_pool, ranking, tmp_path
):
    """A callback that embedded in each trial would cost more than it tells."""
    search = checkpoint_search(ranking, digits_pool.train, top_k=1, n_trials=1)
    trainer = searcher(search, digits_pool, tmp_path, save_strategy="epoch")
    callback = Task2VecCallback(trainer, probe=digits_pool.probe, **QUICK)
    trainer.add_callback(callback)
    run = trainer.hyperparameter_search(**search.search_kwargs)
    assert callback.embedding is None

    search.best_model(trainer, run)
    trainer.evaluate()
    trainer.create_model_card()

    card = Readme.parse((tmp_path / "README.md").read_bytes())
    assert len(card.items) == 1
    assert card.metadata["metrics"] == ["accuracy"]
    assert TaskEmbedding.load(tmp_path / "_task2vec.safetensors").norm == callback.embedding.norm
    assert not trainer.state.is_hyper_param_search


@pytest.fixture(scope="module")
def said(digits_pool, tmp_path_factory):
    """What a user's own process says that trained and pushed to a Hub."""
    from t2v_hub.testing import LoopbackHub

    folder = tmp_path_factory.mktemp("trainer-user")
    digits_pool.train.save_to_disk(folder / "train")
    digits_pool.test.select(range(40)).save_to_disk(folder / "test")
    with LoopbackHub() as hub:
        environment = {**os.environ, **hub.environment(folder / "hf"), "T2V_HOME": str(folder / "t2v")}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "integrations")])
        expert = digits_pool.experts["low-paper"]
        script = [
            str(Path(__file__).parent / "trainer_user.py"),
            str(folder),
            str(digits_pool.probe),
            str(expert),
        ]
        done = subprocess.run(
            [sys.executable, *script], env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("id", ["owner/open", "owner/closed"])
def test_the_card_on_the_hub_holds_the_embedding_and_all_that_trainer_wrote(said, id):
    """Pushes run during training and after, waited for or not; each writes the card anew."""
    card = said[id]

    assert card["role"] == "finetune"
    assert card["norm"] == pytest.approx(said["norm"], rel=1e-3)
    assert card["skipped"] == []
    assert {"vision", "generated_from_trainer", "task2vec", f"t2v-space:{card['space']}"} == set(card["tags"])
    assert (card["library"], card["data_set_in_index"]) == ("transformers", "Digits")
    assert card["accuracy"] == pytest.approx(card["measured"], abs=1e-4)
    assert "## Training procedure" in card["text"]
    assert card["text"].rstrip().splitlines()[-1].startswith("- Tokenizers")
    assert card["commits"][0] == "End of training", "the embedding comes with the model, in one commit"
    assert said["listed"] == ["owner/closed", "owner/open"]


def test_names_go_to_the_hub_only_when_that_is_asked_for(said):
    """The file beside the model has them all; it must not be uploaded."""
    assert (said["owner/closed"]["data"], said["owner/closed"]["classes"]) == ("local", [])
    assert said["owner/open"]["classes"][0] == "digit 1"
    for id in ("owner/open", "owner/closed"):
        assert not [name for name in said[id]["files"] if "task2vec" in name]
        # As documented: the model's own configuration names its classes, whatever the entry says.
        assert said[id]["named_by_the_model"][0] == "digit 1"


# Ray, and the examples.


def test_ray_searches_too(digits_pool, tmp_path):
    """Trials run in other processes: their failures and weights must find the way back."""
    import ray

    from t2v_hub_integrations.ray import ranked_search_alg

    GradientState._reset_state()  # of trainings before in this process it keeps what cannot be pickled
    search = checkpoint_search(
        with_broken(digits_pool, tmp_path, n_good=1),
        digits_pool.train,
        top_k=2,
        n_trials=2,
        backend="ray",
        seed=1,
    )
    trainer = searcher(search, digits_pool, tmp_path / "out", save_strategy="epoch")
    options = search.search_kwargs
    options["search_alg"] = ranked_search_alg(search.candidates, n_trials=2, share=1.0)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "integrations")])
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": paths}})
    try:
        run = trainer.hyperparameter_search(**options, storage_path=str(tmp_path / "ray"), verbose=0)
        with pytest.warns(SkippedCheckpointsWarning, match="1 of 2 candidates did not load, or failed"):
            best = search.best_model(trainer, run)
    finally:
        ray.shutdown()

    assert best.checkpoint == search.candidates.ranked[1]
    assert not best.retrained
    assert trainer.evaluate()["eval_accuracy"] == pytest.approx(run.objective)
    assert "NaN or infinite" in search.failures[search.candidates.ranked[0]]


def test_the_example_of_a_search_runs(digits_hub, tmp_path):
    """What the documentation shows, as a user runs it."""
    from digits_pool import DATA

    done = digits_hub.run(
        EXAMPLES / "transformers_search.py",
        ["--data", DATA, "--trials", "2", "--epochs", "1", "--output_dir", str(tmp_path / "out")],
        tmp_path,
    )

    assert "best: digits/" in done.stdout
    assert "first test image: {'label': 'digit " in done.stdout
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_the_example_that_picks_the_checkpoint_itself_runs(digits_hub, tmp_path):
    """``--model_name_or_path auto``: the ranking and its reason, then training, evaluation and the card."""
    from digits_pool import DATA

    out = tmp_path / "out"
    done = digits_hub.run(
        EXAMPLES / "run_image_classification_auto.py",
        f"--model_name_or_path auto --dataset_name {DATA} --output_dir {out} --do_train --do_eval "
        f"--num_train_epochs 1 --learning_rate 3e-3 --report_to none".split(),
        tmp_path,
    )

    [line] = [line for line in done.stdout.splitlines() if line.startswith("fine-tuning ")]
    picked = line.removeprefix("fine-tuning ")
    assert picked.startswith("digits/")
    assert done.stdout.index(picked) < done.stdout.index(line), "the ranking stands above"
    assert 0 <= json.loads((out / "eval_results.json").read_text())["eval_accuracy"] <= 1
    card = Readme.parse((out / "README.md").read_bytes())
    assert card.metadata["base_model"] == picked
    assert card.metadata["datasets"] == [DATA]
    assert card.metadata["model-index"][0]["results"][0]["metrics"][0]["type"] == "accuracy"
    assert card.items[0]["dataset"]["id"] == DATA
