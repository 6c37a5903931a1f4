"""One stream of events, the same on every backend; what no sink wants is not made."""

from __future__ import annotations

import _thread
import logging
import os
import signal
import threading
import time
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, get_args

import pytest

from anymap import ConfigError, Executor, ItemTimeout, pmap, using
from anymap._engine.run import Run
from anymap._engine.sources import Rows
from anymap._engine.telemetry.item_events import ItemEvents
from anymap._host.live_messages import ITEM, TASK
from anymap._plan.make import make_plan
from anymap._propagate.log_records import LOGGED
from anymap.progress import (
    BY_DEFAULT,
    Advanced,
    Emitter,
    Event,
    Finished,
    ItemDone,
    ItemFailed,
    ItemRetried,
    ItemStarted,
    ItemTimedOut,
    LogRecord,
    Started,
    WorkerDied,
    WorkerStarted,
)
from anymap.testing._station import _options

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anymap.backends.base import Backend

ALL = frozenset(get_args(Event))
ENDS = (ItemDone, ItemFailed, ItemRetried)


class Recorder:
    """A sink that keeps what it wants."""

    def __init__(self, *wants: type[Any], then: Callable[[Event], object] = lambda event: None) -> None:
        self.wants = frozenset(wants) or ALL
        self.events: list[Any] = []
        self._then = then

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._then(event)

    def of(self, *kinds: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]


def fails_at_first(folder: Path) -> Callable[[int], int]:
    def fail_at_first(x: int) -> int:
        if x == 3:
            raise KeyError(x)
        if x == 5 and not (folder / "tried").exists():
            (folder / "tried").touch()
            raise ConnectionError(x)
        return x

    return fail_at_first


def test_each_item_begins_before_it_ends_and_is_done_or_failed_once(backend: Backend, tmp_path: Path) -> None:
    sink = Recorder()
    pmap(fails_at_first(tmp_path), range(30), backend=backend, workers=2, retries=1, on_error="skip", progress=sink)
    assert isinstance(sink.events[0], Started)
    assert isinstance(sink.events[-1], Finished)
    for item in range(30):
        story = [type(event) for event in sink.of(ItemStarted, *ENDS) if event.index == item]
        attempt = [ItemStarted, ItemRetried]
        end = [ItemStarted, ItemFailed if item == 3 else ItemDone]
        assert story == (attempt + end if item in {3, 5} else end), item
    [retried] = [event for event in sink.of(ItemRetried) if event.index == 5]
    assert (type(retried.error), retried.attempts) == (ConnectionError, 1)
    [failed] = sink.of(ItemFailed)
    assert (type(failed.error), failed.attempts) == (KeyError, 2)
    workers = {event.worker for event in sink.of(ItemStarted)}
    assert {event.worker for event in sink.of(WorkerStarted)} == workers
    assert all(event.seconds >= 0 for event in sink.of(ItemDone))


def test_that_an_item_begins_is_told_while_it_runs(backend: Backend, tmp_path: Path) -> None:
    def wait_until_told(x: int) -> bool:
        give_up = time.monotonic() + 30
        while not (tmp_path / str(x)).exists() and time.monotonic() < give_up:
            time.sleep(0.001)
        return (tmp_path / str(x)).exists()

    sink = Recorder(ItemStarted, then=lambda event: (tmp_path / str(event.index)).touch())  # type: ignore[union-attr]
    assert pmap(wait_until_told, range(3), backend=backend, workers=2, progress=sink) == [True] * 3


def test_the_last_event_sums_the_map_up(backend: Backend) -> None:
    sink = Recorder(Finished)
    pmap(lambda x: time.sleep(0.1) if x == 7 else None, range(10), backend=backend, workers=2, progress=sink)
    [end] = sink.events
    assert end.slowest[0][0] == 7
    assert 0.1 <= end.slowest[0][1] < 60
    assert [seconds for _, seconds in end.slowest] == sorted((seconds for _, seconds in end.slowest), reverse=True)
    assert len({index for index, _ in end.slowest}) == len(end.slowest) <= 5
    assert 0 < end.busy <= 1


def waits_after_the_seventh(path: Path) -> Callable[[int], int]:
    def wait_after_the_seventh(x: int) -> int:
        time.sleep(0.001)  # what takes less than 0.2 ms is counted with the next item
        give_up = time.monotonic() + 20
        while x >= 7 and not path.exists() and time.monotonic() < give_up:
            time.sleep(0.001)
        return x

    return wait_after_the_seventh


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_in_the_middle_of_a_chunk_takes_back_nothing_that_was_told_and_loses_no_worker(
    backend: Backend, workers: int, tmp_path: Path
) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Advanced) and event.done >= 7 and not interrupted.is_set():
            interrupted.set()
            _thread.interrupt_main()

    interrupted = threading.Event()
    sink = Recorder(Advanced, Finished, WorkerDied, then=interrupt)
    function = waits_after_the_seventh(tmp_path / "never")
    with pytest.raises(KeyboardInterrupt):
        pmap(function, range(20), backend=backend, workers=workers, chunksize=10, progress=sink)
    counts = [event.done for event in sink.of(Advanced, Finished)]
    assert counts == sorted(counts)
    assert 7 in counts
    assert counts[-1] < 20
    [finished] = sink.of(Finished)
    assert (finished.lost, finished.complete, sink.of(WorkerDied)) == (0, False, [])


