"""The pathos backend: real pathos pools, forked for each map."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pathos import helpers, pools

import anymap
from anymap import ItemTimeout, UnsupportedOption, WorkerLost, pmap
from anymap.backends import Pathos
from anymap.backends._shared import pool_deaths

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.pathos, pytest.mark.versions]

setting = "first"


def until(condition: Callable[[], object]) -> None:
    """Wait for something that nobody tells of; the test's own time limit ends it."""
    while not condition():
        time.sleep(0.001)


def test_the_workers_are_processes_of_pathos() -> None:
    def look(_: int) -> tuple[str, int]:
        return type(helpers.mp.current_process()).__module__, os.getppid()

    assert set(pmap(look, range(4), backend="pathos", workers=2)) == {("multiprocess.context", os.getpid())}


def test_workers_see_the_callers_globals_as_they_are_when_the_map_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    # The reason why no pool is kept for a later map: its workers would still see "first".
    for value in ("second", "third"):
        monkeypatch.setattr(sys.modules[__name__], "setting", value)
        assert pmap(look_at_setting, range(3), backend="pathos", workers=2) == [value] * 3


def look_at_setting(_: int) -> str:
    # Sent by its name, so it is the worker's own global.
    return setting


def test_pools_that_pathos_keeps_are_left_alone() -> None:
    own = pools.ProcessPool(nodes=2)
    try:
        mine = {child.pid for child in own._serve()._pool}
        theirs = pmap(lambda _: os.getpid(), range(4), backend="pathos", workers=2)
        assert mine.isdisjoint(theirs)
        assert {child.pid for child in own._serve()._pool} == mine
        assert own.map(abs, [-1, -2]) == [1, 2]
    finally:
        own.close()
        own.join()
        own.clear()


def test_a_dead_worker_costs_its_item_only() -> None:
    def die(item: int) -> int:
        if item == 13:
            os._exit(7)
        return item

    results = pmap(die, range(40), backend="pathos", workers=2, chunksize=4, on_error="return")
    lost = results.pop(13)
    assert isinstance(lost, WorkerLost)
    assert lost.exitcode == 7
    assert results == [item for item in range(40) if item != 13]


def test_a_worker_that_dies_while_its_pool_is_being_made_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    victims: list[int] = []

    class Killed(pool_deaths._Pool):
        def __init__(self, pool: Any) -> None:
            if not victims:
                first = list(pool._pool)
                # One of them waits for a task, with the lock of the queue in its hands.
                until(lambda: not pool._inqueue._rlock._semlock._get_value())
                for victim in first:
                    victims.append(victim.pid)
                    os.kill(victim.pid, signal.SIGKILL)
                # The pool has put others in their places before anybody else looks.
                until(lambda: not set(first) & set(pool._pool))
            super().__init__(pool)

    monkeypatch.setattr(pool_deaths, "_Pool", Killed)
    assert pmap(abs, range(-9, 0), backend="pathos", workers=2) == list(range(9, 0, -1))
    assert victims


def test_a_stuck_item_is_ended_at_its_deadline() -> None:
    def stick(item: int) -> int:
        if item == 5:
            time.sleep(600)
        return item

    results = pmap(stick, range(12), backend="pathos", workers=2, chunksize=3, timeout=1.0, on_error="return")
    assert isinstance(results.pop(5), ItemTimeout)
    assert results == [item for item in range(12) if item != 5]


def test_a_pathos_map_inside_a_pathos_worker_is_refused_with_a_way_out() -> None:
    def inner(_: int) -> list[int]:
        return pmap(abs, [-1], backend="pathos")

    with pytest.raises(UnsupportedOption, match="backend='threads' or 'serial'"):
        pmap(inner, [0], backend="pathos", workers=2)
    assert pmap(lambda _: pmap(abs, [-1], backend="threads"), [0], backend="pathos", workers=2) == [[1]]


def test_one_instance_may_serve_maps_at_the_same_time() -> None:
    backend = Pathos()
    outer = pmap(abs, iter(range(100)), backend=backend, workers=2, lazy=True, window=4)
    with outer:
        assert next(outer) == 0
        assert pmap(abs, range(10), backend=backend, workers=2) == list(range(10))
        assert next(outer) == 1


def test_a_program_needs_no_guard(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("from anymap import pmap\nprint('main', pmap(lambda x: x + 1, range(3), backend='pathos'))\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(anymap.__file__).parents[1])}
    ran = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == "main [1, 2, 3]\n"
    assert not ran.stderr
