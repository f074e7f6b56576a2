"""Changing the text of other people's cards."""

import datetime
import difflib
import math
import re
import time
import warnings
from collections import Counter

import pytest
import yaml
from card_shapes import SHAPES, Shape, card
from huggingface_hub import ModelCard
from huggingface_hub.repocard import REGEX_YAML_BLOCK, metadata_load
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2v_hub.card.readme import Readme, entry_text
from t2v_hub.errors import CardEntryError, CardError, CardSizeError, CardTextError, CardWarning, OptedOutError

TAGS = ("task2vec", "t2v-space:s0123456789abcde")
ENTRY = {
    "spec": "t2v/1",
    "space": "s0123456789abcde",
    "role": "finetune",
    "dataset": {"id": "org/name", "revision": "sha:0123", "label": None, "n": 50000, "classes": 10},
    "measured": {
        "estimator": "monte_carlo",
        "seed": 0,
        "standard_error": 0.02,
        "floor": 1e-9,
        "t2v_hub": "0.1.0",
    },
    "dim": 8512,
    "prior": "f32:AAECAwQF+/==",
    "data": "f16:" + "Ab+/" * 2000,
    "digest": "sha256:" + "0e" * 32,
    "others": [1, 2.0, True, "no", "é🌿", [], {}],
}
OTHER = {"spec": "t2v/1", "space": "s0123456789abcde", "role": "pretrain", "dim": 1}
CHANGED = {**ENTRY, "role": "self"}
CHANGEABLE = {name: shape for name, shape in SHAPES.items() if shape.refused is None}
REFUSED = {name: shape for name, shape in SHAPES.items() if shape.refused is not None}


