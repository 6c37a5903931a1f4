from __future__ import annotations

import functools
import inspect
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import anymap
from anymap import ConfigError, Retry, _map, pmap
from anymap._host import cpus
from anymap.backends import Backend, Processes, Serial, Threads, _registry
from anymap.progress import Started

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BACKEND", "FORCE_BACKEND", "WORKERS", "PROGRESS", "SHOW_ITEMS"):
        monkeypatch.delenv(f"ANYMAP_{name}", raising=False)


@pytest.fixture
def four_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "available", lambda: 4)


def start(*iterables: Any, **options: Any) -> Started:
    """Run a map and return what it says of itself at its start."""
    events: list[Any] = []
    pmap(lambda *items: items, *iterables or ([1],), **{"progress": events.append} | options)
    assert isinstance(events[0], Started)
    return events[0]


def inner_backend(_: int, **options: Any) -> str:
    return start(**options).backend


def not_to_be_pulled() -> Iterator[int]:
    pytest.fail("the input was read")
    yield 1


# --- the call -----------------------------------------------------------------------------------------------------


def test_the_signature_is_the_one_that_is_promised() -> None:
    parameters = inspect.signature(pmap).parameters.values()
    assert [(one.name, one.kind.name) for one in parameters][:2] == [
        ("func", "POSITIONAL_ONLY"),
        ("iterables", "VAR_POSITIONAL"),
    ]
    assert {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY} == {
        "backend": None,
        "workers": None,
        "ordered": True,
        "lazy": False,
        "prefer": None,
        "require": None,
        "progress": None,
        "desc": None,
        "total": None,
        "on_error": "raise",
        "max_failures": None,
        "retries": None,
        "timeout": None,
        "chunksize": None,
        "window": None,
        "seed": None,
    }


def test_type_checkers_know_each_keyword() -> None:
    keywords = {one.name for one in inspect.signature(pmap).parameters.values() if one.kind is one.KEYWORD_ONLY}
    overloads = (
        _map.ToList,
        _map.ToListWithErrors,
        _map.ToIterator,
        _map.ToIteratorWithErrors,
        _map.ToEither,
        _map.ToEitherWithErrors,
    )
    assert _map.Options.__annotations__.keys() == keywords - {"lazy", "on_error"}
    assert all(options.__annotations__.keys() == keywords for options in overloads)


def test_each_keyword_is_explained() -> None:
    text = inspect.getdoc(pmap)
    assert text is not None
    for keyword in _map.ToList.__annotations__:
        assert f"\n    {keyword}: " in text


@pytest.mark.parametrize("arguments", [(), (abs,)])
def test_without_an_iterable_nothing_can_be_mapped(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match=r"func|at least one iterable"):
        pmap(*arguments)


@pytest.mark.parametrize("func", [None, "abs", [1, 2], 3])
def test_the_first_argument_must_be_a_function(func: Any) -> None:
    with pytest.raises(TypeError, match="first argument must be a function"):
        pmap(func, not_to_be_pulled())


def test_a_large_input_in_the_place_of_the_function_makes_no_large_message() -> None:
    with pytest.raises(TypeError) as raised:
        pmap(list(range(100_000)), abs)  # type: ignore[call-overload]
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(("iterables", "position"), [((3,), 1), ((not_to_be_pulled(), None), 2), (("ab", abs), 2)])
@pytest.mark.parametrize("lazy", [False, True])
def test_what_is_no_iterable_is_named_by_its_place(iterables: tuple[Any, ...], position: int, lazy: bool) -> None:
    with pytest.raises(
        TypeError, match=f"iterable {position} is not iterable but of type '{type(iterables[-1]).__name__}'"
    ):
        pmap(lambda *items: items, *iterables, lazy=lazy)


def test_the_old_protocol_of_sequences_will_do() -> None:
    class Squares:
        def __getitem__(self, index: int) -> int:
            if index > 3:
                raise IndexError
            return index * index

    squares: Any = Squares()
    assert pmap(float, squares, backend="serial") == [0.0, 1.0, 4.0, 9.0]


def test_a_limit_on_failures_makes_no_sense_where_the_first_ends_the_map() -> None:
    with pytest.raises(anymap.ConfigError, match="on_error='return'"):
        pmap(abs, [1], max_failures=3)


def test_a_misspelt_keyword_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'worker'"):
        pmap(abs, not_to_be_pulled(), worker=2)  # type: ignore[call-overload]


def test_the_function_has_no_name_of_its_own() -> None:
    with pytest.raises(TypeError, match="func"):
        pmap(func=abs, a=[1])  # type: ignore[call-overload]


