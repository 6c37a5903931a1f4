"""What all tests share: the backends, a dask cluster of separate processes, and the rule that nothing is left behind."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import hypothesis
import psutil
import pytest

import anymap
from anymap._host import pipe_reader, workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from anymap.backends.base import Backend

# Workers and schedulers of dask look at themselves many times a second, and keep a tenth of a CPU busy doing nothing.
# Read when distributed is imported, here and in all processes that are started from here.
os.environ |= {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "5s",
}

# No deadline: how long an example takes says more about the machine than about us.
hypothesis.settings.register_profile("anymap", deadline=None, print_blob=True)
hypothesis.settings.load_profile("anymap")

T = TypeVar("T")

BACKENDS = ("Serial", "Threads", "Processes", "Pathos", "Joblib", "Dask")
SECONDS_TO_END = 15.0
"""What was told to end may take this long, on a busy machine."""
RESOURCE_TRACKER = "resource_tracker import main"
"""The code that runs in the helper of the standard library's multiprocessing, and in loky's: one a program, to its end."""
WARM_WORKER = "anymap._worker.process import main"
"""The code that runs in an idle worker, which may stay until ``shutdown()``."""
LOKY_WORKER = "loky.backend.popen_loky_posix"
"""The module that runs in joblib's own warm workers, which may stay until ``shutdown()``, too; and in loky's."""
LOKY = ("joblib.externals.loky", "loky")
"""The packages of threads that look after such workers."""
DASK_OFFLOAD = "Dask-Offload"
"""The threads of an executor that distributed makes when it first needs one, and keeps to the program's end."""
MAY_STAY = (RESOURCE_TRACKER, WARM_WORKER, LOKY_WORKER)
COLLECTING_MAY_CRASH = sys.version_info < (3, 12, 7)
"""The garbage collector of these may crash on a connection of dask's that broke: the error keeps the frame of
``distributed.comm.tcp``'s ``write`` in a reference loop, and in it a memoryview (CPython gh-77894)."""


@pytest.fixture(
    params=[pytest.param(name, id=name.lower(), marks=getattr(pytest.mark, name.lower())) for name in BACKENDS]
)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Give each of the six backends in turn; dask on a cluster of separate processes."""
    options = {"scheduler_file": request.getfixturevalue("dask_cluster")} if request.param == "Dask" else {}
    made: Backend = getattr(anymap.backends, request.param)(**options)
    return made


@pytest.fixture(scope="session")
def dask_cluster(tmp_path_factory: pytest.TempPathFactory, nothing_left_at_the_end: set[int]) -> Iterator[str]:
    """Run a scheduler and two workers as separate processes; give the path of the scheduler's file."""
    from distributed import Client

    folder = tmp_path_factory.mktemp("dask")
    file = str(folder / "scheduler.json")
    scheduler = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
    worker = ["worker", "--host", "127.0.0.1", "--nworkers", "2", "--nthreads", "1", "--local-directory", str(folder)]
    with (
        dask_program([*scheduler, "--scheduler-file", file], folder, nothing_left_at_the_end),
        dask_program([*worker, "--scheduler-file", file], folder, nothing_left_at_the_end),
    ):
        # Both a client and a worker wait for the file to appear.
        with Client(scheduler_file=file, timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
            # A nanny whose worker dies before she has seen it run gives up for good.
            assert not left(lambda: [state for state in states_of_nannies(client) if state != "running"])
        yield file


def states_of_nannies(client: Any) -> list[str]:
    # By a lambda, which travels as it is: a nanny cannot import this module.
    return list(client.run(lambda dask_worker: dask_worker.status.name, nanny=True).values())


@contextmanager
def dask_program(arguments: list[str], folder: Path, of_the_session: set[int]) -> Iterator[None]:
    # The workers import the anymap that is tested, from wherever this process has it.
    environment = {**os.environ, "PYTHONPATH": str(Path(anymap.__file__).parents[1])}
    # They end with this process, should it be killed or crash.
    watch = f"from anymap._host import parent_watch; parent_watch.end_with({os.getpid()})"
    run = "import runpy; runpy.run_module('dask', run_name='__main__', alter_sys=True)"
    command = [sys.executable, "-c", f"{watch}; {run}", *arguments]
    with (folder / f"{arguments[0]}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    of_the_session.add(process.pid)
    try:
        yield
    finally:
        process.terminate()
        process.wait(SECONDS_TO_END)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_at_the_end() -> Iterator[set[int]]:
    """Hold anymap to leaving nothing after ``shutdown()``; give the set of process ids that live for a session."""
    of_the_session: set[int] = set()
    yield of_the_session
    anymap.shutdown()
    assert not left(lambda: [child for child in children() if not runs(RESOURCE_TRACKER, child)])
    assert not left(lambda: own_files("*"))


@pytest.fixture(autouse=True)
def nothing_left_behind(nothing_left_at_the_end: set[int]) -> Iterator[None]:
    """Fail a test that leaves a process, a thread that keeps the program alive, or a file."""
    before, threads, files = children(), threading.enumerate(), own_files("*/*")
    yield

    def strays() -> list[psutil.Process]:
        new = children(nothing_left_at_the_end) - before
        return [child for child in new if not any(runs(code, child) for code in MAY_STAY)]

    def busy_threads() -> list[threading.Thread]:
        new = [thread for thread in threading.enumerate() if thread not in threads and not thread.daemon]
        new = [thread for thread in new if not type(thread).__module__.startswith(LOKY)]
        return [thread for thread in new if not thread.name.startswith(DASK_OFFLOAD)]

    assert not left(strays)
    assert not left(busy_threads)
    assert not left(lambda: own_files("*/*") - files)


def left(look: Callable[[], T]) -> T:
    """Return what is still there after everything had the time to end."""
    give_up = time.monotonic() + SECONDS_TO_END
    while (found := look()) and time.monotonic() < give_up:
        time.sleep(0.02)
    return found


def children(of_the_session: Iterable[int] = ()) -> set[psutil.Process]:
    """Return all living processes below this one, without those given and those below them."""
    spared = [psutil.Process(pid) for pid in of_the_session]
    spared += [child for one in spared for child in one.children(recursive=True)]
    return {child for child in psutil.Process().children(recursive=True) if child not in spared and is_alive(child)}


def is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def runs(code: str, process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return code in " ".join(process.cmdline())
    return False


def own_files(pattern: str) -> set[str]:
    """Return what matches in the folders for large data, by this process's id: other test runs may be going on.

    Not what is kept for the next map, as warm workers are: a folder with nothing but a board in it, or a pipe.
    """
    folders = {"/dev/shm", tempfile.gettempdir()}
    found = {path for folder in folders for path in glob.glob(f"{folder}/anymap-*-{os.getpid()}-{pattern}")}
    return found - {kept.folder for kept in (*workspace._kept, *pipe_reader._readers)}
