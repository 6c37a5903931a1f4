"""The exam that every backend sits, as a class for pytest and as a function."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    tell: Callable[[Outcome], object] | None = None,
) -> Report:
    """Sit the exam without pytest.

    It takes between some seconds and a minute, and ends all that this process keeps warm for its maps. Each promise
    must be kept within ``patience`` seconds. ``tell`` is called with each outcome as it comes.

    The program ``anymap check-backend`` does this for a backend's name.

    >>> from anymap.testing import examine
    >>> examine("serial").broken
    []
    """
    candidate, limit = backend, patience

    class Sitting(BackendSuite):
        backend = candidate
        patience = limit

    refuse_to_examine_another()
    sitting = Sitting()
    for name in _tests():
        # What it raises is in its outcome.
        with suppress(Exception):
            getattr(sitting, name)()
        if tell is not None:
            tell(Sitting.outcomes[promise_of(name)])
    return Report(tuple(Sitting.outcomes.values()))


def all_promises() -> list[str]:
    """Return the promises in the order in which they are examined."""
    return [promise_of(name) for name in _tests()]


def _tests() -> list[str]:
    return [name for part in BackendSuite.__bases__ for name in vars(part) if name.startswith("test_")]
