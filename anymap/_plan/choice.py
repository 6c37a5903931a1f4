"""Which backend a map runs on, made with its options, and how many workers it asks for."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

from anymap._config import checks
from anymap._config.layers import NotPassedOn
from anymap._engine.callers import callers_level
from anymap._errors import BackendUnavailable, ConfigError, UnknownBackend, UnsupportedOption
from anymap._hints import did_you_mean
from anymap._host import cpus, green_threads, guarded
from anymap._plan import live
from anymap.backends import _registry
from anymap.backends.base import Backend

if TYPE_CHECKING:
    from types import FrameType

    from anymap._config.layers import Config
    from anymap._config.values import Layer, Value

_DEFAULT = "processes"
_BY_THE_CALL, _BY_DEFAULT = "the call", "the default"
_RUNS_ITEMS, _LOADERS = "anymap._worker.items", ("importlib._bootstrap", "anymap._serialize.packing")
"""The modules whose frames stand around an item, and around what is loaded for it."""
_check_prefer = checks.one_of("threads", "processes")
_check_require = checks.one_of("shared_memory")


def choose(config: Config, asked: Any, prefer: str | None, require: str | None) -> tuple[Backend, str]:
    """Return the backend, not yet open, and what chose it. What the map requires beats every wish."""
    if prefer is not None:
        _check_prefer("prefer", prefer)
    if require is not None:
        _check_require("require", require)
    backend, reason = _chosen(config, asked, "threads" if require else prefer)
    if require == "shared_memory" and not backend.traits.shares_memory:
        warnings.warn(
            f"this map needs shared memory, which backend {backend.name!r} has not: it runs in threads",
            stacklevel=callers_level(),
        )
        backend, reason = made(config, "threads"), "require='shared_memory'"
    if not backend.traits.shares_memory and (library := green_threads.patched_by()):
        raise UnsupportedOption(
            f"backend {backend.name!r} waits for its workers in threads, and {library} has patched what they wait with, which "
            "freezes the program: use backend 'threads' or 'serial', or map in a program that is not patched"
        )
    backend.inner_threads = _inner_threads(config)
    backend.idle_timeout = config.value("idle_timeout")
    return backend, reason


def _chosen(config: Config, asked: Any, hint: str | None) -> tuple[Backend, str]:
    if config.inherited is not None and _is_loading():
        return made(config, "serial"), "a module or an object is being loaded inside of a map"
    if config.force_backend is not None:
        return _made_as_said(config, config.force_backend), config.force_backend.origin
    if asked is not None:
        return made(config, asked), _BY_THE_CALL
    said = config.said("backend")
    if said is not None:
        return _made_as_said(config, said), said.origin
    if config.inherited is None or config.inherited.nested == "inherit":
        return made(config, hint or _DEFAULT), "a library's hint" if hint else _BY_DEFAULT
    return made(config, config.inherited.nested), f"nested={config.inherited.nested!r}, as this is inside of a map"


def _is_loading() -> bool:
    """Tell whether this map begins while the map around it imports a module, or loads what it was sent.

    Each worker does so: workers that it started would load the same, and start others, without end.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None and (module := frame.f_globals.get("__name__")) != _RUNS_ITEMS:
        if module in _LOADERS:
            return True
        frame = frame.f_back
    return False


def _inner_threads(config: Config) -> int | None:
    said: int | None = config.value("inner_threads")
    # Where the workers have maps of their own, those have the CPUs.
    return 1 if said is None and config.value("nested") != "serial" else said


def workers(config: Config, asked: Any, backend: Backend) -> int | None:
    """Return how many workers the map asks for; ``None`` leaves it to the backend."""
    if asked is not None:
        return cpus.count_workers(asked)
    if (said := config.said("workers")) is not None:
        return cpus.count_workers(said.value, said.origin)
    if config.inherited is None or backend.traits.inline:
        return None
    return max(1, cpus.available() // config.inherited.workers)


def _made_as_said(config: Config, said: Value) -> Backend:
    """Make the backend that a setting asks for; if there is none, say where that stands."""
    try:
        return made(config, said.value)
    except (UnknownBackend, ConfigError) as exc:
        raise ConfigError(f"{said.origin}: {exc}") from None
    except BackendUnavailable as exc:
        guarded.add_note(exc, f"anymap: {said.origin} asks for this backend")
        raise


def made(config: Config, backend: Any) -> Backend:
    """Return what ``backend=`` stands for, with the options that are set for it unless it comes with its own."""
    if isinstance(backend, str):
        return _with_options(_named(_registry.find(backend)), config.options(backend))
    if isinstance(backend, type) and issubclass(backend, Backend):
        return _with_options(_named(backend), config.options(backend.name))
    if isinstance(backend, Backend):
        _named(type(backend))
        return backend.fresh()
    if (adopted := live.adopt(backend)) is not None:
        return adopted
    if isinstance(backend, NotPassedOn):
        raise ConfigError(f"{backend.what} exists in its own process alone: name a backend for maps inside of maps")
    raise ConfigError(
        f"backend must be a backend's name or an instance of one, not {guarded.short_repr(backend)}."
        f"{live.what_to_give_instead(backend)}"
    )


def _named(kind: type[Backend]) -> type[Backend]:
    """Return a backend's class, or raise a ``ConfigError`` where it says no name to be told by."""
    if not isinstance(getattr(kind, "name", None), str):
        raise ConfigError(f"the backend {kind.__qualname__} has no name: set one on the class, as name = 'mine'")
    return kind


def _with_options(kind: type[Backend], options: Layer) -> Backend:
    if not options:
        return kind()
    import inspect  # noqa: PLC0415 - takes longer to import than a small map to run

    known = inspect.signature(kind).parameters
    for name, (_, origin) in options.items():
        if name not in known:
            hint = did_you_mean(name, known)
            there_are = ", ".join(known) or "none"
            raise ConfigError(f"{origin}: backend {kind.name!r} has no option {name!r}.{hint} There are: {there_are}")
    try:
        return kind(**{name: value for name, (value, _) in options.items()})
    except (ConfigError, TypeError) as exc:
        origins = ", ".join(f"{name} ({origin})" for name, (_, origin) in options.items())
        raise ConfigError(f"the options of backend {kind.name!r}, {origins}: {exc}") from exc
