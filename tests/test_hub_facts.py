"""Rows of the Hub's listing: what they say, what they cannot do, and the data set behind a checkpoint."""

import copy
import dataclasses
import json
import math
import pickle
import time

import pytest
from factories import make_embedding
from hypothesis import given, settings
from hypothesis import strategies as st

from t2v_hub.catalog import Candidate
from t2v_hub.hub.facts import Facts, candidate_of, facts_of, normalised_data_set
from t2v_hub.hub.sources import (
    MAX_STEPS,
    Known,
    Source,
    group_by_data_set,
    missing_bases,
    training_data_set,
)

SHA = "0123456789abcdef0123456789abcdef01234567"
IMAGENET = "ILSVRC/imagenet-1k"


def make_row(id="someone/model", **changes):
    """A row as the Hub writes it, in most of its parts."""
    return {
        "_id": "621ffdc036468d709f174338",
        "id": id,
        "modelId": id,
        "sha": SHA,
        "lastModified": "2024-02-13T21:24:05.000Z",
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 12,
        "likes": 3,
        "pipeline_tag": "image-classification",
        "library_name": "transformers",
        "tags": ["transformers", "safetensors", "vit", "image-classification", "region:us"],
        **changes,
    }


def make_result(data_set, *metrics, split="test", task="image-classification", **more):
    return {
        "task": {"type": task, "name": task.replace("-", " ").title()},
        "dataset": {"type": data_set, "name": data_set, "config": "default", "split": split, **more},
        "metrics": list(metrics),
    }


def accuracy(value, **more):
    return {"type": "accuracy", "name": "Accuracy", "value": value, **more}


def index(*results):
    return [{"name": "model", "results": list(results)}]


def trainer_card(data_sets, *results, base="google/vit-base-patch16-224-in21k", **more):
    """What `Trainer.push_to_hub` writes."""
    return {
        "license": "apache-2.0",
        "base_model": base,
        "library_name": "transformers",
        "tags": ["image-classification", "generated_from_trainer"],
        "datasets": data_sets,
        "metrics": ["accuracy"],
        "model-index": index(*results),
        **more,
    }


