"""On the processes of a pathos pool."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from pathos import helpers

from anymap._errors import UnsupportedOption
from anymap._host import cpus, inner_threads, streams
from anymap._host.interrupts import interrupts_held_back
from anymap.backends._shared import pool_deaths
from anymap.backends.base import ChunkLost, Task, Traits

if TYPE_CHECKING:
    from concurrent.futures import Future

    from anymap._worker.protocol import Answer

__all__ = ["Pathos"]


class Pathos(pool_deaths.OnPool):
    """A pathos pool of its own for each map, apart from the pools that pathos caches.

    The workers are forks of this process, made when the map begins: they see its globals as they are then. That is also
    why no pool is kept for a later map, as its workers would see what was. A fork takes a few milliseconds.

    A fork also inherits the locks that other threads hold at that moment and never release there, such as that of
    ``sys.stdin`` while one waits in ``input()``. Where that may happen, use ``processes``.
    """

    name: ClassVar[str] = "pathos"
    traits = Traits(kills=True, forks=True)
    starts_anew = True

    def open(self, workers: int | None) -> None:
        self.workers = self.expected_workers(workers)
        self._keeper = pool_deaths.PoolKeeper(self._make_pool, _send, ChunkLost)
        self._keeper.start()

    def expected_workers(self, workers: int | None) -> int:
        return workers or cpus.available()

    def _make_pool(self) -> Any:
        if helpers.mp.current_process().daemon:
            raise UnsupportedOption(
                "a worker of a pathos pool cannot have a pathos pool of its own: "
                "use backend='threads' or 'serial' for the inner map"
            )
        arguments = pool_deaths.worker_arguments(inner_threads.limit, (self.workers, self.inner_threads))
        context = pool_deaths.remembering(helpers.mp.get_context("fork"))
        try:
            with interrupts_held_back(), streams.replaced(streams.unflushable()):
                return helpers.ProcessPool(self.workers, context=context, **arguments)
        except OSError as exc:
            exc.add_note(
                "anymap: the locks of a pathos pool are made in /dev/shm, which must have room and be writable; "
                "backend='processes' needs neither"
            )
            raise


def _send(pool: Any, task: Task, future: Future[Answer]) -> None:
    pool.apply_async(
        task,
        callback=lambda answer: pool_deaths.settle(future, lambda: answer),
        error_callback=partial(pool_deaths.fail, future),
    )
