"""Who pulls when: two-sided laziness, sources that depend on results, consumers that are away, leaving early."""

from __future__ import annotations

import gc
import itertools
import os
import queue
import signal
import threading
import time
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

import pytest

from anymap import pmap
from anymap.progress import Advanced, Finished, Started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anymap.backends import Backend
    from anymap.progress import Event

LONG = 30.0
"""Seconds after which what has not happened never will."""


def until(condition: Callable[[], Any]) -> Any:
    """Wait for ``condition`` and return what it returned."""
    give_up = time.monotonic() + LONG
    while not (found := condition()):
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.005)
    return found


def double(x: int) -> int:
    return 2 * x


def mark(path: Path) -> str:
    """Leave a trace of having run."""
    path.touch()
    return path.name


def wait_for_file(path: Path) -> str:
    """Keep a worker busy until the file is there, or for ever."""
    while not path.exists():
        time.sleep(0.005)
    return path.name


def mark_and_wait(paths: tuple[Path, Path]) -> str:
    mark(paths[0])
    return wait_for_file(paths[1])


def append_pid(path: Path) -> None:
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")


class Counted:
    """Counts what is pulled from it."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self.pulled = 0

    def __iter__(self) -> Counted:
        return self

    def __next__(self) -> Any:
        item = next(self._items)
        self.pulled += 1
        return item


class Recorder:
    """A progress sink that lets a test wait for an event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def wait_for(self, condition: Callable[[Event], bool]) -> Event:
        found: Event = until(lambda: next(filter(condition, tuple(self.events)), None))
        return found


# --- two-sided laziness -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
def test_an_endless_source_is_pulled_no_further_than_the_window(backend: Backend, ordered: bool) -> None:
    source = Counted(itertools.count())
    taken: list[int] = []
    widest = 0

    def items() -> Iterator[int]:
        nonlocal widest
        for item in source:
            # The window follows the measured pace; what was pulled for a wide one stays pulled.
            widest = max(widest, results.window)
            yield item

    with pmap(double, items(), backend=backend, workers=2, lazy=True, ordered=ordered) as results:
        for result in results:
            taken.append(result)
            time.sleep(0.0005)  # the slow consumer
            assert source.pulled - len(taken) < widest
            if len(taken) == 1000:
                break
        left_at = source.pulled
        began = time.monotonic()
        results.close()
        assert time.monotonic() - began < 1
    assert source.pulled == left_at
    if ordered:
        assert taken == [2 * x for x in range(1000)]
    else:
        assert len(set(taken)) == 1000
        assert set(taken) <= {2 * x for x in range(source.pulled)}


@pytest.mark.parametrize("window", [1, 2, 7])
def test_a_given_window_is_kept_exactly(backend: Backend, window: int) -> None:
    source = Counted(iter(range(60)))
    with pmap(double, source, backend=backend, workers=2, lazy=True, window=window) as results:
        assert results.window == window
        for taken, result in enumerate(results, 1):
            assert result == 2 * (taken - 1)
            # The one just taken is in the consumer's hands and counts until the next is asked for.
            assert source.pulled - (taken - 1) <= window
    assert source.pulled == 60


def test_nothing_is_pulled_before_the_first_result_is_asked_for(backend: Backend) -> None:
    source = Counted(itertools.count())
    with pmap(double, source, backend=backend, workers=2, lazy=True):
        pass
    assert source.pulled == 0


def test_the_input_is_pulled_in_the_thread_that_iterates(backend: Backend) -> None:
    threads: set[int] = set()

    def source() -> Iterator[int]:
        for item in range(50):
            threads.add(threading.get_ident())
            yield item

    assert pmap(double, source(), backend=backend, workers=2) == [2 * x for x in range(50)]
    assert threads == {threading.get_ident()}


def test_a_list_bounds_what_is_in_flight_but_not_its_results(backend: Backend, tmp_path: Path) -> None:
    # The first item ends only when the last has: results that wait in the list must not count.
    last = tmp_path / "last"
    items = [last, *(tmp_path / f"{number}" for number in range(40)), last]
    if backend.traits.inline:
        pytest.skip("the first item would be waited for for ever")
    results = pmap(wait_or_mark, items[:1] + [(path,) for path in items[1:]], backend=backend, workers=2, window=4)
    assert results == [path.name for path in items]


def wait_or_mark(item: Path | tuple[Path]) -> str:
    return mark(item[0]) if isinstance(item, tuple) else wait_for_file(item)


# --- a source that depends on results ---------------------------------------------------------------------------------

LINKS = {0: [1, 2, 3], 1: [4, 5], 2: [], 3: [6], 4: [7, 8, 9, 10], 5: [], 6: [11], 7: [], 8: [], 9: [], 10: [], 11: []}


