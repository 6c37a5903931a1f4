"""Errors rise from the function that the caller has called, in one frame, and go on in the caller's own code."""

from __future__ import annotations

import functools
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from anymap._errors import AnymapError
from anymap._host import guarded
from anymap._serialize.exceptions import users_part

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")

_MEANT = (AnymapError, TypeError, CancelledError)
"""Errors of this package that tell all there is to know by their text."""


def without_ours(exc: BaseException) -> BaseException:
    """Return ``exc`` with a traceback that begins in the user's code.

    Where that is nowhere, nothing is left; but of what is none of this package's errors nor an item's, all is: it is to
    be reported.
    """
    begin, kind = users_part(guarded.get(exc, "__traceback__")), type(exc)
    is_meant = issubclass(kind, _MEANT) or not issubclass(kind, Exception) or guarded.mark_of(exc) is not None
    if begin is not None or is_meant:
        guarded.put(exc, "__traceback__", begin)
    return exc


def in_one_frame(func: Callable[P, R]) -> Callable[P, R]:
    """Have errors rise from ``func`` in one frame, which IPython and pytest leave out where they show the user's."""

    @functools.wraps(func, assigned=(*functools.WRAPPER_ASSIGNMENTS, "__kwdefaults__"))
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return func(*args, **kwargs)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it is raised
            __tracebackhide__ = True
            raise without_ours(exc)  # noqa: B904 - it is the same

    code = call.__code__  # type: ignore[attr-defined]
    call.__code__ = code.replace(co_name=func.__name__, co_qualname=func.__qualname__)  # type: ignore[attr-defined]
    return call
