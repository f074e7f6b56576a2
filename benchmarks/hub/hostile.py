"""Hostile inputs for ``fuzz.py``: valid cards and entries, damaged in ways that strangers might think of.

Each input follows from its seed and number alone, so that what ended a process can be made again.
"""

import json
import random
from collections.abc import Callable
from functools import cache
from typing import Any

from serving import card, embedding, space

from t2v_hub.card import Readme, entry_values

SMALL = space(40)
_HEADS = (
    "license: mit\n",
    "# a comment\nlicense: apache-2.0\nlanguage: [en, 'no', yes]\ndatasets:\n- org/birds\nbase_model: org/base\n",
    "model-index:\n- name: x\n  results:\n  - task: {type: image-classification}\n    dataset: {type: cifar10, name: CIFAR-10}\n    metrics: [{type: accuracy, value: 0.91}]\n",
    "a: &a [1, 2]\nb: *a\nc: {<<: {x: 1}, y: 2}\nd: |\n  text\n\n  more\ne: >-\n  folded\nf: 2020-01-01\ng: 1:30\n",
    "extra_gated_prompt: \"say \\u00e9 \\x07 please\"\n? complex\n: value\n'quoted key': 0o17\nh: !!str 5\n",
)
_TOKENS = (
    "---\n", "...\n", "\n---", "- ", ": ", "? ", "{", "}", "[", "]", ",", "&a ", "*a", "*b", "!!python/object:os.system ", "!!binary ",
    "!!float ", "!!int ", "!!timestamp ", "!!set {", "!!omap [", "!<tag:x> ", "%YAML 1.1\n", "<<: ", "| \n", ">+\n", "|9\n", '"', "'", "#",
    "\t", "\r", "\r\n", "\0", "\ufeff", "\u2028", "\u0085", "\x1b", "~", "null", ".nan", "-.inf", "0x", "1e999", "1_0", "2020-13-45",
    "9:99:99", "task2vec: false\n", "task2vec:\n", "tags: x\n", "tags:\n- [a]\n", "=", "!", "@", "`", "\\", "\\ud800", "\U0001f600", "\u202e",
)  # fmt: skip
_FIELDS = ("spec", "space", "role", "dataset", "measured", "probe", "settings", "dim", "prior", "scale", "power", "data", "digest")  # fmt: skip


@cache
def _entries() -> tuple[dict[str, Any], ...]:
    texts = [json.dumps(entry_values(embedding(i, SMALL), role="finetune")) for i in range(3)]
    return tuple(json.loads(text) for text in texts)


@cache
def _cards() -> tuple[bytes, ...]:
    texts = [card(embedding(i, SMALL), head=head).encode() for i, head in enumerate(_HEADS)]
    texts += [text.replace(b"\n", b"\r\n") for text in texts[:2]]
    two = Readme.parse(texts[0]).changed(append=list(_entries()[1:]))
    return (*texts, two, b"# nothing\n", b"")


def good_entry() -> dict[str, Any]:
    """An entry that can be used."""
    return dict(_entries()[0])


def readme(rng: random.Random, *, huge: bool) -> tuple[str, bytes]:
    """Kind and bytes of a damaged README."""
    light: list[Callable[[random.Random], bytes]] = [_flipped, _spliced, _shuffled, _with_field, _noise, _cut]
    heavy: list[Callable[[random.Random], bytes]] = [_bomb, _deep, _wide, _aliases, _long_scalar]
    make = _huge if huge else rng.choice(heavy if rng.random() < 0.06 else light)
    return f"readme{make.__name__}", make(rng)


def row(rng: random.Random, *, huge: bool) -> tuple[str, dict[str, Any]]:
    """Kind and value of a row of a listing that JSON can carry."""
    block: Any = [damaged_entry(rng, huge=huge and i == 0) for i in range(rng.choice((1, 1, 1, 2, 70)))]
    if rng.random() < 0.15:
        block = odd(rng)
    values: dict[str, Any] = {
        "id": f"evil/m{rng.randrange(10**9)}",
        "sha": f"{rng.getrandbits(160):040x}",
        "tags": ["task2vec"],
        "cardData": {"task2vec": block, "license": "mit", "datasets": ["org/a"]},
        "downloads": 3, "likes": 1, "gated": False, "private": False, "disabled": False,
        "pipeline_tag": "image-classification", "library_name": "timm", "lastModified": "2024-01-01T00:00:00.000Z",
        "safetensors": {"parameters": {"F32": 5}, "total": 5},
        "model-index": [{"name": "x", "results": [{"dataset": {"type": "cifar10"}, "metrics": [{"type": "accuracy", "value": 0.9}]}]}],
    }  # fmt: skip
    for _ in range(rng.choice((0, 0, 1, 3))):
        place = values if rng.random() < 0.5 else values["cardData"]
        names = ("base_model", "datasets", "license", "tags", "model-index", "library_name", *values)
        if isinstance(place, dict):
            place[rng.choice(names)] = odd(rng)
    return "row", values