def shapes(which: dict[str, Shape]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("shape", which.values(), ids=which.keys())


def hub_metadata(content: bytes) -> dict:
    """What the Hub's client reads, by its own rule and by PyYAML without libyaml."""
    match = REGEX_YAML_BLOCK.search(content.decode("utf-8-sig", "replace"))
    return (yaml.safe_load(match.group(2)) if match else None) or {}


def hub_body(content: bytes) -> bytes:
    """What follows the metadata in the Hub's eyes; it does not see two lines ``---`` with nothing between."""
    text = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    match = REGEX_YAML_BLOCK.search(text) or re.match(r"\s*---(\r\n|\r|\n)---[ \t]*(\r?\n|\Z)", text)
    return (text[match.end() :] if match else text).encode("utf-8", "surrogateescape")


def others(metadata: dict) -> str:
    """The metadata but for our two keys; as text, because NaN is not equal to itself."""
    return repr([item for item in metadata.items() if item[0] not in ("tags", "task2vec")])


def comments(content: bytes) -> list[bytes]:
    return re.findall(rb"(?<!\S)#[^\r\n]*", content.removeprefix(b"\xef\xbb\xbf"))


def our_lines() -> set[bytes]:
    lines = [
        "task2vec:\n",
        f'tags: [{TAGS[0]}, "{TAGS[1]}"]\n',
        f"- {TAGS[0]}\n",
        f'- "{TAGS[1]}"\n',
        "---\n",
    ]
    lines += [line for entry in (ENTRY, OTHER) for line in entry_text(entry).splitlines(keepends=True)]
    return {line.strip().encode() for line in lines}


def require_only_ours_added(old: bytes, new: bytes, *, edits_line: bool = False) -> None:
    """Fail unless taking away lines of ours gives the old bytes; ``edits_line`` allows text within two."""
    before, after = (content.removeprefix(b"\xef\xbb\xbf").split(b"\n") for content in (old, new))
    n_edited = 0
    for what, i, j, k, end in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if what == "equal":
            continue
        added = after[k:end]
        if what == "replace" and edits_line:
            n_edited += j - i
            characters = iter(b"".join(added))
            kept = re.sub(rb"\s", b"", re.sub(rb"(?<=:) (null|~|\[\])|\{\}", b"", b"".join(before[i:j])))
            assert all(character in characters for character in kept)
        else:
            assert what == "insert"
            assert {line.strip() for line in added} <= our_lines()
    assert n_edited <= 2 * edits_line


def added(content: bytes) -> bytes:
    return Readme.parse(content).changed(append=[ENTRY], add_tags=TAGS)


@pytest.fixture(params=["libyaml", "python"])
def loader(request, monkeypatch):
    if request.param == "python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    return request.param


def test_the_collection_is_large():
    assert len(SHAPES) >= 100
    assert len(CHANGEABLE) >= 80


@shapes(CHANGEABLE)
def test_metadata_is_read_as_the_hub_reads_it(shape, loader):
    readme = Readme.parse(shape.content)

    assert repr(readme.metadata) == repr(hub_metadata(shape.content))
    assert readme.content == shape.content
    assert not readme.opted_out


@shapes(CHANGEABLE)
def test_adding_an_entry_and_tags_changes_nothing_else(shape, loader):
    """A card is other people's work: a lost comment is a reason not to let us write."""
    old = Readme.parse(shape.content)

    new = added(shape.content)

    require_only_ours_added(shape.content, new, edits_line=shape.edits_line)
    metadata = hub_metadata(new)
    assert metadata["task2vec"] == [*old.items, ENTRY]
    assert [tag for tag in metadata["tags"] if tag in TAGS] == list(TAGS)
    assert Readme.parse(new).tags == (*old.tags, *TAGS)
    assert others(metadata) == others(old.metadata)
    assert hub_body(new) == hub_body(shape.content)


@shapes(CHANGEABLE)
def test_the_hubs_client_reads_our_entry(shape):
    if not all(isinstance(key, str) for key in Readme.parse(shape.content).metadata):
        pytest.skip("the Hub's client takes no keys that are not strings")
    text = added(shape.content).decode("utf-8-sig", "replace")

    data = ModelCard(text, ignore_metadata_errors=True).data.to_dict()

    assert data["task2vec"][-1] == ENTRY
    assert set(TAGS) <= set(map(str, data["tags"]))


@shapes(CHANGEABLE)
def test_adding_twice_adds_one_entry_and_no_tag(shape):
    n = len(Readme.parse(shape.content).items)
    first = added(shape.content)

    second = Readme.parse(first).changed(append=[OTHER], add_tags=TAGS)

    require_only_ours_added(first, second, edits_line=shape.edits_line)
    assert Readme.parse(second).items[n:] == (ENTRY, OTHER)
    assert Counter(Readme.parse(second).tags) == Counter(Readme.parse(first).tags)


@shapes(CHANGEABLE)
def test_replacing_an_entry_changes_that_one_only(shape):
    n = len(Readme.parse(shape.content).items)
    both = Readme.parse(added(shape.content)).changed(append=[OTHER])

    new = Readme.parse(both).changed(replace={n: CHANGED})

    assert new == both.replace(b"role: finetune", b"role: self")
    assert Readme.parse(new).items[n:] == (CHANGED, OTHER)


@shapes(CHANGEABLE)
def test_removing_what_was_added_gives_the_original(shape, loader):
    """A change that cannot be taken back is one that owners cannot allow.

    Where it cannot be (``one_way``): a key goes with its last item, empty metadata with its last line, and a
    scalar that became a list stays one.
    """
    old = Readme.parse(shape.content)
    n = len(old.items)
    both = Readme.parse(added(shape.content)).changed(append=[OTHER])

    back = Readme.parse(both).changed(replace={n: None, n + 1: None}, remove_tags=TAGS)

    if shape.one_way is None:
        assert back == shape.content
    assert others(hub_metadata(back)) == others(old.metadata)
    assert Readme.parse(back).tags == old.tags
    assert Readme.parse(back).items == old.items
    assert hub_body(back) == hub_body(shape.content)
    assert comments(back) == comments(shape.content)


@shapes(CHANGEABLE)
def test_removing_every_item_leaves_the_rest(shape):
    """Also those of other specs, when they are named."""
    readme = Readme.parse(added(shape.content))

    bare = readme.changed(replace=dict.fromkeys(range(len(readme.items))), remove_tags=TAGS)

    assert not Readme.parse(bare).items
    assert others(hub_metadata(bare)) == others(hub_metadata(shape.content))
    assert hub_body(bare) == hub_body(shape.content)


@shapes(CHANGEABLE)
def test_nothing_to_do_gives_the_same_bytes(shape):
    content = added(shape.content)
    readme = Readme.parse(content)

    assert readme.changed() == content
    assert readme.changed(add_tags=TAGS, remove_tags=["absent"]) == content
    assert readme.changed(replace={len(readme.items) - 1: ENTRY}) == content


@shapes(REFUSED)
def test_what_cannot_be_changed_safely_is_refused(shape, loader):
    with pytest.raises(CardTextError, match="(?s)" + shape.refused):
        added(shape.content)


def test_new_lines_end_as_those_of_the_metadata():
    new = added(SHAPES["trainer crlf"].content)

    assert new.count(b"\r\n") == new.count(b"\n") > SHAPES["trainer crlf"].content.count(b"\n")


def test_new_metadata_ends_its_lines_as_the_body():
    new = added(b"# Title\r\n\r\nText\r\n")

    assert new.startswith(b"---\r\ntags: [task2vec, ")
    assert new.count(b"\r\n") == new.count(b"\n")


def test_an_entry_looks_as_documented():
    """Other people read cards; and the first cards fix how all later ones look."""
    text = entry_text(
        {**OTHER, "dataset": {"id": "a/b", "n": 3, "x": [1e-9, 1e16]}, "data": "f16:AA=="}, indent=2
    )

    assert text == (
        "  - spec: t2v/1\n    space: s0123456789abcde\n    role: pretrain\n    dim: 1\n"
        '    dataset: {id: a/b, "n": 3, x: [1.0e-09, 1.0e+16]}\n    data: "f16:AA=="\n'
    )
    assert entry_text({}) == "- {}\n"


def test_the_text_of_other_entries_stays():
    content = SHAPES["block foreign"].content
    first, second = Readme.parse(content).items

    new = Readme.parse(content).changed(replace={1: OTHER})
    without = Readme.parse(content).changed(replace={0: None})

    assert Readme.parse(new).items == (first, OTHER)
    assert new == content.replace(b"- {spec: other/10, when: 2024-01-02}\n", entry_text(OTHER).encode())
    assert Readme.parse(without).items == (second,)
    assert without == re.sub(rb"(?s)- spec: other/9.*?old'\n", b"", content)


def test_a_replaced_item_of_a_flow_list_stays_in_the_flow():
    content = SHAPES["block flow"].content

    new = Readme.parse(content).changed(replace={0: {"spec": "t2v/1", "a": [1]}})

    assert new == content.replace(b'{spec: other/1, data: "f16:AA=="}', b"{spec: t2v/1, a: [1]}")


@pytest.mark.parametrize(
    ("front", "expected"),
    [
        ("tags: [x, b, c]\n", "tags: [b, c]\n"),
        ("tags: [b, x, c]\n", "tags: [b, c]\n"),
        ("tags: [b, c, x]\n", "tags: [b, c]\n"),
        ("tags: [x, b, x, c, x, x,]\n", "tags: [b, c,]\n"),
        ("tags: [x, # one\n  b, # two\n  x # three\n  ]\n", "tags: [ # one\n  b # two\n   # three\n  ]\n"),
        ("tags: [x, x]\n", ""),
        ("tags: [x] # c\n", "# c\n"),
        ("tags: [x, # c\n  x]\n", "tags: [ # c\n  ]\n"),
        ("tags: &t [x]\n", ""),
        ("tags: x\n", ""),
        ("tags: x # c\n", "# c\n"),
        ("tags: # c\n  x # d\n", "tags: # c\n  [] # d\n"),
        ("tags:\n  # c\n  [x] # d\n", "tags:\n  # c\n  [] # d\n"),
        ("tags: 'x'\nlicense: mit\n", "license: mit\n"),
        ("tags:\n- x\n- b\n- x # c\n# d\n", "tags:\n- b\n# d\n"),
        ("tags: # c\n- x\n# d\n- x\n", "# c\n# d\n"),
        ("a: |\n  text\ntags:\n- x\n", "a: |\n  text\n\n"),
    ],
)
def test_tags_are_removed_in_every_style(front, expected):
    body = "# Title\n"

    new = Readme.parse(card("license: mit\n" + front, body)).changed(remove_tags=["x"])

    assert new == card("license: mit\n" + expected, body)


def test_a_tag_takes_the_place_of_the_last():
    for front in ("tags: [x]\n", "tags: [x, # c\n  x]\n", "tags: x\n", "tags:\n- x\n"):
        new = Readme.parse(card(front)).changed(add_tags=["y"], remove_tags=["x"])

        assert Readme.parse(new).tags == ("y",)


def test_a_tag_that_is_added_and_removed_stays():
    content = card("tags: [x]\n")

    assert Readme.parse(content).changed(add_tags=["x"], remove_tags=["x"]) == content


@pytest.mark.parametrize("lead", [b"", b"\xef\xbb\xbf", b"\n \n", b"\xef\xbb\xbf\n"])
def test_metadata_goes_with_its_last_line(lead):
    content = lead + card("task2vec:\n- spec: t2v/1\n", "# Title\n")

    assert Readme.parse(content).changed(replace={0: None}) == lead + b"# Title\n"


def test_metadata_stays_before_a_rule():
    """Else the rule at the body's start would open metadata."""
    content = card("task2vec:\n- spec: t2v/1\n", "---\n\nText\n\n---\n")

    new = Readme.parse(content).changed(replace={0: None})

    assert new == b"---\n\n---\n---\n\nText\n\n---\n"
    assert not Readme.parse(new).metadata


def test_an_item_that_an_alias_needs_is_not_removed():
    content = card("task2vec:\n- &a {x: 1}\n- {y: 2}\nother: *a\n")

    with pytest.raises(CardTextError, match="would make the README's metadata unreadable"):
        Readme.parse(content).changed(replace={0: None})


def test_a_block_of_text_at_the_end_of_the_list_is_not_lengthened():
    with pytest.raises(CardTextError, match="other items of `task2vec`"):
        added(card("task2vec:\n- note: |\n    text\n"))


@pytest.mark.parametrize("word", ["false", "no", "off", "False"])
def test_an_owner_can_opt_out(word):
    content = card(f"license: mit\ntask2vec: {word}\n")
    readme = Readme.parse(content)

    assert readme.opted_out
    assert readme.items == ()
    assert readme.changed(remove_tags=["absent"]) == content
    for change in ({"append": [ENTRY]}, {"add_tags": TAGS}):
        with pytest.raises(OptedOutError, match="its owner wants no embeddings there"):
            readme.changed(**change)


@pytest.mark.parametrize("index", [-1, 0, 7])
def test_an_index_without_item_is_an_error(index):
    with pytest.raises(CardEntryError, match=f"no item {index} under"):
        Readme.parse(card("license: mit\n")).changed(replace={index: None})


STRINGS = [
    *["", " ", "a ", " a", "~", "null", "Null", "NULL", "yes", "No", "on", "OFF", "y", "N", "true"],
    *["FALSE", "nan", ".nan"],
    *[".inf", "-.INF", "1", "-1", "+1", "0x1F", "0o17", "017", "1_000", "1e5", "1.5e-3", "1.", ".5"],
    *["0b1", "1:30", "190:20:30.15"],
    *["2024-01-02", "2001-12-14t21:59:43.10-05:00", "=", "<<", "-", "- a", "?", "? a", ":", "a: b", "a:"],
    *[":a", "a #b", "#a", "a#b"],
    *["[", "]", "{", "}", ",", "&a", "*a", "!a", "|", ">", "'", '"', "%a", "@a", "`a", "a\\b", "\\"],
    *["---", "--- a", "...", "{{ a }}"],
    *["sha256:00", "f16:AA==", "0e123", "12e03", "é", "🌿", "日本", "\ufeff", "a\ufeffb", "\u2028"],
    *["\u2029", "\x85", "\xa0", "\x00"],
    *["\x07\x1b", "\x7f\x9f", "a\nb", "a\r\nb", "\t", "\ufffe\uffff", "\ue000", "\U0010ffff"],
    *["\u200f\u202e", "a" * 3000],
    *["t2v/1", "s0123456789abcde", "org/name", "0.1.0", "monte_carlo", "a-b_c.d/e", "__proto__", "None"],
    *["\\x41", "\\u0041"],
]  # fmt: skip


@pytest.mark.parametrize("string", STRINGS, ids=ascii)
def test_every_string_is_read_as_it_was_written(string, loader):
    entry = {
        "value": string,
        "list": [string, {"deep": string}],
        **({string: 1} if len(string) < 200 else {}),
    }

    new = Readme.parse(b"").changed(append=[entry], add_tags=[string])

    assert hub_metadata(new) == {"tags": [string], "task2vec": [entry]}
    assert all(line.isprintable() for line in new.decode().split("\n"))


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=300, deadline=None)
def test_any_string_is_read_as_it_was_written(string):
    text = entry_text({"value": string})

    for reader in (yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        assert yaml.load(text, Loader=reader) == [{"value": string}]


def as_a_yaml_12_reader(text: str) -> object:
    """A scalar by the core schema of YAML 1.2, which knows no ``yes``, ``0b1``, ``1:30`` or dates."""
    if text.startswith('"'):
        return str
    schema = {
        type(None): r"null|Null|NULL|~|",
        bool: r"true|True|TRUE|false|False|FALSE",
        int: r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
        float: r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    }
    return next((kind for kind, pattern in schema.items() if re.fullmatch(pattern, text)), str)


@pytest.mark.parametrize(
    "value", [None, True, False, 0, -1, 2**63, 0.0, -0.0, 1.0, 1e-9, 1e22, 5e-324, *STRINGS], ids=ascii
)
def test_both_versions_of_yaml_see_the_same_type(value):
    text = entry_text({"key": value}).removeprefix("- key: ").removesuffix("\n")

    assert as_a_yaml_12_reader(text) is type(value)
    assert type(yaml.safe_load(text)) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=300, deadline=None)
