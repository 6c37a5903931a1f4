"""Worker processes: kept warm, shared, and gone when they should be; and what is the user's own is left alone."""

from __future__ import annotations

import glob
import importlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.managers import SharedMemoryManager, SyncManager
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil
import pytest

import anymap
from anymap import ConfigError, WorkerLost, pmap
from anymap._host import cpus
from anymap._host.interrupts import interrupts_held_back
from anymap.backends import Processes
from anymap.backends._processes import kept, pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anymap.backends import Backend

HOME = str(Path(anymap.__file__).parents[1])
LONG = 30.0

with_process_workers = pytest.mark.parametrize(
    "name",
    [
        pytest.param("processes", marks=pytest.mark.processes),
        pytest.param("pathos", marks=pytest.mark.pathos),
        pytest.param("joblib", marks=pytest.mark.joblib),
        pytest.param("dask", marks=[pytest.mark.dask, pytest.mark.full]),
    ],
)


def until(condition: Callable[[], Any], limit: float = LONG) -> Any:
    give_up = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.01)
    return found


ENVIRONMENT = {**os.environ, "PYTHONPATH": HOME}
# With it each part of a line is written by itself, and no line of several processes is whole.
ENVIRONMENT.pop("PYTHONUNBUFFERED", None)


def run(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program that must succeed."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done


def pid(_: object = None) -> int:
    return os.getpid()


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# --- warm workers, shared ---------------------------------------------------------------------------------------------


def workers_of_a_map(workers: int = 2) -> set[int]:
    return set(pmap(pid, range(40), backend="processes", workers=workers, chunksize=1))


def test_workers_are_processes_and_stay_for_the_next_map() -> None:
    first = workers_of_a_map()
    assert os.getpid() not in first
    assert all(map(lives, first))
    again = [workers_of_a_map() for _ in range(5)]
    assert len(first.union(*again)) <= 2


def test_shutdown_ends_the_workers_and_the_next_map_starts_new_ones() -> None:
    first = workers_of_a_map()
    anymap.shutdown()
    assert not any(map(lives, first))
    anymap.shutdown()
    assert not workers_of_a_map() & first


@pytest.mark.parametrize("on_error", ["raise", "return"])
def test_shutdown_during_a_map_is_no_items_fault(on_error: Literal["raise", "return"], tmp_path: Path) -> None:
    def stay(path: Path) -> None:
        path.touch()
        time.sleep(600)

    files = [tmp_path / f"{number}" for number in range(20)]
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(lambda: pmap(stay, files, workers=2, chunksize=1, on_error=on_error))
        until(lambda: len(list(tmp_path.iterdir())) == 2)
        anymap.shutdown()
        exc = running.exception(LONG)
    assert exc is not None
    assert str(exc) == "anymap was shut down while a map was running"
    assert anymap.failure(exc) is None
    assert not getattr(exc, "__notes__", [])


def test_maps_that_ask_for_no_number_share_as_many_workers_as_there_are_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    anymap.shutdown()
    monkeypatch.setattr(cpus, "available", lambda: 2)
    seen: set[int] = set()

    def one(number: int) -> bool:
        results = pmap(lambda x: (x * number, os.getpid()), range(10), backend="processes")
        seen.update(worker for _, worker in results)
        return [value for value, _ in results] == [x * number for x in range(10)]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(one, range(100)))
    assert 1 <= len(seen) <= 2


@pytest.mark.parametrize("name", ["threads", "processes", "pathos", "joblib", "dask"])
def test_each_of_several_maps_has_the_workers_that_it_asks_for(name: str, tmp_path: Path) -> None:
    def meet(x: int) -> int:
        (tmp_path / f"{x}").touch()
        give_up = time.monotonic() + LONG
        while len(list(tmp_path.iterdir())) < 3:
            if time.monotonic() > give_up:
                raise TimeoutError
            time.sleep(0.005)
        return x

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(lambda x: pmap(meet, [x], backend=name, workers=1), range(3))) == [[0], [1], [2]]


