"""Maps on ipyparallel: on the engines of a client, or on a cluster of its own, which is kept between maps."""

from __future__ import annotations

import os
import threading
from typing import Any

from ipyparallel import Client, Cluster, RemoteError

from anymap.backends import ExecutorBackend, Traits, at_shutdown

lock, kept = threading.Lock(), {}


class IPyParallel(ExecutorBackend):
    """The engines of ``client``, wherever they are; else a cluster of its own on this host, whose dead engines are replaced."""

    name = "ipyparallel"
    traits = Traits(remote=True, borrowed=True)

    def __init__(self, client: Client | None = None, *, ship_modules: tuple[str, ...] = ()) -> None:
        super().__init__(ship_modules=ship_modules)
        self._client, self._own = client, None

    def start(self, workers: int | None) -> Any:
        if self._client is None:
            self.traits, count = Traits(kills=True), workers or os.cpu_count() or 1
            with lock:
                if count not in kept:
                    kept[count] = Own(count)
                    at_shutdown(end)
                self._own, self._client = kept[count], kept[count].client
        return self._client.executor()

    def stop(self, executor: Any, *, abandon: bool) -> None:
        """Leave the engines to later maps."""

    def is_worker_lost(self, exc: BaseException) -> bool:
        return isinstance(exc, RemoteError) and exc.ename == "EngineError"

    def capacity(self) -> int:
        return min(super().capacity(), len(self._client.ids))

    def poll(self) -> None:
        if self._own is not None:
            self._own.replace_the_dead()


class Own:
    def __init__(self, count: int) -> None:
        self.count = self.started = count
        self.cluster, self.seen = Cluster(n=count, log_level=40), set()
        self.cluster.start_cluster_sync()
        self.client = self.cluster.connect_client_sync()
        self.client.wait_for_engines(count, interactive=False)

    def replace_the_dead(self) -> None:
        with lock:
            self.seen.update(self.client.ids)
            dead = len(self.seen) - len(self.client.ids)
            if missing := self.count + dead - self.started:
                self.cluster.start_engines_sync(n=missing)
                self.started += missing

    def end(self) -> None:
        self.client.close()
        self.cluster.stop_cluster_sync()


def end() -> None:
    while kept:
        kept.popitem()[1].end()
