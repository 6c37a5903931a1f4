"""What the maps of one client share: what is known of its cluster, and the news that reaches the client."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import time
import weakref
from typing import TYPE_CHECKING, Any

from anymap._errors import BackendConnectionError
from anymap._host import forks
from anymap._worker.protocol import dialect
from anymap.backends._dask import worker_slots
from anymap.backends._dask.in_task import Topic
from anymap.backends._dask.messages import Call
from anymap.backends._dask.mismatch import mismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client

    News = dict[str, Any]

_CHECK_INTERVAL = 1.0
"""Seconds between two looks at how many threads the workers have."""
_TOPIC = "all"
"""Where the scheduler says what happens to its workers."""


class Cluster:
    """What is known of a cluster: how many threads its workers have, the news of its scheduler, messages of tasks."""

    def __init__(self, client: Client) -> None:
        self.threads = 0
        self.listeners: list[Callable[[News], None]] = []
        self._client = client
        self._looked = time.monotonic()
        self._receivers: dict[str, Callable[[bytes], object]] = {}
        self._listen()

    # --- messages of tasks ----------------------------------------------------------------------------------------

    def open_channel(self, map_id: str, receive: Callable[[bytes], object]) -> Topic:
        """Have what the tasks of one map send handed to ``receive``, until the channel is closed."""
        # One topic for all maps of a client: the scheduler keeps the last messages of each for ever.
        topic = f"anymap-{self._client.id}"
        self._receivers[map_id] = receive
        if topic not in self._client._event_handlers:
            self._client.subscribe_topic(topic, _pass_on_to(self._client))
        return Topic(topic, map_id)

    def close_channel(self, map_id: str) -> None:
        self._receivers.pop(map_id, None)

    def receive(self, map_id: str, message: bytes) -> None:
        if (receiver := self._receivers.get(map_id)) is not None:
            receiver(message)

    # --- news of the scheduler ------------------------------------------------------------------------------------

    def _listen(self) -> None:
        # A client has one handler per topic. There may be one of the user's, or one may be set while the map lasts.
        handler = self._client._event_handlers.get(_TOPIC, _ignore)
        if handler != self._pass_on:
            self._former = handler
            self._client.subscribe_topic(_TOPIC, self._pass_on)

    def leave(self) -> None:
        handlers = self._client._event_handlers
        if handlers.get(_TOPIC) != self._pass_on:
            return
        # One must stay: the client complains of news that it has no handler for.
        handlers[_TOPIC] = self._former
        if self._former is _ignore:
            with contextlib.suppress(Exception):  # what a closed client raises has no type of its own
                self._client.unsubscribe_topic(_TOPIC)

    def _pass_on(self, event: tuple[float, Any]) -> Any:
        news = event[1]
        if isinstance(news, dict):
            for listener in tuple(self.listeners):
                listener(news)
            if news.get("action") in {"add-worker", "remove-worker"}:
                self._client.loop.add_callback(self._count)
        return self._former(event)

    # --- workers --------------------------------------------------------------------------------------------------

    def check_interval(self) -> None:
        """Count the threads anew if it is time to. The count is there a little later."""
        if time.monotonic() - self._looked > _CHECK_INTERVAL:
            self._looked = time.monotonic()
            self._listen()
            self._client.loop.add_callback(self._count)

    async def _count(self) -> None:
        with contextlib.suppress(OSError):  # the client finds out too
            running = await self._client.scheduler.ncores_running()
            self.threads = sum(running.values())
            await worker_slots.publish(self._client, running)

    def inspect(self, timeout: float) -> None:
        """Count the threads now, and see whether all workers can run what we send them."""
        where = self._client.scheduler.address
        try:
            answers = self._client.sync(self._inspect, timeout)
        except (OSError, TimeoutError) as exc:
            raise BackendConnectionError(f"the dask scheduler at {where} does not answer: {exc}") from exc
        for worker, answer in answers.items():
            if (fault := mismatch(answer, f"dask worker {worker}")) is not None:
                raise fault

    async def _inspect(self, limit: float) -> dict[str, Any]:
        running = await asyncio.wait_for(self._client.scheduler.ncores_running(), limit)
        self.threads = sum(running.values())
        await worker_slots.publish(self._client, running)
        greeted = _greeted.setdefault(self._client, set())
        strangers = [worker for worker in running if worker not in greeted]
        if not strangers:
            return {}
        init_message = pickle.dumps(Call(dialect))
        answers: dict[str, Any] = {}
        # One that is too busy to answer will be asked by its first task.
        with contextlib.suppress(TimeoutError):
            answering = self._client.run(pickle.loads, init_message, workers=strangers, on_error="return")
            answers = await asyncio.wait_for(answering, limit)
        greeted.update(worker for worker, answer in answers.items() if answer == dialect())
        return answers


def _pass_on_to(client: Client) -> Callable[[tuple[float, Any]], None]:
    # The client keeps it longer than one map lasts, and must not keep itself.
    ours = weakref.ref(client)

    def pass_on(event: tuple[float, Any]) -> None:
        known = ours()
        if known is not None and (cluster := _clusters.get(known)) is not None:
            cluster.receive(*event[1])

    return pass_on


def _ignore(_: object) -> None:
    pass


_greeted: weakref.WeakKeyDictionary[Client, set[str]] = weakref.WeakKeyDictionary()
_clusters: dict[Client, Cluster] = {}
_clusters_lock = forks.Lock()


# In a forked child the clients' threads are not there.
forks.in_child(_clusters.clear)


@contextlib.contextmanager
def watched(client: Client, timeout: float, listener: Callable[[News], None]) -> Iterator[Cluster]:
    """Share the watch over a client's cluster for as long as a map lasts."""
    with _clusters_lock:
        if client not in _clusters:
            _clusters[client] = Cluster(client)
        cluster = _clusters[client]
        cluster.listeners.append(listener)
    try:
        cluster.inspect(timeout)
        yield cluster
    finally:
        with _clusters_lock:
            cluster.listeners.remove(listener)
            if not cluster.listeners:
                del _clusters[client]
                cluster.leave()
