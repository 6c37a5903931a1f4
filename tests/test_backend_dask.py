"""The dask backend: whose cluster it runs on, what it leaves there, and what it makes of deaths and lost schedulers."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import logging.handlers
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from dask import config as dask_config
from distributed import Client, LocalCluster, Security

import anymap
from anymap._config.scope import Inherited
from anymap._host import spill
from anymap._serialize import object_table, packing
from anymap._worker import protocol, spec
from anymap._worker.maps import serves
from anymap._worker.protocol import Answer, MapSpec
from anymap._worker.task import Task
from anymap.backends._dask import cluster_process, connection, local_cluster, submission
from anymap.backends.base import ChunkLost
from anymap.backends.dask import Dask
from tests import conftest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


pytestmark = [pytest.mark.full, pytest.mark.dask]

LONG = 60.0
"""Seconds after which what is waited for will not come any more, on a machine that is very busy."""
FOREVER = 600.0
TICK = 0.02


@pytest.fixture(scope="module", autouse=True)
def garbage_of_broken_connections() -> Iterator[None]:
    """Keep what these tests leave from being collected, for good, where that may crash.

    Of a dozen runs of all tests two ended so, on CPython 3.12.1, in the module after this one, which breaks connections by
    the dozen.
    """
    yield
    if conftest.COLLECTING_MAY_CRASH:
        gc.freeze()


# --- help ---------------------------------------------------------------------------------------------------------


def task_of(func: Callable[[Any], Any], *rows: Any) -> Task:
    """Make a task as the engine does."""
    classes = object_table.sender_table()
    function, packed = packing.pack_function(func, classes)[0], packing.pack(list(rows), classes)[0]
    spec = MapSpec(
        map_id=classes.map_id,
        function=packing.spill(function, None),
        star=False,
        board=None,
        channel=None,
        timeout=None,
        spool=None,
        parent=0,
        shares_memory=False,
        inherited=Inherited(),
    )
    return Task(spec, packing.spill(packed, None), len(rows), 0, None, dict(classes.blobs))


def values_of(answer: Answer) -> list[Any]:
    assert answer.broken is None
    assert not answer.failures
    values = packing.unpack(answer.values)
    return [values[position] for position in range(len(values))]


@pytest.fixture
def opened() -> Iterator[Callable[..., Dask]]:
    """Give a function that opens a backend, which is closed at the end of the test."""
    backends: list[Dask] = []

    def open_one(workers: int | None = None, **options: Any) -> Dask:
        backends.append(Dask(**options))
        backends[-1].open(workers)
        return backends[-1]

    yield open_one
    for backend in backends:
        backend.close(abandon=True)


def until(condition: Callable[[], Any], *, limit: float = LONG) -> Any:
    """Wait for something that nobody tells of."""
    end = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(TICK)
    return found


def has_capacity(backend: Dask, workers: int) -> bool:
    backend.poll()
    return backend.capacity() == workers


class Cluster:
    """A scheduler and workers by dask's command line, each a process of its own."""

    def __init__(self, folder: Path, *security: str) -> None:
        self.file = str(folder / "scheduler.json")
        self._folder = folder
        self._security = security
        self._processes: list[psutil.Popen] = []
        self.scheduler = self._run("scheduler", "--port", "0", "--dashboard-address", "127.0.0.1:0")
        self.address = until(self._read_address)

    def add_worker(self, *options: str) -> psutil.Popen:
        return self._run("worker", "--nthreads", "1", "--local-directory", str(self._folder), *options)

    def add_settled_workers(self, count: int, *options: str) -> None:
        """Add workers that may be killed: a nanny whose worker dies before she has seen it run gives up for good."""
        self.add_worker("--nworkers", str(count), *options)
        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=LONG)
            # By a lambda, which travels as it is: a nanny cannot import this module.
            states = lambda: client.run(lambda dask_worker: dask_worker.status.name, nanny=True)  # noqa: E731
            until(lambda: set(states().values()) == {"running"})

    def end(self) -> None:
        for process in self._processes:
            family = [*process.children(recursive=True), process] if process.is_running() else []
            for one in family:
                one.kill()
            process.wait()

    def _run(self, role: str, *options: str) -> psutil.Popen:
        environment = {**os.environ, "PYTHONPATH": str(Path(anymap.__file__).parents[1])}
        command = [sys.executable, "-m", "dask", role, "--host", "127.0.0.1", "--scheduler-file", self.file]
        with (self._folder / "log").open("ab") as log:
            self._processes.append(
                psutil.Popen([*command, *self._security, *options], env=environment, stdout=log, stderr=log)
            )
        return self._processes[-1]

    def _read_address(self) -> str:
        try:
            return str(json.loads(Path(self.file).read_text())["address"])
        except (OSError, ValueError):
            return ""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Run a scheduler without workers."""
    made = Cluster(tmp_path)
    yield made
    made.end()


@pytest.fixture
def local_client() -> Iterator[Client]:
    """Give the default client of a cluster in this process, with two threads."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0") as local,
        Client(local) as client,
    ):
        yield client


