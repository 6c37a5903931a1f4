"""On whatever the user has joblib run on: loky, threads, ``multiprocessing``, dask, an engine of a third party.

``joblib.Parallel`` pulls its input itself, which here is the map's to do. So it is used only to read the user's
configuration and to set up the joblib backend that is active; tasks are handed to that directly.
"""

from __future__ import annotations

import copy
import sys
from typing import TYPE_CHECKING, Any, ClassVar, Self

from joblib.parallel import (
    LokyBackend,
    MultiprocessingBackend,
    Parallel,
    ThreadingBackend,
    get_active_backend,
)

from anymap._host import streams
from anymap.backends._joblib.engine import Other, Threads
from anymap.backends._joblib.loky import Loky
from anymap.backends._joblib.on_dask import OnDask
from anymap.backends._joblib.pool import Pool
from anymap.backends.base import Backend, Task, Traits
from anymap.backends.serial import Serial

if TYPE_CHECKING:
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from anymap._worker.protocol import Answer

__all__ = ["Joblib"]


class Joblib(Backend):
    """The joblib backend that is active where the map is called: see :func:`joblib.parallel_config`.

    Without one that is loky, whose workers joblib keeps for its next call. Whatever joblib's rules make one job of runs
    in the caller's own thread, as with joblib itself.
    """

    name: ClassVar[str] = "joblib"

    def __init__(self) -> None:
        # The configuration of a block is that of the maps called in it, wherever a lazy one is iterated.
        self._parallel = _configured()
        self._engine = _choose_engine(self._parallel)
        self._unflushable: tuple[str, ...] = ()
        """The standard streams that engines would trip over."""
        self.traits = self._engine.traits

    def fresh(self) -> Self:
        return type(self)()

    def open(self, workers: int | None) -> None:
        if workers is not None:
            self._parallel.n_jobs = workers
        if self.expected_workers(workers) == 1:
            self._engine = Serial()
        self._unflushable = streams.unflushable()
        with streams.replaced(self._unflushable):
            self._engine.open(workers)
        self.traits, self.workers = self._engine.traits, self._engine.workers

    def expected_traits(self, workers: int | None) -> Traits:
        return Serial.traits if self.expected_workers(workers) == 1 else self.traits

    def expected_workers(self, workers: int | None) -> int | None:
        if isinstance(self._engine, OnDask):
            return None
        if isinstance(self._engine, Serial):
            return 1
        n_jobs = self._parallel.n_jobs if workers is None else workers
        return max(int(self._parallel._backend.effective_n_jobs(n_jobs)), 1)

    def submit(self, task: Task) -> Future[Answer]:
        if not self._unflushable:
            return self._engine.submit(task)
        # loky and multiprocessing flush them before they start a worker.
        with streams.replaced(self._unflushable):
            return self._engine.submit(task)

    def poll(self) -> None:
        self._engine.poll()

    def capacity(self) -> int:
        return self._engine.capacity()

    def kill(self, pid: int) -> None:
        self._engine.kill(pid)

    def abandon(self, future: Future[Answer]) -> None:
        self._engine.abandon(future)

    def waiting(self) -> AbstractContextManager[object]:
        return self._engine.waiting()

    def close(self, *, abandon: bool) -> None:
        self._engine.close(abandon=abandon)


def _configured() -> Any:
    """Return a ``Parallel`` as the user would get it here, on a backend of its own."""
    backend, n_jobs = get_active_backend()
    return Parallel(n_jobs=-1 if n_jobs is None else n_jobs, backend=_own(backend))


def _own(backend: Any) -> Any:
    """Copy a joblib backend: it holds the state of one call, and several maps may run in the same block."""
    if not _is_dask(backend):
        return copy.copy(backend)
    options = {"wait_for_workers_timeout": backend.wait_for_workers_timeout, **backend.submit_kwargs}
    own = sys.modules["joblib._dask"].DaskDistributedBackend(client=backend.client, **options)
    own.nesting_level = backend.nesting_level
    return own


def _is_dask(backend: Any) -> bool:
    # Without the module there is no such backend; to import it takes half a second.
    module = sys.modules.get("joblib._dask")
    return module is not None and isinstance(backend, module.DaskDistributedBackend)


def _choose_engine(parallel: Any) -> Backend:
    backend = parallel._backend
    if parallel.n_jobs == 1:
        return Serial()
    if _is_dask(backend):
        return OnDask(parallel)
    if isinstance(backend, LokyBackend):
        return Loky(parallel)
    if isinstance(backend, ThreadingBackend):
        return Threads(parallel)
    # Those derived from it have pools of other families.
    return Pool(parallel) if type(backend) is MultiprocessingBackend else Other(parallel)
