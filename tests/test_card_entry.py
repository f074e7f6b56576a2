"""Entries of cards: what is written, what is read back, and that strangers' entries do no harm."""

import base64
import hashlib
import json
import math
from typing import get_args

import numpy as np
import pytest
from factories import make_embedding, make_space
from hypothesis import given, settings
from hypothesis import strategies as st

from t2v_hub.card import CardEntry, entry_values, read_entries, read_entry
from t2v_hub.distance import DistanceName, distance, distance_standard_error
from t2v_hub.embedding import HalfVector, Space, TaskEmbedding, TaskInfo
from t2v_hub.errors import CardEntryError, SettingsError

EMBEDDING = make_embedding(
    [0.0, 1e-6, 3.0, 2.5e-3], task="org/data", distance_standard_error=0.004, standard_error=0.02
)


def entry(**changes: object) -> dict[str, object]:
    return {**entry_values(EMBEDDING, role="finetune"), **changes}


def reason(values: object) -> str:
    with pytest.raises(CardEntryError) as caught:
        read_entry(values)
    return str(caught.value)


def test_what_is_written_is_read_back():
    found = read_entry(json.loads(json.dumps(entry())))

    back = found.embedding
    assert found.role == "finetune"
    assert back.space == EMBEDDING.space
    assert back.task == TaskInfo("org/data", n_samples=1000, n_classes=4, revision="a" * 40)
    assert back.measurement.estimator == "monte_carlo"
    assert back.measurement.n_samples == 500
    assert back.measurement.standard_error == 0.02
    assert back.measurement.distance_standard_error == 0.004
    np.testing.assert_array_equal(back.prior, EMBEDDING.prior)
    np.testing.assert_allclose(back.fisher, EMBEDDING.fisher, rtol=2**-10, atol=0)
    assert back.fisher[0] == 0


def test_reading_and_writing_again_changes_no_byte():
    """A catalog of cards may be published again; it must not drift."""
    once = entry()

    again = entry_values(read_entry(once).embedding, role="finetune")

    assert again == once


def test_an_entry_can_be_read_by_the_format_alone():
    """By nothing but what docs/card-format.md says, as another language would."""
    values = entry()

    stored = base64.b64decode(str(values["data"]).removeprefix("f16:"))
    assert values["digest"] == f"sha256:{hashlib.sha256(stored).hexdigest()}"
    fisher = np.frombuffer(stored, "<f2").astype(float) ** values["power"] * values["scale"]
    np.testing.assert_allclose(fisher, EMBEDDING.fisher, rtol=2**-10)
    prior = np.frombuffer(base64.b64decode(str(values["prior"]).removeprefix("f32:")), "<f4")
    np.testing.assert_array_equal(prior, EMBEDDING.prior)
    text = str(values["settings"])
    assert values["space"] == "s" + hashlib.sha256(text.encode()).hexdigest()[:15]
    assert sum(n for _, n in json.loads(text)["layers"]) == values["dim"]


