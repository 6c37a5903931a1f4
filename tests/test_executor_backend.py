"""Backends for executors of a third party's: made in a few lines, known by their engines, kept between maps."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

import anymap
from anymap import BackendConnectionError, ConfigError, WorkerLost, failure, pmap, register_engine
from anymap._host import lifecycle
from anymap._plan import live
from anymap.backends import ExecutorBackend, TaskCodec, Traits, at_shutdown, run_task
from anymap.testing import Gate
from anymap.testing._station import Station

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LONG = 60.0
SPAWN = multiprocessing.get_context("spawn")


class Farm(Executor):
    """One of a third party's, which is lost for what dies."""

    def __init__(self) -> None:
        self.closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as exc:  # noqa: BLE001 - the future's
            future.set_exception(exc)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.closed = True


class BigFarm(Farm):
    pass


class FarmHandError(Exception):
    pass


class Dying(Farm):
    """Loses the first task that it gets after ``healthy`` others."""

    def __init__(self, healthy: int = 0) -> None:
        super().__init__()
        self.healthy = healthy

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.healthy -= 1
        if self.healthy == -1:
            future: Future[Any] = Future()
            future.set_exception(FarmHandError("of old age"))
            return future
        return super().submit(fn, *args, **kwargs)


class OnDying(ExecutorBackend):
    name = "dying"
    worker_lost = (FarmHandError,)


# --- a backend in a few lines -----------------------------------------------------------------------------------------


class Spawned(ExecutorBackend):
    """A pool for each map, another when it breaks."""

    name = "spawned"
    traits = Traits(kills=True)
    started: ClassVar[list[ProcessPoolExecutor]] = []
    stopped: ClassVar[list[ProcessPoolExecutor]] = []

    def start(self, workers: int | None) -> ProcessPoolExecutor:
        self.started.append(ProcessPoolExecutor(workers or 2, SPAWN))
        return self.started[-1]

    def stop(self, executor: ProcessPoolExecutor, *, abandon: bool) -> None:
        self.stopped.append(executor)
        super().stop(executor, abandon=abandon)


def die_at_three(item: int) -> int:
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.mark.full
def test_a_broken_executor_of_the_backends_own_is_replaced_and_closed() -> None:
    results = pmap(die_at_three, range(8), backend=Spawned, workers=2, chunksize=1, on_error="return")
    lost = results.pop(3)
    assert isinstance(lost, WorkerLost)
    assert failure(lost).index == 3
    assert results == [0, 1, 2, 4, 5, 6, 7]
    assert len(Spawned.started) > 1
    assert Spawned.stopped == Spawned.started


def test_exceptions_that_mean_a_lost_worker_are_no_errors_of_items() -> None:
    assert pmap(abs, range(-9, 0), backend=OnDying(Dying(3)), chunksize=1) == list(range(9, 0, -1))
    # Where they are not declared, the engine is broken.
    with pytest.raises(FarmHandError):
        pmap(abs, range(-9, 0), backend=Dying(3), chunksize=1)


def test_an_executor_of_the_users_is_left_open_and_one_of_the_backends_own_is_shut_down() -> None:
    class Own(ExecutorBackend):
        name = "own"
        traits = Traits(remote=True)

        def start(self, workers: int | None) -> Farm:
            return own

    own, given = Farm(), Farm()
    assert pmap(abs, [-1], backend=Own) == pmap(abs, [-1], backend=given) == [1]
    assert pmap(abs, [-1], backend=ExecutorBackend(given)) == [1]
    assert (own.closed, given.closed) == (True, False)


def test_an_executor_that_cannot_be_started_is_not_stopped() -> None:
    class Unable(ExecutorBackend):
        name = "unable"
        traits = Traits()

        def start(self, workers: int | None) -> Farm:
            raise BackendConnectionError("no farm")

    with pytest.raises(BackendConnectionError, match="no farm") as caught:
        pmap(abs, [-1], backend=Unable)
    assert not hasattr(caught.value, "__notes__")
    with pytest.raises(ConfigError, match=r"ExecutorBackend needs an executor to run on: ExecutorBackend\(executor\)"):
        pmap(abs, [-1], backend=ExecutorBackend)