@pytest.mark.parametrize("name", ["serial", "threads"])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_crawler_whose_function_feeds_the_queue_that_the_source_reads(name: str, lazy: bool) -> None:
    todo: queue.Queue[int | None] = queue.Queue()
    lock = threading.Lock()
    unseen = set(LINKS)
    todo.put(0)

    def visit(page: int) -> int:
        for link in LINKS[page]:
            todo.put(link)
        with lock:
            unseen.discard(page)
            if not unseen:
                todo.put(None)
        return page

    def pages() -> Iterator[int]:
        while (page := todo.get(timeout=LONG)) is not None:
            yield page

    assert sorted(pmap(visit, pages(), backend=name, workers=3, lazy=lazy)) == sorted(LINKS)


@pytest.mark.parametrize("window", [1, 4])
def test_a_crawler_whose_consumer_feeds_the_source(backend: Backend, window: int) -> None:
    # The window says how far ahead of its results the source can be asked: with so many pages known at the start,
    # and one more for each result, there is always one to give.
    todo = list(range(window))

    def pages() -> Iterator[int]:
        while todo[0] < 40:
            yield todo.pop(0)

    visited = []
    with pmap(double, pages(), backend=backend, workers=2, lazy=True, window=window) as results:
        for page in results:
            visited.append(page)
            todo.append(len(visited) + window - 1)
    assert visited == [2 * x for x in range(40)]


def test_what_a_blocked_source_gave_is_run_meanwhile(backend: Backend, tmp_path: Path) -> None:
    # Two of a chunk of ten: workers must not wait for the other eight.
    if backend.traits.inline:
        pytest.skip("nothing runs while the only thread is in the source")
    files = [tmp_path / "a", tmp_path / "b"]

    def source() -> Iterator[Path]:
        yield from files
        until(lambda: all(file.exists() for file in files))
        yield tmp_path / "c"

    assert pmap(mark, source(), backend=backend, workers=2, chunksize=10) == ["a", "b", "c"]


def test_a_source_may_wait_for_the_result_of_what_it_just_gave(backend: Backend, tmp_path: Path) -> None:
    # The chunks have grown large by the time the source begins to wait.
    if backend.traits.inline:
        pytest.skip("nothing runs while the only thread is in the source")

    def source() -> Iterator[Path]:
        for number in range(200):
            yield tmp_path / f"{number}"
        for number in range(200, 205):
            until((tmp_path / f"{number - 1}").exists)
            yield tmp_path / f"{number}"

    assert pmap(mark, source(), backend=backend, workers=2) == [f"{number}" for number in range(205)]


def test_serially_each_item_is_run_before_the_next_is_pulled() -> None:
    order: list[str] = []

    def source() -> Iterator[int]:
        for item in range(100):
            order.append(f"pull {item}")
            yield item

    pmap(lambda item: order.append(f"run {item}"), source(), backend="serial")
    assert order == [f"{what} {item}" for item in range(100) for what in ("pull", "run")]


@pytest.mark.parametrize("lazy", [False, True])
def test_results_are_not_kept_back_while_the_source_waits(lazy: bool) -> None:
    # In threads: the source waits for something that only the consumer does, or the sink sees.
    recorder = Recorder()

    def source() -> Iterator[int]:
        yield 1
        recorder.wait_for(lambda event: isinstance(event, Advanced) and event.done == 1)
        yield 2

    assert list(pmap(double, source(), backend="threads", workers=2, progress=recorder, lazy=lazy)) == [2, 4]


# --- a consumer that is away ------------------------------------------------------------------------------------------


def test_workers_go_on_while_the_consumer_is_away(backend: Backend, tmp_path: Path) -> None:
    if backend.traits.inline:
        pytest.skip("nothing runs while the only thread is with the consumer")
    files = [tmp_path / f"{number}" for number in range(30)]
    source, recorder = Counted(iter(files)), Recorder()
    with pmap(
        mark, source, backend=backend, workers=2, lazy=True, window=12, chunksize=3, progress=recorder
    ) as results:
        assert next(results) == "0"
        # What was pulled is run to its end, and told, with nobody asking for results.
        recorder.wait_for(lambda event: isinstance(event, Advanced) and event.done == source.pulled)
        assert [file.exists() for file in files] == [number < source.pulled for number in range(30)]
        assert list(results) == [file.name for file in files[1:]]
    assert isinstance(recorder.events[0], Started)
    assert isinstance(recorder.events[-1], Finished)


def test_time_goes_on_for_the_sink_while_the_consumer_is_away(backend: Backend) -> None:
    recorder = Recorder()
    with pmap(double, range(4), backend=backend, workers=2, lazy=True, progress=recorder) as results:
        next(results)
        now = recorder.events[-1].elapsed if isinstance(recorder.events[-1], Advanced) else 0.0
        recorder.wait_for(lambda event: isinstance(event, Advanced) and event.elapsed > now + 0.2)


