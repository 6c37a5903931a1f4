"""In the caller's own thread, one item after another: the debugger's friend."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, ClassVar

from anymap.backends.base import Backend, Task, Traits

if TYPE_CHECKING:
    from anymap._worker.protocol import Answer

__all__ = ["Serial"]


class Serial(Backend):
    """Runs each task where it is submitted. Breakpoints, profilers and Ctrl-C work as in any loop."""

    name: ClassVar[str] = "serial"
    traits = Traits(shares_memory=True, inline=True)

    def open(self, workers: int | None) -> None:  # noqa: ARG002 - there is one thread, however many are asked for
        self.workers = 1

    def expected_workers(self, workers: int | None) -> int:  # noqa: ARG002 - see open
        return 1

    def submit(self, task: Task) -> Future[Answer]:
        future: Future[Answer] = Future()
        future.set_result(task())
        return future

    def close(self, *, abandon: bool) -> None:
        pass
