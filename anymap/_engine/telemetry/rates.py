"""How long the items of a function took in the last map: the next one need not begin with nothing."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from types import CodeType
from typing import TYPE_CHECKING, Any

from anymap._engine.sizing import RateEstimate
from anymap._host import forks

if TYPE_CHECKING:
    from collections.abc import Callable

_KEPT = 64
"""Functions."""

_lock = forks.Lock()
_rates: OrderedDict[tuple[str, CodeType], RateEstimate] = OrderedDict()

_speeds: OrderedDict[tuple[str, CodeType], float] = OrderedDict()


def recall(backend: str, func: Callable[..., Any]) -> RateEstimate:
    """Return the rate estimate to begin with."""
    code = _code(func)
    with _lock:
        known = _rates.get((backend, code)) if code is not None else None
    return RateEstimate() if known is None else known.for_next_map()


def remember(backend: str, func: Callable[..., Any], rate: RateEstimate) -> None:
    """Keep what a map has measured."""
    code = _code(func)
    if code is None or rate.mean is None or rate.last is not None:
        # Nothing was sent, or nothing came back.
        return
    with _lock:
        _rates[backend, code] = rate
        _rates.move_to_end((backend, code))
        while len(_rates) > _KEPT:
            _rates.popitem(last=False)


def note_speed(backend: str, func: Callable[..., Any], seconds: float) -> None:
    """Keep how many seconds an item of a whole map took, by the wall clock and with whatever else the map did."""
    code = _code(func)
    if code is None:
        return
    with _lock:
        _speeds[backend, code] = seconds
        _speeds.move_to_end((backend, code))
        while len(_speeds) > _KEPT:
            _speeds.popitem(last=False)


def slower_backends(func: Callable[..., Any], seconds: float) -> set[str]:
    """Return the backends on which an item of this function took no less than so many seconds when it last ran there."""
    code = _code(func)
    with _lock:
        return {backend for (backend, known), took in _speeds.items() if known == code and took >= seconds}


def _code(func: Callable[..., Any]) -> CodeType | None:
    """Return what ``func`` has in common with others that do the same: a lambda is made anew for each map."""
    while isinstance(func, partial):
        func = func.func
    for found in (func, getattr(func, "__func__", None), type(func).__call__):
        if isinstance(code := getattr(found, "__code__", None), CodeType):
            return code
    return None
