"""`TaskEmbedding` and `Space`: files, equality, and what each refuses."""

import dataclasses
import json
import struct

import numpy as np
import pytest
import torch
from factories import make_embedding, make_space

from t2v_hub.embedding import Layer, Measurement, Space, TaskEmbedding, canonical_json
from t2v_hub.errors import EmbeddingError, EmbeddingFileError, EmbeddingMismatchError, StorageError


def test_space_id_is_pinned():
    """Published cards carry it: whatever changes it is a major version."""
    space = Space(
        probe_digest="sha256:" + "0" * 64,
        layers=(Layer("conv1", 4), Layer("layer1.0.conv", 8)),
        preprocessing={"size": 8, "mean": [0.5, 0.5, 0.5]},
        head={"loss": "softmax", "l2": 0.01},
        sampling={"how": "natural"},
        family="fisher",
        beta=1e-7,
        probe="tiny",
    )

    assert space.id == "s65e82836f3ce4c2"
    assert space.n_filters == 12


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"probe_digest": "sha256:" + "cd" * 32}, r"\(same name, other weights\)"),
        ({"layers": (Layer("layer0.conv", 5), Layer("x", 7))}, "filters: 12 in 1 layers against 12 in 2"),
        (
            {"preprocessing": {"size": 256, "mean": [0.485, 0.456, 0.406]}},
            "preprocessing.size: 224 against 256",
        ),
        ({"head": {"loss": "sigmoid", "l2": 0.01}}, "head.loss: 'softmax' against 'sigmoid'"),
        ({"sampling": {"how": "balanced"}}, "sampling.how: 'natural' against 'balanced'"),
        ({"family": "empirical"}, "family: 'fisher' against 'empirical'"),
        ({"beta": 1e-3}, "beta: 1e-07 against 0.001"),
    ],
)
def test_every_setting_makes_a_space_and_is_named_when_it_differs(change, words):
    """A mismatch without its reason leaves the user to guess among seven settings."""
    one, other = make_space(), make_space(**change)

    assert one.id != other.id
    with pytest.raises(
        EmbeddingMismatchError, match=f"Cannot compare.*{words}.*Embed both tasks with one probe"
    ):
        one.require_equal(other)


def test_the_probes_name_is_no_part_of_the_space():
    """The same weights from a folder and from the Hub are one probe."""
    one, other = make_space(probe="timm/resnet18.a1_in1k"), make_space(probe="weights/resnet18")

    assert one == other
    assert hash(one) == hash(other)
    assert one.differences(other) == []


def test_space_survives_its_plain_values():
    """The values pass through JSON in files and cards."""
    space = make_space([3, 4], head={"loss": "softmax", "steps": [1, 2], "note": None})

    again = Space.from_dict(json.loads(json.dumps(space.to_dict())))

    assert again == space
    assert again.layers == space.layers
    assert again.probe == space.probe


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"family": "guessed"}, "unknown family 'guessed'"),
        ({"beta": 0.0}, "beta must be a finite number > 0"),
        ({"beta": float("nan")}, "beta must be a finite number > 0"),
        ({"layers": [["a", 5], ["b", 0]]}, "at least one filter"),
    ],
)
def test_a_space_that_cannot_be_is_refused(change, words):
    """Cards and files are untrusted; a beta of 0 would divide by zero later, far from its cause."""
    with pytest.raises(ValueError, match=words):
        Space.from_dict({**make_space().to_dict(), **change})


@pytest.mark.parametrize("n_groups", [None, 5])
def test_an_embedding_survives_its_file_to_the_bit(tmp_path, n_groups):
    """Whoever loads it must compute what its author computed."""
    embedding = make_embedding(seed=3, n_groups=n_groups, versions={"torch": "2.6"}, mean_confidence=0.5)
    path = embedding.save(tmp_path / "new folder" / "e.safetensors")

    again = TaskEmbedding.load(path)

    assert again == embedding
    assert hash(again) == hash(embedding)
    assert again.fisher.tobytes() == embedding.fisher.tobytes()
    assert again.prior.tobytes() == embedding.prior.tobytes()
    assert again.task == embedding.task
    assert again.measurement.versions == {"torch": "2.6"}
    assert np.isnan(again.measurement.distance_standard_error)
    assert (again.deviations is None) == (n_groups is None)


