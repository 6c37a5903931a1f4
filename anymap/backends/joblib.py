"""On whatever the user has joblib run on: loky, threads, ``multiprocessing``, dask, an engine of a third party.

joblib's own ``Parallel`` pulls its input itself, which the engine here must do. So only its backends are used: a
``Parallel`` that reads the user's configuration sets one up, and tasks are handed to that.
"""

from __future__ import annotations

import concurrent.futures
import copy
import os
import sys
import threading
from concurrent.futures import Future
from functools import partial
from multiprocessing.pool import Pool as StandardPool
from typing import TYPE_CHECKING, Any, ClassVar, Self

from joblib.externals.loky import reusable_executor
from joblib.externals.loky.process_executor import (
    BrokenProcessPool,
    ShutdownExecutorError,
    TerminatedWorkerError,
)
from joblib.parallel import (
    BatchedCalls,
    LokyBackend,
    MultiprocessingBackend,
    Parallel,
    ParallelBackendBase,
    SequentialBackend,
    ThreadingBackend,
    get_active_backend,
)

from anymap import _worker
from anymap._errors import BackendConnectionError
from anymap._local import pooled
from anymap.backends.base import Backend, ChunkLost, Task, Traits
from anymap.backends.serial import Serial

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from anymap._worker import Answer

_TO_END = 0.2
"""Seconds that running tasks get to notice that the map is over, before their workers are killed."""


class Joblib(Backend):
    """Runs on the joblib backend that is active where the map is called: see :func:`joblib.parallel_config`.

    Without one that is loky. Its workers are those that joblib keeps, and stay for joblib's next call. As with joblib
    itself, ``n_jobs=1`` means a plain loop in the caller's thread.
    """

    name: ClassVar[str] = "joblib"
    traits = Traits(kills=True)

    def __init__(self) -> None:
        # Here and not in open: the configuration is that of the block in which pmap is called.
        self._parallel = _configured()
        self._engine: Backend | None = None

    def fresh(self) -> Self:
        return type(self)()

    def open(self, workers: int | None) -> None:
        if workers is not None:
            self._parallel.n_jobs = workers
        self._engine = _choose_engine(self._parallel)
        self._engine.open(workers)
        self.traits, self.workers = self._engine.traits, self._engine.workers

    @property
    def engine(self) -> Backend:
        """The part that knows the active joblib backend."""
        assert self._engine is not None, "open() comes first"
        return self._engine
