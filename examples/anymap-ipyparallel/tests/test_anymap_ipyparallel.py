"""On a cluster of its own and on the engines of a client: the exam, deaths and deadlines."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from ipyparallel import Client, Cluster

import anymap
from anymap import ItemTimeout, UnsupportedOption, WorkerLost, pmap
from anymap.testing import BackendSuite


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Start a cluster as its owner would; give a client of it."""
    cluster = Cluster(n=4, log_level=40)
    cluster.start_cluster_sync()
    client = cluster.connect_client_sync()
    client.wait_for_engines(4, interactive=False)
    yield client
    client.close()
    cluster.stop_cluster_sync()


def die_at_three(item: int) -> int:
    if item == 3:
        os._exit(1)
    return item


def sleep_at_three(item: int) -> int:
    if item == 3:
        time.sleep(600)
    return item


GOOD = [0, 1, 2, 4, 5, 6, 7]


def test_deaths_and_deadlines_cost_their_items_on_a_cluster_of_its_own() -> None:
    died = pmap(die_at_three, range(8), backend="ipyparallel", workers=2, on_error="return")
    stuck = pmap(sleep_at_three, range(8), backend="ipyparallel", workers=2, timeout=2, on_error="return")
    assert [type(died.pop(3)), died, type(stuck.pop(3)), stuck] == [WorkerLost, GOOD, ItemTimeout, GOOD]
    anymap.shutdown()


def test_a_client_is_known_as_an_engine_and_left_as_it_was(client: Client) -> None:
    assert pmap(lambda x: x * x, range(5), backend=client) == [0, 1, 4, 9, 16]
    with pytest.raises(UnsupportedOption, match="timeout"):
        pmap(abs, [-1], backend=client, timeout=1)
    # Some engines die of it before it is given up, and none is replaced.
    died = pmap(die_at_three, range(8), backend=client, on_error="return")
    assert [type(died.pop(3)), died] == [WorkerLost, GOOD]
    assert client[client.ids[0]].apply_sync(abs, -1) == 1


class TestIPyParallel(BackendSuite):
    backend = "ipyparallel"
    patience = 120
