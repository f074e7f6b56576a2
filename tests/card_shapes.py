"""README shapes as they occur on the Hub: written for these tests, none copied from anywhere."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A README and what is known of it.

    Attributes:
        content: The README.
        refused: Pattern of the CardTextError that reading it or adding to it raises; None where none is.
        one_way: Why adding and removing do not give back every byte; None where they do.
        edits_line: Adding changes lines that exist, not only between them: flow lists, scalars.
    """

    content: bytes
    refused: str | None = None
    one_way: str | None = None
    edits_line: bool = False


BODY = "\n# A model\n\nIt classifies images.\n"


def card(front: str, body: str = BODY) -> bytes:
    """A README with these lines of metadata."""
    return f"---\n{front}---\n{body}".encode()


def plain(front: str, body: str = BODY) -> Shape:
    """A README that may be changed, and changed back."""
    return Shape(card(front, body))


def refused(front: str, pattern: str) -> Shape:
    """A README that may not be changed."""
    return Shape(card(front), refused=pattern)


def flow(front: str, one_way: str | None = None) -> Shape:
    """A README whose lines our items join."""
    return Shape(card(front), edits_line=True, one_way=one_way)


TRAINER = """\
library_name: transformers
license: apache-2.0
base_model: google/vit-base-patch16-224-in21k
tags:
- image-classification
- generated_from_trainer
datasets:
- imagefolder
metrics:
- accuracy
model-index:
- name: vit-leaves
  results:
  - task:
      name: Image Classification
      type: image-classification
    dataset:
      name: leaves
      type: imagefolder
      config: default
      split: validation
      args: default
    metrics:
    - name: Accuracy
      type: accuracy
      value: 0.9774436090225563
    - {name: Loss, type: loss, value: 1.0e-05}
  - task: {type: image-classification}
    dataset: {name: "leaves: second half", type: leaves/half}
    metrics:
    - type: f1
      value: 0.91
      verified: false
      verifyToken: eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.e30.c2ln
"""

DATASET = """\
annotations_creators:
- expert-generated
language: [en, de]
size_categories:
- 10K<n<100K
source_datasets: []
task_categories:
- image-classification
pretty_name: Leaves
dataset_info:
- config_name: default
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
          '0': oak
          '1': "beech, red"
          '2': no
  splits:
  - name: train
    num_bytes: 4231514177.92
    num_examples: 50000
  download_size: 4225301411
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
"""

FOREIGN = """\
task2vec:
# measured by hand
- spec: other/9   # not ours
  values: [1, 2.50, 0x1F]
  note: 'it''s old'
  # the end of the first
- {spec: other/10, when: 2024-01-02}
# nothing below
"""

