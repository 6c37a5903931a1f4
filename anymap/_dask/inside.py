"""What is done inside of a dask task: leaving its place to others, and telling the map how far it is."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, NamedTuple

from distributed import get_worker, rejoin, secede, threadpoolexecutor
from distributed.worker import thread_state
from distributed.worker_state_machine import SecedeEvent


class DaskTask(NamedTuple):
    """A task that a thread of this process runs."""

    worker: Any
    key: Any

    def is_wanted(self) -> bool:
        """Tell whether anybody still waits for it."""
        return self.key is None or not is_cancelled(self.worker.state.tasks.get(self.key))


def is_cancelled(state: Any) -> bool:
    """Tell whether a worker's state of a task that it runs is that nobody waits for it."""
    return state is None or state.state == "cancelled"


def running() -> DaskTask | None:
    """Return the task that this thread runs. That of a process which was forked there runs none."""
    try:
        worker = get_worker()
    except ValueError:
        return None
    # An actor's thread has no key.
    return DaskTask(worker, getattr(thread_state, "key", None)) if runs_here(worker.loop) else None


def runs_here(loop: Any) -> bool:
    """Tell whether the thread that runs an event loop is in this process: a fork has the loop, but not the thread."""
    running = loop.asyncio_loop
    return not running.is_running() or running._thread_id in sys._current_frames()


_here = threading.local()
"""The line of the task that this thread runs."""


def leave_place() -> bool:
    """Leave this worker's slot to other tasks, maybe those that are waited for; return whether this thread had one."""
    try:
        secede()
    except (KeyError, AttributeError):  # it has left before; it is not one of the worker's own threads
        return False
    return True


def come_back() -> None:
    """Take a slot again, when another task has ended; but not for an item whose place is others' for good."""
    line: _Line | None = getattr(_here, "line", None)
    if line is None:
        rejoin()
    elif not line.has_stepped_aside:
        rejoin()
        line.settle()


class Topic(NamedTuple):
    """A channel: workers log events under a topic, which their scheduler passes on to the client that subscribed to it."""

    name: str
    map_id: str

    def connect(self) -> _Line:
        line = _here.line = _Line(self)
        return line


class _Line:
    """One task's end of it."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic
        # The thread that sends has neither of them.
        self._task = DaskTask(get_worker(), thread_state.key)
        self._executor: Any = getattr(threadpoolexecutor.thread_state, "executor", None)
        self._thread = threading.current_thread()
        self._began = time.time()
        self.has_stepped_aside = False
        self._closed = False

    def send(self, message: bytes) -> None:
        self._task.worker.log_event(self._topic.name, [self._topic.map_id, message])

    def is_wanted(self) -> bool:
        return self._task.is_wanted()

    def step_aside(self) -> None:
        """Do for the task's thread what :func:`distributed.secede` does for the one that calls it."""
        if self._executor is None:  # not dask's own
            return
        with threadpoolexecutor.threads_lock:
            if self._closed or self.has_stepped_aside:
                return
            self.has_stepped_aside = True
            self._fill_place()
        stimulus: Any = SecedeEvent(
            key=self._task.key, compute_duration=time.time() - self._began, stimulus_id=f"secede-{time.time()}"
        )
        self._task.worker.loop.add_callback(self._task.worker.handle_stimulus, stimulus)

    def settle(self) -> None:
        """See to it that a thread that has stepped aside meanwhile has no place."""
        with threadpoolexecutor.threads_lock:
            if self.has_stepped_aside:
                self._fill_place()

    def close(self) -> None:
        with threadpoolexecutor.threads_lock:
            self._closed = True
            if self.has_stepped_aside:
                # Only the thread itself can tell dask that it is to end.
                threadpoolexecutor.thread_state.proceed = False
                self._fill_place()
        _here.line = None

    def _fill_place(self) -> None:
        self._executor._threads.discard(self._thread)
        self._executor._adjust_thread_count()
