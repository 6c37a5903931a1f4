"""What is measured: some work with an answer that can be checked, and those who compete at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from benchmarks import work

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

Params: TypeAlias = SimpleNamespace
"""The numbers of a workload: how many items, how many workers."""
Function: TypeAlias = Callable[[Any], Any]
Run: TypeAlias = Callable[[Function, Sequence[Any]], Any]
"""Maps a function over items and returns the answer, or :class:`Measured`."""
Role = Literal["anymap", "tuned", "untuned", "by hand", "reference"]
"""``"by hand"``: a program that does for itself what a library could do. ``"reference"``: not a peer, but something to
compare with, such as what the ideal is computed from. Neither is the best peer of a row."""


@dataclass(frozen=True)
class Job:
    """What is to be done."""

    func: Function
    items: Sequence[Any]
    workers: int = 2
    plain: Function | None = None
    """The same function for those who cannot take a closure."""
    warm_up: Sequence[tuple[Function, Sequence[Any]]] = ()
    """What to map before each run that counts, instead of some of the items themselves."""
    chunksize: int = 1
    """As tuned by hand for one contender; see :class:`Contender`."""
    params: Params = field(default_factory=Params)


How: TypeAlias = "Callable[[Job], AbstractContextManager[Run]]"
"""Gets ready for a job, and gives what does a map, as a context manager; its end puts everything away."""


@dataclass(frozen=True)
class Measured:
    """An answer whose time the contender has taken itself, with other figures."""

    answer: Any
    seconds: float
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Contender:
    """Somebody's way to do a job. What ``how`` does before it gives a function, such as imports, is not measured."""

    name: str
    how: How
    role: Role = "tuned"
    chunksize: int = 1
    plain: bool = False
    """Cannot take a closure, and gets the job's plain function."""


@dataclass(frozen=True)
class Workload:
    """One row of the table."""

    name: str
    title: str
    job: Callable[[Params], Job]
    check: Callable[[Params, Any], bool]
    """Tell whether an answer is right."""
    contenders: Sequence[Contender]
    params: Mapping[str, float]
    quick: Mapping[str, float] = field(default_factory=dict)
    """Instead of some of ``params``, for a run that only shows that everything works."""
    ideal: Callable[[Params, Mapping[str, float]], float] | None = None
    """The time that nobody can beat, from the parameters and the references' medians by name, in seconds."""
    show: Callable[[Params, float], str] = lambda _, seconds: f"{seconds:.2f} s"
    """Say in the table's words what came of so many seconds."""
    target: str = ""
    """What anymap is to reach."""
    note: str = ""
    """What the reader of the page has to know of this row."""
    warm_up: int = 20
    """Items of a run before each one that counts; 0: that one is the first."""
    keep: bool = False
    """A contender's process lives from the first round to the last, not for one round."""
    memory: bool = False
    """Have one more round, untimed, to measure the peak of memory."""
    patience: float = 60.0
    """Seconds after which a run is taken for one that never ends."""
    hidden: bool = False
    """Only for the curves."""

    def settle(self, *, quick: bool, turns_per_second: int, **changed: float) -> Params:
        """Return the parameters of a run."""
        known = {**self.params, **(self.quick if quick else {}), "turns_per_second": turns_per_second}
        return Params(**{**known, **changed})

    def contender(self, name: str) -> Contender:
        return next(one for one in self.contenders if one.name == name)


def same(wanted: Callable[[Params], Sequence[Any]]) -> Callable[[Params, Any], bool]:
    """Return a check for these answers in any order."""
    return lambda params, answer: sorted(answer) == sorted(wanted(params))


def everybody(workers: int) -> tuple[Function, Sequence[float]]:
    """Return a map that keeps all workers busy until the last one is there."""
    return work.sleep, [0.02] * 20 * workers


def rate(what: str, amount: str = "items") -> Callable[[Params, float], str]:
    """Show how many are done in a second."""
    return lambda params, seconds: f"{_short(getattr(params, amount) / seconds)} {what}/s"


def milliseconds(each: str = "", amount: str = "") -> Callable[[Params, float], str]:
    """Show milliseconds, if asked for those of ``each`` one of so many."""
    unit = f"ms {each}".strip()
    return lambda params, seconds: f"{_short(1000 * seconds / (getattr(params, amount) if amount else 1))} {unit}"


def _short(number: float) -> str:
    for size, letter in (1e6, "M"), (1e3, "k"):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"
