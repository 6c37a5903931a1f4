"""When things go wrong: never a hang, nothing lost, every error names its item."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import anymap
from anymap import (
    ConfigError,
    ItemTimeout,
    MapError,
    NotPicklable,
    RemoteError,
    Retry,
    UnsupportedOption,
    WorkerLost,
    failure,
    pmap,
)
from anymap.backends import Threads, Traits
from anymap.progress import Advanced, Finished
from tests import conftest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from anymap.backends import Backend
    from anymap.progress import Event

pytestmark = pytest.mark.full

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(anymap.__file__).parents[1])}
ALL = ["serial", "threads", "processes", "pathos", "joblib", "dask"]
KILLING = ["processes", "pathos", "joblib"]
"""Backends whose workers are processes of this host, whose deaths are told exactly."""
LONG = 30.0

in_killable_processes = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in KILLING]
)


def chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)


def notes(exc: BaseException) -> str:
    return "\n".join(getattr(exc, "__notes__", ()))


def invert(x: int) -> float:
    return 1 / x


# --- ordinary exceptions ------------------------------------------------------------------------------------------------


def test_the_original_type_is_raised_and_names_its_item(backend: Backend) -> None:
    with pytest.raises(ZeroDivisionError, match="division by zero") as caught:
        pmap(invert, [4, 2, 0, 1], backend=backend, workers=2)
    assert re.search(r"item 2 \(0\).* 1 attempt .*worker \S+", notes(caught.value))
    found = failure(caught.value)
    assert found is not None
    assert (found.index, found.item, found.attempts) == (2, 0, 1)
    assert found.exception is caught.value
    assert found.seconds >= 0
    assert found.worker in notes(caught.value)
    assert "in invert" in found.traceback


def test_what_is_printed_shows_the_line_that_raised_and_the_item(backend: Backend) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        pmap(invert, [0], backend=backend)
    printed = "".join(traceback.format_exception(caught.value))
    assert "return 1 / x" in printed
    assert "item 0 (0)" in printed
    assert printed.count("return 1 / x") <= 2


def test_an_item_of_several_iterables_is_its_tuple(backend: Backend) -> None:
    [error] = pmap(divmod, [7], [0], backend=backend, on_error="return")
    found = failure(error)
    assert found is not None
    assert found.item == (7, 0)
    assert "item 0 ((7, 0))" in notes(error)


class NeedsTwo(Exception):  # noqa: N818
    """Its arguments are not those of its constructor: pickle alone cannot load it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class KeywordsOnly(Exception):  # noqa: N818
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


@pytest.mark.parametrize("make", [lambda: NeedsTwo(7, "text"), lambda: KeywordsOnly(code=7)])
def test_an_exception_with_required_arguments_arrives_as_its_own_type(
    backend: Backend, make: Callable[[], Exception]
) -> None:
    def fail(_: int) -> None:
        raise make()

    with pytest.raises((NeedsTwo, KeywordsOnly)) as caught:
        pmap(fail, [0], backend=backend)
    assert type(caught.value) is type(make())
    assert caught.value.code == 7
    assert str(caught.value) == str(make())


class CannotTravel(Exception):  # noqa: N818
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


def test_an_exception_that_cannot_be_pickled_still_tells_all(backend: Backend) -> None:
    def fail(_: int) -> None:
        raise CannotTravel("the text")

    [error] = pmap(fail, [0], backend=backend, on_error="return")
    if backend.traits.shares_memory:
        assert type(error) is CannotTravel
        return
    assert isinstance(error, RemoteError | CannotTravel)
    if isinstance(error, RemoteError):
        assert error.type_name.endswith("CannotTravel")
        assert error.message == "the text"
        assert "in fail" in error.traceback
    assert "the text" in str(error)
    assert "item 0" in notes(error)


