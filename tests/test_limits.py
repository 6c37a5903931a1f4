"""Where something runs out: memory, the stack, the disk, the items that a worker may run."""

from __future__ import annotations

import faulthandler
import functools
import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import anymap
from anymap import ConfigError, WorkerLost, pmap
from anymap._host import memory
from anymap.backends import Processes
from anymap.progress import Finished

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anymap.progress import Event

pytestmark = pytest.mark.full

HOME = str(Path(anymap.__file__).parents[1])
MB = 2**20
IN_PROCESSES = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("processes", "pathos", "joblib")]

in_processes = pytest.mark.parametrize("name", IN_PROCESSES)
in_processes_or_dask = pytest.mark.parametrize("name", [*IN_PROCESSES, pytest.param("dask", marks=pytest.mark.dask)])


def run(code: str, *arguments: str, prefix: tuple[str, ...] = (), folder: str | None = None) -> str:
    """Run a program that must succeed; return what it printed."""
    command = [*prefix, sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code), *arguments]
    environment = {**os.environ, "PYTHONPATH": HOME}
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_worker_for_others() -> Iterator[None]:
    """Keep workers whose memory a test has limited from other tests."""
    yield
    anymap.shutdown()


def leave(megabytes: int) -> None:
    """Limit the memory of this process, a worker, to so much more than it has."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * MB, resource.RLIM_INFINITY))


needs_memory_limits = pytest.mark.skipif(sys.platform != "linux", reason="memory can be limited on Linux only")


@needs_memory_limits
@in_processes_or_dask
@pytest.mark.parametrize(
    "shape",
    [bytes, lambda size: (bytes(size), 1), lambda size: [bytes(size)]],
    ids=["plain", "in a tuple", "in a list"],
)
def test_to_send_large_bytes_takes_no_memory_for_a_second_copy(
    name: str, shape: Callable[[int], Any], no_worker_for_others: None
) -> None:
    def make(x: int) -> Any:
        leave(150)
        return shape(100 * MB)

    assert pmap(make, range(1), backend=name, workers=2) == [shape(100 * MB)]


@needs_memory_limits
@in_processes_or_dask
@pytest.mark.parametrize(
    "shape",
    ["x".__mul__, lambda size: ("x" * size, 1), lambda size: ["x" * size]],
    ids=["plain", "in a tuple", "in a list"],
)
def test_a_result_that_there_is_no_memory_to_send_is_its_items_error(
    name: str, shape: Callable[[int], Any], no_worker_for_others: None
) -> None:
    def make(x: int) -> Any:
        if x == 2:
            leave(150)
            return shape(100 * MB)
        return x

    results = pmap(make, range(8), backend=name, workers=2, chunksize=4, on_error="return")
    assert isinstance(results[2], MemoryError)
    assert "the result cannot be sent back" in str(results[2])
    assert "item 2 (2)" in str(results[2].__notes__)
    assert results[:2] + results[3:] == [0, 1, 3, 4, 5, 6, 7]


@needs_memory_limits
def test_bytes_that_there_is_no_memory_to_put_in_a_message_are_refused_and_nothing_else() -> None:
    program = """
        import resource
        from pathlib import Path
        from anymap._serialize.object_table import sender_table
        from anymap._serialize.packing import pack, unpack

        values = [[1], (bytes(40_000_000), 2), [bytes(40_000_000)], [3]]
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 25_000_000, resource.RLIM_INFINITY))
        parcel, refused = pack(values, sender_table())
        opened = unpack(parcel)
        print({position: type(exc).__name__ for position, exc in refused.items()}, opened[0], opened[3])
        print(pack(values, sender_table(), to_file=True)[1])
    """
    assert run(program).splitlines() == ["{1: 'MemoryError', 2: 'MemoryError'} [1] [3]", "{}"]


def use_up_all_memory(kept: list[Any]) -> None:
    leave(20)
    size = MB
    while size > 16:
        try:
            kept.append(bytearray(size))
        except MemoryError:
            size //= 2


@needs_memory_limits
@in_processes_or_dask
@pytest.mark.parametrize("chunksize", [1, 4])
def test_a_worker_without_memory_to_answer_ends_and_is_replaced(
    name: str, chunksize: int, tmp_path: Path, no_worker_for_others: None
) -> None:
    def swell(x: int, kept: list[Any] = []) -> int:  # noqa: B006 - that is the leak
        with (tmp_path / str(x)).open("a") as file:
            file.write(".")
        if x == 2:
            use_up_all_memory(kept)
        return x

    results = pmap(swell, range(8), backend=name, workers=2, chunksize=chunksize, on_error="return")
    assert isinstance(results[2], WorkerLost)
    assert "item 2 (2)" in str(results[2])
    assert "it ran out of memory" in str(results[2])
    assert results[:2] + results[3:] == [0, 1, 3, 4, 5, 6, 7]
    if chunksize == 1:
        assert (tmp_path / "2").read_text() == ".", "it is to blame, so it is not tried again"


CONTROL_GROUPS = {
    "version 1": (
        "4:memory:/mine",
        "memory/mine",
        "memory.limit_in_bytes",
        "memory.oom_control",
        "oom_kill_disable 0\n",
    ),
    "version 2": ("0::/mine", "mine", "memory.max", "memory.events", "oom 3\n"),
    "version 2, in a container": ("0::/somewhere/else", "", "memory.max", "memory.events", "oom 3\n"),
}


@in_processes_or_dask
@pytest.mark.parametrize("version", CONTROL_GROUPS)
def test_a_worker_that_the_kernel_killed_for_want_of_memory_is_told_from_one_that_was_killed(
    name: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    membership, folder, limit, events, before = CONTROL_GROUPS[version]
    group = tmp_path / folder
    group.mkdir(parents=True, exist_ok=True)
    (tmp_path / "membership").write_text(f"5:cpu:/\n{membership}\n")
    (group / limit).write_text(f"{200 * MB}\n")
    (group / events).write_text(f"{before}oom_kill 7\n")
    monkeypatch.setattr(memory, "_CGROUPS", str(tmp_path))
    monkeypatch.setattr(memory, "_MEMBERSHIP", str(tmp_path / "membership"))
    monkeypatch.setattr(memory, "_explained", None)

    def be_killed(by_the_kernel: bool) -> None:
        if by_the_kernel:
            (group / events).write_text(f"{before}oom_kill 8\n")
        os.kill(os.getpid(), signal.SIGKILL)

    texts = [
        str(pmap(be_killed, [by_the_kernel], backend=name, workers=2, on_error="return")[0])
        for by_the_kernel in (False, True, False)
    ]
    assert ["the kernel killed" in text for text in texts] == [False, True, False]
    assert f"the limit of the control group is {200 * MB / 2**20:,.0f} MB" in texts[1]


@needs_memory_limits
@pytest.mark.parametrize("name", IN_PROCESSES[:2])
@pytest.mark.parametrize("make", [bytes, bytearray], ids=["plain", "mapped"])
def test_an_argument_too_large_for_a_worker_is_its_items_error(
    name: str, make: Callable[[int], Any], no_worker_for_others: None
) -> None:
    def measure(x: Any) -> int:
        if x == b"":
            leave(100)
        return len(x)

    items = [b"", b"1", make(200 * MB), b"2"]
    results = pmap(measure, items, backend=name, workers=1, chunksize=1, on_error="return")
    assert isinstance(results[2], MemoryError)
    assert results[:2] + results[3:] == [0, 1, 1]


@needs_memory_limits
@pytest.mark.processes
def test_a_worker_in_which_an_item_found_no_memory_serves_no_other(no_worker_for_others: None) -> None:
    def hold(x: int) -> int:
        if x == 0:
            leave(50)
        bytes(100 * MB)
        return os.getpid()

    sink: list[Event] = []
    results = pmap(hold, range(4), backend="processes", workers=1, chunksize=4, on_error="return", progress=sink.append)
    assert isinstance(results[0], MemoryError)
    [pid] = set(results[1:])
    assert f"worker {pid}" not in str(results[0].__notes__)
    assert lost(sink) == 0


def lost(events: list[Event]) -> int:
    [finished] = [event for event in events if isinstance(event, Finished)]
    return finished.lost


PEAK = """
    import sys
    import numpy as np
    from anymap import pmap

    name, size = sys.argv[1], int(sys.argv[2]) * 2**20

    def peak():
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

    def whole(x):
        return b"1" * x

    def part(x):
        return {"array": np.full(x // 8, 1.5), "more": [1]}

    def both(one):
        [result] = pmap(*one, backend=name, workers=2)
        return result

    both((abs, [1]))
    base = peak()
    assert both((whole, [size])).count(b"1") == size
    assert both((part, [size]))["array"].sum() == size // 8 * 1.5
    assert both((len, [bytes(size)])) == size
    assert both((np.sum, [np.ones(size // 8)])) == size // 8
    print((peak() - base) / size)
"""


@needs_memory_limits
@in_processes_or_dask
@pytest.mark.parametrize("megabytes", [200, pytest.param(500, marks=pytest.mark.long)])
def test_a_large_result_or_argument_takes_the_caller_at_most_twice_its_size(name: str, megabytes: int) -> None:
    assert float(run(PEAK, name, str(megabytes))) < 2.1


# --- the stack --------------------------------------------------------------------------------------------------------


@in_processes
def test_an_item_that_overflows_the_stack_of_c_is_lost_and_no_other(name: str) -> None:
    def overflow(x: int) -> int:
        if x == 1:
            faulthandler.disable()  # a fork of pytest would tell at length
            sys.setrecursionlimit(10**9)
            next(functools.reduce(lambda inner, _: itertools.chain(inner), range(500_000), iter([x])))
        return x

    results = pmap(overflow, range(4), backend=name, workers=2, on_error="return")
    assert isinstance(results[1], WorkerLost)
    assert results[1].exitcode == -11
    assert "item 1 (1)" in str(results[1])
    assert results[:1] + results[2:] == [0, 2, 3]


# --- items per worker -------------------------------------------------------------------------------------------------


@pytest.mark.processes
@pytest.mark.parametrize(
    ("start_method", "most", "items", "chunksize"),
    [("spawn", 3, 20, None), ("spawn", 4, 20, 10), ("fork", 1, 60, None), ("fork", 7, 200, 50)],
)
def test_a_worker_runs_exactly_as_many_items_as_it_may(
    start_method: Any, most: int, items: int, chunksize: int | None
) -> None:
    backend = Processes(start_method=start_method, max_tasks_per_worker=most)
    sink: list[Event] = []
    results = pmap(
        lambda x: (x, os.getpid()), range(items), backend=backend, workers=2, chunksize=chunksize, progress=sink.append
    )
    assert [x for x, _ in results] == list(range(items))
    ran = Counter(pid for _, pid in results)
    # The last two may not have come to their end.
    assert sorted(ran.values())[2:] == [most] * (len(ran) - 2)
    assert max(ran.values()) <= most
    assert lost(sink) == 0


@pytest.mark.processes
def test_items_count_from_map_to_map_and_workers_without_a_limit_are_others() -> None:
    limited = Processes(max_tasks_per_worker=2)
    pids = [pmap(lambda _: os.getpid(), [0], backend=limited, workers=1)[0] for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]
    unlimited = pmap(lambda _: os.getpid(), range(5), backend="processes", workers=1)
    assert len(set(unlimited)) == 1
    assert not {*unlimited} & {*pids}


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_a_function_leaks_is_given_back_with_its_worker() -> None:
    def leak(_: int, kept: list[bytes] = []) -> int:  # noqa: B006 - that is the leak
        kept.append(b"1" * (20 * MB))
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    backend = Processes(start_method="fork", max_tasks_per_worker=2)
    used = pmap(leak, range(20), backend=backend, workers=1)
    assert max(used) < min(used) + 60 * MB


@pytest.mark.processes
def test_the_failure_of_an_item_counts_as_one_too() -> None:
    def fail(x: int) -> None:
        raise ValueError(os.getpid())

    backend = Processes(start_method="fork", max_tasks_per_worker=2)
    errors = pmap(fail, range(6), backend=backend, workers=1, on_error="return")
    assert sorted(Counter(error.args[0] for error in errors).values()) == [2, 2, 2]


@pytest.mark.processes
@pytest.mark.parametrize("number", [0, -1, 1.5, True, "2"])
def test_a_number_of_items_that_is_none_is_refused(number: Any) -> None:
    with pytest.raises(ConfigError, match="max_tasks_per_worker"):
        Processes(max_tasks_per_worker=number)


# --- the disk ---------------------------------------------------------------------------------------------------------


LARGE = """
    import glob, os, sys, tempfile
    import numpy as np
    import anymap
    from anymap import pmap
    from anymap._host import workspace, pipe_reader

    name, size = sys.argv[1], 5 * 2**20
    blob = b"2" * size

    def left():
        folders = {"/dev/shm", tempfile.gettempdir()}
        found = [path for folder in folders for path in glob.glob(f"{folder}/anymap-*-{os.getpid()}-*/*")]
        return [path for path in found if path not in [kept.folder for kept in (*workspace._kept, *pipe_reader._readers)]]

    def run(func, items):
        try:
            return pmap(func, items, backend=name, workers=2)
        finally:
            assert not left(), left()
"""
RIGHT = (
    LARGE
    + """
    assert run(lambda x: b"1" * size, range(4)) == [b"1" * size] * 4
    assert run(lambda x: blob[x], range(4)) == [50] * 4
    results = run(lambda array: array + 1, [np.full(size // 8, float(x)) for x in range(4)])
    assert all((result == x + 1).all() for x, result in enumerate(results))
"""
)
LIMITED = """
    import resource, sys
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
"""


@in_processes_or_dask
def test_where_no_folder_has_room_for_large_data_it_goes_through_the_pipe(name: str) -> None:
    run(LIMITED + RIGHT, name, str(MB))


@pytest.mark.parametrize("name", IN_PROCESSES[:2])
def test_where_no_folder_has_room_for_anything_the_error_says_so(name: str) -> None:
    said = run(
        LIMITED
        + LARGE
        + """
    try:
        run(abs, range(4))
    except OSError as exc:
        print(exc.errno, exc)
    """,
        name,
        "1024",
    )
    assert said.startswith("27 ")
    assert "no room" in said
    assert "TMPDIR" in said


def in_a_small_shared_memory(options: str, then: str = "true") -> tuple[str, ...]:
    """Return what to put before a command to have it see another ``/dev/shm``."""
    mount = f"mount -t tmpfs -o {options} none /dev/shm && {then} && exec"
    return ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", f'{mount} "$0" "$@"')


@functools.cache
def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    return not subprocess.run(
        [*in_a_small_shared_memory("size=1m"), "true"], capture_output=True, check=False
    ).returncode


@pytest.fixture
def own_mounts() -> None:
    if not can_mount():
        pytest.skip("no mounts of one's own here: it takes Linux with user namespaces")


@in_processes_or_dask
def test_all_is_right_with_a_shared_memory_of_a_megabyte(name: str, own_mounts: None) -> None:
    run(RIGHT, name, prefix=in_a_small_shared_memory("size=1m"))


@pytest.mark.processes
@pytest.mark.parametrize(
    ("options", "then"),
    [("size=64k", "(cat /dev/zero >/dev/shm/full 2>/dev/null; true)"), ("size=64k,ro", "true")],
    ids=["full", "read-only"],
)
def test_all_is_right_with_a_shared_memory_that_is_of_no_use(options: str, then: str, own_mounts: None) -> None:
    run(RIGHT, "processes", prefix=in_a_small_shared_memory(options, then))