def damaged_entry(rng: random.Random, *, huge: bool) -> Any:
    """A valid entry with wrong values, or something else altogether."""
    values = json.loads(json.dumps(rng.choice(_entries())))
    for _ in range(rng.choice((0, 1, 1, 2))):
        place = values
        if rng.random() < 0.5:
            place = values.get(rng.choice(("dataset", "measured")))
        if not isinstance(place, dict) or not place:
            continue
        name = rng.choice(sorted(place))
        text = place[name]
        how = rng.randrange(6)
        if how == 0:
            del place[name]
        elif how < 3 or not isinstance(text, str):
            place[name] = odd(rng)
        elif huge and how < 5:
            place[name] = text + rng.choice("A/=\u20ac") * 50_000_000
        else:
            at = rng.randrange(len(text) + 1)
            place[name] = (
                text[:at]
                + rng.choice((*_TOKENS, "A", "=", "f16:", "\ud800"))
                + text[at + rng.choice((0, 1)) :]
            )
    if rng.random() < 0.1:
        values |= {rng.choice((*_FIELDS, "more")): odd(rng)}
    if rng.random() < 0.1:  # settings that promise what they do not hold
        values["settings"] = json.dumps(odd(rng)) if rng.random() < 0.5 else _settings(rng)
        values["space"] = f"s{rng.getrandbits(60):015x}"
    return values


