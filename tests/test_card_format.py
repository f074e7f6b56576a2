"""docs/card-format.md says what the code does, to the byte."""

import base64
import re
from pathlib import Path

import numpy as np

from t2v_hub.card import TAG, Readme, entry_values, read_entries, space_tag
from t2v_hub.embedding import Layer, Measurement, Space, TaskEmbedding, TaskInfo

PAGE = (Path(__file__).parents[1] / "docs" / "card-format.md").read_text(encoding="utf-8")
EXAMPLE = TaskEmbedding(
    np.array([0, 1e-6, 3e-3, 2.5e-4], np.float32),
    np.array([1e-3, 2e-3], np.float32),
    Space(
        probe_digest="sha256:" + "ab" * 32,
        layers=(Layer("conv1", 2), Layer("conv2", 2)),
        preprocessing={"size": [32, 32]},
        head={"kind": "l2", "strength": 10.0, "loss": "softmax"},
        sampling={"fisher": "natural"},
        family="fisher",
        beta=1e-9,
        probe="timm/resnet18.a1_in1k",
    ),
    TaskInfo(
        "org/name", 50000, 10, config="default", split="train",
        revision="0123456789abcdef0123456789abcdef01234567", label_column="label",
    ),
    Measurement(
        "monte_carlo", 2000, 0, standard_error=0.02, distance_standard_error=0.004,
        versions={"t2v_hub": "0.1.0"},
    ),
)  # fmt: skip


def example() -> str:
    found = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found.group(1)


def test_the_page_shows_what_is_written():
    """Golden text: whatever changes it changes the format."""
    values = entry_values(EXAMPLE, role="finetune")

    written = Readme.parse(b"").changed(append=[values], add_tags=[TAG, space_tag(EXAMPLE.space.id)])

    assert written.decode().rstrip("\n") == example().rstrip("\n")


def test_what_the_page_shows_can_be_read():
    readme = Readme.parse(example().encode())

    found = read_entries(list(readme.items))

    assert found.skipped == ()
    [entry] = found.entries
    assert entry.embedding.task == EXAMPLE.task
    assert entry.embedding.space == EXAMPLE.space
    np.testing.assert_allclose(entry.embedding.fisher, EXAMPLE.fisher, rtol=2**-11)
    np.testing.assert_array_equal(entry.embedding.prior, EXAMPLE.prior)


def test_the_page_shows_the_bytes():
    values = entry_values(EXAMPLE, role="finetune")

    for name in ("data", "prior"):
        content = base64.b64decode(str(values[name])[4:])
        assert f"`{content.hex(' ')}`" in PAGE
