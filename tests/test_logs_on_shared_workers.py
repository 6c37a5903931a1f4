"""On workers that others use too, the caller's levels hold for the items of its maps, and for nothing else there."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
import time
import warnings
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import cloudpickle
import joblib
import pytest
from distributed import Client, LocalCluster
from joblib.externals.loky import get_reusable_executor

from anymap import logs, pmap, using
from tests.test_logs import listening
from tests.test_rotating_file import contents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("cluster")

cloudpickle.register_pickle_by_value(sys.modules[__name__])

LONG = 60.0
"""Seconds after which what is waited for will not come any more."""
FORK = multiprocessing.get_context("fork")
Submit = "Callable[[Callable[[], Any]], Any]"


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """One worker process with four threads, so that all that is run on it meets there."""
    with LocalCluster(n_workers=1, threads_per_worker=4, processes=True, dashboard_address="127.0.0.1:0") as local:
        yield local


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster, set_as_default=False) as client:
        yield client


@contextmanager
def joined(pool: Any) -> Iterator[Any]:
    with closing(pool):
        yield pool
    pool.join()


ENGINES: dict[str, Callable[[], Any]] = {
    "ProcessPoolExecutor": lambda: ProcessPoolExecutor(1, multiprocessing.get_context("spawn")),
    "forks": lambda: ProcessPoolExecutor(1, FORK),
    "Pool": lambda: joined(FORK.Pool(1)),
    "loky": lambda: get_reusable_executor(1),
}


@pytest.fixture(
    params=[
        pytest.param("dask", marks=pytest.mark.dask),
        "forks",
        *(pytest.param(name, marks=pytest.mark.full) for name in ENGINES if name != "forks"),
        pytest.param("joblib on dask", marks=[pytest.mark.full, pytest.mark.joblib]),
    ]
)
def shared(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Give what to say as ``backend=``, for a single worker process that is the user's."""
    if request.param == "dask":
        yield request.getfixturevalue("client")
    elif request.param == "joblib on dask":
        with Client(request.getfixturevalue("cluster")), joblib.parallel_config("dask"):
            yield "joblib"
    else:
        with ENGINES[request.param]() as engine:
            yield engine
        if request.param == "loky":
            engine.shutdown(kill_workers=True)


def others(engine: Any) -> Submit:
    """Return what runs a function in the same worker process, past anymap."""
    if isinstance(engine, Client):
        return lambda func: engine.submit(Portable(func), pure=False).result(LONG)
    if isinstance(engine, Executor):
        return lambda func: engine.submit(Portable(func)).result(LONG)
    if engine == "joblib":
        return others(Client.current())
    return lambda func: engine.apply(Portable(func))


class Portable:
    """A function that any pickle takes, and workers load which cannot import this module."""

    def __init__(self, func: Callable[[], Any]) -> None:
        self._func = func

    def __call__(self) -> Any:
        return self._func()

    def __reduce__(self) -> Any:
        return cloudpickle.loads, (cloudpickle.dumps(self._func),)


def wait_for(path: Path | str) -> None:
    give_up = time.monotonic() + LONG
    while not os.path.exists(path):
        assert time.monotonic() < give_up, path
        time.sleep(0.002)


@contextmanager
def levels(**wanted: int) -> Iterator[None]:
    """Have loggers below ``work`` have these levels."""
    for name, level in wanted.items():
        logging.getLogger(f"work.{name}").setLevel(level)
    try:
        yield
    finally:
        for name in wanted:
            logging.getLogger(f"work.{name}").setLevel(logging.NOTSET)


def says(item: int) -> int:
    logger = logging.getLogger("work.part")
    logger.debug("debug %d", item)
    logger.info("info %d", item)
    logger.warning("warning %d", item)
    return os.getpid()


def test_the_callers_levels_hold_for_its_items(shared: Any) -> None:
    def logs_all(item: int) -> list[bool]:
        loggers = [logging.getLogger(name) for name in ("work", "work.loud", "work.silent", "work.loud.below")]
        for logger in loggers:
            logger.debug("%s %d", logger.name, item)
            logger.info("%s %d", logger.name, item)
        return [logger.isEnabledFor(logging.DEBUG) for logger in loggers]

    with listening("work", logging.INFO, "%(levelname)s %(message)s") as seen, levels(loud=10, silent=40):
        assert pmap(logs_all, range(2), backend=shared) == [[False, True, False, True]] * 2
    expected = ["INFO work", "DEBUG work.loud", "INFO work.loud", "DEBUG work.loud.below", "INFO work.loud.below"]
    for item in range(2):
        assert [line for line in seen.lines if line.endswith(f" {item}")] == [f"{line} {item}" for line in expected]
    assert len(seen.lines) == 2 * len(expected)