def test_embeddings_differ_in_anything_they_hold():
    """Equal means equal in every record, not in the vector alone."""
    base = make_embedding(seed=1)
    others = [
        make_embedding(seed=2),
        make_embedding(seed=1, task="another"),
        make_embedding(seed=1, n_samples=7),
        make_embedding(seed=1, n_groups=3),
        make_embedding(seed=1, space=make_space(beta=1.0)),
        make_embedding(seed=1, prior=[0.5]),
    ]

    assert base == make_embedding(seed=1)
    assert len({base, *others}) == 7
    assert base != "an embedding"


def test_nobody_can_change_an_embedding():
    """Two selectors may share one; a change would change both, silently."""
    values = np.ones(12)
    embedding = make_embedding(values)
    values[0] = 5

    assert embedding.fisher[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        embedding.fisher[0] = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        embedding.fisher = values


def test_views_follow_from_the_vector():
    """Norm, layers, robust precision and errors are functions of what is stored."""
    space = make_space([1, 2], beta=0.25)
    embedding = make_embedding(
        [1.0, 2.0, 3.0], space=space, prior=[0.5, 0.25], deviations=[[0.1, 0, 0], [-0.1, 0, 0]]
    )

    assert embedding.norm == 6
    assert {name: list(values) for name, values in embedding.by_layer().items()} == {
        "layer0.conv": [1],
        "layer1.conv": [2, 3],
    }
    assert list(embedding.prior_precision) == [2, 4, 4]
    assert list(embedding.robust) == [4, 8, 10]  # F/(2 beta) + 1/lambda²
    assert embedding.filter_standard_error == pytest.approx([0.1, 0, 0], abs=1e-4)  # sqrt(½ · 2 · 0.1²)
    assert np.isnan(make_embedding().filter_standard_error).all()
    assert embedding.standard_error == pytest.approx(0.1 / 14**0.5, rel=1e-3)
    assert repr(embedding).startswith("TaskEmbedding('task0', n_filters=3, norm=6")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"fisher": [1, np.nan]}, "1 of 2 Fisher values are negative or not finite"),
        ({"fisher": [1, np.inf]}, "1 of 2 Fisher values are negative or not finite"),
        ({"fisher": [-1e-9, -1]}, "2 of 2 Fisher values are negative or not finite"),
        ({"fisher": [1, 1e39]}, "1 of 2 Fisher values"),  # not a float32
        ({"fisher": [1, 2, 3], "space": make_space(2)}, r"has shape \(3,\), but space .* has 2 filters"),
        ({"fisher": [1, 2], "prior": [1, 2]}, r"The prior has shape \(2,\), but space .* has 1 layers"),
        ({"fisher": [1, 2], "prior": [0]}, "prior must be a finite number > 0"),
        ({"fisher": [1, 2], "deviations": [[0.1]]}, r"deviations must be finite, of shape \(n_groups, 2\)"),
        ({"fisher": [1, 2], "deviations": [[0.1, np.nan]]}, "deviations must be finite"),
    ],
)
def test_values_that_no_measurement_gives_are_refused(arguments, words):
    """One NaN would turn every distance into NaN without a word."""
    with pytest.raises(EmbeddingError, match=words):
        make_embedding(**arguments)


def parts(raw):
    """Header and body of a safetensors file."""
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def put_together(header, body):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def with_record(raw, change):
    """The file with its record changed, its digest left as it was."""
    header, body = parts(raw)
    record = json.loads(header["__metadata__"]["embedding"])
    change(record)
    header["__metadata__"]["embedding"] = json.dumps(record)
    return put_together(header, body)


def with_metadata(raw, **values):
    header, body = parts(raw)
    header["__metadata__"].update(values)
    return put_together(header, body)


