"""Maps on MPI: on ranks that wait for work, which are kept between maps."""

from __future__ import annotations

import threading

from mpi4py.futures import MPIPoolExecutor

from anymap.backends import ExecutorBackend, Traits, at_shutdown

lock, kept = threading.Lock(), {}


class MPI(ExecutorBackend):
    """The other ranks of the job, under ``python -m mpi4py.futures``; else ranks that are spawned when they are needed.

    A rank that dies ends the whole job, the caller included: MPI aborts it, and no error can be caught. Nobody knows at
    which item a rank is, so ``timeout=`` is refused.
    """

    name = "mpi"
    traits = Traits(remote=True, sees_death=False)

    def start(self, workers: int | None) -> MPIPoolExecutor:
        with lock:
            if workers not in kept:
                # Without the caller's __main__, which the ranks would run: what it defines travels with the tasks.
                kept[workers] = MPIPoolExecutor(workers, main=False)
                at_shutdown(end)
            return kept[workers]

    def stop(self, executor: MPIPoolExecutor, *, abandon: bool) -> None:
        """Keep the ranks for later maps."""

    def size(self, executor: MPIPoolExecutor) -> int:
        return executor.num_workers


def end() -> None:
    while kept:
        kept.popitem()[1].shutdown()