def test_golden_values():
    """A change here is a change of the format, and needs another spec."""
    half = HalfVector.encode(np.array([0, 1, 0.5, 0.25], np.float32))
    values = entry_values(make_embedding([0, 1, 0.5, 0.25], task="org/data"), role="pretrain")

    assert (half.scale, half.power) == (1 / 6e4, 1)
    assert values["data"] == "f16:AABTe1N3U3M="
    assert values["prior"] == "f32:bxKDOg=="
    assert values["digest"] == ("sha256:" + hashlib.sha256(bytes.fromhex("0000537b53775373")).hexdigest())
    assert list(values) == [
        "spec", "space", "role", "dataset", "measured", "probe", "settings", "dim", "prior", "scale",
        "power", "data", "digest",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spec": "t2v/2"}, "its spec is 't2v/2', and only t2v/1 is understood"),
        ({"spec": None}, "its spec is None"),
        ({"role": "expert"}, "its role is 'expert', not one of finetune, pretrain, self"),
        ({"role": ["finetune"]}, "its role is of type list"),
        ({"space": "resnet"}, "its space is 'resnet'"),
        ({"space": 5}, "its space is 5"),
        ({"settings": None}, "does not carry the settings of its space"),
        ({"settings": "{}"}, "settings of its space cannot be read"),
        ({"settings": "[" * 60_000}, "settings of its space cannot be read"),
        ({"settings": "x" * 70_000}, "longer than 64 kB"),
        ({"settings": make_space(4, beta=1.0).identity}, "its settings are those of space"),
        ({"dim": 5}, "its dim is 5, but its space has 4 filters"),
        ({"dim": True}, "its dim is True"),
        ({"dim": "4"}, "its dim is '4'"),
        ({"power": 3}, "its power is 3, not one of 1, 2, 4, 8"),
        ({"scale": 0}, "its scale is 0.0, not positive"),
        ({"scale": -1.0}, "not positive"),
        ({"scale": math.nan}, "its scale is not finite"),
        ({"scale": 10**400}, "its scale is not finite"),
        ({"scale": "1"}, "its scale is '1', not a number"),
        ({"scale": 1e300}, "negative or not finite"),
        ({"data": "f32:AAAA"}, "its data does not begin with f16:"),
        ({"data": 5}, "its data does not begin with f16:"),
        ({"data": "f16:AAAA"}, "another length than 4 numbers"),
        ({"data": "f16:" + "A" * 50_000_000}, "another length than 4 numbers"),
        ({"data": "f16:AAAA====AAA="}, "is no base64|another length"),
        ({"data": "f16:????????????"}, "is no base64"),
        ({"digest": "sha256:00"}, "its digest is not that of its data"),
        ({"digest": None}, "its digest is not that of its data"),
        ({"prior": "f32:AAAAAA=="}, "prior must be a finite number > 0"),
        ({"prior": "f32:"}, "its prior has another length than 1 numbers"),
        ({"dataset": "org/data"}, "its dataset is of type str, not a mapping"),
        ({"dataset": {}}, "its dataset has no id"),
        ({"dataset": {"id": "a\x1b[2Jb", "n": 1, "classes": 1}}, "printable characters"),
        ({"dataset": {"id": "x" * 301, "n": 1, "classes": 1}}, "1 to 300 printable"),
        ({"dataset": {"id": "a", "n": -1, "classes": 1}}, "its n is -1"),
        ({"dataset": {"id": "a", "n": 10**30, "classes": 1}}, "its n is a huge number"),
        ({"dataset": {"id": "a", "n": 1.5, "classes": 1}}, "its n is 1.5"),
        ({"dataset": {"id": "a", "n": 1, "classes": 1, "names": "ab"}}, "names of its classes are no list"),
        ({"dataset": {"id": "a", "n": 1, "classes": 1, "multi_label": 1}}, "its multi_label is 1"),
        ({"measured": None}, "its measured is absent"),
        ({"measured": {"images": 0, "seed": 0}}, "its images is 0"),
        ({"measured": {"images": 1, "seed": 0, "standard_error": -0.1}}, "is not between 0 and 1000"),
        ({"measured": {"images": 1, "seed": 0, "distance_se": math.inf}}, "its distance_se is not finite"),
    ],
)  # fmt: skip
def test_an_entry_that_cannot_be_used_is_skipped_with_the_reason(changes, words):
    import re

    assert re.search(words, reason(entry(**changes)))
    found = read_entries([entry(**changes), entry()])
    assert len(found.entries) == 1
    assert re.search(words, found.skipped[0])
    assert found.skipped[0].startswith("entry 1: ")


@pytest.mark.parametrize("values", [[math.nan, 1, 1, 1], [math.inf, 1, 1, 1], [-1, 1, 1, 1], [0, 0, 0, 0]])
def test_values_that_are_no_fisher_information_are_refused(values):
    """With a good digest: whoever made it meant it."""
    data = np.array(values, "<f2").tobytes()
    changed = entry(
        data="f16:" + base64.b64encode(data).decode(), digest=f"sha256:{hashlib.sha256(data).hexdigest()}"
    )

    assert reason(changed) in (
        "its data holds values that are not finite",
        "its data holds negative values",
        "its data is zero throughout",
    )


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("yes", "task2vec is of type str, not a list"),
        ({"a": 1}, "task2vec is of type dict, not a list"),
        ([None], "entry 1: it is absent, not a mapping"),
        ([[]], "entry 1: it is of type list, not a mapping"),
    ],
)
def test_a_block_that_is_none_is_skipped(block, words):
    assert words in read_entries(block).skipped[0]


def test_blocks_that_say_nothing_or_no():
    assert read_entries(None).entries == read_entries([]).entries == ()
    assert read_entries(False).opted_out
    assert not read_entries(None).opted_out


def test_a_card_cannot_flood_a_reader():
    found = read_entries([entry()] * 1000)

    assert len(found.entries) == 64
    assert found.skipped == ("936 entries beyond the first 64",)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(list(entry())), JUNK, max_size=4), JUNK)
def test_no_entry_raises_out_of_a_listing(changes, block):
    """Any value in the place of any other, and any block at all."""
    values = {**entry(), **changes}

    for found in (read_entries([values]), read_entries(block), read_entries([block])):
        for one in found.entries:
            assert isinstance(one, CardEntry)
            assert np.isfinite(one.embedding.fisher).all()
            assert (one.embedding.fisher >= 0).all()
        assert all(len(words) < 1000 for words in found.skipped)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120), st.integers(0, 200))
def test_no_damage_to_the_vector_goes_unseen(noise, place):
    """A flipped character changes the digest, or is no base64 any more."""
    text = str(entry()["data"])
    damaged = text[: place % len(text)] + noise.decode("latin-1") + text[place % len(text) + len(noise) :]

    found = read_entries([entry(data=damaged)])

    if damaged != text and found.entries:  # base64 has spellings that differ in unused bits only
        np.testing.assert_array_equal(found.entries[0].half.values, read_entry(entry()).half.values)


