"""What is done inside of a dask task: leaving its place to others, and telling the map how far it is."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, NamedTuple

from distributed import get_worker, secede, threadpoolexecutor
from distributed.worker import thread_state
from distributed.worker_state_machine import SecedeEvent


def is_in_task() -> bool:
    """Tell whether this is the thread of a dask task; that of a process which was forked there is not."""
    try:
        return runs_here(get_worker().loop)
    except ValueError:
        return False


def runs_here(loop: Any) -> bool:
    """Tell whether the thread that runs an event loop is in this process: a fork has the loop, but not the thread."""
    running = loop.asyncio_loop
    return not running.is_running() or running._thread_id in sys._current_frames()


def leave_place() -> bool:
    """Leave this worker's slot to other tasks, maybe those that are waited for."""
    try:
        secede()
    except (KeyError, AttributeError):  # it has left before; it is not one of the worker's own threads
        return False
    return True


class Topic(NamedTuple):
    """A channel: workers log events under a topic, which their scheduler passes on to the client that subscribed to it."""

    name: str
    map_id: str

    def connect(self) -> _Line:
        return _Line(self)


class _Line:
    """One task's end of it."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic
        # The thread that sends has neither of them.
        self._worker = get_worker()
        self._key = thread_state.key
        self._executor: Any = getattr(threadpoolexecutor.thread_state, "executor", None)
        self._thread = threading.current_thread()
        self._began = time.time()
        self._stepped_aside = False
        self._closed = False

    def send(self, message: bytes) -> None:
        self._worker.log_event(self._topic.name, [self._topic.map_id, message])

    def is_wanted(self) -> bool:
        task = self._worker.state.tasks.get(self._key)
        return task is not None and task.state != "cancelled"

    def step_aside(self) -> None:
        """Do for the task's thread what :func:`distributed.secede` does for the one that calls it."""
        if self._executor is None:  # not dask's own
            return
        with threadpoolexecutor.threads_lock:
            if self._closed:
                return
            self._stepped_aside = True
            self._fill_place()
        stimulus: Any = SecedeEvent(
            key=self._key, compute_duration=time.time() - self._began, stimulus_id=f"secede-{time.time()}"
        )
        self._worker.loop.add_callback(self._worker.handle_stimulus, stimulus)

    def close(self) -> None:
        with threadpoolexecutor.threads_lock:
            self._closed = True
            if self._stepped_aside:
                # Only the thread itself can tell dask that it is to end. It may be back, too: after a map inside of its item.
                threadpoolexecutor.thread_state.proceed = False
                self._fill_place()

    def _fill_place(self) -> None:
        self._executor._threads.discard(self._thread)
        self._executor._adjust_thread_count()
