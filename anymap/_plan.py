"""From arguments and settings to one plan. Checks everything, starts nothing."""

from __future__ import annotations

import operator
import re
import warnings
from typing import TYPE_CHECKING, Any

from anymap import _config, _cpus, _registry
from anymap._engine.plan import Plan, Retry
from anymap._errors import ConfigError, UnsupportedOption
from anymap._worker import depth
from anymap.backends.base import Backend
from anymap.progress import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anymap._config import Settings

_ON_ERROR = ("raise", "return", "skip", "group")
_PREFER = {"threads": "threads", "processes": "processes"}
_CONTAINERS: tuple[type, ...] = (
    list, tuple, range, str, bytes, bytearray, dict, set, frozenset, type({}.keys()), type({}.values()), type({}.items())
)  # fmt: skip
_DEFAULT = "processes"


def make_plan(func: Callable[..., Any], iterables: tuple[Iterable[Any], ...], **options: Any) -> Plan:
    """Check ``pmap``'s arguments and fill in what they leave open."""
    if not callable(func):
        raise TypeError(f"pmap needs a function to call, not {func!r}")
    if not iterables:
        raise TypeError("pmap needs at least one iterable: pmap(func, items)")
    for iterable in iterables:
        if not hasattr(iterable, "__iter__") and not hasattr(iterable, "__getitem__"):
            raise TypeError(f"pmap's arguments after the function must be iterables, not {type(iterable).__name__!r}")
    settings = _config.current()
    outer = depth.get()
    backend = _choose_backend(settings, options["backend"], options["prefer"], options["require"], outer)
    plan = Plan(
        func=func,
        star=len(iterables) > 1,
        prompt=all(map(_is_container, iterables)),
        backend=backend,
        workers=_workers(settings, options["workers"]),
        ordered=bool(options["ordered"]),
        lazy=bool(options["lazy"]),
        on_error=_one_of("on_error", options["on_error"], _ON_ERROR),
        max_failures=_max_failures(options["max_failures"]),
        retry=_retry(options["retries"]),
        timeout=_positive("timeout", options["timeout"]),
        chunksize=_count("chunksize", options["chunksize"]),
        window=_count("window", options["window"]),
        total=_total(options["total"], iterables),
        desc=options["desc"],
        sinks=tuple(resolve(_progress(settings, options["progress"]), outermost=outer == 0)),
        depth=outer,
    )
    _check_timeout(plan)
    return plan


def _choose_backend(settings: Settings, asked: Any, prefer: str | None, require: str | None, outer: int) -> Backend:
    if settings.force_backend:
        return _made(settings.force_backend, "ANYMAP_FORCE_BACKEND")
    if prefer is not None:
        _one_of("prefer", prefer, tuple(_PREFER))
    if require is not None:
        _one_of("require", require, ("shared_memory",))
    hint = "serial" if outer else _PREFER.get(prefer or "", _DEFAULT)
    # Inside a worker the environment's choice is for the outermost map: it has been followed already.
    chosen = asked if asked is not None else (None if outer else settings.backend)
    backend = _made(chosen, "backend") if chosen is not None else _made(hint, "backend")
    if require == "shared_memory" and not backend.traits.shares_memory:
        warnings.warn(
            f"this map needs shared memory, which backend {backend.name!r} has not: it runs in threads", stacklevel=4
        )
        return _made("threads", "require")
    return backend


def _made(backend: Any, where: str) -> Backend:
    if isinstance(backend, str):
        return _registry.find(backend)()
    if isinstance(backend, Backend):
        return backend.fresh()
    if isinstance(backend, type) and issubclass(backend, Backend):
        return backend()
    raise ConfigError(f"{where} must be a backend's name or an instance of one, not {backend!r}")


def _workers(settings: Settings, asked: Any) -> int | None:
    if asked is not None:
        return _cpus.count_workers(asked)
    return _cpus.count_workers(settings.workers, "ANYMAP_WORKERS")


def _progress(settings: Settings, asked: Any) -> Any:
    return asked if asked is not None else settings.progress


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        choices = ", ".join(map(repr, allowed))
        raise ConfigError(f"{name} must be one of {choices}, not {value!r}")
    return value


def _count(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < 1:
        raise ConfigError(f"{name} must be a whole number, 1 or more, not {value!r}")
    return int(value.__index__())


def _positive(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ConfigError(f"{name} must be a number of seconds above 0, not {value!r}")
    return float(value)


def _max_failures(value: Any) -> int | float | None:
    """A count; ``"5%"`` becomes a share below 1."""
    if value is None:
        return None
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value)):
        return float(match[1]) / 100
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"max_failures must be a count, 0 or more, or a share such as '5%', not {value!r}")
    return value


def _retry(value: Any) -> Retry:
    if isinstance(value, Retry):
        return value
    try:
        return Retry(value)
    except ValueError as exc:
        raise ConfigError(f"{exc}; or give a Retry(...)") from None


def _is_container(iterable: Any) -> bool:
    kind = type(iterable)
    return kind in _CONTAINERS or (kind.__module__, kind.__qualname__) == ("numpy", "ndarray")


def _total(asked: Any, iterables: tuple[Any, ...]) -> int | None:
    if asked is not None:
        return _whole("total", asked)
    try:
        return min(len(iterable) for iterable in iterables)
    except TypeError:
        return None


def _whole(name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if number < 0:
        raise ConfigError(f"{name} must be a whole number, 0 or more, not {value!r}")
    return number


def _check_timeout(plan: Plan) -> None:
    traits = plan.backend.traits
    if plan.timeout is None:
        return
    if traits.inline:
        warnings.warn(
            f"backend {plan.backend.name!r} cannot end an item: timeout={plan.timeout:g} is not enforced", stacklevel=4
        )
    elif traits.remote:
        raise UnsupportedOption(
            f"backend {plan.backend.name!r} cannot tell when an item began, so timeout= cannot be kept; "
            "'processes', 'pathos' and 'threads' can"
        )
