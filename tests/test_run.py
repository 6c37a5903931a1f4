"""The laws of the engine, at the gate: no process, and tasks end in whatever order the test draws."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anymap import (
    BackendConnectionError,
    ConfigError,
    Executor,
    ItemTimeout,
    MapError,
    Retry,
    UnsupportedOption,
    WorkerLost,
    failure,
    pmap,
)
from anymap._engine.dispatch import Dispatcher
from anymap._host import forks as _forks
from anymap._worker import heartbeat
from anymap.backends import Backend, Traits
from anymap.progress import Advanced, Finished, Started
from anymap.testing import Gate
from anymap.testing._station import Station

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

sizes = st.none() | st.integers(1, 9)
traits = st.sampled_from([Traits(shares_memory=True), Traits()])
rows = st.lists(st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2), max_size=30)


chances = st.integers(0, 2**32).map(random.Random)
"""Chance that any thread may draw from: the supervisor too calls the pilot."""


def in_any_order(chance: random.Random, workers: int, of: Traits) -> Gate:
    """A gate that lets the tasks it holds end in any order."""
    return Gate(workers, traits=of, pilot=lambda gate: gate.release(chance.randrange(len(gate.held))))


def pair(item: Any) -> Any:
    return item, item


@given(items=rows, chunksize=sizes, window=sizes, workers=st.integers(1, 5), of=traits, chance=chances)
def test_ordered_is_what_map_returns(
    items: list[Any], chunksize: int | None, window: int | None, workers: int, of: Traits, chance: random.Random
) -> None:
    gate = in_any_order(chance, workers, of)
    assert pmap(pair, items, backend=gate, chunksize=chunksize, window=window) == list(map(pair, items))
    assert gate.closed == [False]


@given(items=rows, chunksize=sizes, window=sizes, workers=st.integers(1, 5), of=traits, chance=chances)
def test_lazy_and_ordered_is_what_map_returns(
    items: list[Any], chunksize: int | None, window: int | None, workers: int, of: Traits, chance: random.Random
) -> None:
    gate = in_any_order(chance, workers, of)
    results = pmap(pair, iter(items), backend=gate, chunksize=chunksize, window=window, lazy=True)
    assert list(results) == list(map(pair, items))


@given(items=rows, chunksize=sizes, window=sizes, workers=st.integers(1, 5), lazy=st.booleans(), chance=chances)
def test_unordered_is_a_permutation(
    items: list[Any], chunksize: int | None, window: int | None, workers: int, lazy: bool, chance: random.Random
) -> None:
    gate = in_any_order(chance, workers, Traits(shares_memory=True))
    results = pmap(repr, items, backend=gate, chunksize=chunksize, window=window, ordered=False, lazy=lazy)
    assert Counter(results) == Counter(map(repr, items))


@given(items=rows, chunksize=sizes, workers=st.integers(1, 5), chance=chances)
def test_indexed_tells_which_item_a_result_belongs_to(
    items: list[Any], chunksize: int | None, workers: int, chance: random.Random
) -> None:
    gate = in_any_order(chance, workers, Traits(shares_memory=True))
    results = pmap(pair, items, backend=gate, chunksize=chunksize, ordered=False, lazy=True)
    assert sorted(results.indexed(), key=lambda found: found[0]) == list(enumerate(map(pair, items)))


@given(
    count=st.integers(0, 60),
    chunksize=sizes,
    window=sizes,
    ordered=st.booleans(),
    workers=st.integers(1, 5),
    chance=chances,
)
def test_a_lazy_map_never_holds_more_than_its_window(
    count: int, chunksize: int | None, window: int | None, ordered: bool, workers: int, chance: random.Random
) -> None:
    pulled = taken = furthest = 0

    def source() -> Iterator[int]:
        nonlocal pulled, furthest
        for number in range(count):
            pulled += 1
            furthest = max(furthest, pulled - taken - results.window)
            yield number

    gate = in_any_order(chance, workers, Traits(shares_memory=True))
    results = pmap(abs, source(), backend=gate, chunksize=chunksize, window=window, ordered=ordered, lazy=True)
    for _ in results:
        taken += 1
    assert taken == count
    assert furthest <= 0


@given(
    items=st.lists(st.integers(-3, 3), max_size=25),
    chunksize=sizes,
    on_error=st.sampled_from(["return", "skip", "group"]),
    of=traits,
    chance=chances,
)
def test_errors_take_the_form_that_was_asked_for(
    items: list[int], chunksize: int | None, on_error: Any, of: Traits, chance: random.Random
) -> None:
    gate = in_any_order(chance, 3, of)
    bad = [index for index, item in enumerate(items) if item == 0]
    if on_error == "group" and bad:
        with pytest.raises(MapError) as caught:
            pmap(reciprocal, items, backend=gate, chunksize=chunksize, on_error=on_error)
        assert [found.index for found in caught.value.failures] == bad
        got = list(caught.value.results)
    else:
        got = pmap(reciprocal, items, backend=gate, chunksize=chunksize, on_error=on_error)
    expected = [1 / item for item in items if item]
    if on_error != "skip":
        assert [index for index, value in enumerate(got) if isinstance(value, ZeroDivisionError)] == bad
    assert [value for value in got if not isinstance(value, Exception)] == expected


def reciprocal(number: int) -> float:
    return 1 / number


@given(
    count=st.integers(1, 25),
    chunksize=sizes,
    knows=st.sampled_from(["who", "that one died", "nothing"]),
    of=traits,
    chance=chances,
)
def test_a_lost_chunk_costs_the_item_that_ran_and_no_other(
    count: int, chunksize: int | None, knows: str, of: Traits, chance: random.Random
) -> None:
    poison = chance.randrange(count)

    def pilot(gate: Gate) -> None:
        held = chance.choice(gate.held)
        if poison not in held.rows:
            gate.release(held)
            return
        if knows != "nothing":
            gate.mark(held, held.rows.index(poison), pid=7)
        gate.lose(held, dead={7: -9} if knows == "who" else None)

    gate = Gate(3, traits=of if knows != "nothing" else Traits(remote=True), pilot=pilot)
    got = pmap(abs, range(count), backend=gate, chunksize=chunksize, on_error="return")
    assert isinstance(got[poison], WorkerLost)
    assert failure(got[poison]).index == poison  # type: ignore[union-attr]
    assert f"item {poison} " in str(got[poison])
    assert [value for index, value in enumerate(got) if index != poison] == [i for i in range(count) if i != poison]


def test_an_item_lost_once_is_right_with_one_retry_and_is_not_started_again_without() -> None:
    starts: Counter[int] = Counter()

    def pilot(gate: Gate) -> None:
        [held] = gate.held[:1]
        starts.update(held.rows)
        if held.rows == [2] and starts[2] == 1:
            gate.mark(held, 0, pid=7)
            gate.lose(held, dead={7: -11})
        else:
            gate.release(held)

    got = pmap(abs, range(4), backend=Gate(pilot=pilot), chunksize=1, retries=1)
    assert (got, starts[2]) == ([0, 1, 2, 3], 2)
    starts.clear()
    got = pmap(abs, range(4), backend=Gate(pilot=pilot), chunksize=1, on_error="return")
    assert isinstance(got[2], WorkerLost)
    assert "SIGSEGV" in str(got[2])
    assert starts[2] == 1


def test_a_cancelled_future_counts_as_lost() -> None:
    cancelled = []

    def pilot(gate: Gate) -> None:
        if not cancelled:
            cancelled.append(gate.held[0].rows)
            gate.cancel()
        else:
            gate.release()

    assert pmap(abs, range(5), backend=Gate(pilot=pilot)) == [0, 1, 2, 3, 4]
    assert cancelled


def test_an_engine_that_breaks_ends_the_map_with_its_own_error() -> None:
    gate = Gate(pilot=lambda gate: gate.fail(0, ConnectionResetError("the engine is gone")))
    with pytest.raises(ConnectionResetError, match="the engine is gone"):
        pmap(abs, range(5), backend=gate)
    assert gate.closed == [True]


def test_a_lazy_group_hands_out_what_succeeds_and_raises_the_rest_at_its_end() -> None:
    results = pmap(reciprocal, [1, 0, 2], backend=Gate(pilot=lambda g: g.release()), on_error="group", lazy=True)
    got = []
    with pytest.raises(MapError) as caught:
        got.extend(results.indexed())
    assert got == [(0, 1.0), (2, 0.5)]
    assert [found.index for found in caught.value.failures] == [1]


def test_an_answer_to_another_task_ends_the_map_instead_of_being_believed() -> None:
    def mixed_up(gate: Gate) -> None:
        if len(gate.held) > 1:
            first, second = gate.held[:2]
            first.task, second.task = second.task, first.task
        gate.release()

    with pytest.raises(RuntimeError, match="backend 'gate' gave a task an answer that is not its own"):
        pmap(abs, range(20), backend=Gate(2, pilot=mixed_up), chunksize=1)


def test_the_items_of_an_inline_backend_are_run_by_the_engine_itself() -> None:
    gate = Gate(1, traits=Traits(shares_memory=True, inline=True))
    assert pmap(lambda _: threading.get_ident(), range(2), backend=gate) == [threading.get_ident()] * 2
    assert (gate.held, gate.closed) == ([], [False])


def test_the_first_error_stops_the_map_and_the_rest_is_given_up() -> None:
    gate = Gate(2, pilot=lambda gate: gate.release())
    with pytest.raises(ZeroDivisionError) as caught:
        pmap(reciprocal, [1, 2, 0, *range(1, 100)], backend=gate, chunksize=1)
    assert failure(caught.value).index == 2  # type: ignore[union-attr]
    assert gate.submitted <= 3 + 4
    assert gate.closed == [True]


def test_what_is_ready_is_handed_out_before_the_error_that_ends_a_lazy_map() -> None:
    results = pmap(reciprocal, [1, 2, 0, 4], backend=Gate(1, pilot=lambda g: g.release()), chunksize=4, lazy=True)
    assert [next(results), next(results)] == [1.0, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_retries_follow_their_rule() -> None:
    tried: Counter[str] = Counter()

    def flaky(word: str) -> str:
        tried[word] += 1
        if tried[word] < 3:
            raise ConnectionError(word) if word == "often" else ValueError(word)
        return word

    gate = Gate(pilot=lambda gate: gate.release())
    got = pmap(flaky, ["often", "never"], backend=gate, retries=Retry(3, on=ConnectionError), on_error="return")
    assert got[0] == "often"
    assert isinstance(got[1], ValueError)
    assert tried == {"often": 3, "never": 1}
    assert failure(got[1]).attempts == 1  # type: ignore[union-attr]


def test_max_failures_ends_a_hopeless_run() -> None:
    gate = Gate(1, pilot=lambda gate: gate.release())
    with pytest.raises(MapError, match="max_failures=2"):
        pmap(reciprocal, [0] * 50, backend=gate, chunksize=1, on_error="return", max_failures=2)
    assert gate.submitted <= 5


def test_an_item_over_its_time_is_named_and_its_late_answer_dropped() -> None:
    def pilot(gate: Gate) -> None:
        if gate.held[0].rows == [1] and gate.held[0] not in gate.abandoned:
            gate.mark(0, 0, pid=7, seconds_ago=60.0)
        else:
            gate.release()

    gate = Gate(1, pilot=pilot)
    got = pmap(abs, [0, 1, 2], backend=gate, chunksize=1, timeout=30.0, on_error="return")
    assert (got[0], got[2]) == (0, 2)
    assert isinstance(got[1], ItemTimeout)
    assert failure(got[1]).seconds >= 60.0  # type: ignore[union-attr]


def test_where_workers_can_be_killed_the_late_one_is() -> None:
    def pilot(gate: Gate) -> None:
        if gate.held[0].rows == [1] and not gate.killed:
            gate.mark(0, 0, pid=7, seconds_ago=60.0)
        else:
            gate.release()

    gate = Gate(1, traits=Traits(shares_memory=True, kills=True), pilot=pilot)
    got = pmap(abs, [0, 1, 2], backend=gate, chunksize=1, timeout=30.0, on_error="return")
    assert (got[0], got[2], gate.killed) == (0, 2, [7])
    assert isinstance(got[1], ItemTimeout)


class Far(Gate):
    """On other machines: an engine that ends tasks, and knows nothing of process ids."""

    def __init__(self) -> None:
        super().__init__(1, traits=Traits(remote=True, live=True, kills=True), pilot=self._stick_once)

    def channel(self, receive: Callable[[bytes], object]) -> Any:
        self._receive = receive
        return Silent()

    def _stick_once(self, gate: Gate) -> None:
        held = gate.held[0]
        if not self.killed and held.task.start <= 1 < held.task.start + held.task.count:
            self._receive(heartbeat._beat.pack(heartbeat._BEAT, held.task.slot, 7, 1 - held.task.start, 60.0))
        else:
            gate.release()

    def kill_task(self, future: Any, pid: int) -> None:
        (held,) = [held for held in self.held if held.future is future]
        self.killed.append(pid)
        self.lose(held)


class Silent:
    """A channel that takes no notice of what it is told."""

    def connect(self) -> Silent:
        return self

    def send(self, message: bytes) -> None:
        pass

    def is_wanted(self) -> bool:
        return True

    def step_aside(self) -> None:
        pass


@pytest.mark.parametrize("chunksize", [1, 3])
def test_an_engine_of_other_machines_ends_the_task_of_a_late_item(chunksize: int) -> None:
    gate = Far()
    got = pmap(abs, [0, -1, -2], backend=gate, chunksize=chunksize, timeout=30.0, on_error="return")
    assert (got[0], got[2], gate.killed) == (0, 2, [7])
    assert isinstance(got[1], ItemTimeout)


def test_what_was_pulled_goes_on_while_the_consumer_is_away() -> None:
    gate = Gate(2)
    results = pmap(abs, iter(range(100)), backend=gate, chunksize=1, window=10, lazy=True)
    first = threading.Thread(target=lambda: next(results))
    first.start()
    gate.expect(4)
    gate.release()
    first.join(10)
    # Nobody iterates from here on: what has been pulled is launched by the supervisor.
    for _ in range(5):
        gate.expect(1)
        gate.release()
    results.close()


def test_a_source_that_waits_gets_its_last_row_worked_on() -> None:
    released, done = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        yield 1
        yield 2
        released.set()
        assert done.wait(10), "the rows pulled so far must be sent before the source is asked for more"
        yield 3

    gate = Gate(2)
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.extend(pmap(abs, source(), backend=gate, chunksize=10)))
    thread.start()
    released.wait(10)
    gate.expect(1)
    gate.release()
    done.set()
    while thread.is_alive():
        for _ in gate.held[:]:
            gate.release()
        thread.join(0.01)
    assert got == [1, 2, 3]


def test_a_source_that_waits_for_what_it_holds_up_is_spoken_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("anymap._engine.sources._STUCK", 0.0)
    gate = Gate(2)

    def source() -> Iterator[int]:
        yield 1
        gate.expect(1)
        gate.release()
        for _ in range(1000):  # as a crawler would that waits for the first page's links
            if caplog.records or threading.Event().wait(0.01):
                break

    assert list(pmap(abs, source(), backend=gate, lazy=True)) == [1]
    assert "window=" in caplog.records[0].getMessage()


def test_a_backend_without_workers_is_spoken_of_and_gets_one_task(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("anymap._engine.run._NO_WORKERS", 0.0)

    class Deserted(Gate):
        def capacity(self) -> int:
            return 2 if caplog.records else 0

    gate = Deserted(pilot=lambda gate: gate.release() if caplog.records else None)
    assert pmap(abs, range(20), backend=gate, chunksize=1) == list(range(20))
    assert "a map waits for workers: backend 'gate' has none" in caplog.records[0].getMessage()


def test_an_error_of_ours_while_a_chunk_is_completed_ends_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ArithmeticError("a bug of ours")

    monkeypatch.setattr("anymap._engine.ledger.Ledger.complete", broken)
    with pytest.raises(ArithmeticError, match="a bug of ours"):
        pmap(abs, range(20), backend=Gate(pilot=lambda gate: gate.release()))


def test_a_source_that_raises_raises_its_own_error_after_what_it_gave() -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("disk on fire")

    def gate() -> Gate:
        return Gate(pilot=lambda gate: gate.release())

    results = pmap(abs, source(), backend=gate(), lazy=True)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(OSError, match="disk on fire"):
        next(results)
    with pytest.raises(OSError, match="disk on fire"):
        pmap(abs, source(), backend=gate())
    *got, error = pmap(abs, source(), backend=gate(), on_error="return")
    assert got == [1, 2]
    assert isinstance(error, OSError)
    with pytest.raises(MapError) as caught:
        pmap(abs, source(), backend=gate(), on_error="group")
    assert list(caught.value.results) == [1, 2]
    assert isinstance(caught.value.exceptions[0], OSError)


def test_events_count_items_and_end_at_their_number() -> None:
    events: list[Any] = []
    pmap(reciprocal, [1, 0, 2], backend=Gate(pilot=lambda g: g.release()), on_error="skip", progress=events.append)
    assert isinstance(events[0], Started)
    assert (events[0].total, events[0].backend) == (3, "gate")
    assert all(isinstance(event, Advanced) for event in events[1:-1])
    assert isinstance(events[-1], Finished)
    assert (events[-1].done, events[-1].failed, events[-1].total, events[-1].complete) == (3, 1, 3, True)


def test_leaving_early_ends_the_map_once() -> None:
    events: list[Any] = []
    gate = Gate(pilot=lambda gate: gate.release())
    with pmap(abs, iter(range(100)), backend=gate, lazy=True, progress=events.append) as results:
        next(results)
    results.close()
    assert list(results) == []
    assert gate.closed == [True]
    assert [event.complete for event in events if isinstance(event, Finished)] == [False]


def test_an_iterator_nobody_holds_any_more_ends_its_map() -> None:
    gate = Gate(pilot=lambda gate: gate.release())
    next(pmap(abs, iter(range(100)), backend=gate, lazy=True))
    assert gate.closed == [True]


@pytest.mark.parametrize("use", [lambda lazy: None, lambda lazy: lazy.close()])
def test_a_lazy_map_that_is_never_iterated_starts_nothing(use: Callable[[Any], object]) -> None:
    gate = Gate(pilot=lambda gate: gate.release())
    use(pmap(abs, range(3), backend=gate, lazy=True))
    assert (gate.submitted, gate.closed) == (0, [])


class Refuses:
    """Cannot be loaded: its result arrives and fails."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __setstate__(self, state: object) -> None:
        raise ValueError("not here")


