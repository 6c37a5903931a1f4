"""Engines that the user has made already, and their backends.

Nothing is imported to know one: whoever has such an object has imported its module.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias

from anymap._errors import UnsupportedOption

if TYPE_CHECKING:
    from collections.abc import Callable
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


def adopt(engine: object) -> Backend | None:
    """Return a backend on an engine of the user's, which stays his; ``None`` where this is none that we know."""
    for module, name, make in _KINDS:
        kind = getattr(sys.modules.get(module), name, None)
        if isinstance(kind, type) and isinstance(engine, kind):
            return make(engine)
    return None


def _any_executor(engine: Any) -> Backend:
    from anymap.backends.executor import AnyExecutor  # noqa: PLC0415 - wanted by few maps, as are those below

    return AnyExecutor(engine)


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


_KINDS: tuple[tuple[str, str, Callable[[Any], Backend]], ...] = (
    # Though a kind of ThreadPoolExecutor, it has an interpreter for each thread, and hands over nothing.
    ("concurrent.futures.interpreter", "InterpreterPoolExecutor", _any_executor),
    ("concurrent.futures.thread", "ThreadPoolExecutor", _thread_executor),
    ("concurrent.futures.process", "ProcessPoolExecutor", _process_executor),
    ("loky.process_executor", "ProcessPoolExecutor", _process_executor),
    ("joblib.externals.loky.process_executor", "ProcessPoolExecutor", _process_executor),
    ("concurrent.futures", "Executor", _any_executor),
    ("multiprocessing.pool", "ThreadPool", _thread_pool),
    ("multiprocess.pool", "ThreadPool", _thread_pool),
    ("multiprocessing.pool", "Pool", _process_pool),
    ("multiprocess.pool", "Pool", _process_pool),
    ("distributed.client", "Client", _dask),
    ("pathos.multiprocessing", "ProcessPool", _pathos_processes),
    ("pathos.threading", "ThreadPool", _pathos_threads),
    ("pathos.serial", "SerialPool", _serial),
    ("pathos.parallel", "ParallelPool", _refuse_ppft),
)
"""Module, class, and what makes the backend; what is derived from another stands before it."""
