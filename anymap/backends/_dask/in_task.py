"""What is done inside of a dask task: it has a place in its worker, leaves that to others, and tells its map how far it is."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, NamedTuple

from distributed import get_worker, rejoin, secede, threadpoolexecutor
from distributed.worker import thread_state
from distributed.worker_state_machine import SecedeEvent

from anymap._host.ticker import Ticker
from anymap._worker import task as _worker

_LOOK = 0.2
"""Seconds between two looks whether a map still waits for the tasks of this process."""


class DaskTask(NamedTuple):
    """A task that a thread of this process runs."""

    worker: Any
    key: Any

    def is_wanted(self) -> bool:
        """Tell whether a map still waits for it."""
        return not is_cancelled(self.worker.state.tasks.get(self.key))


def is_cancelled(state: Any) -> bool:
    """Tell whether no client waits for a task, by the worker's state of it; a task that runs is not forgotten before it ends."""
    return state is not None and state.state == "cancelled"


def running() -> DaskTask | None:
    """Return the task that this thread runs. That of a process which was forked there runs none."""
    try:
        worker = get_worker()
    except ValueError:
        return None
    return DaskTask(worker, getattr(thread_state, "key", None)) if runs_here(worker.loop) else None


def runs_here(loop: Any) -> bool:
    """Tell whether the thread that runs an event loop is in this process: a fork has the loop, but not the thread."""
    loop = loop.asyncio_loop
    return not loop.is_running() or loop._thread_id in sys._current_frames()


# --- places -----------------------------------------------------------------------------------------------------------


class _Place:
    """That of a thread among those that take this worker's tasks, while it runs one of ours."""

    def __init__(self, task: DaskTask) -> None:
        self.task = task
        self._executor: Any = getattr(threadpoolexecutor.thread_state, "executor", None)
        """``None``: not dask's own, and nothing is known of its places."""
        self._thread = threading.current_thread()
        self._began = time.time()
        self._is_others = False
        self._closed = False

    def look(self) -> None:
        """Give it away if no client waits for the task any more."""
        if not self.task.is_wanted():
            self.give_away()

    def give_away(self) -> None:
        """Do for the task's thread what :func:`distributed.secede` does for the one that calls it."""
        with threadpoolexecutor.threads_lock:
            if self._closed or self._executor is None:
                return
            self._fill()
            if self._is_others:
                return
            self._is_others = True
            now = time.time()
            stimulus: Any = SecedeEvent(
                key=self.task.key, compute_duration=now - self._began, stimulus_id=f"secede-{now}"
            )
            # Under the lock, as it must not come after the task's end: the worker would end of it.
            self.task.worker.loop.add_callback(self.task.worker.handle_stimulus, stimulus)

    def take_back(self) -> None:
        """Rejoin the pool when another task has ended, unless the place was given away."""
        if self._is_others:
            return
        rejoin()
        with threadpoolexecutor.threads_lock:
            if self._is_others:  # by now
                self._fill()

    def close(self) -> None:
        """The task has ended: a thread that has no place is to end, too."""
        with threadpoolexecutor.threads_lock:
            self._closed = True
            if self._executor is not None and self._thread not in self._executor._threads:
                threadpoolexecutor.thread_state.proceed = False

    def _fill(self) -> None:
        self._executor._threads.discard(self._thread)
        self._executor._adjust_thread_count()


_here = threading.local()
"""The place of this thread."""
_looks = Ticker(_Place.look, _LOOK, "anymap-places")


def run_apart(*arguments: Any) -> bytes:
    """Do what :func:`anymap._worker.task.run_apart` does, in a place that others get when no client waits for it any more."""
    task = running()
    if task is None:
        return _worker.run_apart(*arguments)
    place = _here.place = _Place(task)
    try:
        with _looks.visiting(place):
            return _worker.run_apart(*arguments)
    finally:
        place.close()
        _here.place = None


def leave_place() -> bool:
    """Leave this worker's slot to other tasks, maybe those that are waited for; return whether this thread had one."""
    executor = getattr(threadpoolexecutor.thread_state, "executor", None)
    if executor is None or threading.current_thread() not in executor._threads:
        return False
    try:
        secede()
    except KeyError:  # just now it was given away
        return False
    return True


def come_back() -> None:
    """Take a slot again. That takes until another task of this worker has ended."""
    place: _Place | None = getattr(_here, "place", None)
    if place is None:
        rejoin()
    else:
        place.take_back()


# --- the way home -----------------------------------------------------------------------------------------------------


class Topic(NamedTuple):
    """A channel: workers log events under a topic, which their scheduler passes on to the client that subscribed to it."""

    name: str
    map_id: str

    def connect(self) -> _Line:
        return _Line(self, _here.place)


class _Line:
    """One task's end of it."""

    def __init__(self, topic: Topic, place: _Place) -> None:
        self._topic = topic
        self._place = place

    def send(self, message: bytes) -> None:
        self._place.task.worker.log_event(self._topic.name, [self._topic.map_id, message])

    def is_wanted(self) -> bool:
        return self._place.task.is_wanted()

    def step_aside(self) -> None:
        self._place.give_away()
