"""timm: the network for a data set with its transforms, and timm's names in a task's order."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from t2v_hub import Candidate, Catalog, ModelSelector
from t2v_hub.errors import (
    CheckpointError,
    ColumnError,
    DataError,
    EmptyCatalogError,
    FewCandidatesWarning,
    LabelError,
    SettingsError,
    SkippedCheckpointsWarning,
)
from t2v_hub_integrations.timm import create_model_for, rank_timm_models

EXAMPLE = Path(__file__).parent.parent / "examples" / "timm_create_model.py"


@pytest.fixture(scope="module")
def ranking(digits_pool):
    return digits_pool.selector().rank()


def timms(ranking):
    return tuple(item.candidate.id for item in ranking if item.candidate.library == "timm")


def weights(folder):
    return timm.create_model(f"local-dir:{folder}", pretrained=True).state_dict()


def test_the_best_of_timms_is_made_with_a_fresh_head(digits_pool, ranking):
    """The best of all may be transformers', which timm cannot make."""
    created = create_model_for(digits_pool.train, digits_pool.selector())

    best = timms(ranking)[0]
    assert created.checkpoint == best == created.ranking[0].candidate.id
    assert tuple(item.candidate.id for item in created.ranking) == timms(ranking)
    assert created.class_names == tuple(digits_pool.train.features["label"].names)
    assert created.model.get_classifier().out_features == 5
    assert created.model.training
    expected, actual = weights(best), created.model.state_dict()
    assert expected.keys() == actual.keys()
    for key in expected:
        if not key.startswith("fc."):
            torch.testing.assert_close(actual[key], expected[key], rtol=0, atol=0)


def test_transforms_are_the_checkpoint_s_own(digits_pool, ranking):
    """Those of the architecture's default weights, 224 pixels and ImageNet's mean, fit another network."""
    created = create_model_for(digits_pool.train, ranking)
    image = digits_pool.train[0]["image"].convert("RGB")

    inputs = created.eval_transform(image)

    assert created.data_config["input_size"] == (3, 32, 32)
    assert tuple(created.data_config["mean"]) == (0.5, 0.5, 0.5)
    resized = np.asarray(image.resize((32, 32), 3), np.float32)  # bicubic; twice a PIL image of its own size
    torch.testing.assert_close(
        inputs, torch.from_numpy(resized / 127.5 - 1).permute(2, 0, 1), rtol=0, atol=1e-5
    )
    assert created.train_transform(image).shape == (3, 32, 32)
    assert "RandomResizedCrop" in str(created.train_transform)
    assert created.model(inputs[None].repeat(2, 1, 1, 1)).shape == (2, 5)


def test_timms_own_arguments_reach_the_network(digits_pool, ranking):
    """People give them to every network that they train; weights must stay those of the checkpoint."""
    plain = create_model_for(digits_pool.train, ranking)

    grey = create_model_for(digits_pool.train, ranking, drop_rate=0.25, in_chans=1)

    assert grey.model.drop_rate == 0.25
    torch.testing.assert_close(grey.model.conv1.weight, plain.model.conv1.weight.sum(dim=1, keepdim=True))
    torch.testing.assert_close(
        grey.model.layer4[0].conv2.weight, plain.model.layer4[0].conv2.weight, rtol=0, atol=0
    )
    assert grey.data_config["input_size"] == (1, 32, 32)
    inputs = grey.eval_transform(digits_pool.train[0]["image"].convert("L"))
    assert grey.model(inputs[None].repeat(2, 1, 1, 1)).shape == (2, 5)
    assert not any(isinstance(value, dict) for value in grey.model.pretrained_cfg.values())  # no weights kept


def test_without_pretrained_weights_the_network_is_the_same_but_fresh(digits_pool, ranking):
    """What pretraining is worth shows only beside the same layers from scratch."""
    created, fresh = (create_model_for(digits_pool.train, ranking, pretrained=flag) for flag in (True, False))

    assert fresh.checkpoint == created.checkpoint
    shapes = [{key: value.shape for key, value in one.model.state_dict().items()} for one in (created, fresh)]
    assert shapes[0] == shapes[1]
    assert not torch.equal(created.model.conv1.weight, fresh.model.conv1.weight)


def test_a_catalog_and_a_function_choose_too(digits_pool, ranking):
    """Whatever is at hand; a folder is embedded for, a function gets the data."""
    seen = []

    def choose(data):
        seen.append(data.n_classes)
        return ranking

    settings = {"probe": digits_pool.probe, "max_samples": 50, "standard_error": False}
    by_folder = create_model_for(digits_pool.train, digits_pool.catalog, settings=settings)
    by_function = create_model_for(digits_pool.train, choose)
    unbound = create_model_for(
        digits_pool.train,
        ModelSelector(Catalog.load(digits_pool.catalog)),
        where={"id": [timms(ranking)[1]]},
    )

    assert by_folder.checkpoint == by_function.checkpoint == timms(ranking)[0]
    assert seen == [5]
    assert unbound.checkpoint == timms(ranking)[1]