ROWS = [
    pytest.param(
        make_row(
            "microsoft/resnet-50",
            tags=["transformers", "dataset:imagenet-1k", "arxiv:1512.03385", "license:apache-2.0"],
            cardData={"license": "apache-2.0", "tags": ["vision"], "datasets": ["imagenet-1k"]},
            safetensors={"parameters": {"F32": 25557032, "I64": 53}, "total": 25557085},
            downloads=313_630,
            likes=492,
        ),
        {
            "revision": SHA,
            "library": "transformers",
            "licence": "apache-2.0",
            "parameters": 25557085,
            "downloads": 313_630,
            "likes": 492,
            "gated": False,
            "datasets": (IMAGENET,),
            "base_models": (),
            "relation": None,
            "last_modified": "2024-02-13T21:24:05.000Z",
            "pipeline_tag": "image-classification",
        },
        id="resnet-50",
    ),
    pytest.param(
        make_row(
            "google/vit-base-patch16-224",
            cardData={"license": "apache-2.0", "datasets": ["imagenet-1k", "imagenet-21k"]},
            safetensors={"parameters": {"F32": 86567656}, "total": 86567656},
        ),
        {"datasets": (IMAGENET, "imagenet-21k"), "parameters": 86567656},
        id="vit of google",
    ),
    pytest.param(
        make_row(
            "timm/mobilenetv3_small_100.lamb_in1k",
            library_name="timm",
            tags=["timm", "pytorch", "safetensors", "transformers", "dataset:imagenet-1k"],
            cardData={"license": "apache-2.0", "library_name": "timm", "datasets": ["imagenet-1k"]},
        ),
        {"library": "timm", "datasets": (IMAGENET,)},
        id="timm",
    ),
    pytest.param(
        make_row(
            "timm/vit_small_patch16_224.augreg_in21k_ft_in1k",
            library_name=None,
            tags=["transformers", "timm"],
            cardData={"datasets": ["imagenet-1k", "imagenet-21k"]},
        ),
        {"library": "timm", "datasets": (IMAGENET, "imagenet-21k")},
        id="timm by its tags, which name transformers too",
    ),
    pytest.param(
        make_row(
            cardData=trainer_card(
                ["imagefolder"], make_result("imagefolder", accuracy(0.9865), split="train")
            )
        ),
        {
            "datasets": (),
            "upstream_accuracy": 0.9865,
            "base_models": ("google/vit-base-patch16-224-in21k",),
            "relation": "finetune",
        },
        id="Trainer on a folder of images",
    ),
    pytest.param(
        make_row(
            tags=[
                "transformers",
                "base_model:microsoft/swin-tiny",
                "base_model:finetune:microsoft/swin-tiny",
            ],
            cardData=trainer_card(
                ["cifar10"],
                make_result("cifar10", accuracy(0.9788), split="test", args="plain_text"),
                base="microsoft/swin-tiny",
            ),
        ),
        {"datasets": ("uoft-cs/cifar10",), "upstream_accuracy": 0.9788, "relation": "finetune"},
        id="Trainer on cifar10",
    ),
    pytest.param(
        make_row(
            cardData=trainer_card(
                [], make_result("imagefolder", accuracy(0.9), name="Someone/pets", split="x")
            )
        ),
        {"datasets": ("Someone/pets",), "upstream_accuracy": 0.9},
        id="Trainer with the id only as a name",
    ),
    pytest.param(
        make_row(cardData=trainer_card([], make_result("imagefolder", accuracy(0.9), name="My pets"))),
        {"datasets": ()},
        id="Trainer with words as a name",
    ),
    pytest.param(
        make_row(cardData=trainer_card(["None"], make_result("beans", accuracy(0.97)))),
        {"datasets": ("AI-Lab-Makerere/beans",)},
        id="Trainer on None with results",
    ),
    pytest.param(
        make_row(cardData=trainer_card("food101")),
        {"datasets": ("ethz/food101",), "upstream_accuracy": None},
        id="a single data set as text, empty results",
    ),
    pytest.param(
        make_row(tags=["transformers", "dataset:mnist", "license:mit"]),
        {"datasets": ("ylecun/mnist",), "licence": "mit", "base_models": ()},
        id="no card, only tags",
    ),
    pytest.param(
        make_row(cardData=None, tags=None, pipeline_tag=None, library_name=None),
        {"datasets": (), "licence": None, "library": None, "tags": (), "pipeline_tag": None},
        id="no card and no tags",
    ),
    pytest.param({"id": "resnet50"}, {"id": "resnet50", "gated": None, "revision": None}, id="only an id"),
    pytest.param({"modelId": "a/b"}, {"id": "a/b"}, id="only a modelId"),
    pytest.param(
        make_row(
            tags=["gguf", "base_model:a/big", "base_model:quantized:a/big", "license:mit"],
            library_name="gguf",
            cardData={"base_model": "a/big", "base_model_relation": "quantized"},
        ),
        {"relation": "quantized", "base_models": ("a/big",), "library": None},
        id="GGUF",
    ),
    pytest.param(
        make_row(tags=["transformers", "gguf"], cardData={"base_model": ["a/big"]}),
        {"relation": "quantized"},
        id="GGUF that does not say so",
    ),
    pytest.param(
        make_row(tags=["base_model:a/big", "base_model:quantized:a/big"], cardData={"base_model": "a/big"}),
        {"relation": "quantized"},
        id="quantized as the Hub inferred",
    ),
    pytest.param(
        make_row(cardData={"base_model": ["a/x", "b/y"], "tags": ["merge", "mergekit"]}),
        {"relation": "merge", "base_models": ("a/x", "b/y")},
        id="merge",
    ),
    pytest.param(
        make_row(tags=["mergekit"], cardData={"base_model": ["a/x"]}),
        {"relation": "merge"},
        id="merge with one base model",
    ),
    pytest.param(
        make_row(
            library_name="peft",
            tags=["peft", "base_model:adapter:google/vit", "base_model:google/vit", "transformers"],
            cardData={"base_model": "google/vit", "library_name": "peft"},
        ),
        {"relation": "adapter", "library": None, "base_models": ("google/vit",)},
        id="adapter",
    ),
    pytest.param(
        make_row(cardData={"base_model": "a/b", "base_model_relation": "Fine-tuned"}),
        {"relation": "finetune"},
        id="finetune in other words",
    ),
    pytest.param(
        make_row(cardData={"base_model": "a/b", "base_model_relation": "distilled"}),
        {"relation": "distilled"},
        id="a relation of its own",
    ),
    pytest.param(
        make_row(tags=["base_model:a/b", "base_model:finetune:a/b"]),
        {"base_models": ("a/b",), "relation": "finetune"},
        id="base model by its tags",
    ),
    pytest.param(
        make_row(cardData={"base_model": "https://huggingface.co/google/vit-base-patch16-224/tree/main"}),
        {"base_models": ("google/vit-base-patch16-224",)},
        id="base model by its address",
    ),
    pytest.param(
        make_row(
            cardData={"base_model": ["./output/checkpoint-500", "None", "a/B", "A/b", 7, "a b", "x/y/z"]}
        ),
        {"base_models": ("a/B",), "relation": "finetune"},
        id="base models that are none",
    ),
    pytest.param(
        make_row("Me/Model", cardData={"base_model": ["me/model"]}),
        {"base_models": (), "relation": None},
        id="its own base model",
    ),
    pytest.param(make_row(gated="auto"), {"gated": True}, id="gated auto"),
    pytest.param(make_row(gated="manual"), {"gated": True}, id="gated manual"),
    pytest.param(make_row(gated="sometimes"), {"gated": None}, id="gated somehow"),
    pytest.param(make_row(gated=["auto"]), {"gated": None}, id="gated by a list"),
    pytest.param(make_row(gated=0), {"gated": None}, id="gated by a number"),
    pytest.param(make_row(private=True, disabled=True), {"private": True, "disabled": True}, id="closed"),
    pytest.param(
        make_row(
            tags=["license:other"],
            cardData={"license": "other", "license_name": "apache-2.0", "license_link": "LICENSE"},
        ),
        {"licence": "other"},
        id="another licence under a false name",
    ),
    pytest.param(make_row(cardData={"license": ["MIT"]}), {"licence": "mit"}, id="one licence in a list"),
    pytest.param(
        make_row(cardData={"license": ["mit", "cc-by-nc-4.0"]}),
        {"licence": "mit, cc-by-nc-4.0"},
        id="two licences",
    ),
    pytest.param(
        make_row(safetensors={"parameters": {"F16": 1000, "I64": 24, "BOOL": True, "X": -1}}),
        {"parameters": 1024},
        id="parameters without a total",
    ),
    pytest.param(make_row(safetensors={"total": 0, "parameters": {}}), {"parameters": None}, id="0 numbers"),
    pytest.param(
        make_row(library_name="keras", tags=["keras", "transformers"]),
        {"library": None},
        id="another library",
    ),
    pytest.param(
        make_row(library_name=None, cardData={"library_name": "timm"}),
        {"library": "timm"},
        id="card's library",
    ),
    pytest.param(
        make_row(**{"model-index": index(make_result("mnist", accuracy(99.2)))}),
        {"datasets": ("ylecun/mnist",), "upstream_accuracy": 0.992},
        id="model-index beside the card",
    ),
    pytest.param(
        make_row(
            tags=["dataset:c/c", "dataset:A/a"],
            cardData={"datasets": ["a/A"], "model-index": index(make_result("b/b"))},
        ),
        {"datasets": ("a/A", "b/b", "c/c")},
        id="data sets in order of trust",
    ),
    pytest.param(
        make_row(
            sha=SHA[:39],
            downloads=True,
            likes=-1,
            lastModified=3,
            private="yes",
            safetensors={"total": 1 << 63},
            tags=["fine", 3, None, "a\nb", "\ud800", ["x"]],
        ),
        {
            "revision": None,
            "downloads": None,
            "likes": None,
            "last_modified": None,
            "private": False,
            "parameters": None,
            "tags": ("fine",),
        },
        id="wrong types",
    ),
]