@pytest.mark.parametrize("name", ["processes", "pathos", "joblib"])
def test_a_worker_that_dies_is_told_with_how_it_ended(name: str, tmp_path: Path) -> None:
    def die_once(x: int) -> int:
        if x == 2 and not (tmp_path / "died").exists():
            (tmp_path / "died").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    sink = Recorder(WorkerDied, ItemStarted, *ENDS)
    assert pmap(die_once, range(4), backend=name, workers=2, retries=1, chunksize=1, progress=sink) == [0, 1, 2, 3]
    [lost] = [event for event in sink.of(WorkerDied) if event.worker == (tmp_path / "died").read_text()]
    assert lost.exitcode == -signal.SIGKILL
    story = [type(event) for event in sink.of(ItemStarted, *ENDS) if event.index == 2]
    assert story == [ItemStarted, ItemRetried, ItemStarted, ItemDone]


@pytest.mark.parametrize("name", ["processes", "threads"])
def test_an_item_that_is_out_of_time_is_told_and_then_what_becomes_of_it(name: str) -> None:
    def stick(x: int) -> int:
        if x == 1:
            time.sleep(60) if name == "processes" else stuck.wait(60)  # type: ignore[union-attr]
        return x

    stuck = threading.Event() if name == "threads" else None  # which does not travel
    sink = Recorder(ItemStarted, ItemTimedOut, *ENDS)
    pmap(stick, range(3), backend=name, workers=2, timeout=0.3, on_error="skip", chunksize=1, progress=sink)
    if stuck is not None:
        stuck.set()
    story = [event for event in sink.events if event.index == 1]
    assert [type(event) for event in story] == [ItemStarted, ItemTimedOut, ItemFailed]
    assert story[1].seconds >= 0.3
    assert isinstance(story[2].error, ItemTimeout)


def test_a_result_that_cannot_be_loaded_fails_after_it_was_done() -> None:
    class Unloadable:
        def __reduce__(self) -> Any:
            return int, ("not a number",)

    sink = Recorder(*ENDS)
    pmap(lambda x: Unloadable(), [0], backend="processes", workers=1, on_error="skip", progress=sink)
    assert sink.events[-1].index == 0
    assert isinstance(sink.events[-1], ItemFailed)


def test_an_item_that_cannot_be_sent_fails_without_a_worker() -> None:
    sink = Recorder(*ENDS)
    pmap(str, [1, threading.Lock()], backend="processes", workers=1, on_error="skip", progress=sink)
    assert [(type(event), event.worker) for event in sink.events if event.index == 1] == [(ItemFailed, "")]


def test_what_items_log_is_told_with_their_index(backend: Backend) -> None:
    def log(x: int) -> None:
        logging.getLogger("mine").error("item %d", x)

    sink = Recorder(LogRecord)
    pmap(log, range(3), backend=backend, workers=2, progress=sink)
    told = sorted((event.record.name, event.record.getMessage(), event.record.anymap_item) for event in sink.events)
    assert told == [("mine", f"item {x}", x) for x in range(3)]


# Who is told what


def test_a_sink_that_does_not_say_what_it_wants_hears_nothing_of_single_items() -> None:
    sink: list[Any] = []
    pmap(str, range(3), backend="serial", progress=sink.append)
    assert {type(event) for event in sink} <= BY_DEFAULT
    assert BY_DEFAULT.isdisjoint({ItemStarted, ItemDone, ItemFailed, ItemRetried, ItemTimedOut})


def test_each_sink_is_given_what_it_wants() -> None:
    items, ends = Recorder(ItemDone), Recorder(Finished)
    pmap(str, range(3), backend="serial", progress=[items, ends])
    assert [type(event) for event in items.events] == [ItemDone] * 3
    assert [type(event) for event in ends.events] == [Finished]


@pytest.mark.parametrize("wants", [{int}, Recorder, [Started, "Finished"], 3])
def test_to_want_what_there_is_not_is_an_error(wants: Any) -> None:
    sink = Recorder()
    sink.wants = wants
    with pytest.raises(ConfigError, match="wants"):
        pmap(str, [1], backend="serial", progress=sink)


