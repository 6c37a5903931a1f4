"""Maps on loky: a pool of processes for each map, and a new one when a process dies."""

from __future__ import annotations

from loky import ProcessPoolExecutor, cpu_count
from loky.process_executor import BrokenProcessPool, ShutdownExecutorError

from anymap.backends import ExecutorBackend, Traits


class Loky(ExecutorBackend):
    """Processes that loky starts, which run none of the caller's ``__main__``."""

    name = "loky"
    traits = Traits(kills=True)
    worker_lost = (BrokenProcessPool, ShutdownExecutorError)

    def start(self, workers: int | None) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(workers or cpu_count())

    def stop(self, executor: ProcessPoolExecutor, *, abandon: bool) -> None:
        executor.shutdown(kill_workers=abandon)
