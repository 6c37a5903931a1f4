"""Which map's task is next in a pool that several maps use, and whether another worker should be started for it.

A map that asks for a number of workers may run so many tasks, whatever the others do. All maps that ask for none run
together as many as there are CPUs. Leases take turns.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

from anymap._host import cpus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anymap._worker.protocol import Answer
    from anymap._worker.task import Task

_PATIENCE = 0.1
"""Seconds for which a map waits for a worker of the others before there are more workers than CPUs for its sake."""


class Job:
    """A task on its way."""

    __slots__ = ("data", "future", "kill_at", "lease")

    def __init__(self, lease: Lease, data: bytes) -> None:
        self.lease = lease
        self.data = data
        self.future: Future[Answer] = Future()
        self.kill_at: float | None = None


class Tasks(Protocol):
    """The pool, as its leases see it."""

    def add(self, job: Job) -> None: ...

    def kill(self, pid: int, lease: Lease) -> None: ...

    def end(self, lease: Lease) -> None: ...


class Quota:
    """How many tasks may run at a time: of one map, or of all maps that asked for no number."""

    __slots__ = ("running", "workers")

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.running = 0


class Lease:
    """One map's share of a pool."""

    def __init__(self, pool: Tasks, quota: Quota) -> None:
        self.quota = quota
        self.pending: deque[Job] = deque()
        self.served = 0.0
        """When it last got a worker, or began to want one."""
        self._pool = pool

    def submit(self, task: Task) -> Future[Answer]:
        job = Job(self, pickle.dumps(task, 5))
        self._pool.add(job)
        return job.future

    def kill(self, pid: int) -> None:
        self._pool.kill(pid, self)

    def close(self) -> None:
        self._pool.end(self)

    def waits(self) -> bool:
        """Tell whether it has a task that may run, and no worker for it."""
        return bool(self.pending) and self.quota.running < self.quota.workers


class Leases:
    """The leases of one pool, the one whose turn is next first. Its methods are called under the pool's lock."""

    def __init__(self) -> None:
        self._leases: list[Lease] = []
        self._common = Quota(0)

    def __bool__(self) -> bool:
        return bool(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._leases)

    def open(self, pool: Tasks, workers: int, *, asked: bool) -> Lease:
        """Add a lease. ``asked``: the map asks for this number, else it is how many all such maps have together."""
        if not asked:
            self._common.workers = workers
        lease = Lease(pool, Quota(workers) if asked else self._common)
        self._leases.append(lease)
        return lease

    def close(self, lease: Lease) -> None:
        lease.pending.clear()
        if lease in self._leases:
            self._leases.remove(lease)

    def add(self, job: Job) -> None:
        if not job.lease.pending:
            job.lease.served = time.monotonic()
        job.lease.pending.append(job)

    def next(self) -> Job | None:
        """Take the next task that may run."""
        for lease in self._leases:
            if lease.waits():
                # To the end of the queue: the next worker serves another map.
                self._leases.remove(lease)
                self._leases.append(lease)
                lease.served = time.monotonic()
                return lease.pending.popleft()
        return None

    def most_workers(self) -> int:
        """Return how many workers all of them together may have."""
        return sum(quota.workers for quota in {lease.quota for lease in self._leases})

    def want_another(self, workers: int) -> bool:
        """Tell whether another worker should be started beside ``workers``, none of which is free."""
        waiting = [lease for lease in self._leases if lease.waits()]
        if not waiting or workers >= self.most_workers():
            return False
        if workers < max(cpus.available(), *(lease.quota.workers for lease in waiting)):
            return True
        return time.monotonic() >= min(lease.served for lease in waiting) + _PATIENCE