@pytest.mark.parametrize(("row", "expected"), ROWS)
def test_a_row_is_read_as_the_hub_means_it(row, expected):
    """Shapes as the Hub's listing has them; the row itself stays as it was."""
    before = copy.deepcopy(row)

    facts = facts_of(row)

    assert {name: getattr(facts, name) for name in expected} == expected
    assert isinstance(candidate_of(facts), Candidate)
    assert row == before


UNUSABLE = [
    None,
    3,
    "a/b",
    [],
    {},
    {"id": 3},
    {"id": ""},
    {"id": "../etc/passwd"},
    {"id": "a/../b"},
    {"id": "a b"},
    {"id": "a/b/c"},
    {"id": "a\x00b"},
    {"id": "a" * 97},
    {"id": "datasets/a/b"},
    {"id": ["a/b"]},
    {"id": "a--b/c"},
]


@pytest.mark.parametrize("row", UNUSABLE)
def test_a_row_without_a_usable_id_says_nothing(row):
    """An id becomes part of addresses and of paths."""
    assert facts_of(row) is None


def test_a_candidate_has_the_facts_of_its_row():
    """Nothing is lost on the way, and a source known through a base model can be given."""
    facts = facts_of(ROWS[0].values[0])
    embedding = make_embedding(seed=1)

    candidate = candidate_of(facts, [embedding])

    assert candidate.embeddings == (embedding,)
    assert candidate.source == IMAGENET
    for item in dataclasses.fields(Candidate):
        if item.name not in ("embeddings", "source"):
            assert getattr(candidate, item.name) == getattr(facts, item.name)
    assert candidate_of(facts, source="a/b").source == "a/b"
    assert candidate_of(Facts("a/b")).source is None


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("https://huggingface.co/datasets/org/name/tree/main", "org/name"),
        ("https://huggingface.co/datasets/org/name/viewer/default/train?row=3", "org/name"),
        ("http://www.huggingface.co/datasets/org/name/", "org/name"),
        ("huggingface.co/datasets/org/name#x", "org/name"),
        ("https://hf.co/datasets/cifar10/viewer", "uoft-cs/cifar10"),
        ("hf://datasets/org/name@main/data/train.parquet", "org/name"),
        ("datasets/org/name", "org/name"),
        ("dataset:org/name", "org/name"),
        ("dataset:https://huggingface.co/datasets/org/name", "org/name"),
        (" Org/Name ", "Org/Name"),
        ("imagenet-1k", IMAGENET),
        ("imagenet_1k", IMAGENET),
        ("ImageNet-1K", IMAGENET),
        ("ImageNet", IMAGENET),
        ("ILSVRC/imagenet-1k", IMAGENET),
        ("ilsvrc/ImageNet-1k", IMAGENET),
        ("imagenet-21k", "imagenet-21k"),
        ("cifar10", "uoft-cs/cifar10"),
        ("CIFAR-10", "uoft-cs/cifar10"),
        ("cifar100", "uoft-cs/cifar100"),
        ("mnist", "ylecun/mnist"),
        ("fashion_mnist", "zalando-datasets/fashion_mnist"),
        ("food101", "ethz/food101"),
        ("beans", "AI-Lab-Makerere/beans"),
        ("cats_vs_dogs", "microsoft/cats_vs_dogs"),
        ("someone/cifar10", "someone/cifar10"),
        ("org/data.v2_x", "org/data.v2_x"),
        ("a" * 96, "a" * 96),
    ],
)
def test_a_data_set_has_one_id(name, id):
    """Groups of checkpoints are keyed by it; what is normal already stays as it is."""
    assert normalised_data_set(name) == id
    assert normalised_data_set(id) == id