def test_an_own_executor_that_breaks_again_at_once_ends_the_map_in_plain_words() -> None:
    class Breaking(Farm):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            raise BrokenExecutor("no hands")

    class OnBreaking(ExecutorBackend):
        name = "breaking"
        traits = Traits()

        def start(self, workers: int | None) -> Farm:
            return Breaking()

    with pytest.raises(BackendConnectionError, match=r"^the Breaking takes no tasks any more: no hands"):
        pmap(abs, [-1], backend=OnBreaking)


def test_no_more_tasks_are_given_to_an_executor_than_workers_were_asked_for() -> None:
    class Silent(Farm):
        submitted = 0

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            self.submitted += 1
            return Future()

    executor = Silent()
    backend = ExecutorBackend(executor)
    station = Station(backend, abs, 3, lambda: LONG)
    for item in range(9):
        station.submit(item)
    assert executor.submitted == 3
    station.close()


# --- modules of the caller's ------------------------------------------------------------------------------------------


@pytest.fixture
def only_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder on the path of this process alone, with the module ``barn``."""
    (tmp_path / "barn.py").write_text("def double(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("barn", None)


class Apart(Farm):
    """Runs each task in an interpreter that is started for it in another folder."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        code = "import pickle, sys; fn, args = pickle.load(sys.stdin.buffer); sys.stdout.buffer.write(fn(*args))"
        environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(anymap.__file__))}
        ran = subprocess.run(
            [sys.executable, "-c", code],
            input=pickle.dumps((fn, args)),
            capture_output=True,
            env=environment,
            cwd="/",
            check=False,
        )
        assert not ran.returncode, ran.stderr.decode()
        return super().submit(lambda: ran.stdout)


class OnApart(ExecutorBackend):
    name = "apart"
    traits = Traits(remote=True)

    def start(self, workers: int | None) -> Apart:
        return Apart()


def test_workers_of_a_backends_own_engine_import_what_the_caller_can(only_here: Path) -> None:
    import barn  # type: ignore[import-not-found]

    assert pmap(barn.double, [1, 2], backend=OnApart, workers=1) == [2, 4]


def test_workers_of_the_users_engine_keep_their_path_and_the_error_names_the_cure(only_here: Path) -> None:
    import barn

    with pytest.raises(ModuleNotFoundError, match="barn") as caught:
        pmap(barn.double, [1], backend=Apart())
    assert any("ExecutorBackend(ship_modules=['barn'])" in note for note in caught.value.__notes__)
    assert pmap(barn.double, [1], backend=ExecutorBackend(Apart(), ship_modules=["barn"])) == [2]


def test_modules_go_with_tasks_of_a_backend_that_uses_no_executor(only_here: Path) -> None:
    import barn

    station = Station(OnApart(), barn.double, 1, lambda: LONG)
    try:
        for names, borrowed in ((["barn"], True), ([], False)):
            gate = Gate(traits=Traits(remote=True, borrowed=borrowed))
            codec = TaskCodec(gate, names)
            data = Apart().submit(run_task, codec.encode(station.task(4))).result()
            assert codec.decode(data).broken is None
    finally:
        station.close()


def test_a_worker_of_another_version_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from anymap._worker import protocol

    station = Station(OnApart(), abs, 1, lambda: LONG)
    try:
        data = TaskCodec(station.backend).encode(station.task(1))
    finally:
        station.close()
    monkeypatch.setattr(protocol, "PROTOCOL", protocol.PROTOCOL + 1)
    with pytest.raises(RuntimeError, match="install the same on both"):
        run_task(data)


@pytest.mark.parametrize("names", ["barn", ["no_such_module"], ["json.decoder"]])
def test_what_cannot_be_shipped_is_refused(names: Any) -> None:
    with pytest.raises(ConfigError, match="ship_modules"):
        pmap(abs, [-1], backend=ExecutorBackend(Farm(), ship_modules=names))


# --- engines that a third party knows ---------------------------------------------------------------------------------


@pytest.fixture
def unannounced() -> Iterator[None]:
    yield
    live._registered.clear()


class OnFarm(ExecutorBackend):
    name = "farm"


class OnBigFarm(ExecutorBackend):
    name = "big farm"


class Tractor:
    """An engine that is no executor."""


