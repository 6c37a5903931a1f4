"""Whose task is next in a pool, and when there is to be another worker: without a process, by a clock of the test's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anymap._host import cpus
from anymap.backends._processes import leases as under_test
from anymap.backends._processes.leases import Job, Lease, Leases

if TYPE_CHECKING:
    from collections.abc import Iterator

CPUS = 4


class Pool:
    """Leases, and what they are told as workers come and go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.leases = Leases()
        self.now = 0.0
        self.workers = 0
        self.free = 0
        monkeypatch.setattr(under_test.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(cpus, "available", lambda: CPUS)

    def map(self, workers: int | None, tasks: int) -> Lease:
        """Begin a map of so many tasks."""
        lease = self.leases.open(self, workers or CPUS, asked=workers is not None)  # type: ignore[arg-type]
        for _ in range(tasks):
            self.leases.add(Job(lease, b""))
        return lease

    def start(self) -> None:
        """Start the workers that are wanted, and give them what may run."""
        self.assign()
        while self.leases.want_another(self.workers):
            self.workers += 1
            self.free += 1
            self.assign()

    def assign(self) -> list[Lease]:
        """Give free workers tasks; return whose."""
        return list(self._assigned())

    def _assigned(self) -> Iterator[Lease]:
        while self.free and (job := self.leases.next()) is not None:
            self.free -= 1
            job.lease.quota.running += 1
            yield job.lease

    def finish(self, lease: Lease) -> list[Lease]:
        """End a task; return whose is next."""
        lease.quota.running -= 1
        self.free += 1
        return self.assign()


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    return Pool(monkeypatch)


def test_a_map_gets_as_many_workers_as_it_asks_for_at_once(pool: Pool) -> None:
    pool.map(2 * CPUS, 3 * CPUS)
    pool.start()
    assert pool.workers == 2 * CPUS


def test_no_worker_is_started_that_has_nothing_to_do(pool: Pool) -> None:
    pool.map(CPUS, 2)
    pool.start()
    assert pool.workers == 2


def test_maps_that_ask_get_theirs_at_once_while_there_are_cpus(pool: Pool) -> None:
    for _ in range(CPUS):
        pool.map(1, 5)
    pool.start()
    assert pool.workers == CPUS


def test_beyond_the_cpus_a_map_gets_what_it_asks_for_when_no_worker_becomes_free_for_it_soon(pool: Pool) -> None:
    for _ in range(CPUS):
        pool.map(1, 5)
    pool.start()
    late = pool.map(1, 5)
    pool.start()
    assert pool.workers == CPUS
    pool.now += 0.2
    pool.start()
    assert pool.workers == CPUS + 1
    assert late.quota.running == 1


def test_where_turns_are_quick_no_worker_is_started_beyond_the_cpus(pool: Pool) -> None:
    maps = [pool.map(1, 50) for _ in range(2 * CPUS)]
    pool.start()
    for _ in range(40):
        pool.now += 0.03
        for lease in [lease for lease in maps if lease.quota.running]:
            pool.finish(lease)
        pool.start()
    assert pool.workers == CPUS


def test_maps_that_do_not_ask_have_together_as_many_as_there_are_cpus_and_take_turns(pool: Pool) -> None:
    first, second = pool.map(None, 50), pool.map(None, 50)
    pool.start()
    pool.now += 1000.0
    pool.start()
    assert pool.workers == CPUS
    assert {first, second} == {*pool.finish(first), *pool.finish(first)}


def test_a_map_that_does_not_ask_leaves_alone_the_workers_that_another_asked_for(pool: Pool) -> None:
    asked = pool.map(3, 50)
    rest = pool.map(None, 50)
    pool.start()
    pool.now += 1000.0
    for _ in range(10):
        pool.start()
        pool.now += 1000.0
    assert (asked.quota.running, rest.quota.running, pool.workers) == (3, CPUS, CPUS + 3)
    pool.leases.close(asked)
    assert pool.leases.most_workers() == CPUS
