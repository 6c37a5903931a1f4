"""From arguments and settings to one plan. Checks everything, starts nothing."""

from __future__ import annotations

import operator
import re
import warnings
from typing import TYPE_CHECKING, Any

from anymap import _config, _cpus, _exceptions, _registry, _report, _settings
from anymap._engine.plan import Plan, Retry
from anymap._errors import BackendUnavailable, ConfigError, UnknownBackend, UnsupportedOption
from anymap._worker import depth
from anymap.backends.base import Backend
from anymap.progress import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anymap._config import Settings
    from anymap.progress import Sink

_ON_ERROR = ("raise", "return", "skip", "group")
_PREFER = ("threads", "processes")
_CONTAINERS: tuple[type, ...] = (
    list, tuple, range, str, bytes, bytearray, dict, set, frozenset, type({}.keys()), type({}.values()), type({}.items())
)  # fmt: skip
_DEFAULT = "processes"


def make_plan(func: Callable[..., Any], iterables: tuple[Iterable[Any], ...], **options: Any) -> Plan:
    """Check ``pmap``'s arguments and fill in what they leave open."""
    if not callable(func):
        raise TypeError(f"pmap's first argument must be a function to call, not {_exceptions.safe_repr(func)}")
    if not iterables:
        raise TypeError("pmap needs at least one iterable: pmap(func, items)")
    for position, iterable in enumerate(iterables, start=1):
        if not hasattr(iterable, "__iter__") and not hasattr(iterable, "__getitem__"):
            raise TypeError(f"pmap's iterable {position} is not iterable but of type {type(iterable).__name__!r}")
    settings, surroundings = _config.current(), _settings.current()
    outer = depth.get()
    backend = _choose_backend(settings, options["backend"], options["prefer"], options["require"], outer)
    plan = Plan(
        func=func,
        star=len(iterables) > 1,
        prompt=all(map(_is_container, iterables)),
        backend=backend,
        workers=_workers(settings, options["workers"]),
        ordered=_flag("ordered", options["ordered"]),
        lazy=_flag("lazy", options["lazy"]),
        on_error=_one_of("on_error", options["on_error"], _ON_ERROR),
        max_failures=_max_failures(options["max_failures"]),
        retry=_retry(options["retries"]),
        timeout=_positive("timeout", options["timeout"]),
        chunksize=_count("chunksize", options["chunksize"]),
        window=_count("window", options["window"]),
        total=_total(options["total"], iterables),
        desc=_text("desc", options["desc"]),
        sinks=tuple(_sinks(settings, options["progress"], outer)),
        seed=_seed(options["seed"]),
        surroundings=surroundings,
        listeners=_report.listeners(backend.name, surroundings),
        depth=outer,
        show_items=_shows_items(settings),
    )
    _check_timeout(plan)
    _check_max_failures(plan)
    return plan


def _choose_backend(settings: Settings, asked: Any, prefer: str | None, require: str | None, outer: int) -> Backend:
    if prefer is not None:
        _one_of("prefer", prefer, _PREFER)
    if require is not None:
        _one_of("require", require, ("shared_memory",))
    if settings.force_backend:
        backend = _made_as_set("ANYMAP_FORCE_BACKEND", settings.force_backend)
    elif asked is not None:
        backend = _made(asked)
    elif settings.backend and not outer:  # it is for the outermost map, and has been followed there
        backend = _made_as_set("ANYMAP_BACKEND", settings.backend)
    else:
        backend = _made("serial" if outer else "threads" if require else prefer or _DEFAULT)
    if require == "shared_memory" and not backend.traits.shares_memory:
        warnings.warn(
            f"this map needs shared memory, which backend {backend.name!r} has not: it runs in threads", stacklevel=4
        )
        return _made("threads")
    return backend


def _made_as_set(variable: str, name: str) -> Backend:
    """Make the backend that a variable of the environment names; if there is none, say where the name stands."""
    try:
        return _made(name)
    except UnknownBackend as exc:
        raise ConfigError(f"{variable}={name!r}: {exc}") from None
    except BackendUnavailable as exc:
        exc.add_note(f"anymap: {variable}={name!r} asks for this backend")
        raise


def _made(backend: Any) -> Backend:
    if isinstance(backend, str):
        return _registry.find(backend)()
    if isinstance(backend, Backend):
        return backend.fresh()
    if isinstance(backend, type) and issubclass(backend, Backend):
        return backend()
    raise ConfigError(f"backend must be a backend's name or an instance of one, not {_exceptions.safe_repr(backend)}")


def _workers(settings: Settings, asked: Any) -> int | None:
    if asked is not None:
        return _cpus.count_workers(asked)
    return _cpus.count_workers(settings.workers, "ANYMAP_WORKERS")


def _sinks(settings: Settings, asked: Any, outer: int) -> list[Sink]:
    # What the environment says is for the outermost map: the bars of the inner ones would write across its own.
    if asked is not None or outer or settings.progress is None:
        return resolve(asked, outermost=outer == 0)
    try:
        return resolve(settings.progress)
    except ConfigError as exc:
        raise ConfigError(f"ANYMAP_PROGRESS: {exc}") from None


def _shows_items(settings: Settings) -> bool:
    return bool(_one_of("ANYMAP_SHOW_ITEMS", settings.show_items or "on", ("on", "off")) == "on")


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        choices = ", ".join(map(repr, allowed))
        raise ConfigError(f"{name} must be one of {choices}, not {value!r}")
    return value


def _seed(value: Any) -> int | None:
    return None if value is None else _whole("seed", value)


def _flag(name: str, value: Any) -> bool:
    # By value and not by type: a comparison of numpy's gives a bool of its own.
    if value not in (True, False):
        raise ConfigError(f"{name} must be True or False, not {value!r}")
    return bool(value)


def _text(name: str, value: Any) -> str | None:
    if not isinstance(value, str | None):
        raise ConfigError(f"{name} must be a string, not {value!r}")
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
        if (share := float(match[1]) / 100) <= 1:
            return share
    elif not isinstance(value, bool) and hasattr(value, "__index__") and value.__index__() >= 0:
        return int(value.__index__())
    raise ConfigError(f"max_failures must be a count, 0 or more, or a share up to '100%', such as '5%', not {value!r}")


def _retry(value: Any) -> Retry:
    if isinstance(value, Retry):
        return value
    try:
        return Retry(value)
    except ConfigError as exc:
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


def _check_max_failures(plan: Plan) -> None:
    if plan.max_failures is not None and plan.on_error == "raise":
        raise ConfigError(
            "max_failures has no meaning with on_error='raise', which ends the map at the first failure: "
            "add on_error='return', 'skip' or 'group'"
        )


def _check_timeout(plan: Plan) -> None:
    traits = plan.backend.traits
    if plan.timeout is None:
        return
    if traits.inline:
        warnings.warn(
            f"backend {plan.backend.name!r} cannot end an item: timeout={plan.timeout:g} is not enforced", stacklevel=4
        )
    elif traits.remote and not traits.live:
        raise UnsupportedOption(
            f"backend {plan.backend.name!r} cannot tell when an item began, so timeout= cannot be kept; "
            "'processes', 'pathos', 'dask' and 'threads' can"
        )
