"""Programs that close all file descriptors between two maps, as those do that become daemons."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from anymap._host.descriptors import Descriptor
from anymap.backends import Processes
from anymap.backends._processes.leases import Job

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no such programs")

LONG = 100.0
KINDS = [
    "processes",
    "forks",
    pytest.param("pathos", marks=pytest.mark.pathos),
    # Rarely a thread of dask's closes a number that is another file's by then, which nothing here can keep it from.
    pytest.param("dask", marks=[pytest.mark.dask, pytest.mark.long]),
]
BEGIN = """
import gc, os, sys, threading, time
import anymap
from anymap import pmap

kind, folder = sys.argv[1:]
files = []

def run():
    backend = anymap.backends.Processes(start_method="fork") if kind == "forks" else kind
    assert pmap(abs, range(-5, 0), backend=backend, workers=2) == [5, 4, 3, 2, 1]

def close_all():
    os.closerange(3, 1000)

def open_others():
    files.extend(open(f"{folder}/{number}", "w+") for number in range(16))

def check_others():
    gc.collect()
    for file in files:
        file.write("ours")
        file.flush()
        assert os.path.getsize(file.name) == 4, file

"""


def outcome(program: str, kind: str, folder: Path) -> tuple[str, str]:
    """Return the last line that a program prints, and all that it says of errors."""
    command = [sys.executable, "-W", "ignore", "-c", BEGIN + program, kind, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False)
    return done.stdout.rpartition("\n")[0].rpartition("\n")[2], done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_after_all_descriptors_were_closed_starts_its_workers_anew(kind: str, tmp_path: Path) -> None:
    program = """
run()
close_all()
run()
run()
anymap.shutdown()
run()
print("done")
"""
    said, errors = outcome(program, kind, tmp_path)
    assert said == "done", errors


@pytest.mark.parametrize("kind", ["processes", "forks", pytest.param("pathos", marks=pytest.mark.pathos)])
@pytest.mark.parametrize("then", ["run(); anymap.shutdown()", "anymap.shutdown(); run()"])
def test_no_file_is_touched_that_has_the_number_of_a_closed_descriptor(kind: str, then: str, tmp_path: Path) -> None:
    program = f"""
run()
close_all()
open_others()
{then}
check_others()
print("done")
"""
    assert outcome(program, kind, tmp_path) == ("done", "")


def test_nor_is_one_in_a_fork_that_closes_all(tmp_path: Path) -> None:
    program = """
run()
if not os.fork():
    close_all()
    open_others()
    run()
    anymap.shutdown()
    check_others()
    print("done", flush=True)
    os._exit(0)
os.wait()
run()
"""
    assert outcome(program, "processes", tmp_path) == ("done", "")


@pytest.mark.parametrize("kind", ["processes", "forks"])
def test_a_map_that_runs_meanwhile_ends_with_an_error_that_says_so(kind: str, tmp_path: Path) -> None:
    program = """
def close_when_it_runs():
    while not os.path.exists(f"{folder}/begun"):
        time.sleep(0.005)
    close_all()

def wait(_):
    open(f"{folder}/begun", "w").close()
    time.sleep(30)

threading.Thread(target=close_when_it_runs).start()
backend = anymap.backends.Processes(start_method="fork") if kind == "forks" else kind
try:
    pmap(wait, [0, 1], backend=backend, workers=2)
except RuntimeError as exc:
    print("has closed file descriptors" in str(exc))
"""
    said, errors = outcome(program, kind, tmp_path)
    assert said == "True", errors


def test_the_futures_of_a_pool_end_whatever_fails_while_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    backend: Any = Processes(start_method="fork").fresh()
    backend.open(1)
    pool = backend._lease._pool
    failed = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: failed.set())

    def end_workers() -> None:
        for worker in list(pool._workers.values()):
            pool._take_out(worker)
        raise OSError("it cannot end")

    monkeypatch.setattr(pool, "_end_workers", end_workers)
    job = Job(backend._lease, b"")
    pool.add(job)
    pool.close()
    assert isinstance(job.future.exception(LONG), RuntimeError)
    assert failed.wait(LONG)


def test_a_number_that_another_file_has_is_not_ours(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    descriptor = Descriptor(reader)
    assert descriptor.is_ours()
    os.close(writer)
    os.close(reader)
    assert not descriptor.is_ours()
    with (tmp_path / "file").open("w") as file:
        number = file.fileno()
        if number != reader:
            number = os.dup2(number, reader)
        assert not descriptor.is_ours()
        descriptor.close()
        os.fstat(number)
        if number != file.fileno():
            os.close(number)