def test_floats_keep_their_last_digit(value):
    read = yaml.safe_load(entry_text({"value": value}))[0]["value"]

    assert isinstance(read, float)
    assert (read, math.copysign(1, read)) == (value, math.copysign(1, value))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab: \n🌿#1", max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.lists(
        st.dictionaries(st.text(max_size=8).filter(str.isprintable), JSON, max_size=4), min_size=1, max_size=3
    )
)
@settings(max_examples=150, deadline=None)
def test_any_entry_comes_back(entries):
    new = Readme.parse(card("license: mit\n")).changed(append=entries)

    assert repr(hub_metadata(new)["task2vec"]) == repr(entries)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "nan.*only finite numbers"),
        (-math.inf, "-inf.*only finite numbers"),
        ("a\ud800", "lone surrogate"),
        (2**64, "beyond 64 bits"),
        (10**5000, "beyond 64 bits"),
        ({1: 2}, "a key of type int into a card"),
        ({"k" * 600: 2}, "a key of 600 characters"),
        ({1, 2}, "a set into a card"),
        (b"bytes", "a bytes into a card"),
        (datetime.date(2024, 1, 2), "a date into a card"),
    ],
    ids=lambda value: str(type(value)),
)
def test_values_that_cards_do_not_hold_are_refused(value, message):
    with pytest.raises(CardEntryError, match=message):
        Readme.parse(b"").changed(append=[{"value": value}])


