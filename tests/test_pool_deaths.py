"""Pools of the multiprocessing family, pathos' and joblib's: deaths are seen, and they end in any state."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import psutil
import pytest

import anymap
from anymap._config.scope import Inherited
from anymap._host import spill, status_board
from anymap._serialize import object_table, packing
from anymap._worker.protocol import Answer, MapSpec
from anymap._worker.task import Task
from anymap.backends import Joblib, Pathos
from anymap.backends.base import ChunkLost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from anymap.backends.base import Backend

pytestmark = pytest.mark.full

LONG = 60.0
"""Seconds after which what is waited for will not come any more, on a machine that is very busy."""
PROMPT = 10.0
"""Seconds that nothing here takes which does not wait for a task."""
FOREVER = 600.0


def pathos_backend() -> Backend:
    return Pathos()


def joblib_backend() -> Backend:
    with joblib.parallel_config("multiprocessing"):
        return Joblib()


KINDS = [
    pytest.param(pathos_backend, id="pathos", marks=pytest.mark.pathos),
    pytest.param(joblib_backend, id="joblib", marks=pytest.mark.joblib),
]


class Bench:
    """An open backend with two workers, and tasks for it as the engine makes them."""

    def __init__(self, backend: Backend, func: Callable[[Any], Any]) -> None:
        self.backend = backend
        self.before = set(psutil.Process().children())
        self._threads = set(threading.enumerate())
        backend.open(2)
        # Held, so that nothing ends just because it is collected.
        self._pool: Any = getattr(backend, "_engine", backend)._keeper._pool.pool
        self.folder = spill.make_folder()
        self.board = status_board.Board(self.folder)
        self._classes = object_table.sender_table()
        self._spec = MapSpec(
            map_id=self._classes.map_id,
            function=packing.pack_function(func, self._classes)[0],
            star=False,
            board=self.board.path,
            channel=None,
            timeout=None,
            spool=None,  # what is large goes through the pool's own pipes
            parent=os.getpid(),
            shares_memory=False,
            inherited=Inherited(),
        )

    def submit(self, row: Any) -> tuple[Future[Answer], int]:
        """Return the future and the number of the slot on the board."""
        slot = self.board.take()
        rows = packing.spill(packing.pack([row], self._classes)[0], None)
        task = Task(self._spec, rows, 1, slot, None, dict(self._classes.blobs))
        return self.backend.submit(task), slot

    def call(self, row: Any) -> Any:
        answer = poll_until(self.backend, self.submit(row)[0]).result()
        assert answer.broken is None
        return packing.unpack(answer.values)[0]

    def workers(self) -> list[psutil.Process]:
        """Return the processes, of which there are two once they have replaced the dead."""
        new = [child for child in psutil.Process().children() if child not in self.before and is_worker(child)]
        return sorted(new, key=lambda child: child.pid)

    def left(self) -> list[object]:
        """Return what there is of the backend: processes and threads."""
        return [*self.workers(), *(set(threading.enumerate()) - self._threads)]

    def pid_at(self, slot: int) -> int:
        """Wait until the task in ``slot`` runs; return where."""
        until(lambda: self.board.read(slot).position == 0)
        return self.board.read(slot).pid

    def close(self, *, abandon: bool) -> None:
        self.backend.close(abandon=abandon)
        self.board.close()
        spill.remove_folder(self.folder)


@contextmanager
def bench(kind: Callable[[], Backend], func: Callable[[Any], Any]) -> Iterator[Bench]:
    made = Bench(kind(), func)
    try:
        yield made
    finally:
        made.close(abandon=True)


def is_worker(process: psutil.Process) -> bool:
    try:
        return "resource_tracker" not in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(true: Callable[[], object]) -> None:
    give_up = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.002)


def poll_until(backend: Backend, future: Future[Any]) -> Future[Any]:
    """Do what the engine's supervisor does until ``future`` has ended."""

    def ended() -> bool:
        backend.poll()
        return future.done()

    until(ended)
    return future


