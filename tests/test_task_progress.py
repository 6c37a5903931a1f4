"""How far the code inside an item is: told to the map, on any backend; shown here where there is none."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from anymap import ConfigError, pmap, task_progress, track
from anymap._engine.telemetry import task_events as tasks_of_a_map
from anymap._engine.telemetry.measures import Timings
from anymap._engine.telemetry.router import MessageRouter
from anymap._host import live_messages
from anymap._in_worker import task_progress as _task_progress
from anymap.backends.base import Traits
from anymap.progress import BarSink, Emitter, Event, TaskProgress, resolve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anymap.backends.base import Backend


class Tasks:
    """A sink that keeps what it is told of tasks."""

    wants = frozenset({TaskProgress})

    def __init__(self, then: Callable[[Any], object] = lambda event: None) -> None:
        self.events: list[Any] = []
        self._then = then

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._then(event)

    @property
    def ends(self) -> list[Any]:
        return [event for event in self.events if event.ended]


def until(condition: Callable[[], bool]) -> bool:
    give_up = time.monotonic() + 30
    while not condition() and time.monotonic() < give_up:
        time.sleep(0.001)
    return condition()


def test_each_task_is_told_to_its_end_with_its_item(backend: Backend) -> None:
    def work(item: int) -> list[int]:
        with task_progress(total=2 * item, desc=f"job {item}") as bar:
            bar.update(item)
            bar.update(item)
        return list(track([item, item], desc="rows"))

    sink = Tasks()
    assert pmap(work, range(5), backend=backend, workers=2, progress=sink) == [[item, item] for item in range(5)]
    told = sorted((event.desc, event.index, event.done, event.total) for event in sink.ends)
    jobs = [(f"job {item}", item, 2 * item, 2 * item) for item in range(5)]
    assert told == jobs + [("rows", item, 2, 2) for item in range(5)]
    assert len({event.key for event in sink.ends}) == 10


def test_it_is_told_while_the_item_runs(backend: Backend, tmp_path: Path) -> None:
    seen = tmp_path / "seen"

    def work(item: int) -> bool:
        with task_progress(total=10) as bar:
            bar.update(3)
            time.sleep(0.15)  # as long as it takes for another word to be due
            bar.update(4)
            return until(seen.exists)

    sink = Tasks(lambda event: seen.touch() if event.done == 7 and not event.ended else None)
    assert pmap(work, [0], backend=backend, workers=2, progress=sink) == [True]


def test_a_task_ends_with_its_worker(tmp_path: Path) -> None:
    def die_once(item: int) -> int:
        with task_progress(desc="mortal"):
            if not (tmp_path / "died").exists():
                (tmp_path / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            until((tmp_path / "ended").exists)
        return item

    sink = Tasks(lambda event: (tmp_path / "ended").touch() if event.ended else None)
    assert pmap(die_once, [0], backend="processes", workers=1, retries=1, progress=sink) == [0]
    assert len({event.key for event in sink.ends}) == len(sink.ends) == 2


def test_the_last_word_counts_though_it_comes_after_its_item_has_ended() -> None:
    def message(done: int, *, first: bool = False, ended: bool = False) -> bytes:
        return live_messages.encode(
            live_messages.Told(live_messages.TASK, (1, "late", done, 1, 0.1, first, ended), 0, 7, "afar")
        )

    sink, router = Tasks(), MessageRouter({})
    tasks = tasks_of_a_map.Tasks(Emitter((sink,)), Timings(), Traits(remote=True), router.settle)
    router.listen(live_messages.TASK, tasks.hear)
    router.receive_messages([message(0, first=True)])
    router.catch_up()
    router.receive_messages([message(1, ended=True)])
    tasks.emit_changes(tuple)  # nothing is in flight any more
    assert [event.done for event in sink.ends] == [1]


def test_an_inner_map_that_asks_for_a_bar_is_a_task_of_the_outer_one() -> None:
    def work(item: int) -> list[int]:
        return pmap(abs, range(item), progress=True, desc="inner")

    for name in ("serial", "threads", "processes"):
        sink = Tasks()
        pmap(work, [3, 4], backend=name, workers=1, progress=sink)
        told = [(event.desc, event.index, event.done, event.total) for event in sink.ends]
        assert told == [("inner", 0, 3, 3), ("inner", 1, 4, 4)]


def test_an_inner_map_draws_nothing_across_the_outer_bar(capfd: pytest.CaptureFixture[str]) -> None:
    def work(item: int) -> list[int]:
        return pmap(abs, range(item), progress=True, desc="inner")

    pmap(work, [3, 4], backend="processes", workers=1, progress=lambda event: None)
    assert capfd.readouterr().err == ""


def test_a_task_may_learn_its_total_and_name_on_the_way() -> None:
    def work(item: int) -> None:
        with task_progress() as bar:
            bar.total, bar.desc = 3, "named"
            bar.update(2)

    sink = Tasks()
    pmap(work, [0], backend="serial", progress=sink)
    [end] = sink.ends
    assert (end.desc, end.done, end.total) == ("named", 2, 3)


def test_a_loop_that_is_left_ends_its_task() -> None:
    def work(item: int) -> None:
        for row in track(range(10)):
            if row == 4:
                break

    sink = Tasks()
    pmap(work, [0], backend="serial", progress=sink)
    assert [(event.done, event.total) for event in sink.ends] == [(4, 10)]


def test_many_updates_are_few_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    messages: list[Any] = []
    monkeypatch.setattr(_task_progress, "_clock", lambda: clock[0])

    def work(item: int) -> None:
        with task_progress() as bar:
            monkeypatch.setattr(bar._audience, "hear", lambda *told, **more: messages.append((bar.done, more)))
            for _ in range(1000):
                clock[0] += 0.001
                bar.update()

    pmap(work, [0], backend="serial", progress=Tasks())
    # A second of updates is ten messages, and one for the end.
    assert len(messages) == 11
    assert messages[-1] == (1000, {"first": False, "ended": True})


@pytest.mark.parametrize("name", ["serial", "threads", "processes"])
def test_where_nobody_listens_a_task_is_silent(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    def work(item: int) -> int:
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.extend(track([1, 2])))
        thread.start()
        thread.join()
        return len(list(track(range(3)))) + len(found)

    assert pmap(work, [0, 1], backend=name, workers=1, progress=False) == [5, 5]
    assert capfd.readouterr().err == ""


def test_outside_a_map_it_is_a_plain_bar_shown_as_a_map_would_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(track(range(3))) == [0, 1, 2]
    assert capsys.readouterr().err == ""  # no terminal
    monkeypatch.setenv("ANYMAP_PROGRESS", "bar")
    assert list(track(range(3), desc="rows")) == [0, 1, 2]
    assert "rows: 100%" in (text := capsys.readouterr().err)
    assert "3/3" in text
    with suppress(KeyError), task_progress(total=4) as bar:
        bar.update(2)
        raise KeyError
    assert " 50%" in capsys.readouterr().err


@pytest.mark.parametrize("options", [{"total": -1}, {"total": "many"}, {"total": 1.5}, {"desc": 3}])
def test_what_is_no_total_and_no_name_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        task_progress(**options)
    with pytest.raises(ConfigError):
        track([1], **options)


def test_a_bar_that_goes_to_a_file_has_no_rows_for_tasks_as_a_file_has_no_way_back_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    [sink] = resolve(True)
    assert isinstance(sink, BarSink)
    pmap(lambda item: list(track([item])), range(3), backend="serial", progress=sink)
    text = capsys.readouterr().err
    assert "3/3" in text
    assert "\x1b[A" not in text
    assert Emitter([sink]).wants(TaskProgress)


def test_workers_of_an_inner_map_show_their_tasks_side_by_side(tmp_path: Path) -> None:
    def show(row: int) -> None:
        with task_progress(desc=f"row {row}") as bar:
            (tmp_path / f"{row}").touch()
            until(lambda: all((tmp_path / str(other)).exists() for other in range(2)))
            bar.update()

    def work(item: int) -> None:
        pmap(show, range(2), backend="processes", workers=2, chunksize=1)

    sink = Tasks()
    pmap(work, [0], backend="serial", progress=sink)
    assert sorted((event.desc, event.index, event.done) for event in sink.ends) == [("row 0", 0, 1), ("row 1", 0, 1)]