def run_script(*arguments: str, folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(anymap.__file__).parents[1])}
    return subprocess.run(
        # What dask leaves unclosed as it ends is not ours.
        [sys.executable, "-W", "error", "-W", "ignore:unclosed <socket:ResourceWarning", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
        **options,
    )


# --- a cluster of our own -----------------------------------------------------------------------------------------

SCRIPT = """
import os, anymap
print("this line runs once")
class Pair:
    seen = 0
    def __init__(self, x): self.x = x
def pair(x):
    Pair.seen += 1
    return Pair(x), os.getpid()
found = anymap.pmap(pair, range(20), backend="dask", workers=2)
print([one.x for one, _ in found] == list(range(20)), all(type(one) is Pair for one, _ in found), Pair.seen)
print(os.getpid() not in {pid for _, pid in found})
"""


@pytest.mark.parametrize("how", ["file", "command", "stdin"])
def test_a_script_needs_no_guard_and_writes_nothing_to_stderr(how: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    arguments = {"file": ["script.py"], "command": ["-c", SCRIPT], "stdin": ["-"]}[how]
    done = run_script(*arguments, folder=tmp_path, input=SCRIPT if how == "stdin" else "")
    assert (done.stdout.split("\n"), done.stderr) == (["this line runs once", "True True 0", "True", ""], "")


def test_our_own_cluster_is_kept_for_the_next_map_and_ends_by_shutdown(opened: Callable[..., Dask]) -> None:
    pids = [{values_of(opened(1).submit(task_of(lambda _: os.getpid(), 0)).result(LONG))[0]} for _ in range(2)]
    assert pids[0] == pids[1]
    anymap.shutdown()
    assert not psutil.pid_exists(pids[0].pop())


def test_our_own_cluster_ends_when_nobody_needs_it_any_more(
    opened: Callable[..., Dask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_cluster, "_TICK", TICK)
    anymap.shutdown()
    with anymap.using(idle_timeout=TICK):
        [pid] = anymap.pmap(lambda _: os.getpid(), [0], backend="dask", workers=1)
    until(lambda: not psutil.pid_exists(pid))
    assert anymap.pmap(lambda _: os.getpid(), [0], backend="dask", workers=1) != [pid]


def test_a_fault_in_what_watches_the_workers_ends_our_own_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def nothing(_: object) -> None:
        pass

    async def fault(_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(spill, "make_folder", lambda: str(tmp_path))
    monkeypatch.setattr(cluster_process._Cluster, "_start_worker", lambda _: None)
    monkeypatch.setattr(cluster_process._Cluster, "_start_scheduler", nothing)
    monkeypatch.setattr(cluster_process._Cluster, "_watch_workers", fault)
    caller, own = socket.socketpair()
    with caller, own:
        cluster = cluster_process._Cluster(own.fileno(), spec.current(1), 1)
        with pytest.raises(RuntimeError, match="a fault of ours"):
            asyncio.run(asyncio.wait_for(cluster.serve(), LONG))


def test_our_own_cluster_serves_a_thread_that_runs_an_event_loop() -> None:
    async def block() -> list[int]:
        return anymap.pmap(abs, [-1], backend="dask", workers=1)

    assert asyncio.run(block()) == [1]


def test_our_own_workers_find_the_caller_s_modules_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Callable[..., Dask]
) -> None:
    (tmp_path / "only_here.py").write_text("def where(_):\n    import os\n    return os.getcwd()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    import only_here  # type: ignore[import-not-found]

    assert values_of(opened(1).submit(task_of(only_here.where, 0)).result(LONG)) == [str(tmp_path)]


def test_our_own_cluster_never_starts_by_itself_what_a_dead_worker_had(
    tmp_path: Path, opened: Callable[..., Dask]
) -> None:
    def die(marks: str) -> None:
        with open(marks, "a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)

    marks = tmp_path / "marks"
    backend = opened(2)
    lost = backend.submit(task_of(die, str(marks)))
    assert isinstance(lost.exception(LONG), ChunkLost)
    # Both have a worker again, and neither has seen that task.
    until(lambda: has_capacity(backend, 2))
    assert values_of(backend.submit(task_of(abs, -1)).result(LONG)) == [1]
    assert marks.read_text() == "x"


def test_our_own_cluster_that_is_killed_ends_the_map_and_the_next_one_starts_another(
    opened: Callable[..., Dask],
) -> None:
    backend = opened(1)
    scheduler = values_of(backend.submit(task_of(lambda _: os.getppid(), 0)).result(LONG))[0]
    running = backend.submit(task_of(time.sleep, FOREVER))
    loops = client_loops()
    os.kill(scheduler, signal.SIGKILL)
    assert isinstance(running.exception(10), anymap.BackendConnectionError)
    assert anymap.pmap(abs, [-1], backend="dask", workers=1) == [1]
    # The thread of the lost client has ended, and there is that of the new one.
    until(lambda: len(client_loops() & loops) < len(loops))


def test_a_shutdown_of_our_own_cluster_during_a_map_is_no_items_fault(tmp_path: Path) -> None:
    def stay(path: Path) -> None:
        path.touch()
        time.sleep(FOREVER)

    files = [tmp_path / f"{number}" for number in range(4)]
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(
            lambda: anymap.pmap(stay, files, backend="dask", workers=1, chunksize=1, on_error="return")
        )
        until(lambda: any(tmp_path.iterdir()))
        anymap.shutdown()
        exc = running.exception(LONG)
    assert (type(exc), str(exc)) == (RuntimeError, "anymap was shut down while a map was running")


def client_loops() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "IO loop"}


def test_nothing_outlives_a_caller_who_is_killed(tmp_path: Path) -> None:
    script = f"""
import os, sys, time, anymap
def stay(name):
    open(os.path.join({str(tmp_path)!r}, f"{{os.getpid()}}.{{os.getppid()}}"), "x").close()
    time.sleep({FOREVER})
anymap.pmap(stay, range(2), backend="dask", workers=2, chunksize=1)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(anymap.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", script], env=environment) as caller:
        marks = until(lambda: len(found := list(tmp_path.iterdir())) == 2 and found)
        pids = {int(pid) for mark in marks for pid in mark.name.split(".")}
        assert len(pids) == 3
        caller.kill()
    until(lambda: not any(map(psutil.pid_exists, pids)), limit=3)


def test_ctrl_c_ends_the_caller_quietly(tmp_path: Path) -> None:
    script = f"""
import os, time, anymap
def stay(x):
    open(os.path.join({str(tmp_path)!r}, str(x)), "x").close()
    time.sleep({FOREVER})
try:
    anymap.pmap(stay, range(2), backend="dask", workers=2, chunksize=1)
except KeyboardInterrupt:
    print("interrupted")
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(anymap.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as caller:
        until(lambda: len(list(tmp_path.iterdir())) == 2)
        os.killpg(caller.pid, signal.SIGINT)
        assert caller.communicate(timeout=LONG) == (b"interrupted\n", b"")


# --- which cluster ------------------------------------------------------------------------------------------------


def test_the_client_in_scope_is_used(local_client: Client) -> None:
    assert set(anymap.pmap(lambda _: os.getpid(), range(4), backend="dask")) == {os.getpid()}
    assert local_client.status == "running"


def test_workers_in_this_process_leave_its_logging_alone(local_client: Client) -> None:
    handlers, seen = logging.root.handlers[:], logging.handlers.QueueHandler(queue.SimpleQueue())
    logger = logging.getLogger("work")
    logger.addHandler(seen)
    try:
        for backend in "dask", "serial", "threads":
            anymap.pmap(lambda _: logging.getLogger("work").warning("here"), [0], backend=backend)
    finally:
        logger.removeHandler(seen)
    records = [seen.queue.get_nowait() for _ in range(seen.queue.qsize())]
    assert [(record.msg, record.anymap_item, record.anymap_backend) for record in records] == [
        ("here", 0, "dask"),
        ("here", 0, "serial"),
        ("here", 0, "threads"),
    ]
    assert logging.root.handlers == handlers
    assert not serves()


def test_a_client_that_is_given_comes_before_the_one_in_scope(local_client: Client, dask_cluster: str) -> None:
    with Client(scheduler_file=dask_cluster, set_as_default=False) as client:
        pids = anymap.pmap(lambda _: os.getpid(), range(4), backend=Dask(client=client))
    assert os.getpid() not in pids


def test_a_user_s_cluster_of_processes_is_used(tmp_path: Path) -> None:
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", local_directory=tmp_path
        ) as local,
        Client(local) as client,
    ):
        pids = set(client.run(os.getpid).values())
        assert set(anymap.pmap(lambda _: os.getpid(), range(20), backend="dask")) <= pids


def test_the_address_and_the_scheduler_s_file_lead_to_the_same_cluster(dask_cluster: str) -> None:
    address = json.loads(Path(dask_cluster).read_text())["address"]
    for backend in (Dask(address=address), Dask(scheduler_file=dask_cluster)):
        assert anymap.pmap(abs, range(-3, 0), backend=backend) == [3, 2, 1]


def test_dask_s_configuration_leads_to_a_cluster_too(dask_cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = json.loads(Path(dask_cluster).read_text())["address"]
    with dask_config.set({"scheduler-address": address}):
        backend = Dask()
        backend.open(None)
    assert backend._client.scheduler.address == address
    backend.close(abandon=False)


def test_a_map_in_a_dask_task_runs_beside_it(tmp_path: Path) -> None:
    def outer(n: int) -> list[int]:
        return anymap.pmap(lambda x: x * n, range(3), backend="dask")

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", local_directory=tmp_path
        ) as local,
        Client(local) as client,
    ):
        # One thread, and two tasks that wait for others: each must leave it to those it waits for.
        assert client.gather(client.map(outer, [10, 20])) == [[0, 10, 20], [0, 20, 40]]


def test_maps_begin_in_all_threads_of_a_worker_at_once(cluster: Cluster) -> None:
    cluster.add_settled_workers(1, "--nthreads", "4")
    # The worker has no client yet; the first that asks for it is not the only one.
    found = anymap.pmap(
        lambda x: anymap.pmap(abs, [x], backend="dask"), [-1] * 8, backend=Dask(address=cluster.address), chunksize=1
    )
    assert found == [[1]] * 8


@pytest.mark.timeout(60)
def test_two_maps_that_an_item_reads_by_turns_share_the_worker(cluster: Cluster) -> None:
    def outer(_: int) -> list[int]:
        with (
            anymap.pmap(abs, [-1, -2], backend="dask", lazy=True, chunksize=1) as first,
            anymap.pmap(abs, [-3, -4, -5], backend="dask", lazy=True, chunksize=1) as second,
        ):
            # The end of the first has dask take its thread back, which is in the way of the second.
            return [next(first), next(second), *first, *second]

    cluster.add_settled_workers(1)
    assert anymap.pmap(outer, [0], backend=Dask(address=cluster.address)) == [[1, 3, 2, 4, 5]]


@pytest.mark.timeout(60)
def test_an_item_that_was_late_while_its_map_ran_gets_no_place_back(cluster: Cluster, tmp_path: Path) -> None:
    late, back, over = (tmp_path / name for name in ("late", "back", "over"))

    def stick(_: int) -> None:
        with suppress(anymap.BackendConnectionError):  # that nobody waits for it any more
            anymap.pmap(lambda _: until(late.exists), [0], backend="dask")
        back.touch()
        until(over.exists)

    cluster.add_settled_workers(1)
    backend = Dask(address=cluster.address)
    [error] = anymap.pmap(stick, [0], backend=backend, timeout=0.3, on_error="return")
    assert isinstance(error, anymap.ItemTimeout)
    late.touch()
    until(back.exists)
    assert anymap.pmap(abs, [-1], backend=backend) == [1]
    over.touch()


def take_a_while(x: int) -> int:
    time.sleep(0.3)  # so that the map looks several times whether somebody waits for it
    return x


class Actor:
    def map(self) -> list[int]:
        return anymap.pmap(take_a_while, range(2), backend="dask")


kept: list[Any] = []


def begin_a_map() -> None:
    kept.append(anymap.pmap(take_a_while, range(8), backend="dask", lazy=True, chunksize=1))
    next(kept[0])


def read_it() -> list[int]:
    with kept.pop() as results:
        return list(results)


def test_a_map_in_an_actor_is_wanted(local_client: Client) -> None:
    assert local_client.submit(Actor, actor=True).result(LONG).map().result(LONG) == [0, 1]


def test_a_map_that_another_task_goes_on_with_is_wanted(local_client: Client) -> None:
    local_client.submit(begin_a_map).result(LONG)
    assert local_client.submit(read_it).result(LONG) == list(range(1, 8))


def test_a_map_in_an_item_that_nobody_waits_for_ends(cluster: Cluster, tmp_path: Path) -> None:
    began, ended, over = (tmp_path / name for name in ("began", "ended", "over"))

    def inner(x: int) -> None:
        (tmp_path / f"ran.{x}").touch()
        began.touch()
        until(over.exists)

    def outer(x: int) -> None:
        if x == 0:
            until(began.exists)
            raise ValueError(x)
        try:
            anymap.pmap(inner, range(20), backend="dask", chunksize=1)
        except anymap.BackendConnectionError:
            ended.touch()

    cluster.add_settled_workers(2)
    with pytest.raises(ValueError, match="0"):
        anymap.pmap(outer, range(2), backend=Dask(address=cluster.address), chunksize=1)
    until(ended.exists)
    with Client(cluster.address, set_as_default=False) as client:
        until(lambda: client.run_on_scheduler(lambda dask_scheduler: not dask_scheduler.tasks))
        ran = set(tmp_path.glob("ran.*"))
        over.touch()
        assert client.gather([client.submit(abs, -1, workers=[at], pure=False) for at in client.nthreads()]) == [1, 1]
        assert set(tmp_path.glob("ran.*")) == ran


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("whose", "logs"), [("ours", None), ("others'", None), ("others'", "off")])
def test_what_a_map_that_failed_has_left_keeps_no_place(
    whose: str, logs: str | None, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    stuck, over = tmp_path / "stuck", tmp_path / "over"

    def stick(x: int) -> None:
        if x == 0:
            until(stuck.exists)
            raise ValueError(x)
        (tmp_path / f"pid.{os.getpid()}").touch()
        stuck.touch()
        until(over.exists)

    backend = Dask()
    if whose == "others'":
        cluster: Cluster = request.getfixturevalue("cluster")
        cluster.add_settled_workers(2)
        backend = Dask(address=cluster.address)
    options: dict[str, Any] = {"backend": backend, "workers": 2, "chunksize": 1}
    events: list[Any] = []
    with anymap.using(**({"logs": logs} if logs else {})):
        with pytest.raises(ValueError, match="0"):
            anymap.pmap(stick, range(2), **options)
        assert anymap.pmap(abs, range(-20, 0), progress=events.append, **options) == list(range(20, 0, -1))
    assert events[-1].lost == 0
    if whose == "ours":  # a worker that has nothing else to do is replaced
        [mark] = tmp_path.glob("pid.*")
        until(lambda: not psutil.pid_exists(int(mark.suffix[1:])))
    over.touch()


@pytest.mark.timeout(60)
def test_on_our_own_cluster_a_late_item_takes_the_items_of_its_map_along(tmp_path: Path) -> None:
    over = tmp_path / "over"

    def outer(_: int) -> list[Any]:
        return anymap.pmap(lambda _: until(over.exists), range(4), backend="dask", chunksize=1)

    [error] = anymap.pmap(outer, [0], backend="dask", workers=2, timeout=1, on_error="return")
    assert isinstance(error, anymap.ItemTimeout)
    assert anymap.pmap(abs, range(-20, 0), backend="dask", workers=2, chunksize=1) == list(range(20, 0, -1))
    over.touch()


def test_a_loop_that_the_map_would_block_is_refused() -> None:
    async def block() -> None:
        cluster = LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0", asynchronous=True)
        async with cluster, Client(cluster, asynchronous=True) as client:
            with pytest.raises(anymap.UnsupportedOption, match=r"asyncio\.to_thread"):
                anymap.pmap(abs, [-1], backend=Dask(client=client))
            assert await asyncio.to_thread(anymap.pmap, abs, [-1], backend=Dask(client=client)) == [1]

    asyncio.run(block())


def test_options_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(anymap.ConfigError, match="one of address, scheduler_file and client"):
        Dask(address="tcp://127.0.0.1:1", scheduler_file="here")
    with pytest.raises(anymap.ConfigError, match="security only together with"):
        Dask(security=Security())


# --- capacity -----------------------------------------------------------------------------------------------------


def test_workers_bounds_the_share_of_somebody_else_s_cluster(local_client: Client, opened: Callable[..., Dask]) -> None:
    assert [opened(workers).capacity() for workers in (None, 1, 8)] == [2, 1, 2]


def test_a_cluster_without_workers_has_no_capacity_until_one_comes(
    cluster: Cluster, opened: Callable[..., Dask]
) -> None:
    backend = opened(address=cluster.address)
    assert backend.capacity() == 0
    waiting = backend.submit(task_of(abs, -1))
    cluster.add_worker("--nworkers", "2")
    assert values_of(waiting.result(LONG)) == [1]
    until(lambda: has_capacity(backend, 2))


# --- what is left behind ------------------------------------------------------------------------------------------


def hears_of_itself(client: Client, heard: list[Any]) -> bool:
    # What is told may overtake the wish to be told.
    client.log_event("all", "hello")
    return any(event[1] == "hello" for event in heard)


def test_a_client_that_is_given_is_left_as_it_was(local_client: Client) -> None:
    heard: list[Any] = []
    local_client.subscribe_topic("all", heard.append)
    assert anymap.pmap(abs, range(-9, 0), backend=Dask(client=local_client)) == list(range(9, 0, -1))
    until(lambda: hears_of_itself(local_client, heard))
    until(lambda: local_client.run_on_scheduler(lambda dask_scheduler: not dask_scheduler.tasks))
    assert not local_client.futures


def test_a_handler_of_the_user_s_hears_what_is_told_during_a_map(
    local_client: Client, opened: Callable[..., Dask]
) -> None:
    heard: list[Any] = []
    local_client.subscribe_topic("all", heard.append)
    opened(client=local_client)
    until(lambda: hears_of_itself(local_client, heard))


def test_deaths_are_heard_of_though_the_user_takes_the_topic_for_himself(
    cluster: Cluster, opened: Callable[..., Dask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_CHECK_INTERVAL", 0.0)
    cluster.add_worker()
    with Client(cluster.address, set_as_default=False) as client:
        backend = opened(client=client)
        heard: list[Any] = []
        client.subscribe_topic("all", heard.append)
        pid = values_of(backend.submit(task_of(lambda _: os.getpid(), 0)).result(LONG))[0]
        future = backend.submit(task_of(time.sleep, FOREVER))
        until(lambda: client.processing() and any(client.processing().values()))
        backend.poll()
        os.kill(pid, signal.SIGKILL)
        assert str(future.exception(LONG)).startswith("dask worker tcp://")
        until(lambda: any(event[1]["action"] == "remove-worker" for event in heard))
        backend.close(abandon=True)
        assert client._event_handlers["all"] == heard.append


def test_a_client_of_our_own_is_closed_with_its_map(dask_cluster: str) -> None:
    before = set(threading.enumerate())
    backend = Dask(scheduler_file=dask_cluster)
    backend.open(None)
    client = backend._client
    backend.close(abandon=False)
    assert client.status == "closed"
    until(lambda: not {one for one in threading.enumerate() if one.name == "IO loop"} - before)


def test_closing_drops_what_is_queued_and_returns_at_once(dask_cluster: str, tmp_path: Path) -> None:
    def stay(x: int) -> None:
        (tmp_path / str(x)).touch()
        until((tmp_path / "enough").exists)

    with Client(scheduler_file=dask_cluster, set_as_default=False) as client:
        backend = Dask(client=client)
        backend.open(None)
        futures = [backend.submit(task_of(stay, number)) for number in range(10)]
        until(lambda: len(list(tmp_path.iterdir())) == 2)
        began = time.monotonic()
        backend.close(abandon=True)
        assert time.monotonic() - began < 2
        assert not wait(futures, timeout=0).not_done
        until(lambda: client.run_on_scheduler(lambda dask_scheduler: not dask_scheduler.tasks))
        (tmp_path / "enough").touch()
        assert client.submit(abs, -1).result(LONG) == 1
        assert len(list(tmp_path.iterdir())) == 3


def test_a_chunk_that_nobody_waits_for_any_more_ends_after_its_item(cluster: Cluster, tmp_path: Path) -> None:
    def stay(x: int) -> None:
        (tmp_path / f"ran.{x}").touch()
        from anymap._worker.context import task_context

        if x == 0:
            with suppress(AssertionError):
                until(lambda: task_context.get().board[0], limit=10)  # type: ignore[union-attr, index]
        if x == 4:
            until((tmp_path / "ran.0").exists)
            raise ValueError(x)

    cluster.add_settled_workers(2)
    with Client(cluster.address, set_as_default=False) as client:
        with pytest.raises(ValueError, match="4"):
            anymap.pmap(stay, range(8), backend=Dask(client=client), chunksize=4)
        # Each worker has one thread.
        assert client.gather([client.submit(abs, -1, workers=[at], pure=False) for at in client.nthreads()]) == [1, 1]
    assert sorted(file.name for file in tmp_path.glob("ran.*")) == ["ran.0", "ran.4"]


# --- what is sent -------------------------------------------------------------------------------------------------


def test_a_large_function_does_not_travel_with_each_task(dask_cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    submit = submission.submit
    monkeypatch.setattr(
        submission, "submit", lambda *args, **kwargs: sent.append(len(args[1])) or submit(*args, **kwargs)
    )
    big = bytes(20_000_000)
    found = anymap.pmap(lambda x: len(big) + x, range(10), backend=Dask(scheduler_file=dask_cluster), chunksize=1)
    assert found == [len(big) + x for x in range(10)]
    assert len(sent) == 11
    assert len(big) < max(sent) < sum(sent) < len(big) + 50_000


def test_a_function_that_was_lost_is_sent_again(local_client: Client, opened: Callable[..., Dask]) -> None:
    big = bytes(1_000_000)
    backend = opened(client=local_client)
    task = task_of(lambda _: len(big), 0)
    assert values_of(backend.submit(task).result(LONG)) == [len(big)]
    held = backend._store._held["function"]
    local_client.cancel([held], force=True)
    until(lambda: held.status == "cancelled")
    assert values_of(backend.submit(task).result(LONG)) == [len(big)]


def test_large_rows_and_results_make_the_round_without_dask_s_advice(local_client: Client) -> None:
    rows = [bytes([number]) * 11_000_000 for number in range(3)]
    assert anymap.pmap(lambda row: row[:1] + row, rows, backend=Dask(client=local_client)) == [
        row[:1] + row for row in rows
    ]


def test_the_scheduler_needs_none_of_our_modules(dask_cluster: str) -> None:
    with Client(scheduler_file=dask_cluster, set_as_default=False) as client:
        big = bytes(100_000)
        assert anymap.pmap(lambda _: len(big), range(3), backend=Dask(client=client)) == [len(big)] * 3
        loaded = client.run_on_scheduler(lambda: {name for name in sys.modules if name.startswith("anymap")})
    # The fixture starts it with what ends it together with this process, and that with what ends the processes below it.
    assert loaded <= {"anymap", "anymap._host", "anymap._host.parent_watch", "anymap._host.descendants"}


# --- workers that do not fit --------------------------------------------------------------------------------------


def test_a_worker_of_another_version_is_refused_before_work_is_sent(
    dask_cluster: str, monkeypatch: pytest.MonkeyPatch, opened: Callable[..., Dask]
) -> None:
    monkeypatch.setattr(protocol, "PROTOCOL", 99)
    with pytest.raises(anymap.BackendConnectionError, match=r"dask worker tcp://.* does not fit.*protocol 99"):
        opened(scheduler_file=dask_cluster)


def test_a_worker_of_another_version_that_comes_later_refuses_the_task(
    dask_cluster: str, monkeypatch: pytest.MonkeyPatch, opened: Callable[..., Dask]
) -> None:
    backend = opened(scheduler_file=dask_cluster)
    monkeypatch.setattr(sys, "version_info", (3, 99, 0, "final", 0))
    task = task_of(abs, -1)
    future = backend.submit(task)
    monkeypatch.undo()
    assert "the caller has Python 3.99" in str(future.exception(LONG))


def test_a_worker_without_anymap_is_told_of_with_its_address(cluster: Cluster, opened: Callable[..., Dask]) -> None:
    cluster.add_worker()
    with Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=LONG)
        # What `import` finds there is what it finds where nothing is installed.
        client.run(lambda: sys.modules.update(anymap=None))
    with pytest.raises(anymap.BackendUnavailable, match=r"dask worker tcp://.* has no module 'anymap.*pip install"):
        opened(address=cluster.address)


# --- modules that the workers have not ------------------------------------------------------------------------------


@pytest.fixture
def only_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a module and a package that can be imported in this process alone; give their folder."""
    folder = tmp_path / "only_here"
    (folder / "wide" / "deep").mkdir(parents=True)
    (folder / "slim.py").write_text("def double(x):\n    return 2 * x\n\nclass Box:\n    pass\n")
    (folder / "wide" / "__init__.py").write_text("from wide.deep.inner import read\n")
    (folder / "wide" / "deep" / "inner.py").write_text(
        "from importlib.resources import files\n\ndef read(_):\n    return files('wide').joinpath('data.txt').read_text()\n"
    )
    (folder / "wide" / "data.txt").write_text("first edition")
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] in {"slim", "wide"}]:
        del sys.modules[name]


def test_a_module_that_the_workers_have_not_is_named_with_the_cure(cluster: Cluster, only_here: Path) -> None:
    import slim  # type: ignore[import-not-found]

    cluster.add_worker()
    backend = Dask(address=cluster.address)
    with pytest.raises(ModuleNotFoundError, match="No module named 'slim'") as caught:
        anymap.pmap(slim.double, [1], backend=backend)
    assert "Dask(ship_modules=['slim'])" in str(caught.value.__notes__)
    right, wrong = anymap.pmap(type, [1, slim.Box()], backend=backend, on_error="return")
    assert right is int
    assert "Dask(ship_modules=['slim'])" in str(wrong.__notes__)
    # One that nobody has is the caller's own affair.
    [error] = anymap.pmap(__import__, ["nowhere"], backend=backend, on_error="return")
    assert "ship_modules" not in str(error.__notes__)


def test_modules_are_shipped_with_their_data_as_they_are_now(cluster: Cluster, only_here: Path) -> None:
    import slim
    import wide  # type: ignore[import-not-found]

    cluster.add_worker("--nworkers", "2")
    backend = Dask(address=cluster.address, ship_modules=["slim", "wide"])
    assert anymap.pmap(slim.double, range(20), backend=backend) == [2 * x for x in range(20)]
    assert set(anymap.pmap(wide.read, range(20), backend=backend)) == {"first edition"}
    (only_here / "wide" / "data.txt").write_text("second edition")
    (only_here / "slim.py").write_text("def double(x):\n    return x + x + 1\n")
    assert set(anymap.pmap(wide.read, range(20), backend=backend)) == {"second edition"}
    assert anymap.pmap(slim.double, range(20), backend=backend) == [2 * x + 1 for x in range(20)]


@pytest.mark.parametrize("names", ["json", ["sys"], ["no_such_module"], ["json.decoder"], ["__main__"]])
def test_what_cannot_be_shipped_is_refused(names: Any) -> None:
    with pytest.raises(anymap.ConfigError, match="ship_modules"):
        anymap.pmap(abs, [-1], backend=Dask(ship_modules=names), workers=1)


def test_the_program_is_not_shipped_though_it_was_started_as_a_module(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import anymap\n"
        "from anymap.backends import Dask\n"
        "try:\n"
        "    anymap.pmap(abs, [-1], backend=Dask(ship_modules=['__main__']), workers=1)\n"
        "except anymap.ConfigError as exc:\n"
        "    print(exc)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "program"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert "'__main__' is the worker's own" in done.stdout, done


# --- how far a chunk is -------------------------------------------------------------------------------------------


def test_a_late_item_is_given_up_and_its_place_goes_to_others(cluster: Cluster, tmp_path: Path) -> None:
    over = tmp_path / "over"

    def stick(x: int) -> int:
        if x == 1:
            until(over.exists)
        return x

    cluster.add_worker("--nworkers", "1")
    found = anymap.pmap(stick, range(6), backend=Dask(address=cluster.address), timeout=0.3, on_error="return")
    assert [type(value) for value in found] == [int, anymap.ItemTimeout, int, int, int, int]
    # The worker's only thread is still stuck.
    assert anymap.pmap(abs, [-1], backend=Dask(address=cluster.address)) == [1]
    over.touch()


def test_a_place_that_was_given_to_others_is_not_taken_again(cluster: Cluster, tmp_path: Path) -> None:
    over = tmp_path / "over"

    def stick(way: str) -> None:
        if way == "map before":
            anymap.pmap(abs, [-1], backend="dask")
        if way == "map meanwhile":  # dask takes its thread back at the end
            anymap.pmap(lambda _: until(over.exists), [-1], backend="dask")
        until(over.exists)
        if way == "map after":
            anymap.pmap(abs, [-1], backend="dask")

    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("Dask-Default")]

    cluster.add_settled_workers(1)
    backend = Dask(address=cluster.address)
    ways = ["no map", "map before", "map after", "map meanwhile"]
    late = anymap.pmap(stick, ways, backend=backend, timeout=1, chunksize=1, on_error="return")
    assert {type(exc) for exc in late} == {anymap.ItemTimeout}
    over.touch()
    with Client(cluster.address, set_as_default=False) as client:
        # Of two threads in one place, one would be missed by whoever comes back from a map inside of an item: for ever.
        assert conftest.left(lambda: [names for names in client.run(threads).values() if len(names) != 1]) == []
    assert anymap.pmap(lambda x: anymap.pmap(abs, [x], backend="dask"), [-1] * 9, backend=backend) == [[1]] * 9


def test_our_own_cluster_ends_the_worker_of_a_late_item(tmp_path: Path) -> None:
    def stick(x: int) -> int:
        if x == 1:
            (tmp_path / f"pid.{os.getpid()}").touch()
            time.sleep(FOREVER)
        return x

    found = anymap.pmap(stick, range(6), backend="dask", workers=1, timeout=0.3, on_error="return")
    assert [type(value) for value in found] == [int, anymap.ItemTimeout, int, int, int, int]
    [mark] = tmp_path.glob("pid.*")
    until(lambda: not psutil.pid_exists(int(mark.suffix[1:])))


def test_items_are_counted_while_their_chunk_is_under_way_on_another_host(dask_cluster: str, tmp_path: Path) -> None:
    def wait_for_it(x: int) -> int:
        if x == 3:
            until((tmp_path / "seen").exists)
        return x

    def sink(event: Any) -> None:
        if event.__class__.__name__ == "Advanced" and event.done == 3:
            (tmp_path / "seen").touch()

    backend = Dask(scheduler_file=dask_cluster)
    assert anymap.pmap(wait_for_it, range(5), backend=backend, chunksize=5, progress=sink) == list(range(5))


def test_nothing_is_told_where_nobody_listens(dask_cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYMAP_LOGS", "off")  # else the caller's logging listens
    monkeypatch.setattr(Dask, "channel", lambda *_: pytest.fail("a channel was opened"))
    assert anymap.pmap(abs, [-1], backend=Dask(scheduler_file=dask_cluster)) == [1]


def test_a_worker_that_comes_later_is_used(cluster: Cluster, tmp_path: Path) -> None:
    def meet(x: int) -> int:
        (tmp_path / f"pid.{os.getpid()}").touch()
        until(lambda: len(list(tmp_path.glob("pid.*"))) == 2)
        return os.getpid()

    cluster.add_settled_workers(1)
    with anymap.pmap(meet, range(4), backend=Dask(address=cluster.address), lazy=True, chunksize=1) as results:
        helper = threading.Thread(target=lambda: until(lambda: list(tmp_path.glob("pid.*"))) and cluster.add_worker())
        helper.start()
        assert len(set(results)) == 2
        helper.join()


def test_a_map_that_waits_for_its_first_worker_has_maps_inside_of_it(cluster: Cluster) -> None:
    def sink(event: Any) -> None:
        if event.__class__.__name__ == "Started":
            cluster.add_worker()

    backend = Dask(address=cluster.address)
    assert anymap.pmap(lambda x: anymap.pmap(abs, [x], backend="dask"), [-1], backend=backend, progress=sink) == [[1]]


# --- deaths -------------------------------------------------------------------------------------------------------


def test_on_our_own_cluster_one_death_tells_the_item_and_the_signal(tmp_path: Path) -> None:
    def die(x: int) -> int:
        with (tmp_path / str(x)).open("a") as file:
            file.write("x")
        if x == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    found = anymap.pmap(die, range(8), backend="dask", workers=2, on_error="return")
    assert isinstance(found[3], anymap.WorkerLost)
    assert found[3].exitcode == -signal.SIGKILL
    assert found[:3] + found[4:] == [0, 1, 2, 4, 5, 6, 7]
    assert (tmp_path / "3").read_text() == "x"


class NeedsTooMuch:
    """Cannot be loaded in a worker for want of memory."""

    def __call__(self, x: int) -> int:
        return x

    def __reduce__(self) -> Any:
        return run_out_of_memory, (os.getpid(),)


def run_out_of_memory(caller: int) -> Callable[[int], int]:
    if os.getpid() != caller:
        raise MemoryError
    return abs


def test_a_worker_of_others_that_has_no_memory_to_answer_costs_its_items_only(dask_cluster: str) -> None:
    found = anymap.pmap(NeedsTooMuch(), [-1, -2], backend=Dask(scheduler_file=dask_cluster), on_error="return")
    assert [type(error) for error in found] == [anymap.WorkerLost] * 2
    assert "memory" in str(found[0])
    assert "item 1 (-2)" in str(found[1])


def test_the_death_of_a_worker_is_seen_at_once_and_its_task_is_not_tried_again(
    cluster: Cluster, tmp_path: Path, opened: Callable[..., Dask]
) -> None:
    def stay(_: int) -> None:
        (tmp_path / f"pid.{os.getpid()}").touch()
        time.sleep(FOREVER)

    cluster.add_settled_workers(1)
    backend = opened(address=cluster.address)
    future = backend.submit(task_of(stay, 0))
    [mark] = until(lambda: list(tmp_path.glob("pid.*")))
    os.kill(int(mark.suffix[1:]), signal.SIGKILL)
    assert isinstance(lost := future.exception(LONG), ChunkLost)
    # Not after dask itself has tried it four times.
    assert str(lost).startswith("dask worker tcp://")
    assert values_of(backend.submit(task_of(abs, -1)).result(LONG)) == [1]
    assert list(tmp_path.glob("pid.*")) == [mark]


def test_a_worker_that_is_retired_loses_nothing(cluster: Cluster, tmp_path: Path, opened: Callable[..., Dask]) -> None:
    def work(number: int) -> int:
        (tmp_path / f"began.{number}").touch()
        until((tmp_path / "go").exists)
        return -number

    cluster.add_worker("--nworkers", "2")
    backend = opened(address=cluster.address)
    until(lambda: has_capacity(backend, 2))
    futures = [backend.submit(task_of(work, number)) for number in range(8)]
    until(lambda: len(list(tmp_path.glob("began.*"))) >= 2)
    with Client(cluster.address, set_as_default=False) as client:
        [leaving, _] = client.scheduler_info(n_workers=-1)["workers"]
        retiring = threading.Thread(target=client.retire_workers, args=[[leaving]])
        retiring.start()
        (tmp_path / "go").touch()
        assert [values_of(future.result(LONG)) for future in futures] == [[-number] for number in range(8)]
        retiring.join()
    until(lambda: has_capacity(backend, 1))


def test_a_map_gets_over_the_death_of_a_worker(cluster: Cluster, tmp_path: Path) -> None:
    def once(x: int) -> int:
        if x == 7:
            try:
                (tmp_path / "died").touch(exist_ok=False)
            except FileExistsError:
                return x
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    cluster.add_settled_workers(2)
    backend = Dask(address=cluster.address)
    assert anymap.pmap(once, range(20), backend=backend, retries=2) == list(range(20))


def test_a_client_that_is_closed_while_a_map_runs_ends_it(cluster: Cluster, opened: Callable[..., Dask]) -> None:
    with Client(cluster.address, set_as_default=False) as client:
        waiting = opened(client=client).submit(task_of(abs, -1))
    assert isinstance(waiting.exception(LONG), anymap.BackendConnectionError)


def result_as_the_engine_gets_it(backend: Dask) -> Any:
    future = backend.submit(task_of(abs, -1))
    until(lambda: (backend.poll(), future.done())[1])
    return future.result()


def test_a_scheduler_that_dies_ends_the_map_with_its_address(cluster: Cluster, opened: Callable[..., Dask]) -> None:
    cluster.add_worker()
    backend = opened(address=cluster.address)
    running = backend.submit(task_of(time.sleep, FOREVER))
    cluster.scheduler.kill()
    gone = running.exception(10)
    assert isinstance(gone, anymap.BackendConnectionError)
    assert cluster.address in str(gone)
    with pytest.raises(anymap.BackendConnectionError, match=cluster.address):
        result_as_the_engine_gets_it(backend)


# --- connecting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://127.0.0.1:1", "tls://127.0.0.1:1", "127.0.0.1"])
def test_a_wrong_address_is_named_and_leaves_no_thread(address: str) -> None:
    before = set(threading.enumerate())
    began = time.monotonic()
    with pytest.raises(anymap.BackendConnectionError, match=address):
        anymap.pmap(abs, [-1], backend=Dask(address=address, timeout=0.5))
    assert time.monotonic() - began < 5
    until(lambda: not set(threading.enumerate()) - before)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_a_cluster_behind_tls_takes_its_security_and_says_so(tmp_path: Path) -> None:
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*request, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    options = ["--protocol", "tls", "--tls-ca-file", certificate, "--tls-cert", certificate, "--tls-key", key]
    security = Security(tls_ca_file=certificate, tls_client_cert=certificate, tls_client_key=key)
    cluster = Cluster(tmp_path, *options)
    try:
        cluster.add_worker()
        backend = Dask(address=cluster.address, security=security)
        assert anymap.pmap(abs, range(-3, 0), backend=backend) == [3, 2, 1]
        with pytest.raises(anymap.BackendConnectionError, match=r"tls://.*needs security="):
            anymap.pmap(abs, [-1], backend=Dask(address=cluster.address, timeout=2))
        with pytest.raises(anymap.BackendConnectionError, match=r"tcp://"):
            anymap.pmap(abs, [-1], backend=Dask(address=cluster.address.replace("tls", "tcp"), timeout=2))
    finally:
        cluster.end()


def test_a_scheduler_s_file_that_does_not_come_is_named(tmp_path: Path) -> None:
    with pytest.raises(anymap.BackendConnectionError, match=r"scheduler\.json"):
        anymap.pmap(abs, [-1], backend=Dask(scheduler_file=str(tmp_path / "scheduler.json"), timeout=0.2))


def test_a_client_that_is_closed_is_refused(dask_cluster: str) -> None:
    client = Client(scheduler_file=dask_cluster, set_as_default=False)
    client.close()
    with pytest.raises(anymap.BackendConnectionError, match="closed"):
        anymap.pmap(abs, [-1], backend=Dask(client=client))