def test_nesting_without_end_is_refused():
    value: list = []
    value.append(value)

    with pytest.raises(CardEntryError, match="nested deeper than 16 levels"):
        entry_text({"value": value})


def test_much_of_ours_is_warned_of():
    big = {"data": "f16:" + "A" * 130_000}
    once = Readme.parse(card("license: mit\n")).changed(append=[big])

    with pytest.warns(CardWarning, match=r"now have 260,\d{3} bytes"):
        twice = Readme.parse(once).changed(append=[big])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Readme.parse(twice).changed(replace={0: None})


def test_too_much_of_ours_is_refused():
    with pytest.raises(CardSizeError, match=r"would have 1,000,\d{3} bytes, of at most 1,000,000"):
        Readme.parse(b"").changed(append=[{"data": "A" * 1_000_000}])


def test_too_much_of_others_is_refused():
    with pytest.raises(CardSizeError, match="metadata has 1,000,008 bytes"):
        Readme.parse(card(f"about: {'x' * 1_000_000}\n"))
    with pytest.raises(CardSizeError, match="README has 10,485,761 bytes"):
        Readme.parse(b"x" * (10 * 2**20 + 1))
    with pytest.raises(CardSizeError, match=r"README has 10,49\d,\d{3} bytes"):
        added(b"x" * (10 * 2**20 - 10))