def work(row: Any) -> Any:
    """Sleep for ever, end the process, or make that many bytes."""
    if row == "sleep":
        time.sleep(FOREVER)
    if row == "signals":
        return signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    if row == "exit 3":
        os._exit(3)
    return bytes(row) if isinstance(row, int) else os.getpid()


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_worker_ends_all_futures_and_its_exit_code_is_told(kind: Callable[[], Backend]) -> None:
    with bench(kind, work) as b:
        running, slot = b.submit("sleep")
        others = [b.submit("sleep")[0] for _ in range(3)]
        pid = b.pid_at(slot)
        b.backend.kill(pid)
        for future in (running, *others):
            lost = poll_until(b.backend, future).exception()
            assert isinstance(lost, ChunkLost)
            assert lost.dead == {pid: -signal.SIGKILL}


@pytest.mark.parametrize("kind", KINDS)
def test_the_exit_code_of_a_worker_that_ends_itself_is_told(kind: Callable[[], Backend]) -> None:
    with bench(kind, work) as b:
        future, slot = b.submit("exit 3")
        lost = poll_until(b.backend, future).exception()
        assert isinstance(lost, ChunkLost)
        assert lost.dead == {b.board.read(slot).pid: 3}
        assert "exit code 3" in str(lost)


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_death_no_worker_of_the_lost_pool_runs_anything(kind: Callable[[], Backend]) -> None:
    with bench(kind, work) as b:
        first = {worker.pid for worker in b.workers()}
        future, slot = b.submit("sleep")
        os.kill(b.pid_at(slot), signal.SIGKILL)
        poll_until(b.backend, future)
        assert {b.call("pid") for _ in range(4)}.isdisjoint(first)
        assert not {worker.pid for worker in b.workers()} & first


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", [0, 1])
def test_an_idle_worker_may_die(kind: Callable[[], Backend], which: int) -> None:
    # One of the two holds the lock of the queue while it waits: its death would starve the other.
    with bench(kind, work) as b:
        b.call("pid")
        first = b.workers()
        os.kill(first[which].pid, signal.SIGKILL)
        until(lambda: b.backend.poll() or not set(b.workers()) & set(first))
        assert b.call("pid")
        assert b.call("pid")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", [0, 1])
def test_closing_a_pool_with_a_dead_worker_returns_and_leaves_nothing(kind: Callable[[], Backend], which: int) -> None:
    made = Bench(kind(), work)
    made.call("pid")
    os.kill(made.workers()[which].pid, signal.SIGKILL)
    began = time.monotonic()
    made.close(abandon=False)
    assert time.monotonic() - began < PROMPT
    assert not made.left()


@pytest.mark.parametrize("kind", KINDS)
def test_leaving_kills_what_runs_and_drops_what_is_queued(kind: Callable[[], Backend]) -> None:
    made = Bench(kind(), work)
    dispatcher = [made.submit("sleep") for _ in range(5)]
    made.pid_at(dispatcher[0][1])
    made.pid_at(dispatcher[1][1])
    began = time.monotonic()
    made.close(abandon=True)
    assert time.monotonic() - began < PROMPT
    assert not made.left()
    assert all(future.done() for future, _ in dispatcher)


@pytest.mark.parametrize("kind", KINDS)
def test_leaving_while_a_task_waits_for_room_in_the_pipe(kind: Callable[[], Backend]) -> None:
    made = Bench(kind(), work)
    dispatcher = [made.submit("sleep") for _ in range(2)]
    [made.pid_at(slot) for _, slot in dispatcher]
    for _ in range(3):
        made.submit("x" * 4_000_000)
    made.close(abandon=True)
    assert not made.left()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("delay", [0.0, 0.02, 0.04])
def test_a_worker_killed_around_a_large_result(kind: Callable[[], Backend], delay: float) -> None:
    # Whether it dies before, while or after it writes, and with which lock: nothing may hang.
    made = Bench(kind(), work)
    futures = [made.submit(60_000_000)[0] for _ in range(4)]
    time.sleep(delay)
    os.kill(made.workers()[0].pid, signal.SIGKILL)
    for future in futures:
        lost = poll_until(made.backend, future).exception()
        assert lost is None or isinstance(lost, ChunkLost)
    made.close(abandon=False)
    assert not made.left()


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_pools_own_processes_are_killed(kind: Callable[[], Backend]) -> None:
    with bench(kind, work) as b, subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        b.backend.kill(other.pid)
        b.backend.kill(os.getpid())
        assert b.call("pid")
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize("kind", KINDS)
def test_workers_ignore_interrupts_busy_or_idle(kind: Callable[[], Backend]) -> None:
    with bench(kind, work) as b:
        workers = b.workers()
        _, slot = b.submit("sleep")
        b.pid_at(slot)
        for worker in workers:
            worker.send_signal(signal.SIGINT)
        assert b.call("signals") == (signal.SIG_IGN, set())
        assert b.workers() == workers


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_closed_with_the_pool(kind: Callable[[], Backend]) -> None:
    def open_files() -> int:
        return psutil.Process().num_fds()

    Bench(kind(), work).close(abandon=False)  # joblib's helper process is there from now on
    before = open_files()
    for abandon in (False, True):
        made = Bench(kind(), work)
        made.call("pid")
        if abandon:
            made.submit("sleep")
        made.close(abandon=abandon)
        del made.board.buffer
        assert open_files() == before


