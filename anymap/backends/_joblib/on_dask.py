"""On dask through joblib."""

from __future__ import annotations

import functools
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any

from anymap._errors import BackendConnectionError
from anymap.backends._joblib.engine import Engine
from anymap.backends._shared import pool_deaths
from anymap.backends.base import ChunkLost, Task, Traits

if TYPE_CHECKING:
    from anymap._worker.protocol import Answer


class OnDask(Engine):
    """The dask client of the user's configuration."""

    traits = Traits(remote=True)

    def poll(self) -> None:
        if not self._is_connected():
            gone = BackendConnectionError(f"the dask scheduler is gone: {self._backend.client!r}")
            for future in list(self._jobs):
                pool_deaths.fail(future, gone)

    def _is_connected(self) -> bool:
        return bool(self._backend.client.status == "running")

    def _configure(self) -> None:
        wanted = self._parallel.n_jobs
        try:
            super()._configure()
        except TimeoutError as exc:
            raise BackendConnectionError(str(exc)) from exc
        if wanted > 0:
            self.workers = min(self.workers, wanted)

    def _send(self, task: Task, future: Future[Answer]) -> Any:
        job = super()._send(task, future)
        # The callback is called for a result only.
        job.add_done_callback(functools.partial(self._complete_error, future))
        return job

    def _complete(self, future: Future[Answer], out: Any) -> None:
        if isinstance(out, CancelledError):
            pool_deaths.fail(future, ChunkLost("dask cancelled the task"))
        else:
            super()._complete(future, out)

    def _complete_error(self, future: Future[Answer], job: Future[Any]) -> None:
        try:
            exc = self._error_of(job)
        except BaseException as fault:  # noqa: BLE001 - else the task would never end
            exc = fault
        if exc is not None:
            pool_deaths.fail(future, exc)

    def _error_of(self, job: Future[Any]) -> BaseException | None:
        from distributed import KilledWorker  # noqa: PLC0415 - loaded already, where there is a dask backend

        exc = job.exception()
        return ChunkLost("each dask worker that ran it died") if isinstance(exc, KilledWorker) else exc

    def _abort(self) -> None:
        jobs, results = set(self._jobs.values()), self._backend._results
        mine = [running for running, job in list(results.items()) if job in jobs]
        super()._abort()
        for running in mine:
            results.pop(running, None)
            self._backend._callbacks.pop(running, None)
        if self._is_connected():
            self._backend.client.cancel(mine, force=True)
