"""Maps in the caller's own thread."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

import anymap
from anymap import MapError, Retry, pmap
from anymap._worker.context import task_context
from anymap.progress import Advanced, Finished, ItemDone, ItemFailed, ItemRetried

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

pytestmark = pytest.mark.serial


def eagerly(func: Callable[..., Any], items: Iterable[Any], **options: Any) -> list[Any]:
    return pmap(func, items, backend="serial", **options)


def lazily(func: Callable[..., Any], items: Iterable[Any], **options: Any) -> list[Any]:
    return list(pmap(func, items, backend="serial", lazy=True, **options))


def over_an_iterator(func: Callable[..., Any], items: Iterable[Any], **options: Any) -> list[Any]:
    return pmap(func, iter(items), backend="serial", **options)


ways = pytest.mark.parametrize("way", [eagerly, lazily, over_an_iterator])


def is_inside(_: object = None) -> bool:
    return task_context.get() is not None


@ways
def test_only_the_items_run_inside_of_the_map(way: Callable[..., list[Any]]) -> None:
    seen: list[bool] = []

    def source() -> Iterator[int]:
        for number in range(3):
            seen.append(is_inside())
            yield number

    assert way(is_inside, source()) == [True] * 3
    assert seen == [False] * 3
    assert not is_inside()


def test_what_takes_the_results_of_a_lazy_map_is_not_inside_of_it() -> None:
    for inside in pmap(is_inside, range(3), backend="serial", lazy=True):
        assert inside
        assert not is_inside()


@ways
def test_an_item_that_fails_leaves_nothing_of_the_map_behind(way: Callable[..., list[Any]]) -> None:
    with pytest.raises(ZeroDivisionError):
        way(lambda x: 1 // x, [1, 0])
    assert not is_inside()


@ways
def test_the_map_ends_at_the_item_that_exceeds_the_limit(way: Callable[..., list[Any]]) -> None:
    ran = []
    with pytest.raises(MapError) as caught:
        way(lambda x: ran.append(x) or 1 // 0, range(200), on_error="skip", max_failures=2)
    assert ran == [0, 1, 2]
    assert [found.index for found in caught.value.failures] == ran


@ways
def test_a_retry_follows_the_attempt_at_once(way: Callable[..., list[Any]]) -> None:
    ran: list[int] = []

    def fails_once(x: int) -> int:
        ran.append(x)
        if ran.count(x) == 1:
            raise OSError(x)
        return x

    assert way(fails_once, range(3), retries=Retry(1)) == [0, 1, 2]
    assert ran == [0, 0, 1, 1, 2, 2]


@ways
@pytest.mark.parametrize("chunksize", [None, 100])
def test_sinks_hear_of_each_item_as_it_ends(way: Callable[..., list[Any]], chunksize: int | None) -> None:
    told: list[Any] = []
    heard = threading.Event()

    def sink(event: Any) -> None:
        told.append(event)
        heard.set()

    def waits(x: int) -> int:
        if x == 2:
            until(lambda: any(isinstance(event, Advanced) and event.done == 2 for event in told), heard)
            assert {event.index for event in told if isinstance(event, ItemDone)} >= {0}
        return 1 // (x - 1)

    sink.wants = (Advanced, Finished, ItemDone, ItemFailed, ItemRetried)  # type: ignore[attr-defined]
    results = way(waits, range(4), on_error="return", progress=sink, retries=1, chunksize=chunksize)
    assert [type(result).__name__ for result in results] == ["int", "ZeroDivisionError", "int", "int"]
    kinds = [
        (type(event).__name__, event.index) for event in told if isinstance(event, ItemDone | ItemFailed | ItemRetried)
    ]
    assert kinds == [("ItemDone", 0), ("ItemRetried", 1), ("ItemFailed", 1), ("ItemDone", 2), ("ItemDone", 3)]
    (end,) = [event for event in told if isinstance(event, Finished)]
    assert (end.done, end.failed, end.retried, end.total, end.complete) == (4, 1, 1, 4, True)
    assert end.work > 0


def until(condition: Callable[[], bool], heard: threading.Event) -> None:
    while not condition():
        assert heard.wait(60)
        heard.clear()


@ways
def test_what_an_item_sets_stays_set_as_in_a_loop(way: Callable[..., list[Any]]) -> None:
    setting: ContextVar[int] = ContextVar("setting", default=0)
    assert way(lambda x: (setting.set(x), x)[1], range(1, 4)) == [1, 2, 3]
    assert setting.get() == 3
    setting.set(0)


@ways
def test_what_the_input_raises_ends_the_map_after_what_it_gave(way: Callable[..., list[Any]]) -> None:
    ran: list[int] = []

    def source() -> Iterator[int]:
        yield from range(3)
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        way(ran.append, source())
    assert ran == [0, 1, 2]


def test_a_map_that_another_thread_closes_ends_after_the_item() -> None:
    runs, closed = threading.Event(), threading.Event()

    def waits(x: int) -> int:
        runs.set()
        assert closed.wait(60)
        return x

    results = pmap(waits, range(3), backend="serial", lazy=True)
    ended: list[BaseException] = []

    def take() -> None:
        try:
            next(results)
        except BaseException as exc:  # noqa: BLE001 - whatever ends it
            ended.append(exc)

    thread = threading.Thread(target=take)
    thread.start()
    assert runs.wait(60)
    results.close()
    closed.set()
    thread.join(60)
    assert [type(exc).__name__ for exc in ended] == ["CancelledError"]
    assert list(results) == []


def test_an_executor_that_is_terminated_leaves_what_has_not_begun() -> None:
    runs, go_on = threading.Event(), threading.Event()

    def waits(x: int) -> int:
        runs.set()
        assert go_on.wait(60)
        return x

    executor = anymap.Executor(backend="serial")
    first, second = executor.submit(waits, 1), executor.submit(waits, 2)
    assert runs.wait(60)
    executor.terminate()
    go_on.set()
    assert type(first.exception(60)).__name__ == "CancelledError" or first.cancelled()
    assert second.cancelled()
