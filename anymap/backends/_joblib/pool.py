"""On the pool of joblib's backend ``multiprocessing``."""

from __future__ import annotations

import functools
import multiprocessing
from typing import Any

from joblib.externals.loky.backend import resource_tracker as loky_tracker

from anymap._host.interrupts import interrupts_held_back
from anymap._worker import import_rules
from anymap.backends._joblib.engine import Engine, start_trackers
from anymap.backends._shared import pool_deaths
from anymap.backends.base import ChunkLost, Traits


class Pool(pool_deaths.OnPool, Engine):
    """A ``multiprocessing`` pool for this map."""

    traits = Traits(kills=True, forks=True)

    def open(self, workers: int | None) -> None:
        self._folders: list[Any] = []
        self._keeper = pool_deaths.PoolKeeper(
            self._make_pool, lambda _, task, future: self._send(task, future), ChunkLost
        )
        super().open(workers)
        self.traits = Traits(kills=True, forks=self._backend._pool._ctx.get_start_method() == "fork")

    def close(self, *, abandon: bool) -> None:
        super().close(abandon=abandon)
        # joblib would first terminate the pool.
        self._backend._pool = None
        for manager in self._folders:
            manager._clean_temporary_resources()
        Engine.close(self, abandon=False)

    def _configure(self) -> None:
        self.workers = self._backend.effective_n_jobs(self._parallel.n_jobs)
        self._keeper.start()

    def _make_pool(self) -> Any:
        backend = self._backend
        options = getattr(backend, "backend_kwargs", {})  # joblib has them since 1.5
        arguments = pool_deaths.worker_arguments(options.get("initializer"), options.get("initargs", ()))
        backend.configure = functools.partial(type(backend).configure, backend, **arguments)
        start_trackers(loky_tracker)
        # Before joblib 1.5 it was called _backend_args.
        settings = getattr(self._parallel, "_backend_kwargs", None) or self._parallel._backend_args
        given = settings.get("context") or multiprocessing.get_context()
        settings["context"] = pool_deaths.remembering(getattr(given, "given", given))
        if given.get_start_method() != "fork":
            import_rules.require_folder()
        with interrupts_held_back(), import_rules.for_multiprocessing():
            self._parallel.__enter__()
        self._folders.append(backend._pool._temp_folder_manager)
        return backend._pool