class Lambda:
    """Cannot be sent."""

    def __reduce__(self) -> Any:
        raise TypeError("not there")


def fail_in_some_way(item: Any) -> Any:
    if item % 3 == 0:
        raise ZeroDivisionError
    return Refuses(item) if item % 3 == 1 else item


@pytest.mark.parametrize("workers", [1, 3])
def test_what_several_threads_add_to_is_written_under_the_lock_of_the_ledger(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    unguarded: list[str] = []

    def guard(of: Any, lock: Any) -> None:
        kind = type(of)

        class Guarded(kind):  # type: ignore[misc, valid-type]
            __slots__ = ()

            def __setattr__(self, name: str, value: object) -> None:
                if not lock._is_owned():
                    unguarded.append(f"{kind.__name__}.{name}")
                super().__setattr__(name, value)

        of.__class__ = Guarded

    def made(self: Dispatcher, *args: Any) -> None:
        make(self, *args)
        for of in (self.ledger.counts, self.timings, self.sizes.rate):
            guard(of, self._lock)

    make = Dispatcher.__init__
    monkeypatch.setattr(Dispatcher, "__init__", made)
    gate = Gate(workers, traits=Traits(), pilot=lambda gate: gate.release(-1))
    items = [*range(20), Lambda()]
    got = pmap(
        fail_in_some_way, items, backend=gate, on_error="return", chunksize=2, retries=Retry(1, on=ZeroDivisionError)
    )
    assert [type(value).__name__ for value in got[:3]] == ["ZeroDivisionError", "ValueError", "int"]
    assert set(unguarded) <= {"Timings.began"}  # by the one thread that there is then


class Decides(Gate):
    """Declares its traits in ``open``."""

    def __init__(self, declared: Traits) -> None:
        super().__init__(pilot=lambda gate: gate.release())
        self._declared = declared

    def open(self, workers: int | None) -> None:
        super().open(workers)
        self.traits = self._declared


@pytest.mark.parametrize("lazy", [False, True])
def test_a_timeout_is_held_against_the_traits_that_open_has_declared(lazy: bool) -> None:
    with pytest.raises(UnsupportedOption, match="cannot tell when an item began"):
        list(pmap(abs, [-1], backend=Decides(Traits(remote=True)), timeout=5, lazy=lazy))
    assert list(pmap(abs, [-1], backend=Decides(Traits()), timeout=5, lazy=lazy)) == [1]


class FailsToClose(Gate):
    def close(self, *, abandon: bool) -> None:
        super().close(abandon=abandon)
        raise NotImplementedError("cannot cancel")


def fails_to_close() -> FailsToClose:
    return FailsToClose(pilot=lambda gate: gate.release())


def test_an_engine_that_fails_to_close_hides_no_error() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        pmap(reciprocal, [1, 0], backend=fails_to_close())
    assert [note for note in caught.value.__notes__ if "failed to close: NotImplementedError: cannot cancel" in note]


@pytest.mark.parametrize("leave", [False, True])
def test_an_engine_that_fails_to_close_costs_no_result_and_is_logged(
    leave: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if leave:
        with pmap(abs, iter([-1, -2, -3, -4]), backend=fails_to_close(), lazy=True, window=1) as results:
            assert next(results) == 1
    else:
        assert pmap(abs, [-1, -2], backend=fails_to_close()) == [1, 2]
    (record,) = caplog.records
    assert record.getMessage() == "backend 'gate' failed to close"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], NotImplementedError)