def test_an_exception_whose_text_raises_is_told_all_the_same(backend: Backend) -> None:
    class Mute(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError("no text")

        __repr__ = __str__

    def fail(_: int) -> None:
        raise Mute

    [error] = pmap(fail, [0], backend=backend, on_error="return")
    assert type(error) in {Mute, RemoteError}
    assert "item 0" in notes(error)


def test_an_item_whose_repr_raises_or_is_endless_is_named_all_the_same(backend: Backend) -> None:
    class Mute:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    def fail(_: object) -> None:
        raise ValueError

    for item in (Mute(), "x" * 100_000, list(range(100_000))):
        [error] = pmap(fail, [item], backend=backend, on_error="return")
        assert isinstance(error, ValueError)
        assert "item 0 (" in notes(error)
        assert len(notes(error)) < 500


class Secret:
    def __repr__(self) -> str:
        return "Secret(hunter2)"

    def reveal(self, _: int) -> None:
        raise ValueError("wrong")


def test_where_items_are_not_to_be_shown_they_are_named_by_their_index_alone(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [Secret(), Secret()]
    for value, shown in (("on", True), ("off", False)):
        monkeypatch.setenv("ANYMAP_SHOW_ITEMS", value)
        error = pmap(Secret.reveal, items, [1, 2], backend=backend, workers=2, on_error="return")[1]
        printed = "".join(traceback.format_exception(error))
        assert ("hunter2" in printed) == shown
        assert f"anymap: item 1 {'((Secret(hunter2), 2)) ' if shown else ''}failed after 1 attempt" in printed
        found = failure(error)
        assert found is not None
        assert found.item[0] is items[1]


@pytest.mark.parametrize("value", ["no", "hide", "0"])
def test_a_wrong_word_on_whether_items_are_shown_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYMAP_SHOW_ITEMS", value)
    with pytest.raises(ConfigError, match=f"ANYMAP_SHOW_ITEMS must be one of 'on', 'off', True, False, not '?{value}"):
        pmap(abs, [1], backend="serial")


def raise_from(x: int) -> None:
    try:
        int("no number")
    except ValueError as exc:
        raise KeyError(x) from exc


def raise_while_handling(x: int) -> None:
    try:
        int("no number")
    except ValueError:
        raise KeyError(x)  # noqa: B904 - the context is what is tested


def raise_from_none(x: int) -> None:
    try:
        int("no number")
    except ValueError:
        raise KeyError(x) from None


def test_the_cause_is_kept(backend: Backend) -> None:
    with pytest.raises(KeyError) as caught:
        pmap(raise_from, [5], backend=backend)
    assert type(caught.value.__cause__) is ValueError
    assert "no number" in str(caught.value.__cause__)
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.index('int("no number")') < shown.index("raise KeyError(x) from exc")


def test_the_context_is_kept(backend: Backend) -> None:
    with pytest.raises(KeyError) as caught:
        pmap(raise_while_handling, [5], backend=backend)
    assert type(caught.value.__context__) is ValueError
    with pytest.raises(KeyError) as caught:
        pmap(raise_from_none, [5], backend=backend)
    assert not any(type(one) is ValueError for one in chain(caught.value))


def test_a_chain_of_causes_that_bites_its_tail_ends(backend: Backend) -> None:
    def fail(_: int) -> None:
        first, second = ValueError("first"), ValueError("second")
        first.__cause__, second.__cause__ = second, first
        raise first

    with pytest.raises(ValueError, match="first"):
        pmap(fail, [0], backend=backend)


def test_a_long_chain_of_causes_is_no_trouble(backend: Backend) -> None:
    def fail(_: int) -> None:
        exc: Exception = ValueError("0")
        for number in range(1, 300):
            following = ValueError(str(number))
            following.__cause__ = exc
            exc = following
        raise exc

    [error] = pmap(fail, [0], backend=backend, on_error="return")
    assert str(error) == "299"
    causes = sum(type(one) is ValueError for one in chain(error))
    if backend.traits.shares_memory:
        assert causes == 300
    else:
        # The rest can be read in the last one.
        assert 20 < causes < 300
        assert "ValueError: 0" in str(list(chain(error))[-1])


def test_an_exceptions_own_notes_and_attributes_are_kept(backend: Backend) -> None:
    def fail(x: int) -> None:
        exc = ValueError("text")
        exc.add_note("mine")
        exc.extra = {"x": x}  # type: ignore[attr-defined]
        raise exc

    [error] = pmap(fail, [3], backend=backend, on_error="return")
    assert error.__notes__[0] == "mine"
    assert error.extra == {"x": 3}


def test_the_text_of_an_os_error_is_kept(backend: Backend) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        pmap(open, ["/no/such/file"], backend=backend)
    assert caught.value.filename == "/no/such/file"
    assert caught.value.errno == 2
    [error] = pmap(bytes.decode, [b"\xff"], backend=backend, on_error="return")
    assert type(error) is UnicodeDecodeError
    assert error.start == 0


def test_an_exception_group_keeps_its_leaves_but_for_the_bad_one(backend: Backend) -> None:
    def fail(_: int) -> None:
        raise ExceptionGroup("several", [ValueError("a"), ExceptionGroup("inner", [CannotTravel("b")]), KeyError("c")])

    with pytest.raises(ExceptionGroup) as caught:
        pmap(fail, [0], backend=backend)
    assert caught.value.message == "several"
    first, inner, last = caught.value.exceptions
    assert (type(first), str(first)) == (ValueError, "a")
    assert (type(last), str(last)) == (KeyError, "'c'")
    assert isinstance(inner, ExceptionGroup)
    assert "b" in str(inner.exceptions[0])
    assert type(caught.value.subgroup(ValueError)) is ExceptionGroup


def test_one_exception_object_raised_by_many_items_names_each_of_them(backend: Backend) -> None:
    shared = ValueError("one object")

    def fail(_: int) -> None:
        raise shared

    errors = pmap(fail, range(5), backend=backend, workers=2, on_error="return")
    assert [type(error) for error in errors] == [ValueError] * 5
    for index, error in enumerate(errors):
        found = failure(error)
        assert found is not None
        assert found.index == index
        assert found.exception is error
        assert re.findall(r"item (\d)", notes(error)) == [str(index)]


def test_an_item_that_returns_its_error_and_one_that_raises_it_are_told_apart(backend: Backend) -> None:
    def maybe(x: int) -> Exception:
        if x:
            raise ValueError(x)
        return ValueError(x)

    returned, raised = pmap(maybe, [0, 1], backend=backend, on_error="return")
    assert failure(returned) is None
    assert failure(raised) is not None


# --- what is no Exception -----------------------------------------------------------------------------------------------


class OwnBase(BaseException):
    pass


LEAVING: dict[str, Callable[[int], object]] = {
    "sys.exit": lambda x: sys.exit(3) if x == 1 else x,
    "sys.exit with a text": lambda x: sys.exit("text") if x == 1 else x,
    "an own BaseException": lambda x: (_ for _ in ()).throw(OwnBase("own")) if x == 1 else x,
    "GeneratorExit": lambda x: raise_it(GeneratorExit()) if x == 1 else x,
    "asyncio.CancelledError": lambda x: raise_it(asyncio.CancelledError()) if x == 1 else x,
    "a group of BaseExceptions": lambda x: raise_it(BaseExceptionGroup("g", [OwnBase("own")])) if x == 1 else x,
}


def raise_it(exc: BaseException) -> None:
    raise exc


@pytest.mark.parametrize("how", LEAVING)
def test_what_would_end_a_program_ends_only_its_item(backend: Backend, how: str) -> None:
    results = pmap(LEAVING[how], range(6), backend=backend, workers=2, on_error="return")
    error = results[1]
    assert isinstance(error, Exception)
    assert results[:1] + results[2:] == [0, 2, 3, 4, 5]
    assert "item 1" in notes(error)
    text = f"{type(error).__name__}: {error}"
    assert {"sys.exit": "SystemExit", "sys.exit with a text": "text"}.get(how, "") in text
    with pytest.raises(type(error)):
        pmap(LEAVING[how], range(6), backend=backend, workers=2)


@pytest.mark.parametrize("name", ["threads", "processes", "pathos", "joblib"])
def test_a_keyboard_interrupt_in_a_worker_is_its_items_error(name: str) -> None:
    results = pmap(
        lambda x: raise_it(KeyboardInterrupt()) if x == 1 else x, range(4), backend=name, workers=2, on_error="return"
    )
    assert "KeyboardInterrupt" in str(results[1])
    assert results[:1] + results[2:] == [0, 2, 3]


def test_serially_a_keyboard_interrupt_is_the_callers() -> None:
    with pytest.raises(KeyboardInterrupt):
        pmap(lambda _: raise_it(KeyboardInterrupt()), range(4), backend="serial", on_error="return")


def test_a_stop_iteration_in_the_function_does_not_cut_the_results_short(backend: Backend) -> None:
    def stop(x: int) -> int:
        if x == 2:
            raise StopIteration
        return x

    results = pmap(stop, range(5), backend=backend, workers=2, on_error="return")
    assert len(results) == 5
    assert isinstance(results[2], StopIteration | RemoteError)
    with pytest.raises((StopIteration, RuntimeError, RemoteError)) as caught:
        list(pmap(stop, range(5), backend=backend, workers=2, lazy=True))
    assert not isinstance(caught.value, AssertionError)


# --- what cannot be sent ------------------------------------------------------------------------------------------------


class HoldsLock:
    def __init__(self) -> None:
        self.inner = {"deep": [1, threading.Lock()]}


def skip_where_memory_is_shared(backend: Backend) -> None:
    if backend.traits.shares_memory:
        pytest.skip("nothing is pickled")


def test_a_result_that_cannot_be_sent_is_that_items_error_and_says_where(backend: Backend) -> None:
    skip_where_memory_is_shared(backend)
    results = pmap(lambda x: HoldsLock() if x == 1 else x, range(4), backend=backend, workers=2, on_error="return")
    assert results[:1] + results[2:] == [0, 2, 3]
    assert type(results[1]) is NotPicklable
    assert re.search(r"result.*HoldsLock.*lock.*inner\['deep'\]\[1\]", str(results[1]))
    assert "item 1" in notes(results[1])


def test_an_argument_that_cannot_be_sent_is_that_items_error_and_says_where(backend: Backend) -> None:
    skip_where_memory_is_shared(backend)
    items = [1, HoldsLock(), 3]
    results = pmap(lambda x: x, items, backend=backend, workers=2, on_error="return")
    assert results[::2] == [1, 3]
    assert type(results[1]) is NotPicklable
    assert re.search(r"argument of item 1.*HoldsLock.*lock.*inner\['deep'\]\[1\]", str(results[1]))
    found = failure(results[1])
    assert found is not None
    assert found.index == 1
    assert found.item is items[1]
    with pytest.raises(NotPicklable, match="argument of item 1"):
        pmap(lambda x: x, items, backend=backend, workers=2)


def test_a_function_that_cannot_be_sent_says_so_before_anything_is_pulled(backend: Backend) -> None:
    skip_where_memory_is_shared(backend)
    lock = threading.Lock()
    source = iter(range(10))

    def hold(x: int) -> int:
        with lock:
            return x

    with pytest.raises(NotPicklable, match=r"function.*hold|hold.*function") as caught:
        pmap(hold, source, backend=backend, workers=2)
    assert "'lock'" in str(caught.value)
    assert next(source) == 0


class ExplodesOnLoading:
    def __reduce__(self) -> Any:
        return raise_it, (ValueError("while loading"),)


def test_what_cannot_be_loaded_is_that_items_error(backend: Backend) -> None:
    skip_where_memory_is_shared(backend)
    results = pmap(
        lambda x: ExplodesOnLoading() if x == 1 else x, range(4), backend=backend, workers=2, on_error="return"
    )
    assert results[:1] + results[2:] == [0, 2, 3]
    assert "while loading" in str(results[1])
    results = pmap(type, [0, ExplodesOnLoading(), 2], backend=backend, workers=2, on_error="return")
    assert results[::2] == [int, int]
    assert "while loading" in str(results[1])
    assert "item 1" in notes(results[1])


# --- the input ----------------------------------------------------------------------------------------------------------


def broken_source(good: int) -> Iterator[int]:
    yield from range(good)
    raise OSError("the disk is gone")


@pytest.mark.parametrize("good", [0, 1, 37])
def test_an_input_that_raises_midway_raises_its_own_exception_and_traceback(backend: Backend, good: int) -> None:
    with pytest.raises(OSError, match="the disk is gone") as caught:
        pmap(invert, (x + 1 for x in broken_source(good)), backend=backend, workers=2)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "broken_source"
    assert failure(caught.value) is None


def test_what_came_before_the_input_raised_can_be_had(backend: Backend) -> None:
    expected = list(range(37))
    got, error = take(pmap(abs, broken_source(37), backend=backend, workers=2, lazy=True))
    assert (got, type(error)) == (expected, OSError)
    *values, error = pmap(abs, broken_source(37), backend=backend, workers=2, on_error="return")
    assert (values, type(error)) == (expected, OSError)
    with pytest.raises(MapError) as caught:
        pmap(abs, broken_source(37), backend=backend, workers=2, on_error="group")
    assert list(caught.value.results)[:37] == expected
    assert [type(exc) for exc in caught.value.exceptions] == [OSError]


def take(results: Iterable[Any]) -> tuple[list[Any], Exception | None]:
    """Return what an iterable gives, and what it raises then."""
    got: list[Any] = []
    try:
        for result in results:
            got.append(result)  # noqa: PERF402 - it keeps what came before an error
    except Exception as exc:  # noqa: BLE001 - whatever it is
        return got, exc
    return got, None


def test_an_input_that_raises_at_once_raises_from_the_call(backend: Backend) -> None:
    class Broken:
        def __iter__(self) -> Iterator[int]:
            raise OSError("at once")

    with pytest.raises(OSError, match="at once"):
        pmap(abs, Broken(), backend=backend)


# --- on_error -----------------------------------------------------------------------------------------------------------


def odd_fails(x: int) -> int:
    if x % 2:
        raise ValueError(x)
    return x


def test_return_puts_the_exception_in_the_results_place(backend: Backend) -> None:
    results = pmap(odd_fails, range(20), backend=backend, workers=2, on_error="return")
    assert [value if isinstance(value, int) else value.args[0] for value in results] == list(range(20))
    assert [isinstance(value, ValueError) for value in results] == [False, True] * 10


def test_skip_leaves_the_failed_items_out(backend: Backend) -> None:
    assert pmap(odd_fails, range(20), backend=backend, workers=2, on_error="skip") == list(range(0, 20, 2))
    with pmap(odd_fails, range(20), backend=backend, workers=2, on_error="skip", lazy=True) as results:
        assert list(results.indexed()) == [(x, x) for x in range(0, 20, 2)]


def test_group_runs_everything_and_raises_one_error(backend: Backend) -> None:
    with pytest.raises(MapError) as caught:
        pmap(odd_fails, range(20), backend=backend, workers=2, on_error="group")
    error = caught.value
    assert len(error.exceptions) == 10
    assert [found.index for found in error.failures] == list(range(1, 20, 2))
    assert [value for value in error.results if isinstance(value, int)] == list(range(0, 20, 2))
    match, rest = error.split(lambda exc: isinstance(exc, ValueError) and exc.args[0] > 10)
    assert isinstance(match, MapError)
    assert isinstance(rest, MapError)
    assert (len(match.failures), len(rest.failures)) == (5, 5)
    again = pickle.loads(pickle.dumps(error))
    assert [found.index for found in again.failures] == list(range(1, 20, 2))


def test_a_lazy_group_gives_what_succeeded_and_raises_at_its_end(backend: Backend) -> None:
    got, error = take(pmap(odd_fails, range(20), backend=backend, workers=2, on_error="group", lazy=True))
    assert got == list(range(0, 20, 2))
    assert isinstance(error, MapError)
    assert [found.index for found in error.failures] == list(range(1, 20, 2))


def test_group_returns_the_results_where_nothing_failed(backend: Backend) -> None:
    assert pmap(abs, range(5), backend=backend, workers=2, on_error="group") == list(range(5))


def test_raise_starts_hardly_anything_after_the_first_error(backend: Backend, tmp_path: Path) -> None:
    def fail_first(x: int) -> None:
        (tmp_path / f"{x}").touch()
        if x == 0:
            raise ValueError(x)

    with pytest.raises(ValueError):
        pmap(fail_first, range(2000), backend=backend, workers=2, chunksize=1)
    assert len(list(tmp_path.iterdir())) < 200


def test_lazily_what_came_before_an_error_is_delivered_in_order(backend: Backend) -> None:
    results = pmap(invert, [1, 2, 4, 0, 1, 1], backend=backend, workers=2, lazy=True, chunksize=6)
    got, error = take(results)
    assert got == [1, 0.5, 0.25]
    assert type(error) is ZeroDivisionError


@pytest.mark.parametrize(("limit", "ends"), [(3, True), ("10%", True), (100, False), ("60%", False)])
def test_max_failures_ends_a_hopeless_map(backend: Backend, limit: int | str, ends: bool) -> None:
    def run() -> list[Any]:
        return pmap(odd_fails, range(100), backend=backend, workers=2, on_error="return", max_failures=limit)

    if not ends:
        assert len(run()) == 100
        return
    with pytest.raises(MapError, match=f"items failed, more than max_failures={limit}") as caught:
        run()
    assert len(caught.value.failures) > int(str(limit).removesuffix("%"))


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(("limit", "failures"), [(0, 1), (5, 6), ("3%", 7)])
def test_a_hopeless_map_ends_at_the_item_that_exceeds_the_limit(
    backend: Backend, limit: int | str, failures: int, lazy: bool, tmp_path: Path
) -> None:
    def fail(x: int) -> None:
        (tmp_path / str(x)).touch()
        raise ValueError(x)

    options: Any = {"chunksize": 200, "workers": 1, "on_error": "return", "max_failures": limit}
    with pytest.raises(MapError) as caught:
        list(pmap(fail, range(200), backend=backend, lazy=lazy, **options))
    assert len(caught.value.failures) == failures
    assert len(list(tmp_path.iterdir())) == failures


def test_a_map_error_names_its_first_failures(backend: Backend) -> None:
    def told(items: Any) -> str:
        with pytest.raises(MapError) as caught:
            pmap(odd_fails, items, backend=backend, workers=2, on_error="group")
        return caught.value.message

    odd = [f"item {x} ({x}): ValueError: {x}" for x in (1, 3, 5)]
    assert told(range(2)) == f"1 item failed: {odd[0]}"
    assert told(range(10)) == f"5 items failed: {'; '.join(odd[:3])}; and 2 more"
    with anymap.using(show_items=False):
        assert told(range(2)) == f"1 item failed: {odd[0].replace(' (1)', '')}"


@pytest.mark.parametrize(
    ("items", "message"),
    [([0], "the input raised OSError: oh"), ([1], r"the input raised OSError: oh; 1 item failed: .*")],
)
def test_a_map_error_names_what_the_input_raised(items: list[int], message: str) -> None:
    def source() -> Iterator[int]:
        yield from items
        raise OSError("oh")

    with pytest.raises(MapError) as caught:
        pmap(odd_fails, source(), backend="serial", on_error="group")
    assert re.fullmatch(message, caught.value.message)


def test_an_item_that_was_never_sent_failed_in_no_worker() -> None:
    [error] = pmap(str, [threading.Lock()], backend="processes", workers=1, on_error="return")
    found = failure(error)
    assert found is not None
    assert found.worker == ""
    assert error.__notes__[-1].endswith("failed before it was sent to a worker")


def test_each_chunk_of_a_hopeless_map_ends_at_the_item_that_exceeds_the_limit(backend: Backend) -> None:
    with pytest.raises(MapError) as caught:
        pmap(odd_fails, range(400), backend=backend, workers=2, chunksize=100, on_error="skip", max_failures=5)
    # Two chunks run at a time, and each worker may have begun another one by the time they have ended.
    assert 6 <= len(caught.value.failures) <= 4 * 6


@pytest.mark.parametrize("on_error", ["return", "skip", "group"])
@pytest.mark.parametrize("ordered", [True, False])
def test_a_hopeless_map_tells_all_failures_and_what_became_of_each_item(
    backend: Backend, on_error: Any, ordered: bool
) -> None:
    pulled = []
    source = (pulled.append(x) or x for x in range(1000))
    with pytest.raises(MapError) as caught:
        pmap(
            odd_fails,
            source,
            backend=backend,
            workers=2,
            chunksize=4,
            ordered=ordered,
            on_error=on_error,
            max_failures=20,
        )
    error = caught.value
    failed = [found.index for found in error.failures]
    assert failed == sorted(failed)
    assert len(failed) > 20
    assert [found.exception for found in error.failures] == list(error.exceptions)
    assert f"{len(failed)} items failed, more than max_failures=20" in str(error)
    assert len(error.results) == len(pulled) < 1000
    for x, result in enumerate(error.results):
        if isinstance(result, CancelledError):
            continue
        assert result == x or result is error.failures[failed.index(x)].exception
    finished = [x for x, result in enumerate(error.results) if not isinstance(result, CancelledError)]
    assert [x for x in finished if x % 2] == failed
    assert len(pickle.loads(pickle.dumps(error)).results) == len(error.results)


def test_an_item_that_a_hopeless_map_leaves_unfinished_is_told_as_cancelled(backend: Backend, tmp_path: Path) -> None:
    skip_where_nothing_runs_beside(backend)
    over = tmp_path / "over"

    def wait_or_fail(x: int) -> None:
        while x == 0 and not over.exists():
            time.sleep(0.01)
        raise ValueError(x)

    with pytest.raises(MapError) as caught:
        pmap(wait_or_fail, range(40), backend=backend, workers=2, chunksize=1, on_error="return", max_failures=3)
    over.touch()
    failed = {x for x, result in enumerate(caught.value.results) if type(result) is ValueError}
    cancelled = {x for x, result in enumerate(caught.value.results) if type(result) is CancelledError}
    assert 0 in cancelled
    assert failed == {found.index for found in caught.value.failures}
    assert failed | cancelled == set(range(len(caught.value.results)))


def skip_where_nothing_runs_beside(backend: Backend) -> None:
    if backend.traits.inline:
        pytest.skip("one item after another")


@pytest.mark.parametrize("ordered", [True, False])
def test_a_lazy_hopeless_map_has_handed_out_what_succeeded(backend: Backend, ordered: bool) -> None:
    results = pmap(
        odd_fails, range(1000), backend=backend, workers=2, lazy=True, ordered=ordered, on_error="skip", max_failures=5
    )
    got, error = take(results)
    assert isinstance(error, MapError)
    assert error.results == ()
    failed = [found.index for found in error.failures]
    assert failed == sorted(failed)
    assert len(failed) > 5
    assert all(x % 2 == 0 for x in got)
    assert got == sorted(got) or not ordered
    assert take(results) == ([], None)


# --- retries ------------------------------------------------------------------------------------------------------------


def fails_first(folder: Path, times: int) -> Callable[[int], int]:
    """Return a function that fails so often for each item, counting in files."""

    def flaky(x: int) -> int:
        attempt = len(list(folder.glob(f"{x}-*")))
        (folder / f"{x}-{attempt}").touch()
        if attempt < times:
            raise ConnectionError(f"attempt {attempt}")
        return x

    return flaky


def test_a_failed_item_is_tried_again(backend: Backend, tmp_path: Path) -> None:
    events: list[Event] = []
    results = pmap(fails_first(tmp_path, 2), range(5), backend=backend, workers=2, retries=2, progress=events.append)
    assert results == list(range(5))
    assert len(list(tmp_path.iterdir())) == 15
    assert isinstance(events[-1], Finished)
    assert (events[-1].retried, events[-1].failed, events[-1].done) == (10, 0, 5)


def test_retries_and_losses_are_told_while_the_map_runs(tmp_path: Path) -> None:
    events: list[Event] = []
    told = tmp_path / "told"

    def tell(event: Event) -> None:
        events.append(event)
        if isinstance(event, Advanced) and (event.retried, event.lost) == (2, 1):
            told.touch()

    def die_or_fail_first(x: int) -> int:
        trace = tmp_path / str(x)
        if not trace.exists():
            trace.touch()
            os.kill(os.getpid(), signal.SIGKILL) if x == 1 else raise_it(ValueError(x))
        while x == 0 and not told.exists():
            time.sleep(0.01)
        return x

    assert pmap(die_or_fail_first, [1, 0], backend="processes", workers=1, retries=1, progress=tell) == [1, 0]
    assert told.exists()
    assert isinstance(events[-1], Finished)
    assert (events[-1].retried, events[-1].lost, events[-1].failed) == (2, 1, 0)


def test_after_the_last_attempt_the_error_says_how_many_there_were(backend: Backend, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="attempt 2") as caught:
        pmap(fails_first(tmp_path, 9), [0], backend=backend, retries=2)
    assert "3 attempts" in notes(caught.value)
    found = failure(caught.value)
    assert found is not None
    assert found.attempts == 3


def test_only_the_errors_named_are_tried_again(backend: Backend, tmp_path: Path) -> None:
    flaky = fails_first(tmp_path, 1)
    with pytest.raises(ConnectionError):
        pmap(flaky, [0], backend=backend, retries=Retry(3, on=TimeoutError))
    assert pmap(flaky, [1], backend=backend, retries=Retry(3, on=(TimeoutError, OSError))) == [1]


def test_retries_wait_as_long_as_they_were_told(backend: Backend, tmp_path: Path) -> None:
    began = time.monotonic()
    flaky = fails_first(tmp_path, 2)
    assert pmap(flaky, range(3), backend=backend, workers=2, retries=Retry(2, backoff=0.1, jitter=0.01)) == [0, 1, 2]
    assert time.monotonic() - began >= 0.3


def test_lazily_a_retried_item_keeps_its_place(backend: Backend, tmp_path: Path) -> None:
    flaky = fails_first(tmp_path, 1)
    assert list(pmap(flaky, range(30), backend=backend, workers=2, retries=1, lazy=True, chunksize=4)) == list(
        range(30)
    )


# --- a worker dies ------------------------------------------------------------------------------------------------------

CALLER = os.getpid()


def segfault() -> None:
    faulthandler.disable()  # a fork of pytest would tell at length
    ctypes.string_at(0)


DEATHS: dict[str, Callable[[], object]] = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(7),
    "segfault": segfault,
}


def dies_on(item: int, how: str = "SIGKILL") -> Callable[[int], int]:
    caller, die = CALLER, DEATHS[how]

    def die_on_it(x: int) -> int:
        if x == item:
            assert os.getpid() != caller
            die()
        return x

    return die_on_it


@in_killable_processes
@pytest.mark.parametrize("how", DEATHS)
def test_a_worker_killed_on_one_item_at_every_attempt_costs_that_item_only(name: str, how: str) -> None:
    results = pmap(dies_on(13, how), range(40), backend=name, workers=2, on_error="return")
    assert results[:13] + results[14:] == [x for x in range(40) if x != 13]
    error = results[13]
    assert type(error) is WorkerLost
    found = failure(error)
    assert found is not None
    assert (found.index, found.attempts) == (13, 1)
    assert "item 13 (13)" in str(error)
    assert {"SIGKILL": "SIGKILL", "exit": "exit code 7", "segfault": "SIGSEGV"}[how] in str(error)
    assert error.exitcode == {"SIGKILL": -9, "exit": 7, "segfault": -11}[how]


@in_killable_processes
def test_an_item_that_kills_among_thousands_of_quick_ones_is_the_one_that_is_named(name: str) -> None:
    results = pmap(dies_on(4321), range(5000), backend=name, workers=2, on_error="return", chunksize=2500)
    assert [x for x, value in enumerate(results) if value != x] == [4321]
    assert isinstance(results[4321], WorkerLost)


@pytest.mark.dask
def test_a_dask_worker_killed_on_one_item_at_every_attempt_costs_that_item_only() -> None:
    # On a cluster of its own: that of the other tests would have to start its workers anew.
    results = pmap(dies_on(5), range(12), backend="dask", workers=2, on_error="return")
    assert results[:5] + results[6:] == [x for x in range(12) if x != 5]
    assert type(results[5]) is WorkerLost
    assert "item 5 (5)" in str(results[5])
    anymap.shutdown()


@pytest.mark.parametrize("name", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in [*KILLING, "dask"]])
def test_the_death_of_a_worker_is_raised_promptly(name: str, tmp_path: Path) -> None:
    die = dies_on(3)

    def slow(x: int) -> int:
        (tmp_path / f"{x}").touch()
        die(x)
        time.sleep(0.05)  # what is measured: how many of these still run
        return x

    pmap(abs, range(4), backend=name, workers=2)
    began = time.monotonic()
    with pytest.raises(WorkerLost, match=r"item 3 \(3\)"):
        pmap(slow, range(200), backend=name, workers=2, chunksize=1)
    assert time.monotonic() - began < 2.5
    assert len(list(tmp_path.iterdir())) <= 30
    if name == "dask":
        # It ran on a cluster of its own.
        anymap.shutdown()


