"""A backend by itself: opened, polled, given tasks and closed as the engine does it."""

from __future__ import annotations

import inspect
from concurrent.futures import CancelledError, Future, wait
from typing import TYPE_CHECKING, Any

from anymap._engine.codec import make_codec
from anymap._engine.ledger import Chunk
from anymap._engine.supervisor import Supervisor
from anymap._engine.telemetry.router import MessageRouter
from anymap._map import pmap
from anymap._plan.make import make_plan
from anymap.backends.base import ChunkLost
from anymap.testing._verdicts import brief, fail

if TYPE_CHECKING:
    from collections.abc import Callable

    from anymap._worker.protocol import Answer
    from anymap._worker.task import Task
    from anymap.backends.base import Backend


class Station:
    """One open copy of a backend, and tasks for it that call one function."""

    def __init__(
        self, candidate: Backend, func: Callable[[Any], Any], workers: int | None, left: Callable[[], float]
    ) -> None:
        plan = make_plan(func, ([],), **_options(backend=candidate, workers=workers, on_error="return", progress=False))
        self.backend = plan.backend
        self._left = left
        self._closed = False
        self._trouble: Exception | None = None
        self._supervisor = Supervisor(self._poll)
        try:
            self.backend.open(plan.workers)
            self._codec = make_codec(plan, MessageRouter({}))
        except BaseException as exc:
            self._close_after(exc)
            raise
        self._supervisor.start()

    def task(self, *rows: Any) -> Task:
        """Make a task of these items."""
        return self._codec.task(Chunk(0, list(rows)), self._codec.board.take(), None)

    def submit(self, *rows: Any) -> Future[Answer]:
        future = self.backend.submit(self.task(*rows))
        if not isinstance(future, Future):
            fail(f"submit returned {brief(future)}, and no Future of concurrent.futures")
        return future

    def answer(self, future: Future[Answer]) -> Answer:
        """Wait for a task's answer."""
        self.wait(future)
        return future.result()

    def values(self, future: Future[Answer]) -> list[Any]:
        """Wait for a task's results."""
        answer = self.answer(future)
        if answer.broken is not None:
            raise self._codec.error(answer.broken)
        for _, raised, _ in answer.failures:
            raise self._codec.error(raised)
        return list(self._codec.values(answer)[0])

    def loss(self, future: Future[Answer]) -> ChunkLost | CancelledError | None:
        """Wait for a task to end; return how it was lost, or ``None`` if it was not."""
        self.wait(future)
        try:
            future.result()
        except (ChunkLost, CancelledError) as lost:
            return lost
        return None

    def wait(self, future: Future[Answer]) -> None:
        """Wait for a task to end, one way or another."""
        with self.backend.waiting():
            wait([future], self._left())
        if not future.done():
            fail("a task's future has not ended in time")

    def close(self, *, abandon: bool = True) -> None:
        """Close the backend as the engine does; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._supervisor.stop()
        if abandon:
            self._codec.board.cancel()
        try:
            self.backend.close(abandon=abandon)
        finally:
            self._codec.close(clean=False)
        if self._trouble is not None:
            raise self._trouble

    def _close_after(self, error: BaseException) -> None:
        """Close what has failed to open; what fails now is a note of the error that came first, as it is in a map."""
        try:
            self.backend.close(abandon=True)
        except Exception as exc:  # noqa: BLE001 - the first error counts for more
            error.add_note(f"after that, closing failed: {type(exc).__qualname__}: {exc}")

    def _poll(self) -> None:
        try:
            self.backend.poll()
        except Exception as exc:  # noqa: BLE001 - raised in the thread that examines
            self._trouble = exc


def _options(**given: Any) -> dict[str, Any]:
    """Return all options of a map, with their defaults where they are not given."""
    parameters = inspect.signature(pmap).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY} | given
