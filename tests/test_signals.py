"""A signal handler that raises, at any moment, ends the map that runs just then, and nothing else."""

from __future__ import annotations

import os
import random
import signal
import statistics
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

import anymap
from anymap import pmap
from anymap._host import handlers
from anymap._host.handlers import held_back, let_in
from anymap.backends import Processes
from tests.conftest import left

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anymap.backends.base import Backend

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no such timer"),
    # The other method needs the same timer.
    pytest.mark.timeout(120, method="thread"),
]

LONG = 30.0
EXPECTED = [5, 4, 3, 2, 1]


class Interrupt(Exception):  # noqa: N818 - no error of the program
    """What the handlers raise."""


@pytest.fixture(autouse=True)
def raising_handlers() -> Iterator[None]:
    def interrupt(number: int, _: object) -> None:
        raise Interrupt(signal.Signals(number).name)

    former = {number: signal.signal(number, interrupt) for number in (signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2)}
    yield
    assert all(signal.getsignal(number) is interrupt for number in former)
    for number, handler in former.items():
        signal.signal(number, handler)


def interrupt_once(then: Any = None) -> Any:
    signal.raise_signal(signal.SIGUSR1)
    return then


# --- at any moment ------------------------------------------------------------------------------------------------------


def eagerly(backend: Backend) -> list[int]:
    return pmap(abs, range(-5, 0), backend=backend, workers=2)


def lazily(backend: Backend) -> list[int]:
    with pmap(abs, iter(range(-5, 0)), backend=backend, workers=2, lazy=True) as results:
        return list(results)


def by_executor(backend: Backend) -> list[int]:
    with anymap.Executor(2, backend=backend) as executor:
        return [future.result() for future in [executor.submit(abs, number) for number in range(-5, 0)]]


def by_pool(backend: Backend) -> list[int]:
    with anymap.Pool(2, backend=backend) as pool:
        return pool.map_async(abs, range(-5, 0)).get()


WAYS = (eagerly, lazily, by_executor, by_pool)


def interrupt_maps(backend: Backend, maps: int, seed: int) -> None:
    chance = random.Random(seed)
    seconds = {way: statistics.median(seconds_of(way, backend) for _ in range(3)) for way in WAYS}
    before = footprint()
    outcomes = []
    for number in range(maps):
        way = WAYS[number % len(WAYS)]
        outcomes.append(is_interrupted(way, backend, max(chance.random() * 1.2 * seconds[way], 1e-6)))
        if number % 100 == 99:
            assert [way(backend) for way in WAYS] == [EXPECTED] * len(WAYS)
    assert [way(backend) for way in WAYS] == [EXPECTED] * len(WAYS)
    assert any(outcomes)
    assert not left(
        lambda: [f"{what}: {before[what]}, {now}" for what, now in footprint().items() if now > before[what]]
    )


def seconds_of(way: Callable[[Backend], object], backend: Backend) -> float:
    began = time.perf_counter()
    way(backend)
    return time.perf_counter() - began


def is_interrupted(way: Callable[[Backend], list[int]], backend: Backend, after: float) -> bool:
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, after)
            assert way(backend) == EXPECTED
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Interrupt:
        return True
    return False


def footprint() -> dict[str, int]:
    """Count what this process has once nothing is kept for the next map."""
    anymap.shutdown()
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("anymap")]
    return {"threads": len(threads), "descriptors": len(os.listdir("/proc/self/fd"))}