@in_killable_processes
def test_several_items_that_kill_are_each_found(name: str) -> None:
    caller = CALLER

    def die_often(x: int) -> int:
        if x % 7 == 3:
            assert os.getpid() != caller
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    results = pmap(die_often, range(30), backend=name, workers=2, on_error="return")
    assert [x for x, value in enumerate(results) if isinstance(value, WorkerLost)] == [3, 10, 17, 24]
    assert [value for value in results if isinstance(value, int)] == [x for x in range(30) if x % 7 != 3]


@in_killable_processes
@pytest.mark.parametrize("chunksize", [None, 5])
def test_a_worker_that_dies_once_is_made_good_by_a_retry(name: str, chunksize: int | None, tmp_path: Path) -> None:
    caller, trace = CALLER, tmp_path / "died"
    events: list[Event] = []

    def dies_once(x: int) -> int:
        if x == 7 and not trace.exists():
            assert os.getpid() != caller
            trace.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    results = pmap(
        dies_once, range(20), backend=name, workers=2, retries=1, chunksize=chunksize, progress=events.append
    )
    assert results == list(range(20))
    assert isinstance(events[-1], Finished)
    assert (events[-1].retried, events[-1].lost, events[-1].failed) == (1, 1, 0)


@in_killable_processes
def test_without_retries_the_item_that_killed_is_not_started_again(name: str, tmp_path: Path) -> None:
    caller = CALLER

    def dies_and_tells(x: int) -> int:
        with (tmp_path / f"{x}").open("a") as file:
            file.write("x")
        if x == 7:
            assert os.getpid() != caller
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    results = pmap(dies_and_tells, range(20), backend=name, workers=2, chunksize=1, on_error="return")
    assert type(results[7]) is WorkerLost
    runs = {file.name: len(file.read_text()) for file in tmp_path.iterdir()}
    assert runs["7"] == 1
    assert len(runs) == 20
    if name == "processes":
        # Elsewhere the whole pool is lost with one worker, and what its other workers ran is run again.
        assert set(runs.values()) == {1}


