"""On a cluster of its own and on one at an address: the exam, deaths and deadlines."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["RAY_AUTH_MODE"] = "disabled"  # read by every process of Ray's; its clusters are this test's alone
import ray
from anymap_ray import Ray

import anymap
from anymap import BackendConnectionError, ItemTimeout, WorkerLost, pmap
from anymap.testing import BackendSuite

RAY = Path(sys.executable).with_name("ray")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Start a cluster of its own processes; give its address."""
    anymap.shutdown()
    head = ["--head", "--port=26379", "--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats"]
    # Not by `ray stop`, which would end every Ray of this host.
    with subprocess.Popen([RAY, "start", "--block", *head], stdout=subprocess.DEVNULL) as cluster:
        yield "127.0.0.1:26379"
        anymap.shutdown()
        cluster.terminate()


def die_at_three(item: int) -> int:
    if item == 3:
        os._exit(1)
    return item


def sleep_at_three(item: int) -> int:
    if item == 3:
        time.sleep(600)
    return item


def outcomes(backend: object) -> list[object]:
    died = pmap(die_at_three, range(8), backend=backend, workers=2, on_error="return")
    stuck = pmap(sleep_at_three, range(8), backend=backend, workers=2, timeout=2, on_error="return")
    return [type(died.pop(3)), died, type(stuck.pop(3)), stuck]


GOOD = [0, 1, 2, 4, 5, 6, 7]


def test_deaths_and_deadlines_cost_their_items_on_a_cluster_of_its_own() -> None:
    assert outcomes("ray") == [WorkerLost, GOOD, ItemTimeout, GOOD]
    anymap.shutdown()
    assert not ray.is_initialized()


def test_deaths_and_deadlines_cost_their_items_on_a_cluster_at_an_address(address: str) -> None:
    assert outcomes(Ray(address)) == [WorkerLost, GOOD, ItemTimeout, GOOD]
    with pytest.raises(BackendConnectionError):
        pmap(abs, [-1], backend=Ray("127.0.0.1:9"))
    anymap.shutdown()


class TestRay(BackendSuite):
    backend = "ray"


class TestRayAtAnAddress(BackendSuite):
    # The queue is read ten times a second: what an item shows last may come after its answer, as the README says.
    test_what_items_show_of_their_own_progress_arrives = None

    @pytest.fixture(autouse=True)
    def backend_at_the_address(self, address: str) -> None:
        self.backend = Ray(address)
