"""Maps that may wait for ever: what is said before workers are forked, and when nothing moves."""

from __future__ import annotations

import logging
import sys
import time
import types
from typing import TYPE_CHECKING, Any

import pytest
from joblib import parallel_config

from anymap import pmap
from anymap._engine.telemetry import standstill
from anymap._engine.telemetry.standstill import Standstill
from anymap._host import forks as _forks
from anymap._host.status_board import Mark
from anymap.backends import Processes, Traits
from anymap.testing import Gate

if TYPE_CHECKING:
    from pathlib import Path

LONG = 60.0


class Watched:
    """A map that is looked at by a clock of the test's, with workers that use as much CPU as the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, traits: Traits | None = None) -> None:
        self.now = 0.0
        self.cpu: float | None = 0.0
        monkeypatch.setattr(standstill.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(standstill, "_cpu_seconds", lambda _: self.cpu)
        self._standstill = Standstill(Gate(traits=Traits() if traits is None else traits))

    def pass_time(self, seconds: int, *marks: Mark, cpu: float = 0.0) -> None:
        for _ in range(10 * seconds):
            self.now += 0.1
            self.cpu = None if self.cpu is None else self.cpu + 0.1 * cpu
            self._standstill.look(marks)


STUCK = Mark(pid=7, position=3, began=1.0)


def test_a_map_that_stands_still_is_spoken_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(monkeypatch)
    watched.pass_time(59, STUCK, cpu=0.001)
    assert not caplog.records
    watched.pass_time(200, STUCK, cpu=0.001)
    [record] = caplog.records
    assert "its workers (7) use no CPU" in record.message
    assert "forks" not in record.message


def test_of_forks_it_is_said_why_they_may_wait(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Watched(monkeypatch, Traits(forks=True)).pass_time(70, STUCK)
    assert "They are forks" in caplog.text


@pytest.mark.parametrize("traits", [Traits(remote=True), Traits(shares_memory=True)])
def test_nothing_is_said_of_workers_whose_cpu_is_not_known(
    traits: Traits, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Watched(monkeypatch, traits).pass_time(200, STUCK)
    assert not caplog.records


def test_nothing_is_said_while_workers_compute_or_items_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(monkeypatch)
    watched.pass_time(200, STUCK, cpu=0.5)
    for position in range(5):
        watched.pass_time(50, STUCK._replace(position=position))
    watched.pass_time(200, Mark(pid=0, position=-1, began=0.0))
    watched.cpu = None
    watched.pass_time(200, STUCK)
    assert not caplog.records


@pytest.mark.parametrize("name", ["processes", "pathos", "joblib", "dask"])
def test_items_that_all_wait_are_spoken_of(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standstill, "_LONG", 0.5)
    monkeypatch.setattr(standstill, "_SAMPLE", 0.3)
    # What the threads of dask use in that time is a good part of it.
    monkeypatch.setattr(standstill, "_IDLE", 0.5)
    spoken: list[str] = []

    class Go(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            spoken.append(record.getMessage())
            (tmp_path / "go").touch()

    def wait(x: int) -> int:
        give_up = time.monotonic() + LONG
        while not (tmp_path / "go").exists():
            if time.monotonic() > give_up:
                raise TimeoutError
            time.sleep(0.05)
        return x

    logger, handler = logging.getLogger("anymap"), Go()
    logger.addHandler(handler)
    try:
        assert pmap(wait, range(2), backend=name, workers=2) == [0, 1]
    finally:
        logger.removeHandler(handler)
    assert ["use no CPU" in text for text in spoken] == [True]


# --- before a fork ------------------------------------------------------------------------------------------------------


FORKING: list[Any] = ["pathos", Processes(start_method="fork"), "joblib"]


@pytest.fixture
def a_library_is_loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have polars be loaded; give the names of this process's threads, to which the test may add."""
    names = ["python", "polars-ooc-clea"]
    monkeypatch.setitem(sys.modules, "polars", types.ModuleType("polars"))
    monkeypatch.setattr(_forks, "_names_of_threads", lambda: names)
    return names


@pytest.mark.parametrize("backend", FORKING, ids=["pathos", "fork", "joblib"])
def test_before_a_fork_there_is_a_warning_of_a_library_that_does_not_survive_it(
    backend: Any, a_library_is_loaded: list[str]
) -> None:
    with parallel_config("multiprocessing"):
        assert pmap(abs, [-1, -2], backend=backend, workers=2) == [1, 2]  # it has not been used
        a_library_is_loaded.append("polars-0")
        with pytest.warns(UserWarning, match="polars has been used in this process") as caught:
            assert pmap(abs, [-1, -2], backend=backend, workers=2) == [1, 2]
        # Python itself may warn of a fork, too.
        assert [warning.filename for warning in caught if warning.category is UserWarning] == [__file__]
        with pytest.raises(UserWarning, match="polars"):  # as all warnings of a test
            pmap(abs, [-1, -2], backend=backend, workers=2)


def test_fresh_interpreters_need_no_warning(a_library_is_loaded: list[str]) -> None:
    a_library_is_loaded.append("polars-0")
    assert pmap(abs, [-1, -2], backend="processes", workers=2) == [1, 2]


def test_where_the_threads_of_a_process_have_no_names_what_is_loaded_counts(
    a_library_is_loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not _forks.dangerous_libraries()
    monkeypatch.setattr(_forks, "_names_of_threads", lambda: None)
    assert _forks.dangerous_libraries() == ["polars"]