@pytest.mark.parametrize(
    "name",
    [
        *("imagefolder", "image_folder", "ImageFolder", "generator", "parquet", "csv", "json", "webdataset"),
        *("None", "null", "custom", "own dataset", "own_dataset", "my-dataset", "unknown", "custom_data"),
        *("data", "dataset", "images", "train", "n/a", "N/A", "N.A.", "-", "_", "", " ", "."),
        *("../../etc/passwd", "org/../name", "datasets/../org/name", "org/..", "/org/name", "./data"),
        *("https://huggingface.co/datasets/org/../../x", "https://huggingface.co/datasets/"),
        *("https://huggingface.co/org/model", "hf.co/spaces/org/name", "https://kaggle.com/a/b"),
        *("https://huggingface.co.evil.com/datasets/a/b", "C:\\data", "/content/drive/pets", "train.csv"),
        *("a b", "org/na me", "a/b/c", "org//name", "org/name\n/x", "na\x00me", "\ud800", "~/data"),
        *("a" * 97, "a/b" * 1000, "org/-name", "org/na--me", "org/name.git", "é/b", "a%2fb", "🤗"),
        *(None, True, 3, 0.5, math.nan, [], ["org/name"], {"name": "org/name"}, b"org/name"),
    ],
)
def test_what_is_no_data_set_has_no_id(name):
    """Loaders, paths, other sites and what the Hub could not have."""
    assert normalised_data_set(name) is None


