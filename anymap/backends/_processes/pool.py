"""Worker processes of our own: started when needed, watched, kept warm, and shared by all maps of one specification.

One thread per pool starts the workers, reads their answers and sees their deaths. A death costs the task that ran, no
other. What runs next is for the leases of the maps to say.
"""

from __future__ import annotations

import pickle
import selectors
import socket
import threading
import time
from concurrent.futures import InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from anymap._host import framing, lifecycle
from anymap._host.descriptors import Descriptor, Selector
from anymap.backends._processes.leases import Leases
from anymap.backends._processes.worker import Worker
from anymap.backends.base import ChunkLost

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from anymap._worker.protocol import Answer
    from anymap._worker.start import Process
    from anymap.backends._processes.leases import Job, Lease

_TICK, _IDLE_TICK = 0.1, 1.0
"""Seconds between two looks at the workers: while there is work, and while there is none."""
_GRACE = 0.2
"""Seconds that an abandoned task has to end by itself: it stops after its item, and that spares its worker."""


class Pool:
    """Workers that are started alike."""

    def __init__(
        self,
        start: Callable[[socket.socket], Process],
        *,
        init_message: bytes | None,
        keep: bool,
        max_items: int | None = None,
    ) -> None:
        """``start`` makes a process that serves the socket it is given, and ``init_message`` is its first message.

        ``keep`` idle ones for later maps. One that has run ``max_items`` items, and it runs no more, is replaced.
        """
        self._start = start
        self._init_message = init_message
        self._keep = keep
        self._max_items = max_items
        self.idle_timeout = 0.0
        """Seconds after which a worker without work ends."""
        self._lock = threading.RLock()
        self._workers: dict[int, Worker] = {}
        self._leaving: list[Worker] = []
        self._leases = Leases()
        self._selector = Selector()
        self._wake_up, self._woken = socket.socketpair()
        self._descriptor = Descriptor(self._wake_up.fileno())
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._closed = False
        self._look_at = time.monotonic() + _TICK
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="anymap-pool", daemon=True)
        self._thread.start()

    # --- called by the maps ---------------------------------------------------------------------------------------

    def lease(self, workers: int, *, asked: bool) -> Lease | None:
        """Return a new lease; ``None`` if the pool has just closed. ``asked``: see :meth:`Leases.open`."""
        with self._lock:
            return None if self._closed or not self._has_its_lines() else self._leases.open(self, workers, asked=asked)

    @property
    def idle(self) -> bool:
        """No map has a lease."""
        return not self._leases

    def add(self, job: Job) -> None:
        with self._lock:
            if self._closed:
                raise self._why_closed()
            self._check_lines()
            self._leases.add(job)
            self._assign()
            if job.lease.waits() and len(self._workers) < self._leases.most_workers():
                self._wake()

    def kill(self, pid: int, lease: Lease) -> None:
        with self._lock:
            for worker in self._workers.values():
                if worker.process.pid == pid and worker.job is not None and worker.job.lease is lease:
                    worker.kill()

    def end(self, lease: Lease) -> None:
        """Take a lease back. What it has running is given a moment, then killed."""
        with self._lock:
            self._leases.close(lease)
            running = [job for worker in self._workers.values() if (job := worker.job) and job.lease is lease]
            for job in running:
                job.kill_at = time.monotonic() + _GRACE
            if not running and self._keep:
                return  # the workers rest, and the thread need not hear of it
            self._look_at = 0.0
        self._wake()

    def close(self) -> None:
        """End all workers, busy or idle, and return when they have ended."""
        with self._lock:
            self._closed = True
        self._wake()
        if self._thread is not threading.current_thread():
            self._thread.join()

    # --- under the lock -------------------------------------------------------------------------------------------

    def _assign(self) -> None:
        """Give idle workers what is pending."""
        for worker in [worker for worker in self._workers.values() if worker.job is None]:
            job = self._leases.next()
            if job is None:
                return
            self._send(worker, job)

    def _send(self, worker: Worker, job: Job) -> None:
        worker.job = job
        job.lease.quota.running += 1
        # A worker that is gone is found out by the pool's thread, as any other death.
        with suppress(OSError):
            framing.send(worker.line.fileno(), job.data)

    def _wake(self) -> None:
        if self._has_its_lines():
            with suppress(OSError):
                self._wake_up.send(b"\0")

    def _has_its_lines(self) -> bool:
        """Tell whether the program has not closed our descriptors; of all of them, one is looked at."""
        return self._descriptor.is_ours()

    def _check_lines(self) -> None:
        if not self._has_its_lines():
            raise RuntimeError(
                "this program has closed file descriptors that it had not opened (os.closerange?), among them those to the "
                "worker processes: their map ends, and the next one starts others"
            )

    # --- the pool's thread ----------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while not self._closed:
                self._step()
        except BaseException as exc:  # noqa: BLE001 - the map that waits for an answer must get it
            self._failed = exc
        finally:
            self._end_all()

    def _step(self) -> None:
        ready = self._selector.select(_TICK if self._is_busy() else _IDLE_TICK)
        self._check_lines()
        for key, _ in ready:
            if key.fileobj is self._woken:
                self._woken.recv(4096)
            else:
                self._receive(key.data)
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _TICK
            self._look_after_workers()
            self._close_if_deserted()
        self._start_missing()

    def _is_busy(self) -> bool:
        with self._lock:
            pending = any(lease.pending for lease in self._leases)
            return pending or any(worker.job is not None for worker in self._workers.values())

    def _close_if_deserted(self) -> None:
        with self._lock:
            self._closed = self._closed or not (self._workers or self._leases or self._leaving)

    def _receive(self, worker: Worker) -> None:
        data = framing.receive(worker.line.fileno())
        if data is None:
            self._reap(worker)
            return
        answer = _loaded(data)
        # As large as the answer, whose values are about to be loaded.
        del data
        with self._lock:
            job = self._release(worker)
            worker.ran += getattr(answer, "done", 0)
            if self._is_spent(worker, answer):
                self._dismiss(worker)
            self._assign()
        if job is not None:
            _finish(job.future, answer)

    def _release(self, worker: Worker) -> Job | None:
        job, worker.job, worker.idle_since = worker.job, None, time.monotonic()
        if job is not None:
            job.lease.quota.running -= 1
        return job

    def _is_spent(self, worker: Worker, answer: Any) -> bool:
        if self._max_items is not None and worker.ran >= self._max_items:
            return True
        # What there was no memory for may be what it has leaked, or a limit that was set in it.
        return any(raised.type_name.endswith("MemoryError") for _, raised, _ in getattr(answer, "failures", ()))

    def _dismiss(self, worker: Worker) -> None:
        """Let an idle worker go: it ends when we hang up."""
        self._workers.pop(worker.process.pid)
        worker.idle_since = time.monotonic()
        self._hang_up(worker)
        self._leaving.append(worker)

    def _hang_up(self, worker: Worker) -> None:
        self._selector.unregister(worker.line)
        if self._has_its_lines():
            with suppress(OSError):  # it is gone
                # A fork of ours may have the line too.
                worker.line.shutdown(socket.SHUT_RDWR)
        self._close_line(worker.line)

    def _close_line(self, line: socket.socket) -> None:
        if self._has_its_lines():
            line.close()
        else:
            line.detach()

    def _reap(self, worker: Worker) -> None:
        """See to it that the process is gone, and tell the thread that waits for it."""
        exitcode, job = self._take_out(worker)
        with self._lock:
            self._assign()  # its map may have a turn for another one now
        if job is not None:
            dead = {worker.process.pid: exitcode}
            _finish(job.future, ChunkLost(f"worker process {worker.process.pid} ended", dead))

    def _take_out(self, worker: Worker) -> tuple[int, Job | None]:
        """End a process; return its exit code and what it was busy with."""
        worker.kill()
        exitcode = worker.process.wait()
        with self._lock:
            job = self._release(worker)
            self._workers.pop(worker.process.pid, None)
            self._hang_up(worker)
        return exitcode, job

    def _look_after_workers(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers.values()):
            job = worker.job
            if worker.process.poll() is not None:
                # Its answer may have been sent before it died, and may be all there.
                self._receive_last(worker)
            elif job is not None and job.kill_at is not None and now > job.kill_at:
                worker.kill()
            elif job is None and (not self._keep or now - worker.idle_since > self.idle_timeout):
                with self._lock:
                    if worker.job is None and len(self._workers) > self._leases.most_workers():
                        self._dismiss(worker)
        for worker in self._leaving:
            if worker.is_overdue():
                worker.kill()
        self._leaving = [worker for worker in self._leaving if worker.process.poll() is None]

    def _receive_last(self, worker: Worker) -> None:
        worker.line.setblocking(False)
        self._receive(worker)
        if worker.process.pid in self._workers:
            self._reap(worker)

    def _start_missing(self) -> None:
        while True:
            with self._lock:
                if not self._leases.want_another(len(self._workers)):
                    return
            self._start_one()

    def _start_one(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            process = self._start(theirs)
        finally:
            self._close_line(theirs)
        worker = Worker(process, ours)
        if self._init_message is not None:
            # As in sending a task: if it is gone already, that is found out.
            with suppress(OSError):
                framing.send(ours.fileno(), self._init_message)
        with self._lock:
            self._workers[process.pid] = worker
            self._selector.register(ours, selectors.EVENT_READ, worker)
            self._assign()

    def _why_closed(self) -> BaseException:
        return self._failed or lifecycle.during_a_map()

    def _end_all(self) -> None:
        with self._lock:
            self._closed = True
            unfinished = [job for lease in self._leases for job in lease.pending]
            unfinished += [worker.job for worker in self._workers.values() if worker.job is not None]
        try:
            self._end_workers()
        finally:
            for job in unfinished:
                _finish(job.future, self._why_closed())
            self._close_descriptors()

    def _end_workers(self) -> None:
        for worker in list(self._workers.values()):
            if worker.job is None:
                with self._lock:
                    self._dismiss(worker)
            else:
                self._take_out(worker)
        for worker in self._leaving:
            while worker.process.poll() is None and not worker.is_overdue():
                time.sleep(0.001)
            worker.kill()
            worker.process.wait()

    def _close_descriptors(self) -> None:
        self._selector.close()
        # Last the one that tells whether the others are ours.
        for end in (self._woken, self._wake_up):
            self._close_line(end)

    def leave_to_parent(self) -> None:
        """In a fork: close its copies of the descriptors, not at some later time, when their numbers are of other files."""
        for end in (self._wake_up, self._woken, *(worker.line for worker in self._workers.values())):
            end.close()


def _loaded(data: bytearray) -> Any:
    """Return an answer, or why it cannot be loaded: that ends one map, and not all that the pool serves."""
    try:
        return pickle.loads(data)
    except BaseException as exc:  # noqa: BLE001 - the map must hear of it
        return exc


def _finish(future: Future[Answer], outcome: Any) -> None:
    # It may have been cancelled: no map waits for it then.
    with suppress(InvalidStateError):
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