def test_levels_that_have_changed_hold_for_the_next_map(shared: Any) -> None:
    with listening("work", logging.DEBUG) as seen:
        pmap(says, [0], backend=shared)
        logging.getLogger("work").setLevel(logging.WARNING)
        pmap(says, [1], backend=shared)
        logging.getLogger("work").setLevel(logging.INFO)
        pmap(says, [2], backend=shared)
    assert seen.lines == ["debug 0", "info 0", "warning 0", "warning 1", "info 2", "warning 2"]


def how_logging_is() -> list[str]:
    import logging
    import threading
    import warnings

    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    known = [
        f"{logger.name} {logger.level} {logger.disabled} {logger.handlers} {logger.filters}"
        for logger in loggers
        if isinstance(logger, logging.Logger) and (logger.level or logger.handlers or logger.disabled)
    ]
    functions = [*(vars(logging.Logger)[name] for name in ("isEnabledFor", "handle", "callHandlers", "setLevel"))]
    functions += [logging.Logger.getEffectiveLevel, threading.Thread.start, warnings.showwarning]
    names = [f"{function.__module__}.{function.__qualname__}" for function in functions]
    return [*known, *names, str(logging.root.manager.disable)]


def test_afterwards_the_worker_logs_as_before(shared: Any, tmp_path: Path) -> None:
    look = others(shared)
    before = look(how_logging_is)
    with listening("work", logging.DEBUG), filed(tmp_path / "run.log"):
        pmap(says, range(3), backend=shared)
    if isinstance(shared, Client):  # the answer is sent before the worker has put away what it ran
        give_up = time.monotonic() + LONG
        while look(how_logging_is) != before and time.monotonic() < give_up:
            time.sleep(0.01)
    assert look(how_logging_is) == before
    assert look(lambda: [path for fd in os.listdir("/proc/self/fd") if str(tmp_path) in (path := target(fd))]) == []


def target(fd: str) -> str:
    with suppress(OSError):
        return os.readlink(f"/proc/self/fd/{fd}")
    return ""


@contextmanager
def filed(path: Path) -> Iterator[None]:
    logger, handler = logging.getLogger("work"), logs.rotating_file(path, max_bytes=5_000, backups=None)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def test_a_rotating_file_has_each_line_once(shared: Any, tmp_path: Path) -> None:
    def counts(item: int) -> None:
        for number in range(100):
            logging.getLogger("work.part").info("%d %d", item, number)

    with listening("work", logging.INFO), filed(tmp_path / "run.log"):
        pmap(counts, range(4), backend=shared)
    expected = [f"{item} {number}" for item in range(4) for number in range(100)]
    assert sorted(contents(tmp_path / "run.log")) == sorted(expected)


@pytest.mark.dask
def test_a_file_that_the_worker_writes_by_its_own_configuration_has_each_line_once(
    client: Client, tmp_path: Path
) -> None:
    # As where the worker of a script without a guard has run its module, too.
    def configure() -> None:
        handler = logs.rotating_file(tmp_path / "run.log", max_bytes=5_000, backups=None)
        handler.set_name("the worker's")
        logging.getLogger("work").addHandler(handler)

    def undo() -> None:
        handler = logging.getHandlerByName("the worker's") if hasattr(logging, "getHandlerByName") else None
        handler = handler or logging._handlers["the worker's"]  # type: ignore[attr-defined]
        logging.getLogger("work").removeHandler(handler)
        handler.close()

    others(client)(configure)
    try:
        with listening("work", logging.INFO), filed(tmp_path / "run.log"):
            pmap(says, range(3), backend=client)
    finally:
        others(client)(undo)
    assert sorted(contents(tmp_path / "run.log")) == sorted(
        f"{level} {item}" for level in ("info", "warning") for item in range(3)
    )