def _bomb(line: str) -> str:
    names = "abcdefghijklmnop"
    return "".join(line.format(new=names[i + 1], old=", ".join([f"*{names[i]}"] * 10)) for i in range(14))


@pytest.mark.parametrize(
    ("front", "message"),
    [
        ("a: &a [x, x]\n" + _bomb("{new}: &{new} [{old}]\n"), "aliases expand to more"),
        ("a: &a {x: 1}\n" + _bomb("{new}: &{new} {{<<: [{old}]}}\n"), "aliases expand to more"),
        ("a: &a\n  <<: *a\n", "stands in what it stands for"),
        ("a: " + "[" * 400_000 + "\n", "deeper than 100 levels"),
        ("- " * 400_000 + "\n", "deeper than 100 levels"),
        ("a: " + "{a: " * 200_000 + "\n", "deeper than 100 levels"),
        ("a: [" + "x," * 400_000 + "]\n", "more than 150,000 values"),
        ("a: 1" + ":1" * 400_000 + "\n", "a number of 800,001 digits"),
        ("a: " + "1" * 5000 + "\n", "a number of 5,000 digits"),
        ("a: !!int ''\n", "'' is no int"),
        ("a: !!bool maybe\n", "'maybe' is no bool"),
        ("a: !!timestamp x\n", "'x' is no timestamp"),
        ("a: 0b_\n", "is no int"),
        ("a: 2024-01-02T00:00:00+99:00\n", "is no timestamp"),
        ("a: =\n", "YAML tag 'value'"),
        ("a: !!set {b}\n", "YAML tag 'set'"),
        ("? [a]\n: b\n", "stands where a key must"),
        ("<<: a\nb: c\n", "something else than a mapping"),
        ("a: &a b\nc: &a d\n", "the anchor &a twice"),
    ],
    ids=lambda value: value[:20],
)
def test_hostile_metadata_is_refused_soon(front, message):
    """A search reads every card, so one must not be able to stop it; PyYAML takes minutes for some."""
    start = time.perf_counter()

    with pytest.raises(CardTextError, match=message):
        Readme.parse(card(front))
    assert time.perf_counter() - start < 20


