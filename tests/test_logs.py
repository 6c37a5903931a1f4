"""What workers log and warn of reaches the caller's logging, on every backend, with nothing set up."""

from __future__ import annotations

import logging
import logging.config
import os
import signal
import threading
import time
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import anymap
from anymap import ConfigError, WorkerLost, pmap, using

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anymap.backends.base import Backend

OWN_WORKERS = [
    pytest.param("Processes", marks=pytest.mark.processes),
    pytest.param("Pathos", marks=pytest.mark.pathos),
    pytest.param("Joblib", marks=pytest.mark.joblib),
    pytest.param("Dask", marks=pytest.mark.dask),
]
"""Workers that serve the caller alone."""


@pytest.fixture
def own(request: pytest.FixtureRequest) -> Iterator[Backend]:
    made: Backend = getattr(anymap.backends, request.param)()
    yield made
    if request.param == "Dask":
        anymap.shutdown()


class Seen(logging.Handler):
    """Keeps the records, and what they looked like when they came."""

    def __init__(self, format_: str = "%(message)s") -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(format_))
        self.records: list[logging.LogRecord] = []
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.lines.append(self.format(record))


@contextmanager
def listening(name: str, level: int = logging.INFO, format_: str = "%(message)s") -> Iterator[Seen]:
    logger, seen = logging.getLogger(name), Seen(format_)
    before = logger.level
    logger.addHandler(seen)
    logger.setLevel(level)
    try:
        yield seen
    finally:
        logger.removeHandler(seen)
        logger.setLevel(before)


def logs(item: int) -> int:
    logging.getLogger("work.part").warning("item %d of %s", item, "many", extra={"size": item * 10})
    return os.getpid()


def test_records_arrive_once_as_they_were_with_item_backend_worker_and_host(backend: Backend) -> None:
    with listening("work") as seen:
        pids = pmap(logs, range(6), backend=backend, workers=2)
    assert sorted(seen.lines) == [f"item {item} of many" for item in range(6)]
    for record in seen.records:
        item = record.anymap_item  # type: ignore[attr-defined]
        assert record.getMessage() == f"item {item} of many"
        assert (record.name, record.levelname, record.funcName) == ("work.part", "WARNING", "logs")
        assert record.size == item * 10  # type: ignore[attr-defined]
        assert record.anymap_worker == record.process == pids[item]  # type: ignore[attr-defined]
        assert record.anymap_backend == backend.name  # type: ignore[attr-defined]
        assert record.anymap_host == os.uname().nodename  # type: ignore[attr-defined]


def test_a_workers_traceback_arrives_as_text(backend: Backend) -> None:
    def fails(item: int) -> None:
        try:
            raise LookupError(item)
        except LookupError:
            logging.getLogger("work").exception("caught")

    with listening("work") as seen:
        pmap(fails, range(1), backend=backend, workers=1)
    (line,) = seen.lines
    assert line.startswith("caught\nTraceback (most recent call last):\n")
    assert line.endswith("LookupError: 0")


def test_the_order_of_each_item_is_kept_and_nothing_is_lost(backend: Backend) -> None:
    def counts(item: int) -> None:
        for number in range(200):
            logging.getLogger("work").warning("%d %d", item, number)

    with listening("work") as seen:
        pmap(counts, range(4), backend=backend, workers=2)
    got = [tuple(map(int, line.split())) for line in seen.lines]
    assert [sorted(got), len(got)] == [[(item, number) for item in range(4) for number in range(200)], 800]
    for item in range(4):
        assert [number for of, number in got if of == item] == list(range(200))


