"""`Source`: the data set behind a checkpoint, its own or that of the base model it was fine-tuned from.

Most cards of fine-tuned checkpoints name no data set that others could measure. What such a checkpoint
learned first is still known where the card of its base model says it. Rows of base models are fetched by
the caller, who holds the connection::

    known: dict[str, Facts | None] = {}
    for _ in range(MAX_STEPS):
        if not (wanted := missing_bases(facts, known)[:limit]):
            break
        known.update(fetch(wanted))  # under the ids that were asked for; None where there is nothing
    groups = group_by_data_set(facts, known)
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from t2v_hub.hub.facts import Facts

MAX_STEPS = 8  # base model of a base model of ...; real chains have two or three
_MAX_VISITS = 256  # checkpoints looked at for one: lists of base models branch
_NOTHING: Mapping[str, Facts | None] = MappingProxyType({})


@dataclass(frozen=True)
class Source:
    """The data set behind a checkpoint.

    Attributes:
        data_set: Its id.
        role: ``finetune`` for an own data set of a checkpoint that has a base model, ``pretrain`` for
            one known through a base model and for that of a checkpoint without one.
        through: Base model whose card names it; None where the checkpoint's own card does.
        steps: How many base models lie between; 0 where the checkpoint's own card names it.
        n_missing: Base models that were met before it and of which nothing is known: with them, the
            source could be another one.
        private: Whether the way to it leads through the card of a base model that only some may see.
    """

    data_set: str
    role: Literal["finetune", "pretrain"]
    through: str | None = None
    steps: int = 0
    n_missing: int = 0
    private: bool = False


@dataclass(frozen=True)
class Groups:
    """Checkpoints by the data set behind them.

    Attributes:
        by_data_set: Ids of the checkpoints by that of their data set, the largest group first. Of
            several spellings of a data set, the most frequent one stands for all.
        without: Why a checkpoint has no data set, in words, by its id.
        n_through_base: How many checkpoints are in a group through a base model.
        n_missing: Of how many base models that were looked for nothing is known.
        missing: Which ones these are, by the checkpoint that needs them; with them, its data set could be
            another one.
    """

    by_data_set: Mapping[str, tuple[str, ...]]
    without: Mapping[str, str]
    n_through_base: int
    n_missing: int = 0
    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Known(Mapping[str, Facts | None]):
    """Facts by checkpoint id, in any case; None where the Hub has no such checkpoint.

    Args:
        facts: Each is found by its own id.
        known: Each is found by its key, such as the old name of a renamed checkpoint, and its own id.
    """

    def __init__(self, facts: Iterable[Facts] = (), known: Mapping[str, Facts | None] = _NOTHING) -> None:
        self._facts: dict[str, Facts | None] = {}
        for each in facts:
            self._facts.setdefault(each.id.casefold(), each)
        for id, found in known.items():
            for name in (id, found.id) if found else (id,):
                if self._facts.get(name.casefold()) is None:
                    self._facts[name.casefold()] = found

    def __getitem__(self, id: str) -> Facts | None:
        return self._facts[id.casefold()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)


@dataclass(frozen=True)
class _Walk:
    """Where a walk over base models led: to a source, or to its end, past what is missing."""

    source: Source | None
    missing: tuple[str, ...] = ()
    reason: str = ""


def training_data_set(facts: Facts, known: Mapping[str, Facts | None]) -> Source | None:
    """The data set behind a checkpoint; None where no card within reach names one.

    Its own data set comes first; without one, that of the nearest base model, at most `MAX_STEPS` away.
    Only finetunes inherit: a merge has no single past, and neither a quantized copy nor an adapter is a
    checkpoint of its own to fine-tune. A cycle ends the walk.

    Args:
        facts: What the listing says of the checkpoint.
        known: Facts of base models. For many checkpoints, a `Known` saves making one each time.
    """
    return _walk(facts, known if isinstance(known, Known) else Known(known=known)).source


def missing_bases(facts: Facts | Iterable[Facts], known: Mapping[str, Facts | None]) -> tuple[str, ...]:
    """Base models whose rows must be fetched to find a data set, the most wanted first.

    Args:
        facts: Checkpoints to find a data set for; those that name one want nothing.
        known: Facts of base models; None for one that was asked for and does not exist.
    """
    each = (facts,) if isinstance(facts, Facts) else tuple(facts)
    index = Known(each, known)
    wanted: Counter[str] = Counter()
    spelled: dict[str, str] = {}
    for one in each:
        for base in _walk(one, index).missing:
            if base in index:  # asked for before, and not there
                continue
            wanted[base.casefold()] += 1
            spelled.setdefault(base.casefold(), base)
    return tuple(spelled[folded] for folded, _ in wanted.most_common())


def group_by_data_set(facts: Iterable[Facts], known: Mapping[str, Facts | None] = _NOTHING) -> Groups:
    """Checkpoints by the data set behind them, as `training_data_set` finds it.

    Args:
        facts: The checkpoints, who may also be each other's base models; of one that a listing
            repeats, the first counts.
        known: Facts of further base models.
    """
    first: dict[str, Facts] = {}
    for one in facts:
        first.setdefault(one.id.casefold(), one)
    index = Known(first.values(), known)
    members: dict[str, list[str]] = {}
    spellings: dict[str, Counter[str]] = {}
    without: dict[str, str] = {}
    missing: dict[str, tuple[str, ...]] = {}
    n_through_base = 0
    for one in first.values():
        walk = _walk(one, index)
        if walk.missing:
            missing[one.id] = walk.missing
        if walk.source is None:
            without[one.id] = walk.reason
            continue
        folded = walk.source.data_set.casefold()
        members.setdefault(folded, []).append(one.id)
        spellings.setdefault(folded, Counter())[walk.source.data_set] += 1
        n_through_base += walk.source.through is not None
    largest_first = sorted(members, key=lambda folded: -len(members[folded]))
    groups = {spellings[folded].most_common(1)[0][0]: tuple(members[folded]) for folded in largest_first}
    n_missing = len({base.casefold() for bases in missing.values() for base in bases})
    return Groups(groups, without, n_through_base, n_missing, missing)


def _walk(facts: Facts, known: Known) -> _Walk:
    """Go from base model to base model, the nearest first, until one names a data set."""
    if facts.datasets:
        return _Walk(Source(facts.datasets[0], "finetune" if facts.base_models else "pretrain"))
    seen = {facts.id.casefold()}
    missing: list[str] = []
    behind_private: set[str] = set()  # base models that are private, or that only private ones led to
    level, steps = [facts], 0
    while level and steps < MAX_STEPS and len(seen) < _MAX_VISITS:
        steps += 1
        above: list[Facts] = []
        for one, base in _bases(level):
            if base.casefold() in seen or len(seen) >= _MAX_VISITS:
                continue
            seen.add(base.casefold())
            found = known.get(base)
            if found is None:
                missing.append(base)
                continue
            private = found.private or one.id in behind_private
            if found.datasets:
                source = Source(found.datasets[0], "pretrain", found.id, steps, len(missing), private)
                return _Walk(source, tuple(missing))
            if private:
                behind_private.add(found.id)
            above.append(found)
        level = above
    return _Walk(None, tuple(missing), _reason(facts, missing, cut=any(_bases(level))))


def _bases(level: Iterable[Facts]) -> Iterator[tuple[Facts, str]]:
    """Checkpoints and what they were trained on top of; the Hub takes an unsaid relation for that."""
    for one in level:
        if one.relation in (None, "finetune"):
            for base in one.base_models:
                yield one, base


def _reason(facts: Facts, missing: list[str], *, cut: bool) -> str:
    if not facts.base_models:
        return "its card names neither a data set nor a base model"
    bases = ", ".join(map(repr, facts.base_models[:3])) + (", ..." if len(facts.base_models) > 3 else "")
    if facts.relation not in (None, "finetune"):
        return (
            f"its card names no data set, and its relation to {bases} is {facts.relation!r}, not a finetune"
        )
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        return f"its card names no data set, and nothing is known of the base model {missing[0]!r}{more}"
    if cut:
        return f"its card names no data set, nor does one of the {MAX_STEPS} base models before it"
    return (
        f"its card names no data set, nor does that of its base model {bases}, as far as it can be followed"
    )