# --- programs -----------------------------------------------------------------------------------------------------

PROGRAM = """
import contextlib, joblib, os, sys, threading, time
from anymap import pmap
kind, what = sys.argv[1:]

def busy(item):
    with open(1, "w", closefd=False) as out:
        out.write("up\\n")
    if what == "interpreter lock":
        sum(range(10**12))
    time.sleep(600)

def source():
    yield 1
    print("up", flush=True)
    time.sleep(600)

block = contextlib.nullcontext() if kind == "pathos" else joblib.parallel_config(kind)
with block:
    backend = "pathos" if kind == "pathos" else "joblib"
    if what == "idle":
        list(pmap(abs, source(), backend=backend, workers=2, lazy=True))
    else:
        results = pmap(busy, iter(range(10)), backend=backend, workers=2, lazy=True, chunksize=1)
        if what == "exit":
            threading.Thread(target=next, args=(results,), daemon=True).start()
            os.read(0, 1)  # unlike input(), without a lock that a fork would inherit
        else:
            next(results)
"""
PROGRAMS = [pytest.param("pathos", marks=pytest.mark.pathos), pytest.param("multiprocessing", marks=pytest.mark.joblib)]
LOKY = pytest.param("loky", marks=pytest.mark.joblib)


@contextmanager
def program(kind: str, what: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the program until it is up, in a process group of its own, with all its children marked."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(anymap.__file__).parents[1]),
        "JOBLIB_TEMP_FOLDER": str(folder),
        "MARK": f"{os.getpid()} {kind}",
    }
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, kind, what],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n", process.communicate()
            yield process
        finally:
            for stray in marked(kind):
                stray.kill()


def marked(kind: str) -> list[psutil.Process]:
    """Return the living processes that the program started, itself included."""
    mark = f"{os.getpid()} {kind}"
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("kind", [*PROGRAMS, LOKY])
@pytest.mark.parametrize("what", ["busy", "idle"])
def test_no_worker_outlives_a_killed_caller(kind: str, what: str, tmp_path: Path) -> None:
    with program(kind, what, tmp_path) as process:
        assert len(marked(kind)) > 2
        process.kill()
        process.wait()
        until(lambda: not marked(kind))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
@pytest.mark.parametrize("kind", PROGRAMS)
def test_no_worker_outlives_a_killed_caller_with_the_interpreter_lock_in_its_hands(kind: str, tmp_path: Path) -> None:
    with program(kind, "interpreter lock", tmp_path) as process:
        process.kill()
        process.wait()
        until(lambda: not marked(kind))


@pytest.mark.parametrize("kind", [*PROGRAMS, LOKY])
@pytest.mark.parametrize("group", [True, False], ids=["group", "caller"])
def test_an_interrupt_ends_the_program_at_once_with_one_traceback(kind: str, group: bool, tmp_path: Path) -> None:
    with program(kind, "busy", tmp_path) as process:
        os.killpg(process.pid, signal.SIGINT) if group else process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LONG)
        assert process.returncode == -signal.SIGINT
        assert errors.count("Traceback") == 1
        assert errors.splitlines()[-1] == "KeyboardInterrupt"
        until(lambda: not marked(kind))


@pytest.mark.parametrize("kind", [*PROGRAMS, LOKY])
def test_a_map_that_was_never_closed_does_not_hold_up_the_programs_exit(kind: str, tmp_path: Path) -> None:
    with program(kind, "exit", tmp_path) as process:
        _, errors = process.communicate("\n", timeout=LONG)
        assert process.returncode == 0
        assert not errors
        until(lambda: not marked(kind))
