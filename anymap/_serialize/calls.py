"""What an ``Executor`` and a ``Pool`` send to workers, which need to import no more than this."""

from __future__ import annotations

import functools
import reprlib
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

R = TypeVar("R")


class Call(functools.partial[R]):
    """One call. Travels as what it is made of, so that workers need not know of it."""

    def __repr__(self) -> str:
        parts = [reprlib.repr(arg) for arg in self.args]
        parts += [f"{name}={reprlib.repr(value)}" for name, value in self.keywords.items()]
        return f"{getattr(self.func, '__qualname__', None) or reprlib.repr(self.func)}({', '.join(parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial, (self.func,), (self.func, self.args, self.keywords or None, None)


def each(func: Callable[[Any], R], items: Iterable[Any]) -> list[R]:
    return [func(item) for item in items]


def each_spread(func: Callable[..., R], rows: Iterable[Iterable[Any]]) -> list[R]:
    return [func(*row) for row in rows]