class FailsToOpen(Gate):
    """Closes what it has not opened, as a simple backend does."""

    def open(self, workers: int | None) -> None:
        raise BackendConnectionError("nobody answers")

    def close(self, *, abandon: bool) -> None:
        self.connection.close()  # type: ignore[attr-defined]


def test_an_error_of_open_is_raised_though_closing_fails_too() -> None:
    with pytest.raises(BackendConnectionError, match="nobody answers") as caught:
        pmap(abs, [1], backend=FailsToOpen())
    assert "'FailsToOpen' object has no attribute 'connection'" in caught.value.__notes__[0]


class CannotGiveUp(Gate):
    def abandon(self, future: Any) -> None:
        raise NotImplementedError


def test_a_stuck_item_that_the_engine_cannot_give_up_ends_at_its_deadline(caplog: pytest.LogCaptureFixture) -> None:
    def fly(gate: Gate) -> None:
        for held in list(gate.held):
            if held.rows == [1]:
                gate.mark(held, 0, seconds_ago=60.0)
            else:
                gate.release(held)

    gate = CannotGiveUp(3, traits=Traits(), pilot=fly)
    got = pmap(abs, [0, 1, 2], backend=gate, chunksize=1, timeout=30.0, on_error="return")
    assert [type(value) for value in got] == [int, ItemTimeout, int]
    assert "cannot give up a task that is stuck" in caplog.text