def odd(rng: random.Random, depth: int = 0) -> Any:
    """Something of an unexpected type or size, that JSON can carry."""
    value: Any
    simple: tuple[Any, ...] = (
        None, True, False, 0, -1, 1, 2**63, -(2**63), 2**64, 10**400, 0.0, -0.0, 1e308, 5e-324, float("nan"), float("inf"),
        "", " ", "x", "t2v/1", "t2v/2", "\ud800", "\0", "a\nb", "\u202e", "x" * 400, "x" * 100_000, "../../etc/passwd",
        "https://evil/", "sha256:", "f16:" + "A" * 107, "f16:====", "1e5", "nan", "-" * 200, "((((" * 50, "a/b", "/" * 500,
    )  # fmt: skip
    how = rng.randrange(10)
    if depth > 3 or how < 6:
        return rng.choice(simple)
    if how == 6:
        return [odd(rng, depth + 1) for _ in range(rng.choice((0, 1, 3, 30)))]
    if how == 7:
        names = ("", "id", "task", "name", "type", "value", "results", "metrics", "dataset", "total", "parameters", "\ud800", "x" * 300)  # fmt: skip
        return {rng.choice(names): odd(rng, depth + 1) for _ in range(rng.choice((0, 1, 3, 10)))}
    if how == 8:
        value = rng.choice(simple)
        return [value] * (3 if len(repr(value)) > 50 else rng.choice((1, 100, 20_000)))
    value = []
    for _ in range(rng.choice((10, 90, 400))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def _settings(rng: random.Random) -> str:
    values = json.loads(str(_entries()[0]["settings"]))
    values[rng.choice(sorted(values))] = rng.choice(
        (
            odd(rng),
            [["x", 10**9]],
            [["x", -1]],
            [["l", 1]] * 5000,
            [[1, "2"]],
            [["x", 1e300]],
            1e-320,
            "fisher",
        )
    )
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def _flipped(rng: random.Random) -> bytes:
    content = bytearray(rng.choice(_cards()[:-1]))
    for _ in range(rng.choice((1, 1, 2, 10))):
        near = rng.randrange(min(len(content), rng.choice((20, 400, 10**6))))
        content[near] = rng.randrange(256)
    return bytes(content)


def _spliced(rng: random.Random) -> bytes:
    text = rng.choice(_cards()).decode()
    for _ in range(rng.choice((1, 2, 5))):
        at = rng.randrange(len(text) + 1)
        if rng.random() < 0.5:
            at = text.find("\n", at) + 1
        text = text[:at] + rng.choice(_TOKENS) + text[at + rng.choice((0, 0, 1, 20)) :]
    return text.encode("utf-8", "surrogatepass")


def _shuffled(rng: random.Random) -> bytes:
    lines = rng.choice(_cards()).splitlines(keepends=True)
    for _ in range(rng.choice((1, 3))):
        if lines:
            i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
            how = rng.randrange(4)
            if how == 0:
                lines[i], lines[j] = lines[j], lines[i]
            elif how == 1:
                lines.insert(i, lines[j])  # keys twice, among others
            elif how == 2:
                del lines[i]
            else:
                lines[i] = b" " * rng.randrange(1, 9) + lines[i]
    return b"".join(lines)


def _with_field(rng: random.Random) -> bytes:
    """An entry with a value of another type, as YAML that is JSON."""
    block = json.dumps([damaged_entry(rng, huge=False)])
    return f"---\ntags: [task2vec]\ntask2vec: {block}\n---\n".encode("utf-8", "surrogatepass")


def _bomb(rng: random.Random) -> bytes:
    width, depth = rng.choice((2, 9, 40)), rng.choice((7, 20, 60))
    lines = [f"a0: &a0 [{','.join('x' * width)}]"]
    for n in range(1, depth):
        inner = ",".join([f"*a{n - 1}"] * width)
        lines.append(f"a{n}: &a{n} " + (f"[{inner}]" if rng.random() < 0.7 else "{<<: [" + inner + "]}"))
    lines.append(f"task2vec: [*a{depth - 1}]")
    return ("---\n" + "\n".join(lines) + "\n---\n").encode()


def _deep(rng: random.Random) -> bytes:
    n = rng.choice((50, 99, 101, 1000, 50_000, 400_000))
    kind = rng.randrange(5)
    if kind == 0:
        text = "[" * n + ("]" * n if rng.random() < 0.5 else "")
    elif kind == 1:
        text = "{a: " * n + "}" * n
    elif kind == 2:
        text = "- " * min(n, 400_000)
    elif kind == 3:
        text = "\n" + "\n".join(" " * i + "a:" for i in range(min(n, 1300)))
    else:
        text = "? " * n
    return f"---\ntags: [x]\ntask2vec: {text}\n---\n".encode()


def _wide(rng: random.Random) -> bytes:
    n = rng.choice((1000, 30_000, 140_000, 300_000))
    lines = rng.choice(
        ("a,", "k{}: 1\n", "- a\n", "- {{}}\n", "? a\n", "[],", "#\n", "\n", "'',", "\t", "\t,", " \t#\n")
    )
    text = "".join(lines.format(i) for i in range(n))
    text = f"task2vec: [{text}]" if lines.endswith(",") else f"task2vec:\n{text}" if lines[0] == "-" else text
    return f"---\n{text}\n---\n".encode()[:2_000_000]


def _aliases(rng: random.Random) -> bytes:
    n = rng.choice((10, 1000, 30_000))
    how = rng.randrange(3)
    if how == 0:
        text = "a: &a {x: 1}\nb: {" + ", ".join(f"k{i}: *a" for i in range(n)) + "}\n"
    elif how == 1:
        text = "".join(
            f"k{i}: &k{i} {{<<: *k{i - 1}, x{i}: 1}}\n" if i else "k0: &k0 {x: 1}\n" for i in range(n)
        )
    else:
        text = "base: &b {" + ", ".join(f"x{i}: 1" for i in range(n)) + "}\n"
        text += "".join(f"m{i}: {{<<: *b}}\n" for i in range(n // 10))
    return f"---\n{text}task2vec: [*b]\n---\n".encode()


def _long_scalar(rng: random.Random) -> bytes:
    n = rng.choice((999, 1001, 100_000, 900_000))
    text = rng.choice(
        (
            "1",
            "0x" + "f",
            "1:",
            "1_",
            "9.",
            "1e",
            "A",
            "é",
            "\\u00e9",
            " ",
            "-",
            "'",
            "0b1",
            "0",
            "\U0001f600",
        )
    )
    head = rng.choice(
        ("", "!!int ", "!!float ", "!!binary ", "!!timestamp ", "!!bool ", '"', "|\n  ", ">\n  ")
    )
    close = '"' if head == '"' else ""
    return f"---\nn: {head}{(text * n)[:n]}{close}\ntags: [task2vec]\n---\n".encode()


def _noise(rng: random.Random) -> bytes:
    n = rng.choice((3, 30, 300))
    if rng.random() < 0.3:
        return rng.randbytes(n)
    letters = "abcd \n\n::--[]{}&*!|>'\"%@`#,?~\t\r\u2028\ufeff"
    return f"---\n{''.join(rng.choices(letters, k=n))}\n---\n".encode()


def _cut(rng: random.Random) -> bytes:
    content = rng.choice(_cards()[:-1])
    a, b = sorted((rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)))
    return content[:a] + content[b:] if rng.random() < 0.5 else content[:b]


def _huge(rng: random.Random) -> bytes:
    """50 MB of something, with and without an end of the metadata."""
    unit = rng.choice(
        (b"x", b"\n", b"---\n", b"- a\n", b"[", b"<!--", b"-->", b" ", b"\xff", b"a: b\n", b"\t", b"\r")
    )
    lead = rng.choice((b"---\n", b"", b"<!--", b"\n"))
    size = rng.choice((50_000_000, 10 << 20, (10 << 20) - 20, 1_000_100, 999_000))
    return (lead + unit * (size // len(unit)))[:size] + rng.choice((b"", b"\n---\n"))