VALUES = [
    (0.973, 0.973),
    (97.3, 0.973),
    (1, 1.0),
    (1.0, 1.0),
    (0, 0.0),
    (100, 1.0),
    ("97.3%", 0.973),
    (" 97.3 % ", 0.973),
    ("0.973", 0.973),
    ("0.5%", 0.005),
    (".5", 0.5),
    ([0.973], 0.973),
    ({"accuracy": 0.973}, 0.973),
    ({"value": "97.3%"}, 0.973),
    ({"accuracy": [97.3]}, 0.973),
    (101, None),
    (-0.1, None),
    (math.nan, None),
    (math.inf, None),
    (10**400, None),
    ("1e400", None),
    ("9" * 400, None),
    ("about 97", None),
    (True, None),
    (None, None),
    ([], None),
    ([0.9, 0.8], None),
    ({}, None),
    ({"f1": 0.9}, None),
]


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=[repr(v)[:20] for v, _ in VALUES])
def test_an_accuracy_is_a_share(value, expected):
    """Percentages, texts and what `evaluate` returns all occur; nonsense is as if it were not there."""
    facts = facts_of(make_row(cardData=trainer_card(["a/b"], make_result("a/b", accuracy(value)))))

    assert facts.upstream_accuracy == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("metric", "counts"),
    [
        ({"type": "accuracy"}, True),
        ({"name": "Accuracy"}, True),
        ({"type": "acc"}, True),
        ({"type": "top1"}, True),
        ({"name": "Top-1 Accuracy"}, True),
        ({"type": "accuracy@1"}, True),
        ({"name": "Accuracy (top-1)"}, True),
        ({"type": "acc@1", "name": "whatever"}, True),
        ({"type": "f1"}, False),
        ({"type": "accuracy", "name": "Top 5 Accuracy"}, False),
        ({"type": "accuracy@5"}, False),
        ({"type": "accuracy", "name": "Balanced accuracy"}, False),
        ({"type": "accuracy", "name": "Train accuracy"}, False),
        ({"type": "top-1 error"}, False),
        ({"type": ["accuracy"]}, False),
        ({}, False),
    ],
)
def test_only_an_accuracy_counts_as_one(metric, counts):
    """Top-5 accuracies go by the type `accuracy` on some cards."""
    result = make_result("a/b", {**metric, "value": 0.5})

    facts = facts_of(make_row(cardData={"datasets": ["a/b"], "model-index": index(result)}))

    assert facts.upstream_accuracy == (0.5 if counts else None)


BEST = make_result("Own/data", accuracy(0.9))


@pytest.mark.parametrize(
    "lesser",
    [
        make_result("other/data", accuracy(0.1)),
        make_result("imagefolder", accuracy(0.1)),
        make_result("own/data", accuracy(0.1), split="train"),
        make_result("own/data", accuracy(0.1), split=None),
        make_result("own/data", accuracy(0.1), task="zero-shot-image-classification"),
        make_result("other/data", accuracy(0.1, verified=True)),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_the_best_kind_of_accuracy_is_taken(lesser, first):
    """On the training data set, not on its training split, of images: wherever it stands."""
    results = (BEST, lesser) if first else (lesser, BEST)

    facts = facts_of(make_row(cardData={"datasets": ["own/data"], "model-index": index(*results)}))

    assert facts.upstream_accuracy == 0.9


def test_of_equals_the_verified_and_then_the_first_accuracy_is_taken():
    """Several entries of one kind are common: one per configuration, or per checkpoint."""
    results = [make_result("own/data", accuracy(0.1), accuracy(0.2)), make_result("own/data", accuracy(0.3))]
    plain = facts_of(make_row(cardData={"model-index": index(*results)}))
    results.append(make_result("own/data", accuracy(0.4, verified=True), accuracy(0.5, verified="yes")))
    verified = facts_of(make_row(cardData={"model-index": index(*results)}))

    assert plain.upstream_accuracy == 0.1
    assert verified.upstream_accuracy == 0.4


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from(
        [-1, 0, 1 << 63, 10**400, math.nan, math.inf, -math.inf, 97.3, "97.3%", "\ud800", "a\x00"]
    ),
    st.floats(),
    st.text(st.characters(codec=None), max_size=20),
    st.sampled_from(
        ["a/b", "accuracy", "auto", "timm", "imagenet-1k", "dataset:x/y", "base_model:merge:a/b"]
    ),
)
keys = st.one_of(
    st.text(max_size=5),
    st.sampled_from(
        """id sha tags cardData datasets base_model base_model_relation model-index results dataset task type
        name metrics value verified split safetensors total parameters license library_name gated accuracy
        """.split()  # noqa: SIM905
    ),
)
rubbish = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=15,
)
card = st.fixed_dictionaries(
    {},
    optional={
        "datasets": rubbish,
        "base_model": rubbish,
        "base_model_relation": rubbish,
        "license": rubbish,
        "library_name": rubbish,
        "tags": rubbish,
        "model-index": rubbish
        | st.lists(
            st.fixed_dictionaries(
                {
                    "results": rubbish
                    | st.lists(
                        st.fixed_dictionaries(
                            {
                                "task": rubbish,
                                "dataset": st.fixed_dictionaries(
                                    {"type": rubbish, "name": rubbish, "split": rubbish}
                                ),
                                "metrics": st.lists(
                                    st.fixed_dictionaries(
                                        {"type": st.just("accuracy") | rubbish, "value": rubbish}
                                    ),
                                    max_size=2,
                                ),
                            }
                        ),
                        max_size=2,
                    )
                }
            ),
            max_size=2,
        ),
    },
)
rows = rubbish | st.fixed_dictionaries(
    {"id": st.just("a/model") | rubbish},
    optional={
        **{name: rubbish for name in make_row() if name != "id"},
        "cardData": card | rubbish,
        "safetensors": rubbish | st.fixed_dictionaries({"total": leaves, "parameters": rubbish}),
        "model-index": rubbish,
    },
)


