"""Runs the initializer of a pool once in each worker, before its first item."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from anymap._host import forks, guarded, process_state
from anymap._serialize.share import Shared, share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

R = TypeVar("R")


class Initializer:
    """Prepares workers for the items of one pool. A worker is a thread that runs items.

    Workers outlive a pool and may serve several at once. Where the initializer of another pool has run last, it may have
    set the same globals, so this one runs again.
    """

    def __init__(self, call: Shared[Callable[[], object]]) -> None:
        self._call = call

    def before(self, func: Callable[..., R]) -> Callable[..., R]:
        """Return ``func``, to be called in workers that this has prepared."""
        return _Prepared(func, self)

    def prepare(self) -> None:
        """Prepare this worker, unless that is done. What the initializer raises is the error of the item."""
        served = process_state.served()
        if getattr(_here, "prepared_by", None) != self._call.key:
            before = process_state.of_this_process() if served else None
            self._run()
            _here.change = process_state.difference(before, process_state.of_this_process()) if before else None
            _here.prepared_by = self._call.key
        elif served != _here.served and _here.change is not None:
            # The map has begun in the caller's environment, as all do, and this one's has the pool's added.
            process_state.add(_here.change)
        _here.served = served

    def _run(self) -> None:
        try:
            self._call.get()()
        except Exception as exc:
            guarded.add_note(exc, "anymap: raised by the initializer, before the item")
            raise


def initializer(func: Callable[..., object] | None, args: Iterable[Any]) -> Initializer | None:
    """Return what prepares workers by ``func(*args)``; ``None`` where there is nothing to do.

    Raises:
        TypeError: ``func`` cannot be called, or ``args`` cannot be iterated over.
    """
    if func is None:
        return None
    if not callable(func):
        raise TypeError(
            f"initializer must be a function to call in each worker, not {func!r}; give a backend by keyword: backend=..."
        )
    return Initializer(share(partial(func, *args)))


class _Prepared(Generic[R]):
    """A function in a pool with an initializer."""

    def __init__(self, func: Callable[..., R], initializer: Initializer) -> None:
        self.__wrapped__ = func
        self._initializer = initializer

    def __call__(self, *args: Any) -> R:
        self._initializer.prepare()
        return self.__wrapped__(*args)

    def __repr__(self) -> str:
        return repr(self.__wrapped__)


_here = threading.local()


def _after_fork() -> None:
    global _here  # noqa: PLW0603 - the fork is another worker than the thread that made it
    _here = threading.local()


forks.in_child(_after_fork)