def test_names_stay_private_unless_published():
    """What was measured on a private folder must not leak by way of a card."""
    secret = TaskEmbedding(
        EMBEDDING.fisher,
        EMBEDDING.prior,
        Space(**{**vars_of(EMBEDDING.space), "probe": "/home/me/probe"}),
        TaskInfo(
            "patients", 10, 2, split="train", revision="fingerprint:ab", label_column="diagnosis",
            class_names=("ill", "well"),
        ),
        EMBEDDING.measurement,
    )  # fmt: skip

    quiet = json.dumps(entry_values(secret, role="finetune"))
    loud = entry_values(secret, role="finetune", publish_names=True)

    for word in ("patients", "fingerprint", "diagnosis", "ill", "/home/me"):
        assert word not in quiet
    assert '"id": "local"' in quiet
    assert loud["dataset"]["id"] == "patients"
    assert loud["dataset"]["names"] == ["ill", "well"]
    assert loud["dataset"]["revision"] == "fingerprint:ab"
    assert "/home/me" not in json.dumps(loud)  # a path is no name of a probe anywhere else
    assert read_entry(loud).embedding.task == secret.task


@pytest.mark.parametrize("name", ["data/patients", "patients of ward 3", "patients"])
def test_a_name_that_somebody_gave_stays_private(name):
    """Only a commit says that the data is on the Hub; a name may be anything."""
    task = TaskInfo(
        name, 10, 2, config="secret-a", split="secret-b", revision="fingerprint:1", label_column="ill"
    )
    module = Space(**{**vars_of(EMBEDDING.space), "probe": "SecretNet"})
    embedding = TaskEmbedding(EMBEDDING.fisher, EMBEDDING.prior, module, task, EMBEDDING.measurement)

    text = json.dumps(entry_values(embedding, role="finetune"))

    for word in ("patients", "secret", "ill", "SecretNet"):
        assert word not in text


def test_a_data_set_on_the_hub_is_named():
    task = TaskInfo("org/data", 10, 2, config="default", revision="a" * 40, class_names=("x", "y"))
    embedding = TaskEmbedding(EMBEDDING.fisher, EMBEDDING.prior, EMBEDDING.space, task, EMBEDDING.measurement)

    values = entry_values(embedding, role="finetune")

    assert values["dataset"] == {
        "id": "org/data", "config": "default", "revision": "sha:" + "a" * 40, "n": 10, "classes": 2
    }  # fmt: skip
    assert read_entry(values).embedding.task.revision == "a" * 40


def test_what_cannot_be_written_is_refused():
    with pytest.raises(SettingsError, match="role must be one of 'finetune', 'pretrain', 'self'"):
        entry_values(EMBEDDING, role="expert")  # type: ignore[arg-type]
    odd = make_embedding(EMBEDDING.fisher, task="a\nb")
    with pytest.raises(CardEntryError, match="cannot be written into a card"):
        entry_values(odd, role="finetune", publish_names=True)


def test_the_callers_space_is_used_where_it_is_known():
    """A card may claim any name for a probe; a searcher's own name for it is the one to load."""
    lying = entry(probe="evil/probe")
    spaces = {EMBEDDING.space.id: EMBEDDING.space}

    assert read_entry(lying).embedding.space.probe == "evil/probe"
    assert read_entry(lying, spaces=spaces).embedding.space.probe == "timm/resnet18.a1_in1k"
    assert read_entry(entry(probe="../../etc")).embedding.space.probe == "unnamed probe"
    assert read_entry(entry(settings=None), spaces=spaces).embedding.space is EMBEDDING.space


def test_entries_of_one_space_agree_on_the_name_of_its_probe():
    """It is part of an embedding's digest, and a catalog keeps one for all embeddings of a space."""
    found = read_entries([entry(), entry(probe="other/name")]).entries

    assert [one.embedding.space.probe for one in found] == ["timm/resnet18.a1_in1k"] * 2
    assert found[0].embedding.digest == found[1].embedding.digest


@pytest.mark.parametrize("spread", [0.5, 2.0, 5.0, 10.0])
@pytest.mark.parametrize("name", get_args(DistanceName))
def test_float16_costs_less_than_a_tenth_of_the_standard_error(spread, name: DistanceName):
    """Also where values span more powers of ten than float16 has, and errors are small."""
    rng = np.random.default_rng(3)
    space = make_space(4000)
    # A divergence is infinite where just one of two values is zero.
    dead = 0.02 if name in ("symmetric", "asymmetric", "entropy") else 0.0
    a, b = (
        make_embedding(
            np.exp(rng.normal(-12, spread, 4000)) * (rng.random(4000) > dead),
            seed=seed, space=space, n_groups=15, noise=0.1,
        )
        for seed in (0, 1)
    )  # fmt: skip
    back = [read_entry(entry_values(one, role="finetune")).embedding for one in (a, b)]

    loss = abs(distance(*back, name=name) - distance(a, b, name=name))

    assert loss < 0.1 * distance_standard_error(a, b, name=name)


def vars_of(space: Space) -> dict[str, object]:
    from dataclasses import fields

    return {item.name: getattr(space, item.name) for item in fields(space)}