WRONG = [
    ("backend", 1, "backend's name"),
    ("backend", object, "backend's name"),
    ("backend", object(), "backend's name"),
    ("workers", 0, "1 or more"),
    ("workers", 0.5, "'50%'"),
    ("workers", 2.0, "whole number"),
    ("workers", np.float32(2), "whole number"),
    ("workers", True, "whole number"),
    ("workers", "two", "whole number"),
    ("workers", "0", "1 or more"),
    ("workers", "0%", "100 %"),
    ("workers", "101%", "100 %"),
    ("workers", "-50%", "'50%'"),
    ("workers", [2], "whole number"),
    ("ordered", "yes", "True or False"),
    ("ordered", None, "True or False"),
    ("lazy", "no", "True or False"),
    ("lazy", 2, "True or False"),
    ("prefer", "serial", "'threads', 'processes'"),
    ("prefer", True, "'threads', 'processes'"),
    ("require", "sharedmem", "'shared_memory'"),
    ("progress", "bra", "'bar'"),
    ("progress", 3, "True"),
    ("desc", 3, "a string"),
    ("desc", b"load", "a string"),
    ("total", -1, "0 or more"),
    ("total", 2.5, "whole number"),
    ("total", "2", "whole number"),
    ("on_error", "ignore", "'raise', 'return', 'skip', 'group'"),
    ("on_error", None, "'raise'"),
    ("on_error", ["skip"], "'skip'"),
    ("max_failures", -1, "0 or more"),
    ("max_failures", 0.05, "'5%'"),
    ("max_failures", "5", "'5%'"),
    ("max_failures", "101%", "'100%'"),
    ("max_failures", True, "a count"),
    ("retries", -1, "0 or more"),
    ("retries", 1.0, "Retry"),
    ("retries", "3", "Retry"),
    ("retries", True, "Retry"),
    ("timeout", 0, "above 0"),
    ("timeout", -1.5, "above 0"),
    ("timeout", float("nan"), "above 0"),
    ("timeout", "1", "seconds"),
    ("timeout", True, "seconds"),
    ("chunksize", 0, "1 or more"),
    ("chunksize", 1.5, "whole number"),
    ("chunksize", "10", "whole number"),
    ("chunksize", True, "whole number"),
    ("window", 0, "1 or more"),
    ("window", -1, "1 or more"),
    ("window", 10.0, "whole number"),
]