@in_killable_processes
def test_a_worker_that_dies_loading_its_item_died_on_that_item(name: str) -> None:
    results = pmap(type, [1, KillsWhoLoads(), 3, 4], backend=name, workers=2, chunksize=4, on_error="return")
    assert [results[0], *results[2:]] == [int, int, int]
    assert type(results[1]) is WorkerLost


@pytest.mark.dask
def test_a_dask_worker_whose_cluster_is_killed_before_it_begins_ends_too(tmp_path: Path) -> None:
    code = f"""
import os, signal
from anymap.backends._dask import cluster_process
from anymap._worker import spec
from anymap._host import framing
worker = cluster_process.start(spec.current(1), cluster_process.run_worker, {str(tmp_path)!r})
os.kill(worker.process.pid, signal.SIGSTOP)
framing.send(worker.line.fileno(), b"tcp://127.0.0.1:9")
print(worker.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    # Not run_program: the worker has the same pipe, and would be waited for.
    with subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        worker = psutil.Process(int(program.stdout.readline()))
        program.wait(LONG)
        try:
            worker.resume()
            worker.wait(LONG)
        except psutil.TimeoutExpired:
            worker.kill()
            raise


class KillsWhoLoads:
    def __reduce__(self) -> Any:
        return kill_unless_caller, (CALLER,)


def kill_unless_caller(caller: int) -> None:
    assert os.getpid() != caller
    os.kill(os.getpid(), signal.SIGKILL)


@in_killable_processes
def test_a_worker_killed_between_two_maps_does_no_harm(name: str) -> None:
    pids = set(pmap(lambda _: os.getpid(), range(8), backend=name, workers=2))
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # not one that is kept
            continue
    assert pmap(abs, range(20), backend=name, workers=2) == list(range(20))


# --- time runs out ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["threads", *KILLING])
@pytest.mark.parametrize("chunksize", [None, 4])
def test_an_item_that_never_ends_times_out_and_the_others_are_right(
    name: str, chunksize: int | None, tmp_path: Path
) -> None:
    over = tmp_path / "over"

    def stick(x: int) -> int:
        while x == 5 and not over.exists():
            time.sleep(0.01)
        return x

    began = time.monotonic()
    results = pmap(stick, range(16), backend=name, workers=2, timeout=0.4, chunksize=chunksize, on_error="return")
    assert time.monotonic() - began < 10
    over.touch()
    assert results[:5] + results[6:] == [x for x in range(16) if x != 5]
    assert type(results[5]) is ItemTimeout
    assert isinstance(results[5], TimeoutError)
    assert "item 5 (5)" in str(results[5])
    assert "0.4" in str(results[5])
    found = failure(results[5])
    assert found is not None
    assert found.seconds >= 0.4


@pytest.mark.parametrize("name", ["threads", *KILLING])
def test_a_timeout_is_raised_at_its_deadline(name: str, tmp_path: Path) -> None:
    over = tmp_path / "over"

    def stick(x: int) -> int:
        while not over.exists():
            time.sleep(0.01)
        return x

    pmap(abs, range(4), backend=name, workers=2)
    began = time.monotonic()
    with pytest.raises(ItemTimeout):
        pmap(stick, range(16), backend=name, workers=2, timeout=0.3)
    assert 0.3 <= time.monotonic() - began < 2.5
    over.touch()


@pytest.mark.parametrize("name", ["threads", *KILLING])
def test_a_timeout_counts_for_each_attempt_from_its_start(name: str, tmp_path: Path) -> None:
    over = tmp_path / "over"

    def stick_once(x: int) -> int:
        trace = tmp_path / f"{x}"
        if not trace.exists():
            trace.touch()
            while not over.exists():
                time.sleep(0.01)
        return x

    assert pmap(stick_once, range(3), backend=name, workers=2, timeout=0.4, retries=1) == [0, 1, 2]
    over.touch()


@pytest.mark.joblib
@pytest.mark.timeout(60)
def test_joblib_s_threads_are_replaced_though_others_end_at_that_moment() -> None:
    def stay(x: int) -> int:
        time.sleep(0.5 if x < 4 else 0.0)
        return x

    with pytest.importorskip("joblib").parallel_config("threading"):
        found = pmap(
            stay, range(12), backend="joblib", workers=2, timeout=0.2, chunksize=1, retries=1, on_error="return"
        )
    assert [x for x in range(12) if found[x] != x] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in KILLING[:2]])
def test_an_item_that_a_worker_begins_before_it_is_killed_for_another_is_not_to_blame(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    late, began = tmp_path / "late", tmp_path / "began"
    kind = getattr(anymap.backends, name.capitalize())
    kill = kind.kill

    def kill_too_late(self: Any, pid: int) -> None:
        late.touch()
        wait_for(began)
        kill(self, pid)

    def stay(x: int) -> int:
        if x == 0:
            wait_for(late)  # and so ends after all
        elif not began.exists():
            began.touch()
            time.sleep(LONG)
        return x

    monkeypatch.setattr(kind, "kill", kill_too_late)
    assert pmap(stay, range(2), backend=name, workers=1, timeout=1, chunksize=1) == [0, 1]


def wait_for(file: Path) -> None:
    give_up = time.monotonic() + LONG
    while not file.exists() and time.monotonic() < give_up:
        time.sleep(0.01)


def test_threads_are_as_many_as_before_when_one_was_given_up() -> None:
    began, over = threading.Event(), threading.Event()
    both = threading.Barrier(2)

    def stick() -> None:
        began.set()
        over.wait(LONG)

    def meet() -> None:
        both.wait(5)

    backend = Threads().fresh()
    backend.open(2)
    stuck = backend.submit(stick)  # type: ignore[arg-type] - to the backend a task is no more than a callable
    assert began.wait(LONG)
    backend.abandon(stuck)
    for _ in ("while it is stuck", "after it has ended"):
        for met in [backend.submit(meet) for _ in range(2)]:  # type: ignore[arg-type]
            met.result(LONG)
        over.set()
    backend.close(abandon=False)


@pytest.mark.parametrize("name", ["threads", pytest.param("joblib", marks=pytest.mark.joblib)])
def test_what_was_given_to_others_is_not_taken_back_when_a_late_item_ends_after_all(name: str) -> None:
    over = threading.Event()
    ran: list[int] = []
    before = set(threading.enumerate())

    def workers() -> list[str]:
        names = [thread.name for thread in threading.enumerate() if thread not in before]
        return [name for name in names if name == "anymap-thread" or name.endswith("(worker)")]

    def stick(x: int) -> int:
        ran.append(x)
        if x == 0:
            over.wait(LONG)
        return x

    options: dict[str, Any] = {"timeout": 1, "chunksize": 4, "lazy": True, "on_error": "return"}
    with (
        pytest.importorskip("joblib").parallel_config("threading"),
        pmap(stick, range(20), backend=name, workers=2, **options) as results,
    ):
        found = []
        for result in results:
            found.append(result)
            if isinstance(result, ItemTimeout):
                over.set()
                # It had a worker's place, which another thread has now: with both there would be a worker too many.
                assert len(workers()) >= 2
                assert conftest.left(lambda: workers()[2:]) == []
    assert found[1:] == list(range(1, 20))
    assert sorted(ran) == list(range(20))


@pytest.mark.parametrize("name", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in KILLING])
def test_where_items_are_not_to_be_shown_lost_and_late_ones_are_not_either(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANYMAP_SHOW_ITEMS", "off")

    def die_or_stick(how: str) -> None:
        if how == "secret-die":
            os._exit(3)
        threading.Event().wait()

    lost, late = pmap(die_or_stick, ["secret-die", "secret-stick"], backend=name, timeout=0.4, on_error="return")
    assert (type(lost), type(late)) == (WorkerLost, ItemTimeout)
    for index, error in enumerate((lost, late)):
        printed = "".join(traceback.format_exception(error))
        assert f"item {index} " in printed
        assert "secret" not in printed
        found = failure(error)
        assert found is not None
        assert found.item.startswith("secret")


def test_waiting_in_a_queue_is_not_counted() -> None:
    # Ten items of a tenth of a second each in one chunk of one worker: none of them is late.
    def wait(x: int) -> int:
        time.sleep(0.05)  # the work
        return x

    assert pmap(wait, range(10), backend="processes", workers=1, chunksize=10, timeout=0.4) == list(range(10))


def test_where_a_timeout_cannot_be_kept_that_is_said() -> None:
    with pytest.warns(UserWarning, match="timeout=1 is not enforced"):
        assert pmap(abs, [-1], backend="serial", timeout=1) == [1]

    class FarAway(Threads):
        traits = Traits(remote=True)

    with pytest.raises(UnsupportedOption, match="'processes'"):
        pmap(abs, [-1], backend=FarAway(), timeout=1)


def test_a_stuck_thread_does_not_keep_the_program_from_exiting() -> None:
    code = (
        "import threading\n"
        "from anymap import pmap\n"
        "stick = lambda x: threading.Event().wait() if x == 1 else x\n"
        "print(pmap(stick, range(3), backend='threads', workers=2, timeout=0.2, on_error='skip'))"
    )
    done = run_program(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 2]\n", "")


# --- where maps are called ----------------------------------------------------------------------------------------------


def run_program(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def test_a_map_inside_a_map_is_right(backend: Backend) -> None:
    def outer(x: int) -> list[int]:
        return pmap(lambda y: x * y, range(4))

    assert pmap(outer, range(4), backend=backend, workers=2) == [[x * y for y in range(4)] for x in range(4)]


def test_a_map_inside_a_map_inside_a_map_is_right(backend: Backend) -> None:
    def outer(x: int) -> list[list[int]]:
        return pmap(lambda y: pmap(lambda z: x * y * z, range(3)), range(3))

    expected = [[[x * y * z for z in range(3)] for y in range(3)] for x in range(3)]
    assert pmap(outer, range(3), backend=backend, workers=2) == expected


def test_a_map_inside_a_worker_is_serial_unless_it_is_told_otherwise(backend: Backend) -> None:
    def outer(_: int) -> tuple[bool, bool]:
        here = (os.getpid(), threading.get_ident())
        return (
            set(pmap(lambda _: (os.getpid(), threading.get_ident()), range(4))) == {here},
            set(pmap(lambda _: (os.getpid(), threading.get_ident()), range(4), backend="threads")) != {here},
        )

    assert pmap(outer, range(2), backend=backend, workers=2) == [(True, True)] * 2


def nested(x: int, names: list[str]) -> Any:
    """Return ``x``, or what a map on the first of the backends named returns of such maps on the others."""
    if not names:
        return x
    return pmap(lambda y: nested(x + y, names[1:]), range(2), backend=names[0], workers=2)


def expected_of_nested(x: int, levels: int) -> Any:
    return [expected_of_nested(x + y, levels - 1) for y in range(2)] if levels else x


def check_nested(backend: Backend, names: list[str]) -> None:
    results = pmap(lambda x: nested(x, names), range(2), backend=backend, workers=2, on_error="return")
    for x, result in enumerate(results):
        if isinstance(result, UnsupportedOption):
            # A fork of pathos may not have pathos below it.
            assert "pathos" in str(result)
            assert [backend.name, *names].count("pathos") > 1
        else:
            assert result == expected_of_nested(x, len(names))
    if "dask" in names:
        # Workers that are kept warm have made clusters of their own.
        anymap.shutdown()


@pytest.mark.full
@pytest.mark.parametrize("inner", ALL)
def test_every_backend_works_inside_every_other_or_says_that_it_cannot(backend: Backend, inner: str) -> None:
    check_nested(backend, [inner])


@pytest.mark.long
@pytest.mark.parametrize("step", [0, 1])
def test_backends_work_three_deep_or_say_that_they_cannot(backend: Backend, step: int) -> None:
    # Each in itself in itself, and in a ring: so each stands at each level. All pairs are tested above.
    first = ALL.index(backend.name)
    check_nested(backend, [ALL[(first + step) % 6], ALL[(first + 2 * step) % 6]])


@pytest.mark.dask
@pytest.mark.parametrize("beside", ["threads", "pathos"])
def test_a_map_on_dask_beside_a_dask_task_does_not_wait_for_the_tasks_own_slot(dask_cluster: str, beside: str) -> None:
    backend = anymap.backends.Dask(scheduler_file=dask_cluster)
    check_nested(backend, ["dask"])  # from here on the workers have clients
    check_nested(backend, [beside, "dask"])


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("middle", ALL)
@pytest.mark.parametrize("inner", ALL)
def test_every_backend_works_in_every_other_in_every_other(backend: Backend, middle: str, inner: str) -> None:
    check_nested(backend, [middle, inner])


def test_an_error_in_an_inner_map_names_both_items(backend: Backend) -> None:
    def outer(x: int) -> list[float]:
        return pmap(invert, [1, x])

    with pytest.raises(ZeroDivisionError) as caught:
        pmap(outer, [5, 0], backend=backend, workers=2)
    found = failure(caught.value)
    assert found is not None
    assert (found.index, found.item) == (1, 0)
    assert notes(caught.value).count("item 1 (0)") == 2


def test_a_hundred_maps_from_eight_threads_are_all_right(backend: Backend) -> None:
    def one(number: int) -> bool:
        return pmap(lambda x: x * number, range(20), backend=backend, workers=2) == [x * number for x in range(20)]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(one, range(100)))


def test_a_map_may_be_called_in_another_thread(backend: Backend) -> None:
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.extend(pmap(abs, range(-5, 0), backend=backend, workers=2)))
    thread.start()
    thread.join(LONG)
    assert results == [5, 4, 3, 2, 1]


def test_a_map_may_be_called_inside_a_running_event_loop(backend: Backend) -> None:
    async def main() -> list[int]:
        await asyncio.sleep(0)
        return pmap(abs, range(-5, 0), backend=backend, workers=2)

    assert asyncio.run(main()) == [5, 4, 3, 2, 1]


def test_a_map_may_be_called_by_to_thread(backend: Backend) -> None:
    async def main() -> list[list[int]]:
        maps = (asyncio.to_thread(pmap, abs, [-x], backend=backend, workers=2) for x in range(3))
        return await asyncio.gather(*maps)

    assert asyncio.run(main()) == [[0], [1], [2]]


@pytest.mark.full
@pytest.mark.parametrize("name", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ALL])
@pytest.mark.parametrize("used_before", [False, True])
def test_at_exit_a_map_is_right_or_says_that_it_cannot(name: str, used_before: bool) -> None:
    code = f"""
