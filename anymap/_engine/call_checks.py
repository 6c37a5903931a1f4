"""What a map cannot be called with, and what newcomers may have meant."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from anymap._host import guarded, loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_ASYNC = 0x80 | 0x200
"""``inspect.CO_COROUTINE`` and ``CO_ASYNC_GENERATOR``: inspect takes longer to import than a small map to run."""
_ROWS = {
    "pandas": "df.itertuples(index=False) for its rows, df['name'] for a column, or list(df) for the names",
    "polars": "df.iter_rows() for its rows, df['name'] for a column, or df.get_columns() for all of them",
}


def check_call(func: Callable[..., Any], iterables: tuple[Iterable[Any], ...], name: str) -> None:
    """Raise a ``TypeError`` if ``name(func, *iterables)`` makes no sense."""
    check_callable(func, f"{name}'s first argument")
    if _is_async(func):
        raise TypeError(
            f"{name} cannot await, and {guarded.short_repr(func)} is a coroutine function: "
            "map a function that calls asyncio.run(...), or use asyncio.gather where it is called"
        )
    if not iterables:
        raise TypeError(f"{name} needs at least one iterable: {name}(func, items)")
    for position, iterable in enumerate(iterables, start=1):
        _check_iterable(iterable, position, name)


def check_callable(value: Any, name: str) -> None:
    """Raise a ``TypeError`` if what an argument called ``name`` was given cannot be called."""
    if not callable(value):
        raise TypeError(f"{name} must be a function to call, not {guarded.short_repr(value)}")


def _is_async(func: Any) -> bool:
    while isinstance(func, functools.partial):
        func = func.func
    for found in (func, getattr(func, "__func__", None), type(func).__call__):
        if (code := getattr(found, "__code__", None)) is not None:
            return bool(getattr(code, "co_flags", 0) & _ASYNC)
    return False


def _check_iterable(iterable: Any, position: int, name: str) -> None:
    if not hasattr(iterable, "__iter__") and not hasattr(iterable, "__getitem__"):
        raise TypeError(f"{name}'s iterable {position} is not iterable but of type {type(iterable).__name__!r}")
    for library, instead in _ROWS.items():
        frame = loaded.attribute(library, "DataFrame")
        if isinstance(frame, type) and isinstance(iterable, frame):
            raise TypeError(
                f"{name}'s iterable {position} is a data frame of {library}, which does not iterate over its rows: give {instead}"
            )


def hint_on_failure(exc: Exception, func: Callable[..., Any], row: Any, *, star: bool) -> str | None:
    """Return what the caller of a map may have meant whose item failed in this way; ``None`` if that is not known."""
    if type(exc).__name__ == "BdbQuit" and type(exc).__module__ == "bdb":
        return "a debugger has no terminal in a worker: set ANYMAP_FORCE_BACKEND=serial to use breakpoint()"
    if issubclass(type(exc), TypeError) and not star and isinstance(row, tuple | list) and _takes_it_spread(func, row):
        return (
            f"the function was called with one argument, a {type(row).__name__} of {len(row)}: "
            "pmap(func, *zip(*rows)) spreads rows over its arguments, as starmap does"
        )
    return None


def _takes_it_spread(func: Callable[..., Any], row: tuple[Any, ...] | list[Any]) -> bool:
    import inspect  # noqa: PLC0415 - only wanted where something has failed

    try:
        signature = inspect.signature(func)
    except (TypeError, ValueError):
        return False
    return not _binds(signature, (row,)) and _binds(signature, row)


def _binds(signature: Any, arguments: Iterable[Any]) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True
