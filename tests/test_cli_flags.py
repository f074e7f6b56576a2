"""Messages in the words of the command line: no argument of a Python function is left in them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import t2v_hub
from t2v_hub.cli import app
from t2v_hub.cli.flags import FLAGS, PHRASES, in_flags

PACKAGE = Path(t2v_hub.__file__).parent
ROOMS = ("data", "card", "hub")
MESSAGES = [
    *(path for room in ROOMS for path in sorted((PACKAGE / room).glob("*.py"))),
    PACKAGE / "task2vec.py",
]


@pytest.mark.parametrize(
    ("message", "ours"),
    [
        ("Name one with split=.", "Name one with --split."),
        ("split='a' was given. Leave split= out.", "--split a was given. Leave --split out."),
        ("Set config= or split= where it has several,", "Set --config or --split where it has several,"),
        ("revision=, config= and", "--data-revision, --config and"),
        ("image_column= and label_column= mean", "--image-column and --label-column mean"),
        ("There is no column 'a' (label_column).", "There is no column 'a' (--label-column)."),
        (
            "label_column=, for example label_column='a b'.",
            "--label-column, for example --label-column 'a b'.",
        ),
        ('pass small_classes="drop" to leave', "pass --small-classes drop to leave"),
        (
            "max_samples=2 is smaller. Use max_samples=6 or",
            "--max-samples 2 is smaller. Use --max-samples 6 or",
        ),
        ("Lower max_samples or image_size.", "Lower --max-samples or --image-size."),
        ("Measure 20 images (max_samples) or more.", "Measure 20 images (--max-samples) or more."),
        ("max_samples must be a whole number", "--max-samples must be a whole number"),
        ("seed must be a whole number", "--seed must be a whole number"),
        ('Use sampling="natural" for this task.', "Use --sampling natural for this task."),
        ("filters=2.0 must lie in (0, 1]", "--filters 2.0 must lie in (0, 1]"),
        ("leave it out with filters=[...], or", "leave it out with --filters, or"),
        ("where: a candidate has no field 'a'", "--where: a candidate has no field 'a'"),
        ("measure with dtype='float64'.", "measure with --dtype float64."),
        ("device='a' cannot be used", "--device a cannot be used"),
        ("role='self' goes with the card of a dataset", "--role self goes with the card of a dataset"),
        ("role must be one of 'finetune', 'self'", "--role must be one of 'finetune', 'self'"),
        ("repo_type must be 'model' or 'dataset'", "--repo-type must be 'model' or 'dataset'"),
        ("endpoint must be an address such as", "--endpoint must be an address such as"),
        (
            "Give the data set another name (name=), or leave names out.",
            "Embed it again under another --name, or leave --publish-names out.",
        ),
        ("Pass 'cpu', or None for what is at hand.", "Give cpu, or leave --device out."),
    ],
)
def test_arguments_become_options(message, ours):
    """A newcomer at a shell cannot pass split= anywhere."""
    assert in_flags(message) == ours


@pytest.mark.parametrize(
    "message",
    [
        "There is no column 'label_column'. The columns are 'split' (string), 'max_samples' (int64).",
        "Cannot write '/data/max_samples/split=a.safetensors'",
        "/data/split=train/a.parquet is damaged",
        "Embed both tasks with one probe, for example Task2Vec(probe='a').",
        "Name the head whose input they are with head='...'.",
        "The sampling must be natural; the seed and the split say where.",
    ],
)
def test_other_words_stay(message):
    """Names of the user's own columns and files, words of English, and code are no options."""
    assert in_flags(message) == message


def messages(path: Path) -> Iterator[str]:
    """Every text with a space in it that is no docstring; values that are filled in become examples."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    apart = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    apart |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            filled = [
                str(part.value) if isinstance(part, ast.Constant) else repr("a b") if is_quoted(part) else "7"
                for part in node.values
            ]
            yield "".join(filled)
        elif isinstance(node, ast.Constant) and " " in str(node.value) and id(node) not in apart:
            yield str(node.value)


def is_quoted(part: ast.expr) -> bool:
    return isinstance(part, ast.FormattedValue) and part.conversion == ord("r")


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_message_of_these_rooms_keeps_an_argument(path):
    """Messages are written for Python; a new one must not speak it at a shell."""
    left = re.compile(rf"\b({'|'.join(FLAGS)})=|\b({'|'.join(name for name in FLAGS if '_' in name)})\b")

    assert [text for text in messages(path) if left.search(in_flags(text))] == []


def test_the_options_and_the_phrases_exist():
    """A table that goes stale would name options that nobody has, or replace nothing."""
    group = typer.main.get_command(app)
    groups = [command.commands for command in group.commands.values() if hasattr(command, "commands")]
    commands = [*group.commands.values(), *(command for below in groups for command in below.values())]
    options = {name for command in commands for item in command.params for name in item.opts}
    texts = [text for path in PACKAGE.rglob("*.py") for text in messages(path) if path.name != "flags.py"]

    assert set(FLAGS.values()) <= options
    head = {"The head's strength must": "The head's 7 must"}
    for phrase in PHRASES:
        assert any(head.get(phrase, phrase) in text for text in texts), phrase