def log_beside_an_item(folder: Path) -> tuple[bool, list[str]]:
    """Log while an item runs in this process; return what is enabled, and what a handler of one's own is given."""
    got: list[str] = []

    class Keeps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            got.append(record.getMessage())

    def talk() -> None:
        logging.getLogger("work.part").info("info of others")
        logging.getLogger("work.part").warning("warning of others")
        warnings.warn("they are warned", UserWarning, stacklevel=1)

    keeps = Keeps()
    logging.root.addHandler(keeps)
    try:
        wait_for(folder / "item runs")
        is_enabled = logging.getLogger("work.part").isEnabledFor(logging.INFO)
        talk()
        thread = threading.Thread(target=talk)
        thread.start()
        thread.join()
        (folder / "others have logged").touch()
        wait_for(folder / "item has logged")
    finally:
        logging.root.removeHandler(keeps)
    return is_enabled, got


@pytest.mark.dask
def test_what_others_log_at_the_same_time_is_theirs(
    client: Client, cluster: LocalCluster, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    def logs_among_others(item: int) -> None:
        (tmp_path / "item runs").touch()
        wait_for(tmp_path / "others have logged")
        says(item)
        (tmp_path / "item has logged").touch()

    with (
        Client(cluster, set_as_default=False) as second,
        listening("work", logging.DEBUG) as seen,
        filed(tmp_path / "run.log"),
    ):
        theirs = second.submit(Portable(lambda: log_beside_an_item(tmp_path)))
        pmap(logs_among_others, [7], backend=client)
        is_enabled, got = theirs.result(LONG)
    assert seen.lines == ["debug 7", "info 7", "warning 7"]
    assert contents(tmp_path / "run.log") == seen.lines
    # Their handler takes what the worker's own levels let pass, of whomever.
    assert got == ["warning of others", "warning of others", "warning 7"]
    assert not is_enabled
    assert not [warning for warning in recwarn if "they are warned" in str(warning.message)]


@pytest.mark.dask
def test_maps_of_different_levels_run_in_one_worker_at_once(client: Client, tmp_path: Path) -> None:
    def meets(item: str) -> bool:
        (tmp_path / item).touch()
        wait_for(tmp_path / {"first": "second", "second": "first"}[item])
        return logging.getLogger("work").isEnabledFor(logging.DEBUG)

    found: list[bool] = []
    with listening("work", logging.DEBUG):
        first = threading.Thread(target=lambda: found.extend(pmap(meets, ["first"], backend=client)))
        first.start()
        wait_for(tmp_path / "first")
        logging.getLogger("work").setLevel(logging.INFO)
        assert pmap(meets, ["second"], backend=client) == [False]
        first.join()
    assert found == [True]


@pytest.mark.dask
def test_all_threads_of_a_worker_log_at_once(client: Client) -> None:
    def counts(item: int) -> int:
        for number in range(50):
            logging.getLogger("work.part").info("%d %d", item, number)
        return os.getpid()

    with listening("work", logging.INFO) as seen:
        assert len(set(pmap(counts, range(40), backend=client, chunksize=1))) == 1
    assert sorted(seen.lines) == sorted(f"{item} {number}" for item in range(40) for number in range(50))
    for record in seen.records:
        assert str(record.anymap_item) == record.getMessage().split()[0]  # type: ignore[attr-defined]


@pytest.mark.dask
def test_threads_that_items_start_log_for_their_item(client: Client, tmp_path: Path) -> None:
    def starts(item: int) -> None:
        (tmp_path / str(item)).touch()
        wait_for(tmp_path / str(1 - item))  # both run now
        thread = threading.Thread(target=says, args=(item,))
        thread.start()
        thread.join()

    with listening("work", logging.INFO) as seen:
        pmap(starts, range(2), backend=client, chunksize=1)
    assert sorted(seen.lines) == ["info 0", "info 1", "warning 0", "warning 1"]
    assert all(line.endswith(str(record.anymap_item)) for line, record in zip(seen.lines, seen.records, strict=True))  # type: ignore[attr-defined]


def test_levels_that_items_set_hold_for_them(shared: Any) -> None:
    def silences(item: int) -> bool:
        noisy = logging.getLogger("work.noisy")
        before = noisy.level
        noisy.setLevel(logging.ERROR)
        try:
            noisy.info("is not wanted")
        finally:
            noisy.setLevel(before)
        noisy.info("is wanted")
        return noisy.isEnabledFor(logging.INFO)

    with listening("work", logging.INFO) as seen:
        assert pmap(silences, range(2), backend=shared) == [True, True]
    assert seen.lines == ["is wanted"] * 2


@pytest.mark.parametrize("inner", ["threads", pytest.param("processes", marks=pytest.mark.full)])
def test_levels_hold_in_maps_inside_of_items(shared: Any, inner: str) -> None:
    def outer(item: int) -> None:
        pmap(says, [item], backend=inner, workers=1)

    with listening("work", logging.INFO) as seen:
        pmap(outer, [5], backend=shared)
    assert seen.lines == ["info 5", "warning 5"]


def test_when_switched_off_records_stay_in_the_worker_at_its_levels(shared: Any) -> None:
    def logs_off(item: int) -> bool:
        says(item)
        return logging.getLogger("work").isEnabledFor(logging.INFO)

    is_enabled = others(shared)(lambda: logging.getLogger("work").isEnabledFor(logging.INFO))
    with listening("work", logging.INFO) as seen, using(logs="off"):
        assert pmap(logs_off, [0], backend=shared) == [is_enabled]
    assert seen.lines == []


def test_what_the_caller_has_disabled_is_not_made(shared: Any, tmp_path: Path) -> None:
    def enabled(item: int) -> list[bool]:
        says(item)
        return [logging.getLogger(name).isEnabledFor(logging.INFO) for name in ("work", "work.part")]

    part = logging.getLogger("work.part")
    with listening("work", logging.INFO), filed(tmp_path / "run.log"):
        part.disabled = True
        try:
            assert pmap(enabled, [0], backend=shared) == [[True, False]]
        finally:
            part.disabled = False
        logging.disable(logging.INFO)
        try:
            assert pmap(enabled, [1], backend=shared) == [[False, False]]
        finally:
            logging.disable(logging.NOTSET)
        assert pmap(enabled, [2], backend=shared) == [[True, True]]
    assert contents(tmp_path / "run.log") == ["warning 1", "info 2", "warning 2"]


@pytest.mark.dask
def test_loggers_that_the_worker_has_disabled_are_the_callers_to_disable(client: Client) -> None:
    def disable(logger: str, *, disabled: bool) -> None:
        logging.getLogger(logger).disabled = disabled

    def disables(item: int) -> None:
        logging.getLogger("work.noisy").disabled = True
        try:
            logging.getLogger("work.noisy").info("is not wanted")
            says(item)
        finally:
            logging.getLogger("work.noisy").disabled = False

    others(client)(lambda: disable("work.part", disabled=True))
    try:
        with listening("work", logging.INFO) as seen:
            pmap(disables, [0], backend=client)
    finally:
        others(client)(lambda: disable("work.part", disabled=False))
    assert seen.lines == ["info 0", "warning 0"]


def test_in_a_fork_others_have_the_handlers_that_they_inherited(tmp_path: Path) -> None:
    handler = logging.FileHandler(tmp_path / "plain.log")
    with listening("work", logging.INFO) as seen:
        logging.getLogger("work").addHandler(handler)
        try:
            with ProcessPoolExecutor(1, FORK) as engine:
                pmap(says, [0], backend=engine)
                others(engine)(lambda: says(1))
        finally:
            logging.getLogger("work").removeHandler(handler)
            handler.close()
    assert seen.lines == ["info 0", "warning 0"]
    assert (tmp_path / "plain.log").read_text().splitlines() == ["info 0", "warning 0", "info 1", "warning 1"]


OWN_WORKERS = [
    pytest.param("processes", marks=pytest.mark.processes),
    pytest.param("joblib", marks=pytest.mark.joblib),
]
"""Workers that are kept, and that serve the caller alone."""


@pytest.mark.parametrize("own", OWN_WORKERS)
def test_workers_of_the_callers_own_make_nothing_of_what_it_has_disabled(own: str, tmp_path: Path) -> None:
    part = logging.getLogger("work.part")
    with listening("work", logging.INFO), filed(tmp_path / "run.log"):
        part.disabled = True
        try:
            pmap(says, [0] * 4, backend=own, workers=2, chunksize=1)
        finally:
            part.disabled = False
        pmap(says, [1], backend=own, workers=2)
    assert contents(tmp_path / "run.log") == ["info 1", "warning 1"]


@pytest.mark.parametrize("own", OWN_WORKERS)
def test_when_switched_off_workers_write_to_no_file_that_an_earlier_map_has_opened(own: str, tmp_path: Path) -> None:
    with listening("work", logging.INFO), filed(tmp_path / "run.log"):
        pmap(says, [0] * 4, backend=own, workers=2, chunksize=1)
        with using(logs="off"):
            pmap(says, [1] * 4, backend=own, workers=2, chunksize=1)
    assert sorted(contents(tmp_path / "run.log")) == ["info 0"] * 4 + ["warning 0"] * 4