@pytest.mark.parametrize("name", ["threads", "processes", "pathos"])
def test_a_small_map_does_not_wait_for_the_items_of_a_long_one(name: str, tmp_path: Path) -> None:
    def wait(x: int) -> int:
        (tmp_path / f"{x}").touch()
        while not (tmp_path / "go").exists():
            time.sleep(0.005)
        return x

    with ThreadPoolExecutor(1) as threads:
        long = threads.submit(pmap, wait, range(4), backend=name, workers=2)
        until(lambda: len(list(tmp_path.iterdir())) == 2)
        try:
            assert pmap(abs, [-1, -2], backend=name, workers=2) == [1, 2]
        finally:
            (tmp_path / "go").touch()
        assert long.result(LONG) == list(range(4))


def test_workers_that_a_map_asked_for_end_after_it_though_another_map_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_IDLE_TICK", 0.01)
    anymap.shutdown()
    with (
        anymap.using(idle_timeout=0.01, inner_threads=1),
        pmap(pid, itertools.count(), backend="processes", workers=1, lazy=True) as long,
    ):
        kept = next(long)
        others = workers_of_a_map(3) - {kept}
        until(lambda: sum(map(lives, {kept, *others})) == 1)
        next(long)


def test_a_task_that_waits_behind_one_that_kills_its_worker_gets_another_that_is_idle() -> None:
    with anymap.using(inner_threads=1):
        workers_of_a_map(3)
        got = pmap(exit_at_zero, [0, 1], backend="processes", workers=1, chunksize=1, on_error="return")
    assert isinstance(got[0], WorkerLost)
    assert got[1] == 1


def exit_at_zero(x: int) -> int:
    if x == 0:
        os._exit(3)
    return x


def test_a_map_that_is_long_does_not_keep_another_from_its_turn(tmp_path: Path) -> None:
    def wait(x: int) -> int:
        while x < 2 and not (tmp_path / "go").exists():
            time.sleep(0.005)
        return x

    # Both workers could be kept busy; the second map asks for three.
    with pmap(wait, range(20), backend=Processes(), workers=1, lazy=True, chunksize=1) as long:
        thread = threading.Thread(target=lambda: long_results.extend(long))
        long_results: list[int] = []
        thread.start()
        assert pmap(abs, range(50), backend=Processes(), workers=2) == list(range(50))
        (tmp_path / "go").touch()
        thread.join(LONG)
    assert long_results == list(range(20))


def test_a_map_has_no_more_workers_than_it_asked_for(tmp_path: Path) -> None:
    workers_of_a_map(3)

    def meet(x: int) -> int:
        (tmp_path / f"{x}").touch()
        most = len(list(tmp_path.iterdir()))
        (tmp_path / f"{x}").unlink()
        return most

    assert max(pmap(meet, range(200), backend="processes", workers=2, chunksize=1)) <= 2


def test_idle_workers_end_after_as_long_as_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_IDLE_TICK", 0.01)
    with anymap.using(idle_timeout=0.01):
        (pid,) = pmap(lambda _: os.getpid(), [0], workers=1)
    until(lambda: not psutil.pid_exists(pid))
    assert pmap(lambda _: os.getpid(), [0], workers=1) != [pid]


def test_an_idle_worker_that_is_killed_is_replaced() -> None:
    for _ in range(3):
        for worker in workers_of_a_map():
            os.kill(worker, signal.SIGKILL)
        assert pmap(abs, range(10), backend="processes", workers=2) == list(range(10))


def test_a_worker_that_is_killed_while_it_starts_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    start, unlucky = kept.start_interpreter, iter([True])

    def start_and_kill(*arguments: Any) -> Any:
        process = start(*arguments)
        if next(unlucky, False):
            process.kill()
            process.wait()
        return process

    anymap.shutdown()
    monkeypatch.setattr(kept, "start_interpreter", start_and_kill)
    assert pmap(abs, range(10), backend="processes", workers=2) == list(range(10))


def test_workers_that_all_end_as_they_start_are_told_of_and_not_started_for_ever(tmp_path: Path) -> None:
    executable = tmp_path / "python"
    # A Python that says its version, and cannot start a worker.
    executable.write_text(f'#!/bin/sh\ncase "$*" in *version_info*) exec {sys.executable} "$@" ;; esac\nexit 1\n')
    executable.chmod(0o755)
    code = (
        "import multiprocessing.spawn\n"
        f"multiprocessing.spawn.set_executable({str(executable)!r})\n"
        "from anymap import WorkerLost, pmap\n"
        "try:\n"
        "    pmap(abs, range(3), backend='processes', workers=2)\n"
        "except WorkerLost as exc:\n"
        "    print(exc)\n"
    )
    # Which of the two that were sent first is up to chance.
    assert "workers end before they begin item" in run(code).stdout