def test_where_nobody_wants_to_know_of_items_workers_are_not_asked() -> None:
    plan = make_plan(str, ([1],), **_options(backend="processes", workers=1, progress=Recorder(Advanced, Finished)))
    run = Run(plan, Rows(iter([1]), prompt=True))
    assert [batch.values for batch in run.batches()] == [["1"]]
    assert run._dispatcher._item_events is None
    assert run._dispatcher.codec is not None
    spec = run._dispatcher.codec._spec  # type: ignore[attr-defined]
    assert spec.around is None
    assert spec.tells.topics.isdisjoint({ITEM, TASK, LOGGED})


session: ContextVar[str] = ContextVar("session", default="none")


def test_each_event_is_told_in_a_copy_of_the_callers_context(backend: Backend, tmp_path: Path) -> None:
    seen: list[tuple[type[Any], str]] = []

    def look(event: Event) -> None:
        seen.append((type(event), session.get()))
        session.set("the sink's")

    function = fails_at_first(tmp_path)
    token = session.set("the caller's")
    try:
        sink = Recorder(*ALL, then=look)
        pmap(function, range(10), backend=backend, workers=2, retries=1, on_error="skip", progress=sink)
        results = pmap(abs, range(3), backend=backend, workers=1, lazy=True, progress=Recorder(*ALL, then=look))
        # It is the context of the call, not of whoever asks for the results.
        assert Context().run(list, results) == [0, 1, 2]
        assert session.get() == "the caller's"
    finally:
        session.reset(token)
    assert {value for _, value in seen} == {"the caller's"}
    assert {Started, ItemDone, ItemFailed, ItemRetried, Finished} <= {kind for kind, _ in seen}


@pytest.mark.parametrize("shape", ["map", "executor"])
def test_what_a_framework_has_noted_on_the_callers_thread_is_noted_on_those_that_call_sinks(
    shape: str, tmp_path: Path
) -> None:
    seen: list[tuple[str, str]] = []

    def look(event: Event) -> None:
        thread = threading.current_thread()
        seen.append((thread.name, getattr(thread, "session_of_a_framework", "none")))
        (tmp_path / "told").touch()

    look.wants = {Advanced, Finished}  # type: ignore[attr-defined]

    def call() -> None:
        threading.current_thread().session_of_a_framework = "mine"  # type: ignore[attr-defined]
        wait = waits_after_the_seventh(tmp_path / "told")
        if shape == "map":
            pmap(wait, [7], backend="threads", workers=1, progress=look)
        else:
            with using(progress=look), Executor(1, backend="threads") as executor:
                executor.submit(wait, 7).result()

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert "anymap-supervisor" in {name for name, _ in seen}
    assert {session for _, session in seen} == {"mine"}


def test_each_advance_is_told_in_the_callers_context_by_whatever_thread(tmp_path: Path) -> None:
    threads: list[tuple[bool, str]] = []

    def look(event: Event) -> None:
        threads.append((threading.current_thread() is threading.main_thread(), session.get()))
        (tmp_path / "told").touch()

    look.wants = {Advanced}  # type: ignore[attr-defined]
    token = session.set("the caller's")
    try:
        pmap(waits_after_the_seventh(tmp_path / "told"), [7], backend="threads", workers=1, progress=look)
    finally:
        session.reset(token)
    assert (False, "the caller's") in threads
    assert {value for _, value in threads} == {"the caller's"}


def test_a_sink_that_is_removed_leaves_the_others_what_they_want(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: Event) -> None:
        raise RuntimeError("broken")

    broken, sink = Recorder(ItemDone, then=fail), Recorder(ItemDone)
    pmap(str, range(3), backend="serial", progress=[broken, sink])
    assert (len(broken.events), len(sink.events)) == (1, 3)
    assert len(caplog.records) == 1


def test_the_journal_lets_no_item_end_before_it_has_begun() -> None:
    """Its word on the beginning of an attempt may come late, and that on the next one early."""
    from anymap._engine.ledger import Chunk
    from anymap._engine.telemetry.measures import Timings
    from anymap._host.live_messages import Told
    from anymap._worker.protocol import Answer

    class Deaf:
        def settle(self) -> None:
            item_events.begin(Told("item", "w", 0, 1, "here"))
            item_events.begin(Told("item", "w", 0, 1, "here"))

    sink = Recorder()
    item_events = ItemEvents(Emitter([sink]), Deaf(), Timings())  # type: ignore[arg-type]
    answer = Answer(1, [None], [], 0.0, 0.0, 0.0, "w", 0)
    item_events.die(0, ValueError(), 1, 0.0, "w", is_final=False)
    item_events.complete(Chunk(0, [None]), answer, [], {})
    item_events.flush()
    assert [type(event) for event in sink.of(ItemStarted, *ENDS)] == [ItemStarted, ItemRetried, ItemStarted, ItemDone]