@given(rows)
@settings(max_examples=300, deadline=None)
def test_no_row_can_break_anything(row):
    """Whoever pushes a card writes the row; one that raises would hide all others."""
    facts = facts_of(row)

    if facts is None:
        return
    candidate = candidate_of(facts)
    assert candidate.id == facts.id
    json.dumps(dataclasses.asdict(facts), allow_nan=False)
    for text in (facts.id, facts.licence, facts.relation, *facts.tags, *facts.datasets, *facts.base_models):
        assert text is None or (text.encode() and text.isprintable())
    assert all(normalised_data_set(id) == id for id in facts.datasets)
    assert (facts.relation is None) == (not facts.base_models)
    groups = group_by_data_set([facts], {"a/b": None})
    assert bool(groups.by_data_set) != bool(groups.without)


@given(rubbish)
def test_no_name_of_a_data_set_raises(name):
    """And what comes back is normal already."""
    id = normalised_data_set(name)

    assert id is None or normalised_data_set(id) == id


@pytest.mark.parametrize(
    "value",
    [
        ["x/y"] * 1_000_000,
        [f"x/y{i}" for i in range(100_000)],
        "a" * 10_000_000,
        "a." * 200,
        ["a-" * 240] * 100_000,
        {str(i): 1 for i in range(100_000)},
        [{"results": [{"metrics": [accuracy(0.5)] * 10_000, "dataset": {"type": "a/b"}}] * 10_000}] * 10_000,
    ],
    ids=["copies", "ids", "text", "dots", "dashes", "dict", "results"],
)
def test_the_work_for_one_row_is_bounded(value):
    """A card may have megabytes, and a listing a hundred thousand rows."""
    names = ("datasets", "base_model", "model-index", "license", "tags", "library_name")
    row = make_row(tags=value, sha=value, safetensors={"parameters": value, "total": value})
    row["cardData"] = dict.fromkeys(names, value)
    before = time.perf_counter()

    facts = facts_of(row)

    assert time.perf_counter() - before < 2  # about 0.05 s
    assert len(facts.tags) <= 1000 and len(facts.datasets) <= 64 and len(facts.base_models) <= 32


def test_deep_nesting_is_not_followed():
    """Nothing here recurses, so depth is no way to a RecursionError."""
    deep = []
    for _ in range(100_000):
        deep = [deep]

    facts = facts_of(make_row(cardData=trainer_card(deep, make_result("a/b", accuracy(deep))), gated=deep))

    assert facts.datasets == ("a/b",)
    while deep:  # freeing it at once would recurse
        deep = deep.pop()