import atexit
from anymap import pmap
def last():
    try:
        print(pmap(lambda x: x + 1, range(3), backend={name!r}, workers=2))
    except Exception as exc:
        print(type(exc).__name__, exc)
atexit.register(last)
if {used_before}:
    pmap(abs, [1, 2, 3], backend={name!r}, workers=2)
print("done")
"""
    done = run_program(code)
    first, last = done.stdout.splitlines()
    assert first == "done"
    assert last == "[1, 2, 3]" or re.search("shut ?down|exit|finaliz|atexit", last), last
    assert done.returncode == 0
    # loky's own clean-up complains of locks made so late.
    assert "Traceback" not in done.stderr or name == "joblib", done.stderr


@pytest.mark.parametrize("name", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ALL])
def test_after_the_caller_has_forked_maps_are_right_on_both_sides(name: str) -> None:
    code = f"""
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from anymap import pmap
def ok():
    return pmap(lambda x: x + 1, range(5), backend={name!r}, workers=2) == [1, 2, 3, 4, 5]
assert ok()
pid = os.fork()
if not pid:
    os._exit(0 if ok() else 3)
assert ok()
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert ok()
print("done")
"""
    done = run_program(code)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.dask
@pytest.mark.parametrize("given", [True, False])
def test_a_dask_client_from_before_a_fork_is_replaced_in_the_child(dask_cluster: str, given: bool) -> None:
    code = f"""
