"""The pools of this process: one for each specification of workers, kept for later maps, and those of forks."""

from __future__ import annotations

import pickle
import weakref
from typing import TYPE_CHECKING

from anymap._host import forks, lifecycle
from anymap._worker import spec
from anymap._worker.start import start_fork, start_interpreter
from anymap.backends._processes.pool import Pool

if TYPE_CHECKING:
    from anymap._worker.spec import WorkerSpec
    from anymap.backends._processes.leases import Lease

_pools: dict[WorkerSpec, Pool] = {}
_forks_of_maps: weakref.WeakSet[Pool] = weakref.WeakSet()
"""Pools of forks, each of one map."""
_pools_lock = forks.Lock()


def lease(workers: int, max_items: int | None, inner_threads: int | None, idle_timeout: float, *, asked: bool) -> Lease:
    """Return a share of the pool whose workers are like this process, as it is now. ``asked``: see :meth:`Leases.open`."""
    wanted = spec.current(workers, max_items, inner_threads)
    with _pools_lock:
        while True:
            if wanted not in _pools:
                _retire_idle_pools()
                _pools[wanted] = _pool_of_interpreters(wanted)
                lifecycle.at_shutdown(close_all)
            _pools[wanted].idle_timeout = idle_timeout
            if (granted := _pools[wanted].lease(workers, asked=asked)) is not None:
                return granted
            # It has closed, for want of anything to do.
            del _pools[wanted]


def _pool_of_interpreters(wanted: WorkerSpec) -> Pool:
    init_message = pickle.dumps(wanted.preparation())
    return Pool(
        lambda line: start_interpreter(wanted, line), init_message=init_message, keep=True, max_items=wanted.max_items
    )


def lease_forks(workers: int, max_items: int | None, inner_threads: int | None) -> Lease:
    """Return a pool of its own, of forks: they see this process as it is now, so no later map may have them."""
    pool = Pool(
        lambda line: start_fork(line, workers, max_items, inner_threads),
        init_message=None,
        keep=False,
        max_items=max_items,
    )
    with _pools_lock:
        _forks_of_maps.add(pool)
    # At the program's end they get the time to end by themselves.
    lifecycle.at_shutdown(close_all)
    granted = pool.lease(workers, asked=True)
    assert granted is not None  # noqa: S101
    return granted


def _retire_idle_pools() -> None:
    for wanted, pool in list(_pools.items()):
        if pool.idle:
            del _pools[wanted]
            pool.close()


def close_all() -> None:
    """End all workers of this process."""
    with _pools_lock:
        pools = [*_pools.values(), *_forks_of_maps]
        _pools.clear()
    for pool in pools:
        pool.close()


def _leave_to_parent() -> None:
    """In a forked child: the workers are the parent's, and the threads that served them are not there."""
    for pool in [*_pools.values(), *_forks_of_maps]:
        pool.leave_to_parent()
    _pools.clear()
    _forks_of_maps.clear()


forks.in_child(_leave_to_parent)