def test_an_own_data_set_comes_first():
    """A checkpoint with a base model was fine-tuned on it; one without was pretrained on it."""
    base = Facts("a/base", datasets=("big/set",))
    tuned = Facts("a/tuned", datasets=("small/set", "other/set"), base_models=("a/base",))

    assert training_data_set(tuned, {"a/base": base}) == Source("small/set", "finetune")
    assert training_data_set(base, {}) == Source("big/set", "pretrain")


def test_a_data_set_is_inherited_through_finetunes():
    """Whatever the case in which a card spells its base model."""
    known = {
        "Google/ViT": Facts("google/vit", base_models=("google/vit-21k",), relation="finetune"),
        "google/vit-21k": Facts("google/vit-21k", datasets=("imagenet-21k",)),
    }
    tuned = Facts("me/pets", base_models=("GOOGLE/vit",), relation="finetune")

    assert training_data_set(tuned, known) == Source("imagenet-21k", "pretrain", "google/vit-21k", 2)
    assert training_data_set(tuned, Known(known.values())) == training_data_set(tuned, known)


@pytest.mark.parametrize("relation", ["quantized", "merge", "adapter", "distilled"])
def test_only_finetunes_inherit(relation):
    """Neither the checkpoint itself nor one further up."""
    base = Facts("a/base", datasets=("big/set",))
    copied = Facts("a/copy", base_models=("a/base",), relation=relation)
    tuned = Facts("a/tuned", base_models=("a/copy",), relation="finetune")
    groups = group_by_data_set([base, copied, tuned])

    assert training_data_set(copied, {"a/base": base}) is None
    assert groups.by_data_set == {"big/set": ("a/base",)}
    assert groups.without["a/copy"] == (
        f"its card names no data set, and its relation to 'a/base' is {relation!r}, not a finetune"
    )
    assert "nor does that of its base model 'a/copy'" in groups.without["a/tuned"]
    assert missing_bases([copied], {}) == ()


def test_the_nearest_base_model_wins_and_missing_ones_are_counted():
    """A name in the first base model's past is farther away than one in the second itself."""
    known = {
        "a/one": Facts("a/one", base_models=("a/far",)),
        "a/two": Facts("a/two", datasets=("near/set",)),
        "a/far": Facts("a/far", datasets=("far/set",)),
    }
    tuned = Facts("a/tuned", base_models=("a/gone", "a/one", "a/two"))

    assert training_data_set(tuned, known) == Source("near/set", "pretrain", "a/two", 1, n_missing=1)
    assert missing_bases(tuned, known) == ("a/gone",)
    assert missing_bases(tuned, {**known, "A/Gone": None}) == ()
    assert group_by_data_set([tuned], known).missing == {"a/tuned": ("a/gone",)}


@pytest.mark.parametrize(
    ("private", "seen"),
    [((), False), (("a/one",), True), (("a/two",), True), (("me/pets", "a/other"), False)],
)
def test_a_way_through_private_base_models_is_called_that(private, seen):
    """What a private card says must not get into a public one; a checkpoint's own card is its own."""
    chain = [
        Facts("me/pets", base_models=("a/other", "a/one"), private="me/pets" in private),
        Facts("a/other", private="a/other" in private),
        Facts("a/one", base_models=("a/two",), private="a/one" in private),
        Facts("a/two", datasets=("the/set",), private="a/two" in private),
    ]

    assert training_data_set(chain[0], Known(chain)) == Source(
        "the/set", "pretrain", "a/two", 2, private=seen
    )


@pytest.mark.parametrize(("n", "found"), [(MAX_STEPS, True), (MAX_STEPS + 1, False)])
def test_chains_are_followed_only_so_far(n, found):
    """Longer ones are mistakes, or made to keep us busy."""
    chain = [Facts(f"a/{i}", base_models=(f"a/{i + 1}",)) for i in range(n)]
    chain.append(Facts(f"a/{n}", datasets=("the/set",)))
    groups = group_by_data_set(chain)

    source = training_data_set(chain[0], Known(chain))

    assert source == (Source("the/set", "pretrain", f"a/{n}", n) if found else None)
    assert ("a/0" in groups.without) is not found
    if not found:
        assert groups.without["a/0"].endswith(f"nor does one of the {MAX_STEPS} base models before it")


