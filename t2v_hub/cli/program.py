"""The name that the command was started by: ``t2v``, or ``hf t2v`` as an extension of ``hf``."""

import re
import sys
from pathlib import Path
from typing import Any

EXTENSION = "hf-t2v"
"""Name of the script that ``hf`` starts for ``hf t2v``."""

_COMMAND = re.compile(r"(?<=`)t2v(?= )|(?<=\$ )t2v(?= )")
_COMPLETION = ("install_completion", "show_completion")


def program() -> str:
    """What was typed to start this process."""
    return "hf t2v" if Path(sys.argv[0]).stem == EXTENSION else "t2v"


def as_started(text: str) -> str:
    """The text with commands in it, in backticks or after ``$``, as they must be typed here."""
    return _COMMAND.sub(program(), text)


def renamed(command: Any) -> Any:
    """The command with its help, and that of all below it, in the words of ``hf t2v``.

    ``hf`` completes its own words only, so the options that would complete ours are taken out.
    """
    command.params = [item for item in command.params if item.name not in _COMPLETION]
    for item in (command, *command.params):
        if getattr(item, "help", None):
            item.help = as_started(item.help)
    if command.epilog:
        command.epilog = as_started(command.epilog)
    for below in getattr(command, "commands", {}).values():
        renamed(below)
    return command
