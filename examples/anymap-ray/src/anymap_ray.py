"""Maps on Ray: on the cluster at an address, or on one of its own, which is kept between maps."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import ray
from ray import exceptions
from ray.util.queue import Queue

from anymap import BackendConnectionError
from anymap.backends import ExecutorBackend, Line, Traits, at_shutdown, run_task

lock, addresses = threading.Lock(), []


class Ray(ExecutorBackend):
    """The cluster that the program is connected to, else that at ``address``, else one of its own on this host."""

    name = "ray"
    traits = Traits(remote=True, live=True, kills=True)
    worker_lost = (exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.TaskCancelledError)

    def __init__(self, address: str | None = None, *, ship_modules: tuple[str, ...] = ()) -> None:
        super().__init__(ship_modules=ship_modules)
        self._address, self._queue = address, None

    def start(self, workers: int | None) -> SimpleNamespace:
        with lock:
            if not ray.is_initialized() or self._address not in {None, *addresses}:
                connect(self._address)
        if addresses == [None]:
            self.traits = Traits(kills=True)  # its own: all is on this host, and no channel is needed
        cpus = int(ray.cluster_resources()["CPU"])
        run = ray.remote(max_retries=0, num_cpus=min(1, cpus / (workers or cpus)))(run_task)
        return SimpleNamespace(submit=lambda _, data: as_job(run.remote(data)), _max_workers=workers or cpus)

    def stop(self, executor: SimpleNamespace, *, abandon: bool) -> None:
        if self._queue is not None:
            self.poll()  # what was told before the last answer came
            self._queue.shutdown(force=True)

    def kill_job(self, job: Any, pid: int) -> None:
        job.cancel()

    def channel(self, receive: Any) -> Channel:
        self._queue, self._receive = Queue(actor_options={"num_cpus": 0}), receive
        return Channel(self._queue)

    def poll(self) -> None:
        if self._queue is not None:
            for message in self._queue.get_nowait_batch(self._queue.qsize()):
                self._receive(message)


def as_job(task: ray.ObjectRef) -> Any:
    job = task.future()
    job.cancel = lambda: ray.cancel(task, force=True)
    return job


class Channel(Line):
    def __init__(self, queue: Queue) -> None:
        self.send = queue.put_nowait

    def connect(self) -> Line:
        return self


def connect(address: str | None) -> None:
    """Have a thread that lasts start Ray, whose processes end with the thread that has started them."""
    owner = ThreadPoolExecutor(1)
    try:
        owner.submit(ray.init, address or "local", log_to_driver=False).result()
    except (ConnectionError, RuntimeError) as exc:  # there is none, or the program is connected to another
        raise BackendConnectionError(f"no connection to Ray at {address}: {exc}") from exc
    addresses[:] = [address]
    at_shutdown(lambda: (ray.shutdown(), owner.shutdown(), addresses.clear()))