@pytest.mark.parametrize("name", ["processes", "pathos", "joblib"])
def test_a_death_is_seen_to_while_the_consumer_is_away(name: str, tmp_path: Path) -> None:
    recorder, caller = Recorder(), os.getpid()
    begun, away, died = tmp_path / "begun", tmp_path / "away", tmp_path / "died"

    def dies_once(item: int) -> int:
        if item == 0:
            wait_for_file(begun)
        elif not died.exists():
            begun.touch()
            wait_for_file(away)
            died.touch()
            assert os.getpid() != caller
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    with pmap(
        dies_once, range(2), backend=name, workers=2, lazy=True, chunksize=1, retries=1, progress=recorder
    ) as results:
        assert next(results) == 0
        away.touch()
        recorder.wait_for(lambda event: isinstance(event, Advanced) and event.lost >= 1)
        recorder.wait_for(lambda event: isinstance(event, Advanced) and event.done == 2)
        assert list(results) == [1]


# --- leaving early ----------------------------------------------------------------------------------------------------


@pytest.fixture
def release(tmp_path: Path) -> Iterator[Path]:
    """Give the path of a file that appears when the test is over, so that nothing stuck outlives it."""
    path = tmp_path / "release"
    yield path
    path.touch()


def test_leaving_takes_less_than_a_second_while_workers_are_stuck(
    backend: Backend, tmp_path: Path, release: Path
) -> None:
    if backend.traits.inline:
        pytest.skip("the only thread would be stuck")
    # The first waits until the second has begun, which waits for ever.
    rows = [(tmp_path / f"{number}", release if number else tmp_path / "1") for number in range(200)]
    with pmap(mark_and_wait, rows, backend=backend, workers=2, lazy=True, chunksize=1, ordered=False) as results:
        assert next(results) == "1"
        began = time.monotonic()
    assert time.monotonic() - began < 1
    assert list(results) == []
    # What was queued is not run. (The window is small: some of it was on its way.)
    assert len(list(tmp_path.iterdir())) < 12
    if backend.traits.remote:
        release.touch()  # a cluster's worker is not ours to kill
    assert pmap(double, range(20), backend=backend, workers=2) == [2 * x for x in range(20)]


def test_what_is_queued_is_not_run_after_leaving(backend: Backend, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}" for number in range(500)]
    with pmap(mark, files, backend=backend, workers=2, lazy=True, chunksize=1) as results:
        next(results)
    assert pmap(double, range(20), backend=backend, workers=2) == [2 * x for x in range(20)]
    assert len(list(tmp_path.iterdir())) < 50


def test_a_closed_iterator_is_exhausted_and_may_be_closed_again(backend: Backend) -> None:
    results = pmap(double, range(100), backend=backend, workers=2, lazy=True)
    assert next(results) == 0
    results.close()
    results.close()
    assert list(results) == []


def test_an_iterator_that_was_never_started_leaves_nothing(backend: Backend) -> None:
    results = pmap(double, itertools.count(), backend=backend, workers=2, lazy=True)
    results.close()
    assert list(results) == []


def test_an_iterator_that_nobody_holds_any_more_ends_its_map(backend: Backend) -> None:
    recorder = Recorder()
    results = pmap(double, itertools.count(), backend=backend, workers=2, lazy=True, progress=recorder)
    next(results)
    del results
    gc.collect()
    finished = recorder.wait_for(lambda event: isinstance(event, Finished))
    assert isinstance(finished, Finished)
    assert not finished.complete


def test_an_error_in_the_consumers_body_passes_and_ends_the_map(backend: Backend) -> None:
    recorder = Recorder()
    results = pmap(double, itertools.count(), backend=backend, workers=2, lazy=True, progress=recorder)
    with pytest.raises(ZeroDivisionError), results:
        1 / next(results)
    assert isinstance(recorder.events[-1], Finished)


def test_the_source_is_closed_with_the_map_and_may_say_goodbye(backend: Backend) -> None:
    said: list[str] = []

    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            said.append("goodbye")

    items = source()
    with pmap(double, items, backend=backend, workers=2, lazy=True) as results:
        next(results)
    items.close()
    assert said == ["goodbye"]


def test_the_iterator_may_be_passed_on_to_another_thread(backend: Backend) -> None:
    results = pmap(double, range(50), backend=backend, workers=2, lazy=True)
    first = next(results)
    rest: list[int] = []
    thread = threading.Thread(target=rest.extend, args=(results,))
    thread.start()
    thread.join(LONG)
    assert [first, *rest] == [2 * x for x in range(50)]


def test_closing_the_iterator_while_another_thread_awaits_a_result_ends_the_map_there(
    backend: Backend, tmp_path: Path, release: Path
) -> None:
    rows = [(tmp_path / f"{number}", release) for number in range(20)]
    results = pmap(mark_and_wait, rows, backend=backend, workers=2, lazy=True, chunksize=1)
    raised: list[BaseException] = []

    def read() -> None:
        try:
            next(results)
        except BaseException as exc:  # noqa: BLE001 - the test looks at it
            raised.append(exc)

    reader = threading.Thread(target=read)
    reader.start()
    until((tmp_path / "0").exists)
    results.close()
    if backend.traits.inline or backend.traits.remote:
        release.touch()  # nobody can end what runs in the reading thread, or on another's cluster
    reader.join(LONG)
    assert [type(exc) for exc in raised] == [CancelledError]
    assert list(results) == []
    assert len(list(tmp_path.iterdir())) < 12
