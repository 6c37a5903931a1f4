"""What items start ends with their worker, and what they register for the end of a process is called."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import anymap
from anymap import ItemTimeout, WorkerLost, pmap
from anymap.backends import Processes, Serial
from tests.conftest import SECONDS_TO_END, left

if TYPE_CHECKING:
    from pathlib import Path

    from anymap.backends import Backend

SLEEP = [sys.executable, "-c", "import time; time.sleep(1000)"]
HOME = os.path.dirname(os.path.dirname(os.path.abspath(anymap.__file__)))

ours = pytest.mark.parametrize(
    "name",
    [
        pytest.param("'processes'", id="processes", marks=pytest.mark.processes),
        pytest.param("Processes(start_method='fork')", id="fork", marks=pytest.mark.processes),
        pytest.param("'dask'", id="dask", marks=pytest.mark.dask),
    ],
)


def run(name: str, body: str) -> str:
    """Run a program whose ``BACKEND`` this is to its end; return what it has printed."""
    program = f"from anymap import pmap\nfrom anymap.backends import Processes\nBACKEND = {name}\n" + textwrap.dedent(
        body
    )
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    environment = {**os.environ, "PYTHONPATH": HOME}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def living(pids: set[int]) -> set[int]:
    return {pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE}


@ours
def test_no_process_that_an_item_has_started_outlives_the_program(name: str) -> None:
    printed = run(
        name,
        f"""
        import subprocess

        def start(_):
            # One of its own below it.
            return subprocess.Popen({["sh", "-c", "sleep 1000 & echo $!; wait"]!r}, stdout=subprocess.PIPE, text=True)

        kept = []

        def started(x):
            kept.append(start(x))
            return kept[-1].pid, int(kept[-1].stdout.readline())

        [(shell, below)] = pmap(started, [0], backend=BACKEND, workers=1)
        print(shell, below)
        """,
    )
    pids = set(map(int, printed.split()))
    assert len(pids) == 2
    assert not left(lambda: living(pids))


@ours
def test_workers_of_joblib_in_an_item_end_as_they_do_with_a_program(name: str) -> None:
    # Nothing is said on stderr: of semaphores and folders that were not given back.
    printed = run(
        name,
        """
        import os

        def pids(_):
            from joblib import Parallel, delayed

            return Parallel(n_jobs=2)(delayed(os.getpid)() for _ in range(2))

        print(*{pid for found in pmap(pids, range(2), backend=BACKEND, workers=1) for pid in found})
        """,
    )
    assert not left(lambda: living(set(map(int, printed.split()))))


@ours
def test_hooks_that_an_item_registers_are_called_when_its_worker_ends(name: str, tmp_path: Path) -> None:
    run(
        name,
        f"""
        import atexit, pathlib, threading
        atexit.register(pathlib.Path({str(tmp_path / "caller")!r}).open, "x")

        def register(x):
            atexit.register(pathlib.Path({str(tmp_path)!r}, str(x)).touch)
            return x

        assert pmap(register, range(3), backend=BACKEND, workers=1) == [0, 1, 2]
        """,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2", "caller"]


@ours
def test_a_hook_that_does_not_end_keeps_neither_the_program_nor_its_processes(name: str) -> None:
    printed = run(
        name,
        f"""
        import atexit, subprocess, time

        def register(_):
            atexit.register(time.sleep, 1000)
            return subprocess.Popen({SLEEP!r}).pid

        print(*pmap(register, [0], backend=BACKEND, workers=1))
        """,
    )
    assert not left(lambda: living(set(map(int, printed.split()))))


@pytest.mark.parametrize(
    "backend", [Processes(), anymap.backends.Pathos(), anymap.backends.Dask()], ids=lambda b: b.name
)
def test_what_an_item_has_started_ends_with_it_where_its_time_is_over(backend: Backend, tmp_path: Path) -> None:
    def start(_: int) -> None:
        process = subprocess.Popen(SLEEP)
        (tmp_path / str(process.pid)).touch()
        time.sleep(1000)

    [error] = pmap(start, [0], backend=backend, workers=1, timeout=1.0, on_error="return")
    assert isinstance(error, ItemTimeout)
    pids = {int(path.name) for path in tmp_path.iterdir()}
    assert len(pids) == 1
    assert not left(lambda: living(pids))


@pytest.mark.parametrize(("how", "exitcode"), [("returns", 0), ("raises", 1)])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_the_child_of_an_item_never_answers_for_it(backend: Backend, how: str, exitcode: int, tmp_path: Path) -> None:
    if isinstance(backend, Serial):
        pytest.skip("there a fork goes on as the caller does")

    def fork(x: int) -> tuple[int, int | None, int]:
        ended = None
        if x == 1:
            child = os.fork()
            if not child and how == "raises":
                raise ValueError
            ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else None
        (tmp_path / f"{x} {os.getpid()}").touch()
        return x, ended, os.getpid()

    found = pmap(fork, range(4), backend=backend, workers=2, chunksize=4)
    worker = found[0][2]
    assert found == [(0, None, worker), (1, exitcode, worker), (2, None, worker), (3, None, worker)]
    assert len(list(tmp_path.glob("2 *"))) == 1  # the child runs no other item
    assert pmap(abs, range(4), backend=backend, workers=2) == [0, 1, 2, 3]


def test_serially_the_child_of_an_item_goes_on_as_the_caller_does() -> None:
    printed = run(
        "'serial'",
        """
        import os

        def fork(x):
            if x == 1 and (child := os.fork()):
                os.waitpid(child, 0)
            return x

        print(pmap(fork, range(3), backend=BACKEND))
        """,
    )
    assert printed.splitlines() == ["[0, 1, 2]"] * 2


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param(Processes(), id="processes", marks=pytest.mark.processes),
        pytest.param(Processes(start_method="fork"), id="fork", marks=pytest.mark.processes),
        pytest.param("pathos", id="pathos", marks=pytest.mark.pathos),
        pytest.param("joblib", id="joblib", marks=pytest.mark.joblib),
        pytest.param("dask", id="dask", marks=pytest.mark.dask),
    ],
)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_worker_that_was_killed_is_lost_though_a_child_of_it_lives_on(backend: Any, tmp_path: Path) -> None:
    def leave_a_child(x: int) -> None:
        if not (child := os.fork()):
            signal.alarm(60)
            signal.pause()
        (tmp_path / "child").write_text(str(child))
        os.kill(os.getpid(), signal.SIGKILL)

    [error] = pmap(leave_a_child, [0], backend=backend, workers=2, on_error="return")
    assert isinstance(error, WorkerLost)
    child = int((tmp_path / "child").read_text())
    assert living({child}) == {child}
    os.kill(child, signal.SIGKILL)


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="the system does not tell")
def test_a_worker_takes_a_parent_that_was_killed_and_stays_a_zombie_for_gone() -> None:
    parent = subprocess.Popen(SLEEP)
    parent.kill()
    os.waitid(os.P_PID, parent.pid, os.WEXITED | os.WNOWAIT)
    watch = f"import time; from anymap._host import parent_watch; parent_watch.end_with({parent.pid}); time.sleep(1000)"
    worker = subprocess.Popen([sys.executable, "-c", watch], env={**os.environ, "PYTHONPATH": HOME})
    try:
        assert worker.wait(SECONDS_TO_END) == 1
    finally:
        worker.kill()
        parent.wait()
