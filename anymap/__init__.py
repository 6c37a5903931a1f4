"""anymap: one parallel map on any engine.

    >>> from anymap import pmap
    >>> pmap(abs, [-1, 2, -3], backend="serial")
    [1, 2, 3]

Nothing is imported before it is asked for: importing this package loads no third party's module and does nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anymap import backends, compat, logs, progress, testing
    from anymap._config.settings import Settings
    from anymap._engine.plan import Retry
    from anymap._engine.results import MapIterator
    from anymap._errors import (
        AnymapError,
        BackendConnectionError,
        BackendUnavailable,
        ConfigError,
        ItemTimeout,
        MapError,
        NotPicklable,
        RemoteError,
        UnknownBackend,
        UnsupportedOption,
        WorkerLost,
    )
    from anymap._executor import Executor
    from anymap._host.lifecycle import shutdown
    from anymap._in_worker.per_worker import PerWorker, per_worker
    from anymap._in_worker.rng import rng
    from anymap._in_worker.task_progress import Progress, task_progress, track
    from anymap._in_worker.worker_index import worker_index
    from anymap._map import pmap
    from anymap._plan.explain import explain
    from anymap._plan.live import register_engine
    from anymap._plan.selection import Selection, selection
    from anymap._plan.using import configure, using
    from anymap._pool import Pool
    from anymap._pool_results import AsyncResult
    from anymap._serialize.failures import Failure, failure
    from anymap._serialize.share import Shared, share
    from anymap.backends._registry import BackendInfo, available_backends, register

__version__ = "0.1.0"

__all__ = [
    "AnymapError",
    "AsyncResult",
    "BackendConnectionError",
    "BackendInfo",
    "BackendUnavailable",
    "ConfigError",
    "Executor",
    "Failure",
    "ItemTimeout",
    "MapError",
    "MapIterator",
    "NotPicklable",
    "PerWorker",
    "Pool",
    "Progress",
    "RemoteError",
    "Retry",
    "Selection",
    "Settings",
    "Shared",
    "UnknownBackend",
    "UnsupportedOption",
    "WorkerLost",
    "available_backends",
    "backends",
    "compat",
    "configure",
    "explain",
    "failure",
    "logs",
    "per_worker",
    "pmap",
    "progress",
    "register",
    "register_engine",
    "rng",
    "selection",
    "share",
    "shutdown",
    "task_progress",
    "testing",
    "track",
    "using",
    "worker_index",
]

_homes = {
    "_map": ("pmap",),
    "_plan.explain": ("explain",),
    "_config.settings": ("Settings",),
    "_plan.using": ("configure", "using"),
    "_engine.plan": ("Retry",),
    "_engine.results": ("MapIterator",),
    "_errors": (
        "AnymapError",
        "BackendConnectionError",
        "BackendUnavailable",
        "ConfigError",
        "ItemTimeout",
        "MapError",
        "NotPicklable",
        "RemoteError",
        "UnknownBackend",
        "UnsupportedOption",
        "WorkerLost",
    ),
    "_executor": ("Executor",),
    "_serialize.failures": ("Failure", "failure"),
    "_plan.live": ("register_engine",),
    "_host.lifecycle": ("shutdown",),
    "_in_worker.per_worker": ("PerWorker", "per_worker"),
    "_pool": ("Pool",),
    "_pool_results": ("AsyncResult",),
    "backends._registry": ("BackendInfo", "available_backends", "register"),
    "_in_worker.rng": ("rng",),
    "_plan.selection": ("Selection", "selection"),
    "_serialize.share": ("Shared", "share"),
    "_in_worker.task_progress": ("Progress", "task_progress", "track"),
    "_in_worker.worker_index": ("worker_index",),
}
_modules = ("backends", "compat", "logs", "progress", "testing")


def __getattr__(name: str) -> Any:
    import importlib  # noqa: PLC0415 - importing anymap loads as little as can be

    for home, names in _homes.items():
        if name in names:
            value = getattr(importlib.import_module(f"anymap.{home}"), name)
            globals()[name] = value
            return value
    if name in _modules:
        return importlib.import_module(f"anymap.{name}")
    raise AttributeError(f"module 'anymap' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
