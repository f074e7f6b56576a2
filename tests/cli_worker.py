"""The command ``t2v`` in processes of their own that need not import torch first, each to be killed."""

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

_MODULES = [
    "t2v_hub.cli.embed",
    "t2v_hub.task2vec",
    "t2v_hub.manifest",
    "t2v_hub.catalog",
    "transformers",
    "timm",
]


@dataclass(frozen=True)
class Ended:
    """What became of a process: ``code`` is its exit code, or a signal's number, negative."""

    code: int
    out: str
    err: str


class Worker:
    """A command that is running.

    Args:
        arguments: Of the command.
        environment: Variables, beside those of this process when the first worker was started.
        folder: Where it may keep what it prints.
    """

    def __init__(self, arguments: Sequence[object], environment: Mapping[str, str], folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_MODULES)
        self.process: BaseProcess = context.Process(
            target=_run, args=([str(argument) for argument in arguments], dict(environment), str(folder))
        )
        self.process.start()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.is_alive()

    def send(self, signal: int) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal)

    def ended(self) -> Ended:
        """Wait for its end."""
        self.process.join(300)
        assert self.process.exitcode is not None, "it does not end"
        out, err = (self.folder / name for name in ("out", "err"))
        return Ended(self.process.exitcode, *(p.read_text() if p.exists() else "" for p in (out, err)))


def _run(arguments: list[str], environment: dict[str, str], folder: str) -> None:
    os.environ.update(environment)
    os.chdir("/")
    sys.stdout = (Path(folder) / "out").open("w")
    sys.stderr = (Path(folder) / "err").open("w")
    sys.argv = ["t2v", *arguments]
    from t2v_hub.cli import main

    main()