@pytest.mark.usefixtures("unannounced")
def test_the_backend_for_the_nearest_class_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    assert type(live.adopt(BigFarm())) is ExecutorBackend
    register_engine(f"{__name__}.Farm", OnFarm)
    assert type(live.adopt(BigFarm())) is OnFarm
    register_engine(f"{__name__}.BigFarm", OnBigFarm)
    assert type(live.adopt(BigFarm())) is OnBigFarm
    assert type(live.adopt(Farm())) is OnFarm
    with ThreadPoolExecutor(1) as threads:
        assert type(live.adopt(threads)).__name__ == "ThreadExecutor"


@pytest.mark.usefixtures("unannounced")
def test_an_engine_that_is_no_executor_is_run_on_by_what_was_registered_for_it() -> None:
    with pytest.raises(ConfigError, match="backend must be"):
        pmap(abs, [-1], backend=Tractor())
    register_engine(f"{__name__}.Tractor", lambda tractor: OnFarm(Farm()))
    assert pmap(abs, [-1], backend=Tractor()) == [1]


@pytest.mark.usefixtures("unannounced")
def test_a_kind_of_engine_that_is_taken_stays_what_it_is() -> None:
    with pytest.raises(ConfigError, match=r"for distributed.client.Client there is a backend already"):
        register_engine("distributed.client.Client", OnFarm)
    register_engine("farms.Farm", OnFarm)
    register_engine("farms.Farm", OnFarm)
    with pytest.raises(ConfigError, match="already"):
        register_engine("farms.Farm", OnBigFarm)


def test_an_installed_package_announces_its_engines_and_nothing_is_imported_to_know_one(tmp_path: Path) -> None:
    (tmp_path / "farms.py").write_text("class Farm:\n    pass\n")
    (tmp_path / "anymap_farms.py").write_text(
        "from anymap.backends import Serial\n\ndef on_farm(farm):\n    return Serial()\n"
    )
    info = tmp_path / "anymap_farms-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: anymap-farms\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[anymap.engines]\nfarms.Farm = anymap_farms:on_farm\n")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from concurrent.futures import Executor, Future
import anymap
class Mine(Executor):
    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future
print(anymap.pmap(abs, [-1], backend=Mine()), "farms" in sys.modules, "anymap_farms" in sys.modules)
import farms
print(anymap.pmap(abs, [-1], backend=farms.Farm()), "anymap_farms" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["[1] False False", "[1] True"]


# --- engines that are kept --------------------------------------------------------------------------------------------


@pytest.fixture
def closers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(lifecycle, "_closers", [])
    return lifecycle._closers


def test_what_is_kept_ends_at_shutdown_the_last_first(closers: list[Any]) -> None:
    ended: list[str] = []
    first, second = (lambda: ended.append("first")), (lambda: ended.append("second"))
    for close in (first, second, first):
        at_shutdown(close)
    lifecycle.shutdown()
    assert ended == ["second", "first"]


def test_what_is_kept_is_not_ended_by_a_fork_of_its_owner() -> None:
    code = """
import os, anymap
from anymap.backends import at_shutdown
at_shutdown(lambda: print("closed in", "the owner" if os.getpid() == owner else "a fork", flush=True))
owner = os.getpid()
if not os.fork():
    anymap.shutdown()
    raise SystemExit
os.wait()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["closed in the owner"]


def test_one_engine_that_cannot_be_ended_keeps_no_other_from_its_end(closers: list[Any]) -> None:
    ended: list[str] = []

    def fail() -> None:
        raise OSError("stuck in the mud")

    at_shutdown(lambda: ended.append("the other"))
    at_shutdown(fail)
    with pytest.raises(OSError, match="stuck in the mud"):
        lifecycle.shutdown()
    assert ended == ["the other"]


def test_an_engine_whose_cancel_fails_is_asked_for_all_and_stopped() -> None:
    asked, stopped = [], []

    class Stuck(Future[Any]):
        def cancel(self) -> bool:
            asked.append(self)
            raise RuntimeError("the engine is gone")

    class Silent(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            return Stuck()

    class OnSilent(ExecutorBackend):
        name = "silent"

        def start(self, workers: int | None) -> Executor:
            return Silent()

        def stop(self, executor: Executor, *, abandon: bool) -> None:
            stopped.append(abandon)

    station = Station(OnSilent(), abs, 2, lambda: LONG)
    for item in range(2):
        station.submit(item)
    with pytest.raises(RuntimeError, match="the engine is gone"):
        station.close()
    assert (len(asked), stopped) == (2, [True])
