"""The exam that every backend sits, as a class for pytest and as a function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anymap.backends import _registry
from anymap.testing import _child
from anymap.testing._contract import Contract
from anymap.testing._errors import Errors
from anymap.testing._exam import promise_of, refuse_to_examine_another
from anymap.testing._functions import Functions
from anymap.testing._leaving import Leaving
from anymap.testing._maps import Maps
from anymap.testing._traits import Declarations
from anymap.testing._verdicts import Outcome, PromiseBroken

if TYPE_CHECKING:
    from collections.abc import Callable

    from anymap.backends.base import Backend

__all__ = ["BackendSuite", "Outcome", "PromiseBroken", "Report", "all_promises", "examine"]


class BackendSuite(Maps, Functions, Errors, Contract, Declarations, Leaving):
    """Everything a backend promises, with a test for each promise.

    Two lines sit the exam::

        class TestToy(BackendSuite):
            backend = "toy"

    What a backend does is held against the traits it declares: promises that do not apply to it are skipped. Nothing
    here hangs, whatever the backend does: a promise that is not kept within ``patience`` seconds is broken. Where a
    fixture has to make the backend, it sets ``self.backend``.
    """


@dataclass(frozen=True, slots=True)
class Report:
    """What came of an exam; as text, a line for each promise and one that counts them."""

    outcomes: tuple[Outcome, ...]

    @property
    def kept(self) -> list[str]:
        """The promises that the backend kept."""
        return self._of("kept")

    @property
    def broken(self) -> list[str]:
        """The promises that it broke; none, if it has passed."""
        return self._of("broken")

    @property
    def not_applicable(self) -> list[str]:
        """The promises that a backend with these traits does not make."""
        return self._of("not applicable")

    def __str__(self) -> str:
        lines = [str(outcome) for outcome in self.outcomes]
        counts = f"{len(self.kept)} kept, {len(self.broken)} broken, {len(self.not_applicable)} not applicable"
        return "\n".join([*lines, f"{len(self.outcomes)} promises: {counts}"])

    def _of(self, verdict: str) -> list[str]:
        return [outcome.promise for outcome in self.outcomes if outcome.verdict == verdict]


def examine(
    backend: str | Backend | type[Backend],
    *,
    patience: float = 30.0,
    startup: float = 60.0,
    own_process: bool = True,
    tell: Callable[[Outcome], object] | None = None,
) -> Report:
    """Sit the exam without pytest, in a process of its own.

    It takes between some seconds and a minute. A promise during which that process is ended, by a crash of the engine's, is
    broken; another process goes on with the next. The class travels to it by name or by value, an instance as a copy.

    Args:
        backend: The candidate: its name, its class, or an instance with options.
        patience: Seconds within which each promise must be kept; three times what the engine takes to start comes on top.
            After three promises that have used up their time, the others have a tenth of it.
        startup: Seconds that the engine may take to start.
        own_process: ``False``: in this process, for an engine that it is part of, as with a rank of an MPI job. A crash ends it.
        tell: Called with each outcome as it comes.

    Raises:
        UnknownBackend: No backend has that name.
        ConfigError: The candidate cannot be sent to another process.

    The program ``anymap check-backend`` does this for a backend's name.

    >>> from anymap.testing import examine
    >>> examine("serial").broken
    []
    """
    refuse_to_examine_another()
    candidate = _registry.find(backend) if isinstance(backend, str) else backend
    found = []
    sitting, tests = _child.Sitting(candidate, patience, startup), _tests()
    for outcome in _child.outcomes(sitting, tests) if own_process else _child.outcomes_here(sitting, tests):
        found.append(outcome)
        if tell is not None:
            tell(outcome)
    return Report(tuple(found))


def all_promises() -> list[str]:
    """Return the promises in the order in which they are examined."""
    return [promise_of(name) for name in _tests()]


def _tests() -> list[str]:
    return [name for part in BackendSuite.__bases__ for name in vars(part) if name.startswith("test_")]