# What is raised in a finalizer is the interpreter's to report, in any program.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_maps_that_are_interrupted_at_any_moment_leave_nothing_and_spoil_no_later_one(backend: Backend) -> None:
    interrupt_maps(backend, 300 if backend.name in {"serial", "threads", "processes"} else 16, seed=1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_neither_do_those_of_forks() -> None:
    interrupt_maps(Processes(start_method="fork"), 12, seed=2)


@pytest.mark.long
@pytest.mark.timeout(1800, method="thread")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_neither_do_thousands_of_them(backend: Backend) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed={seed}")
    interrupt_maps(backend, 4000 if backend.name in {"serial", "threads", "processes"} else 800, seed)


# --- what becomes of the exception --------------------------------------------------------------------------------------


class InterruptsPickling:
    def __reduce__(self) -> tuple[Any, ...]:
        interrupt_once()
        return InterruptsPickling, ()


class InterruptsLoading:
    """Only where the map was called."""

    def __init__(self) -> None:
        self.caller = os.getpid()

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__dict__ = state
        if os.getpid() == self.caller:
            interrupt_once()


@pytest.mark.parametrize("on_error", ["raise", "return"])
def test_an_exception_that_comes_while_items_are_pickled_is_raised_as_it_is(backend: Backend, on_error: Any) -> None:
    if backend.traits.shares_memory:
        pytest.skip("nothing is pickled")
    with pytest.raises(Interrupt) as caught:
        pmap(repr, [InterruptsPickling()], backend=backend, workers=2, on_error=on_error)
    assert type(caught.value) is Interrupt


def test_so_is_one_that_comes_while_results_are_loaded(backend: Backend) -> None:
    if backend.traits.shares_memory:
        pytest.skip("nothing is pickled")
    caller = os.getpid()

    def make(_: int) -> InterruptsLoading:
        made = InterruptsLoading()
        made.caller = caller
        return made

    with pytest.raises(Interrupt):
        pmap(make, [0], backend=backend, workers=2, on_error="return")


def test_so_is_one_that_comes_inside_a_sink_and_the_sink_hears_the_end(backend: Backend) -> None:
    heard = []

    def sink(event: object) -> None:
        heard.append(type(event).__name__)
        if heard == ["Started"]:
            interrupt_once()

    with pytest.raises(Interrupt):
        pmap(abs, range(9), backend=backend, workers=2, progress=sink, on_error="return")
    assert heard[-1] == "Finished"


def test_so_is_one_that_comes_while_the_map_waits(backend: Backend, tmp_path: Any) -> None:
    if backend.traits.inline:
        pytest.skip("it never waits")
    over = tmp_path / "over"

    def wait(_: int) -> None:
        while not over.exists():
            time.sleep(0.005)

    signal.setitimer(signal.ITIMER_REAL, 0.05)
    with pytest.raises(Interrupt):
        pmap(wait, range(4), backend=backend, workers=2, chunksize=1, on_error="return")
    over.touch()


def test_one_that_comes_between_two_items_is_not_the_outcome_of_either() -> None:
    # A builtin has no frame of its own: the handler is called when it has returned.
    for on_error in ("raise", "return"):
        with pytest.raises(Interrupt) as caught:
            pmap(signal.raise_signal, [signal.SIGUSR1] * 3, backend="serial", on_error=on_error)
        assert anymap.failure(caught.value) is None
        with pytest.raises(Interrupt) as caught:
            list(pmap(signal.raise_signal, [signal.SIGUSR1] * 3, backend="serial", on_error=on_error, lazy=True))
        assert anymap.failure(caught.value) is None


def test_one_that_comes_inside_an_item_is_the_outcome_of_the_item() -> None:
    results = pmap(lambda x: interrupt_once(x) if x == 1 else x, range(3), backend="serial", on_error="return")
    assert [type(result) for result in results] == [int, Interrupt, int]


def test_one_that_comes_between_two_rows_of_the_input_is_not_the_inputs(backend: Backend) -> None:
    numbers = map(signal.raise_signal, [signal.SIGUSR1] * 3)
    with pytest.raises(Interrupt):
        pmap(repr, numbers, backend=backend, workers=2, on_error="return")


def test_an_interrupted_close_closes_all_the_same(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    def close(opened: Backend, *, abandon: bool) -> None:
        interrupt_once()
        real(opened, abandon=abandon)
        closed.append(opened)

    closed: list[Backend] = []
    real = type(backend).close
    monkeypatch.setattr(type(backend), "close", close)
    with pytest.raises(Interrupt):
        pmap(abs, range(4), backend=backend, workers=2)
    assert len(closed) == 1


# --- the program's handlers ---------------------------------------------------------------------------------------------


def test_a_handler_that_raises_nothing_is_called_while_the_map_waits() -> None:
    called = threading.Event()
    former = signal.signal(signal.SIGUSR2, lambda *_: called.set())
    timer = threading.Timer(0.05, signal.raise_signal, (signal.SIGUSR2,))
    timer.start()
    try:
        assert pmap(lambda _: called.wait(LONG), [0], backend="threads", workers=1) == [True]
    finally:
        signal.signal(signal.SIGUSR2, former)
        timer.join()


def test_a_handler_that_the_input_sets_stays() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        yield 2

    former = signal.getsignal(signal.SIGUSR2)
    assert pmap(abs, numbers(), backend="threads", workers=1) == [1, 2]
    assert signal.signal(signal.SIGUSR2, former) is signal.SIG_IGN


def test_a_lazy_map_holds_nothing_back_between_two_results(backend: Backend) -> None:
    former = signal.getsignal(signal.SIGUSR1)
    with pmap(abs, range(4), backend=backend, workers=2, lazy=True) as results:
        for _ in results:
            assert signal.getsignal(signal.SIGUSR1) is former
            with pytest.raises(Interrupt):
                interrupt_once()


@pytest.mark.parametrize("kind", ["processes", "pathos"])
def test_forks_have_the_handlers_of_the_program(kind: str) -> None:
    backend: Any = Processes(start_method="fork") if kind == "processes" else kind
    [name] = pmap(lambda _: repr(signal.getsignal(signal.SIGUSR1)), [0], backend=backend, workers=1)
    assert name == repr(signal.getsignal(signal.SIGUSR1))
    [raised] = pmap(interrupt_once, [0], backend=backend, workers=1, on_error="return")
    assert isinstance(raised, Interrupt)


# --- the mechanism ------------------------------------------------------------------------------------------------------


def test_what_is_held_back_comes_at_the_end_of_the_outermost_block() -> None:
    def work() -> None:
        with held_back():
            with held_back():
                interrupt_once()
                done.append("inner")
            done.append("outer")

    done: list[str] = []
    with pytest.raises(Interrupt):
        work()
    assert done == ["inner", "outer"]


def test_what_is_held_back_comes_where_handlers_are_let_in_and_not_again() -> None:
    with held_back():
        interrupt_once()
        with pytest.raises(Interrupt):
            let_in(list)
        with pytest.raises(Interrupt):
            let_in(interrupt_once)
        interrupt_once()
        with suppress(Interrupt):
            let_in(list)


def test_each_handler_is_called_though_one_before_it_raises() -> None:
    def work() -> None:
        with held_back():
            interrupt_once()
            signal.raise_signal(signal.SIGUSR2)
            assert not called

    called: list[str] = []
    former = signal.signal(signal.SIGUSR2, lambda *_: called.append("second"))
    try:
        with pytest.raises(Interrupt):
            work()
    finally:
        signal.signal(signal.SIGUSR2, former)
    assert called == ["second"]


def test_a_signal_that_comes_again_after_a_while_is_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "_PATIENCE", -1.0)
    with held_back():
        interrupt_once()
        with pytest.raises(Interrupt):
            interrupt_once()


def test_a_handler_that_raises_while_others_are_replaced_leaves_none_of_them_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def replace() -> None:
        real()
        with pytest.raises(Interrupt):
            let_in(interrupt_once)
        raise Interrupt

    real, former = handlers._handlers.replace, signal.getsignal(signal.SIGUSR1)
    monkeypatch.setattr(handlers._handlers, "replace", replace)
    with pytest.raises(Interrupt), held_back():
        pytest.fail("it has not been entered")
    assert signal.getsignal(signal.SIGUSR1) is former
    assert not handlers._handlers.held
    assert not handlers._handlers.depth


def test_other_threads_hold_nothing_back() -> None:
    inside, over = threading.Event(), threading.Event()

    def hold() -> None:
        with held_back():
            inside.set()
            over.wait(LONG)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(LONG)
    with pytest.raises(Interrupt):
        interrupt_once()
    over.set()
    thread.join()


def test_handlers_are_looked_at_again_where_that_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> bool:
        raise Interrupt

    former = signal.signal(signal.SIGUSR2, lambda *_: None)  # one that has not been seen
    try:
        monkeypatch.setattr(handlers, "callable", interrupted, raising=False)
        with pytest.raises(Interrupt), held_back():
            pass
        monkeypatch.undo()
        with held_back():
            assert signal.getsignal(signal.SIGUSR2) == handlers._handlers._own
    finally:
        signal.signal(signal.SIGUSR2, former)
