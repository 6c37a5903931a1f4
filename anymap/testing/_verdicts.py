"""What an examination says: a promise was kept, it was broken and how, or it does not apply."""

from __future__ import annotations

import reprlib
import unittest
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

Verdict = Literal["kept", "broken", "not applicable"]


class PromiseBroken(AssertionError):  # noqa: N818 - it says what became of a promise, not that the exam erred
    """The backend did not do what the contract says."""


class Outcome(NamedTuple):
    """What came of one promise."""

    promise: str
    verdict: Verdict
    detail: str
    """How it was broken, or why it does not apply to this backend; empty if it was kept."""

    def __str__(self) -> str:
        return f"{self.verdict:14}  {self.promise}{': ' if self.detail else ''}{self.detail}"


def applies_if(condition: object, otherwise: str) -> None:
    """End the test where the promise is none of this backend's. pytest, too, takes it for skipped."""
    if not condition:
        raise unittest.SkipTest(otherwise)


def fail(why: str) -> NoReturn:
    raise PromiseBroken(why)


def expect(condition: object, otherwise: str) -> None:
    # No assert: the exam must not depend on whether Python was started with -O.
    if not condition:
        fail(otherwise)


def expect_equal(got: Any, wanted: Any, what: str) -> None:
    if got != wanted:
        fail(f"{what}: expected {brief(wanted)}, got {brief(got)}{_difference(got, wanted)}")


def expect_raises(kind: type[BaseException], call: Callable[[], object]) -> Any:
    """Return what ``call`` raises."""
    try:
        result = call()
    except kind as exc:
        return exc
    except Exception as exc:
        message = f"expected {kind.__qualname__}, got {type(exc).__qualname__}: {exc}"
        raise PromiseBroken(message) from exc
    fail(f"expected {kind.__qualname__}, got the result {brief(result)}")


def brief(value: object) -> str:
    return _short.repr(value)


def _difference(got: Any, wanted: Any) -> str:
    if isinstance(got, dict) and isinstance(wanted, dict):
        different = {key: got.get(key) for key in wanted if got.get(key) != wanted[key]}
        return f"; different is {brief(different)}"
    if not isinstance(got, list) or not isinstance(wanted, list):
        return ""
    if len(got) != len(wanted):
        return f", which are {len(got)} results instead of {len(wanted)}"
    index = next(index for index, pair in enumerate(zip(got, wanted, strict=True)) if pair[0] != pair[1])
    return f"; the first difference is at {index}: {brief(got[index])}"


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 100