def test_one_that_does_not_load_is_passed_over_and_named(digits_pool, ranking, tmp_path):
    """And where none does, the reasons are the message."""
    gone = str(tmp_path / "gone")
    first = next(item for item in ranking if item.candidate.library == "timm")
    broken = replace(first, candidate=replace(first.candidate, id=gone))
    changed = replace(ranking, items=(broken, *ranking.items))

    with pytest.warns(SkippedCheckpointsWarning, match="do not load and were passed over: .*gone"):
        created = create_model_for(digits_pool.train, changed)

    assert created.checkpoint == first.candidate.id
    assert list(created.failures) == [gone]
    with pytest.raises(CheckpointError, match="None of the 1 candidates loads: .*There is no network"):
        create_model_for(digits_pool.train, replace(ranking, items=(broken,)))
    with pytest.raises(
        CheckpointError, match="timm cannot build 'resnet18' .* with patch_size: .*unexpected key"
    ):
        create_model_for(digits_pool.train, ranking, patch_size=8)


def test_one_whose_library_no_card_names_is_tried(digits_pool, ranking):
    """Many cards do not say; only the files can, and what is not timm's cannot be made with timm."""
    unsaid = [replace(item, candidate=replace(item.candidate, library=None)) for item in ranking]
    other = next(i for i, item in enumerate(ranking) if item.candidate.library == "transformers")
    own = next(i for i, item in enumerate(ranking) if item.candidate.library == "timm")

    with pytest.warns(SkippedCheckpointsWarning, match="is a ResNetForImageClassification, no timm network"):
        created = create_model_for(digits_pool.train, replace(ranking, items=(unsaid[other], unsaid[own])))

    assert created.checkpoint == ranking.ranked[own]


def test_what_the_candidate_and_the_data_decide_cannot_be_given(digits_pool, ranking):
    """Another checkpoint under the name of the chosen one would be worse than an error."""
    with pytest.raises(SettingsError, match="num_classes, pretrained_cfg would set what the candidate"):
        create_model_for(digits_pool.train, ranking, num_classes=3, pretrained_cfg={})
    with pytest.raises(SettingsError, match="made already; where cannot change it"):
        create_model_for(digits_pool.train, ranking, where={"library": "timm"})


def test_data_that_cannot_be_used_is_refused(digits_pool, ranking):
    """As everywhere in t2v_hub, before any network is made."""
    one_class = digits_pool.train.filter(lambda label: label == 1, input_columns="label")
    empty = digits_pool.train.select([])

    with pytest.raises(LabelError, match="At least two classes are wanted"):
        create_model_for(one_class, ranking)
    with pytest.raises(DataError, match="There are no images"):
        create_model_for(empty, ranking)
    with pytest.raises(ColumnError, match="style"):
        create_model_for(digits_pool.train, ranking, data_options={"label_column": "style"})


def test_a_pool_without_timm_says_what_to_do(digits_pool, ranking):
    """A pool of transformers' checkpoints is a common one."""
    others = replace(ranking, items=tuple(i for i in ranking if i.candidate.library == "transformers"))
    selector = digits_pool.selector()

    with pytest.raises(EmptyCatalogError, match="None of the 3 candidates is a timm checkpoint") as caught:
        create_model_for(digits_pool.train, others)

    assert "`t2v catalog add timm/resnet18.a1_in1k` adds one" in str(caught.value)
    with pytest.raises(EmptyCatalogError, match="None of the 3 candidates is a timm checkpoint"):
        rank_timm_models(others)
    with pytest.raises(EmptyCatalogError, match="Loosen where=.* Only timm's checkpoints count here"):
        create_model_for(digits_pool.train, selector, where=lambda candidate: candidate.library != "timm")


@pytest.fixture(scope="module")
def registered(digits_pool, tmp_path_factory):
    """A ranking of timm's own checkpoints, which need no weights to be ranked, and one of somebody's."""
    catalog = Catalog(tmp_path_factory.mktemp("registry") / "catalog")
    sources = list(digits_pool.sources.values())
    ids = ["timm/resnet18.a1_in1k", "timm/resnet34.a1_in1k", "timm/vit_tiny_patch16_224.augreg_in21k"]
    for id, source in zip(ids, sources, strict=False):
        catalog.add(Candidate(id, library="timm", embeddings=[source]))
    catalog.add(Candidate("microsoft/resnet-18", library="transformers", embeddings=[sources[3]]))
    catalog.add(Candidate("someone/resnet18-birds", library="timm", embeddings=[sources[4]]))
    catalog.add(Candidate("timm/resnet50.a1_in1k", embeddings=[sources[5]]))  # no card said the library
    return ModelSelector(catalog, task=digits_pool.target).rank()


def test_timms_names_come_in_the_order_of_the_ranking(registered):
    """That is all the function is for: `timm.list_models`, but the promising ones first."""
    found = rank_timm_models(registered)

    expected = [
        "hf-hub:someone/resnet18-birds" if id.startswith("someone") else id.removeprefix("timm/")
        for id in registered.ranked
        if not id.startswith("microsoft")
    ]
    assert list(found.ranked) == expected
    assert [found.candidates[name].rank for name in found.ranked] == sorted(
        item.rank for item in registered if item.candidate.id != "microsoft/resnet-18"
    )
    registry = timm.list_models(pretrained=True)
    assert set(found.names) == {*registry, "hf-hub:someone/resnet18-birds"}
    assert len(found.names) == len(registry) + 1