def test_an_error_of_open_is_raised_by_an_executor_too_with_what_fails_after_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        pytest.raises(BackendConnectionError, match="nobody answers") as caught,
        Executor(backend=FailsToOpen()) as own,
    ):
        own.submit(abs, 1)
    assert "has no attribute 'connection'" in caught.value.__notes__[0]
    assert not caplog.records


def test_an_error_of_open_is_what_the_exam_shows() -> None:
    with pytest.raises(BackendConnectionError, match="nobody answers") as caught:
        Station(FailsToOpen(), abs, 1, lambda: 1.0)
    assert "has no attribute 'connection'" in caught.value.__notes__[0]


def test_a_submit_that_returns_no_future_is_named() -> None:
    class ReturnsNothing(Gate):
        def submit(self, task: Any) -> Any:
            pass

    with pytest.raises(TypeError, match="backend 'gate' returned None from submit, and no Future"):
        pmap(abs, [1], backend=ReturnsNothing())


@pytest.mark.parametrize("way", ["class", "instance"])
def test_a_backend_without_a_name_is_named_by_its_class(way: str) -> None:
    class Nameless(Backend):
        open = submit = close = None  # type: ignore[assignment]

        def __init__(self) -> None:
            pass

    Nameless.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="Nameless has no name"):
        pmap(abs, [1], backend=Nameless if way == "class" else Nameless())


def test_forks_that_only_open_declares_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_forks, "dangerous_libraries", lambda: ["polars"])
    with pytest.warns(UserWarning, match="polars has been used") as warned:
        assert pmap(abs, [-1], backend=Decides(Traits(forks=True))) == [1]
    assert [warning.filename for warning in warned] == [__file__]