SHAPES: dict[str, Shape] = {
    # generated cards
    "trainer": plain(
        TRAINER, "\n<!-- This model card has been generated automatically. -->\n\n# vit-leaves\n"
    ),
    "trainer crlf": Shape(card(TRAINER).replace(b"\n", b"\r\n")),
    "timm": plain(
        "tags:\n- image-classification\n- timm\n- transformers\nlibrary_name: timm\nlicense: apache-2.0\n"
        "datasets:\n- imagenet-1k\n",
        "# Model card for resnet18.a1_in1k\n\n| Model | top1 |\n|---|---|\n| a | 71.5 |\n",
    ),
    "sentence transformers": plain(
        "tags:\n- sentence-transformers\n- sentence-similarity\n- dataset_size:100K<n<1M\n"
        "- loss:CosineSimilarityLoss\n"
        "widget:\n- source_sentence: 'A man: he''s \"late\"'\n  sentences:\n"
        '  - "Tab\\there, \\u00e9"\n  - >-\n'
        '    A folded\n    sentence.\n\n    - not a list\n  - "# no comment"\n'
        "pipeline_tag: sentence-similarity\n"
        "co2_eq_emissions:\n  emissions: 7.5e-05\n  energy_consumed: .inf\n"
    ),
    "setfit": plain(
        "tags:\n- setfit\n- text-classification\nmetrics: [accuracy]\nwidget:\n"
        "- text: 'no: really?'\n- text: |\n"
        "    two\n      lines\n\n- text: yes\ninference: true\n"
    ),
    "diffusers": flow(
        "license: openrail++\ntags: [text-to-image, stable-diffusion, lora]\ninference: false\n"
        "instance_prompt: a photo of sks dog\nwidget:\n- text: 'sks dog, \"oil\"'\n"
        "  output: {url: images/0.png}\n"
    ),
    "peft": plain("base_model: org/base\nlibrary_name: peft\ntags:\n- base_model:adapter:org/base\n- lora\n"),
    "mixin": plain(
        "tags:\n- model_hub_mixin\n- pytorch_model_hub_mixin\n",
        "\nThis model has been pushed with the mixin.\n",
    ),
    "spec comment": plain(
        "# For reference on model card metadata, see the spec: https://github.com/huggingface/hub-docs\n"
        "# Doc / guide: https://huggingface.co/docs/hub/model-cards\n{}\n".replace("{}\n", "license: mit\n")
    ),
    "empty template": flow("# For reference, see the spec\n{}\n", "the braces go"),
    "empty template with comments": flow("# one\n  {} # two\n# three\n", "the braces go"),
    "braces with a comment": refused("{ # one\n  }\n", "stands in braces"),
    "old line end in a comment": refused("tags: # to\u0085 do\n", "`tags`.*unusual way"),
    "braces": refused("# one\n{license: mit}\n", "stands in braces"),
    "gated": plain(
        "extra_gated_heading: 'Acknowledge: the license'\nextra_gated_prompt: >+\n"
        "  You agree to\n  all of it.\n\n"
        'extra_gated_fields:\n  Company: text\n  I agree: checkbox\n  "Geo": ip_location\nlicense: other\n'
        "license_name: own-1.0\nlicense_link: https://example.org/license#terms\n"
    ),
    "data set": plain(DATASET, "\n# Leaves\n"),
    "data set with tags": plain(DATASET + "tags:\n- biology\n- 'art: old'\n"),
    "space": plain(
        "title: Demo\nemoji: 🌿\ncolorFrom: green\nsdk: gradio\nsdk_version: 5.0\n"
        "app_file: app.py\npinned: no\n"
    ),
    "emoji and cjk": plain(
        "pretty_name: 葉っぱ 🌿🍂\nlanguage:\n- zh\n- ja\ntags:\n- 分類\n- 🌿\nlicense: mit\n", "\n# 模型\n"
    ),
    "latin text": plain('pretty_name: "Bl\\xE4tter"\nauthor: Zoë Müller\n'),
    # tags
    "no tags": plain("license: mit\n"),
    "tags indented": plain("tags:\n  - vision\n  - timm\nlicense: mit\n"),
    "tags far in": plain("tags:\n      - vision\n      -   timm\nlicense: mit\n"),
    "tags last": plain("license: mit\ntags:\n- vision\n"),
    "tags with comments": plain(
        "# above\ntags:  # what it is\n# first\n- vision  # seen\n\n# second\n- timm\n"
        "  # inside\n# below\nlicense: mit\n"
    ),
    "tags quoted": plain("tags:\n- 'vision'\n- \"a \\\"b\\\"\"\n- 'it''s: one'\n- !!str 12\nlicense: mit\n"),
    "tags key quoted": plain("\"tags\":\n- vision\n'license': mit\n"),
    "tags key with spaces": plain("tags   :\n- vision\nlicense : mit\n"),
    "tags of all types": plain(
        "tags:\n- 1\n- 2.5\n- yes\n- null\n-\n- 2024-01-02\n- [a, b]\n- {c: d}\n- on\n"
    ),
    "tags on lines of their own": plain("tags:\n-\n  vision\n- # why\n  timm\nlicense: mit\n"),
    "tags twice the same": plain("tags:\n- vision\n- vision\n"),
    "tags of several lines": plain('tags:\n- two\n  lines\n- "three\n  more\n\n  lines"\nlicense: mit\n'),
    "tags anchored": plain("tags: &t\n- vision\n- &x timm\nlicense: *x\n"),
    "tags anchored and used": refused("tags: &t\n- vision\nkeywords: *t\n", "change `keywords` as well"),
    "tags an alias": refused("keywords: &t [a]\ntags: *t\n", "`tags`.*is an alias"),
    "tags merged": refused("base: &b {tags: [a]}\n<<: *b\nlicense: mit\n", "takes `tags` from elsewhere"),
    "tags a mapping": refused("tags: {a: b}\n", "`tags`.*is a mapping"),
    "tags twice": refused("tags: [a]\nlicense: mit\ntags: [b]\n", "key 'tags' twice"),
    "tags a block of text": refused("tags: |\n  vision\nlicense: mit\n", "`tags`.*is a block of text"),
    "tags after a question mark": refused(
        "? tags\n: - vision\nlicense: mit\n", "`tags`.*on a line of its own"
    ),
    "tags flow": flow("tags: [vision, timm]  # two\nlicense: mit\n"),
    "tags flow with spaces": flow("tags: [ vision , 'a, b' ]\nlicense: mit\n"),
    "tags flow with comma": flow("tags: [vision, timm,]\nlicense: mit\n"),
    "tags flow on lines": flow("tags: [\n    vision,\n    timm\n  ]\nlicense: mit\n"),
    "tags flow on lines with comma": flow("tags:\n  [\n    vision,\n    timm,\n  ]\nlicense: mit\n"),
    "tags flow with comments": flow(
        "tags: [ # the tags\n    vision, # seen\n    # between\n    timm # last\n    # end\n  ]\n"
        "license: mit\n"
    ),
    "tags flow anchored": flow("tags: &t [vision, &u timm]\nkeywords: [*u]\n"),
    "tags flow empty": flow("tags: []\nlicense: mit\n", "the key goes with the last tag"),
    "tags null": Shape(card("tags:\nlicense: mit\n"), one_way="the key goes with the last tag"),
    "tags null with comments": Shape(
        card("tags:   # to do\n# still\nlicense: mit\n"), one_way="the key goes with the last tag"
    ),
    "tags null at the end": Shape(card("license: mit\ntags:\n"), one_way="the key goes with the last tag"),
    "tags written null": flow("tags: null # none\nlicense: mit\n", "the key goes with the last tag"),
    "tags tilde": flow("tags: ~\nlicense: mit\n", "the key goes with the last tag"),
    "tags scalar": flow("tags: vision\nlicense: mit\n", "one tag becomes a list of one"),
    "tags scalar with commas": flow("tags: vision, [timm]  # two?\n", "one tag becomes a list of one"),
    "tags scalar below": flow("tags: # one\n  vision # tag\nlicense: mit\n", "one tag becomes a list of one"),
    "tags scalar quoted": flow("tags: 'vision: yes'\nlicense: mit\n", "one tag becomes a list of one"),
    # the block
    "block foreign": plain("license: mit\n" + FOREIGN + "tags:\n- task2vec-like\n"),
    "block foreign at the end": plain("license: mit\n" + FOREIGN),
    "block indented": plain("task2vec:\n    - spec: other/1\n      a: {b: [c]}\n    # end\nlicense: mit\n"),
    "block on own lines": plain(
        "task2vec:\n-\n  spec: other/1\n- # second\n  - nested\n  -\n    - list\nlicense: mit\n"
    ),
    "block of odd items": plain(
        "task2vec:\n- 12\n- null\n-\n- text\n- - - deep\n- &a {x: 1}\n- *a\nlicense: mit\n"
    ),
    "block with text": plain("task2vec:\n- spec: other/1\n  note: |+\n    kept\n\n\nlicense: mit\n"),
    "block flow": flow(
        'task2vec: [{spec: other/1, data: "f16:AA=="}, {spec: other/2}] # flow\nlicense: mit\n'
    ),
    "block flow on lines": flow(
        "task2vec: [\n  {spec: other/1}, # one\n  {spec: other/2,\n   a: b}\n  ]\nlicense: mit\n"
    ),
    "block null": Shape(card("task2vec: # soon\nlicense: mit\n"), one_way="the key goes with the last item"),
    "block empty": flow("task2vec: []\nlicense: mit\n", "the key goes with the last item"),
    "block a string": refused("task2vec: see below\n", "is 'see below', not a list"),
    "block a mapping": refused("task2vec:\n  spec: t2v/1\n", "`task2vec`.*is a mapping"),
    "block true": refused("task2vec: true\n", "is True, not a list"),
    "block twice": refused("task2vec: []\ntask2vec: []\n", "key 'task2vec' twice"),
    # scalars and layout elsewhere
    "other keys twice": plain("license: mit\nlicense: apache-2.0\nmodel-index: []\n"),
    "literal at the end": plain("license: mit\n# about\nabout: |\n  some text\n"),
    "folded at the end": plain("license: mit\nabout:\n- x: >\n    some\n    text\n"),
    "kept literal at the end": plain("tags:\n- a\nabout: |+\n  some text\n\n\n"),
    "literal with comment signs": plain(
        "about: |2\n    # no comment\n  tags: [a]\n  task2vec:\n  ...\nlicense: mit\n"
    ),
    "only a literal": plain("about: |-\n  text\n"),
    "plain on several lines": plain("about: one\n  two\n\n  three # comment\nlicense: mit\n"),
    "quoted on several lines": plain("about: \"one\n  tags:\n\n  - two\\\n  three\"\nalso: 'a\n  b'\n"),
    "anchors and aliases": plain(
        "base: &base {a: 1}\nother: *base\nmore:\n  <<: *base\n  b: [*base, *base]\n"
    ),
    "merge of others": plain("base: &b\n  license: mit\n<<: *b\nlanguage: en\n"),
    "timestamps and numbers": plain(
        "date: 2024-02\nday: 2024-02-03\nat: 2001-12-14t21:59:43.10-05:00\noct: 0o14\nold: 014\n"
        "six: 1:30\n"
        "big: 123456789012345678901234567890\nnan: .nan\nplus: +1_000\nbin: 0b101\n~: tilde\n"
        "1: one\n2.5: x\nno: y\n"
    ),
    "explicit tags": plain(
        "a: !!str 1\nb: !!float 1\nc: !!binary aGk=\nd: !!map {e: f}\ng: !!seq [h]\n! i: ! 12\n"
    ),
    "indented keys": plain("  license: mit\n  tags:\n  - a\n"),
    "indented keys without tags": plain("  license: mit\n  # end\n"),
    "spaces at line ends": plain("license: mit   \ntags:  \n- vision  \n-  timm   \n   \n# end  \n"),
    "blank lines": plain("\n\nlicense: mit\n\n\ntags:\n\n- a\n\n- b\n\n\n"),
    "long lines": plain(f"license: mit\nabout: {'word ' * 20_000}\ntags:\n- {'x' * 5000}\n"),
    "document end": plain("license: mit\n...\n"),
    "document end with comments": plain("license: mit\n# before\n...\n# after\n"),
    "comments only": plain("# nothing yet\n\n# still nothing\n"),
    "blank only": plain("\n"),
    "null only": refused("null\n", "stands in braces"),
    # around the metadata
    "no front matter": Shape(BODY.encode()),
    "no front matter crlf": Shape(BODY.replace("\n", "\r\n").encode()),
    "empty file": Shape(b""),
    "one newline": Shape(b"\n"),
    "no newline at the end": Shape(b"# Title"),
    "only front matter": Shape(b"---\nlicense: mit\n---\n"),
    "only front matter without newline": Shape(b"---\nlicense: mit\n---"),
    "only front matter and spaces": Shape(b"---\nlicense: mit\n--- \t"),
    "empty front matter": Shape(b"---\n---\n# Title\n", one_way="empty front matter goes"),
    "empty front matter crlf": Shape(b"---\r\n---\r\n", one_way="empty front matter goes"),
    "spaces after the closing line": Shape(b"---\nlicense: mit\n---  \t\r\n# Title\n"),
    "spaces after the opening line": Shape(b"--- \nlicense: mit\n---\n", refused="opens with `---`, but not"),
    "lines before": Shape(b"\n \t\n---\nlicense: mit\n---\n# Title\n"),
    "indented opening line": Shape(b"  ---\nlicense: mit\n---\n# Title\n"),
    "byte order mark": Shape(b"\xef\xbb\xbf---\nlicense: mit\n---\n# Title\n"),
    "byte order mark without front matter": Shape(b"\xef\xbb\xbf# Title\r\n"),
    "no-break space before": Shape("\u00a0---\nlicense: mit\n---\n".encode(), refused="Unusual spaces"),
    "two byte order marks": Shape(
        b"\xef\xbb\xbf" * 2 + b"---\nlicense: mit\n---\n", refused="Unusual spaces"
    ),
    "utf-16": Shape(card("license: mit\n").decode().encode("utf-16"), refused="UTF-16"),
    "utf-16 without mark": Shape(card("license: mit\n").decode().encode("utf-16-le"), refused="UTF-16"),
    "comment before": Shape(
        b"<!-- hello -->\n\n---\nlicense: mit\n---\n# Title\n", refused="below a comment"
    ),
    "comment before, no metadata": Shape(b"<!-- hello -->\n\n# Title\n\n---\n\nText\n"),
    "rules in the body": plain(
        "license: mit\n", "\n# Title\n\n---\n\ntags: [a]\n\n---\ntask2vec: false\n---\n"
    ),
    "rule at the start": Shape(b"---\n\nJust some text.\n\n---\n", refused="no mapping of keys"),
    "one rule at the start": Shape(b"---\n\nJust some text.\n", refused="finds none that closes"),
    "longer rule at the start": Shape(b"----\nlicense: mit\n----\n"),
    "metadata in the middle": Shape(b"# Title\n\n---\nlicense: mit\n---\n"),
    "old mac newlines": Shape(b"---\rlicense: mit\r---\r# Title\r", refused="finds none that closes"),
    "second rule in the metadata": Shape(
        b"---\n---\nlicense: mit\n---\n", refused="where the README's metadata ends"
    ),
    "mixed newlines": Shape(b"---\r\nlicense: mit\ntags:\r\n- a\n- b\r\n# c\n---\r\n# Title\n\r\n\r"),
    "newlines of the body differ": Shape(b"---\nlicense: mit\n---\r\n# Title\r\nText\r\n"),
    "tabs in the body": plain("license: mit\n", "\tcode\n\t---\n- a\t- b\n"),
    "latin-1 body": Shape(card("license: mit\n") + "Blätter \xa0".encode("latin-1")),
    "latin-1 comment": Shape(
        card("license: mit\n# Bl\xe4tter \U0001f33f\n").replace("ä".encode(), b"\xe4\xff")
    ),
    "latin-1 value": Shape(card("author: M\xfcller\n").replace("ü".encode(), b"\xfc"), refused="not UTF-8"),
    "nul in the body": Shape(card("license: mit\n") + b"a\0b\x1b[0m\x7f\n"),
    "nul in the metadata": refused("license: m\0it\n", "Cannot read the README's metadata"),
    "binary body": Shape(card("license: mit\n") + bytes(range(256)) * 3),
    "unicode line ends in the body": plain("license: mit\n", "a\u2028b\u2029c\x85d\x0ce\x0b\n"),
    # not readable
    "no yaml": refused("license: mit: no\n", "Cannot read the README's metadata.*line 1"),
    "tab after a value": refused("tags:\n- vision \t\n", "a tab stands between|cannot start any token"),
    "tab in a value": refused("about: a\tb\n", "a tab stands between|cannot start any token"),
    "tabs in values and comments": plain('d: "\t"\n#\te\nf: |\n  \tg\nh: i\n'),
    "template": refused("license: {{ license }}\n", "stands where a key must"),
    "unknown tag": refused("a: !mine b\n", "YAML tag '!mine'"),
    "python tag": refused("a: !!python/object/apply:os.system [ls]\n", "YAML tag 'python/object"),
    "impossible date": refused("date: 2024-13-45\n", "is no timestamp"),
    "a list": refused("- a\n- b\n", "no mapping of keys"),
    "two documents": refused("a: b\n--- # next\nc: d\n", "more than one YAML document"),
    "undefined alias": refused("a: *b\n", "stands for nothing"),
    "alias in itself": refused("a: &a [*a]\n", "stands in what it stands for"),
}