import os, warnings
from distributed import Client
from anymap import pmap
from anymap.backends import Dask
warnings.simplefilter("ignore", DeprecationWarning)
client = Client(scheduler_file={dask_cluster!r}, set_as_default={not given})
backend = Dask(client=client) if {given} else Dask()
def workers():
    return set(pmap(lambda _: os.getpid(), range(5), backend=backend))
of_the_cluster = set(client.run(os.getpid).values())
assert workers() <= of_the_cluster
pid = os.fork()
if not pid:
    os._exit(0 if workers() <= of_the_cluster else 3)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert workers() <= of_the_cluster
client.close()
print("done")
"""
    done = run_program(code)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


# Threads hold a module's import lock, a log handler's and that of stdin; others take and free those of logging, of
# importing and of stdout all the time, and the interpreter switches between all of them as often as it can.
HOLDING_LOCKS = """
import builtins, importlib, logging, os, sys, threading
import anymap
from anymap import pmap

caller, over, ready = os.getpid(), threading.Event(), threading.Barrier(6)
builtins.hold = lambda: (ready.wait(), over.wait())
handler = logging.StreamHandler()
logging.getLogger().addHandler(handler)
reader, writer = os.pipe()
os.dup2(reader, 0)

def use_locks(x):
    if os.getpid() != caller:
        import held_module
        logging.getLogger("worker").setLevel(logging.INFO)
        logging.basicConfig()
        if sys.stdin is not None:  # early versions of loky give workers none
            sys.stdin.close()
        sys.stderr.write("from a worker. ")
    return x + 1

