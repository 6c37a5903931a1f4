"""The state of the caller's process that items find, and what items of an earlier map have changed of it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib
import locale
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import joblib
import psutil
import pytest

import anymap
from anymap import Executor, Pool, UnsupportedOption, pmap
from anymap._host import interpreter_settings, process_state, start_state
from anymap._serialize import modules
from anymap.backends import Joblib, Processes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anymap.backends import Backend

VARIABLE = "TEST_OF_ANYMAP_STATE"
PROCESSES = pytest.param("processes", marks=pytest.mark.processes)
JOBLIB = pytest.param("joblib", marks=pytest.mark.joblib)
DASK = pytest.param("dask", marks=[pytest.mark.dask, pytest.mark.full], id="dask of its own")
FORKS = pytest.param(Processes(start_method="fork"), id="forks", marks=pytest.mark.processes)
PATHOS = pytest.param("pathos", marks=pytest.mark.pathos)
WARM = pytest.mark.parametrize("where", [PROCESSES, JOBLIB, DASK])
"""Where workers serve one map after another."""
COPIES = pytest.mark.parametrize("where", [PROCESSES, JOBLIB, DASK, FORKS, PATHOS])
"""Where workers are processes of ours."""


def look(_: object = None) -> tuple[str | None, str | None, int, bool]:
    umask = os.umask(0)
    os.umask(umask)
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        folder = None
    return folder, os.environ.get(VARIABLE), umask, "/spoilt" in sys.path


def spoil(_: object = None) -> None:
    os.chdir("/")
    os.environ[VARIABLE] = "spoilt"
    os.environ.pop("HOME", None)
    os.umask(0o77)
    sys.path.insert(0, "/spoilt")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    umask, path = os.umask(0o22), sys.path[:]
    yield
    os.umask(umask)
    sys.path[:] = path


def everywhere(function: Any, where: Any) -> list[Any]:
    """Call a function in each of two workers at least once, as they wait for each other."""
    return pmap(function, range(2), backend=where, workers=2, chunksize=1)


@COPIES
def test_what_items_change_of_their_process_ends_with_their_map(where: Any) -> None:
    with_home = os.environ.get("HOME")
    everywhere(spoil, where)
    assert everywhere(look, where) == [look()] * 2
    assert everywhere(lambda _: os.environ.get("HOME"), where) == [with_home] * 2


@COPIES
def test_items_find_the_folder_the_variables_and_the_umask_that_the_caller_has_now(
    where: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "before")
    assert everywhere(look, where) == [look()] * 2
    os.umask(0o27)
    assert everywhere(look, where) == [(os.getcwd(), "before", 0o27, False)] * 2
    monkeypatch.setenv(VARIABLE, "after")
    monkeypatch.chdir(tmp_path)
    assert everywhere(look, where) == [(str(tmp_path), "after", 0o27, False)] * 2
    monkeypatch.delenv(VARIABLE)
    assert everywhere(look, where) == [(str(tmp_path), None, 0o27, False)] * 2


@WARM
def test_an_umask_does_not_make_other_workers_necessary(where: Any) -> None:
    if where == "dask":
        pytest.skip("shown by the others")
    before = set(everywhere(lambda _: (time.sleep(0.01), os.getpid())[1], where))
    os.umask(0o27)
    assert set(everywhere(lambda _: (time.sleep(0.01), os.getpid())[1], where)) & before


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """Give two folders, each with a module of the same name, and one below it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        (folder / "below").mkdir(parents=True)
        (folder / "module_of_test_state.py").write_text(f"name = {folder.name!r}")
        (folder / "below" / "lower_of_test_state.py").write_text(f"name = {folder.name!r}")
    yield folders
    for name in ("module_of_test_state", "lower_of_test_state"):
        sys.modules.pop(name, None)
    sys.path_importer_cache.pop("below", None)


def import_anew(name: str) -> str:
    sys.modules.pop(name, None)
    return str(importlib.import_module(name).name)