def test_a_worker_that_is_stopped_by_the_map_before_it_is_not_missed(tmp_path: Path) -> None:
    for _ in range(3):
        with pytest.raises(WorkerLost):
            pmap(lambda _: os._exit(3), range(4), backend="processes", workers=2)
        assert pmap(abs, range(10), backend="processes", workers=2) == list(range(10))


# --- forks --------------------------------------------------------------------------------------------------------------

SEEN_BY_FORKS = ["as it was at import"]


def look(_: int) -> str:
    import tests_own_state  # type: ignore[import-not-found]

    return str(tests_own_state.text)


@pytest.fixture
def own_state(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a module that is nowhere but in the memory of this process."""
    module = type(sys)("tests_own_state")
    monkeypatch.setitem(sys.modules, "tests_own_state", module)
    return module


def test_forks_see_this_process_as_it_is_when_the_map_begins(own_state: Any) -> None:
    for text in ("first", "second"):
        own_state.text = text
        assert set(pmap(look, range(10), backend=Processes(start_method="fork"), workers=2)) == {text}
    with pytest.raises(ModuleNotFoundError):
        pmap(look, [1], backend=Processes())


def test_forks_end_with_their_map() -> None:
    before = set(psutil.Process().children())
    forks = set(pmap(pid, range(10), backend=Processes(start_method="fork"), workers=2))
    assert os.getpid() not in forks
    until(lambda: not any(map(lives, forks)))
    until(lambda: set(psutil.Process().children()) <= before)


def test_forks_that_die_are_told_and_replaced() -> None:
    caller = os.getpid()

    def die(x: int) -> int:
        if x == 3:
            assert os.getpid() != caller
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    results = pmap(die, range(10), backend=Processes(start_method="fork"), workers=2, on_error="return")
    assert results[:3] + results[4:] == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert isinstance(results[3], WorkerLost)


def test_children_that_the_program_has_reaped_by_the_system_are_no_trouble() -> None:
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "from anymap import pmap\n"
        "from anymap.backends import Processes\n"
        "for method in ('fork', 'spawn'):\n"
        "    backend = Processes(start_method=method)\n"
        "    assert pmap(abs, range(10), backend=backend, workers=2) == list(range(10))\n"
        "    lost = pmap(lambda x: os._exit(1) if x == 1 else x, range(3), backend=backend, workers=2, on_error='return')\n"
        "    assert [type(one).__name__ for one in lost] == ['int', 'WorkerLost', 'int'], lost\n"
    )
    done = run(code)
    assert done.stderr == ""


def test_an_unknown_start_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="forkserver"):
        Processes(start_method="forkserver")  # type: ignore[arg-type]


# --- the end of the caller ----------------------------------------------------------------------------------------------

PROGRAM = """
import os, sys, time
from pathlib import Path
from anymap import pmap

folder, backend, busy = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "busy"
if backend == "fork":
    from anymap.backends import Processes
    backend = Processes(start_method="fork")

def work(x):
    (folder / f"worker-{os.getpid()}").touch()
    # All workers take part before any goes on.
    while len(list(folder.glob("worker-*"))) < 2 and not (folder / "stop").exists():
        time.sleep(0.01)
    while busy and not (folder / "stop").exists():
        time.sleep(0.01)

pmap(work, range(4), backend=backend, workers=2, chunksize=1)
(folder / "idle").touch()
while not (folder / "stop").exists():
    time.sleep(0.01)
"""


@contextmanager
def program(
    folder: Path, backend: str, state: str, **options: Any
) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Run a program in a group of its own up to where its two workers are busy, or idle; give it and their ids."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM, str(folder), backend, state],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )
    try:
        until(lambda: len(list(folder.glob("worker-*"))) == 2 or process.poll() is not None)
        if state == "idle":
            until(lambda: (folder / "idle").exists() or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        everyone = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        workers = [int(path.name.partition("-")[2]) for path in folder.glob("worker-*")]
        yield process, sorted({*everyone, *workers})
    finally:
        (folder / "stop").touch()
        process.kill()
        process.communicate()


KINDS = [
    pytest.param("processes", marks=pytest.mark.processes),
    pytest.param("fork", marks=pytest.mark.processes),
    pytest.param("pathos", marks=pytest.mark.pathos),
    pytest.param("joblib", marks=pytest.mark.joblib),
    pytest.param("dask", marks=[pytest.mark.dask, pytest.mark.full]),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", ["busy", "idle"])
def test_no_worker_outlives_a_caller_that_is_killed(kind: str, state: str, tmp_path: Path) -> None:
    with program(tmp_path, kind, state) as (process, workers):
        process.kill()
        process.wait()
        until(lambda: not any(map(lives, workers)), limit=3)


@pytest.mark.parametrize("kind", KINDS)
def test_no_worker_outlives_a_caller_that_is_told_to_end(kind: str, tmp_path: Path) -> None:
    with program(tmp_path, kind, "busy") as (process, workers):
        process.terminate()
        assert process.wait(3) != 0
        until(lambda: not any(map(lives, workers)), limit=3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("whom", ["group", "parent"])
def test_an_interrupt_ends_the_map_with_the_callers_own_traceback_and_no_more(
    kind: str, whom: str, tmp_path: Path
) -> None:
    with program(tmp_path, kind, "busy") as (process, workers):
        began = time.monotonic()
        (os.killpg if whom == "group" else os.kill)(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=LONG)
        assert time.monotonic() - began < 3.5
        until(lambda: not any(map(lives, workers)), limit=3)
    assert process.returncode != 0
    assert stderr.count("Traceback") == 1, stderr
    assert stderr.rstrip().endswith("KeyboardInterrupt"), stderr


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_after_the_map_leaves_no_worker(kind: str, tmp_path: Path) -> None:
    with program(tmp_path, kind, "idle") as (process, workers):
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=LONG)
        until(lambda: not any(map(lives, workers)), limit=3)
    assert stderr.splitlines().count("KeyboardInterrupt") == 1, stderr


def test_an_interrupt_leaves_the_backend_fit_for_the_next_map(backend: Backend, tmp_path: Path) -> None:
    started, over = tmp_path / "started", tmp_path / "over"

    def wait(_: int) -> None:
        started.touch()
        while not over.exists():
            time.sleep(0.005)

    def interrupt() -> None:
        until(started.exists)
        # Taken by this thread, it does not wake the one that waits, as when it comes just before that begins to.
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    for _ in range(2):
        started.unlink(missing_ok=True)
        over.unlink(missing_ok=True)
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            pmap(wait, range(4), backend=backend, workers=2, chunksize=1)
        over.touch()
        thread.join()
        assert pmap(abs, range(10), backend=backend, workers=2) == list(range(10))


def test_an_interrupt_while_workers_are_started_comes_when_they_are_known() -> None:
    known: list[str] = []
    starting = threading.Event()

    def take_the_signal() -> None:
        starting.wait(LONG)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    other = threading.Thread(target=take_the_signal)
    other.start()

    def start() -> None:
        with interrupts_held_back():
            starting.set()
            other.join()
            known.append("worker")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert known == ["worker"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_a_killed_caller_left_is_swept_by_the_next_one(tmp_path: Path) -> None:
    with program(tmp_path, "processes", "busy") as (process, workers):
        pattern = f"anymap-{os.getuid()}-{process.pid}-*"
        left = [path for base in ("/dev/shm", "/tmp") for path in glob.glob(f"{base}/{pattern}")]
        assert left
        process.kill()
        process.wait()
        until(lambda: not any(map(lives, workers)), limit=3)
    for path in left:
        os.utime(path, (0, 0))  # one that is quite new may be about to be locked by its owner
    code = "from anymap import pmap; print(pmap(abs, [-1], backend='processes', workers=1))"
    run(code)
    assert not any(map(os.path.exists, left))


@pytest.mark.parametrize("name", ["serial", "threads", "processes", "pathos", "joblib"])
def test_a_program_that_exits_with_a_map_left_open_ends_at_once_and_leaves_nothing(name: str) -> None:
    code = (
        "import os, numpy\n"
        "from anymap import pmap\n"
        "from anymap.progress import Finished\n"
        "tell = lambda event: print('finished') if isinstance(event, Finished) else None\n"
        f"backend = {name!r}\n"
        "print(*pmap(lambda _: os.getpid(), range(4), backend=backend, workers=2), os.getpid())\n"
        "arrays = [numpy.zeros(200_000)] * 40\n"
        "results = pmap(lambda x: x + 1, arrays, backend=backend, workers=2, lazy=True, progress=tell)\n"
        "next(results)\n"
    )
    done = run(code)
    assert done.stderr == ""
    pids, finished = done.stdout.splitlines()
    assert finished == "finished"
    *workers, caller = map(int, pids.split())
    until(lambda: not any(map(lives, workers)), limit=3)
    assert not [path for base in ("/dev/shm", "/tmp") for path in glob.glob(f"{base}/anymap-*-{caller}-*")]


# Not on pathos and joblib: multiprocessing's own clean-up in such a fork ends its parent's workers.
@pytest.mark.parametrize("name", ["serial", "threads", "processes"])
def test_a_fork_that_ends_while_a_map_is_open_does_not_end_the_map(name: str) -> None:
    code = (
        "import os, sys, numpy\n"
        "from anymap import pmap\n"
        "total = 0\n"
        "arrays = [numpy.ones(100_000)] * 30\n"
        f"for result in pmap(lambda x: x + 1, arrays, backend={name!r}, workers=2, lazy=True):\n"
        "    total += result.sum()\n"
        "    if total == 600_000:\n"
        "        pid = os.fork()\n"
        "        if not pid:\n"
        "            sys.exit(7)\n"
        "        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7\n"
        "print(total)\n"
    )
    done = run(code)
    assert (done.stdout, done.stderr) == ("6000000.0\n", "")


# --- standard streams ---------------------------------------------------------------------------------------------------


def test_workers_do_not_read_the_callers_standard_input() -> None:
    code = (
        "import sys\n"
        "from anymap import pmap\n"
        "first = sys.stdin.readline()\n"
        "print(pmap(lambda _: sys.stdin.read(), range(4), backend='processes', workers=2))\n"
        "print(first + sys.stdin.read())\n"
    )
    done = run(code, input="one\ntwo\n")
    assert done.stdout == "['', '', '', '']\none\ntwo\n\n"


def test_what_workers_print_comes_out_whole_where_the_caller_prints() -> None:
    code = (
        "import sys\n"
        "from anymap import pmap\n"
        "def say(x):\n"
        "    print(f'line {x}', flush=True)\n"
        "    print(f'trouble {x}', file=sys.stderr)\n"
        "pmap(say, range(100), backend='processes', workers=2)\n"
    )
    done = run(code)
    assert sorted(done.stdout.splitlines()) == sorted(f"line {x}" for x in range(100))
    assert sorted(done.stderr.splitlines()) == sorted(f"trouble {x}" for x in range(100))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_what_is_printed_comes_out_once(method: str) -> None:
    code = f"""
from anymap import pmap
from anymap.backends import Processes
print("before")
pmap(lambda x: print("item", x), range(3), backend=Processes(start_method={method!r}), workers=1)
print("after")
"""
    assert sorted(run(code).stdout.splitlines()) == ["after", "before", "item 0", "item 1", "item 2"]


def test_closed_standard_streams_are_no_trouble(tmp_path: Path) -> None:
    code = (
        "import os\n"
        "for fd in range(3):\n"
        "    os.close(fd)\n"
        "from anymap import pmap\n"
        "results = pmap(lambda x: x + 1, range(10), backend='processes', workers=2)\n"
        f"open({str(tmp_path / 'out')!r}, 'w').write(str(results))\n"
    )
    run(code)
    assert (tmp_path / "out").read_text() == str(list(range(1, 11)))


# --- what is the user's own ---------------------------------------------------------------------------------------------


def write_to(segment: tuple[str, int]) -> int:
    memory = SharedMemory(segment[0])
    memory.buf[segment[1]] = segment[1] + 1
    memory.close()
    return segment[1]


@with_process_workers
def test_the_users_shared_memory_is_written_to_and_outlives_the_workers(name: str) -> None:
    memory = SharedMemory(create=True, size=16)
    try:
        rows = [(memory.name, position) for position in range(8)]
        assert pmap(write_to, rows, backend=name, workers=2) == list(range(8))
        anymap.shutdown()
        assert list(memory.buf[:8]) == list(range(1, 9))
        again = SharedMemory(memory.name)
        again.close()
    finally:
        memory.close()
        memory.unlink()


@with_process_workers
def test_the_users_managers_serve_the_workers(name: str) -> None:
    with SyncManager() as manager:
        known, lock = manager.dict(), manager.Lock()

        def enter(x: int) -> None:
            with lock:
                known[x] = known.get(x, 0) + 1

        pmap(enter, [1, 2, 3] * 4, backend=name, workers=2)
        assert dict(known) == {1: 4, 2: 4, 3: 4}
    with SharedMemoryManager() as manager:
        numbers = manager.ShareableList([0] * 4)

        def put(x: int) -> None:
            numbers[x] = x * x

        pmap(put, range(4), backend=name, workers=2)
        assert list(numbers) == [0, 1, 4, 9]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_users_own_processes_run_beside_the_map(method: str) -> None:
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    with pmap(abs, range(-50, 0), backend="processes", workers=2, lazy=True) as results:
        first = next(results)
        process = context.Process(target=queue.put, args=("from the user's own",))
        process.start()
        assert queue.get() == "from the user's own"
        process.join()
        assert [first, *results] == list(range(50, 0, -1))
    assert process.exitcode == 0


def test_a_map_fixes_no_start_method_and_starts_no_resource_tracker() -> None:
    code = (
        "import multiprocessing\n"
        "from multiprocessing import resource_tracker\n"
        "from anymap import pmap\n"
        "pmap(abs, range(10), backend='processes', workers=2)\n"
        "assert multiprocessing.get_start_method(allow_none=True) is None\n"
        "assert resource_tracker._resource_tracker._pid is None\n"
        "multiprocessing.set_start_method('spawn')\n"
    )
    run(code)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_daemonic_process_of_the_users_may_map(tmp_path: Path) -> None:
    out = tmp_path / "out"
    context = multiprocessing.get_context("fork")
    process = context.Process(target=map_and_write, args=(out,), daemon=True)
    process.start()
    process.join(LONG)
    assert out.read_text() == "[1, 2, 3]"


def map_and_write(path: Path) -> None:
    path.write_text(str(pmap(lambda x: x + 1, range(3), backend="processes", workers=2)))


def test_the_users_signal_handlers_are_left_alone(backend: Backend) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
    pmap(abs, range(10), backend=backend, workers=2)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)] == before
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_child_of_the_users_is_still_his_to_wait_for() -> None:
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    for _ in range(3):
        pmap(abs, range(10), backend="processes", workers=2)
        with pytest.raises(WorkerLost):
            pmap(lambda _: os._exit(1), [0], backend="processes", workers=2)
    assert child.wait() == 7


def test_no_descriptor_is_left_open() -> None:
    pmap(abs, range(10), backend="processes", workers=2)
    anymap.shutdown()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        pmap(lambda x: bytes(200_000), range(10), backend="processes", workers=2)
        with pytest.raises(WorkerLost):
            pmap(lambda _: os._exit(1), [0], backend="processes", workers=2)
        pmap(abs, range(10), backend=Processes(start_method="fork"), workers=2)
    anymap.shutdown()
    until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_workers_do_not_inherit_the_callers_descriptors(tmp_path: Path) -> None:
    anymap.shutdown()
    with (tmp_path / "file").open("w") as file:
        os.set_inheritable(file.fileno(), True)

        def links(_: int) -> list[str]:
            found = []
            for fd in os.listdir("/proc/self/fd"):
                try:
                    found.append(os.readlink(f"/proc/self/fd/{fd}"))
                except OSError:
                    continue
            return found

        [open_there] = pmap(links, [0], backend="processes", workers=1)
        assert str(tmp_path / "file") not in open_there


def test_a_module_that_is_imported_between_two_maps_does_not_end_the_warm_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name, edited in ("written_long_ago", 1.0), ("written_just_now", time.time() + 1):
        (tmp_path / f"{name}.py").write_text("")
        os.utime(tmp_path / f"{name}.py", (edited, edited))
        before = workers_of_a_map()
        importlib.import_module(name)
        # A worker may have imported what was written just now before it was written anew.
        assert (workers_of_a_map() <= before) == (edited == 1.0)


def test_a_module_that_is_loaded_again_right_after_a_map_is_new_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "loaded_again.py"
    file.write_text("def edition(_): return 0")
    module = importlib.import_module("loaded_again")
    for code_version in range(1, 4):
        file.write_text(f"def edition(_): return {code_version}")
        # Else the compiled code of the one before may be taken for this one's.
        os.utime(file, (code_version, code_version))
        importlib.reload(module)
        assert pmap(module.edition, range(2), backend="processes") == [code_version] * 2
