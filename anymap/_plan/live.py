"""Engines that the user has made already, and their backends.

Nothing is imported to know one: where there is such an object, its module has been imported. Of several backends, that
for the class which the object's class is nearest to is chosen.
"""

from __future__ import annotations

import functools
import importlib
from operator import itemgetter
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias

from anymap._errors import ConfigError, UnsupportedOption
from anymap._hints import did_you_mean_backend
from anymap._host import loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Executor
    from multiprocessing.pool import Pool

    from anymap.backends.base import Backend


class DaskClient(Protocol):
    """By what a type checker knows a ``distributed.Client``."""

    def scheduler_info(self, *args: Any, **options: Any) -> Any: ...


class PathosPool(Protocol):
    """By what a type checker knows a pool of pathos, or one of ``multiprocess``."""

    def imap(self, *args: Any, **options: Any) -> Any: ...


Engine: TypeAlias = "Executor | Pool | DaskClient | PathosPool"


Maker: TypeAlias = "Callable[[Any], Backend]"
"""A class of backends, or a function, that is called with an engine."""

_GROUP = "anymap.engines"
_registered: dict[str, Maker | str] = {}


def register_engine(kind: str, backend: Callable[[Any], Backend] | str) -> None:
    """Say on what backend maps run whose ``backend=`` is an object of class ``kind``, for this process.

    ``kind`` is ``"module.Class"``, so that nothing is imported to know an engine; objects of classes derived from it are
    meant too, unless there is a backend for these. ``backend`` is called with the object and returns an unopened
    backend; it is a class or function, or ``"module:name"`` of one, imported when the first such object comes. As the
    engine is the user's, the backend should declare ``borrowed`` and leave it as it was.

    A package announces its engines by entry points in the group ``anymap.engines`` instead: the name is the kind, the
    value the backend. A kind that has a backend already is a :class:`ConfigError`, unless it is the same.

    >>> import anymap, queue
    >>> from anymap.backends import Serial
    >>> anymap.register_engine("queue.Queue", lambda queue: Serial())
    >>> anymap.pmap(abs, [-1, 2], backend=queue.Queue())
    [1, 2]
    """
    taken = _ours.get(kind) or _registered.get(kind)
    if taken is not None and taken != backend:
        raise ConfigError(f"for {kind} there is a backend already: {taken!r}")
    _registered[kind] = backend


def adopt(engine: object) -> Backend | None:
    """Return a backend on an engine of the user's, which stays the user's; ``None``: no backend is known for it."""
    lineage = type(engine).__mro__
    # What others announce is read last, as that takes longer than a small map.
    for tables in (_ours, _registered), (_ours, _registered, _announced()):
        found = [(lineage.index(cls), make) for table in tables for cls, make in _classes(table) if cls in lineage]
        distance, make = min(found, key=itemgetter(0), default=(len(lineage), None))
        if distance == 0:
            break
    return None if make is None else _loaded(make)(engine)


def _classes(table: Mapping[str, Maker | str]) -> Iterator[tuple[type, Maker | str]]:
    """Yield the classes in a table whose modules have been imported."""
    for kind, make in table.items():
        module, _, name = kind.rpartition(".")
        cls = loaded.variables(module).get(name)
        if isinstance(cls, type):
            yield cls, make


def _loaded(make: Maker | str) -> Maker:
    if not isinstance(make, str):
        return make
    module, _, name = make.partition(":")
    loaded: Maker = getattr(importlib.import_module(module), name)
    return loaded