def test_cycles_end():
    """A checkpoint that is its own base model, two that are each other's, and a renamed one."""
    itself = Facts("a/itself", base_models=("A/Itself",))
    one = Facts("a/one", base_models=("a/two",))
    two = Facts("a/two", base_models=("a/one", "a/three"))
    three = Facts("a/three", base_models=("a/one",), datasets=("the/set",))

    groups = group_by_data_set([itself, one, two], {"a/three": three, "a/old": itself})

    assert groups.by_data_set == {"the/set": ("a/one", "a/two")}
    assert groups.n_through_base == 2
    assert list(groups.without) == ["a/itself"]
    assert missing_bases([itself, one, two], {"a/three": three}) == ()
    assert training_data_set(Facts("x/y", base_models=("a/old",)), {"a/old": itself}) is None


def test_ten_thousand_in_a_chain():
    """No recursion, and no walk to the end from every link."""
    chain = [Facts(f"a/{i}", base_models=(f"a/{i + 1}",)) for i in range(10_000)]
    chain.append(Facts("a/10000", datasets=("the/set",)))

    groups = group_by_data_set(chain)

    assert len(groups.by_data_set["the/set"]) == MAX_STEPS + 1
    assert len(groups.without) == 10_000 - MAX_STEPS


def test_branching_is_bounded():
    """32 base models, each with 32 of its own, eight times over are a million million."""
    known = {}

    class Endless(Known):
        def __getitem__(self, id):
            known[id] = True
            return Facts(id, base_models=tuple(f"{id}-{i}" for i in range(32)))

    assert training_data_set(Facts("a/b", base_models=("a/c",)), Endless()) is None
    assert len(known) < 300


def test_groups_are_largest_first_and_ignore_case():
    """The most frequent spelling of a data set stands for all; repeated rows count once."""
    facts = [
        Facts("a/lone", datasets=("solo/set",)),
        Facts("a/1", datasets=("org/Pets",)),
        Facts("a/2", datasets=("Org/pets",)),
        Facts("a/3", datasets=("Org/pets", "x/y")),
        Facts("A/3", datasets=("solo/set",)),
        Facts("a/none"),
        Facts("a/tuned", base_models=("b/gone", "b/away")),
        Facts("a/other", base_models=("B/gone",)),
    ]

    groups = group_by_data_set(iter(facts))

    assert list(groups.by_data_set.items()) == [
        ("Org/pets", ("a/1", "a/2", "a/3")),
        ("solo/set", ("a/lone",)),
    ]
    assert groups.without == {
        "a/none": "its card names neither a data set nor a base model",
        "a/tuned": "its card names no data set, and nothing is known of the base model 'b/gone' and 1 more",
        "a/other": "its card names no data set, and nothing is known of the base model 'B/gone'",
    }
    assert groups.n_through_base == 0
    assert groups.n_missing == 2
    assert missing_bases(facts, {}) == ("b/gone", "b/away")
    assert pickle.loads(pickle.dumps(groups)) == groups


def test_fetching_and_grouping_in_turns_ends():
    """The loop of the module's docstring, with a Hub that has renamed one row and lost another."""
    hub = {
        "a/base": Facts("a/base", base_models=("a/old",)),
        "a/old": Facts("a/new", base_models=("a/root",)),
        "a/root": Facts("a/root", datasets=("the/set",)),
    }
    facts = [Facts("me/one", base_models=("a/base",)), Facts("me/two", base_models=("a/lost",))]
    known = {}
    asked = []

    for _ in range(MAX_STEPS):
        if not (wanted := missing_bases(facts, known)):
            break
        asked.append(wanted)
        known.update({id: hub.get(id) for id in wanted})

    assert asked == [("a/base", "a/lost"), ("a/old",), ("a/root",)]
    groups = group_by_data_set(facts, known)
    assert groups.by_data_set == {"the/set": ("me/one",)}
    assert groups.without == {
        "me/two": "its card names no data set, and nothing is known of the base model 'a/lost'"
    }


def test_known_checkpoints_are_found_in_any_case():
    """By their own id and by the one they were asked for; what is known wins over what is not."""
    facts = Facts("New/Name")
    known = Known([Facts("a/b")], {"old/name": facts, "A/B": None, "gone/x": None})

    assert known["OLD/NAME"] is known["new/name"] is facts
    assert known["A/b"] == Facts("a/b")
    assert known["Gone/X"] is None and "gone/x" in known and "never/seen" not in known
    assert sorted(known) == ["a/b", "gone/x", "new/name", "old/name"]
    assert len(known) == 4
    with pytest.raises(KeyError):
        known["never/seen"]