def hold_a_handlers_lock():
    with handler.lock:
        builtins.hold()

def hold_stdin():
    ready.wait()
    sys.stdin.readline()

def take_and_free(act):
    ready.wait()
    while not over.is_set():
        act()

def log_and_print():
    logging.getLogger("quiet").warning("x")
    print(end="", flush=True)

def import_anew():
    sys.modules.pop("light_module", None)
    importlib.import_module("light_module")

logging.getLogger("quiet").addHandler(logging.NullHandler())
logging.getLogger("quiet").propagate = False
holders = [
    threading.Thread(target=importlib.import_module, args=("held_module",)),
    threading.Thread(target=hold_a_handlers_lock),
    threading.Thread(target=hold_stdin),
    threading.Thread(target=take_and_free, args=(log_and_print,)),
    threading.Thread(target=take_and_free, args=(import_anew,)),
]
sys.setswitchinterval(1e-6)
for thread in holders:
    thread.start()
ready.wait()
try:
    for _ in range(2):
        assert pmap(use_locks, range(6), backend=name, workers=2) == [1, 2, 3, 4, 5, 6]
        anymap.shutdown()
finally:
    over.set()
    os.write(writer, bytes([10]))
for thread in holders:
    thread.join()
print("done")
"""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ALL if name != "pathos"]
)
def test_locks_that_other_threads_hold_while_workers_are_started_are_no_trouble(name: str, tmp_path: Path) -> None:
    (tmp_path / "held_module.py").write_text("import builtins\ngetattr(builtins, 'hold', int)()")
    (tmp_path / "light_module.py").touch()
    done = run_program(f"name = {name!r}\n{HOLDING_LOCKS}", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert not done.stderr.replace("from a worker. ", "")


# --- sizes and depths ---------------------------------------------------------------------------------------------------


def test_endless_recursion_is_its_items_error(backend: Backend) -> None:
    def deeper(x: int) -> int:
        return deeper(x + 1)

    results = pmap(lambda x: deeper(x) if x == 1 else x, range(4), backend=backend, workers=2, on_error="return")
    assert isinstance(results[1], RecursionError)
    assert results[:1] + results[2:] == [0, 2, 3]


def test_results_too_deep_to_be_pickled_are_their_items_errors(backend: Backend) -> None:
    skip_where_memory_is_shared(backend)

    def nest(x: int) -> Any:
        nested: list[Any] = []
        for _ in range(100_000 if x == 1 else 1):
            nested = [nested]
        return nested

    results = pmap(nest, range(3), backend=backend, workers=2, on_error="return")
    assert results[0] == results[2] == [[]]
    assert isinstance(results[1], NotPicklable | RecursionError)


def test_out_of_memory_is_its_items_error(backend: Backend) -> None:
    results = pmap(lambda x: bytes(2**62) if x == 1 else x, range(4), backend=backend, workers=2, on_error="return")
    assert isinstance(results[1], MemoryError | OverflowError)
    assert results[:1] + results[2:] == [0, 2, 3]


def test_a_sink_that_raises_does_not_end_the_map(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    def sink(event: Event) -> None:
        if isinstance(event, Advanced | Finished):
            raise RuntimeError("the sink is broken")

    assert pmap(abs, range(5), backend=backend, workers=2, progress=sink) == list(range(5))
    assert "the sink is broken" in caplog.text