def test_a_thousand_lines_of_aliases_are_no_bomb():
    content = card("base: &b [x, y]\n" + "".join(f"key{i}: *b\n" for i in range(1000)))

    assert Readme.parse(added(content)).items == (ENTRY,)


def test_the_hubs_file_reader_reads_our_entry(tmp_path):
    path = tmp_path / "README.md"
    path.write_bytes(added(SHAPES["byte order mark"].content))

    metadata = metadata_load(path)

    assert metadata is not None
    assert metadata["task2vec"] == [ENTRY]


def require_sound(content: bytes) -> bool:
    """Whether a README could be changed; fails on harm, or on an error but CardError."""
    try:
        readme = Readme.parse(content)
        new = readme.changed(append=[OTHER], add_tags=TAGS)
        back = Readme.parse(new).changed(
            replace={len(readme.items): None}, remove_tags=set(TAGS) - {*readme.tags}
        )
    except CardError:
        return False
    assert hub_body(new) == hub_body(content)
    assert len(comments(new)) >= len(comments(content))
    lost = Counter(content.split(b"\n")) - Counter(new.split(b"\n"))
    assert lost.total() <= 2
    assert Readme.parse(back).items == readme.items
    empty = re.match(rb"(?:\xef\xbb\xbf)?\s*---\s+---", content) or (b"{" in content and not readme.metadata)
    if not empty and all(readme.metadata.get(key, [0]) not in ([], None) for key in ("tags", "task2vec")):
        assert back == content or not isinstance(readme.metadata.get("tags", []), list)
    try:
        old = hub_metadata(content)
    except (yaml.YAMLError, ValueError):
        return True  # libyaml reads a little more than PyYAML
    assert others(hub_metadata(new)) == others(old) == others(hub_metadata(back))
    assert hub_metadata(new)["task2vec"][-1] == OTHER
    return True


ITEMS = st.sampled_from(
    [
        *[
            "a",
            "'b: #'",
            '"c]"',
            "x # c1",
            "{spec: o/1, a: [1, {b: 2}]}",
            "!!str 1",
            "~",
            "[d, e]",
            "multi\n      line",
        ],
        *[
            "spec: o/2\n      b: 1 # c2\n      c:\n      - d",
            "- e\n      - f # c3",
            "|-\n       text\n",
            "# c4\n      g",
        ],
    ]
)
GAPS = st.sampled_from(["", "", "", "\n", "  # c5\n", "    # c6\n\n", "# c7\n", "      # c8\n"])
FLOW_ITEMS = st.sampled_from(
    ["a", "'b, #'", '"]"', "{spec: o/1, a: [1]}", "[d, e]", "f: 1", "- 1", "&h i", "two words"]
)
FLOW_GAPS = st.sampled_from(["", "", " ", "  ", "\n  ", " # c5\n  ", "\n  # c6\n  "])