@functools.cache
def _announced() -> dict[str, str]:
    """Return what installed packages announce, read once."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - takes longer to import than a small map to run

    return {point.name: point.value for point in entry_points(group=_GROUP)}


def _any_executor(engine: Any) -> Backend:
    from anymap.backends.executor import ExecutorBackend  # noqa: PLC0415 - wanted by few maps, as are those below

    return ExecutorBackend(engine)


def _thread_executor(engine: Any) -> Backend:
    from anymap.backends.executor import ThreadExecutor  # noqa: PLC0415

    return ThreadExecutor(engine)


def _process_executor(engine: Any) -> Backend:
    from anymap.backends.executor import ProcessExecutor  # noqa: PLC0415

    return ProcessExecutor(engine)


def _thread_pool(engine: Any) -> Backend:
    from anymap.backends.pools import ThreadPool  # noqa: PLC0415

    return ThreadPool(engine)


def _process_pool(engine: Any) -> Backend:
    from anymap.backends.pools import ProcessPool  # noqa: PLC0415

    return ProcessPool(engine)


def _pathos_threads(engine: Any) -> Backend:
    from anymap.backends.pools import PathosThreadPool  # noqa: PLC0415

    return PathosThreadPool(engine)


def _pathos_processes(engine: Any) -> Backend:
    from anymap.backends.pools import PathosProcessPool  # noqa: PLC0415

    return PathosProcessPool(engine)


def _serial(engine: Any) -> Backend:  # noqa: ARG001 - it is but another name for the caller's own thread
    from anymap.backends.serial import Serial  # noqa: PLC0415

    return Serial()


def _dask(engine: Any) -> Backend:
    from anymap.backends.dask import Dask  # noqa: PLC0415

    return Dask(client=engine)


def _refuse_ppft(engine: Any) -> NoReturn:
    raise UnsupportedOption(
        f"backend={type(engine).__name__}: the workers of ppft tell neither when one of them dies nor what it ran, so a map "
        "could wait for ever; use a ProcessPool of pathos', or backend='pathos'"
    )


_INSTEAD = {
    "dask_jobqueue": "a client of the cluster: cluster.get_client()",
    "distributed": "a client of the cluster: cluster.get_client()",
    "ipyparallel": "an executor: client.executor() of a Client, or the .executor of a view",
    "joblib": "'joblib', within joblib.parallel_config(...)",
    "mpi4py": "an executor: mpi4py.futures.MPIPoolExecutor()",
    "parsl": "an executor: parsl.concurrent.ParslPoolExecutor(config=...)",
    "submitit": "a client of dask_jobqueue's for the same cluster: submitit's jobs are no futures",
}
"""What to give in the place of an object of a package that is no engine for maps."""


def what_to_give_instead(given: object) -> str:
    """Return a sentence, after a blank, on what to give as ``backend=`` instead; nothing if that is not known."""
    if isinstance(given, ModuleType):
        return did_you_mean_backend(given.__name__, [])
    package = (given if isinstance(given, type) else type(given)).__module__.partition(".")[0]
    if (instead := _INSTEAD.get(package)) is not None:
        return f" Give {instead}"
    if isinstance(given, type) and hasattr(given, "submit"):
        return f" Give an instance: {given.__name__}(...)"
    if hasattr(given, "submit"):
        return (
            " Its submit() would have to return a concurrent.futures.Future: derive it from concurrent.futures.Executor"
        )
    return ""


_ours: dict[str, Maker | str] = {
    # Though a kind of ThreadPoolExecutor, it has an interpreter for each thread, and hands over nothing.
    "concurrent.futures.interpreter.InterpreterPoolExecutor": _any_executor,
    "concurrent.futures.thread.ThreadPoolExecutor": _thread_executor,
    "concurrent.futures.process.ProcessPoolExecutor": _process_executor,
    "loky.process_executor.ProcessPoolExecutor": _process_executor,
    "joblib.externals.loky.process_executor.ProcessPoolExecutor": _process_executor,
    "concurrent.futures.Executor": _any_executor,
    "multiprocessing.pool.ThreadPool": _thread_pool,
    "multiprocess.pool.ThreadPool": _thread_pool,
    "multiprocessing.pool.Pool": _process_pool,
    "multiprocess.pool.Pool": _process_pool,
    "distributed.client.Client": _dask,
    "pathos.multiprocessing.ProcessPool": _pathos_processes,
    "pathos.threading.ThreadPool": _pathos_threads,
    "pathos.serial.SerialPool": _serial,
    "pathos.parallel.ParallelPool": _refuse_ppft,
}
"""What makes the backend, by the module and name of the class."""
