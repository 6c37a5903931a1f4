"""In worker processes of our own: the default."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from anymap._errors import ConfigError
from anymap._host import cpus
from anymap.backends._processes import kept
from anymap.backends.base import Backend, Task, Traits

if TYPE_CHECKING:
    from concurrent.futures import Future

    from anymap._worker.protocol import Answer

__all__ = ["Processes"]

_START_METHODS = ("spawn", "fork")


class Processes(Backend):
    """Supervised workers on this machine.

    ``start_method="spawn"``: fresh interpreters, kept warm for the next map. They never run the caller's ``__main__``,
    so a script needs no guard. ``"fork"``: copies of this process, made for this map alone, which see its globals and
    hold whatever locks its other threads held.

    ``max_tasks_per_worker``: after so many items a worker ends and a fresh one takes its place, which gives back what
    the function has leaked. To start one takes some 50 ms. Without it a worker serves until it is no longer needed, or
    until an item finds no memory in it.

    >>> from anymap import pmap
    >>> from anymap.backends import Processes
    >>> pmap(abs, [-1, 2], backend=Processes(start_method="fork"), workers=1)
    [1, 2]
    """

    name: ClassVar[str] = "processes"
    traits = Traits(kills=True)
    starts_anew = True

    def __init__(
        self, *, start_method: Literal["spawn", "fork"] = "spawn", max_tasks_per_worker: int | None = None
    ) -> None:
        if start_method not in _START_METHODS:
            raise ConfigError(f"start_method must be 'spawn' or 'fork', not {start_method!r}")
        if max_tasks_per_worker is not None and not _is_positive(max_tasks_per_worker):
            raise ConfigError(f"max_tasks_per_worker must be a number from 1, or None, not {max_tasks_per_worker!r}")
        self.start_method = start_method
        self.max_tasks_per_worker = max_tasks_per_worker
        if start_method == "fork":
            self.traits = Traits(kills=True, forks=True)

    def open(self, workers: int | None) -> None:
        self.workers = self.expected_workers(workers)
        if self.start_method == "fork":
            self._lease = kept.lease_forks(self.workers, self.max_tasks_per_worker, self.inner_threads)
        else:
            self._lease = kept.lease(
                self.workers,
                self.max_tasks_per_worker,
                self.inner_threads,
                self.idle_timeout,
                asked=workers is not None,
            )

    def expected_workers(self, workers: int | None) -> int:
        return workers or cpus.available()

    def submit(self, task: Task) -> Future[Answer]:
        return self._lease.submit(task)

    def kill(self, pid: int) -> None:
        self._lease.kill(pid)

    def close(self, *, abandon: bool) -> None:  # noqa: ARG002 - what still runs is ended in either case
        if hasattr(self, "_lease"):
            self._lease.close()


def _is_positive(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number > 0