@st.composite
def lists(draw: st.DrawFn) -> str:
    """A YAML list in any layout, as the value of a key at column 0."""
    if draw(st.booleans()):
        column = draw(st.sampled_from([0, 2, 4]))
        items = draw(st.lists(st.tuples(ITEMS, GAPS), min_size=1, max_size=5))
        lines = [f"{' ' * column}-{draw(st.sampled_from([' ', '   ']))}{item}\n{gap}" for item, gap in items]
        body = re.sub(r"(?m)^      (?=[a-z-])", " " * 9, "".join(lines).replace("   spec", " spec"))
        return draw(st.sampled_from(["\n", " # c0\n", "\n\n# c00\n", " &list\n"])) + body
    items = draw(st.lists(FLOW_ITEMS, min_size=1, max_size=5, unique=True))
    text = ",".join(f"{draw(FLOW_GAPS)}{item}{draw(FLOW_GAPS)}" for item in items)
    comma, comment = draw(st.sampled_from(["", ",", ", "])), draw(st.sampled_from(["", " # c9"]))
    return f" [{text}{comma}{draw(FLOW_GAPS)}]{comment}\n"


QUIET = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
PIECES = st.sampled_from(
    [
        *["tags", "task2vec", "license", "a", "b: ", ":", ": ", "- ", "-", "? ", "[", "]", "{", "}"],
        *[", ", ",", "#", " # c"],
        *["&x ", "*x", "!!str ", "!", "|", ">", "|+\n", ">-\n  ", "'", '"', "\\", "\n", "\n", "\n"],
        *["\n  ", "\r\n", "\r", "\t", " "],
        *["---", "...", "~", "null", "false", "1", "1.5", "2024-01-01", "<<: ", "=", "é", "🌿", "\ufeff"],
        *["\x85", "\u2028", "%"],
        *["tags:\n- a\n", "task2vec:\n- spec: x\n", "tags: [a, b]\n", "\n# c\n", "a: |\n  b\n", "- a\n"],
        *["  - b: c\n", "tags: "],
    ]
)  # fmt: skip


@given(st.binary(max_size=300))
@QUIET
def test_no_bytes_do_harm(content):
    require_sound(content)
    require_sound(b"---\n" + content + b"\n---\n")


@given(st.lists(PIECES, max_size=14).map("".join), st.sampled_from(["", "x\n"]))
@QUIET
def test_no_metadata_does_harm(front, body):
    require_sound(f"---\n{front}\n---\n{body}".encode())


@given(st.data(), st.sampled_from([shape.content for shape in SHAPES.values() if len(shape.content) < 5000]))
@QUIET
def test_no_mutation_of_a_card_does_harm(data, content):
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(start + 12, len(content))))
        piece = data.draw(
            PIECES.map(str.encode) | st.binary(max_size=3) | st.just(content[start : start + 30])
        )
        content = content[:start] + piece + content[end:]

    require_sound(content)


@given(st.data(), lists(), st.sampled_from(["", "license: mit\n", "# c\na: |\n  b\n"]), st.booleans())
@settings(QUIET, max_examples=400)
def test_lists_in_any_layout_change_as_lists_do(data, text, other, first):
    """The independent account: PyYAML's list with the same items replaced, removed and added."""
    content = card(f"task2vec:{text}{other}" if first else f"{other}task2vec:{text}", "# Title\n")
    try:
        items = hub_metadata(content)["task2vec"]
        readme = Readme.parse(content)
    except (yaml.YAMLError, CardTextError):
        return
    indices = data.draw(st.sets(st.integers(0, len(items) - 1)))
    replace = {i: data.draw(st.sampled_from([None, OTHER, {}])) for i in indices}
    append = data.draw(st.sampled_from([[], [OTHER], [OTHER, {"x": "y"}]]))
    expected = [
        replace.get(i, item)
        for i, item in enumerate(items)
        if replace.get(i, item) is not None or i not in replace
    ]

    try:
        new = readme.changed(replace=replace, append=append)
    except CardTextError:
        assert "|-" in text or "&h" in text or "a: |" in other
        return

    assert hub_metadata(new).get("task2vec", []) == [*expected, *append]
    assert others(hub_metadata(new)) == others(hub_metadata(content))
    assert hub_body(new) == hub_body(content)
    outside = rb"# c[05-9]+"
    assert Counter(re.findall(outside, content)) == Counter(re.findall(outside, new))
    assert Readme.parse(content).items == tuple(items)