def with_dtype(raw, dtype):
    header, body = parts(raw)
    header["deviations"]["dtype"] = dtype
    return put_together(header, body)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda raw: raw[:-10], "no whole safetensors file"),
        (lambda raw: raw[: len(raw) // 2], "no whole safetensors file"),
        (lambda raw: b"", "no whole safetensors file"),
        (lambda raw: b"\xff" * 100, "no whole safetensors file"),
        (lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), "does not match its digest"),
        (
            lambda raw: with_metadata(raw, format="t2v-embedding/9"),
            "other tensors .format 't2v-embedding/9', not 't2v-emb",
        ),
        (
            lambda raw: put_together({k: v for k, v in parts(raw)[0].items() if k[0] != "_"}, parts(raw)[1]),
            "None",
        ),
        (lambda raw: with_metadata(raw, digest="sha256:0"), "does not match its digest"),
        (lambda raw: with_metadata(raw, embedding="[" * 100_000), "record is malformed"),
        (lambda raw: with_metadata(raw, embedding="[]"), "record is malformed"),
        (lambda raw: with_record(raw, lambda r: r["task"].update(n_samples=5)), "does not match its digest"),
        (lambda raw: with_record(raw, lambda r: r["task"].update(id=[])), "record is malformed"),
        (lambda raw: with_record(raw, lambda r: r["task"].pop("id")), "record is malformed"),
        (lambda raw: with_record(raw, lambda r: r["space"].update(beta=0)), "record is malformed"),
        (lambda raw: with_record(raw, lambda r: r["space"]["layers"].append(["more", 3])), "has 15 filters"),
        (lambda raw: with_record(raw, lambda r: r["measurement"].update(standard_error="a")), "is no number"),
        (lambda raw: with_dtype(raw, "BF16"), "tensors of another type"),
        (lambda raw: with_dtype(raw, "I16"), "does not match its digest"),
    ],
)
def test_a_damaged_file_is_named_and_never_used(tmp_path, damage, words):
    """Files come from strangers and from full disks."""
    path = make_embedding(n_groups=4).save(tmp_path / "e.safetensors")
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(
        EmbeddingFileError, match=rf"e\.safetensors' is not a usable.*{words}.*Measure the task again"
    ):
        TaskEmbedding.load(path)


def test_no_flipped_bit_changes_an_embedding(tmp_path):
    """Whichever byte is hit: the file is refused, or nothing that it says has changed."""
    embedding = make_embedding(n_groups=3)
    path = embedding.save(tmp_path / "e.safetensors")
    raw = path.read_bytes()

    for place in range(0, len(raw), 7):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 0x10]) + raw[place + 1 :])
        try:
            assert TaskEmbedding.load(path) == embedding
        except EmbeddingFileError:
            continue


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    """Both are everyday slips on a command line."""
    with pytest.raises(EmbeddingFileError, match=r"no embedding file .*absent\.safetensors.*Check the path"):
        TaskEmbedding.load(tmp_path / "absent.safetensors")
    with pytest.raises(StorageError, match="Cannot read"):
        TaskEmbedding.load(tmp_path)


def test_a_file_larger_than_any_embedding_is_not_read(tmp_path):
    """A header can claim any size; memory is not to be filled by a stranger's file."""
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.truncate(1 << 29)  # a hole: takes no room on the disk

    with pytest.raises(EmbeddingFileError, match="larger than 256 MiB"):
        TaskEmbedding.load(path)


def test_unknown_fields_of_a_later_version_are_left_out():
    """A file of a later minor version may say more than we know."""
    values = {"estimator": "exact", "n_samples": 3, "seed": 0, "standard_error": None, "invented": 1}

    measurement = Measurement.from_dict(values)

    assert np.isnan(measurement.standard_error)
    assert measurement.estimator == "exact"


def test_canonical_json_has_one_spelling():
    """Digests hang on it."""
    assert canonical_json({"b": (1, float("nan")), "a": {"y": 1, "x": "é"}}) == (
        canonical_json({"a": {"x": "é", "y": 1}, "b": [1, None]})
    )
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(float("inf"))


def test_float16_deviations_lose_nothing_that_matters():
    """They are relative and small; an error of an error of 1e-3 is of no account."""
    exact = np.random.default_rng(0).normal(0, 0.01, (8, 12))
    embedding = make_embedding(deviations=exact)

    torch.testing.assert_close(embedding.deviations.astype(np.float64), exact, rtol=1e-3, atol=1e-6)


def test_equal_embeddings_make_equal_files(tmp_path):
    """Safetensors orders its metadata by chance, and then equal files have different hashes."""
    embedding = make_embedding(n_groups=4)

    written = {embedding.save(tmp_path / f"{i}.safetensors").read_bytes() for i in range(12)}

    assert len(written) == 1