@pytest.mark.parametrize(("keyword", "value", "allowed"), WRONG, ids=lambda value: str(value)[:20])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_wrong_value_is_refused_by_name_with_what_is_allowed(
    keyword: str, value: Any, allowed: str, lazy: bool
) -> None:
    with pytest.raises(ConfigError) as raised:
        pmap(abs, not_to_be_pulled(), **{"backend": "serial", "lazy": lazy} | {keyword: value})
    assert isinstance(raised.value, ValueError)
    message = str(raised.value)
    assert keyword in message
    assert (value if isinstance(value, str) else repr(value)) in message
    assert allowed in message


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"times": -1}, "-1"),
        ({"times": 1.5}, "1.5"),
        ({"times": 1, "on": OSError("no type")}, "on must be a type of exception"),
        ({"times": 1, "on": (OSError, "ValueError")}, "on must be a type of exception"),
        ({"times": 1, "on": KeyboardInterrupt}, "on must be a type of exception"),
        ({"times": 1, "backoff": -1}, "backoff must be a number of seconds, 0 or more, not -1"),
        ({"times": 1, "jitter": "1"}, "jitter must be a number of seconds, 0 or more, not '1'"),
        ({"times": 1, "jitter": float("nan")}, "jitter must be"),
    ],
    ids=str,
)
def test_a_retry_refuses_what_it_cannot_follow(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Retry(**arguments)


def test_numbers_and_flags_may_be_numpy_s() -> None:
    assert start(workers=np.int64(3), backend="threads").workers == 3
    assert start(total=np.int32(7)).total == 7
    options: Any = {
        "ordered": np.bool_(True),
        "chunksize": np.int64(2),
        "window": np.int64(5),
        "timeout": np.float64(60),
    }
    assert pmap(abs, [-1, -2], backend="threads", max_failures=np.int64(1), on_error="skip", **options) == [1, 2]
    assert isinstance(pmap(abs, [-1], lazy=np.bool_(True)), anymap.MapIterator)


# --- workers ------------------------------------------------------------------------------------------------------

COUNTS = [
    (None, 4),
    (3, 3),
    (9, 9),
    (-1, 4),
    (-2, 3),
    (-4, 1),
    (-9, 1),
    ("50%", 2),
    ("1%", 1),
    (" 100 % ", 4),
    ("2", 2),
]


@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize(("workers", "count"), [*COUNTS, ("37.5%", 2), ("-1", 4)])
def test_workers_are_counted_from_the_cpus_there_are(workers: Any, count: int) -> None:
    assert start(backend="threads", workers=workers).workers == count


@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize(("workers", "count"), [(text, count) for text, count in COUNTS if isinstance(text, str)])
def test_the_environment_says_workers_in_the_same_words(
    monkeypatch: pytest.MonkeyPatch, workers: str, count: int
) -> None:
    monkeypatch.setenv("ANYMAP_WORKERS", workers)
    assert start(backend="threads").workers == count
    assert start(backend="threads", workers=1).workers == 1


# --- which backend ------------------------------------------------------------------------------------------------


def test_left_alone_a_map_runs_in_processes() -> None:
    assert start(workers=1).backend == "processes"


@pytest.mark.parametrize("backend", ["threads", Threads, Threads()], ids=["name", "class", "instance"])
def test_a_backend_may_be_a_name_a_class_or_an_instance(backend: Any) -> None:
    assert start(backend=backend).backend == "threads"


def test_an_instance_is_not_used_up() -> None:
    class Opened(Serial):
        name = "opened"
        opened = 0

        def open(self, workers: int | None) -> None:
            super().open(workers)
            self.opened += 1

    backend = Opened()
    assert [start(backend=backend).backend for _ in range(2)] == ["opened", "opened"]
    assert backend.opened == 0


@pytest.mark.parametrize(
    ("name", "nearest"), [("procesess", "processes"), ("thread", "threads"), ("jobllib", "joblib"), ("Dask", "dask")]
)
def test_a_misspelt_backend_is_answered_with_the_nearest_one(name: str, nearest: str) -> None:
    with pytest.raises(anymap.UnknownBackend, match=f"Did you mean '{nearest}'"):
        pmap(abs, not_to_be_pulled(), backend=name)


def test_a_name_like_no_other_is_answered_with_all_there_are() -> None:
    with pytest.raises(anymap.UnknownBackend) as raised:
        pmap(abs, not_to_be_pulled(), backend="xyzzy")
    assert "Did you mean" not in str(raised.value)
    assert all(info.name in str(raised.value) for info in anymap.available_backends())


def test_a_preference_holds_where_nobody_has_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert start(prefer="threads").backend == "threads"
    assert start(prefer="processes", workers=1).backend == "processes"
    assert start(prefer="threads", backend="serial").backend == "serial"
    monkeypatch.setenv("ANYMAP_BACKEND", "serial")
    assert start(prefer="threads").backend == "serial"


def test_what_needs_shared_memory_runs_in_threads_where_nobody_has_chosen() -> None:
    assert start(require="shared_memory").backend == "threads"
    assert start(require="shared_memory", prefer="processes").backend == "threads"
    assert start(require="shared_memory", backend="serial").backend == "serial"


@pytest.mark.parametrize("variable", [None, "ANYMAP_BACKEND", "ANYMAP_FORCE_BACKEND"])
def test_a_choice_that_has_no_shared_memory_gives_way_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    if variable is not None:
        monkeypatch.setenv(variable, "processes")
    seen: list[int] = []
    with pytest.warns(UserWarning, match="'processes' has not: it runs in threads") as warned:
        pmap(seen.append, [1, 2], backend=None if variable else Processes, require="shared_memory")
    assert sorted(seen) == [1, 2]
    assert [warning.filename for warning in warned] == [__file__]


def test_an_option_that_serial_cannot_keep_is_warned_of_where_the_call_stands() -> None:
    with pytest.warns(UserWarning, match=r"'serial' .* timeout=5 is not enforced") as warned:
        assert pmap(abs, [-1], backend="serial", timeout=5) == [1]
    assert [warning.filename for warning in warned] == [__file__]


# --- the environment ----------------------------------------------------------------------------------------------


def test_the_environment_chooses_where_the_call_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYMAP_BACKEND", "threads")
    assert start().backend == "threads"
    assert start(backend="serial").backend == "serial"


@pytest.mark.parametrize("asked", [None, "threads", Processes(), Threads])
def test_what_is_forced_beats_every_other_choice(monkeypatch: pytest.MonkeyPatch, asked: Any) -> None:
    monkeypatch.setenv("ANYMAP_BACKEND", "threads")
    monkeypatch.setenv("ANYMAP_FORCE_BACKEND", "serial")
    assert start(backend=asked, prefer="threads").backend == "serial"
    assert pmap(inner_backend, [1]) == ["serial"]


def test_what_is_forced_does_not_hide_a_wrong_keyword(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYMAP_FORCE_BACKEND", "serial")
    with pytest.raises(ConfigError, match="prefer"):
        start(prefer="fibers")
    with pytest.raises(ConfigError, match="require"):
        start(require="memory")


@pytest.mark.parametrize("name", ["BACKEND", "FORCE_BACKEND", "WORKERS", "PROGRESS", "SHOW_ITEMS"])
@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"ANYMAP_{name}", value)
    assert pmap(abs, [-1], prefer="threads") == [1]


@pytest.mark.parametrize(
    ("variable", "value", "hint"),
    [
        ("ANYMAP_BACKEND", "procesess", "Did you mean 'processes'"),
        ("ANYMAP_FORCE_BACKEND", "seriel", "Did you mean 'serial'"),
        ("ANYMAP_WORKERS", "many", "whole number"),
        ("ANYMAP_WORKERS", "0.5", "whole number"),
        ("ANYMAP_WORKERS", "0", "1 or more"),
        ("ANYMAP_WORKERS", "200%", "100 %"),
        ("ANYMAP_PROGRESS", "bra", "Did you mean 'bar'"),
        ("ANYMAP_SHOW_ITEMS", "no", "'on', 'off'"),
    ],
)
@pytest.mark.parametrize("lazy", [False, True])
def test_a_wrong_value_in_the_environment_is_refused_by_the_variable_s_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, hint: str, lazy: bool
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as raised:
        pmap(abs, not_to_be_pulled(), lazy=lazy)
    assert variable in str(raised.value)
    assert value in str(raised.value)
    assert hint in str(raised.value)


@pytest.mark.parametrize("variable", ["ANYMAP_BACKEND", "ANYMAP_FORCE_BACKEND"])
def test_what_the_environment_wants_but_is_not_installed_is_told_with_both(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setattr(_registry, "_registered", {})
    anymap.register("warp", "warp_drive:Warp", requires=("warp_drive",), install="pip install warp-drive")
    monkeypatch.setenv(variable, "warp")
    with pytest.raises(anymap.BackendUnavailable, match="pip install warp-drive") as raised:
        pmap(abs, not_to_be_pulled())
    assert raised.value.__notes__ == [f"anymap: {variable} asks for this backend"]


def test_the_environment_says_what_is_shown(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("ANYMAP_PROGRESS", "log")
    caplog.set_level(logging.INFO, "anymap.progress")
    pmap(abs, [-1], backend="serial", desc="quiet", progress=False)
    assert caplog.messages == []
    pmap(abs, [-1], backend="serial", desc="told")
    assert caplog.messages
    assert all(message.startswith("told: ") for message in caplog.messages)


def test_the_environment_says_what_is_shown_of_the_outermost_map_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ANYMAP_PROGRESS", "log")
    caplog.set_level(logging.INFO, "anymap.progress")
    pmap(lambda item: pmap(abs, [item], desc="inner"), [-1], backend="threads", desc="outer")
    assert caplog.messages
    assert all(message.startswith("outer: ") for message in caplog.messages)


# --- maps inside of maps ------------------------------------------------------------------------------------------


def test_a_map_inside_another_one_is_serial(backend: Backend) -> None:
    assert pmap(inner_backend, [1], backend=backend, workers=1) == ["serial"]


def test_inside_neither_the_environment_nor_a_preference_moves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYMAP_BACKEND", "threads")
    assert pmap(functools.partial(inner_backend, prefer="processes"), [1]) == ["serial"]
    assert start().backend == "threads"


def test_inside_a_backend_that_is_named_is_used() -> None:
    assert pmap(functools.partial(inner_backend, backend="threads"), [1], backend="processes") == ["threads"]


# --- the package --------------------------------------------------------------------------------------------------


def test_the_total_is_what_the_shortest_iterable_tells() -> None:
    assert start(range(5), "abc", backend="serial").total == 3
    assert start(range(5), iter("abc"), backend="serial").total is None
    assert start(range(5), iter("abc"), backend="serial", total=3).total == 3


def test_dir_shows_what_is_offered_before_any_of_it_is_loaded() -> None:
    assert set(dir(anymap)) == {*anymap.__all__, "__version__"}


def test_public_modules_are_attributes_of_the_package_and_show_public_names_only() -> None:
    program = (
        "import anymap\n"
        "modules = anymap, anymap.backends, anymap.compat, anymap.compat.p_tqdm, anymap.logs, anymap.progress, anymap.testing\n"
        "assert all(set(dir(module)) - {'__version__'} == set(module.__all__) for module in modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    "module", [anymap, anymap.backends, anymap.compat, anymap.progress], ids=lambda module: module.__name__
)
def test_what_is_not_there_is_an_attribute_error(module: Any) -> None:
    with pytest.raises(AttributeError, match=rf"module '{module.__name__}' has no attribute 'pamp'"):
        _ = module.pamp
