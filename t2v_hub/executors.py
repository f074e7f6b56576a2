"""`Executor`: where the pieces of bulk work are done, if not one after the other in this process."""

import warnings
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

from t2v_hub.errors import SettingsError, T2VError, T2VWarning, WorkerError
from t2v_hub.plugins import Group, guarded, plugin, plugin_names

Item = TypeVar("Item")
Result = TypeVar("Result")

_GROUP: Group = "t2v_hub.executors"


@runtime_checkable
class Executor(Protocol):
    """Calls a function for many items, in other processes.

    A package offers one by an entry point of the group ``t2v_hub.executors``: something that returns an
    executor when it is called without arguments.
    """

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Generator[tuple[int, Result | WorkerError], None, None]:
        """What the function returns for each item, each once, as soon as it is there.

        When the generator is closed, or raises, work that is not finished is given up.

        Args:
            function: Can be pickled, and so can what it returns. It may be called again for an item whose
                worker died.
            items: Taken in order, in the caller's thread, when there is room for more work; only for each
                single one is it known whether it can be pickled.

        Yields:
            The item's number, from 0; and the result, or why there is none: the item cannot be sent, or
            its workers died.

        Raises:
            Exception: What the function raised.
        """
        ...


def make_executor(choice: "Executor | str") -> Executor:
    """An executor by its name, or the one that is given.

    Args:
        choice: An `Executor`, or the name of an entry point such as ``ray``.

    Raises:
        SettingsError: No installed package has one of that name, it is none, or it is broken.
        MissingDependencyError: What it needs is not installed.
    """
    made: object = choice
    if isinstance(choice, str):
        with guarded(f"The executor {choice!r} cannot be loaded", SettingsError):
            factory = plugin(_GROUP, choice)
        if factory is None:
            known = ", ".join(map(repr, plugin_names(_GROUP))) or "none"
            raise SettingsError(
                f"There is no executor {choice!r}; installed packages have {known}. Choose one of them, pass "
                f"an Executor, or None to work in this process."
            )
        with guarded(f"The executor {choice!r} cannot be made", SettingsError):
            made = factory() if callable(factory) else factory
    if isinstance(made, type) or not isinstance(made, Executor):
        raise SettingsError(
            f"An executor has a method map(function, items), see t2v_hub.Executor; {choice!r} is "
            f"{type(made).__name__}. Pass a name such as 'ray', or None to work in this process."
        )
    return made


def results(
    executor: Executor, function: Callable[[Item], Result], items: Iterable[Item]
) -> Generator[tuple[int, Result | T2VError], None, None]:
    """What a function returns for each item elsewhere, or the error of ours that it raised.

    Warnings of ours that it gives there are given here.

    Args:
        executor: Where it works.
        function: As for `Executor.map`.
        items: As for `Executor.map`.

    Yields:
        The item's number, and the result or the error, as soon as it is there.

    Raises:
        Exception: What the function raised that is not ours.
    """
    with closing(executor.map(_Guarded(function), items)) as outcomes:
        for number, outcome in outcomes:
            if isinstance(outcome, WorkerError):
                yield number, outcome
                continue
            for category, message in outcome.warnings:
                warnings.warn(message, category, stacklevel=3)
            yield number, outcome.result


@dataclass(frozen=True)
class _Outcome(Generic[Result]):
    """What a call came to, as it travels between processes."""

    result: Result | T2VError
    warnings: tuple[tuple[type[T2VWarning], str], ...]


@dataclass(frozen=True)
class _Guarded(Generic[Item, Result]):
    """A function whose errors and warnings travel as values."""

    function: Callable[[Item], Result]

    def __call__(self, item: Item) -> _Outcome[Result]:
        result: Result | T2VError
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", T2VWarning)
            try:
                result = self.function(item)
            except T2VError as error:
                result = error
        own = []
        for one in caught:
            if issubclass(one.category, T2VWarning):
                own.append((one.category, str(one.message)))
            else:
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        return _Outcome(result, tuple(own))
