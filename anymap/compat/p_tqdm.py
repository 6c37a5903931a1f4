"""The six functions of p_tqdm 1.4, on whatever backend the user has chosen.

>>> from anymap.compat.p_tqdm import p_map
>>> p_map(str.upper, ["a", "b"], disable=True)
['A', 'B']

Change the import and leave the calls as they are. What differs is told on the page "Come from p_tqdm" of the
documentation. New code is better served by :func:`anymap.pmap`, which is all six in one.

Besides the iterables, each function takes

* ``total``: how many items the bar shall expect, where the iterables cannot tell;
* ``desc``: what stands before the bar;
* ``tqdm``: the class of the bar;
* any other keyword of ``tqdm``, such as ``disable``, ``leave``, ``position``, ``file`` or ``unit``.

The four that begin with ``p_`` also take ``num_cpus``: how many workers, as an ``int`` of at least 1, or as a ``float``
that is a share of the CPUs this process may use (``0.5``: half of them, rounded, but one at least). Left out: what is
configured.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterable, Sized
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar

from anymap._engine.raising import in_one_frame
from anymap._host import cpus
from anymap._map import pmap
from anymap._serialize.failures import failure

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["p_imap", "p_map", "p_uimap", "p_umap", "t_imap", "t_map"]


def __dir__() -> list[str]:
    return sorted(__all__)


R = TypeVar("R")


@in_one_frame
def p_map(
    function: Callable[..., R], *iterables: Iterable[Any], num_cpus: SupportsIndex | float | None = None, **bar: Any
) -> list[R]:
    """Map in parallel with a bar; return the results in the order of the items.

    >>> p_map(lambda a, b: a + b, ["1", "2", "3"], ["a", "b", "c"], disable=True)
    ['1a', '2b', '3c']
    """
    return _listed(function, iterables, bar, workers=_workers(num_cpus))


@in_one_frame
def p_umap(
    function: Callable[..., R], *iterables: Iterable[Any], num_cpus: SupportsIndex | float | None = None, **bar: Any
) -> list[R]:
    """Map in parallel with a bar; return the results in the order in which they were finished."""
    return _listed(function, iterables, bar, workers=_workers(num_cpus), ordered=False)


def p_imap(
    function: Callable[..., R], *iterables: Iterable[Any], num_cpus: SupportsIndex | float | None = None, **bar: Any
) -> Generator[R]:
    """Map in parallel with a bar; yield the results in the order of the items.

    Nothing runs and no bar is drawn before the first result is asked for.
    """
    _check(iterables)
    return _yielded(function, iterables, bar, workers=_workers(num_cpus))


def p_uimap(
    function: Callable[..., R], *iterables: Iterable[Any], num_cpus: SupportsIndex | float | None = None, **bar: Any
) -> Generator[R]:
    """Map in parallel with a bar; yield each result as soon as it is there.

    Nothing runs and no bar is drawn before the first result is asked for.
    """
    _check(iterables)
    return _yielded(function, iterables, bar, workers=_workers(num_cpus), ordered=False)


@in_one_frame
def t_map(function: Callable[..., R], *iterables: Iterable[Any], **bar: Any) -> list[R]:
    """Map one item after another in this thread, with a bar; return the results."""
    return _listed(function, iterables, bar, backend="serial")


def t_imap(function: Callable[..., R], *iterables: Iterable[Any], **bar: Any) -> Generator[R]:
    """Map one item after another in this thread, with a bar; each item is run when its result is asked for."""
    _check(iterables)
    return _yielded(function, iterables, bar, backend="serial")


def _listed(
    function: Callable[..., R], iterables: tuple[Iterable[Any], ...], bar: dict[str, Any], **options: Any
) -> list[R]:
    _check(iterables)
    results: list[R] = pmap(function, *iterables, **_shown(iterables, bar), **options)
    return results


def _yielded(
    function: Callable[..., R], iterables: tuple[Iterable[Any], ...], bar: dict[str, Any], **options: Any
) -> Generator[R]:
    # on_error="raise" would end the map at once; with p_tqdm, what comes before the failed item is handed out first.
    with pmap(function, *iterables, lazy=True, on_error="return", **_shown(iterables, bar), **options) as results:
        for index, result in results.indexed():
            if _is_failure(result, index):
                raise result
            yield result


def _is_failure(result: Any, index: int) -> bool:
    # A function may well return exceptions; only that of this very item has its index on it.
    found = failure(result) if isinstance(result, Exception) else None
    return found is not None and found.index == index


def _check(iterables: tuple[object, ...]) -> None:
    for position, candidate in enumerate(iterables, start=1):
        if not (isinstance(candidate, Iterable) or hasattr(candidate, "__getitem__")):
            raise TypeError(
                f"argument {position} after the function is not iterable but of type {type(candidate).__name__!r}; "
                "to give every call the same value, bind it with functools.partial"
            )


def _shown(iterables: tuple[Iterable[Any], ...], bar: dict[str, Any]) -> dict[str, Any]:
    """Sort a call's keywords into what ``pmap`` asks of a bar: ``total``, ``desc`` and ``progress``."""
    look = dict(bar)
    total = look.pop("total", None) or _shortest(iterables)
    desc = look.pop("desc", None)
    kind = _bar_class(look.pop("tqdm")) if "tqdm" in look else None
    return {"total": total, "desc": desc, "progress": functools.partial(kind, **look) if kind else look}


def _bar_class(kind: Any) -> Any:
    from tqdm.std import tqdm  # noqa: PLC0415 - a caller that names no class may not need tqdm

    made = kind.func if isinstance(kind, functools.partial) else kind
    if not (isinstance(made, type) and issubclass(made, tqdm)):
        raise TypeError(f"tqdm={kind!r} is not a subclass of tqdm.tqdm: the map drives the bar, it wraps nothing")
    return kind


def _shortest(iterables: tuple[Iterable[Any], ...]) -> int | None:
    return min((len(each) for each in iterables if isinstance(each, Sized)), default=None)


def _workers(num_cpus: SupportsIndex | float | None) -> int | None:
    if num_cpus is None:
        return None
    if isinstance(num_cpus, float):
        return _share(num_cpus)
    if (workers := operator.index(num_cpus)) < 1:
        raise ValueError(f"num_cpus={num_cpus} is less than one worker")
    return workers


def _share(num_cpus: float) -> int:
    if not 0 < num_cpus < math.inf:
        raise ValueError(f"num_cpus={num_cpus} is no share of the CPUs; 1.0 stands for all of them")
    # p_tqdm counts the machine's CPUs. Ours may be fewer, and a share that was good there must not become none here.
    return max(1, round(num_cpus * cpus.available()))