@COPIES
def test_modules_are_found_where_the_caller_finds_them_now(
    where: Any, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, entry in (("module_of_test_state", ""), ("lower_of_test_state", "below")):
        monkeypatch.syspath_prepend(entry)
        for folder in folders:
            monkeypatch.chdir(folder)
            found = import_anew(name)
            assert found == folder.name or entry  # a relative entry stays what it was when it was first used
            assert pmap(import_anew, [name] * 2, backend=where, workers=2, chunksize=1) == [found] * 2


def test_a_relative_entry_that_was_not_used_yet_is_below_the_folder_of_now(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders[1])
    monkeypatch.setattr(sys, "path", ["", "below", "/absolute", 5])
    assert modules.caller_path() == (str(folders[1]), str(folders[1] / "below"), "/absolute")


imports_where_its_folder_is_gone = pytest.mark.skipif(
    sys.version_info[:3] == (3, 13, 0), reason="this Python imports nothing where its folder is gone"
)


@imports_where_its_folder_is_gone
@COPIES
def test_where_the_folder_of_the_caller_is_gone_items_have_none_either(
    where: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    everywhere(look, where)
    tmp_path.rmdir()
    assert everywhere(look, where) == [(None, None, 0o22, False)] * 2
    everywhere(spoil, where)
    assert everywhere(look, where) == [(None, None, 0o22, False)] * 2


@imports_where_its_folder_is_gone
@pytest.mark.parametrize("where", [PROCESSES, DASK, FORKS, PATHOS])
def test_workers_start_where_the_folder_of_the_caller_is_gone(
    where: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    anymap.shutdown()
    assert everywhere(look, where) == [(None, None, 0o22, False)] * 2


@pytest.mark.joblib
@pytest.mark.parametrize("inner", ["loky", "multiprocessing"])
def test_joblib_says_what_is_wrong_where_it_cannot_start_workers_as_the_folder_is_gone(
    inner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("joblib.parallel.DEFAULT_MP_CONTEXT", multiprocessing.get_context("spawn"))
    anymap.shutdown()
    with joblib.parallel_config(inner):
        with monkeypatch.context() as patched:
            patched.chdir(tmp_path)
            tmp_path.rmdir()
            with pytest.raises(UnsupportedOption, match="current folder, and that has been removed"):
                everywhere(look, Joblib())
        assert everywhere(look, Joblib()) == [look()] * 2


@imports_where_its_folder_is_gone
@pytest.mark.parametrize("where", [PROCESSES, JOBLIB, FORKS, PATHOS])
def test_a_folder_that_goes_while_a_map_runs_is_gone_for_its_items_and_the_map_ends(
    where: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def die_once(item: int) -> Any:
        if item == 1 and not (mark := tmp_path.with_suffix(".died")).exists():
            mark.touch()
            tmp_path.rmdir()
            os._exit(1)
        while item and tmp_path.exists():
            time.sleep(0.01)
        return look()[0]

    # joblib has to start other workers in the place of all that go with this one.
    refused = pytest.raises(UnsupportedOption, match="removed") if where == "joblib" else contextlib.nullcontext()
    found = [None] * 4
    with refused:
        found = pmap(die_once, range(4), backend=where, workers=2, chunksize=1, retries=1)
    assert found[1:] == [None] * 3


@WARM
def test_what_an_initializer_sets_lasts_as_long_as_its_pool(where: Any) -> None:
    def prepare() -> None:
        os.chdir("/")
        os.environ[VARIABLE] = "prepared"

    def counted(_: int) -> tuple[Any, ...]:
        time.sleep(0.01)
        return look()[:2]

    with Pool(2, prepare, backend=where) as pool:
        for _ in range(3):
            assert pool.map(counted, range(2), chunksize=1) == [("/", "prepared")] * 2
            assert everywhere(look, where) == [look()] * 2
    with Executor(2, backend=where, initializer=prepare) as executor:
        assert list(executor.map(counted, range(2))) == [("/", "prepared")] * 2
        assert everywhere(look, where) == [look()] * 2
        assert list(executor.map(counted, range(2))) == [("/", "prepared")] * 2


@WARM
def test_the_time_zone_goes_with_its_variable(where: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def move(_: int) -> str:
        os.environ["TZ"] = "Asia/Tokyo"
        time.tzset()
        return time.tzname[0]

    assert set(everywhere(move, where)) == {"JST"}
    assert set(everywhere(lambda _: time.tzname[0], where)) == {time.tzname[0]}


@WARM
def test_workers_keep_the_variables_that_share_the_cpus_out(where: Any) -> None:
    def threads(_: int) -> str | None:
        return os.environ.get("OMP_NUM_THREADS")

    def change(_: int) -> None:
        os.environ["OMP_NUM_THREADS"] = "77"

    first = everywhere(threads, where)
    assert None not in first
    everywhere(change, where)
    assert everywhere(threads, where) == first


def test_an_engine_of_the_callers_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as engine:
        before = pmap(look, [0], backend=engine)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv(VARIABLE, "new")
        assert pmap(look, [0], backend=engine) == before


@pytest.mark.parametrize("name", ["serial", "threads"])
def test_items_that_share_the_callers_process_change_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(os.getcwd())
    monkeypatch.setenv(VARIABLE, "before")
    pmap(lambda _: os.chdir("/"), [0], backend=name)
    assert os.getcwd() == "/"


def test_workers_on_other_machines_are_left_as_they_are(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    if not backend.traits.remote:
        pytest.skip("the workers are of this machine")
    before = set(pmap(look, [0, 1], backend=backend))
    monkeypatch.setenv(VARIABLE, "new")
    assert set(pmap(look, [0, 1], backend=backend)) == before


def test_what_is_known_of_a_process_is_made_anew_when_a_part_has_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def current() -> bytes:
        return process_state.current(("a",))

    before = current()
    assert current() is before
    monkeypatch.setenv(VARIABLE, "new")
    changed = current()
    assert changed != before
    monkeypatch.chdir(tmp_path)
    assert current() != changed


# --- settings of the interpreter --------------------------------------------------------------------------------------


@pytest.fixture
def settings() -> Iterator[None]:
    before = interpreter_settings.current()
    yield
    interpreter_settings.change(before)


def set_all() -> None:
    sys.setrecursionlimit(sys.getrecursionlimit() + 4000)
    sys.set_int_max_str_digits(10_000)
    sys.setswitchinterval(0.01)
    sys.dont_write_bytecode = not sys.dont_write_bytecode
    sys.pycache_prefix = "/no/such/folder"
    sys.setdlopenflags(sys.getdlopenflags() ^ os.RTLD_GLOBAL)
    locale.setlocale(locale.LC_COLLATE, "C.UTF-8")


def recurse(depth: int) -> int:
    return 1 + recurse(depth - 1) if depth else 0


@COPIES
@pytest.mark.usefixtures("settings")
def test_items_find_the_settings_of_the_interpreter_that_the_caller_has_now(where: Any) -> None:
    everywhere(look, where)
    before = interpreter_settings.current()
    set_all()
    now = interpreter_settings.current()
    assert all(one != other for one, other in zip(before, now, strict=True))
    assert everywhere(lambda _: interpreter_settings.current(), where) == [now] * 2
    assert pmap(recurse, [4000] * 2, backend=where, workers=2) == [4000] * 2
    assert len(pmap(lambda n: str(10**n), [9000] * 2, backend=where, workers=2)[1]) == 9001


@WARM
def test_settings_of_the_interpreter_that_items_make_end_with_their_map(where: Any) -> None:
    everywhere(lambda _: set_all(), where)
    assert everywhere(lambda _: interpreter_settings.current(), where) == [interpreter_settings.current()] * 2


# --- what a process has from its start --------------------------------------------------------------------------------


@pytest.fixture
def fewer_cpus_and_files() -> Iterator[None]:
    cpus, files = os.sched_getaffinity(0), resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    os.sched_setaffinity(0, cpus)
    resource.setrlimit(resource.RLIMIT_NOFILE, files)


@COPIES
@pytest.mark.usefixtures("fewer_cpus_and_files")
def test_workers_have_the_limits_and_the_cpus_that_the_caller_has_now(where: Any) -> None:
    def states() -> list[Any]:
        return everywhere(lambda _: start_state.current(), where)

    assert states() == [start_state.current()] * 2
    before = start_state.current()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    assert start_state.current() != before
    assert states() == [start_state.current()] * 2


@WARM
@pytest.mark.usefixtures("fewer_cpus_and_files")
def test_workers_that_were_started_under_another_state_end(where: Any) -> None:
    [old, *_] = everywhere(lambda _: os.getpid(), where)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    everywhere(look, where)
    assert not psutil.pid_exists(old)


SCRIPT = """
import os, sys
import anymap
from anymap import pmap
from anymap.backends import Processes

where = Processes(start_method="fork") if sys.argv[1] == "forks" else sys.argv[1]
look = lambda _: (os.getresuid(), os.getresgid(), os.getpriority(os.PRIO_PROCESS, 0))
os.chdir("/")
pmap(look, range(2), backend=where, workers=2, chunksize=1)
os.nice(1)
if sys.argv[2:]:
    user = int(sys.argv[2])
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
assert pmap(look, range(2), backend=where, workers=2, chunksize=1) == [look(0)] * 2
assert len(pmap(lambda _: bytes(10_000_000), range(2), backend=where, workers=2, chunksize=1)[1]) == 10_000_000
anymap.shutdown()
"""
NOBODY = 65534


def run_script(*arguments: str) -> None:
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert not done.returncode, done.stderr


@COPIES
def test_workers_are_as_nice_as_the_caller_is_now(where: Any) -> None:
    run_script(where if isinstance(where, str) else "forks")


@pytest.mark.parametrize("where", [PROCESSES, FORKS, PATHOS])
def test_a_program_that_gives_its_rights_up_goes_on_with_maps(where: Any) -> None:
    if os.geteuid():
        pytest.skip("only root can")
    with contextlib.suppress(OSError):
        subprocess.run([sys.executable, "-c", "import anymap"], user=NOBODY, check=True, capture_output=True)
        run_script(where if isinstance(where, str) else "forks", str(NOBODY))
        return
    pytest.skip("this Python is out of reach for other users")
