"""One bar over all maps of a block or of a pool."""

from __future__ import annotations

import io
import threading
from contextvars import copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pytest

import anymap
from anymap import ConfigError, Pool, pmap, using
from anymap.progress import Advanced, Event, Finished, ItemDone, Started

if TYPE_CHECKING:
    from anymap.backends.base import Backend


class Recorder:
    """A sink that shows maps, and keeps what it is told."""

    shows_maps = True

    def __init__(self) -> None:
        self.events: list[Any] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def of(self, *kinds: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]


def told(sink: Recorder) -> tuple[str | None, int | None, int, int, bool]:
    """Check that the events are those of one map, and return what they say at its two ends."""
    assert [type(event) for event in (sink.events[0], sink.events[-1])] == [Started, Finished]
    assert len(sink.of(Started, Finished)) == 2
    counts = [event.done for event in sink.of(Advanced, Finished)]
    assert counts == sorted(counts)
    end = sink.events[-1]
    return sink.events[0].desc, sink.events[0].total, end.done, end.failed, end.complete


def test_the_maps_of_a_block_are_shown_as_one(backend: Backend) -> None:
    sink = Recorder()
    with using(progress=sink, desc="steps", total=11, backend=backend, workers=2):
        for count in (5, 4):
            pmap(abs, range(count))
        pmap(int, ["1", "x"], on_error="skip")
        assert sink.of(Finished) == []
    assert told(sink) == ("steps", 11, 11, 1, True)


def test_the_calls_of_a_pool_are_shown_as_one(backend: Backend) -> None:
    sink = Recorder()
    with Pool(2, backend=backend, progress=sink, desc="sampling") as pool:
        pool.map(abs, range(5))
        pool.starmap(pow, [(2, 3)])
        assert list(pool.imap(abs, range(3))) == [0, 1, 2]
        assert pool.map_async(abs, range(7)).get() == list(range(7))
    assert told(sink) == ("sampling", None, 9, 0, True)


@pytest.mark.parametrize("end", [Pool.terminate, Pool.join])
def test_the_bar_of_a_pool_ends_with_it(end: Any) -> None:
    sink = Recorder()
    pool = Pool(1, backend="threads", progress=sink)
    pool.map(abs, range(5))
    pool.close()
    assert sink.of(Finished) == []
    end(pool)
    assert told(sink) == (None, None, 5, 0, True)


def test_a_block_has_one_bar() -> None:
    with using(backend="serial", progress={"file": (file := io.StringIO()), "ncols": 60}, desc="steps"):
        for _ in range(3):
            pmap(abs, range(4))
    assert file.getvalue().count("\n") == 1
    assert file.getvalue().split("\r")[-1].startswith("steps: 100%|")


def test_where_the_total_is_known_the_bar_has_a_length() -> None:
    with using(backend="serial", progress={"file": (file := io.StringIO()), "ncols": 60}, total=8):
        pmap(abs, range(4))
        pmap(abs, range(4))
    assert "| 8/8 [" in file.getvalue().split("\r")[-1]


def test_maps_at_the_same_time_add_up() -> None:
    sink = Recorder()
    with using(progress=sink, backend="threads", workers=1):
        contexts = [copy_context() for _ in range(4)]
        threads = [threading.Thread(target=context.run, args=(pmap, abs, range(25))) for context in contexts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert told(sink) == (None, None, 100, 0, True)


def test_what_does_not_show_maps_is_told_of_each() -> None:
    shown, done = Recorder(), []

    def note(event: Event) -> None:
        done.append(event)

    note.wants = {ItemDone, Finished}  # type: ignore[attr-defined]
    with using(progress=[shown, note], backend="serial"):
        pmap(abs, range(2))
        pmap(abs, range(1))
    assert [type(event) for event in done] == [ItemDone, ItemDone, Finished, ItemDone, Finished]
    assert told(shown) == (None, None, 3, 0, True)


def test_a_map_that_fails_leaves_the_block_incomplete() -> None:
    sink = Recorder()
    with pytest.raises(ValueError, match="invalid literal"), using(progress=sink, backend="serial"):
        pmap(int, ["1", "x", "3"])
    assert told(sink) == (None, None, 2, 1, False)


def test_a_block_without_maps_shows_nothing() -> None:
    sink = Recorder()
    with using(progress=sink, desc="nothing"):
        pass
    assert sink.events == []


def test_a_map_that_asks_for_something_itself_is_not_of_the_block() -> None:
    sink, own = Recorder(), Recorder()
    with using(progress=sink, backend="serial"):
        pmap(abs, range(3))
        pmap(abs, range(5), progress=own)
        pmap(abs, range(5), progress=False)
    assert told(sink) == (None, None, 3, 0, True)
    assert told(own) == (None, 5, 5, 0, True)


def test_each_call_of_a_function_with_settings_is_a_block() -> None:
    sink = Recorder()

    @using(progress=sink, desc="call", backend="serial")
    def work() -> None:
        pmap(abs, range(2))
        pmap(abs, range(2))

    work()
    assert told(sink) == ("call", None, 4, 0, True)
    sink.events.clear()
    work()
    assert told(sink) == ("call", None, 4, 0, True)


def test_an_executor_shows_what_is_asked_for(backend: Backend) -> None:
    sink = Recorder()
    with using(progress=sink), anymap.Executor(2, backend=backend) as executor:
        assert list(executor.map(abs, range(5))) == list(range(5))
        executor.shutdown()
    assert told(sink) == (None, None, 5, 0, True)


def test_a_resting_executor_has_told_of_its_last_call() -> None:
    told_of: SimpleQueue[int] = SimpleQueue()

    def look(event: Event) -> None:
        if isinstance(event, Advanced):
            told_of.put(event.done)

    with using(progress=look), anymap.Executor(1, backend="threads") as executor:
        for count in range(1, 31):
            executor.submit(abs, 1).result()
            while told_of.get(timeout=30) < count:
                pass


@pytest.mark.parametrize("make", [using, Pool])
@pytest.mark.parametrize("given", [{"desc": "steps"}, {"total": 3}])
def test_a_name_or_a_total_needs_something_to_be_shown_on(make: Any, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"desc and total are for the bar that progress= asks for"):
        make(**given)


@pytest.mark.parametrize("make", [using, Pool])
@pytest.mark.parametrize("given", [{"desc": 3}, {"total": -1}])
def test_a_wrong_name_or_total_is_told_at_once(make: Any, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"{make.__name__}\(\): {next(iter(given))} must be"):
        make(progress=True, **given)


def test_explain_shows_what_was_asked_for() -> None:
    with using(progress="log"):
        anymap.explain(file := io.StringIO())
    assert "'log'" in file.getvalue()