def test_names_that_nobody_knows_come_last_by_the_alphabet(registered):
    """A distance that was never measured must not be made up."""
    found = rank_timm_models(registered)

    assert found.names[-len(found.unknown) :] == found.unknown == tuple(sorted(found.unknown))
    assert not found.candidates.keys() & set(found.unknown)


def test_a_filter_is_timms_own(registered):
    """The patterns of `timm.list_models`; somebody's checkpoint goes by the last part of its id."""
    found = rank_timm_models(registered, filter="resnet18*")

    assert set(found.ranked) == {"resnet18.a1_in1k", "hf-hub:someone/resnet18-birds"}
    assert {name for name in found.names if ":" not in name} == set(
        timm.list_models("resnet18*", pretrained=True)
    )
    assert rank_timm_models(registered, filter=["vit_tiny*", "resnet34*"]).ranked[0] in (
        "vit_tiny_patch16_224.augreg_in21k",
        "resnet34.a1_in1k",
    )
    with pytest.raises(SettingsError, match=re.escape("No name is left by filter='nothing*'")):
        rank_timm_models(registered, filter="nothing*")


def test_given_names_are_put_in_order(registered):
    """A name without a tag stands for its default weights, as it does in timm."""
    wanted = ["resnet50", "efficientnet_b0.ra_in1k", "resnet18", "resnet18.fb_ssl_yfcc100m_ft_in1k"]

    found = rank_timm_models(registered, wanted)

    assert set(found.ranked) == {"resnet18"} | ({"resnet50"} if _default("resnet50") == "a1_in1k" else set())
    assert found.candidates["resnet18"].candidate.id == "timm/resnet18.a1_in1k"
    assert set(found.names) == set(wanted)
    assert rank_timm_models(registered, wanted, filter="resnet18*").names == (
        "resnet18",
        "resnet18.fb_ssl_yfcc100m_ft_in1k",
    )


def _default(architecture):
    return timm.get_pretrained_cfg(architecture).tag


def test_an_order_that_says_nothing_is_said(registered):
    """Whoever takes the first of the list would take the alphabet's choice."""
    with pytest.warns(
        FewCandidatesWarning, match="knows none of these 2 names; .*t2v catalog add timm/convnext"
    ):
        found = rank_timm_models(registered, ["efficientnet_b0.ra_in1k", "convnext_tiny.fb_in1k"])

    assert found.ranked == ()
    assert found.names == ("convnext_tiny.fb_in1k", "efficientnet_b0.ra_in1k")


@pytest.mark.parametrize("name", ["resnet19", "resnet18.no_such_tag", "hf-hub:a/b", 3])
def test_a_name_that_timm_does_not_know_is_named(registered, name):
    """A typo would else stand among the unknown for ever."""
    with pytest.raises(
        SettingsError, match=rf"has no pretrained network {re.escape(repr(name))}, nor 0 more"
    ):
        rank_timm_models(registered, ["resnet18", name])


def test_names_must_be_a_list(registered):
    """A text is a list of letters."""
    with pytest.raises(
        SettingsError, match="names must be a list of timm's names, at least one; got 'resnet18'"
    ):
        rank_timm_models(registered, "resnet18")
    with pytest.raises(SettingsError, match=re.escape("at least one; got []")):
        rank_timm_models(registered, [])


def test_a_local_checkpoint_s_name_is_one_that_timm_makes(digits_pool):
    """What stands in the list is for `timm.create_model`."""
    found = rank_timm_models(digits_pool.selector(), filter="*chalk*")

    assert found.ranked == (f"local-dir:{digits_pool.experts['high-chalk']}",)
    model = timm.create_model(found.ranked[0], pretrained=True, num_classes=3)
    assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_the_example_fine_tunes_the_best(digits_hub, tmp_path):
    """What a reader copies must run as it stands."""
    from digits_pool import DATA

    done = digits_hub.run(EXAMPLE, ["--data", DATA, "--epochs", "2", "--drop-rate", "0.1"], tmp_path)

    assert re.search(r"^created: digits/high-\w+ for 5 classes$", done.stdout, re.MULTILINE)
    assert re.search(r"^names for timm.create_model: hf-hub:digits/high-", done.stdout, re.MULTILINE)
    assert re.search(r"^accuracy \d+\.\d% after 2 epochs$", done.stdout, re.MULTILINE)


def test_labels_have_their_places_among_the_outputs(digits_pool, ranking):
    """A class that does not occur has no output: label 2 of five, without 1, is output 1."""
    rows = digits_pool.train.filter(lambda row: row["label"] != 1)

    created = create_model_for(rows, ranking)

    names = digits_pool.train.features["label"].names
    assert created.codes == {0: 0, 2: 1, 3: 2, 4: 3}
    assert created.class_names == tuple(names[label] for label in created.codes)
    assert created.model.num_classes == 4