def test_records_arrive_while_the_item_runs(backend: Backend, tmp_path: Path) -> None:
    class Answers(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            (tmp_path / "heard").touch()

    def waits_until_heard(item: int) -> bool:
        logging.getLogger("work").warning("here")
        give_up = time.monotonic() + 30
        while not (tmp_path / "heard").exists() and time.monotonic() < give_up:
            time.sleep(0.001)
        return (tmp_path / "heard").exists()

    logger, answers = logging.getLogger("work"), Answers()
    logger.addHandler(answers)
    try:
        assert pmap(waits_until_heard, range(1), backend=backend, workers=1) == [True]
    finally:
        logger.removeHandler(answers)


@pytest.mark.processes
def test_what_was_logged_before_a_worker_was_killed_arrives() -> None:
    def last_words(item: int) -> None:
        logging.getLogger("work").warning("last words")
        os.kill(os.getpid(), signal.SIGKILL)

    with listening("work") as seen, pytest.raises(WorkerLost):
        pmap(last_words, range(1), backend="processes", workers=1)
    assert seen.lines == ["last words"]


@pytest.mark.parametrize("own", OWN_WORKERS, indirect=True)
def test_levels_of_the_callers_loggers_hold_in_workers_of_his_own(own: Backend) -> None:
    def logs_all(item: int) -> list[bool]:
        loggers = [logging.getLogger(name) for name in ("work", "work.loud", "work.silent", "work.loud.below")]
        for logger in loggers:
            logger.debug(logger.name)
        return [logger.isEnabledFor(logging.DEBUG) for logger in loggers]

    levels = {"work.loud": logging.DEBUG, "work.silent": logging.ERROR}
    with listening("work", logging.INFO) as seen:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        assert pmap(logs_all, range(1), backend=own, workers=1) == [[False, True, False, True]]
        # In the very same worker, as far as it is kept.
        for name in levels:
            logging.getLogger(name).setLevel(logging.NOTSET)
        logging.getLogger("work").setLevel(logging.DEBUG)
        assert pmap(logs_all, range(1), backend=own, workers=1) == [[True] * 4]
    assert seen.lines[:2] == ["work.loud", "work.loud.below"]
    assert len(seen.lines) == 6


def test_a_level_of_the_callers_holds_wherever_the_worker_is(backend: Backend) -> None:
    with listening("work", logging.ERROR) as seen:
        pmap(logs, range(2), backend=backend, workers=1)
    assert seen.lines == []


@pytest.mark.parametrize("own", OWN_WORKERS, indirect=True)
def test_filters_of_warnings_hold_in_workers_of_the_callers_own(own: Backend) -> None:
    def warns(item: int) -> str:
        try:
            warnings.warn("old ways", DeprecationWarning, stacklevel=1)
        except DeprecationWarning:
            return "raised"
        return "passed"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert pmap(warns, range(1), backend=own, workers=1) == ["passed"]
        warnings.filterwarnings("error", message="old", category=DeprecationWarning)
        assert pmap(warns, range(1), backend=own, workers=1) == ["raised"]


def careful(with_what: str) -> None:
    # A text of its own for each: a worker of others shows one that it has shown no more.
    warnings.warn(f"careful with {with_what}", UserWarning, stacklevel=1)


def test_warnings_are_shown_where_the_map_was_called(backend: Backend) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pmap(careful, ["glass", "eggs"], backend=backend, workers=1)
    ours = [warning for warning in caught if "careful" in str(warning.message)]
    assert {str(warning.message) for warning in ours} == {"careful with glass", "careful with eggs"}
    assert len(ours) == 2
    assert {(warning.category, os.path.basename(warning.filename)) for warning in ours} == {
        (UserWarning, "test_logs.py")
    }


def test_warnings_that_the_caller_captures_are_records(backend: Backend) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        try:
            with listening("py.warnings") as seen:
                pmap(careful, ["fire", "knives"], backend=backend, workers=1)
        finally:
            logging.captureWarnings(capture=False)
    ours = [record for record in seen.records if "careful" in record.getMessage()]
    assert sorted(record.anymap_item for record in ours) == [0, 1]  # type: ignore[attr-defined]


@pytest.mark.parametrize("own", OWN_WORKERS, indirect=True)
def test_the_callers_handlers_do_not_write_in_forks_too(own: Backend, tmp_path: Path) -> None:
    path = tmp_path / "plain.log"
    handler = logging.FileHandler(path)
    logging.getLogger("work").addHandler(handler)
    try:
        pmap(logs, range(4), backend=own, workers=2)
    finally:
        logging.getLogger("work").removeHandler(handler)
        handler.close()
    assert len(path.read_text().splitlines()) == 4


def test_extras_that_cannot_travel_are_left_out(backend: Backend) -> None:
    def logs_extras(item: int) -> None:
        logging.getLogger("work").warning("here", extra={"lock": threading.Lock(), "pair": (item, 1)})

    with listening("work") as seen:
        pmap(logs_extras, range(1), backend=backend, workers=2)
    (record,) = seen.records
    assert record.pair == (0, 1)  # type: ignore[attr-defined]
    assert hasattr(record, "lock") == backend.traits.shares_memory


def test_what_a_map_inside_of_another_logs_arrives_once(backend: Backend) -> None:
    def outer(item: int) -> None:
        pmap(logs, range(2), backend="processes" if item else "threads", workers=1)

    with listening("work") as seen:
        pmap(outer, range(2), backend=backend, workers=1)
    assert sorted(seen.lines) == ["item 0 of many", "item 0 of many", "item 1 of many", "item 1 of many"]


def test_threads_that_a_function_has_started_are_heard_too(backend: Backend) -> None:
    def starts(item: int) -> None:
        thread = threading.Thread(target=logs, args=(item,))
        thread.start()
        thread.join()

    with listening("work") as seen:
        pmap(starts, range(1), backend=backend, workers=1)
    assert seen.lines == ["item 0 of many"]


def test_while_a_function_is_loaded_it_may_log(backend: Backend) -> None:
    class Loads:
        def __reduce__(self) -> Any:
            return loaded, ()

        def __call__(self, item: int) -> int:
            return item

    # Of so many maps that are over as soon as the function is loaded, each has to wait for what it logged.
    times = 1 if backend.traits.forks else 50
    with listening("work") as seen:
        for _ in range(times):
            pmap(Loads(), range(1), backend=backend, workers=2)
    assert seen.lines == ([] if backend.traits.shares_memory else ["loading"] * times)


def loaded() -> Any:
    logging.getLogger("work").warning("loading")
    return abs


@pytest.mark.parametrize("own", [*OWN_WORKERS[:2]], indirect=True)
def test_when_switched_off_nothing_is_forwarded(own: Backend) -> None:
    with listening("work") as seen, using(logs="off"):
        pmap(logs, range(2), backend=own, workers=1)
    assert seen.lines == []


def test_a_handler_that_fails_does_not_end_the_map(capsys: pytest.CaptureFixture[str]) -> None:
    class Fails(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("no")

    logger, fails = logging.getLogger("work"), Fails()
    logger.addHandler(fails)
    try:
        assert len(pmap(logs, range(2), backend="processes", workers=1)) == 2
    finally:
        logger.removeHandler(fails)
    assert capsys.readouterr().err.count("RuntimeError: no") == 2


def test_a_format_may_name_what_only_records_of_items_have(backend: Backend) -> None:
    formatter = anymap.logs.Formatter("%(message)s in item %(anymap_item)s on %(anymap_backend)s")
    with listening("work") as seen:
        seen.setFormatter(formatter)
        logging.getLogger("work").warning("before")
        pmap(logs, range(1), backend=backend, workers=1)
    assert seen.lines == ["before in item - on -", f"item 0 of many in item 0 on {backend.name}"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ANYMAP_LOGS", "loud"),
        ("ANYMAP_OUTPUT", "screen"),
        ("ANYMAP_OUTPUT_PREFIX", "{nothing}"),
        ("ANYMAP_CONTEXT", "x"),
    ],
)
def test_a_wrong_setting_is_told(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=name):
        pmap(logs, [], backend="serial")
